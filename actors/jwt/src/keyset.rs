//! A set of keys and when which of them signs and verifies: the rule, without storing or signing.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use mssm_crypto::jose::{Algorithm, JoseError, PublicKey, SigningKey};
use mssm_domain::{KeyName, SecretBytes, Timestamp};
use mssm_messages::jwt::{KeyEntry, KeyView, Standing};

/// A key stays public so much longer than its last token: a worker that is held up may still sign
/// with it when the next one signs already, but no request takes longer than this.
const SLACK: Duration = Duration::from_mins(1);
/// Copies from before a change of how long they may be kept are none the day after it.
const COPIES_MAX: Duration = Duration::from_secs(MAX_AGE_MAX_SECS + MARGIN_MAX_SECS);
/// The most keys of a set that sign no more but still verify. One more rotation is refused.
const PREVIOUS_MAX: usize = 64;

/// The longest that copies of the keys may be kept.
pub(crate) const MAX_AGE_MAX_SECS: u64 = 86_400;
/// The longest that an answer's way counts.
const MARGIN_MAX_SECS: u64 = 10;

/// How long verifiers may keep copies of the keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Copies {
    /// So long after they were asked for.
    pub(crate) max_age_secs: u64,
    /// Copies from before a change of that may be kept until then.
    pub(crate) older_until: Timestamp,
}

impl Copies {
    /// When a key that is made public now is known to everybody. A copy is older than its asker
    /// thinks by the time that the answer was on its way, so a little is added.
    pub(crate) fn known_from(self, now: Timestamp) -> Timestamp {
        let margin = (self.max_age_secs / 10).clamp(1, MARGIN_MAX_SECS);
        let known = now.after(Duration::from_secs(self.max_age_secs.saturating_add(margin)));
        // What is dated later was written by a clock that was ahead.
        known.max(self.older_until.min(now.after(COPIES_MAX)))
    }
}

/// What can be changed of a set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Settings {
    pub(crate) rotation_period_secs: u64,
    pub(crate) rotation_count: u64,
    pub(crate) verification_ttl_secs: u64,
    pub(crate) allowed_client_ids: Vec<String>,
}

/// A key with its private half.
#[derive(Debug)]
pub(crate) struct Pair {
    pub(crate) kid: String,
    pub(crate) public: PublicKey,
    pub(crate) private: SecretBytes,
    pub(crate) imported: bool,
    parsed: OnceLock<Result<SigningKey, JoseError>>,
}

impl Pair {
    /// A key as it lies in the store; the private half is read when it first signs.
    pub(crate) fn stored(public: PublicKey, private: SecretBytes, imported: bool) -> Self {
        Self { kid: public.thumbprint(), public, private, imported, parsed: OnceLock::new() }
    }

    /// A key just made or imported.
    pub(crate) fn new(key: SigningKey, imported: bool) -> Result<Self, JoseError> {
        let pair = Self::stored(key.public()?, key.to_pkcs8()?, imported);
        let _ = pair.parsed.set(Ok(key));
        Ok(pair)
    }

    /// Signs a message.
    pub(crate) fn sign(&self, message: &[u8]) -> Result<Vec<u8>, JoseError> {
        let read = || SigningKey::from_pkcs8(self.public.algorithm(), &self.private);
        self.parsed.get_or_init(read).as_ref().map_err(|error| *error)?.sign(message)
    }
}

/// A key that signs or will.
#[derive(Clone, Debug)]
pub(crate) struct Active {
    pub(crate) pair: Arc<Pair>,
    pub(crate) published_at: Timestamp,
    /// Of the current key since when it signs, of the next one from when on it may.
    pub(crate) signs_from: Timestamp,
}

/// A key that signs no more: of it the public half is left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Retired {
    pub(crate) kid: String,
    pub(crate) public: PublicKey,
    pub(crate) imported: bool,
    pub(crate) published_at: Timestamp,
    pub(crate) signs_from: Timestamp,
    pub(crate) verifies_until: Timestamp,
}

