//! Hides the names of records: AES-256-SIV (RFC 5297) segment by segment.
//!
//! A segment is encrypted with its parent's stored key as associated data, so that equal names
//! under different parents look different, and a whole stored key begins with its parent's: the
//! store can list a folder without knowing a name. Equal names under one parent, the shape of the
//! tree and the lengths of names still show.

use std::collections::HashMap;

use aes_siv::KeyInit;
use aes_siv::siv::Aes256Siv;
use mssm_domain::{RecordPath, StoredKey};
use zeroize::Zeroize;

/// Why a name was neither hidden nor shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// A segment has more than 1,024 bytes.
    #[error("a path segment is longer than 1024 bytes")]
    TooLong,
    /// The stored key is not one that this key made.
    #[error("a stored name does not open")]
    DoesNotOpen,
}

/// The bytes that a segment may have; with tag and length it fits two bytes of length many times.
pub const SEGMENT_MAX: usize = 1024;

const TAG: usize = 16;

/// The key that hides names, expanded, for one thread.
pub struct NameKey {
    siv: Aes256Siv,
    folders: Folders,
}

impl NameKey {
    pub(crate) fn new(key: &[u8; 64]) -> Self {
        match Aes256Siv::new_from_slice(key) {
            Ok(siv) => Self { siv, folders: Folders::default() },
            Err(_) => unreachable!("the key has 64 bytes"),
        }
    }

    /// The stored key of a record.
    pub fn hide(&mut self, path: &RecordPath) -> Result<StoredKey, NameError> {
        let text = path.as_str();
        let (folder, rest) = Folders::split(text);
        let mut key = if let Some(known) = self.folders.get(folder) {
            known
        } else {
            let mut key = Vec::with_capacity(key_len(folder));
            self.append(&mut key, folder)?;
            self.folders.insert(folder, &key);
            key
        };
        key.reserve_exact(key_len(rest));
        self.append(&mut key, rest)?;
        Ok(StoredKey::new(key))
    }

    /// The stored key of one segment below a parent.
    pub fn hide_below(
        &mut self,
        parent: &StoredKey,
        segment: &str,
    ) -> Result<StoredKey, NameError> {
        let mut key = Vec::with_capacity(parent.as_bytes().len() + key_len(segment));
        key.extend_from_slice(parent.as_bytes());
        self.append_segment(&mut key, segment)?;
        Ok(StoredKey::new(key))
    }

    /// The plain name of a stored key's last segment.
    pub fn show_last(&mut self, key: &StoredKey) -> Result<String, NameError> {
        let bytes = key.as_bytes();
        let (mut start, mut rest) = (0, bytes);
        loop {
            let (length, tail) = rest.split_first_chunk().ok_or(NameError::DoesNotOpen)?;
            let length = usize::from(u16::from_be_bytes(*length));
            let (segment, tail) = tail.split_at_checked(length).ok_or(NameError::DoesNotOpen)?;
            if tail.is_empty() {
                let parent = bytes.get(..start).ok_or(NameError::DoesNotOpen)?;
                let name =
                    self.siv.decrypt([parent], segment).map_err(|_| NameError::DoesNotOpen)?;
                return String::from_utf8(name).map_err(|_| NameError::DoesNotOpen);
            }
            start += 2 + length;
            rest = tail;
        }
    }

    fn append(&mut self, key: &mut Vec<u8>, path: &str) -> Result<(), NameError> {
        path.split('/')
            .filter(|segment| !segment.is_empty())
            .try_for_each(|segment| self.append_segment(key, segment))
    }

    fn append_segment(&mut self, key: &mut Vec<u8>, segment: &str) -> Result<(), NameError> {
        if segment.len() > SEGMENT_MAX {
            return Err(NameError::TooLong);
        }
        let hidden = self
            .siv
            .encrypt([key.as_slice()], segment.as_bytes())
            .map_err(|_| NameError::TooLong)?;
        let length = u16::try_from(hidden.len()).map_err(|_| NameError::TooLong)?;
        key.extend_from_slice(&length.to_be_bytes());
        key.extend_from_slice(&hidden);
        Ok(())
    }
}

/// An upper bound on a path's stored length.
fn key_len(path: &str) -> usize {
    path.len() + path.split('/').count() * (2 + TAG)
}

/// The stored keys of folders seen before: nearly all paths share their first two segments.
///
/// Names are secrets, so they are wiped; the number is bounded, since callers choose names.
#[derive(Default)]
struct Folders(HashMap<String, Vec<u8>>);

impl Folders {
    const MAX: usize = 256;

    /// The first two segments, and the rest.
    fn split(path: &str) -> (&str, &str) {
        let mut slashes = path.bytes().enumerate().filter(|(_, byte)| *byte == b'/');
        slashes.nth(1).and_then(|(index, _)| path.split_at_checked(index)).unwrap_or(("", path))
    }

    fn get(&self, folder: &str) -> Option<Vec<u8>> {
        if folder.is_empty() {
            return Some(Vec::new());
        }
        self.0.get(folder).cloned()
    }

    fn insert(&mut self, folder: &str, key: &[u8]) {
        if self.0.len() >= Self::MAX {
            self.wipe();
        }
        self.0.insert(folder.to_owned(), key.to_vec());
    }

