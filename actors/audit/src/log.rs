//! The log as plain data: what the next lines are, given all lines before.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use mssm_crypto::chain::{Chain, CheckpointKey, CheckpointVerifier, Tree};
use mssm_domain::Timestamp;
use mssm_messages::audit::{Entry, Event, Head, StoreEpoch};
use serde::{Deserialize, Serialize};

use crate::line::{self, Line, Renderer};
use crate::salt::Salt;

/// The event that begins a new log.
pub(crate) const STARTED: &str = "log-started";
/// The event that begins a file whose earlier lines are in other files.
pub(crate) const CONTINUED: &str = "log-continued";
/// The event that names the key of the checkpoints from here on.
pub(crate) const KEY: &str = "log-key";
/// The event that says how often the store had kept the log's head.
const STORE: &str = "log-store-epoch";
/// The event that names what an earlier run left unsigned.
pub(crate) const ADOPTED: &str = "log-adopted";
/// The event that names records that were written and are not there.
pub(crate) const MISSING: &str = "log-missing";
/// Memory for lines that is kept from one batch to the next.
const SPARE_BYTES_MAX: usize = 1 << 20;
/// The event from which a log can be taken up without reading all of it.
const POSITION: &str = "log-position";
/// So many bytes at least lie between two such events; what is read at a start is little more.
pub(crate) const POSITION_EVERY: u64 = 16 << 20;

/// Where a log stands: the newest hash, and the tree over all lines.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Position {
    chain: Chain,
    tree: Tree,
}

impl Position {
    fn after(count: u64, head: [u8; 32], edge: Vec<[u8; 32]>) -> Option<Self> {
        Some(Self { chain: Chain { head, count }, tree: Tree::from_parts(count, edge)? })
    }

    /// The position before a line that tells it: a log's first line, or one with the tree's edge.
    pub(crate) fn before(line: &[u8]) -> Option<Self> {
        let told: Told = serde_json::from_slice(line).ok()?;
        if told.event == STARTED {
            return (told.seq == 0).then(Self::default);
        }
        if told.event != CONTINUED && told.event != POSITION {
            return None;
        }
        let parse = |digits: &str| {
            let mut hash = [0; 32];
            hex::decode_to_slice(digits, &mut hash).ok().map(|()| hash)
        };
        let edge = told.details.edge.split_ascii_whitespace().map(parse);
        Self::after(told.seq, parse(&told.prev)?, edge.collect::<Option<_>>()?)
    }

    /// Takes one line more, without its break.
    pub(crate) fn append(&mut self, line: &[u8]) {
        self.chain.append(line);
        self.tree.append(&self.chain.head);
    }

    /// Takes one line more of which only the hash is known.
    pub(crate) fn append_hash(&mut self, hash: [u8; 32]) {
        self.chain = Chain { head: hash, count: self.chain.count + 1 };
        self.tree.append(&hash);
    }

    /// The tree over all lines.
    pub(crate) const fn tree(&self) -> &Tree {
        &self.tree
    }

    /// How far the log goes.
    pub(crate) const fn at(&self) -> Head {
        Head { count: self.chain.count, hash: self.chain.head }
    }

    /// How many lines there are, which is the next line's number.
    pub(crate) const fn count(&self) -> u64 {
        self.chain.count
    }

    /// The newest line's hash in hexadecimal.
    pub(crate) fn head(&self) -> String {
        hex::encode(self.chain.head)
    }

    /// What a checkpoint signs here, the root, and the text that both are in.
    pub(crate) fn checkpoint_text(&self, time: &str) -> (String, String) {
        let (seq, prev, root) = (self.count(), self.head(), hex::encode(self.tree.root()));
        (checkpoint_text(seq, &prev, &root, time), root)
    }

    fn edge(&self) -> String {
        let (_, edge) = self.tree.parts();
        edge.iter().map(hex::encode).collect::<Vec<_>>().join(" ")
    }
}

/// What a checkpoint signs.
pub(crate) fn checkpoint_text(seq: u64, prev: &str, root: &str, time: &str) -> String {
    format!("mssm audit checkpoint v1\nseq {seq}\nprev {prev}\nroot {root}\ntime {time}\n")
}

/// What a line that tells a position says.
#[derive(Deserialize)]
struct Told {
    seq: u64,
    prev: String,
    event: String,
    details: ToldDetails,
}

#[derive(Deserialize)]
struct ToldDetails {
    #[serde(default)]
    edge: String,
    #[serde(default)]
    device: String,
    #[serde(default)]
    epoch: String,
    #[serde(default)]
    key: String,
}

