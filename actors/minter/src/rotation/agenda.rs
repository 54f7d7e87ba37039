//! What is due when, and whose turn it is: nothing here is stored, all of it is read again.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use mssm_domain::{MountId, Timestamp};
use tokio::sync::Mutex;

/// The longest pause between two tries of what fails.
const PAUSE_MAX: Duration = Duration::from_mins(1);

/// Whose password.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    /// A connection's own user.
    Root,
    /// A static role.
    Static,
}

/// One password, or the pair of a role.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    pub(crate) kind: Kind,
    pub(crate) mount: MountId,
    pub(crate) name: String,
}

impl Key {
    pub(crate) fn root(mount: MountId, name: &str) -> Self {
        Self { kind: Kind::Root, mount, name: name.to_owned() }
    }

    pub(crate) fn fixed(mount: MountId, name: &str) -> Self {
        Self { kind: Kind::Static, mount, name: name.to_owned() }
    }
}

struct Entry {
    at: Timestamp,
    failures: u32,
}

#[derive(Default)]
struct State {
    entries: HashMap<Key, Entry>,
    running: HashSet<Key>,
    turns: HashMap<Key, Arc<Mutex<()>>>,
}

/// Shared by the minter's own tasks, on its one thread; never borrowed across an await.
#[derive(Default)]
pub(crate) struct Agenda {
    state: RefCell<State>,
    /// Root passwords change one after the other: connections may share one.
    pub(crate) roots: Arc<Mutex<()>>,
}

/// What runs by itself at this moment.
pub(crate) struct Running<'a> {
    agenda: &'a Agenda,
    key: Key,
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.agenda.state.borrow_mut().running.remove(&self.key);
    }
}

impl Agenda {
    /// Notes when something is due; `None` for never.
    pub(crate) fn set(&self, key: Key, at: Option<Timestamp>) {
        let mut state = self.state.borrow_mut();
        match at {
            Some(at) => state.entries.insert(key, Entry { at, failures: 0 }),
            None => state.entries.remove(&key),
        };
    }

    /// Notes when something is due, unless that is known: what is read late knows no better.
    pub(crate) fn offer(&self, key: Key, at: Option<Timestamp>) {
        if let Some(at) = at {
            let mut state = self.state.borrow_mut();
            state.entries.entry(key).or_insert(Entry { at, failures: 0 });
        }
    }

    /// Notes that a try failed: the next one comes after twice the pause.
    pub(crate) fn fail(&self, key: Key, now: Timestamp) {
        let mut state = self.state.borrow_mut();
        let entry = state.entries.entry(key).or_insert(Entry { at: now, failures: 0 });
        entry.failures = entry.failures.saturating_add(1);
        let pause = Duration::from_secs(1 << entry.failures.min(6)).min(PAUSE_MAX);
        entry.at = now.after(pause);
    }

    /// Forgets one that is gone.
    pub(crate) fn remove(&self, key: &Key) {
        let mut state = self.state.borrow_mut();
        state.entries.remove(key);
        state.turns.remove(key);
    }

    /// Forgets everything of a mount.
    pub(crate) fn remove_mount(&self, mount: MountId) {
        let mut state = self.state.borrow_mut();
        state.entries.retain(|key, _| key.mount != mount);
        state.turns.retain(|key, _| key.mount != mount);
    }

    /// Forgets everything.
    pub(crate) fn clear(&self) {
        self.state.borrow_mut().entries.clear();
    }

    /// What is due and does not run yet; at most so many run.
    pub(crate) fn due(&self, now: Timestamp, bound: usize) -> Vec<Key> {
        let state = self.state.borrow();
        let mut due: Vec<(Timestamp, &Key)> = state
            .entries
            .iter()
            .filter(|(key, entry)| entry.at <= now && !state.running.contains(*key))
            .map(|(key, entry)| (entry.at, key))
            .collect();
        due.sort_unstable_by_key(|(at, _)| *at);
        due.truncate(bound.saturating_sub(state.running.len()));
        due.into_iter().map(|(_, key)| key.clone()).collect()
    }

    /// Notes that one runs, until the reply is dropped.
    pub(crate) fn run(&self, key: &Key) -> Running<'_> {
        self.state.borrow_mut().running.insert(key.clone());
        Running { agenda: self, key: key.clone() }
    }

    /// What must be held to change one static role.
    pub(crate) fn turn(&self, key: &Key) -> Arc<Mutex<()>> {
        Arc::clone(self.state.borrow_mut().turns.entry(key.clone()).or_default())
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn what_fails_is_tried_for_ever_with_a_pause_that_is_bounded() {
        let agenda = Agenda::default();
        let key = Key::root(MountId::from_uuid(Uuid::nil()), "main");
        let mut now = Timestamp::from_unix_ms(0);
        agenda.set(key.clone(), Some(now));
        let mut pauses = Vec::new();
        for _ in 0..100 {
            assert_eq!(agenda.due(now, 1), std::slice::from_ref(&key));
            agenda.fail(key.clone(), now);
            let before = now;
            while agenda.due(now, 1).is_empty() {
                now = now.after(Duration::from_secs(1));
            }
            pauses.push(before.until(now).as_secs());
        }
        assert_eq!(pauses[..7], [2, 4, 8, 16, 32, 60, 60]);
        assert_eq!(pauses.iter().max(), Some(&60));
    }

    #[test]
    fn what_runs_is_not_due_and_no_more_run_than_may() {
        let agenda = Agenda::default();
        let key = |name: &str| Key::fixed(MountId::from_uuid(Uuid::nil()), name);
        let now = Timestamp::from_unix_ms(5);
        for (name, at) in [("c", 3), ("a", 1), ("b", 2), ("later", 6)] {
            agenda.set(key(name), Some(Timestamp::from_unix_ms(at)));
        }
        assert_eq!(agenda.due(now, 2), [key("a"), key("b")]);
        let running = agenda.run(&key("a"));
        assert_eq!(agenda.due(now, 2), [key("b")]);
        drop(running);
        assert_eq!(agenda.due(now, 9), [key("a"), key("b"), key("c")]);
    }
}
