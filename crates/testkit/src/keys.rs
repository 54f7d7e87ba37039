//! A key replica that encrypts nothing: names and contents stay readable in the store.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use actix::{Actor, Context, Handler};
use mssm_domain::{RecordPath, SealedBytes, SecretBytes, StoredKey, StoredRecord};
use mssm_messages::keys::{
    Fingerprint, HideNames, KeyError, KeysPort, Open, Purpose, Seal, ShowNames,
};

/// The longest name of a segment that the real keys hide.
const MAX_SEGMENT: usize = 1024;

/// Stands in for the key replica: transparent, but as strict as the real one about what was sealed
/// under which name and version.
#[derive(Clone)]
pub struct FakeKeys {
    port: KeysPort,
    sealed: Arc<AtomicBool>,
}

impl FakeKeys {
    /// Starts the fake on the current arbiter, with its keys in place.
    pub fn start() -> Self {
        let sealed = Arc::new(AtomicBool::new(false));
        let replica = Replica { sealed: Arc::clone(&sealed) }.start();
        let port = KeysPort {
            seal: replica.clone().recipient(),
            open: replica.clone().recipient(),
            hide: replica.clone().recipient(),
            show: replica.clone().recipient(),
            fingerprint: replica.recipient(),
        };
        Self { port, sealed }
    }

    /// How others reach it.
    pub fn port(&self) -> KeysPort {
        self.port.clone()
    }

    /// Takes its keys away (`true`) or gives them back.
    pub fn set_sealed(&self, sealed: bool) {
        self.sealed.store(sealed, Ordering::SeqCst);
    }

    /// The stored key of a name, as this fake hides it: to damage a record behind everyone's back.
    pub fn stored_key(path: &RecordPath) -> StoredKey {
        hide(path).unwrap_or_else(|error| panic!("{error}"))
    }
}

struct Replica {
    sealed: Arc<AtomicBool>,
}

impl Replica {
    fn check(&self) -> Result<(), KeyError> {
        if self.sealed.load(Ordering::SeqCst) { Err(KeyError::Sealed) } else { Ok(()) }
    }
}

impl Actor for Replica {
    type Context = Context<Self>;
}

impl Handler<Seal> for Replica {
    type Result = Result<Vec<(StoredKey, StoredRecord)>, KeyError>;

    fn handle(&mut self, msg: Seal, _ctx: &mut Self::Context) -> Self::Result {
        self.check()?;
        let sealed = msg.0.into_iter().map(|plain| {
            let key = hide(&plain.path)?;
            let mut envelope = header(&key, plain.version);
            // EXPOSE: the fake stores what it is given, that is its point.
            envelope.extend_from_slice(plain.bytes.expose());
            let sealed = SealedBytes::new(envelope);
            Ok((key, StoredRecord { version: plain.version, sealed }))
        });
        sealed.collect()
    }
}

impl Handler<Open> for Replica {
    type Result = Result<Vec<Result<SecretBytes, KeyError>>, KeyError>;

    fn handle(&mut self, msg: Open, _ctx: &mut Self::Context) -> Self::Result {
        self.check()?;
        let open = |(key, record): (StoredKey, StoredRecord)| {
            let header = header(&key, record.version);
            let plain = record.sealed.as_bytes().strip_prefix(header.as_slice());
            plain.map(|plain| SecretBytes::new(plain.to_vec())).ok_or(KeyError::Damaged)
        };
        Ok(msg.0.into_iter().map(open).collect())
    }
}

impl Handler<HideNames> for Replica {
    type Result = Result<Vec<StoredKey>, KeyError>;

    fn handle(&mut self, msg: HideNames, _ctx: &mut Self::Context) -> Self::Result {
        self.check()?;
        msg.0.iter().map(hide).collect()
    }
}

impl Handler<ShowNames> for Replica {
    type Result = Result<Vec<Result<String, KeyError>>, KeyError>;

    fn handle(&mut self, msg: ShowNames, _ctx: &mut Self::Context) -> Self::Result {
        self.check()?;
        Ok(msg.0.iter().map(show).collect())
    }
}

impl Handler<Fingerprint> for Replica {
    type Result = Result<Vec<[u8; 32]>, KeyError>;

    fn handle(&mut self, msg: Fingerprint, _ctx: &mut Self::Context) -> Self::Result {
        self.check()?;
        Ok(msg.items.iter().map(|item| fingerprint(msg.purpose, item)).collect())
    }
}

/// Each segment's length in two bytes, big endian, then its plain name.
fn hide(path: &RecordPath) -> Result<StoredKey, KeyError> {
    let mut key = Vec::new();
    for segment in path.segments() {
        if segment.len() > MAX_SEGMENT {
            return Err(KeyError::Name);
        }
        let length = u16::try_from(segment.len()).map_err(|_| KeyError::Name)?;
        key.extend_from_slice(&length.to_be_bytes());
        key.extend_from_slice(segment.as_bytes());
    }
    Ok(StoredKey::new(key))
}

/// The plain name of the last segment.
fn show(key: &StoredKey) -> Result<String, KeyError> {
    let mut rest = key.as_bytes();
    let mut last = None;
    while !rest.is_empty() {
        let (length, tail) = rest.split_first_chunk::<2>().ok_or(KeyError::Damaged)?;
        let length = usize::from(u16::from_be_bytes(*length));
        let (name, tail) = tail.split_at_checked(length).ok_or(KeyError::Damaged)?;
        last = Some(name);
        rest = tail;
    }
    let name = last.ok_or(KeyError::Damaged)?;
    String::from_utf8(name.to_vec()).map_err(|_| KeyError::Damaged)
}

/// What binds an envelope to its place, as associated data does in the real one.
fn header(key: &StoredKey, version: u64) -> Vec<u8> {
    let mut hasher = DefaultHasher::new();
    (key.as_bytes(), version).hash(&mut hasher);
    hasher.finish().to_be_bytes().to_vec()
}

/// Not a MAC: the same item gives the same bytes, another one others; enough for tests.
fn fingerprint(purpose: Purpose, item: &SecretBytes) -> [u8; 32] {
    let mut bytes = [0_u8; 32];
    for (round, chunk) in bytes.chunks_mut(8).enumerate() {
        let mut hasher = DefaultHasher::new();
        // EXPOSE: hashing needs the bytes; the hash is all that leaves.
        (round, purpose, item.expose()).hash(&mut hasher);
        chunk.copy_from_slice(&hasher.finish().to_be_bytes());
    }
    bytes
}
