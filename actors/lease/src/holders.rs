//! How many leases each token has.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use mssm_domain::TokenId;

/// Tokens with leases, by number; a number is free again when its last lease has ended.
///
/// Tokens are told apart by eight bytes of a hash of their keyed hash: this only counts.
#[derive(Debug, Default)]
pub(crate) struct Holders {
    numbers: HashMap<u64, u32>,
    holders: Vec<(u64, u32)>,
    free: Vec<u32>,
}

impl Holders {
    /// A token got a lease; its number.
    pub(crate) fn add(&mut self, token: TokenId) -> u32 {
        let key = short(token);
        let number = *self.numbers.entry(key).or_insert_with(|| {
            self.free.pop().unwrap_or_else(|| {
                self.holders.push((0, 0));
                u32::try_from(self.holders.len() - 1).unwrap_or(u32::MAX)
            })
        });
        if let Some(holder) = self.holders.get_mut(number as usize) {
            *holder = (key, holder.1 + 1);
        }
        number
    }

    /// A token of this number lost a lease.
    pub(crate) fn remove(&mut self, number: u32) {
        let Some((key, count)) = self.holders.get_mut(number as usize) else { return };
        *count = count.saturating_sub(1);
        if *count == 0 {
            self.numbers.remove(key);
            self.free.push(number);
        }
    }

    /// How many leases a token has.
    pub(crate) fn count(&self, token: TokenId) -> u32 {
        let number = self.numbers.get(&short(token));
        number.and_then(|number| self.holders.get(*number as usize)).map_or(0, |(_, count)| *count)
    }
}

fn short(token: TokenId) -> u64 {
    let mut hasher = DefaultHasher::new();
    token.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leases_are_counted_by_token_and_numbers_are_used_again() {
        let token = |byte| TokenId::from_fingerprint([byte; 32]);
        let mut holders = Holders::default();
        let one = holders.add(token(1));
        assert_eq!((holders.add(token(1)), holders.count(token(1))), (one, 2));
        assert_eq!(holders.count(token(2)), 0);
        holders.remove(one);
        assert_eq!(holders.count(token(1)), 1);
        holders.remove(one);
        assert_eq!((holders.count(token(1)), holders.add(token(2))), (0, one));
    }
}