/// Previous, current and next keys under one name, all of one algorithm.
#[derive(Clone, Debug)]
pub(crate) struct KeySet {
    pub(crate) name: KeyName,
    pub(crate) algorithm: Algorithm,
    pub(crate) rsa_bits: usize,
    pub(crate) settings: Settings,
    /// Oldest first.
    pub(crate) previous: Vec<Retired>,
    pub(crate) current: Active,
    pub(crate) next: Active,
    /// The longest that a token signed by the current key may live.
    pub(crate) life_secs: u64,
    /// True if a rotation was asked for that the next key is too new for.
    pub(crate) asked: bool,
}

fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

impl KeySet {
    /// A new set; its first key signs at once.
    pub(crate) fn begin(
        (name, settings): (KeyName, Settings),
        (first, next): (Pair, Pair),
        rsa_bits: usize,
        copies: Copies,
        now: Timestamp,
    ) -> Self {
        let active =
            |pair, signs_from| Active { pair: Arc::new(pair), published_at: now, signs_from };
        Self {
            name,
            algorithm: first.public.algorithm(),
            rsa_bits,
            life_secs: settings.verification_ttl_secs,
            settings,
            previous: Vec::new(),
            current: active(first, now),
            next: active(next, copies.known_from(now)),
            asked: false,
        }
    }

    /// True if the current key has signed for long or often enough.
    pub(crate) fn is_due(&self, used: u64, now: Timestamp) -> bool {
        let count = self.settings.rotation_count;
        let often = count > 0 && used >= count;
        often || self.due_at().is_some_and(|at| at <= now)
    }

    /// True if the next key may sign.
    pub(crate) fn is_ripe(&self, now: Timestamp) -> bool {
        self.next.signs_from <= now && !self.is_full()
    }

    /// True if so many keys verify that another rotation must wait.
    pub(crate) fn is_full(&self) -> bool {
        self.previous.len() >= PREVIOUS_MAX
    }

    fn due_at(&self) -> Option<Timestamp> {
        if self.asked {
            return Some(self.current.signs_from);
        }
        let period = self.settings.rotation_period_secs;
        (period > 0).then(|| self.current.signs_from.after(secs(period)))
    }

    /// When the next key signs, as far as that is known.
    pub(crate) fn rotates_at(&self) -> Option<Timestamp> {
        self.due_at().map(|at| at.max(self.next.signs_from))
    }

    /// The set with its next key signing and another one behind it.
    pub(crate) fn rotated(&self, pair: Pair, copies: Copies, now: Timestamp) -> Self {
        let mut set = self.clone();
        set.previous.push(self.retired(now));
        set.current = Active { signs_from: now, ..self.next.clone() };
        set.life_secs = self.settings.verification_ttl_secs;
        set.asked = false;
        set.with_next(pair, copies, now).without_ended(now)
    }

    fn retired(&self, now: Timestamp) -> Retired {
        let Active { pair, published_at, signs_from } = &self.current;
        Retired {
            kid: pair.kid.clone(),
            public: pair.public.clone(),
            imported: pair.imported,
            published_at: *published_at,
            signs_from: *signs_from,
            verifies_until: now.after(secs(self.life_secs)).after(SLACK),
        }
    }

    /// The set with another key in the next one's place, which has not signed anything.
    pub(crate) fn with_next(mut self, pair: Pair, copies: Copies, now: Timestamp) -> Self {
        let signs_from = copies.known_from(now);
        self.next = Active { pair: Arc::new(pair), published_at: now, signs_from };
        self
    }

    /// The set with other settings. What the current key has signed is still verified for as long
    /// as was allowed when it did.
    pub(crate) fn with_settings(mut self, settings: Settings) -> Self {
        self.life_secs = self.life_secs.max(settings.verification_ttl_secs);
        self.settings = settings;
        self
    }

    /// The set with the current key verifying for at least so long after its last signature.
    pub(crate) fn with_life(mut self, secs: u64) -> Self {
        self.life_secs = self.life_secs.max(secs);
        self
    }

    /// True if the set was changed by a clock that was ahead of what it is now.
    pub(crate) fn is_ahead(&self, now: Timestamp) -> bool {
        self.current.signs_from > now || self.next.published_at > now
    }

