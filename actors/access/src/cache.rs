//! A map with a bound: what has not been asked for in a while is forgotten.

use std::collections::HashMap;
use std::hash::Hash;

/// Two generations: what is asked for moves to the young one; when that is full it becomes the old
/// one, and the old one is forgotten. Holds at most twice `half` entries, at a constant cost each.
#[derive(Debug)]
pub(crate) struct Cache<K, V> {
    young: HashMap<K, V>,
    old: HashMap<K, V>,
    half: usize,
}

impl<K: Eq + Hash + Clone, V: Clone> Cache<K, V> {
    /// An empty cache.
    pub(crate) fn new(half: usize) -> Self {
        Self { young: HashMap::new(), old: HashMap::new(), half }
    }

    /// The value of a key, if it is still here.
    pub(crate) fn get(&mut self, key: &K) -> Option<V> {
        if let Some(value) = self.young.get(key) {
            return Some(value.clone());
        }
        let value = self.old.remove(key)?;
        self.insert(key.clone(), value.clone());
        Some(value)
    }

    /// Keeps a value for a while.
    pub(crate) fn insert(&mut self, key: K, value: V) {
        if self.young.len() >= self.half {
            self.old = std::mem::take(&mut self.young);
        }
        self.old.remove(&key);
        self.young.insert(key, value);
    }

    /// Forgets a key.
    pub(crate) fn remove(&mut self, key: &K) {
        self.young.remove(key);
        self.old.remove(key);
    }

    /// Keeps only what passes.
    pub(crate) fn retain(&mut self, keep: impl Fn(&K, &V) -> bool) {
        self.young.retain(|key, value| keep(key, value));
        self.old.retain(|key, value| keep(key, value));
    }

    /// Forgets everything.
    pub(crate) fn clear(&mut self) {
        self.young = HashMap::new();
        self.old = HashMap::new();
    }

    /// How many entries there are.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.young.len() + self.old.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Catalogue: CVE-2023-5954.
    #[test]
    fn memory_stays_flat_and_what_is_used_stays() {
        let mut cache = Cache::new(100);
        for key in 0..1_000_000_u32 {
            cache.insert(key, key);
            if key >= 7 {
                assert_eq!(cache.get(&7), Some(7));
            }
        }
        assert!(cache.len() <= 200);
        cache.remove(&7);
        assert_eq!(cache.get(&7), None);
        cache.retain(|key, _| *key == 999_999);
        assert_eq!(cache.len(), 1);
    }
}