/// What signed lines say of stores: of each the newest.
#[derive(Clone, Debug, Default)]
pub(crate) struct Stores(Vec<StoreEpoch>);

impl Stores {
    /// So many: whoever may write the file can make up keys and sign for them.
    const MAX: usize = 64;

    pub(crate) fn note(&mut self, told: StoreEpoch) {
        let before = self.0.len();
        self.0.retain(|known| known.key != told.key);
        if self.0.len() < before || before < Self::MAX {
            self.0.push(told);
        }
    }

    pub(crate) fn all(&self) -> &[StoreEpoch] {
        &self.0
    }

    fn last(&self) -> Option<&StoreEpoch> {
        self.0.last()
    }
}

/// True for the line that says that an earlier run's lines, which nobody had signed, come next to be signed.
pub(crate) fn adopts(line: &[u8]) -> bool {
    serde_json::from_slice(line).is_ok_and(|told: Told| told.event == ADOPTED)
}

/// What a line says of the store, if it says something of it.
pub(crate) fn told_store(line: &[u8]) -> Option<StoreEpoch> {
    let told: Told = serde_json::from_slice(line).ok()?;
    if ![STORE, POSITION, CONTINUED].contains(&told.event.as_str()) {
        return None;
    }
    let mut key = [0; 32];
    hex::decode_to_slice(&told.details.key, &mut key).ok()?;
    Some(StoreEpoch { key, epoch: told.details.epoch.parse().ok()? })
}

fn store_details(store: &StoreEpoch) -> Vec<(&'static str, String)> {
    vec![("epoch", store.epoch.to_string()), ("key", hex::encode(store.key))]
}

/// Which device's log it is, if a line says so.
pub(crate) fn told_device(line: &[u8]) -> Option<String> {
    let told: Told = serde_json::from_slice(line).ok()?;
    Some(told.details.device).filter(|device| !device.is_empty())
}

/// What a checkpoint line says.
#[derive(Serialize, Deserialize)]
pub(crate) struct Checkpoint {
    /// The Merkle root (RFC 6962) over the SHA-256 of each line before this one, in hexadecimal.
    pub(crate) root: String,
    /// The Ed25519 public key, in hexadecimal.
    pub(crate) key: String,
    /// The Ed25519 signature over the checkpoint's text, in base64.
    pub(crate) signature: String,
}

impl Checkpoint {
    /// Reads a checkpoint's line.
    pub(crate) fn parse(line: &[u8]) -> Option<Self> {
        serde_json::from_slice(line).ok()
    }

    /// True if this is of the key, over all lines up to the position.
    pub(crate) fn is_of(&self, key: &[u8; 32], position: &Position, time: &str) -> bool {
        let (text, _) = position.checkpoint_text(time);
        let signature = STANDARD.decode(&self.signature).unwrap_or_default();
        let verifier = CheckpointVerifier::from_bytes(key);
        verifier.is_ok_and(|key| key.verify(text.as_bytes(), &signature).is_ok())
    }
}

/// The log: its position and, while the server is open, the key that signs.
#[derive(Default)]
pub(crate) struct Log {
    pub(crate) position: Position,
    key: Option<CheckpointKey>,
    /// Which device's it is: a log of one is not to pass for another's.
    pub(crate) device: String,
    /// How keyed hashes are shown here.
    pub(crate) salt: Salt,
    /// True if the newest line is a checkpoint of this key.
    signed: bool,
    /// Bytes since the last line that tells a position.
    untold: u64,
    /// What was said of stores; the last of it again where the log can be taken up.
    pub(crate) stores: Stores,
    /// Where the next batch is rendered: nothing, but room for it.
    spare: Vec<u8>,
}

/// Lines that are ready to be written, and where the log stands once they are.
pub(crate) struct Batch {
    pub(crate) bytes: Vec<u8>,
    pub(crate) lines: u64,
    after: Position,
    tells: bool,
}

impl Log {
    /// Signs checkpoints with this key from now on, or none.
    pub(crate) fn set_key(&mut self, key: Option<CheckpointKey>) {
        self.key = key;
        self.signed = false;
    }

    /// The public key of the checkpoints.
    pub(crate) fn public_key(&self) -> Option<[u8; 32]> {
        self.key.as_ref().map(CheckpointKey::public)
    }

