//! The shape of each line: Vault's, with a sequence number and the hash of the line before.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use mssm_domain::Timestamp;
use mssm_messages::audit::{Answered, Asked, Entry, Redacted, Who};
use serde::Serialize as DeriveSerialize;
use serde::ser::{Serialize, SerializeMap, SerializeSeq, Serializer};

use crate::salt::Salt;

/// What stands in the place of a value that cannot be hashed.
const HIDDEN: &str = "hidden while sealed";

/// Every line begins with these.
#[derive(DeriveSerialize)]
pub(crate) struct Line<'a, B: DeriveSerialize> {
    /// Counts the lines from 0.
    pub(crate) seq: u64,
    /// SHA-256 of the preceding line's bytes, in hexadecimal; zeros for the first.
    pub(crate) prev: &'a str,
    pub(crate) time: String,
    #[serde(rename = "type")]
    pub(crate) kind: &'static str,
    #[serde(flatten)]
    pub(crate) body: B,
}

/// What a request and its answer begin with.
#[derive(DeriveSerialize)]
struct Head<'a> {
    seq: u64,
    prev: &'a str,
    time: String,
    #[serde(rename = "type")]
    kind: &'static str,
}

/// What is the same in the lines of a request and of its answer.
#[derive(DeriveSerialize)]
struct Common<'a> {
    auth: AuthShape<'a>,
    request: RequestShape<'a>,
}

#[derive(DeriveSerialize)]
struct Outcome<'a> {
    response: ResponseShape<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

#[derive(DeriveSerialize)]
struct AuthShape<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    client_token: Option<Hash<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    accessor: Option<Hash<'a>>,
    display_name: &'a str,
    policies: &'a [String],
    token_policies: &'a [String],
    policy_results: Results<'a>,
    token_type: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    token_issue_time: Option<String>,
}

#[derive(DeriveSerialize)]
struct Results<'a> {
    allowed: bool,
    granting_policies: Vec<Granting<'a>>,
}

#[derive(DeriveSerialize)]
struct Granting<'a> {
    name: &'a str,
    #[serde(rename = "type")]
    kind: &'static str,
}

#[derive(DeriveSerialize)]
struct RequestShape<'a> {
    id: String,
    operation: &'static str,
    path: &'a str,
    mount_point: &'a str,
    mount_type: &'static str,
    mount_accessor: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    client_token: Option<Hash<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    client_token_accessor: Option<Hash<'a>>,
    namespace: Namespace,
    data: Shown<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    headers: Option<Shown<'a>>,
    remote_address: &'a str,
    remote_port: u16,
}

#[derive(DeriveSerialize)]
struct Namespace {
    id: &'static str,
}

#[derive(DeriveSerialize)]
struct ResponseShape<'a> {
    status: u16,
    mount_point: &'a str,
    mount_type: &'static str,
    data: Shown<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    secret: Option<LeaseShape<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    auth: Option<Shown<'a>>,
}

#[derive(DeriveSerialize)]
struct LeaseShape<'a> {
    lease_id: &'a str,
}

#[derive(DeriveSerialize)]
struct EventShape<D: DeriveSerialize> {
    event: &'static str,
    details: BTreeMap<&'static str, D>,
}

struct Hash<'a>(&'a [u8; 32], &'a Salt);

impl Serialize for Hash<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        const PREFIX: &[u8; 12] = b"hmac-sha256:";
        let Some(hash) = self.1.shown(self.0) else { return serializer.serialize_str(HIDDEN) };
        let mut text = [0; 76];
        let (head, digits) = text.split_at_mut(PREFIX.len());
        head.copy_from_slice(PREFIX);
        hex::encode_to_slice(hash, digits).map_err(serde::ser::Error::custom)?;
        serializer.serialize_str(std::str::from_utf8(&text).map_err(serde::ser::Error::custom)?)
    }
}

struct Shown<'a>(&'a Redacted, &'a Salt);

impl Serialize for Shown<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Redacted::Null => serializer.serialize_unit(),
            Redacted::Hash(hash) => Hash(hash, self.1).serialize(serializer),
            Redacted::Hidden => serializer.serialize_str(HIDDEN),
            Redacted::Public(text) => serializer.serialize_str(text),
            Redacted::List(items) => {
                let mut list = serializer.serialize_seq(Some(items.len()))?;
                for item in items {
                    list.serialize_element(&Shown(item, self.1))?;
                }
                list.end()
            }
            Redacted::Map(members) => {
                let mut map = serializer.serialize_map(Some(members.len()))?;
                for (name, value) in members {
                    map.serialize_entry(name, &Shown(value, self.1))?;
                }
                map.end()
            }
            Redacted::HashedMap(members) => {
                let mut map = serializer.serialize_map(Some(members.len()))?;
                for (name, value) in members {
                    map.serialize_entry(&Hash(name, self.1), &Shown(value, self.1))?;
                }
                map.end()
            }
        }
    }
}

/// Renders lines, each behind the others. An answer that follows its request repeats what that said.
pub(crate) struct Renderer<'a> {
    salt: &'a Salt,
    /// The newest request, and where what it has in common with its answer lies.
    asked: Option<(&'a Arc<Asked>, &'a Arc<Who>, Range<usize>)>,
}

