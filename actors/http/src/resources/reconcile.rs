//! `sys/leases/reconcile`: logins and leases compared, on request.

use mssm_domain::{ConnectionName, MountId};
use mssm_messages::reconcile::{ConnectionReport, Finding, FindingKind, Reconcile};

use crate::answer::Answer;
use crate::door::commit;
use crate::error::{Refusal, malformed};
use crate::json::{Object, list};
use crate::pipeline::Visit;

/// POST `sys/leases/reconcile`.
pub(crate) async fn answer(visit: &Visit) -> Result<Answer, Refusal> {
    let body = &visit.call.body;
    let dry_run = body.flag("dry_run")?.unwrap_or(false);
    let connection = body.text("connection")?.filter(|name| !name.is_empty());
    let connection = connection.map(|name| ConnectionName::parse(&name)).transpose();
    let connection = connection.map_err(|error| malformed(&error))?;
    let mount = match body.text("mount")? {
        Some(path) if !path.is_empty() => Some(mount(visit, &path)?),
        _ => None,
    };
    let confirm = body.flag("confirm")?.unwrap_or(false);
    let message = Reconcile { mount, connection, dry_run, confirm };
    let reports = commit(&visit.worker.door.minter.reconcile, message).await?;
    Ok(show(visit, &reports, dry_run))
}

fn mount(visit: &Visit, path: &str) -> Result<MountId, Refusal> {
    let is_it = |prefix: &str| prefix.trim_matches('/') == path.trim_matches('/');
    let found = visit.table.iter().find(|mount| is_it(mount.prefix.as_str()));
    found.map(|mount| mount.id).ok_or_else(|| Refusal::invalid(format!("no mount at {path}")))
}

fn show(visit: &Visit, reports: &[ConnectionReport], dry_run: bool) -> Answer {
    let mut warnings = Vec::new();
    let mut object = Object::new().flag("dry_run", dry_run);
    for kind in FindingKind::ALL {
        let findings = reports.iter().flat_map(|report| &report.findings);
        let count = findings.filter(|finding| finding.kind == kind).count() as u64;
        object = object.number(kind.name(), count);
    }
    let mut connections = Vec::with_capacity(reports.len());
    for report in reports {
        let mount = visit.table.iter().find(|mount| mount.id == report.mount);
        let mount =
            mount.map_or_else(|| report.mount.to_string(), |mount| mount.prefix.to_string());
        if let Some(why) = &report.held_back {
            warnings.push(format!("{mount}config/{}: {why}", report.connection));
        }
        let connection = Object::new()
            .text("mount", &mount)
            .text("connection", &report.connection)
            .maybe("held_back", report.held_back.as_deref())
            .number("marked_logins", report.marked)
            .number("leases", report.leases)
            .raw("findings", &list(report.findings.iter().map(finding)));
        connections.push(connection);
    }
    Answer::data(object.raw("connections", &list(connections.into_iter()))).warn(warnings)
}

fn finding(finding: &Finding) -> Object {
    Object::new()
        .text("kind", finding.kind.name())
        .text("username", &finding.login)
        .maybe("lease_id", finding.lease.as_deref())
        .flag("acts", finding.acts)
}
