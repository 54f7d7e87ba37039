//! How fast one client may come, looked at before anything that it sent is parsed.
//!
//! Each worker keeps its own buckets, so nothing is shared and nothing waits; a client that spreads its
//! connections over all workers gets the rate of each.

use std::collections::hash_map::RandomState;
use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, Hash};
use std::net::{IpAddr, Ipv6Addr};

use tokio::time::Instant;

/// So many clients are told apart; whoever comes as more begins anew with all others.
const CLIENTS_MAX: usize = 16_384;

/// How often something may happen: in the long run, and at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// In the long run, a second.
    pub a_second: u32,
    /// At once, after a while without any.
    pub burst: u32,
}

/// The rates of the front door; without one there is no bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rates {
    /// Requests of one address without a token that is known to be good.
    pub strangers: Option<Rate>,
    /// All requests of one address.
    pub address: Option<Rate>,
    /// Requests with one token.
    pub token: Option<Rate>,
}

impl Default for Rates {
    fn default() -> Self {
        Self { strangers: Some(Rate { a_second: 100, burst: 1_000 }), address: None, token: None }
    }
}

/// What gets through though all else from its address is too fast.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Vital {
    /// Unsealing.
    Unseal,
    /// What ends or prolongs access.
    Access,
}

/// How often each kind of it comes through from one address beside all else; what is more counts with the rest.
const VITAL: Rate = Rate { a_second: 5, burst: 20 };

/// One bucket each for many.
struct Buckets<K> {
    rate: Option<Rate>,
    /// What was taken and not given back yet, and when that was so.
    taken: HashMap<K, (f64, Instant)>,
}

impl<K: Eq + Hash> Buckets<K> {
    fn new(rate: Option<Rate>) -> Self {
        Self { rate, taken: HashMap::new() }
    }

    /// Takes one; false if there is none.
    fn take(&mut self, who: K, now: Instant) -> bool {
        let Some(rate) = self.rate else { return true };
        let left = |(taken, at): (f64, Instant)| {
            (taken - now.duration_since(at).as_secs_f64() * f64::from(rate.a_second)).max(0.0)
        };
        if self.taken.len() >= CLIENTS_MAX && !self.taken.contains_key(&who) {
            self.taken.retain(|_, bucket| left(*bucket) > 0.0);
            if self.taken.len() >= CLIENTS_MAX {
                self.taken.clear();
            }
        }
        let bucket = self.taken.entry(who).or_insert((0.0, now));
        let taken = left(*bucket);
        let fits = taken + 1.0 <= f64::from(rate.burst);
        *bucket = (if fits { taken + 1.0 } else { taken }, now);
        fits
    }
}

/// A worker's buckets, and the tokens that it has seen to be good.
pub(crate) struct Turnstile {
    strangers: Buckets<IpAddr>,
    addresses: Buckets<IpAddr>,
    tokens: Buckets<u64>,
    vital: Buckets<(IpAddr, Vital)>,
    /// Tokens as hashes under a key of this run: no token is kept.
    good: HashSet<u64>,
    hashes: RandomState,
}

impl Turnstile {
    pub(crate) fn new(rates: Rates) -> Self {
        Self {
            strangers: Buckets::new(rates.strangers),
            addresses: Buckets::new(rates.address),
            tokens: Buckets::new(rates.token),
            vital: Buckets::new(Some(VITAL)),
            good: HashSet::new(),
            hashes: RandomState::new(),
        }
    }

    /// Lets a request in, or not.
    pub(crate) fn admits(
        &mut self,
        address: Option<IpAddr>,
        token: Option<&[u8]>,
        vital: Option<Vital>,
        now: Instant,
    ) -> bool {
        let address = network(address.unwrap_or(IpAddr::V6(Ipv6Addr::UNSPECIFIED)));
        if vital.is_some_and(|kind| self.vital.take((address, kind), now)) {
            return true;
        }
        let token = token.map(|token| self.hashes.hash_one(token));
        if !self.addresses.take(address, now) {
            return false;
        }
        match token.filter(|token| self.good.contains(token)) {
            Some(token) => self.tokens.take(token, now),
            None => self.strangers.take(address, now),
        }
    }