    fn wipe(&mut self) {
        for (mut name, _) in self.0.drain() {
            name.zeroize();
        }
    }
}

impl Drop for Folders {
    fn drop(&mut self) {
        self.wipe();
    }
}

#[cfg(test)]
mod tests {
    use aes_siv::siv::Aes256Siv;
    use proptest::prelude::*;

    use super::*;

    fn key() -> NameKey {
        NameKey::new(&std::array::from_fn(|index| u8::try_from(index).unwrap()))
    }

    /// The crate's AES-SIV is what RFC 5297, A.1 says (its example has keys of 128 bits).
    #[test]
    fn the_published_vector_passes() {
        let secret =
            hex::decode("fffefdfcfbfaf9f8f7f6f5f4f3f2f1f0f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff")
                .unwrap();
        let header = hex::decode("101112131415161718191a1b1c1d1e1f2021222324252627").unwrap();
        let text = hex::decode("112233445566778899aabbccddee").unwrap();
        let mut siv = aes_siv::siv::Aes128Siv::new_from_slice(&secret).unwrap();
        assert_eq!(
            hex::encode(siv.encrypt([&header], &text).unwrap()),
            "85632d07c6e8f37f950acd320a2ecc9340c02b9690c4dc04daef7f6afe5c"
        );
    }

    #[test]
    fn equal_names_look_different_under_different_parents_and_keys() {
        let mut names = key();
        let mut hidden = |path: &str| names.hide(&RecordPath::new(&[path])).unwrap();
        let (first, second) = (hidden("kv/a/x"), hidden("kv/b/x"));
        assert_ne!(
            first.as_bytes()[first.as_bytes().len() - 17..],
            second.as_bytes()[second.as_bytes().len() - 17..]
        );
        let mut other = NameKey::new(&[1; 64]);
        assert_ne!(other.hide(&RecordPath::new(&["kv/a/x"])).unwrap(), first);
        assert_eq!(other.show_last(&first), Err(NameError::DoesNotOpen));
    }

    #[test]
    fn a_segment_has_at_most_1024_bytes() {
        let mut names = key();
        let longest = "x".repeat(SEGMENT_MAX);
        assert!(names.hide(&RecordPath::new(&["kv", &longest])).is_ok());
        for path in [format!("{longest}x"), format!("a/{longest}x/b"), format!("a/b/{longest}x")] {
            assert_eq!(names.hide(&RecordPath::new(&[&path])), Err(NameError::TooLong));
        }
    }

    #[test]
    fn the_cache_of_folders_is_bounded() {
        let mut names = key();
        for index in 0..Folders::MAX * 3 {
            names.hide(&RecordPath::new(&["a", &index.to_string(), "x"])).unwrap();
            assert_eq!(names.folders.0.len(), index % Folders::MAX + 1);
        }
    }

    #[test]
    fn what_is_set_aside_for_a_name_is_enough_and_not_much_more() {
        for path in ["a", "a/bb", "a/bb/ccc", "kv/data/a/long/path/of/many/segments"] {
            let hidden = key().hide(&RecordPath::new(&[path])).unwrap().as_bytes().len();
            let slashes = path.split('/').count() - 1;
            assert_eq!(key_len(path), hidden + slashes, "{path}");
        }
    }

    fn path() -> impl Strategy<Value = String> {
        prop::collection::vec("[a-zü.]{1,12}", 1..6).prop_map(|segments| segments.join("/"))
    }

    proptest! {
        #[test]
        fn hidden_names_nest_and_show_their_last_segment(paths in prop::collection::vec(path(), 1..6)) {
            let mut names = key();
            for text in paths {
                let hidden = names.hide(&RecordPath::new(&[&text])).unwrap();
                // Without the cache, segment by segment, the same.
                let mut parent = StoredKey::new(Vec::new());
                for segment in text.split('/') {
                    let child = names.hide_below(&parent, segment).unwrap();
                    prop_assert!(child.as_bytes().starts_with(parent.as_bytes()));
                    prop_assert_eq!(names.show_last(&child).unwrap(), segment);
                    parent = child;
                }
                prop_assert_eq!(&parent, &hidden);
                prop_assert_eq!(key().hide(&RecordPath::new(&[&text])).unwrap(), hidden);
            }
        }

        #[test]
        fn no_flipped_bit_shows_a_name(text in path(), bit in any::<usize>()) {
            let mut names = key();
            let mut bytes = names.hide(&RecordPath::new(&[&text])).unwrap().as_bytes().to_vec();
            let bit = bit % (bytes.len() * 8);
            bytes[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(names.show_last(&StoredKey::new(bytes)).is_err());
        }

        #[test]
        fn hostile_keys_never_panic(bytes: Vec<u8>) {
            prop_assert!(key().show_last(&StoredKey::new(bytes)).is_err());
        }
    }

    #[test]
    fn expanded_keys_are_wiped_by_their_own_types() {
        fn wiped<T: zeroize::ZeroizeOnDrop>() {}
        wiped::<Aes256Siv>();
        wiped::<aes::Aes256>();
        wiped::<chacha20poly1305::XChaCha20Poly1305>();
        wiped::<ed25519_dalek::SigningKey>();
        wiped::<crate::Key32>();
    }
}
