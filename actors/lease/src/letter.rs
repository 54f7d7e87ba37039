//! How a line for the audit is written down in the store until the log has it: a version byte, JSON.
//!
//! It lies under `lease-event/<number>`, in the batch that changes the lease; numbers grow.

use mssm_domain::{RecordPath, SecretBytes, Timestamp};
use mssm_messages::audit::{Entry, Event};
use serde::{Deserialize, Serialize};

use crate::record::{LeaseRecord, RecordError};
use crate::sweep::{ABSENT, EXPIRED, FAILED};

/// The form that is written, and the only one that is read.
const VERSION: u8 = 1;

/// The names of events that can be read back.
const NAMES: [&str; 6] = [
    "lease-created",
    "lease-expired",
    "lease-revoked",
    "lease-revocation-failed",
    "lease-adopted",
    "lease-reopened",
];
/// The details that they have.
const DETAILS: [&str; 4] = ["lease_id", "role", "mount", "reason"];

/// What a lease's end is called, and why it came if that is worth a word.
pub(crate) fn said_of(record: &LeaseRecord) -> (&'static str, Option<&'static str>) {
    let name = if record.cause == EXPIRED { "lease-expired" } else { "lease-revoked" };
    let why = match record.cause.as_str() {
        _ if record.left_behind => Some("ended by force, something may be left"),
        FAILED => Some("its credential was not handed out"),
        ABSENT => Some("its login was not there"),
        _ => None,
    };
    (name, why)
}

/// The folder of what the log does not have yet.
pub(crate) fn letter_folder() -> RecordPath {
    RecordPath::new(&["lease-event"])
}

/// The record of one letter.
pub(crate) fn letter_path(number: u64) -> RecordPath {
    RecordPath::new(&["lease-event", &format!("{number:020}")])
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct LetterRecord {
    number: u64,
    events: Vec<EventRecord>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct EventRecord {
    time: u64,
    name: String,
    details: Vec<(String, String)>,
}

/// The bytes to store of some lines.
pub(crate) fn encode(number: u64, entries: &[Entry]) -> Result<SecretBytes, RecordError> {
    let events = entries.iter().filter_map(|entry| match entry {
        Entry::Event { time, event } => Some(EventRecord {
            time: time.unix_ms(),
            name: event.name.to_owned(),
            details: event
                .details
                .iter()
                .map(|(key, text)| ((*key).to_owned(), text.clone()))
                .collect(),
        }),
        Entry::Request { .. } | Entry::Response { .. } | Entry::TokenExpired { .. } => None,
    });
    let record = LetterRecord { number, events: events.collect() };
    let mut bytes = vec![VERSION];
    serde_json::to_writer(&mut bytes, &record)
        .map_err(|_| RecordError::Malformed("cannot be written"))?;
    Ok(SecretBytes::new(bytes))
}

/// Reads what [`encode`] made: the number and the lines.
pub(crate) fn decode(bytes: &SecretBytes) -> Result<(u64, Vec<Entry>), RecordError> {
    // EXPOSE: reading a record needs its bytes.
    let (version, json) = bytes.expose().split_first().ok_or(RecordError::Malformed("cut off"))?;
    if *version != VERSION {
        return Err(RecordError::Version(*version));
    }
    let record: LetterRecord =
        serde_json::from_slice(json).map_err(|_| RecordError::Malformed("letter"))?;
    let entries: Result<_, _> = record.events.into_iter().map(entry).collect();
    Ok((record.number, entries?))
}

fn entry(record: EventRecord) -> Result<Entry, RecordError> {
    let name = known(&NAMES, &record.name)?;
    let details = record.details.into_iter().map(|(key, text)| Ok((known(&DETAILS, &key)?, text)));
    let event = Event { name, details: details.collect::<Result<_, _>>()? };
    Ok(Entry::Event { time: Timestamp::from_unix_ms(record.time), event })
}

fn known(words: &[&'static str], text: &str) -> Result<&'static str, RecordError> {
    words.iter().copied().find(|word| *word == text).ok_or(RecordError::Malformed("event"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_letter_reads_back_as_it_was_written_and_nothing_else_does() {
        let details =
            vec![("lease_id", "db/creds/a/b".to_owned()), ("reason", "no \"route\"".to_owned())];
        let event = Event { name: "lease-expired", details };
        let entries = vec![Entry::Event { time: Timestamp::from_unix_ms(5), event }];
        let bytes = encode(7, &entries).unwrap();
        assert_eq!(decode(&bytes).unwrap(), (7, entries));
        let text = String::from_utf8(bytes.expose()[1..].to_vec()).unwrap();
        let unknown = [&[1], text.replace("lease-expired", "lease-exploded").as_bytes()].concat();
        let newer = [&[2], text.as_bytes()].concat();
        assert_eq!(decode(&SecretBytes::new(newer)), Err(RecordError::Version(2)));
        assert_eq!(decode(&SecretBytes::new(unknown)), Err(RecordError::Malformed("event")));
        assert_eq!(decode(&SecretBytes::new(Vec::new())), Err(RecordError::Malformed("cut off")));
    }
}
