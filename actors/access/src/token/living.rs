//! Whether a token lives: its record is there, and neither it nor an ancestor is over.

use mssm_domain::{SecretText, Timestamp, TokenId};
use mssm_messages::Barrier;
use mssm_messages::access::{AccessError, token_record};
use mssm_messages::keys::{Fingerprint, Purpose};

use super::{RecordError, Token, decode_token};

/// The longest text that is looked at as a token.
const TEXT_MAX: usize = 512;
/// More ancestors than any token can have: the records form a ring.
const ANCESTORS_MAX: usize = 256;

/// A token that lives.
#[derive(Debug)]
pub(crate) struct Living {
    /// The token.
    pub(crate) token: Token,
    /// Its record's version.
    pub(crate) version: u64,
    /// Its ancestors, nearest first.
    pub(crate) ancestors: Vec<TokenId>,
    /// When it ends: the earliest end among it and its ancestors.
    pub(crate) alive_until: Option<Timestamp>,
}

/// The keyed hash that a token's text is known by; `None` for what cannot be one.
pub(crate) async fn fingerprint(
    barrier: &Barrier,
    text: SecretText,
) -> Result<Option<TokenId>, AccessError> {
    let item = text.into_bytes();
    // EXPOSE: only its length is looked at.
    if item.expose().is_empty() || item.expose().len() > TEXT_MAX {
        return Ok(None);
    }
    let hashes = barrier
        .keys()
        .fingerprint(Fingerprint { purpose: Purpose::Token, items: vec![item] })
        .await
        .map_err(mssm_messages::BarrierError::from)?;
    Ok(hashes.first().copied().map(TokenId::from_fingerprint))
}

/// Finds a token and walks up its ancestors; `None` if it is dead by any of them.
pub(crate) async fn find_living(
    barrier: &Barrier,
    id: TokenId,
    now: Timestamp,
) -> Result<Option<Living>, AccessError> {
    let Some((token, version)) = read_token(barrier, id).await? else { return Ok(None) };
    if token.is_over(now) {
        return Ok(None);
    }
    let mut alive_until = token.view.expires_at;
    let mut ancestors = Vec::new();
    let mut next = token.parent;
    while let Some(id) = next {
        let Some((ancestor, _)) = read_token(barrier, id).await? else { return Ok(None) };
        if ancestor.is_over(now) {
            return Ok(None);
        }
        alive_until = match (alive_until, ancestor.view.expires_at) {
            (Some(mine), Some(other)) => Some(mine.min(other)),
            (mine, other) => mine.or(other),
        };
        ancestors.push(id);
        if ancestors.len() > ANCESTORS_MAX {
            return Err(AccessError::Internal);
        }
        next = ancestor.parent;
    }
    Ok(Some(Living { token, version, ancestors, alive_until }))
}

/// Reads a token's record, whether its time has come or not.
pub(crate) async fn read_token(
    barrier: &Barrier,
    id: TokenId,
) -> Result<Option<(Token, u64)>, AccessError> {
    let Some(plain) = barrier.read(&token_record(id)).await? else { return Ok(None) };
    let token = decode_token(&plain.bytes).map_err(broken)?;
    Ok(Some((token, plain.version)))
}

/// A record of ours that makes no sense is a fault of ours.
pub(crate) fn broken(error: RecordError) -> AccessError {
    tracing::error!(%error, "a token's record");
    AccessError::Internal
}
