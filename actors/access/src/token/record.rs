//! How tokens, their traces and policies are written down: JSON with a version in front.

use std::collections::BTreeMap;

use mssm_domain::{Accessor, PolicyName, SecretBytes, Timestamp, TokenId, Ttl};
use mssm_messages::access::TokenView;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::Token;

/// The version of every record here.
const VERSION: u8 = 1;

/// Why a record makes no sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RecordError {
    /// Written by a newer server.
    #[error("record has the unknown version {0}")]
    Version(u8),
    /// Not what a record of this kind looks like.
    #[error("record makes no sense")]
    Malformed,
}

/// A record together with its version.
#[derive(Serialize, Deserialize)]
struct Versioned<T> {
    version: u8,
    #[serde(flatten)]
    record: T,
}

#[derive(Deserialize)]
struct VersionOnly {
    version: u8,
}

/// A policy's text.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct PolicyRecord {
    pub(crate) name: String,
    pub(crate) text: String,
}

/// Leads from an accessor to its token.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct AccessorRecord {
    pub(crate) accessor: String,
    pub(crate) token: String,
}

/// Says that one token is another's child.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct ChildRecord {
    pub(crate) parent: String,
    pub(crate) child: String,
}

/// A token that is dead and has left things behind.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct EndingRecord {
    pub(crate) token: String,
    /// True to let its children live on.
    pub(crate) keep_children: bool,
    /// The accessor, if its time had come: the audit is told.
    #[serde(default)]
    pub(crate) expired: Option<String>,
}

#[derive(Serialize, Deserialize)]
struct TokenRecord {
    id: String,
    accessor: String,
    policies: Vec<String>,
    metadata: BTreeMap<String, String>,
    display_name: String,
    path: String,
    issued_ms: u64,
    creation_ttl_secs: Option<u64>,
    expires_ms: Option<u64>,
    explicit_max_ttl_secs: Option<u64>,
    period_secs: Option<u64>,
    renewable: bool,
    renewed_ms: Option<u64>,
    num_uses: u32,
    parent: Option<String>,
    depth: u16,
}

/// Writes a record down.
pub(crate) fn encode<T: Serialize>(record: &T) -> Result<SecretBytes, RecordError> {
    let versioned = Versioned { version: VERSION, record };
    serde_json::to_vec(&versioned).map(SecretBytes::new).map_err(|_| RecordError::Malformed)
}

/// Reads a record.
pub(crate) fn decode<T: DeserializeOwned>(bytes: &SecretBytes) -> Result<T, RecordError> {
    // EXPOSE: parsing our own record; its fields go into types that do not print.
    let bytes = bytes.expose();
    let version: VersionOnly = serde_json::from_slice(bytes).map_err(|_| RecordError::Malformed)?;
    if version.version != VERSION {
        return Err(RecordError::Version(version.version));
    }
    let versioned: Versioned<T> =
        serde_json::from_slice(bytes).map_err(|_| RecordError::Malformed)?;
    Ok(versioned.record)
}

/// Writes a token down.
pub(crate) fn encode_token(token: &Token) -> Result<SecretBytes, RecordError> {
    let view = &token.view;
    encode(&TokenRecord {
        id: view.id.hex(),
        accessor: view.accessor.as_str().to_owned(),
        policies: view.policies.iter().map(|policy| policy.as_str().to_owned()).collect(),
        metadata: view.metadata.clone(),
        display_name: view.display_name.clone(),
        path: view.path.clone(),
        issued_ms: view.issued_at.unix_ms(),
        creation_ttl_secs: view.creation_ttl.map(Ttl::secs),
        expires_ms: view.expires_at.map(Timestamp::unix_ms),
        explicit_max_ttl_secs: view.explicit_max_ttl.map(Ttl::secs),
        period_secs: view.period.map(Ttl::secs),
        renewable: view.renewable,
        renewed_ms: view.renewed_at.map(Timestamp::unix_ms),
        num_uses: view.num_uses,
        parent: token.parent.map(|parent| parent.hex()),
        depth: token.depth,
    })
}

/// Reads a token.
pub(crate) fn decode_token(bytes: &SecretBytes) -> Result<Token, RecordError> {
    let record: TokenRecord = decode(bytes)?;
    record.try_into().map_err(|_: mssm_domain::Invalid| RecordError::Malformed)
}

impl TryFrom<TokenRecord> for Token {
    type Error = mssm_domain::Invalid;

    fn try_from(record: TokenRecord) -> Result<Self, Self::Error> {
        let ttl = |secs: Option<u64>| secs.map(Ttl::from_secs).transpose();
        let policies: Result<Vec<PolicyName>, _> =
            record.policies.iter().map(|name| PolicyName::parse(name)).collect();
        let parent = record.parent.as_deref().map(TokenId::parse_hex).transpose()?;
        Ok(Self {
            view: TokenView {
                id: TokenId::parse_hex(&record.id)?,
                accessor: Accessor::parse(&record.accessor)?,
                policies: policies?,
                metadata: record.metadata,
                display_name: record.display_name,
                path: record.path,
                issued_at: Timestamp::from_unix_ms(record.issued_ms),
                creation_ttl: ttl(record.creation_ttl_secs)?,
                expires_at: record.expires_ms.map(Timestamp::from_unix_ms),
                explicit_max_ttl: ttl(record.explicit_max_ttl_secs)?,
                period: ttl(record.period_secs)?,
                renewable: record.renewable,
                renewed_at: record.renewed_ms.map(Timestamp::from_unix_ms),
                num_uses: record.num_uses,
                orphan: parent.is_none(),
            },
            parent,
            depth: record.depth,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_token_survives_being_written_down() {
        let id = TokenId::from_fingerprint([7; 32]);
        let accessor = Accessor::parse("abcdefghijklmnopqrstuvwx").unwrap();
        let mut token = super::super::root(Timestamp::from_unix_ms(5), id, accessor);
        for parent in [None, Some(TokenId::from_fingerprint([8; 32]))] {
            token.parent = parent;
            token.view.orphan = parent.is_none();
            token.view.period = parent.map(|_| Ttl::from_secs(9).unwrap());
            let read = decode_token(&encode_token(&token).unwrap()).unwrap();
            assert_eq!(read, token);
        }
    }

    #[test]
    fn an_unknown_version_is_told_from_nonsense() {
        let bytes = |text: &str| SecretBytes::new(text.as_bytes().to_vec());
        let newer = bytes("{\"version\":2,\"what\":1}");
        assert_eq!(decode_token(&newer).unwrap_err(), RecordError::Version(2));
        assert_eq!(decode_token(&bytes("{\"version\":1}")).unwrap_err(), RecordError::Malformed);
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let _ = decode_token(&SecretBytes::new(bytes));
        }
    }
}
