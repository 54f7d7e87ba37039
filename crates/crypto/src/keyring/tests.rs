//! The keyring: its form, its terms, its purposes.

use mssm_domain::StoredKey;
use proptest::prelude::*;

use super::*;
use crate::testing::Seeded;

const NOW: Timestamp = Timestamp::from_unix_ms(1_800_000_000_123);

fn keyring(seed: u64, rotations: usize) -> Keyring {
    let random = Seeded::new(seed);
    let mut keyring = Keyring::generate(NOW, &random);
    for _ in 0..rotations {
        keyring.rotate(NOW, &random).unwrap();
    }
    keyring
}

#[test]
fn rotation_seals_under_the_new_term_and_opens_the_old() {
    let mut keyring = keyring(1, 0);
    let (random, stored) = (Seeded::new(2), StoredKey::new(b"key".to_vec()));
    let place = Place { key: &stored, version: 1 };
    let old = keyring.record_keys().seal(place, b"old", NOW, &random).unwrap();
    assert_eq!(keyring.rotate(NOW, &random), Ok(Term::new(2)));
    let keys = keyring.record_keys();
    let new = keys.seal(place, b"new", NOW, &random).unwrap();
    assert_eq!(Header::read(&new).unwrap().term, Term::new(2));
    assert_eq!(keys.open(place, &old).unwrap().expose(), b"old");
    assert_eq!(keys.open(place, &new).unwrap().expose(), b"new");
    // A keyring from before the rotation does not know the new term.
    let before = Keyring::decode(self::keyring(1, 0).encode().expose()).unwrap();
    let refused = before.record_keys().open(place, &new).err();
    assert_eq!(refused, Some(EnvelopeError::UnknownTerm(Term::new(2))));
}

#[test]
fn rotation_leaves_purposes_alone_and_no_two_share_a_key() {
    let mut keyring = keyring(1, 0);
    let labels = [Label::Audit, Label::Index, Label::Marker, Label::Token];
    let hashes = |keyring: &Keyring| labels.map(|label| keyring.fingerprint_key(label).of(b"x"));
    let before = hashes(&keyring);
    for (index, hash) in before.iter().enumerate() {
        assert!(!before[..index].contains(hash));
    }
    let [seed, salts] = keyring.audit_keys();
    assert!(!seed.is_same_as(&salts));
    keyring.rotate(NOW, &Seeded::new(9)).unwrap();
    assert_eq!(hashes(&keyring), before);
    assert!(keyring.audit_keys()[0].is_same_as(&seed));
}

#[test]
fn every_term_is_told_oldest_first_and_a_keyring_has_room_for_65535() {
    let mut keyring = keyring(1, 2);
    let told: Vec<Term> = keyring.terms().map(|info| info.term).collect();
    assert_eq!(told, [1, 2, 3].map(Term::new));
    assert!(keyring.terms().all(|info| info.installed_at == NOW && info.seals == 0));
    let random = Seeded::new(3);
    for _ in 3..65_535 {
        keyring.rotate(NOW, &random).unwrap();
    }
    assert_eq!(keyring.rotate(NOW, &random), Err(KeyringError::Full));
    assert_eq!(keyring.terms().count(), 65_535);
}

#[test]
fn a_new_term_is_due_before_the_bound() {
    assert_eq!(Keyring::SEALS_MAX - Keyring::SEALS_RESERVE, 4_026_531_840);
    let mut keyring = keyring(1, 1);
    let limit = Keyring::SEALS_MAX - Keyring::SEALS_RESERVE;
    keyring.count(Term::FIRST, Keyring::SEALS_MAX);
    keyring.count(Term::new(2), limit - 1);
    assert!(!keyring.must_rotate());
    keyring.count(Term::new(2), 1);
    assert!(keyring.must_rotate());
    keyring.rotate(NOW, &Seeded::new(1)).unwrap();
    assert!(!keyring.must_rotate());
}

#[test]
fn terms_out_of_order_are_refused() {
    let mut bytes = keyring(1, 1).encode().expose().to_vec();
    bytes[HEAD + ENTRY + 3] = 1;
    assert_eq!(Keyring::decode(&bytes).err(), Some(KeyringError::Malformed));
    bytes[HEAD + 3] = 0;
    assert_eq!(Keyring::decode(&bytes).err(), Some(KeyringError::Malformed));
    bytes[0] = 3;
    assert_eq!(Keyring::decode(&bytes).err(), Some(KeyringError::UnknownForm(3)));
}

/// A store that was founded before there was an index says so until one is made.
#[test]
fn a_keyring_remembers_whether_the_store_has_an_index() {
    let mut bytes = keyring(1, 0).encode().expose().to_vec();
    bytes[0] = 1;
    let mut old = Keyring::decode(&bytes).unwrap();
    assert!(!old.is_indexed());
    assert_eq!(old.encode().expose(), bytes);
    old.set_indexed();
    assert!(Keyring::decode(old.encode().expose()).unwrap().is_indexed());
    assert!(keyring(2, 0).is_indexed());
}

proptest! {
    #[test]
    fn what_was_encoded_decodes(seed in any::<u64>(), rotations in 0_usize..5, seals in any::<u64>()) {
        let mut original = keyring(seed, rotations);
        original.count(Term::FIRST, seals);
        let bytes = original.encode();
        let decoded = Keyring::decode(bytes.expose()).unwrap();
        prop_assert!(decoded.encode().expose() == bytes.expose());
        prop_assert_eq!(decoded.cluster(), original.cluster());
        prop_assert!(decoded.terms().eq(original.terms()));
    }

    #[test]
    fn no_other_length_decodes(seed in any::<u64>(), rotations in 0_usize..3, cut in 1_usize..200) {
        let mut bytes = keyring(seed, rotations).encode().expose().to_vec();
        bytes.push(0);
        prop_assert!(Keyring::decode(&bytes).is_err());
        let keep = bytes.len().saturating_sub(1 + cut);
        prop_assert!(Keyring::decode(&bytes[..keep]).is_err());
    }

    #[test]
    fn hostile_bytes_never_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let _ = Keyring::decode(&bytes);
        if let Some(first) = bytes.first_mut() {
            *first = FORM;
        }
        if let Ok(keyring) = Keyring::decode(&bytes) {
            prop_assert!(keyring.encode().expose() == bytes);
        }
    }
}
