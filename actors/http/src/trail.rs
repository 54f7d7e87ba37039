//! A request's lines in the audit log: before the effect, or with the answer.

use std::collections::BTreeMap;
use std::sync::Arc;

use mssm_domain::{Caller, SecretBytes};
use mssm_messages::audit::{Answered, Append, Asked, Entry, Redacted, Who};
use mssm_messages::keys::{Fingerprint, Purpose};
use mssm_messages::mounts::Mount;

use crate::answer::Answer;
use crate::call::Call;
use crate::door::{FrontDoor, LOG, ask};
use crate::error::Refusal;
use crate::redact::{Redactor, fill, hash_of};

/// What is known of a request when it is written down.
#[derive(Default)]
pub(crate) struct Known {
    /// Who asks, if that is known.
    pub(crate) caller: Option<Arc<Caller>>,
    /// Where it goes, if that is known.
    pub(crate) mount: Option<Arc<Mount>>,
    /// The policies that decided.
    pub(crate) granting: Vec<String>,
    /// What was decided.
    pub(crate) allowed: bool,
    /// Vault's word for what is done.
    pub(crate) operation: &'static str,
    /// The mount whose rules say which headers are written down.
    pub(crate) headers: Option<Arc<Mount>>,
}

impl Known {
    /// What the mount's rules leave in clear of a request, and whether names are hashed.
    fn of_request(&self) -> (&[String], bool) {
        let rules = self.mount.as_deref().map(|mount| &mount.audit);
        rules.map_or((&[], false), |rules| (&rules.clear_request, rules.hash_names))
    }

    /// The same of an answer.
    fn of_response(&self) -> (&[String], bool) {
        let rules = self.mount.as_deref().map(|mount| &mount.audit);
        rules.map_or((&[], false), |rules| (&rules.clear_response, rules.hash_names))
    }
}

/// The trail of one request; its request line is written by [`Self::open`] or by [`Self::close`].
pub(crate) struct Trail {
    who: Arc<Who>,
    asked: Arc<Asked>,
    opened: bool,
}

/// A request's own values among those to be hashed.
struct Own {
    token: Option<Redacted>,
    accessor: Option<Redacted>,
}

impl Trail {
    /// A trail of which nothing is written yet.
    pub(crate) fn new(call: &Call, known: &Known) -> Self {
        let caller = known.caller.as_deref();
        let mount = known.mount.as_deref();
        let names = |caller: &Caller| caller.policies.iter().map(ToString::to_string).collect();
        let who = Who {
            token: None,
            accessor: None,
            display_name: caller.map(|caller| caller.display_name.clone()).unwrap_or_default(),
            policies: caller.map(names).unwrap_or_default(),
            granting: known.granting.clone(),
            allowed: known.allowed,
            token_type: if caller.is_some() { "service" } else { "" },
            token_issued_at: caller.map(|caller| caller.issued_at),
        };
        let asked = Asked {
            id: call.id,
            operation: known.operation,
            path: call.shown_path(),
            mount_point: mount.map(|mount| mount.prefix.to_string()).unwrap_or_default(),
            mount_type: mount.map_or("", |mount| mount.kind.name()),
            mount_accessor: mount.map(|mount| mount.accessor.clone()).unwrap_or_default(),
            data: Redacted::Null,
            headers: Redacted::Null,
            remote_address: call.remote.map(|remote| remote.ip().to_string()).unwrap_or_default(),
            remote_port: call.remote.map_or(0, |remote| remote.port()),
        };
        Self { who: Arc::new(who), asked: Arc::new(asked), opened: false }
    }

    /// Writes the request's line, durably, before its effect.
    pub(crate) async fn open(
        &mut self,
        door: &FrontDoor,
        call: &Call,
        known: &Known,
    ) -> Result<(), Refusal> {
        let mut redactor = Redactor::of(known.allowed);
        let own = self.redact_request(call, known, &mut redactor);
        let hashes = fingerprints(door, redactor.take()).await;
        self.settle(&own, hashes.as_deref());
        let line = self.request_line(door);
        ask(&door.audit.append, Append(vec![line]), LOG).await?;
        self.opened = true;
        Ok(())
    }

