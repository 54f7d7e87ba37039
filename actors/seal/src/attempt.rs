//! The shares entered so far: which are refused, which count, and when there are enough.

use mssm_crypto::Key32;
use mssm_crypto::shares::{Share, ShareError, combine, is_committed};
use mssm_domain::{Random, SecretText, generate_uuid};
use mssm_messages::seal::SealError;

use crate::record::SealConfigRecord;

/// An attempt to unseal: distinct shares of one set, fewer than the threshold.
#[derive(Default)]
pub(crate) struct Attempt {
    shares: Vec<Share>,
    nonce: String,
}

impl Attempt {
    /// The numbers of the shares, sorted.
    pub(crate) fn entered(&self) -> Vec<u8> {
        let mut entered: Vec<u8> = self.shares.iter().map(Share::index).collect();
        entered.sort_unstable();
        entered
    }

    /// The attempt's name; empty before the first share.
    pub(crate) fn nonce(&self) -> &str {
        &self.nonce
    }

    /// Takes a share: the root key if it was the last that was missing.
    ///
    /// A refused or repeated share changes nothing. Shares that pass one by one and still do not
    /// recombine are forged; all are forgotten then, since nobody can say which.
    pub(crate) fn enter(
        &mut self,
        config: &SealConfigRecord,
        text: &SecretText,
        random: &dyn Random,
    ) -> Result<Option<Key32>, SealError> {
        let share = Share::parse_text(text).map_err(|error| SealError::Share(reason(error)))?;
        let foreign = share.set() != config.set
            || share.threshold() != config.threshold
            || share.index() > config.shares;
        if foreign {
            return Err(SealError::Share(reason(ShareError::Foreign)));
        }
        if self.shares.iter().any(|known| known.index() == share.index()) {
            return Ok(None);
        }
        if self.shares.is_empty() {
            self.nonce = generate_uuid(random).to_string();
        }
        self.shares.push(share);
        if self.shares.len() < usize::from(config.threshold) {
            return Ok(None);
        }
        let complete = std::mem::take(self);
        let root = combine(&complete.shares).map_err(|error| SealError::Share(reason(error)))?;
        // EXPOSE: only its hash is compared.
        if is_committed(root.expose(), &config.commitment) {
            Ok(Some(root))
        } else {
            Err(SealError::Share("the shares do not recombine, one is forged; enter all again"))
        }
    }
}

const fn reason(error: ShareError) -> &'static str {
    match error {
        ShareError::Encoding => "'key' must be a valid hex or base64 string",
        ShareError::Length => "wrong length, a share has 43 bytes",
        ShareError::UnknownForm => "not a share, or of another version",
        ShareError::Damaged => "damaged or mistyped, its checksum does not fit",
        ShareError::Foreign => "it belongs to another store or another set of shares",
        ShareError::Repeated => "the same share twice",
        ShareError::TooFew => "too few shares",
        ShareError::Numbers => "shares and threshold do not fit together",
    }
}

#[cfg(test)]
mod tests {
    use mssm_crypto::shares::{commit, split};
    use mssm_domain::ClusterId;
    use mssm_messages::seal::SealKind;
    use mssm_testkit::SeededRandom;
    use proptest::prelude::*;

    use super::*;

    fn store(seed: u64, shares: u8, threshold: u8) -> (SealConfigRecord, Vec<Share>, SeededRandom) {
        let random = SeededRandom::new(seed);
        let root = Key32::generate(&random);
        let split = split(root.expose(), shares, threshold, &random).unwrap();
        let config = SealConfigRecord {
            kind: SealKind::Shamir,
            shares,
            threshold,
            set: split[0].set(),
            commitment: commit(root.expose()),
            cluster: ClusterId::from_uuid(generate_uuid(&random)),
        };
        (config, split, random)
    }

    fn text(share: &Share) -> SecretText {
        hex::encode(share.encode().expose()).into()
    }

    #[test]
    fn a_bad_share_is_refused_at_once_and_the_good_ones_stay() {
        let (config, shares, random) = store(1, 5, 3);
        let (_, foreign, _) = store(2, 5, 3);
        let mut attempt = Attempt::default();
        attempt.enter(&config, &text(&shares[1]), &random).unwrap();
        let nonce = attempt.nonce().to_owned();
        let mut damaged = shares[2].encode().expose().to_vec();
        damaged[20] ^= 1;
        let cases = [
            SecretText::new("no share at all!".to_owned()),
            hex::encode(damaged).into(),
            text(&foreign[2]),
        ];
        for bad in cases {
            assert!(matches!(attempt.enter(&config, &bad, &random), Err(SealError::Share(_))));
            assert_eq!((attempt.entered(), attempt.nonce()), (vec![2], nonce.as_str()));
        }
        assert!(attempt.enter(&config, &text(&shares[0]), &random).unwrap().is_none());
        assert!(attempt.enter(&config, &text(&shares[4]), &random).unwrap().is_some());
        assert!(attempt.entered().is_empty() && attempt.nonce().is_empty());
    }

    #[test]
    fn shares_of_another_secret_with_the_right_marks_are_caught_by_the_commitment() {
        let (mut config, shares, random) = store(1, 3, 2);
        config.commitment[0] ^= 1;
        let mut attempt = Attempt::default();
        attempt.enter(&config, &text(&shares[0]), &random).unwrap();
        assert!(attempt.enter(&config, &text(&shares[1]), &random).is_err());
        assert!(attempt.entered().is_empty());
    }

    proptest! {
        /// Distinct shares count, repeated ones do not, and the threshold's one unseals.
        #[test]
        fn the_root_key_comes_with_the_last_missing_share(
            (shares, threshold) in (1_u8..7).prop_flat_map(|n| (Just(n), 1..=n)),
            order in prop::collection::vec(any::<prop::sample::Index>(), 1..40),
            seed in any::<u64>(),
        ) {
            let (config, split, random) = store(seed, shares, threshold);
            let (mut attempt, mut model) = (Attempt::default(), std::collections::BTreeSet::new());
            for index in order {
                let share = index.get(&split);
                let root = attempt.enter(&config, &text(share), &random).unwrap();
                model.insert(share.index());
                let complete = model.len() == usize::from(threshold);
                prop_assert_eq!(root.is_some(), complete);
                if complete {
                    model.clear();
                }
                prop_assert_eq!(attempt.entered(), model.iter().copied().collect::<Vec<_>>());
                prop_assert_eq!(attempt.nonce().is_empty(), model.is_empty());
            }
        }
    }
}