impl<'a> Renderer<'a> {
    pub(crate) const fn new(salt: &'a Salt) -> Self {
        Self { salt, asked: None }
    }

    /// Renders an entry as line number `seq` after the line whose hash is `prev`, without its break,
    /// behind what is in `lines`, which holds what was rendered before.
    pub(crate) fn render(
        &mut self,
        entry: &'a Entry,
        (seq, prev): (u64, &str),
        lines: &mut Vec<u8>,
    ) -> Result<(), serde_json::Error> {
        match entry {
            Entry::Request { time, who, asked } => {
                let time = time.rfc3339();
                serde_json::to_writer(&mut *lines, &Head { seq, prev, time, kind: "request" })?;
                let common = join(lines, &self.common(who, asked))?;
                self.asked = Some((asked, who, common));
                Ok(())
            }
            Entry::Response { time, who, asked, answered } => {
                let time = time.rfc3339();
                serde_json::to_writer(&mut *lines, &Head { seq, prev, time, kind: "response" })?;
                match &self.asked {
                    Some((same, by, common))
                        if Arc::ptr_eq(same, asked) && Arc::ptr_eq(by, who) =>
                    {
                        lines.pop();
                        lines.extend_from_within(common.clone());
                        lines.push(b'}');
                    }
                    _ => {
                        join(lines, &self.common(who, asked))?;
                    }
                }
                let error = (!answered.errors.is_empty()).then(|| answered.errors.join("; "));
                let response = response(self.salt, asked, answered);
                join(lines, &Outcome { response, error }).map(|_| ())
            }
            Entry::TokenExpired { time, accessor } => {
                let details = BTreeMap::from([("accessor", Hash(accessor, self.salt))]);
                let body = EventShape { event: "token-expired", details };
                write(&Line { seq, prev, time: time.rfc3339(), kind: "event", body }, lines)
            }
            Entry::Event { time, event } => {
                let details =
                    event.details.iter().map(|(name, value)| (*name, value.as_str())).collect();
                let body = EventShape { event: event.name, details };
                write(&Line { seq, prev, time: time.rfc3339(), kind: "event", body }, lines)
            }
        }
    }

    fn common(&self, who: &'a Who, asked: &'a Asked) -> Common<'a> {
        Common { auth: auth(self.salt, who), request: request(self.salt, who, asked) }
    }
}

/// Adds members to the JSON object that `lines` ends with; says where they lie, with their comma.
fn join(
    lines: &mut Vec<u8>,
    members: &impl DeriveSerialize,
) -> Result<Range<usize>, serde_json::Error> {
    lines.pop();
    let begin = lines.len();
    serde_json::to_writer(&mut *lines, members)?;
    if let Some(brace) = lines.get_mut(begin) {
        *brace = b',';
    }
    Ok(begin..lines.len() - 1)
}

fn auth<'a>(salt: &'a Salt, who: &'a Who) -> AuthShape<'a> {
    let granting = who.granting.iter().map(|name| Granting { name, kind: "acl" }).collect();
    AuthShape {
        client_token: who.token.as_ref().map(|hash| Hash(hash, salt)),
        accessor: who.accessor.as_ref().map(|hash| Hash(hash, salt)),
        display_name: &who.display_name,
        policies: &who.policies,
        token_policies: &who.policies,
        policy_results: Results { allowed: who.allowed, granting_policies: granting },
        token_type: who.token_type,
        token_issue_time: who.token_issued_at.map(Timestamp::rfc3339),
    }
}

fn request<'a>(salt: &'a Salt, who: &'a Who, asked: &'a Asked) -> RequestShape<'a> {
    RequestShape {
        id: asked.id.to_string(),
        operation: asked.operation,
        path: &asked.path,
        mount_point: &asked.mount_point,
        mount_type: asked.mount_type,
        mount_accessor: &asked.mount_accessor,
        client_token: who.token.as_ref().map(|hash| Hash(hash, salt)),
        client_token_accessor: who.accessor.as_ref().map(|hash| Hash(hash, salt)),
        namespace: Namespace { id: "root" },
        data: Shown(&asked.data, salt),
        headers: (asked.headers != Redacted::Null).then_some(Shown(&asked.headers, salt)),
        remote_address: &asked.remote_address,
        remote_port: asked.remote_port,
    }
}

fn response<'a>(salt: &'a Salt, asked: &'a Asked, answered: &'a Answered) -> ResponseShape<'a> {
    ResponseShape {
        status: answered.status,
        mount_point: &asked.mount_point,
        mount_type: asked.mount_type,
        data: Shown(&answered.data, salt),
        secret: answered.lease_id.as_deref().map(|lease_id| LeaseShape { lease_id }),
        auth: (answered.auth != Redacted::Null).then_some(Shown(&answered.auth, salt)),
    }
}

/// Writes a line's JSON, which never holds a line break, behind what is in `lines`.
pub(crate) fn write<B: DeriveSerialize>(
    line: &Line<'_, B>,
    lines: &mut Vec<u8>,
) -> Result<(), serde_json::Error> {
    serde_json::to_writer(lines, line)
}
