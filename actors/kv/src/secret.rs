//! A secret with versions, as plain data: what each operation makes of it.

use std::collections::BTreeMap;
use std::time::Duration;

use mssm_domain::{Document, Timestamp};
use mssm_messages::kv::{
    KvConfig, KvError, MetadataPatch, MetadataView, VersionView, VersionsChange,
};

/// How many versions are kept when nobody says.
const DEFAULT_MAX_VERSIONS: u64 = 10;

/// A version's circumstances.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Version {
    pub(crate) number: u64,
    pub(crate) created_at: Timestamp,
    pub(crate) deleted_at: Option<Timestamp>,
    pub(crate) destroyed: bool,
}

/// A secret: metadata, the latest document, and where the others are.
///
/// Versions are ascending without gaps and end with `current`; `latest` is there exactly while the
/// current version is not destroyed.
#[derive(Debug)]
pub(crate) struct Secret {
    pub(crate) created_at: Timestamp,
    pub(crate) updated_at: Timestamp,
    pub(crate) current: u64,
    pub(crate) max_versions: u64,
    pub(crate) cas_required: bool,
    pub(crate) delete_after_secs: u64,
    pub(crate) custom: BTreeMap<String, String>,
    pub(crate) versions: Vec<Version>,
    pub(crate) latest: Option<Document>,
}

/// What must happen to the records of older versions, together with the head.
#[derive(Debug, Default)]
pub(crate) struct Aside {
    /// The former latest document becomes a record of its own.
    pub(crate) keep: Option<(u64, Document)>,
    /// These versions' records go.
    pub(crate) drop: Vec<u64>,
}

impl Secret {
    /// A secret without versions.
    pub(crate) const fn begin(now: Timestamp) -> Self {
        Self {
            created_at: now,
            updated_at: now,
            current: 0,
            max_versions: 0,
            cas_required: false,
            delete_after_secs: 0,
            custom: BTreeMap::new(),
            versions: Vec::new(),
            latest: None,
        }
    }

    /// Adds a version; refuses if the caller named another than the current one, or none where one
    /// must be named.
    pub(crate) fn write(
        &mut self,
        now: Timestamp,
        config: &KvConfig,
        document: Document,
        check_and_set: Option<u64>,
    ) -> Result<Aside, KvError> {
        match check_and_set {
            Some(version) if version != self.current => return Err(KvError::CheckAndSet),
            None if self.cas_required || config.cas_required => {
                return Err(KvError::CheckAndSetRequired);
            }
            _ => {}
        }
        let former = self.latest.replace(document).map(|former| (self.current, former));
        self.current += 1;
        self.updated_at = now;
        let after = first_set(self.delete_after_secs, config.delete_version_after_secs);
        self.versions.push(Version {
            number: self.current,
            created_at: now,
            deleted_at: (after > 0).then(|| now.after(Duration::from_secs(after))),
            destroyed: false,
        });
        Ok(self.trim(config, former))
    }

    /// Lets go of what is more than the secret, or its mount, keeps.
    fn trim(&mut self, config: &KvConfig, former: Option<(u64, Document)>) -> Aside {
        let most =
            first_set(first_set(self.max_versions, config.max_versions), DEFAULT_MAX_VERSIONS);
        let surplus =
            self.versions.len().saturating_sub(usize::try_from(most).unwrap_or(usize::MAX));
        let drop: Vec<u64> = self.versions.drain(..surplus).map(|version| version.number).collect();
        let keep = former.filter(|(number, _)| !drop.contains(number));
        Aside { keep, drop }
    }

    /// Deletes, undeletes or destroys versions, the current one if none is named; versions that are
    /// not there are passed over. `None` if nothing changed.
    pub(crate) fn change(
        &mut self,
        now: Timestamp,
        numbers: &[u64],
        change: VersionsChange,
    ) -> Option<Aside> {
        let mut aside = Aside::default();
        let mut changed = false;
        for version in &mut self.versions {
            let named = if numbers.is_empty() {
                version.number == self.current
            } else {
                numbers.contains(&version.number)
            };
            if !named || version.destroyed {
                continue;
            }
            let gone = version.deleted_at.is_some_and(|at| at <= now);
            match change {
                VersionsChange::Delete if !gone => version.deleted_at = Some(now),
                VersionsChange::Undelete if version.deleted_at.is_some() => {
                    version.deleted_at = None;
                }
                VersionsChange::Destroy => {
                    version.destroyed = true;
                    if version.number == self.current {
                        self.latest = None;
                    } else {
                        aside.drop.push(version.number);
                    }
                }
                VersionsChange::Delete | VersionsChange::Undelete => continue,
            }
            changed = true;
        }
        changed.then_some(aside)
    }

    /// Changes what is kept of the secret; a smaller bound takes effect at once.
    pub(crate) fn change_metadata(
        &mut self,
        now: Timestamp,
        config: &KvConfig,
        patch: &MetadataPatch,
    ) -> Result<Aside, KvError> {
        let mut custom = patch.custom_metadata.clone().unwrap_or_else(|| self.custom.clone());
        for (name, value) in patch.merge_custom_metadata.iter().flatten() {
            match value {
                Some(value) => custom.insert(name.clone(), value.clone()),
                None => custom.remove(name),
            };
        }
        check_notes(&custom)?;
        self.custom = custom;
        self.max_versions = patch.max_versions.unwrap_or(self.max_versions);
        self.cas_required = patch.cas_required.unwrap_or(self.cas_required);
        self.delete_after_secs = patch.delete_version_after_secs.unwrap_or(self.delete_after_secs);
        self.updated_at = now;
        Ok(self.trim(config, None))
    }

