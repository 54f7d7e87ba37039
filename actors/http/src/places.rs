//! How many connections one address may hold: nobody takes the places of all others.

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::IpAddr;

use crate::rates::network;

thread_local! {
    /// How many connections each client holds on this worker.
    static HELD: RefCell<HashMap<IpAddr, usize>> = RefCell::default();
}

/// One connection's place; free again when this is dropped.
#[derive(Debug)]
pub(crate) struct Place(IpAddr);

impl Place {
    /// A place for a client that holds fewer than so many on this worker.
    pub(crate) fn take(client: IpAddr, most: usize) -> Option<Self> {
        let client = network(client);
        let free = HELD.with_borrow_mut(|held| {
            let count = held.entry(client).or_insert(0);
            let free = *count < most;
            *count += usize::from(free);
            free
        });
        free.then(|| Self(client))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        HELD.with_borrow_mut(|held| {
            if let Some(count) = held.get_mut(&self.0) {
                *count = count.saturating_sub(1);
                if *count == 0 {
                    held.remove(&self.0);
                }
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_holds_so_many_connections_and_gets_back_what_it_lets_go() {
        let address = |text: &str| text.parse::<IpAddr>().unwrap();
        let one = || Place::take(address("2001:db8::1"), 2);
        let (first, second) = (one().unwrap(), one().unwrap());
        assert!(one().is_none());
        assert!(Place::take(address("2001:db8::2"), 2).is_none(), "the same /64");
        let other = Place::take(address("192.0.2.1"), 2);
        assert!(other.is_some());
        drop(first);
        let third = one();
        assert!(third.is_some() && one().is_none());
        drop((second, third, other));
        HELD.with_borrow(|held| assert!(held.is_empty(), "{held:?}"));
    }
}
