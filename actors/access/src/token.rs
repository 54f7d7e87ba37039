//! What a token is: how it is written down, what may become of it, and whether it lives.

mod living;
mod record;
mod rules;

pub(crate) use living::{Living, broken, find_living, fingerprint, read_token};
pub(crate) use record::{
    AccessorRecord, ChildRecord, EndingRecord, PolicyRecord, RecordError, decode, decode_token,
    encode, encode_token,
};
pub(crate) use rules::{Birth, Token, accessor_of, create, new_text, renew, root};
