//! What makes an audit log tamper-evident: chain, Merkle tree and signed checkpoints.
//!
//! Anyone can recompute the chain and the tree, so they only order and bind the lines; what cannot
//! be forged is the Ed25519 signature (RFC 8032) over a checkpoint that names both.

use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use sha2::{Digest, Sha256};

/// A SHA-256 chain over lines, each of which names the hash of the one before it.
///
/// The hash is of the line's bytes alone, so that `sha256sum` can follow the chain.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Chain {
    /// The hash of the newest line; zeros before the first.
    pub head: [u8; 32],
    /// How many lines there are.
    pub count: u64,
}

impl Chain {
    /// Appends a line's bytes (without its line break), which name the present head.
    pub fn append(&mut self, line: &[u8]) {
        self.head = Sha256::digest(line).into();
        self.count += 1;
    }
}

/// The Merkle tree of RFC 6962 over lines, of which only the right edge is kept.
///
/// `edge` holds the roots of the complete subtrees, largest first: one for each bit set in `count`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tree {
    count: u64,
    edge: Vec<[u8; 32]>,
}

impl Tree {
    /// A tree that was kept; `None` if the parts do not fit together.
    pub fn from_parts(count: u64, edge: Vec<[u8; 32]>) -> Option<Self> {
        (usize::try_from(count.count_ones()).ok()? == edge.len()).then_some(Self { count, edge })
    }

    /// How many lines there are, and the roots of the complete subtrees, largest first.
    pub fn parts(&self) -> (u64, &[[u8; 32]]) {
        (self.count, &self.edge)
    }

    /// Appends a line: at most one hash for each level.
    pub fn append(&mut self, line: &[u8]) {
        let mut node = hash_leaf(line);
        for _ in 0..self.count.trailing_ones() {
            if let Some(left) = self.edge.pop() {
                node = hash_node(&left, &node);
            }
        }
        self.push(node);
    }

    /// Takes the last complete subtree off the edge.
    pub(crate) fn pop(&mut self) -> Option<[u8; 32]> {
        self.edge.pop()
    }

    /// Puts the subtree that a line completed onto the edge.
    pub(crate) fn push(&mut self, subtree: [u8; 32]) {
        self.edge.push(subtree);
        self.count += 1;
    }

    /// The root over all lines; SHA-256 of nothing for none.
    pub fn root(&self) -> [u8; 32] {
        let mut subtrees = self.edge.iter().rev();
        match subtrees.next() {
            None => Sha256::digest([]).into(),
            Some(smallest) => subtrees.fold(*smallest, |right, left| hash_node(left, &right)),
        }
    }
}

pub(crate) fn hash_leaf(line: &[u8]) -> [u8; 32] {
    Sha256::new().chain_update([0]).chain_update(line).finalize().into()
}

pub(crate) fn hash_node(left: &[u8; 32], right: &[u8; 32]) -> [u8; 32] {
    Sha256::new().chain_update([1]).chain_update(left).chain_update(right).finalize().into()
}

/// Signs checkpoints. Wiped on drop; cannot be printed.
pub struct CheckpointKey(SigningKey);

impl CheckpointKey {
    /// The key of a 32-byte seed.
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        Self(SigningKey::from_bytes(seed))
    }

    /// Signs a checkpoint's canonical bytes.
    pub fn sign(&self, checkpoint: &[u8]) -> [u8; 64] {
        self.0.sign(checkpoint).to_bytes()
    }

    /// The 32 bytes that let anyone verify.
    pub fn public(&self) -> [u8; 32] {
        self.0.verifying_key().to_bytes()
    }

    /// The verifier of this key's signatures.
    pub fn verifier(&self) -> CheckpointVerifier {
        CheckpointVerifier(self.0.verifying_key())
    }
}

/// Why a public key or a signature was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CheckpointError {
    /// Not 64 hexadecimal digits of an Ed25519 public key.
    #[error("not an Ed25519 public key in 64 hexadecimal digits")]
    PublicKey,
    /// The signature is not this key's over these bytes.
    #[error("the signature does not fit")]
    Signature,
}

/// Verifies checkpoints with the public key alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CheckpointVerifier(VerifyingKey);

impl CheckpointVerifier {
    /// Reads a public key: 64 hexadecimal digits.
    pub fn parse(text: &str) -> Result<Self, CheckpointError> {
        let mut bytes = [0; 32];
        hex::decode_to_slice(text.trim(), &mut bytes).map_err(|_| CheckpointError::PublicKey)?;
        Self::from_bytes(&bytes)
    }

