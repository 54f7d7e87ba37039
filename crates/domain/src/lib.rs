//! The words every room shares: ids, time, paths, secrets, policies, leases.
//!
//! Plain data and pure rules; no input, no output, no clock and no randomness of its own (both come
//! in through [`Clock`] and [`Random`]). A value that exists is valid: every constructor parses.
//!
//! To add a word: give it a module, parse in its constructor, print nothing secret in its `Debug`.

mod cron;
mod document;
mod error;
mod expiry;
mod ids;
mod lease;
mod path;
pub mod policy;
mod random;
mod record;
mod secret;
mod time;
mod token;

pub use cron::Cron;
pub use document::Document;
pub use error::{ErrorKind, Fault};
pub use expiry::ExpiryIndex;
pub use ids::{
    Accessor, BootId, ClusterId, ConnectionId, ConnectionName, Invalid, KeyName, LeaseId, MountId,
    PolicyName, RequestId, RoleName, Term, TokenId,
};
pub use lease::{Lease, LeaseState};
pub use path::{CanonicalPath, PathError, Prefix};
pub use random::{BASE62, Random, generate_base62, generate_uuid};
pub use record::{RecordPath, StoredKey, StoredRecord};
pub use secret::{SealedBytes, SecretBytes, SecretText, same_in_constant_time};
pub use time::{Clock, Timestamp, Ttl, parse_duration_secs};
pub use token::{Caller, TokenKind};
