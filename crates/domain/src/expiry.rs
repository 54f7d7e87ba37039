//! An index of what ends when: millions of entries, cheap to move, due ones in one sweep.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;

use crate::Timestamp;

/// Keys ordered by the second in which they end.
///
/// Lazy: a key that moved or left stays behind in its old bucket and is skipped there. When more
/// is stale than alive the buckets are built anew, so memory stays in proportion to what lives.
#[derive(Debug)]
pub struct ExpiryIndex<K> {
    ends: HashMap<K, Timestamp>,
    buckets: BTreeMap<u64, Vec<K>>,
    stale: usize,
}

impl<K> Default for ExpiryIndex<K> {
    fn default() -> Self {
        Self { ends: HashMap::new(), buckets: BTreeMap::new(), stale: 0 }
    }
}

impl<K: Clone + Eq + Hash> ExpiryIndex<K> {
    /// Notes that a key ends at a time; replaces what was noted for it before.
    pub fn insert(&mut self, key: K, ends_at: Timestamp) {
        if self.ends.insert(key.clone(), ends_at).is_some() {
            self.stale += 1;
        }
        self.buckets.entry(ends_at.unix_secs()).or_default().push(key);
        if self.stale > self.ends.len() + 64 {
            self.rebuild();
        }
    }

    /// Forgets a key; true if it was known.
    pub fn remove(&mut self, key: &K) -> bool {
        let known = self.ends.remove(key).is_some();
        if known {
            self.stale += 1;
        }
        known
    }

    /// When a key ends, if it is known.
    pub fn ends_at(&self, key: &K) -> Option<Timestamp> {
        self.ends.get(key).copied()
    }

    /// Takes out up to `limit` keys whose end is not after `now`, earliest second first.
    pub fn take_due(&mut self, now: Timestamp, limit: usize) -> Vec<K> {
        let mut due = Vec::new();
        while due.len() < limit {
            let Some(mut entry) = self.buckets.first_entry() else { break };
            let second = *entry.key();
            if second > now.unix_secs() {
                break;
            }
            let mut later = Vec::new();
            let bucket = entry.get_mut();
            while due.len() < limit {
                let Some(key) = bucket.pop() else { break };
                match self.ends.get(&key) {
                    Some(end) if end.unix_secs() == second && *end <= now => {
                        self.ends.remove(&key);
                        due.push(key);
                    }
                    // Ends later within this very second.
                    Some(end) if end.unix_secs() == second => later.push(key),
                    _ => self.stale = self.stale.saturating_sub(1),
                }
            }
            let unread = !bucket.is_empty();
            let waits = !later.is_empty();
            bucket.append(&mut later);
            if bucket.is_empty() {
                entry.remove();
            } else if waits && !unread {
                break;
            }
        }
        due
    }

    /// The earliest second, as a time, in which something may be due. May be early, never late.
    pub fn next_due(&self) -> Option<Timestamp> {
        self.buckets.keys().next().map(|second| Timestamp::from_unix_ms(second * 1000))
    }

    /// How many keys are known.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// True if no key is known.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    fn rebuild(&mut self) {
        self.buckets.clear();
        self.stale = 0;
        for (key, end) in &self.ends {
            self.buckets.entry(end.unix_secs()).or_default().push(key.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug)]
    enum Step {
        Insert(u8, u16),
        Remove(u8),
        Wait(u16),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (any::<u8>(), any::<u16>()).prop_map(|(key, ms)| Step::Insert(key, ms)),
            any::<u8>().prop_map(Step::Remove),
            any::<u16>().prop_map(Step::Wait),
        ]
    }

    proptest! {
        /// Every key comes out once, not before its last agreed end, and as soon as it is asked for.
        #[test]
        fn every_key_ends_exactly_once(steps in prop::collection::vec(step(), 0..200)) {
            let (mut index, mut model) = (ExpiryIndex::default(), HashMap::new());
            let mut now = Timestamp::from_unix_ms(0);
            for step in steps {
                match step {
                    Step::Insert(key, ms) => {
                        let end = now.after(Duration::from_millis(ms.into()));
                        index.insert(key, end);
                        model.insert(key, end);
                    }
                    Step::Remove(key) => {
                        prop_assert_eq!(index.remove(&key), model.remove(&key).is_some());
                    }
                    Step::Wait(ms) => {
                        now = now.after(Duration::from_millis(ms.into()));
                        loop {
                            let due = index.take_due(now, 3);
                            if due.is_empty() {
                                break;
                            }
                            for key in due {
                                let end = model.remove(&key);
                                prop_assert!(end.is_some_and(|end| end <= now));
                            }
                        }
                        prop_assert!(model.values().all(|end| *end > now));
                    }
                }
                prop_assert_eq!(index.len(), model.len());
                let earliest = model.values().min().copied();
                prop_assert!(earliest.is_none_or(|end| index.next_due().is_some_and(|due| due <= end)));
            }
        }
    }
}
