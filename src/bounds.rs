//! The bounds of the front door, as the settings wish them.

use mssm_http::{Limits, Rate, Rates};

use crate::config::LimitsConfig;

/// The front door's own bounds with those that are set over them.
pub(crate) fn bounds(set: &LimitsConfig) -> Limits {
    let default = Limits::default();
    Limits {
        body_bytes: set.body_bytes.unwrap_or(default.body_bytes),
        bodies_bytes: set.bodies_in_flight_bytes.unwrap_or(default.bodies_bytes),
        requests: set.requests_in_flight.unwrap_or(default.requests),
        rates: Rates {
            strangers: rate(set.strangers_per_second, default.rates.strangers, 10),
            address: rate(set.per_second_per_address, default.rates.address, 2),
            token: rate(set.per_second_per_token, default.rates.token, 2),
        },
        connections_of_one: set.connections_per_address.unwrap_or(default.connections_of_one),
        ..default
    }
}

/// A rate that is set, with some seconds of it at once; 0 is none.
fn rate(set: Option<u32>, default: Option<Rate>, seconds: u32) -> Option<Rate> {
    let Some(a_second) = set else { return default };
    (a_second > 0).then(|| Rate { a_second, burst: a_second.saturating_mul(seconds) })
}
