//! The index over the store: hands its key to the commit thread, and says what that has found.

use std::time::Duration;

use mssm_crypto::fingerprint::FingerprintKey;
use mssm_crypto::keyring::{Keyring, Label};
use mssm_domain::{RecordPath, StoredKey};
use mssm_messages::audit::{Append, Entry, Event};
use mssm_messages::index::{Findings, IndexError, IndexKey, IndexOpening, InstallIndex, Standing};
use mssm_messages::keys::KeyError;
use mssm_messages::seal::{SealError, StageError};

use crate::keyset::KeySet;
use crate::opening::OPENING;
use crate::state::{Core, State};

/// What the names of vital records begin with: whoever puts one of these back gets rights back.
/// A change of this list needs a new form of the index, since it decides where records stand.
const VITAL: [&str; 8] =
    ["mount", "policy", "token", "token-ending", "jwt-key", "jwt-role", "jwt-revoked", "db"];

/// The seal's own records, which are not hidden, begin with this.
const RAW: [u8; 2] = [0, 0];

/// The audit thread answers within a sync of the disk.
const DEADLINE: Duration = Duration::from_secs(10);

struct Tags(FingerprintKey);

impl IndexKey for Tags {
    fn tag(&self, item: &[u8]) -> [u8; 32] {
        self.0.of(item)
    }
}

impl Core {
    /// Has the commit thread compare the vital records, and keep its index from now on.
    pub(crate) async fn open_index(&self, keyring: &Keyring) -> Result<Standing, SealError> {
        if let Some(found) = &*self.distrusted.borrow() {
            return Err(refusal(found).into());
        }
        let Some(index) = &self.index else { return Ok(Standing::default()) };
        let mut keys = KeySet::new(keyring);
        let opening = IndexOpening {
            key: Box::new(Tags(keyring.fingerprint_key(Label::Index))),
            vital: vital(&mut keys)?,
            expected: keyring.is_indexed() && self.vault.load_config()?.is_some(),
            accept: self.accept_rollback,
        };
        match index.ask(InstallIndex(Some(opening)), OPENING).await? {
            Ok(standing) => Ok(standing),
            Err(IndexError::Storage(error)) => Err(error.into()),
            Err(IndexError::Distrusted(findings)) => {
                let found = describe(&mut keys, &findings);
                tracing::error!(found, "records are not what was written last: stays sealed");
                Err(refusal(&found).into())
            }
        }
    }

    /// Has the commit thread wipe its key.
    pub(crate) async fn close_index(&self) {
        let Some(index) = &self.index else { return };
        let closed = index.ask(InstallIndex(None), DEADLINE).await;
        if !matches!(closed, Ok(Ok(_))) {
            tracing::error!(?closed, "the index's key could not be wiped");
        }
    }

    /// Writes down what does not fit its index and holds all the same.
    pub(crate) async fn write_down_accepted(
        &self,
        keyring: &Keyring,
        found: &Findings,
    ) -> Result<(), SealError> {
        if found.is_empty() {
            return Ok(());
        }
        let found = describe(&mut KeySet::new(keyring), found);
        tracing::warn!(
            found,
            "records are not what was written last, and hold because that was wished"
        );
        self.say("store-tampering-accepted", found).await
    }

    /// Seals, since records are not what was written last, and stays so until a restart.
    pub(crate) async fn distrust(&self, findings: &Findings) -> Result<(), SealError> {
        let keyring = match &*self.state.borrow() {
            State::Sealed(_) => return Ok(()),
            // EXPOSE: parsed to show the names of what was found.
            State::Unsealed(open) => Keyring::decode(open.keyring.expose()),
        };
        let found = match keyring {
            Ok(keyring) => describe(&mut KeySet::new(&keyring), findings),
            Err(error) => error.to_string(),
        };
        tracing::error!(found, "records are not what was written last: sealing");
        self.distrusted.replace(Some(found.clone()));
        if let Err(error) = self.say("store-tampered", found).await {
            tracing::error!(%error, "that could not be written to the audit log");
        }
        self.close().await
    }

    async fn say(&self, name: &'static str, found: String) -> Result<(), SealError> {
        let Some(events) = self.link.borrow().events.clone() else { return Ok(()) };
        let event = Event { name, details: vec![("records", found)] };
        let entry = Entry::Event { time: self.clock.now(), event };
        let said = events.ask(Append(vec![entry]), DEADLINE).await?;
        said.map_err(|error| StageError(format!("audit log: {error}")).into())
    }
}

fn vital(keys: &mut KeySet) -> Result<Vec<StoredKey>, SealError> {
    let hidden = VITAL.iter().map(|name| keys.hide(&RecordPath::new(&[*name])));
    let hidden: Result<Vec<StoredKey>, KeyError> = hidden.collect();
    let mut vital = hidden.map_err(|error| StageError(format!("index: {error}")))?;
    vital.push(StoredKey::new(RAW.to_vec()));
    Ok(vital)
}

fn refusal(found: &str) -> StageError {
    StageError(format!(
        "records of the store are not what was written last: {found}. Who can write the store \
         changed it, or a part of a backup was put back: restore the whole store; to go on with \
         what is there, start the server with -accept-rollback"
    ))
}

fn describe(keys: &mut KeySet, findings: &Findings) -> String {
    let mut named: Vec<String> = findings
        .first
        .iter()
        .map(|finding| format!("{} {}", name_of(keys, &finding.key), finding.what.text()))
        .collect();
    if findings.more > 0 {
        named.push(format!("{} more", findings.more));
    }
    named.join("; ")
}

/// A record's plain name, segment by segment.
fn name_of(keys: &mut KeySet, key: &StoredKey) -> String {
    let bytes = key.as_bytes();
    if let Some(raw) = bytes.strip_prefix(&RAW) {
        return String::from_utf8_lossy(raw).into_owned();
    }
    let (mut names, mut end) = (Vec::new(), 0);
    while let Some(length) = bytes.get(end..).and_then(|rest| rest.first_chunk::<2>()) {
        end += 2 + usize::from(u16::from_be_bytes(*length));
        let Some(Ok(name)) = bytes.get(..end).map(|part| keys.show(&StoredKey::new(part.to_vec())))
        else {
            return "a part of the index, or a record that is none of this store's,".to_owned();
        };
        names.push(name);
    }
    names.join("/")
}