    /// The set as if what is dated later had happened now: else nothing would rotate until then.
    pub(crate) fn redated(mut self, copies: Copies, now: Timestamp) -> Self {
        self.current.published_at = self.current.published_at.min(now);
        self.current.signs_from = self.current.signs_from.min(now);
        if self.next.published_at > now {
            (self.next.published_at, self.next.signs_from) = (now, copies.known_from(now));
        }
        self
    }

    /// True if a key is public that verifies nothing any more. The newest of the previous ones stays
    /// public until there is a newer one.
    pub(crate) fn has_ended(&self, now: Timestamp) -> bool {
        let older = self.previous.len().saturating_sub(1);
        self.previous.iter().take(older).any(|key| key.verifies_until <= now)
    }

    /// The set without the keys that verify nothing any more, but for the newest.
    pub(crate) fn without_ended(mut self, now: Timestamp) -> Self {
        let newest = self.previous.pop();
        self.previous.retain(|key| key.verifies_until > now);
        self.previous.extend(newest);
        self
    }

    /// The set without all keys that have ended and those that are named, and which these are.
    pub(crate) fn trimmed(mut self, kids: &[String], now: Timestamp) -> (Self, Vec<String>) {
        let goes = |key: &Retired| key.verifies_until <= now || kids.contains(&key.kid);
        let gone =
            self.previous.iter().filter(|key| goes(key)).map(|key| key.kid.clone()).collect();
        self.previous.retain(|key| !goes(key));
        (self, gone)
    }

    /// All public keys, oldest first.
    pub(crate) fn public(&self) -> impl Iterator<Item = &PublicKey> {
        let active = [&self.current.pair.public, &self.next.pair.public];
        self.previous.iter().map(|key| &key.public).chain(active)
    }

    /// The key of a name, unless it verifies nothing any more or has not signed yet.
    pub(crate) fn verifier(&self, kid: &str, now: Timestamp) -> Option<&PublicKey> {
        if self.current.pair.kid == kid {
            return Some(&self.current.pair.public);
        }
        // A replica may not know yet that the next key signs.
        if self.next.pair.kid == kid && self.is_ripe(now) {
            return Some(&self.next.pair.public);
        }
        let holds = |key: &&Retired| key.kid == kid && key.verifies_until > now;
        self.previous.iter().find(holds).map(|key| &key.public)
    }

    /// Until when a token that is out now can verify, at most.
    pub(crate) fn last_verifies_until(&self, now: Timestamp) -> Timestamp {
        let current = now.after(secs(self.life_secs));
        self.previous.iter().map(|key| key.verifies_until).fold(current, Timestamp::max)
    }

    /// True if a key is in the set already.
    pub(crate) fn has(&self, kid: &str) -> bool {
        let retired = self.previous.iter().any(|key| key.kid == kid);
        retired || self.current.pair.kid == kid || self.next.pair.kid == kid
    }

    /// The set as it is shown.
    pub(crate) fn view(&self) -> KeyView {
        let retired = self.previous.iter().map(|key| KeyEntry {
            kid: key.kid.clone(),
            standing: Standing::Previous,
            published_at: key.published_at,
            signs_from: key.signs_from,
            verifies_until: Some(key.verifies_until),
            imported: key.imported,
            jwk: key.public.to_jwk(),
        });
        let active = [(&self.current, Standing::Current), (&self.next, Standing::Next)];
        let active = active.map(|(key, standing)| KeyEntry {
            kid: key.pair.kid.clone(),
            standing,
            published_at: key.published_at,
            signs_from: key.signs_from,
            verifies_until: None,
            imported: key.pair.imported,
            jwk: key.pair.public.to_jwk(),
        });
        KeyView {
            algorithm: self.algorithm.name(),
            rsa_bits: self.rsa_bits as u64,
            rotation_period_secs: self.settings.rotation_period_secs,
            rotation_count: self.settings.rotation_count,
            verification_ttl_secs: self.settings.verification_ttl_secs,
            allowed_client_ids: self.settings.allowed_client_ids.clone(),
            keys: retired.chain(active).collect(),
            rotates_at: self.rotates_at(),
        }
    }
}
