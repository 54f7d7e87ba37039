//! Voucher mounts: `creds/:role`.

use super::creds;
use crate::answer::Answer;
use crate::call::Verb;
use crate::error::Refusal;
use crate::pipeline::Visit;

/// Answers below such a mount.
pub(crate) async fn answer(visit: &Visit) -> Result<Answer, Refusal> {
    match (visit.trimmed().split_once('/'), visit.call.verb) {
        (Some(("creds", role)), Verb::Read) => creds::issue(visit, role).await,
        (Some(("creds", _)), _) => Err(Refusal::unsupported_operation()),
        _ => Err(Refusal::unsupported_path()),
    }
}
