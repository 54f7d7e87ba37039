//! A disk that fails: errors, no room, and power cuts that leave any part of what was not synced.

use std::cell::RefCell;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::backend::faults::{Fate, Trouble};

/// A power cut tears a write between sectors, never within one.
const SECTOR: usize = 512;

thread_local! {
    /// The disk that this thread's stores open instead of a file.
    static DISK: RefCell<Option<Disk>> = const { RefCell::new(None) };
}

/// The disk of this thread, if a test has put one there.
pub(super) fn disk() -> Option<Disk> {
    DISK.with_borrow(Clone::clone)
}

/// A disk in memory; clones are the same disk.
#[derive(Clone, Debug)]
pub(super) struct Disk(Arc<Mutex<State>>);

#[derive(Debug)]
pub(super) struct State {
    /// What is certainly on the disk.
    synced: Vec<u8>,
    /// What the process sees.
    seen: Vec<u8>,
    /// What may be on the disk, in the order in which it was asked for.
    pending: Vec<Op>,
    pub(super) fate: Fate,
}

#[derive(Clone, Debug)]
enum Op {
    Write(usize, Vec<u8>),
    Resize(usize),
}

impl Disk {
    /// An empty disk, in place of every file that this thread opens from now on.
    pub(super) fn install(seed: u64) -> Self {
        let (synced, seen, pending) = (Vec::new(), Vec::new(), Vec::new());
        let state = State { synced, seen, pending, fate: Fate::new(seed) };
        let disk = Self(Arc::new(Mutex::new(state)));
        DISK.set(Some(disk.clone()));
        disk
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The power comes back: of what was not synced some is there, in any order, some of it torn.
    pub(super) fn power_on(&self) {
        let state = &mut *self.state();
        let mut pending = std::mem::take(&mut state.pending);
        let mut left = state.synced.clone();
        while !pending.is_empty() {
            let op = pending.swap_remove(state.fate.dice.below(pending.len()));
            match (state.fate.dice.roll(3), op) {
                (0, _) => {}
                (1, Op::Write(offset, data)) => {
                    let kept = state.fate.dice.below(data.len() / SECTOR + 1) * SECTOR;
                    write(&mut left, offset, &data[..kept.min(data.len())]);
                }
                (_, Op::Write(offset, data)) => write(&mut left, offset, &data),
                (_, Op::Resize(len)) => left.resize(len, 0),
            }
        }
        state.seen.clone_from(&left);
        state.synced = left;
        state.fate.revive();
    }

    fn call(&self, what: fn(Trouble) -> u32) -> io::Result<MutexGuard<'_, State>> {
        let mut state = self.state();
        state.fate.call(what)?;
        Ok(state)
    }
}

fn write(bytes: &mut Vec<u8>, offset: usize, data: &[u8]) {
    let end = offset + data.len();
    if bytes.len() < end {
        bytes.resize(end, 0);
    }
    bytes[offset..end].copy_from_slice(data);
}

impl redb::StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.call(|_| 0)?.seen.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let state = self.call(|trouble| trouble.read)?;
        let start = usize::try_from(offset).unwrap();
        let found = state.seen.get(start..start + out.len());
        out.copy_from_slice(found.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut state = self.call(|trouble| trouble.write)?;
        let len = usize::try_from(len).unwrap();
        if len > state.seen.len() {
            state.fate.take_room()?;
        }
        state.seen.resize(len, 0);
        state.pending.push(Op::Resize(len));
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.call(|trouble| trouble.sync)?;
        state.synced = state.seen.clone();
        state.pending.clear();
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut state = self.call(|trouble| trouble.write)?;
        state.fate.take_room()?;
        let offset = usize::try_from(offset).unwrap();
        write(&mut state.seen, offset, data);
        state.pending.push(Op::Write(offset, data.to_vec()));
        Ok(())
    }
}
