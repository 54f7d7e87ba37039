//! Finds records and tells them to people: who read a path, what a token did, what became of a lease.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use serde_json::Value;

/// What is looked for; a record must fit all that is given.
#[derive(Debug, Default)]
pub(crate) struct Question {
    /// A path, or its beginning with a star behind it.
    pub(crate) path: Option<String>,
    /// A request's id.
    pub(crate) request: Option<String>,
    /// A lease's id, and its hash, which stands where a body named it.
    pub(crate) lease: Option<String>,
    pub(crate) lease_hash: Option<String>,
    /// Hashes, as the log holds them: of an accessor, a token, a database username, any value. All
    /// of them must be in the record.
    pub(crate) hashes: Vec<String>,
    /// Not before.
    pub(crate) since: Option<Moment>,
    /// Not after.
    pub(crate) until: Option<Moment>,
}

/// The beginning of a time as the log writes it, in UTC: a day, or down to a part of a second.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Moment(String);

impl Moment {
    /// Reads one; another form would fit nothing, and nobody would know.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        const FORM: &[u8] = b"0000-00-00T00:00:00.000000000";
        let begins = text.strip_suffix('Z').unwrap_or(text);
        let fits = |(byte, form): (u8, &u8)| match form {
            b'0' => byte.is_ascii_digit(),
            sign => byte == *sign,
        };
        let whole = [4, 7, 10, 13, 16, 19].contains(&begins.len()) || begins.len() > 20;
        let fits = begins.len() <= FORM.len() && begins.bytes().zip(FORM).all(fits);
        if whole && fits {
            return Ok(Self(begins.to_owned()));
        }
        Err(format!("{text} is not a time such as 2026-11-28 or 2026-11-28T02:00, in UTC"))
    }

    /// True if a time of the log is not before this.
    fn begins(&self, time: &str) -> bool {
        time.trim_end_matches('Z') >= self.0.as_str()
    }

    /// True if a time of the log is within this, or before.
    fn ends(&self, time: &str) -> bool {
        time.starts_with(&self.0) || time.trim_end_matches('Z') <= self.0.as_str()
    }
}

/// One record, as people read it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) time: String,
    pub(crate) who: String,
    pub(crate) did: String,
    pub(crate) what: String,
    pub(crate) outcome: String,
    pub(crate) request: String,
}

impl Question {
    /// True if a record's line fits.
    pub(crate) fn fits(&self, line: &[u8]) -> bool {
        let has = |text: &str| super::contains(line, text.as_bytes());
        // Cheap looks first: most lines are not parsed.
        let may = self.request.as_deref().is_none_or(has)
            && (self.lease.as_deref().is_none_or(has)
                || self.lease_hash.as_deref().is_some_and(has))
            && self.hashes.iter().all(|hash| has(hash))
            && self.path.as_deref().is_none_or(|path| has(path.trim_end_matches('*')));
        if !may {
            return false;
        }
        let Ok(record) = serde_json::from_slice::<Value>(line) else { return false };
        let text = |pointer: &str| record.pointer(pointer).and_then(Value::as_str);
        let time = text("/time").unwrap_or_default();
        let asked = text("/request/path").unwrap_or_default();
        // Whoever asks for a hash asks for it, and did nothing with what it is of.
        let asks = asked.starts_with("sys/audit-hash/") && self.path.is_none();
        text("/type") != Some("checkpoint")
            && !(asks && (self.lease_hash.is_some() || !self.hashes.is_empty()))
            && self.since.as_ref().is_none_or(|since| since.begins(time))
            && self.until.as_ref().is_none_or(|until| until.ends(time))
            && self.path.as_deref().is_none_or(|path| {
                path.strip_suffix('*').map_or(asked == path, |start| asked.starts_with(start))
            })
            && self.request.as_deref().is_none_or(|id| text("/request/id") == Some(id))
            && self.lease.as_deref().is_none_or(|lease| {
                let named = [text("/response/secret/lease_id"), text("/details/lease_id")];
                let in_path = asked.strip_suffix(lease).is_some_and(|rest| rest.ends_with('/'));
                let in_body = self.lease_hash.as_deref().is_some_and(has);
                named.contains(&Some(lease)) || in_path || in_body
            })
    }
}