    /// Takes a public key's 32 bytes.
    pub fn from_bytes(bytes: &[u8; 32]) -> Result<Self, CheckpointError> {
        VerifyingKey::from_bytes(bytes).map(Self).map_err(|_| CheckpointError::PublicKey)
    }

    /// The public key's 32 bytes.
    pub fn public(&self) -> [u8; 32] {
        self.0.to_bytes()
    }

    /// Checks a signature over a checkpoint's canonical bytes; refuses weak keys and loose forms.
    pub fn verify(&self, checkpoint: &[u8], signature: &[u8]) -> Result<(), CheckpointError> {
        let signature = Signature::from_slice(signature).map_err(|_| CheckpointError::Signature)?;
        self.0.verify_strict(checkpoint, &signature).map_err(|_| CheckpointError::Signature)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The inputs and roots of the certificate-transparency reference implementation.
    #[test]
    fn the_published_tree_roots_hold() {
        let cases = [
            ("", "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d"),
            ("00", "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125"),
            ("10", "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77"),
            ("2021", "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7"),
            ("3031", "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4"),
            ("40414243", "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef"),
            (
                "5051525354555657",
                "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
            ),
            (
                "606162636465666768696a6b6c6d6e6f",
                "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
            ),
        ];
        let mut tree = Tree::default();
        assert_eq!(
            hex::encode(tree.root()),
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
        );
        for (leaf, root) in cases {
            tree.append(&hex::decode(leaf).unwrap());
            assert_eq!(hex::encode(tree.root()), root);
        }
    }

    /// RFC 8032, section 7.1, test 2.
    #[test]
    fn the_published_signature_passes() {
        let seed = "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb";
        let key = CheckpointKey::from_seed(&hex::decode(seed).unwrap().try_into().unwrap());
        let public = "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c";
        assert_eq!(hex::encode(key.public()), public);
        let signature = key.sign(&[0x72]);
        assert_eq!(
            hex::encode(signature),
            "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da\
             085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00"
        );
        let verifier = CheckpointVerifier::parse(public).unwrap();
        assert_eq!(verifier, key.verifier());
        assert_eq!(verifier.public(), key.public());
        assert_eq!(verifier.verify(&[0x72], &signature), Ok(()));
        assert!(verifier.verify(&[0x73], &signature).is_err());
        assert!(verifier.verify(&[0x72], &signature[1..]).is_err());
        assert_eq!(CheckpointVerifier::parse("00"), Err(CheckpointError::PublicKey));
    }

    /// RFC 6962, section 2.1, word for word.
    fn root_by_definition(lines: &[Vec<u8>]) -> [u8; 32] {
        match lines {
            [] => Sha256::digest([]).into(),
            [line] => hash_leaf(line),
            _ => {
                let split = lines.len().next_power_of_two() / 2;
                let (left, right) = lines.split_at(split);
                hash_node(&root_by_definition(left), &root_by_definition(right))
            }
        }
    }

    proptest! {
        #[test]
        fn the_edge_gives_the_root_of_the_whole_tree(lines: Vec<Vec<u8>>) {
            let mut tree = Tree::default();
            for (index, line) in lines.iter().enumerate() {
                tree.append(line);
                prop_assert_eq!(tree.root(), root_by_definition(&lines[..=index]));
                let (count, edge) = tree.parts();
                prop_assert_eq!(Tree::from_parts(count, edge.to_vec()), Some(tree.clone()));
                prop_assert_eq!(Tree::from_parts(count + 1, vec![[0; 32]; 65]), None);
            }
        }

        #[test]
        fn a_chain_sees_every_change(
            lines in prop::collection::vec(any::<Vec<u8>>(), 2..8),
            at in any::<prop::sample::Index>(),
        ) {
            let head = |lines: &[Vec<u8>]| {
                let mut chain = Chain::default();
                for line in lines {
                    chain.append(&[chain.head.as_slice(), line].concat());
                }
                chain
            };
            let whole = head(&lines);
            prop_assert_eq!(whole.count, lines.len() as u64);
            let mut changed = lines.clone();
            changed[at.index(lines.len())].push(0);
            prop_assert_ne!(head(&changed).head, whole.head);
            let mut cut = lines.clone();
            cut.remove(at.index(lines.len()));
            prop_assert_ne!(head(&cut).head, whole.head);
        }
    }
}