    /// The version asked for, or the current one.
    pub(crate) fn version(&self, number: Option<u64>) -> Option<&Version> {
        let number = number.filter(|number| *number != 0).unwrap_or(self.current);
        self.versions.iter().find(|version| version.number == number)
    }

    /// A version as callers see it.
    pub(crate) fn view(&self, version: &Version) -> VersionView {
        VersionView {
            version: version.number,
            created_at: version.created_at,
            deleted_at: version.deleted_at,
            destroyed: version.destroyed,
            custom_metadata: self.custom.clone(),
        }
    }

    /// The metadata as callers see it.
    pub(crate) fn metadata(&self) -> MetadataView {
        MetadataView {
            created_at: self.created_at,
            updated_at: self.updated_at,
            current_version: self.current,
            oldest_version: self.versions.first().map_or(0, |version| version.number),
            max_versions: self.max_versions,
            cas_required: self.cas_required,
            delete_version_after_secs: self.delete_after_secs,
            custom_metadata: self.custom.clone(),
            versions: self.versions.iter().map(|version| self.view(version)).collect(),
        }
    }
}

const fn first_set(first: u64, second: u64) -> u64 {
    if first == 0 { second } else { first }
}

/// Vault's bounds on notes: 64 of them, names of 128 bytes, values of 512.
fn check_notes(notes: &BTreeMap<String, String>) -> Result<(), KvError> {
    let fits = |(name, value): (&String, &String)| {
        (1..=128).contains(&name.len()) && (1..=512).contains(&value.len())
    };
    if notes.len() <= 64 && notes.iter().all(fits) {
        return Ok(());
    }
    let rule = "custom_metadata holds at most 64 keys of 1 to 128 bytes, values of 1 to 512 bytes";
    Err(KvError::Invalid(rule.to_owned()))
}

#[cfg(test)]
mod tests {
    use mssm_domain::SecretText;
    use proptest::prelude::*;

    use super::*;

    const NOW: Timestamp = Timestamp::from_unix_ms(1_000);

    fn document(number: u64) -> Document {
        Document::from_checked_json(SecretText::new(format!("{{\"n\":{number}}}")))
    }

    #[test]
    fn check_and_set_names_the_version_that_is_there() {
        let cases = [
            (0, Some(0), false, None),
            (0, Some(1), false, Some(KvError::CheckAndSet)),
            (2, Some(2), true, None),
            (2, Some(0), false, Some(KvError::CheckAndSet)),
            (2, None, false, None),
            (2, None, true, Some(KvError::CheckAndSetRequired)),
        ];
        for (written, check_and_set, cas_required, error) in cases {
            let mut secret = Secret::begin(NOW);
            for number in 1..=written {
                secret.write(NOW, &KvConfig::default(), document(number), None).unwrap();
            }
            let config = KvConfig { cas_required, ..KvConfig::default() };
            let result = secret.write(NOW, &config, document(9), check_and_set);
            assert_eq!(result.err(), error, "{written} {check_and_set:?} {cas_required}");
        }
    }

    #[derive(Clone, Debug)]
    enum Step {
        Write,
        Change(u64, u8),
        Keep(u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            3 => Just(Step::Write),
            2 => (0..12_u64, 0..3_u8).prop_map(|(number, change)| Step::Change(number, change)),
            1 => (0..5_u64).prop_map(Step::Keep),
        ]
    }

    proptest! {
        /// Every version that is listed and not destroyed has its document somewhere; no other has.
        #[test]
        fn documents_are_where_the_versions_say(steps in prop::collection::vec(step(), 0..60)) {
            let (mut secret, mut aside) = (Secret::begin(NOW), BTreeMap::new());
            let config = KvConfig::default();
            for step in steps {
                let moved = match step {
                    Step::Write => {
                        let next = document(secret.current + 1);
                        Some(secret.write(NOW, &config, next, None).unwrap())
                    }
                    Step::Change(number, change) => secret.change(NOW, &[number], match change {
                        0 => VersionsChange::Delete,
                        1 => VersionsChange::Undelete,
                        _ => VersionsChange::Destroy,
                    }),
                    Step::Keep(most) => {
                        let patch =
                            MetadataPatch { max_versions: Some(most), ..MetadataPatch::default() };
                        Some(secret.change_metadata(NOW, &config, &patch).unwrap())
                    }
                };
                if let Some(moved) = moved {
                    for number in moved.drop {
                        aside.remove(&number);
                    }
                    if let Some((number, document)) = moved.keep {
                        prop_assert!(aside.insert(number, document.expose().to_owned()).is_none());
                    }
                }
                for version in &secret.versions {
                    let text = format!("{{\"n\":{}}}", version.number);
                    let found = if version.number == secret.current {
                        secret.latest.as_ref().map(|latest| latest.expose().to_owned())
                    } else {
                        aside.get(&version.number).cloned()
                    };
                    prop_assert_eq!(found, (!version.destroyed).then_some(text));
                }
                let listed = |number: &u64| {
                    secret.versions.iter().any(|version| version.number == *number && !version.destroyed)
                };
                prop_assert!(aside.keys().all(listed));
            }
        }
    }
}