/// The lines that fit, oldest first.
pub(crate) fn search(question: &Question, files: &[PathBuf]) -> Result<Vec<String>, String> {
    let files = super::readable(files)?;
    let mut found = Vec::new();
    let read = mssm_audit::read_lines(&files, &mut |line| {
        if question.fits(line) {
            found.push(String::from_utf8_lossy(line).into_owned());
        }
        true
    });
    read.map_err(|error| error.to_string())?;
    Ok(found)
}

/// The leases that lines name, each once.
pub(crate) fn leases(lines: &[String]) -> BTreeSet<String> {
    let records = lines.iter().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let lease = |record: Value| {
        record.pointer("/response/secret/lease_id").and_then(Value::as_str).map(str::to_owned)
    };
    records.filter_map(lease).collect()
}

/// A line as a row; `None` for what says nothing to people.
pub(crate) fn row(line: &str) -> Option<Row> {
    let record: Value = serde_json::from_str(line).ok()?;
    let text = |pointer: &str| {
        record.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned()
    };
    let time = text("/time");
    match text("/type").as_str() {
        "event" => {
            let details = record.get("details").and_then(Value::as_object);
            let details: Vec<String> = details
                .into_iter()
                .flatten()
                .filter(|(name, _)| !["edge", "format"].contains(&name.as_str()))
                .map(|(name, value)| format!("{name}={}", value.as_str().unwrap_or_default()))
                .collect();
            let (did, what) = (text("/event"), details.join(" "));
            Some(Row { time, who: "the server".to_owned(), did, what, ..Row::default() })
        }
        kind @ ("request" | "response") => {
            let name = text("/auth/display_name");
            let who = if name.is_empty() { "nobody known".to_owned() } else { name };
            let outcome = match (kind, record.pointer("/response/status")) {
                ("response", Some(status)) => format!("{status} {}", text("/error")),
                _ => "asked".to_owned(),
            };
            let lease = text("/response/secret/lease_id");
            let from = text("/request/remote_address");
            let what = [text("/request/path"), lease].join(" ");
            Some(Row {
                time,
                who: format!("{who} from {from}"),
                did: text("/request/operation"),
                what: what.trim().to_owned(),
                outcome: outcome.trim().to_owned(),
                request: text("/request/id"),
            })
        }
        _ => None,
    }
}

/// The rows of lines; a request whose answer is among them is told by its answer.
pub(crate) fn rows(lines: &[String]) -> Vec<Row> {
    let all: Vec<Row> = lines.iter().filter_map(|line| row(line)).collect();
    let answered = |row: &Row| {
        let same = |other: &&Row| other.request == row.request && other.outcome != "asked";
        row.outcome == "asked" && all.iter().any(|other| same(&other))
    };
    all.iter().filter(|row| !answered(row)).cloned().collect()
}

/// What the rows come to, in a sentence or two a kind.
pub(crate) fn explain(rows: &[Row]) -> Vec<String> {
    let (Some(first), Some(last)) = (rows.first(), rows.last()) else {
        return vec!["nothing in these files fits".to_owned()];
    };
    let records = if rows.len() == 1 { "record" } else { "records" };
    let mut told = vec![format!("{} {records}, from {} to {}", rows.len(), first.time, last.time)];
    let mut by_whom: BTreeMap<(&str, &str, &str), (u64, &str)> = BTreeMap::new();
    for row in rows.iter().filter(|row| !row.request.is_empty()) {
        let path = row.what.split(' ').next().unwrap_or_default();
        let entry = by_whom.entry((&row.who, &row.did, path)).or_insert((0, &row.time));
        *entry = (entry.0 + 1, &row.time);
    }
    for ((who, did, path), (times, last)) in by_whom {
        let refused = rows.iter().filter(|row| {
            row.who == who
                && row.did == did
                && row.what.split(' ').next() == Some(path)
                && !row.outcome.starts_with('2')
                && row.outcome != "asked"
        });
        let refused = match refused.count() {
            0 => String::new(),
            number => format!(", {number} of them refused or failed"),
        };
        let times = if times == 1 { "once".to_owned() } else { format!("{times} times") };
        told.push(format!("{who}: {did} {path}, {times}{refused}, last {last}"));
    }
    for row in rows.iter().filter(|row| row.did.starts_with("lease-")) {
        let what = match row.did.trim_start_matches("lease-") {
            "revocation-failed" => "could not be revoked yet".to_owned(),
            done => format!("was {}", done.replace('-', " ")),
        };
        told.push(format!("{}: the lease {what} ({})", row.time, row.what));
    }
    told
}

