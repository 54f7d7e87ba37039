//! `sys/audit`, `sys/audit-hash`, `sys/config/auditing`: the log, and what is shown in it.

use mssm_domain::Prefix;
use mssm_messages::audit::ReadStatus;
use mssm_messages::engine::EngineKind;
use mssm_messages::keys::{Fingerprint, Purpose};
use mssm_messages::mounts::{Tune, TunePatch};

use crate::answer::Answer;
use crate::call::Verb;
use crate::door::{LOG, ask, commit};
use crate::error::Refusal;
use crate::json::Object;
use crate::pipeline::Visit;

/// The name of the one log.
const DEVICE: &str = "file";

/// `sys/audit[/:device]`; `key` is not a device.
pub(crate) async fn devices(visit: &Visit, device: &str) -> Result<Answer, Refusal> {
    match (device, visit.call.verb) {
        ("", Verb::Read | Verb::List) => Ok(list(visit)),
        ("key", Verb::Read) => key(visit).await,
        ("" | "key", _) => Err(Refusal::unsupported_operation()),
        (_, Verb::Write | Verb::Delete) => {
            let text = "the audit log is set up in the server's configuration, not via the API";
            Err(Refusal::invalid(text))
        }
        (_, Verb::Read | Verb::List | Verb::Patch) => Err(Refusal::unsupported_path()),
    }
}

/// The one log, set up in the configuration.
fn list(visit: &Visit) -> Answer {
    let options = Object::new().text("file_path", &visit.worker.door.about.audit_path);
    let device = Object::new()
        .text("description", "")
        .flag("local", false)
        .object("options", options)
        .text("path", "file/")
        .text("type", "file");
    Answer::double(Object::new().object("file/", device))
}

/// The Ed25519 public key, in hexadecimal, that verifies the log's checkpoints, and its head.
async fn key(visit: &Visit) -> Result<Answer, Refusal> {
    let status = ask(&visit.worker.door.audit.status, ReadStatus, LOG).await?;
    let key = status.public_key.ok_or_else(Refusal::not_found)?;
    // The head as well: who keeps it elsewhere sees later whether the log was cut.
    let head = format!("{}:{}", status.head.count, hex::encode(status.head.hash));
    let object = Object::new().text("algorithm", "ed25519").text("head", &head);
    Ok(Answer::data(object.text("public_key", &hex::encode(key))))
}

/// POST `sys/audit-hash/:device`: how a value stands in the log, to search for it.
pub(crate) async fn hash(visit: &Visit, device: &str) -> Result<Answer, Refusal> {
    if visit.call.verb != Verb::Write || device.is_empty() {
        return Err(Refusal::unsupported_operation());
    }
    if device != DEVICE {
        return Err(Refusal::invalid(format!("unknown audit backend: {device}")));
    }
    let input = visit.call.body.secret("input")?;
    let input = input.ok_or_else(|| Refusal::invalid("the \"input\" parameter is empty"))?;
    // EXPOSE: it is hashed, and the hash is all that leaves.
    let items = vec![mssm_domain::SecretBytes::new(input.expose().as_bytes().to_vec())];
    let asked = Fingerprint { purpose: Purpose::Audit, items };
    let hashes = visit.worker.door.keys.fingerprint(asked).await.map_err(Refusal::from)?;
    let hash = hashes.first().ok_or_else(|| Refusal::internal("no hash"))?;
    let text = format!("hmac-sha256:{}", hex::encode(hash));
    Ok(Answer::double(Object::new().text("hash", &text)))
}

/// `sys/config/auditing/request-headers[/:name]`: which headers are written down.
pub(crate) async fn headers(visit: &Visit, name: &str) -> Result<Answer, Refusal> {
    let system = visit.table.iter().find(|mount| mount.kind == EngineKind::System);
    let rules = system.map(|mount| mount.audit.headers.clone()).unwrap_or_default();
    let name = name.to_ascii_lowercase();
    let entry = |hashed: bool| Object::new().flag("hmac", hashed);
    match (visit.call.verb, name.as_str()) {
        (Verb::Read | Verb::List, "") => {
            let mut shown = Object::new();
            for (name, hashed) in &rules {
                shown = shown.object(name, entry(*hashed));
            }
            Ok(Answer::double(Object::new().object("headers", shown)))
        }
        (Verb::Read, name) => {
            let missing = || Refusal::invalid("Could not find header in config");
            let hashed = rules.get(name).ok_or_else(missing)?;
            Ok(Answer::double(Object::new().object(name, entry(*hashed))))
        }
        (Verb::Write, name) if is_header(name) => {
            let hashed = visit.call.body.flag("hmac")?.unwrap_or(false);
            set(visit, name, Some(hashed)).await
        }
        (Verb::Delete, name) if is_header(name) => set(visit, name, None).await,
        (Verb::Write | Verb::Delete, "") | (Verb::List | Verb::Patch, _) => {
            Err(Refusal::unsupported_operation())
        }
        (Verb::Write | Verb::Delete, _) => Err(Refusal::invalid("that is not a header's name")),
    }
}

fn is_header(name: &str) -> bool {
    let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !name.is_empty() && name.bytes().all(token)
}

async fn set(visit: &Visit, name: &str, hashed: Option<bool>) -> Result<Answer, Refusal> {
    let prefix = Prefix::parse("sys").map_err(|error| Refusal::internal(error.to_string()))?;
    let patch = TunePatch { header: Some((name.to_owned(), hashed)), ..TunePatch::default() };
    commit(&visit.worker.door.mounts.tune, Tune { prefix, patch }).await?;
    Ok(Answer::done())
}
