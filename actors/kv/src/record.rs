//! How secrets are written down: JSON with the caller's document inside as raw text.

use std::collections::BTreeMap;

use mssm_domain::{Document, SecretBytes, SecretText, Timestamp};
use mssm_messages::kv::{KvConfig, KvError};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::secret::{Secret, Version};

/// The only format so far; a record of another is refused, never guessed at.
const FORMAT: u8 = 1;

#[derive(Serialize, Deserialize)]
struct HeadRecord<'a> {
    format: u8,
    created: u64,
    updated: u64,
    current: u64,
    max_versions: u64,
    cas_required: bool,
    delete_after_secs: u64,
    custom: BTreeMap<String, String>,
    versions: Vec<VersionRecord>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
}

#[derive(Serialize, Deserialize)]
struct VersionRecord {
    number: u64,
    created: u64,
    deleted: Option<u64>,
    destroyed: bool,
}

#[derive(Serialize, Deserialize)]
struct ConfigRecord {
    format: u8,
    max_versions: u64,
    cas_required: bool,
    delete_after_secs: u64,
}

/// The bytes of a record that is the document alone.
pub(crate) fn document_bytes(document: &Document) -> SecretBytes {
    // EXPOSE: it goes into the barrier, which seals it.
    SecretBytes::new(document.expose().as_bytes().to_vec())
}

/// The document of a record that is the document alone.
pub(crate) fn document(bytes: SecretBytes) -> Result<Document, KvError> {
    let text = bytes.into_text().map_err(|_| KvError::Internal)?;
    Ok(Document::from_checked_json(text))
}

/// The bytes of a secret's head: its metadata and its latest document.
pub(crate) fn head_bytes(secret: &Secret) -> Result<SecretBytes, KvError> {
    // EXPOSE: it goes into the barrier, which seals it.
    let text = secret.latest.as_ref().map(Document::expose);
    let data = text.map(serde_json::from_str::<&RawValue>).transpose();
    let versions = secret.versions.iter().map(|version| VersionRecord {
        number: version.number,
        created: version.created_at.unix_ms(),
        deleted: version.deleted_at.map(Timestamp::unix_ms),
        destroyed: version.destroyed,
    });
    let record = HeadRecord {
        format: FORMAT,
        created: secret.created_at.unix_ms(),
        updated: secret.updated_at.unix_ms(),
        current: secret.current,
        max_versions: secret.max_versions,
        cas_required: secret.cas_required,
        delete_after_secs: secret.delete_after_secs,
        custom: secret.custom.clone(),
        versions: versions.collect(),
        data: data.map_err(|_| KvError::Internal)?,
    };
    // Room for all of it at once: a buffer that grows leaves copies behind.
    let notes: usize =
        record.custom.iter().map(|(name, value)| name.len() + value.len() + 16).sum();
    let room = 256 + 96 * record.versions.len() + notes * 2 + text.map_or(0, str::len);
    let mut bytes = Vec::with_capacity(room);
    serde_json::to_writer(&mut bytes, &record).map_err(|_| KvError::Internal)?;
    Ok(SecretBytes::new(bytes))
}

/// The secret that a head's bytes describe.
pub(crate) fn head(bytes: &SecretBytes) -> Result<Secret, KvError> {
    // EXPOSE: parsed into a `Secret`, whose document is a secret again.
    let record: HeadRecord<'_> =
        serde_json::from_slice(bytes.expose()).map_err(|_| KvError::Internal)?;
    if record.format != FORMAT {
        return Err(KvError::Internal);
    }
    let versions = record.versions.into_iter().map(|version| Version {
        number: version.number,
        created_at: Timestamp::from_unix_ms(version.created),
        deleted_at: version.deleted.map(Timestamp::from_unix_ms),
        destroyed: version.destroyed,
    });
    Ok(Secret {
        created_at: Timestamp::from_unix_ms(record.created),
        updated_at: Timestamp::from_unix_ms(record.updated),
        current: record.current,
        max_versions: record.max_versions,
        cas_required: record.cas_required,
        delete_after_secs: record.delete_after_secs,
        custom: record.custom,
        versions: versions.collect(),
        latest: record
            .data
            .map(|raw| Document::from_checked_json(SecretText::new(raw.get().to_owned()))),
    })
}

/// The bytes of a mount's settings.
pub(crate) fn config_bytes(config: &KvConfig) -> Result<SecretBytes, KvError> {
    let record = ConfigRecord {
        format: FORMAT,
        max_versions: config.max_versions,
        cas_required: config.cas_required,
        delete_after_secs: config.delete_version_after_secs,
    };
    serde_json::to_vec(&record).map(SecretBytes::new).map_err(|_| KvError::Internal)
}

/// The settings that a record's bytes describe.
pub(crate) fn config(bytes: &SecretBytes) -> Result<KvConfig, KvError> {
    // EXPOSE: settings are no secret; they are stored sealed like everything.
    let record: ConfigRecord =
        serde_json::from_slice(bytes.expose()).map_err(|_| KvError::Internal)?;
    if record.format != FORMAT {
        return Err(KvError::Internal);
    }
    Ok(KvConfig {
        max_versions: record.max_versions,
        cas_required: record.cas_required,
        delete_version_after_secs: record.delete_after_secs,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Whatever bytes a record holds, reading it is an answer or an error.
        #[test]
        fn hostile_records_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let bytes = SecretBytes::new(bytes);
            prop_assert!(head(&bytes).is_err());
            prop_assert!(config(&bytes).is_err());
        }
    }

    #[test]
    fn a_head_survives_being_written_down() {
        let document = r#"{"n": 12345678901234567890.10, "deep": [1e400]}"#;
        let mut secret = Secret::begin(Timestamp::from_unix_ms(5));
        secret.latest = Some(Document::from_checked_json(SecretText::new(document.into())));
        secret.custom.insert("owner".into(), "\"quoted\"".into());
        let read = head(&head_bytes(&secret).unwrap()).unwrap();
        assert_eq!(read.latest.unwrap().expose(), document);
        assert_eq!(read.custom, secret.custom);
        assert_eq!(read.created_at, secret.created_at);
    }

    #[test]
    fn an_unknown_format_is_refused() {
        let bytes = SecretBytes::new(
            br#"{"format":2,"max_versions":0,"cas_required":false,"delete_after_secs":0}"#.to_vec(),
        );
        assert_eq!(config(&bytes), Err(KvError::Internal));
    }
}