#[cfg(test)]
mod tests {
    use super::*;

    fn response(id: &str, path: &str, status: u16) -> String {
        serde_json::json!({
            "seq": 1, "prev": "", "time": "2026-01-02T03:04:05Z", "type": "response",
            "auth": {"display_name": "token-robot", "accessor": "hmac-sha256:aa"},
            "request": {"id": id, "operation": "read", "path": path, "remote_address": "10.0.0.1"},
            "response": {"status": status, "secret": {"lease_id": "db/creds/app/x"}},
        })
        .to_string()
    }

    #[test]
    fn a_record_fits_what_is_asked_and_nothing_else() {
        let line = response("one", "secret/data/a", 200);
        let fits = |change: fn(&mut Question)| {
            let mut question = Question::default();
            change(&mut question);
            question.fits(line.as_bytes())
        };
        assert!(fits(|question| question.path = Some("secret/data/a".into())));
        assert!(fits(|question| question.path = Some("secret/*".into())));
        assert!(fits(|question| question.path = Some("*".into())));
        assert!(!fits(|question| question.path = Some("secret/data".into())));
        assert!(fits(|question| question.request = Some("one".into())));
        assert!(!fits(|question| question.request = Some("on".into())));
        assert!(fits(|question| question.lease = Some("db/creds/app/x".into())));
        assert!(!fits(|question| question.lease = Some("db/creds/app".into())));
        assert!(fits(|question| question.hashes = vec!["hmac-sha256:aa".into()]));
        assert!(!fits(
            |question| question.hashes = vec!["hmac-sha256:bb".into(), "hmac-sha256:aa".into()]
        ));
        let fits_between = |since: &str, until: &str| {
            let moment = |text| Some(Moment::parse(text).unwrap());
            Question { since: moment(since), until: moment(until), ..Question::default() }
                .fits(line.as_bytes())
        };
        assert!(fits_between("2026-01-02", "2026-01-02"));
        assert!(fits_between("2026-01-02T03:04:05Z", "2026-01-02T03:04:05"));
        assert!(fits_between("2026-01", "2026-01-02T03:04"));
        assert!(!fits_between("2026-01-01", "2026-01-01"));
        assert!(!fits_between("2026-01-02T03:05", "2027"));
    }

    #[test]
    fn what_is_no_time_is_refused_and_not_compared() {
        for text in
            ["yesterday", "", "26-11-28", "2026-11-28 02:00", "2026-11-2", "2026-11-28T02:00+01:00"]
        {
            assert!(Moment::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_lease_is_found_where_a_path_a_body_or_an_answer_names_it() {
        let lease = "db/creds/app/x";
        let question = |hash: Option<&str>| Question {
            lease: Some(lease.to_owned()),
            lease_hash: hash.map(str::to_owned),
            ..Question::default()
        };
        let other =
            |path: &str| response("one", path, 204).replace(r#""lease_id":"db/creds/app/x""#, "");
        assert!(question(None).fits(response("one", "db/creds/app", 200).as_bytes()));
        assert!(question(None).fits(other("sys/leases/revoke/db/creds/app/x").as_bytes()));
        let revoked = other("sys/leases/revoke");
        assert!(!question(None).fits(revoked.as_bytes()));
        assert!(question(Some("hmac-sha256:aa")).fits(revoked.as_bytes()));
        assert!(!question(Some("hmac-sha256:aa")).fits(other("sys/audit-hash/file").as_bytes()));
    }

    #[test]
    fn an_answered_request_is_one_row_and_callers_are_counted() {
        let asked = response("one", "secret/data/a", 200)
            .replace(r#""type":"response""#, r#""type":"request""#);
        let lines =
            [asked, response("one", "secret/data/a", 200), response("two", "secret/data/a", 403)];
        let rows = rows(&lines);
        assert_eq!(rows.len(), 2);
        assert_eq!(rows[0].outcome, "200");
        let told = explain(&rows);
        assert_eq!(
            told[1],
            "token-robot from 10.0.0.1: read secret/data/a, 2 times, 1 of them refused or failed, last 2026-01-02T03:04:05Z"
        );
        assert_eq!(explain(&[]), ["nothing in these files fits"]);
    }
}
