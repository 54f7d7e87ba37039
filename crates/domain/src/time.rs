//! Points in time, lifetimes, and where they come from.

use std::fmt;
use std::time::Duration;

use crate::Invalid;

/// Wall-clock time in whole milliseconds since 1970-01-01T00:00:00Z.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(u64);

impl Timestamp {
    /// The time so many milliseconds after the Unix epoch.
    pub const fn from_unix_ms(ms: u64) -> Self {
        Self(ms)
    }

    /// Milliseconds since the Unix epoch.
    pub const fn unix_ms(self) -> u64 {
        self.0
    }

    /// Whole seconds since the Unix epoch, rounded down.
    pub const fn unix_secs(self) -> u64 {
        self.0 / 1000
    }

    /// This time plus a span; stays at the far end instead of wrapping.
    pub fn after(self, span: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(span.as_millis()).unwrap_or(u64::MAX)))
    }

    /// How long until `later`, or zero if it has passed.
    pub const fn until(self, later: Self) -> Duration {
        Duration::from_millis(later.0.saturating_sub(self.0))
    }

    /// Reads RFC 3339.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        let parsed: jiff::Timestamp =
            text.parse().map_err(|_| Invalid::new("time", "as RFC 3339 writes it"))?;
        Ok(Self(u64::try_from(parsed.as_millisecond()).unwrap_or_default()))
    }

    /// RFC 3339 in UTC with milliseconds, as `2026-11-22T15:04:05.123Z`.
    pub fn rfc3339(self) -> String {
        let ms = i64::try_from(self.0).unwrap_or(i64::MAX);
        jiff::Timestamp::from_millisecond(ms).unwrap_or(jiff::Timestamp::MAX).to_string()
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.rfc3339())
    }
}

/// How long something lives: whole seconds, from 1 s to ten years.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ttl(u32);

impl Ttl {
    /// Ten years of 365 days: longer is a mistake, not a lifetime.
    pub const MAX_SECS: u64 = 315_360_000;
    /// Vault's system default and maximum: 32 days.
    pub const SYSTEM_DEFAULT: Self = Self(2_764_800);

    /// The lifetime of so many seconds; fails outside 1 s to [`Self::MAX_SECS`].
    pub fn from_secs(secs: u64) -> Result<Self, Invalid> {
        match u32::try_from(secs) {
            Ok(whole) if whole > 0 && secs <= Self::MAX_SECS => Ok(Self(whole)),
            _ => Err(Invalid::new("ttl", "from 1 second to 10 years")),
        }
    }

    /// The lifetime in seconds.
    pub const fn secs(self) -> u64 {
        self.0 as u64
    }

    /// The lifetime as a span of time.
    pub const fn duration(self) -> Duration {
        Duration::from_secs(self.0 as u64)
    }
}

impl fmt::Display for Ttl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}s", self.0)
    }
}

/// Reads a duration as Vault's clients write it: `90`, `"90"`, `"90s"`, `"1h30m"`, `"2d"`; seconds.
///
/// Fractions of a second are cut off, but what is shorter is a second: none means a default, and that may be
/// long. Fails on anything else, on negative and on absurd values.
pub fn parse_duration_secs(text: &str) -> Result<u64, Invalid> {
    let invalid =
        || Invalid::new("duration", "seconds, or a number with s, m, h or d, as in 1h30m");
    let text = text.trim();
    if text.is_empty() {
        return Err(invalid());
    }
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        return text.parse().map_err(|_| invalid());
    }
    let mut total_ms: u64 = 0;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(invalid)?;
        let (number, tail) = rest.split_at(digits);
        let number: u64 = number.parse().map_err(|_| invalid())?;
        let unit_len = tail.find(|c: char| c.is_ascii_digit()).unwrap_or(tail.len());
        let (unit, next) = tail.split_at(unit_len);
        let unit_ms: u64 = match unit {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return Err(invalid()),
        };
        let part = number.checked_mul(unit_ms).ok_or_else(invalid)?;
        total_ms = total_ms.checked_add(part).ok_or_else(invalid)?;
        rest = next;
    }
    Ok((total_ms / 1000).max(total_ms.min(1)))
}

/// Where the time comes from: the real clock in the server, one that tests turn in tests.
pub trait Clock: Send + Sync {
    /// The wall-clock time now. Expiry is written in it.
    fn now(&self) -> Timestamp;

    /// The time since some moment in the past, which nobody can set and sleep does not stop.
    ///
    /// What runs is judged by it; a clock that knows none gives its wall-clock time.
    fn steady(&self) -> Duration {
        Duration::from_millis(self.now().unix_ms())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ttl_is_from_one_second_to_its_maximum() {
        let cases = [(0, false), (1, true), (Ttl::MAX_SECS, true), (Ttl::MAX_SECS + 1, false)];
        for (secs, allowed) in cases {
            assert_eq!(Ttl::from_secs(secs).is_ok(), allowed, "{secs} s");
        }
    }

    #[test]
    fn durations_are_read_as_clients_write_them() {
        let cases = [
            ("90", Some(90)),
            ("90s", Some(90)),
            ("1h30m", Some(5400)),
            ("2d", Some(172_800)),
            ("1m0s", Some(60)),
            ("500ms", Some(1)),
            ("1ms", Some(1)),
            ("0ms", Some(0)),
            ("1999ms", Some(1)),
            ("", None),
            ("abc", None),
            ("-5s", None),
            ("5x", None),
            ("s", None),
            ("99999999999999999999", None),
            ("99999999999999999d", None),
        ];
        for (text, secs) in cases {
            assert_eq!(parse_duration_secs(text).ok(), secs, "{text:?}");
        }
    }

    #[test]
    fn times_print_as_rfc_3339() {
        assert_eq!(Timestamp::from_unix_ms(0).rfc3339(), "1970-01-01T00:00:00Z");
        assert_eq!(
            Timestamp::from_unix_ms(1_800_000_000_123).rfc3339(),
            "2027-01-15T08:00:00.123Z"
        );
    }
}