    /// Remembers whether a token is good.
    pub(crate) fn judged(&mut self, token: &[u8], good: bool) {
        let token = self.hashes.hash_one(token);
        if !good {
            self.good.remove(&token);
        } else if !self.good.contains(&token) {
            if self.good.len() >= CLIENTS_MAX {
                self.good.clear();
            }
            self.good.insert(token);
        }
    }
}

/// Who counts as one client: an address, or the /64 that one holder of IPv6 addresses gets.
pub(crate) fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => IpAddr::V6((u128::from(address) >> 64 << 64).into()),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const STRANGERS: Rate = Rate { a_second: 2, burst: 4 };

    fn turnstile() -> Turnstile {
        Turnstile::new(Rates { strangers: Some(STRANGERS), address: None, token: None })
    }

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn strangers_of_one_address_wait_and_nobody_else_does() {
        let mut turnstile = turnstile();
        let one = Some(address("192.0.2.1"));
        let now = Instant::now();
        let admitted = (0..10).filter(|_| turnstile.admits(one, None, None, now)).count();
        assert_eq!(admitted, 4);
        assert!(
            !turnstile.admits(one, Some(b"made up"), None, now),
            "a token nobody knows is no token"
        );
        assert!(turnstile.admits(Some(address("192.0.2.2")), None, None, now));
        turnstile.judged(b"good", true);
        assert!((0..100).all(|_| turnstile.admits(one, Some(b"good"), None, now)));
        turnstile.judged(b"good", false);
        assert!(
            !turnstile.admits(one, Some(b"good"), None, now),
            "what has ended is a stranger again"
        );
        let later = now + Duration::from_secs(1);
        assert_eq!((0..10).filter(|_| turnstile.admits(one, None, None, later)).count(), 2);
        let much_later = now + Duration::from_hours(1);
        assert_eq!((0..10).filter(|_| turnstile.admits(one, None, None, much_later)).count(), 4);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_vital_has_a_small_rate_of_its_own_and_then_that_of_all() {
        let mut turnstile = turnstile();
        let one = Some(address("192.0.2.1"));
        let now = Instant::now();
        while turnstile.admits(one, None, None, now) {}
        let mut count =
            |kind, now| (0..100).filter(|_| turnstile.admits(one, None, Some(kind), now)).count();
        assert_eq!(count(Vital::Unseal, now), 20);
        assert_eq!(count(Vital::Access, now), 20, "one kind leaves the other its own");
        let later = now + Duration::from_secs(1);
        assert_eq!(count(Vital::Unseal, later), 5 + 2, "and what a stranger may");
    }

    #[tokio::test(start_paused = true)]
    async fn a_token_and_an_address_have_bounds_of_their_own_where_set() {
        let rate = Some(Rate { a_second: 1, burst: 3 });
        let now = Instant::now();
        let mut turnstile = Turnstile::new(Rates { strangers: None, address: None, token: rate });
        turnstile.judged(b"a", true);
        turnstile.judged(b"b", true);
        let one = Some(address("192.0.2.1"));
        let count = |turnstile: &mut Turnstile, token: &[u8], from: Option<IpAddr>| {
            (0..9).filter(|_| turnstile.admits(from, Some(token), None, now)).count()
        };
        assert_eq!(count(&mut turnstile, b"a", one), 3);
        assert_eq!(count(&mut turnstile, b"b", one), 3);
        let mut turnstile = Turnstile::new(Rates { strangers: None, address: rate, token: None });
        turnstile.judged(b"a", true);
        assert_eq!(count(&mut turnstile, b"a", Some(address("2001:db8::1"))), 3);
        assert_eq!(count(&mut turnstile, b"a", Some(address("2001:db8::2"))), 0, "the same /64");
        assert_eq!(count(&mut turnstile, b"a", Some(address("2001:db8:0:1::1"))), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn however_many_clients_there_are_memory_stays_bounded() {
        let mut turnstile = turnstile();
        let now = Instant::now();
        for number in 0..100_000_u32 {
            let address = Some(IpAddr::V4(number.into()));
            turnstile.admits(address, None, None, now);
            turnstile.admits(address, None, Some(Vital::Unseal), now);
            turnstile.judged(&number.to_be_bytes(), true);
        }
        assert!(turnstile.strangers.taken.len() <= CLIENTS_MAX);
        assert!(turnstile.vital.taken.len() <= CLIENTS_MAX);
        assert!(turnstile.good.len() <= CLIENTS_MAX);
    }
}