    /// Writes the answer's line, and the request's before it if it is not written yet.
    pub(crate) async fn close(
        mut self,
        door: &FrontDoor,
        call: &Call,
        known: &Known,
        answer: &Answer,
    ) -> Result<(), Refusal> {
        let mut redactor = Redactor::of(known.allowed);
        let own = (!self.opened).then(|| self.redact_request(call, known, &mut redactor));
        let json = answer.data.as_ref().filter(|_| answer.has_json());
        let mut answered = Answered {
            status: answer.sent_status().as_u16(),
            data: json.map_or(Redacted::Null, |data| redactor.json(data, known.of_response())),
            lease_id: answer.lease.as_ref().map(|lease| lease.id.to_string()),
            auth: answer.auth.as_ref().map_or(Redacted::Null, |auth| redactor.auth(auth)),
            errors: answer.errors.clone(),
        };
        let hashes = fingerprints(door, redactor.take()).await;
        fill(&mut answered.data, hashes.as_deref());
        fill(&mut answered.auth, hashes.as_deref());
        let mut lines = Vec::with_capacity(2);
        if let Some(own) = own {
            self.settle(&own, hashes.as_deref());
            lines.push(self.request_line(door));
        }
        lines.push(Entry::Response {
            time: door.clock.now(),
            who: self.who,
            asked: self.asked,
            answered,
        });
        ask(&door.audit.append, Append(lines), LOG).await
    }

    fn redact_request(&mut self, call: &Call, known: &Known, redactor: &mut Redactor) -> Own {
        // EXPOSE: the token is hashed, the hash is all that is written.
        let token = call.token.as_ref().map(|token| redactor.value(token.expose()));
        let accessor = known.caller.as_ref().map(|caller| redactor.value(caller.accessor.as_str()));
        let rules = known.of_request();
        let asked = Arc::make_mut(&mut self.asked);
        asked.data = if call.body.is_empty() {
            redactor.query(&call.query, rules)
        } else {
            redactor.body(&call.body, rules)
        };
        if let Some(mount) = &known.headers {
            asked.headers = headers(call, &mount.audit.headers, redactor);
        }
        Own { token, accessor }
    }

    fn settle(&mut self, own: &Own, hashes: Option<&[[u8; 32]]>) {
        let (who, asked) = (Arc::make_mut(&mut self.who), Arc::make_mut(&mut self.asked));
        who.token = own.token.as_ref().and_then(|place| hash_of(place, hashes));
        who.accessor = own.accessor.as_ref().and_then(|place| hash_of(place, hashes));
        fill(&mut asked.data, hashes);
        fill(&mut asked.headers, hashes);
    }

    fn request_line(&self, door: &FrontDoor) -> Entry {
        let (who, asked) = (Arc::clone(&self.who), Arc::clone(&self.asked));
        Entry::Request { time: door.clock.now(), who, asked }
    }
}

/// The headers that the rules name, with their values.
fn headers(call: &Call, rules: &BTreeMap<String, bool>, redactor: &mut Redactor) -> Redacted {
    let sent = rules.iter().filter_map(|(name, hashed)| {
        let values: Vec<String> = call.headers.all(name).collect();
        (!values.is_empty()).then_some((name, values, !hashed))
    });
    redactor.headers(sent)
}

/// The hashes of values; `None` while there is no key.
async fn fingerprints(door: &FrontDoor, items: Vec<SecretBytes>) -> Option<Vec<[u8; 32]>> {
    if items.is_empty() {
        return None;
    }
    door.keys.fingerprint(Fingerprint { purpose: Purpose::Audit, items }).await.ok()
}
