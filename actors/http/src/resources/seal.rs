//! `sys/init`, `sys/seal-status`, `sys/unseal`, `sys/seal`, `sys/health`, `sys/leader`, `sys/rotate`.

use actix_web::http::StatusCode;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use mssm_domain::SecretBytes;
use mssm_messages::seal::{
    AutoUnseal, Init, ReadKeyStatus, ResetUnseal, Rotate, SealKind, SealNow, SealStatus, Status,
    Unseal,
};

use crate::answer::Answer;
use crate::call::{Call, Verb};
use crate::door::{FAR, NEAR, Worker, ask, commit, write_down};
use crate::error::Refusal;
use crate::json::Object;
use crate::pipeline::Visit;
use crate::resources::overdue;

/// What clients compare with Vault's releases to know what works.
pub(crate) const VERSION: &str = concat!("1.15.0+mssm.", env!("CARGO_PKG_VERSION"));
/// The name that clients see beside the cluster's id.
const CLUSTER_NAME: &str = "mssm";

async fn ask_status(worker: &Worker) -> Result<SealStatus, Refusal> {
    ask(&worker.door.seal.status, Status, NEAR).await
}

fn show(worker: &Worker, status: &SealStatus) -> Answer {
    let mut object = Object::new()
        .text("type", status.kind.name())
        .flag("initialized", status.initialized)
        .flag("sealed", status.sealed)
        .number("t", status.threshold.into())
        .number("n", status.shares.into())
        .number("progress", u64::try_from(status.entered.len()).unwrap_or_default())
        .text("nonce", &status.nonce)
        .text("version", VERSION)
        .text("build_date", "")
        .flag("migration", false);
    if let Some(cluster) = status.cluster {
        object = object.text("cluster_name", CLUSTER_NAME).text("cluster_id", &cluster.to_string());
    }
    let entered: Vec<String> = status.entered.iter().map(ToString::to_string).collect();
    Answer::bare(
        object
            .flag("recovery_seal", false)
            .text("storage_type", worker.door.about.storage_type)
            .raw("shares_entered", &format!("[{}]", entered.join(","))),
    )
}

/// GET `sys/seal-status`.
pub(crate) async fn status(worker: &Worker) -> Result<Answer, Refusal> {
    Ok(show(worker, &ask_status(worker).await?))
}

/// GET and HEAD `sys/health`.
pub(crate) async fn health(worker: &Worker, call: &Call) -> Result<Answer, Refusal> {
    let status = ask_status(worker).await?;
    let (parameter, usual) = if !status.initialized {
        ("uninitcode", 501)
    } else if status.sealed {
        ("sealedcode", 503)
    } else {
        ("activecode", 200)
    };
    let wished = call.query.get(parameter).and_then(|text| text.parse().ok());
    // 1xx would not end the exchange; such a wish is as good as none.
    let code = wished.filter(|code| (200..600).contains(code)).unwrap_or(usual);
    let mut object = Object::new()
        .flag("initialized", status.initialized)
        .flag("sealed", status.sealed)
        .flag("standby", false)
        .flag("performance_standby", false)
        .text("replication_performance_mode", "disabled")
        .text("replication_dr_mode", "disabled")
        .number("server_time_utc", worker.door.clock.now().unix_secs())
        .text("version", VERSION);
    if let Some(cluster) = status.cluster {
        object = object.text("cluster_name", CLUSTER_NAME).text("cluster_id", &cluster.to_string());
    }
    match worker.log_status().await {
        // Sealed too: nobody unseals a server whose log takes nothing.
        Some(log) => {
            object = object.flag("audit_blocked", log.blocked.is_some());
            if let Some(reason) = log.blocked {
                object = object.text("audit_blocked_reason", &reason);
            }
        }
        None if status.sealed => {}
        None => {
            let text = "the audit log says nothing in time";
            return Err(Refusal::new(StatusCode::SERVICE_UNAVAILABLE, text));
        }
    }
    if !status.sealed {
        object = overdue::health(worker, object).await;
    }
    let code = StatusCode::from_u16(code).unwrap_or(StatusCode::OK);
    Ok(Answer::bare(object).with_status(code))
}

/// GET `sys/leader`: there is one server.
pub(crate) fn leader() -> Answer {
    Answer::bare(
        Object::new()
            .flag("ha_enabled", false)
            .flag("is_self", true)
            .text("leader_address", "")
            .text("leader_cluster_address", "")
            .flag("performance_standby", false)
            .number("performance_standby_last_remote_wal", 0),
    )
}

