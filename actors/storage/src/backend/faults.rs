//! When a disk fails, and when its power goes: from a seed.

use std::io;

/// What goes wrong, each with one call in so many; 0 is never.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Trouble {
    pub(crate) no_space: u32,
    pub(crate) write: u32,
    pub(crate) read: u32,
    pub(crate) sync: u32,
}

/// Numbers from a seed.
#[derive(Clone, Debug)]
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// A number below `sides`.
    pub(crate) fn roll(&mut self, sides: u32) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        u32::try_from((self.0 >> 16) % u64::from(sides.max(1))).unwrap()
    }

    /// One of so many places.
    pub(crate) fn below(&mut self, many: usize) -> usize {
        usize::try_from(self.roll(u32::try_from(many).unwrap())).unwrap()
    }

    pub(crate) fn one_in(&mut self, times: u32) -> bool {
        times > 0 && self.roll(times) == 0
    }
}

/// What awaits a disk.
#[derive(Debug)]
pub(crate) struct Fate {
    pub(crate) dice: Dice,
    trouble: Trouble,
    /// Calls until the power goes; none while it is on.
    left: Option<u32>,
    dead: bool,
}

impl Fate {
    pub(crate) fn new(seed: u64) -> Self {
        Self { dice: Dice::new(seed), trouble: Trouble::default(), left: None, dead: false }
    }

    pub(crate) const fn trouble(&mut self, trouble: Trouble) {
        self.trouble = trouble;
    }

    /// Has the power go after so many calls.
    pub(crate) const fn die_after(&mut self, calls: u32) {
        self.left = Some(calls);
    }

    /// Nothing goes wrong from here on; what is dead stays dead.
    pub(crate) fn calm(&mut self) {
        (self.trouble, self.left) = (Trouble::default(), None);
    }

    /// The power comes back.
    pub(crate) fn revive(&mut self) {
        self.calm();
        self.dead = false;
    }

    pub(crate) const fn is_dead(&self) -> bool {
        self.dead
    }

    /// One call: an error if it fails.
    pub(crate) fn call(&mut self, what: fn(Trouble) -> u32) -> io::Result<()> {
        if let Some(left) = &mut self.left {
            *left = left.saturating_sub(1);
            self.dead |= *left == 0;
        }
        let times = what(self.trouble);
        if self.dead || self.dice.one_in(times) { Err(error(5)) } else { Ok(()) }
    }

    /// Room for something more: an error if there is none.
    pub(crate) fn take_room(&mut self) -> io::Result<()> {
        let times = self.trouble.no_space;
        if self.dice.one_in(times) { Err(error(28)) } else { Ok(()) }
    }
}

/// EIO is 5, ENOSPC is 28.
fn error(number: i32) -> io::Error {
    io::Error::from_raw_os_error(number)
}
