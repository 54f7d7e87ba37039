//! `sys/`: what the server says of itself, and the way to the resources below it.

use crate::answer::Answer;
use crate::call::Verb;
use crate::door::{FAR, Worker, put};
use crate::error::Refusal;
use crate::json::Object;
use crate::pipeline::Visit;
use crate::resources::seal;

/// Answers below `sys/`.
pub(crate) async fn answer(visit: &Visit) -> Result<Answer, Refusal> {
    let verb = visit.call.verb;
    let path = visit.trimmed();
    let (head, _rest) = path.split_once('/').unwrap_or((path, ""));
    match (head, path) {
        (_, "seal") => seal::seal(visit).await,
        (_, "key-status") => seal::key_status(visit).await,
        (_, "rotate" | "rotate/keyring") => seal::rotate(visit).await,
        (_, "metrics") if verb == Verb::Read => metrics(&visit.worker).await,
        (_, "health" | "leader" | "init" | "unseal" | "seal-status" | "metrics") => {
            Err(Refusal::unsupported_operation())
        }
        _ => Err(Refusal::unsupported_path()),
    }
}

/// GET `sys/metrics`.
pub(crate) async fn metrics(worker: &Worker) -> Result<Answer, Refusal> {
    let _ = put(&worker.door.audit.status, mssm_messages::audit::ReadStatus, FAR).await;
    Ok(Answer::plain(String::new()))
}

/// Any path with `?help=1`.
pub(crate) fn help(visit: &Visit) -> Answer {
    let text = format!(
        "{} ({} mount). The paths are those of Vault's API; see the server's documentation.",
        visit.mount.prefix,
        visit.mount.kind.name()
    );
    Answer::bare(Object::new().text("help", &text).null("see_also").null("openapi"))
}