/// GET `sys/init`.
pub(crate) async fn read_init(worker: &Worker) -> Result<Answer, Refusal> {
    let status = ask_status(worker).await?;
    Ok(Answer::bare(Object::new().flag("initialized", status.initialized)))
}

/// POST `sys/init`.
pub(crate) async fn init(worker: &Worker, call: &Call) -> Result<Answer, Refusal> {
    let small = |name: &str| {
        let number = call.body.number(name)?.unwrap_or(0);
        u8::try_from(number).map_err(|_| {
            Refusal::invalid(format!("invalid seal configuration: {name} must be at most 255"))
        })
    };
    for unsupported in ["pgp_keys", "root_token_pgp_key", "recovery_pgp_keys"] {
        if call.body.list(unsupported)?.is_some_and(|keys| !keys.is_empty()) {
            return Err(Refusal::invalid(format!("{unsupported} is not supported")));
        }
    }
    let mut wish = Init { shares: small("secret_shares")?, threshold: small("secret_threshold")? };
    if ask_status(worker).await?.kind == SealKind::Static {
        // There is nothing to split: clients send numbers all the same.
        wish = Init { shares: 0, threshold: 0 };
    }
    let numbers = (wish.shares, wish.threshold);
    let founded = commit(&worker.door.seal.init, wish).await?;
    let details = vec![("shares", numbers.0.to_string()), ("threshold", numbers.1.to_string())];
    write_down(&worker.door, "initialized", details).await;
    // EXPOSE: this answer is the only place where the shares are ever seen.
    let all = |encode: fn(&SecretBytes) -> String| founded.shares.iter().map(encode);
    Ok(Answer::bare(
        Object::sized(64 + 160 * founded.shares.len())
            .texts("keys", all(|share| hex::encode(share.expose())))
            .texts("keys_base64", all(|share| STANDARD.encode(share.expose())))
            .secret("root_token", &founded.root_token),
    ))
}

/// POST `sys/unseal`.
pub(crate) async fn unseal(worker: &Worker, call: &Call) -> Result<Answer, Refusal> {
    let seal = &worker.door.seal;
    let status = if call.body.flag("reset")? == Some(true) {
        commit(&seal.reset, ResetUnseal).await?
    } else if let Some(share) = call.body.secret("key")? {
        let entered = commit(&seal.unseal, Unseal(share)).await;
        write_down(&worker.door, "unseal-attempt", told(&entered)).await;
        entered?
    } else if ask_status(worker).await?.kind == SealKind::Static {
        commit(&seal.auto_unseal, AutoUnseal).await?
    } else {
        let text = "'key' must be specified in request body as JSON, or 'reset' set to true";
        return Err(Refusal::invalid(text));
    };
    Ok(show(worker, &status))
}

/// What is written down of a share that was entered: its number, never itself.
fn told(entered: &Result<SealStatus, Refusal>) -> Vec<(&'static str, String)> {
    match entered {
        Ok(status) => {
            let share =
                status.share.map_or_else(|| "unknown".to_owned(), |share| share.to_string());
            let outcome = if status.sealed { "taken" } else { "unsealed" };
            let progress = format!("{} of {}", status.entered.len(), status.threshold);
            vec![("share", share), ("outcome", outcome.to_owned()), ("progress", progress)]
        }
        Err(refusal) => {
            let reason = refusal.errors.join("; ");
            vec![("outcome", "refused".to_owned()), ("reason", reason)]
        }
    }
}

/// POST `sys/seal`.
pub(crate) async fn seal(visit: &Visit) -> Result<Answer, Refusal> {
    match visit.call.verb {
        Verb::Write => {
            commit(&visit.worker.door.seal.seal, SealNow).await?;
            Ok(Answer::done())
        }
        _ => Err(Refusal::unsupported_operation()),
    }
}

/// GET `sys/key-status`.
pub(crate) async fn key_status(visit: &Visit) -> Result<Answer, Refusal> {
    if visit.call.verb != Verb::Read {
        return Err(Refusal::unsupported_operation());
    }
    let status = ask(&visit.worker.door.seal.key_status, ReadKeyStatus, FAR).await?;
    Ok(Answer::double(
        Object::new()
            .number("term", status.term.number().into())
            .text("install_time", &status.installed_at.rfc3339())
            .number("encryptions", status.encryptions),
    ))
}

/// POST `sys/rotate` and `sys/rotate/keyring`.
pub(crate) async fn rotate(visit: &Visit) -> Result<Answer, Refusal> {
    match visit.call.verb {
        Verb::Write => {
            commit(&visit.worker.door.seal.rotate, Rotate).await?;
            Ok(Answer::done())
        }
        _ => Err(Refusal::unsupported_operation()),
    }
}
