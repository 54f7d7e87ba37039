//! `creds/:role` of every engine that hands out leases.

use mssm_domain::{LeaseId, RoleName};
use mssm_messages::lease::Issue;

use crate::answer::{Answer, LeasePart};
use crate::error::{Refusal, unreachable};
use crate::handed::Handed;
use crate::json::Object;
use crate::pipeline::Visit;
use crate::resources::tokens::left;

/// GET `creds/:role`: a credential under a lease. Runs in the task of the request, which nobody's going
/// away ends; from here on the answer carries the lease, and whoever loses the answer ends it.
pub(crate) async fn issue(visit: &Visit, name: &str) -> Result<Answer, Refusal> {
    if visit.authorized.last_use {
        return Err(Refusal::invalid(
            "a token at its last use cannot hold a lease, so no credential was made",
        ));
    }
    let role = RoleName::parse(name).map_err(|_| Refusal::invalid("unknown role"))?;
    let mount = &visit.mount;
    let leases = &visit.worker.door.leases;
    let issue = Issue {
        engine: mount.kind,
        mount: mount.id,
        prefix: format!("{}creds/{role}/", mount.prefix),
        role,
        caller: visit.authorized.caller.as_ref().clone(),
        default_ttl: mount.effective_default_ttl(),
        max_ttl: mount.effective_max_ttl(),
        key: visit.call.idempotency_key.clone(),
    };
    let issued = leases.issue.commit(issue).await.map_err(unreachable)??;
    let id: LeaseId = issued.lease.id.clone();
    let handed = Handed::lease(id.clone(), leases.lost.clone());
    let data =
        issued.secret.iter().fold(Object::new(), |object, (key, value)| object.secret(key, value));
    let since = if issued.again { visit.worker.door.clock.now() } else { issued.lease.issued_at };
    let lease = LeasePart {
        id,
        renewable: issued.lease.renewable,
        seconds: left(since.until(issued.lease.expires_at)),
    };
    Ok(Answer::data(data).with_lease(lease).warn(issued.warnings).with_handed(handed))
}