    /// Renders entries and, if there is a key, the checkpoint over them.
    pub(crate) fn batch<'a>(
        &mut self,
        now: Timestamp,
        entries: impl IntoIterator<Item = &'a Entry>,
    ) -> Result<Batch, serde_json::Error> {
        let (bytes, after) = (std::mem::take(&mut self.spare), self.position.clone());
        let mut batch = Batch { bytes, lines: 0, after, tells: false };
        let mut renderer = Renderer::new(&self.salt);
        for entry in entries {
            batch.push(|at, lines| renderer.render(entry, (at.count(), &at.head()), lines))?;
        }
        if self.untold + batch.bytes.len() as u64 > POSITION_EVERY {
            let mut details = vec![("edge", batch.after.edge())];
            details.extend(self.stores.last().into_iter().flat_map(store_details));
            let event = Event { name: POSITION, details };
            let entry = Entry::Event { time: now, event };
            let mut renderer = Renderer::new(&self.salt);
            batch.push(|at, lines| renderer.render(&entry, (at.count(), &at.head()), lines))?;
            batch.tells = true;
        }
        if let Some(key) = &self.key
            && (batch.lines > 0 || !self.signed)
        {
            batch.push(|at, lines| checkpoint(at, key, now, lines))?;
        }
        Ok(batch)
    }

    /// The line that begins an empty file.
    pub(crate) fn first_line(&self, now: Timestamp) -> Entry {
        let mut details = vec![("format", "1".to_owned())];
        details.extend(self.public_key().map(|key| ("key", hex::encode(key))));
        details.push(("device", self.device.clone()));
        let name = if self.position.count() == 0 {
            STARTED
        } else {
            details.push(("edge", self.position.edge()));
            details.extend(self.stores.last().into_iter().flat_map(store_details));
            CONTINUED
        };
        Entry::Event { time: now, event: Event { name, details } }
    }

    /// The line that names the key, once there is one.
    pub(crate) fn key_line(&self, now: Timestamp) -> Option<Entry> {
        let key = hex::encode(self.public_key()?);
        let details = vec![("key", key), ("device", self.device.clone())];
        Some(Entry::Event { time: now, event: Event { name: KEY, details } })
    }

    /// The line that says how often the store has kept the head.
    pub(crate) fn store_line(now: Timestamp, store: &StoreEpoch) -> Entry {
        Entry::Event { time: now, event: Event { name: STORE, details: store_details(store) } }
    }

    /// The batch is durable: the log stands behind it.
    pub(crate) fn accept(&mut self, batch: Batch) {
        self.untold = if batch.tells { 0 } else { self.untold + batch.bytes.len() as u64 };
        self.position = batch.after;
        self.signed = self.key.is_some();
        self.spare = batch.bytes;
        self.spare.clear();
        self.spare.shrink_to(SPARE_BYTES_MAX);
    }

    /// The log goes on after these lines, of which so many bytes tell no position.
    pub(crate) fn resume(&mut self, position: Position, untold: u64) {
        self.position = position;
        self.untold = untold;
    }
}

impl Batch {
    /// Takes the line that is rendered for where the log stands, behind the others.
    fn push(
        &mut self,
        render: impl FnOnce(&Position, &mut Vec<u8>) -> Result<(), serde_json::Error>,
    ) -> Result<(), serde_json::Error> {
        let begins = self.bytes.len();
        render(&self.after, &mut self.bytes)?;
        self.after.append(self.bytes.get(begins..).unwrap_or_default());
        self.bytes.push(b'\n');
        self.lines += 1;
        Ok(())
    }
}

fn checkpoint(
    position: &Position,
    key: &CheckpointKey,
    now: Timestamp,
    lines: &mut Vec<u8>,
) -> Result<(), serde_json::Error> {
    let time = now.rfc3339();
    let (text, _) = position.checkpoint_text(&time);
    let signature = key.sign(text.as_bytes());
    lines.extend(checkpoint_line(position, &key.public(), &time, &signature)?);
    Ok(())
}

/// The one way to write a checkpoint, so that a verifier can hold every byte of it to this.
pub(crate) fn checkpoint_line(
    position: &Position,
    key: &[u8; 32],
    time: &str,
    signature: &[u8],
) -> Result<Vec<u8>, serde_json::Error> {
    let (_, root) = position.checkpoint_text(time);
    let body = Checkpoint { root, key: hex::encode(key), signature: STANDARD.encode(signature) };
    let (seq, prev, time) = (position.count(), position.head(), time.to_owned());
    let mut line = Vec::new();
    line::write(&Line { seq, prev: &prev, time, kind: "checkpoint", body }, &mut line)?;
    Ok(line)
}
