//! A disk that fails: errors, no room, and power cuts that leave any part of what was not synced.

use std::cell::RefCell;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

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
struct State {
    /// What is certainly on the disk.
    synced: Vec<u8>,
    /// What the process sees.
    seen: Vec<u8>,
    /// What may be on the disk, in the order in which it was asked for.
    pending: Vec<Op>,
    dice: Dice,
    trouble: Trouble,
    /// Calls until the power goes; none while it is on.
    left: Option<u32>,
    dead: bool,
}

#[derive(Clone, Debug)]
enum Op {
    Write(usize, Vec<u8>),
    Resize(usize),
}

/// What goes wrong, each with one call in so many; 0 is never.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Trouble {
    pub(super) no_space: u32,
    pub(super) write: u32,
    pub(super) read: u32,
    pub(super) sync: u32,
}

/// Numbers from a seed.
#[derive(Clone, Debug)]
pub(super) struct Dice(u64);

impl Dice {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// A number below `sides`.
    pub(super) fn roll(&mut self, sides: u32) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        u32::try_from((self.0 >> 16) % u64::from(sides.max(1))).unwrap()
    }

    fn one_in(&mut self, times: u32) -> bool {
        times > 0 && self.roll(times) == 0
    }
}

impl Disk {
    /// An empty disk, in place of every file that this thread opens from now on.
    pub(super) fn install(seed: u64) -> Self {
        let state = State {
            synced: Vec::new(),
            seen: Vec::new(),
            pending: Vec::new(),
            dice: Dice::new(seed),
            trouble: Trouble::default(),
            left: None,
            dead: false,
        };
        let disk = Self(Arc::new(Mutex::new(state)));
        DISK.set(Some(disk.clone()));
        disk
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn trouble(&self, trouble: Trouble) {
        self.state().trouble = trouble;
    }

    /// Has the power go after so many calls.
    pub(super) fn die_after(&self, calls: u32) {
        self.state().left = Some(calls);
    }

    /// Nothing goes wrong from here on; what is dead stays dead.
    pub(super) fn calm(&self) {
        let mut state = self.state();
        state.trouble = Trouble::default();
        state.left = None;
    }

    pub(super) fn is_dead(&self) -> bool {
        self.state().dead
    }

    /// The power comes back: of what was not synced some is there, in any order, some of it torn.
    pub(super) fn power_on(&self) {
        let mut state = self.state();
        let mut pending = std::mem::take(&mut state.pending);
        let mut left = state.synced.clone();
        while !pending.is_empty() {
            let at = state.dice.roll(u32::try_from(pending.len()).unwrap());
            let op = pending.swap_remove(usize::try_from(at).unwrap());
            match (state.dice.roll(3), op) {
                (0, _) => {}
                (1, Op::Write(offset, data)) => {
                    let sectors = u32::try_from(data.len() / SECTOR + 1).unwrap();
                    let kept = usize::try_from(state.dice.roll(sectors)).unwrap() * SECTOR;
                    write(&mut left, offset, &data[..kept.min(data.len())]);
                }
                (_, Op::Write(offset, data)) => write(&mut left, offset, &data),
                (_, Op::Resize(len)) => left.resize(len, 0),
            }
        }
        state.seen.clone_from(&left);
        state.synced = left;
        state.trouble = Trouble::default();
        (state.left, state.dead) = (None, false);
    }

    /// One call: an error if it fails.
    fn call(&self, what: fn(Trouble) -> u32) -> io::Result<MutexGuard<'_, State>> {
        let mut state = self.state();
        if let Some(left) = &mut state.left {
            *left = left.saturating_sub(1);
            if *left == 0 {
                state.dead = true;
            }
        }
        let times = what(state.trouble);
        if state.dead || state.dice.one_in(times) {
            return Err(io::Error::from_raw_os_error(5));
        }
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
        let times = state.trouble.no_space;
        if len > state.seen.len() && state.dice.one_in(times) {
            return Err(io::Error::from_raw_os_error(28));
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
        let times = state.trouble.no_space;
        if state.dice.one_in(times) {
            return Err(io::Error::from_raw_os_error(28));
        }
        let offset = usize::try_from(offset).unwrap();
        write(&mut state.seen, offset, data);
        state.pending.push(Op::Write(offset, data.to_vec()));
        Ok(())
    }
}
