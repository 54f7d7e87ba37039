//! `sys/metrics`: Prometheus' text format, written by hand.

use std::fmt::Write;

use mssm_messages::audit::DeviceStatus;
use mssm_messages::lease::LaneView;
use mssm_messages::reconcile::{FindingKind, ReconcileCounts};
use mssm_messages::seal::Status;

use crate::answer::Answer;
use crate::door::{NEAR, Worker, put};

/// The text being written.
#[derive(Default)]
struct Page(String);

impl Page {
    fn head(&mut self, name: &str, kind: &str, help: &str) {
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn one(&mut self, name: &str, kind: &str, help: &str, value: u64) {
        self.head(name, kind, help);
        let _ = writeln!(self.0, "{name} {value}");
    }
}

/// GET `sys/metrics`. What does not answer is left out.
pub(crate) async fn answer(worker: &Worker) -> Answer {
    let mut page = Page::default();
    front_door(&mut page, worker);
    let door = &worker.door;
    if let Ok(Ok(status)) = put(&door.seal.status, Status, NEAR).await {
        let help = "1 while the server has its keys.";
        page.one("mssm_core_unsealed", "gauge", help, u64::from(!status.sealed));
    }
    if let Some(status) = worker.log_status().await {
        let help = "1 while the audit log cannot be written, so that requests are refused.";
        page.one("mssm_audit_blocked", "gauge", help, u64::from(status.blocked.is_some()));
        if let Some(reason) = &status.blocked {
            let reason = label(reason);
            page.head("mssm_audit_blocked_reason", "gauge", "Why it cannot be written, always 1.");
            let _ = writeln!(page.0, "mssm_audit_blocked_reason{{reason=\"{reason}\"}} 1");
        }
        let help = "1 if lines of an earlier run were missing at unsealing.";
        page.one("mssm_audit_missing", "gauge", help, u64::from(status.missing.is_some()));
        devices(&mut page, &status.devices);
        page.one("mssm_audit_lines_total", "counter", "Lines written.", status.lines);
        page.one("mssm_audit_syncs_total", "counter", "Syncs to disk.", status.syncs);
    }
    if let Some(counts) = worker.lease_counts().await {
        page.head("mssm_leases", "gauge", "Leases by state.");
        for (state, number) in
            [("active", counts.active), ("pending", counts.pending), ("ending", counts.ending)]
        {
            let _ = writeln!(page.0, "mssm_leases{{state=\"{state}\"}} {number}");
        }
        let help = "Leases whose revocation has failed at least once and is tried on.";
        page.one("mssm_leases_overdue", "gauge", help, counts.overdue);
        let help = "How long the oldest of these has failed.";
        page.one("mssm_leases_overdue_oldest_seconds", "gauge", help, counts.overdue_oldest_secs);
        lanes(&mut page, &counts.lanes);
        page.one("mssm_leases_issued_total", "counter", "Issued.", counts.issued_total);
        page.one("mssm_leases_ended_total", "counter", "Ended.", counts.ended_total);
        let help = "Failed tries to revoke.";
        page.one("mssm_lease_revocation_failures_total", "counter", help, counts.failures_total);
        let help = "Lease records that cannot be read.";
        page.one("mssm_leases_unreadable", "gauge", help, counts.unreadable);
        reconciled(&mut page, &counts.reconcile);
    }
    Answer::plain(page.0)
}

/// A text between quotes.
fn label(text: &str) -> String {
    text.replace(['\\', '"', '\n'], " ")
}

/// How each audit device does.
fn devices(page: &mut Page, devices: &[DeviceStatus]) {
    let gauges = [
        ("blocked", "gauge", "1 while an audit device takes nothing."),
        ("waiting", "gauge", "Records that other devices have and this one gets later."),
        ("missed_total", "counter", "Records that other devices have and this one never gets."),
    ];
    for (index, (what, kind, help)) in gauges.into_iter().enumerate() {
        let name = format!("mssm_audit_device_{what}");
        page.head(&name, kind, help);
        for device in devices {
            let values = [u64::from(device.blocked.is_some()), device.waiting, device.missed];
            let (path, value) = (label(device.path.as_str()), values.get(index).unwrap_or(&0));
            let _ = writeln!(page.0, "{name}{{device=\"{path}\"}} {value}");
        }
    }
}

/// The connections where revocations wait, by id; `db/config/:name` says whose it is.
fn lanes(page: &mut Page, lanes: &[LaneView]) {
    let help = "Revocations that wait, by connection.";
    page.head("mssm_connection_revocations_waiting", "gauge", help);
    for LaneView { target, waiting, .. } in lanes {
        let name = "mssm_connection_revocations_waiting";
        let _ = writeln!(page.0, "{name}{{connection=\"{target}\"}} {waiting}");
    }
    let help = "How long a connection has not answered, if it does not.";
    page.head("mssm_connection_unanswered_seconds", "gauge", help);
    for LaneView { target, down_secs, .. } in lanes {
        if let Some(secs) = down_secs {
            let name = "mssm_connection_unanswered_seconds";
            let _ = writeln!(page.0, "{name}{{connection=\"{target}\"}} {secs}");
        }
    }
}

/// How logins and leases were compared.
fn reconciled(page: &mut Page, counts: &ReconcileCounts) {
    page.head("mssm_reconcile_found", "gauge", "Differences that the last comparison found.");
    for (kind, number) in FindingKind::ALL.into_iter().zip(counts.found) {
        let _ = writeln!(page.0, "mssm_reconcile_found{{kind=\"{}\"}} {number}", kind.name());
    }
    let help = "Connections that the last comparison left out, or did nothing about.";
    page.one("mssm_reconcile_held_back", "gauge", help, counts.held_back);
    page.one("mssm_reconcile_runs_total", "counter", "Comparisons.", counts.runs);
    let help = "When the last comparison ended, in seconds since 1970; 0 before the first.";
    page.one("mssm_reconcile_last_run_seconds", "gauge", help, counts.last_unix_secs);
    let help = "Logins without a lease whose end was begun.";
    page.one("mssm_reconcile_ended_total", "counter", help, counts.ended_total);
    let help = "Leases without a login that were settled.";
    page.one("mssm_reconcile_settled_total", "counter", help, counts.settled_total);
}

fn front_door(page: &mut Page, worker: &Worker) {
    let about = &worker.door.about;
    page.head("mssm_build_info", "gauge", "The version, always 1.");
    let version = env!("CARGO_PKG_VERSION");
    let _ = writeln!(page.0, "mssm_build_info{{version=\"{version}\"}} 1");
    let help = "When the server started, in seconds since 1970.";
    page.one("mssm_start_time_seconds", "gauge", help, about.started_at.unix_secs());
    let metrics = &worker.metrics;
    page.head("mssm_http_requests_total", "counter", "Answers by class of status.");
    for (class, number) in metrics.classes() {
        let _ = writeln!(page.0, "mssm_http_requests_total{{status=\"{class}xx\"}} {number}");
    }
    page.head("mssm_http_request_seconds_total", "counter", "Time spent on requests.");
    let _ = writeln!(page.0, "mssm_http_request_seconds_total {:.6}", metrics.seconds());
    let panics = metrics.panics();
    page.one("mssm_http_panics_total", "counter", "Panics caught.", panics);
    let help = "Requests of clients that came too fast.";
    page.one("mssm_http_rate_limited_total", "counter", help, metrics.too_fast());
    let help = "TLS handshakes that failed.";
    let failed = metrics.handshakes_failed();
    page.one("mssm_http_handshakes_failed_total", "counter", help, failed);
    let in_flight = u64::try_from(worker.gate.turns.taken()).unwrap_or(u64::MAX);
    page.one("mssm_http_requests_in_flight", "gauge", "Places that are taken.", in_flight);
    let bytes = u64::try_from(worker.gate.bytes_in_flight()).unwrap_or(u64::MAX);
    page.one("mssm_http_body_bytes_in_flight", "gauge", "Bytes of request bodies.", bytes);
}
