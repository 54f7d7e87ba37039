//! `sys/audit`, `sys/audit-hash`, `sys/config/auditing`: the log, and what is shown in it.

use mssm_domain::Prefix;
use mssm_messages::audit::ReadStatus;
use mssm_messages::devices::{Device, DisableDevice, EnableDevice, ListDevices, ShowHash};
use mssm_messages::engine::EngineKind;
use mssm_messages::keys::{Fingerprint, Purpose};
use mssm_messages::mounts::{Tune, TunePatch};

use crate::answer::Answer;
use crate::call::Verb;
use crate::door::{LOG, NEAR, ask, commit};
use crate::error::Refusal;
use crate::json::Object;
use crate::pipeline::Visit;

/// `sys/audit[/:device]`; `key` is not a device.
pub(crate) async fn devices(visit: &Visit, device: &str) -> Result<Answer, Refusal> {
    match (device, visit.call.verb) {
        ("", Verb::Read | Verb::List) => list(visit).await,
        ("key", Verb::Read) => key(visit).await,
        ("" | "key", _) => Err(Refusal::unsupported_operation()),
        (path, Verb::Write) => enable(visit, path).await,
        (path, Verb::Delete) => {
            commit(&visit.worker.door.audit.devices.disable, DisableDevice(parsed(path)?)).await?;
            Ok(Answer::done())
        }
        (_, Verb::Read | Verb::List | Verb::Patch) => Err(Refusal::unsupported_path()),
    }
}

fn parsed(path: &str) -> Result<Prefix, Refusal> {
    Prefix::parse(path).map_err(|error| Refusal::invalid(error.to_string()))
}

/// All devices, by path.
async fn list(visit: &Visit) -> Result<Answer, Refusal> {
    let devices = ask(&visit.worker.door.audit.devices.list, ListDevices, NEAR).await?;
    let mut listed = Object::new();
    for device in devices {
        let mut options = Object::new();
        for (name, value) in &device.options {
            options = options.text(name, value);
        }
        let shown = Object::new()
            .text("description", &device.description)
            .flag("local", device.local)
            .object("options", options)
            .text("path", device.path.as_str())
            .text("type", &device.kind);
        listed = listed.object(device.path.as_str(), shown);
    }
    Ok(Answer::double(listed))
}

/// POST `sys/audit/:path`: a further device.
async fn enable(visit: &Visit, path: &str) -> Result<Answer, Refusal> {
    let body = &visit.call.body;
    let kind = body.required("type", "audit device type must be specified as a string")?;
    let device = Device {
        path: parsed(path)?,
        kind,
        description: body.text("description")?.unwrap_or_default(),
        local: body.flag("local")?.unwrap_or(false),
        options: body.map("options")?.unwrap_or_default(),
    };
    commit(&visit.worker.door.audit.devices.enable, EnableDevice(device)).await?;
    Ok(Answer::done())
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
    let device = parsed(device)?;
    let input = visit.call.body.secret("input")?;
    let input = input.ok_or_else(|| Refusal::invalid("the \"input\" parameter is empty"))?;
    // EXPOSE: it is hashed, and the hash is all that leaves.
    let items = vec![mssm_domain::SecretBytes::new(input.expose().as_bytes().to_vec())];
    let asked = Fingerprint { purpose: Purpose::Audit, items };
    let hashes = visit.worker.door.keys.fingerprint(asked).await.map_err(Refusal::from)?;
    let hash = *hashes.first().ok_or_else(|| Refusal::internal("no hash"))?;
    let hash = ask(&visit.worker.door.audit.show, ShowHash { device, hash }, NEAR).await?;
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
