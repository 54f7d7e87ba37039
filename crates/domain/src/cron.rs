//! Schedules as cron writes them: five fields, in UTC.

use std::fmt;

use crate::{Invalid, Timestamp};

const RULE: &str =
    "five fields as cron has them (minute hour day month weekday), which some minute fits";
const MINUTE_MS: u64 = 60_000;
const DAY_MINUTES: u64 = 1_440;
/// From one 29 February to the next over a year like 2100 that has none: no gap is longer.
const DAYS_MAX: u64 = 366 * 8;
const MONTHS: [&str; 12] =
    ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const WEEKDAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

/// A schedule of cron: the minutes, in UTC, that its five fields fit.
///
/// `*`, lists, ranges, steps, names of months and weekdays, 0 and 7 for Sunday, `@hourly`, `@daily`,
/// `@weekly`, `@monthly` and `@yearly`. Where day and weekday are both bound, either may fit.
#[derive(Clone, PartialEq, Eq)]
pub struct Cron {
    text: String,
    minutes: u64,
    hours: u64,
    days: u64,
    months: u64,
    weekdays: u64,
    /// True if day and weekday must both fit, since one of them is free.
    both: bool,
}

impl Cron {
    /// Reads a schedule; fails on what no minute ever fits too.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        let invalid = || Invalid::new("schedule", RULE);
        let text = text.trim();
        let long = match text {
            "@hourly" => "0 * * * *",
            "@daily" | "@midnight" => "0 0 * * *",
            "@weekly" => "0 0 * * 0",
            "@monthly" => "0 0 1 * *",
            "@yearly" | "@annually" => "0 0 1 1 *",
            other => other,
        };
        let fields: Vec<&str> = long.split_ascii_whitespace().collect();
        let [minutes, hours, days, months, weekdays] = fields.as_slice() else {
            return Err(invalid());
        };
        let field =
            |text: &str, from, to, names: &[&str]| read(text, from, to, names).ok_or_else(invalid);
        let days_of_week = field(weekdays, 0, 7, &WEEKDAYS)?;
        let free = |text: &str| matches!(text, "*" | "?" | "*/1");
        let cron = Self {
            text: text.to_owned(),
            minutes: field(minutes, 0, 59, &[])?,
            hours: field(hours, 0, 23, &[])?,
            days: field(days, 1, 31, &[])?,
            months: field(months, 1, 12, &MONTHS)?,
            weekdays: days_of_week | days_of_week >> 7,
            both: free(days) || free(weekdays),
        };
        cron.next_after(Timestamp::from_unix_ms(0)).map(|_| cron.clone()).ok_or_else(invalid)
    }

    /// The first minute that fits and begins after `last`.
    pub fn next_after(&self, last: Timestamp) -> Option<Timestamp> {
        let first = last.unix_ms() / MINUTE_MS + 1;
        let today = first / DAY_MINUTES;
        for day in today..=today + DAYS_MAX {
            if !self.fits(day) {
                continue;
            }
            let from = if day == today { first % DAY_MINUTES } else { 0 };
            let minute = (from..DAY_MINUTES)
                .find(|minute| has(self.hours, minute / 60) && has(self.minutes, minute % 60));
            if let Some(minute) = minute {
                return Some(Timestamp::from_unix_ms((day * DAY_MINUTES + minute) * MINUTE_MS));
            }
        }
        None
    }

    /// The schedule as it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    fn fits(&self, day: u64) -> bool {
        let (month, of_month) = civil(day);
        // 1970-01-01 was a Thursday.
        let weekday = has(self.weekdays, (day + 4) % 7);
        let of_month = has(self.days, of_month);
        let fits = if self.both { weekday && of_month } else { weekday || of_month };
        has(self.months, month) && fits
    }
}

impl fmt::Debug for Cron {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Cron({:?})", self.text)
    }
}

fn has(set: u64, number: u64) -> bool {
    set >> number & 1 == 1
}

/// Month and day of month of a day since 1970-01-01, by the 400-year cycle of the calendar counted
/// from 1 March of the year 0.
fn civil(day: u64) -> (u64, u64) {
    let of_era = (day + 719_468) % 146_097;
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let of_month = of_year - (153 * month + 2) / 5 + 1;
    (if month < 10 { month + 3 } else { month - 9 }, of_month)
}

/// The numbers that a field names, as bits.
fn read(text: &str, from: u64, to: u64, names: &[&str]) -> Option<u64> {
    let number = |text: &str| {
        let named = names.iter().position(|name| text.eq_ignore_ascii_case(name));
        let number = match named {
            Some(index) => u64::try_from(index).ok()? + from,
            None if text.bytes().all(|byte| byte.is_ascii_digit()) => text.parse().ok()?,
            None => return None,
        };
        (from..=to).contains(&number).then_some(number)
    };
    let mut set = 0;
    for part in text.split(',') {
        let (range, step) = part.split_once('/').map_or((part, None), |(a, b)| (a, Some(b)));
        let step: u64 = match step {
            Some(step) => step.parse().ok().filter(|step| (1..=to).contains(step))?,
            None => 1,
        };
        let (first, last) = match range.split_once('-') {
            Some((first, last)) => (number(first)?, number(last)?),
            None if matches!(range, "*" | "?") => (from, to),
            // `5/15` is every 15 from 5 on.
            None => (number(range)?, if part.contains('/') { to } else { number(range)? }),
        };
        if first > last {
            return None;
        }
        let mut number = first;
        while number <= last {
            set |= 1 << number;
            number += step;
        }
    }
    Some(set)
}

#[cfg(test)]
mod tests {
    use jiff::civil::Date;

    use super::*;

    fn next(schedule: &str, after: &str) -> String {
        let after: jiff::Timestamp = after.parse().unwrap();
        let after = Timestamp::from_unix_ms(u64::try_from(after.as_millisecond()).unwrap());
        Cron::parse(schedule).unwrap().next_after(after).unwrap().rfc3339()
    }

    #[test]
    fn the_next_minute_that_fits_is_found() {
        let cases = [
            ("* * * * *", "2026-11-25T10:00:00Z", "2026-11-25T10:01:00Z"),
            ("* * * * *", "2026-11-25T10:00:59.999Z", "2026-11-25T10:01:00Z"),
            ("0 3 * * *", "2026-11-25T03:00:00Z", "2026-11-26T03:00:00Z"),
            ("*/15 9-17 * * MON-FRI", "2026-11-27T17:50:00Z", "2026-11-30T09:00:00Z"),
            ("0 0 29 2 *", "2096-03-01T00:00:00Z", "2104-02-29T00:00:00Z"),
            ("0 0 31 * *", "2026-11-01T00:00:00Z", "2026-12-31T00:00:00Z"),
            ("0 0 13 * 5", "2026-11-25T00:00:00Z", "2026-11-27T00:00:00Z"),
            ("0 0 * * 7", "2026-11-25T00:00:00Z", "2026-11-29T00:00:00Z"),
            ("@monthly", "2026-12-01T00:00:00Z", "2027-01-01T00:00:00Z"),
            ("5/20,59 0 1 jan ?", "2026-01-01T00:25:00Z", "2026-01-01T00:45:00Z"),
        ];
        for (schedule, after, expected) in cases {
            assert_eq!(next(schedule, after), expected, "{schedule} after {after}");
        }
    }

    #[test]
    fn what_is_no_schedule_is_refused() {
        let bad = [
            "",
            "* * * *",
            "* * * * * *",
            "60 * * * *",
            "* 24 * * *",
            "* * 0 * *",
            "* * * 13 *",
            "* * * * 8",
            "5-1 * * * *",
            "*/0 * * * *",
            "a * * * *",
            "0 0 30 2 *",
            "+1 * * * *",
            "1, * * * *",
            "@never",
            "- * * * *",
        ];
        for text in bad {
            assert!(Cron::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn the_calendar_is_the_calendar() {
        let first: Date = "1970-01-01".parse().unwrap();
        let mut date = first;
        for day in 0..60_000 {
            let expected = (date.month().unsigned_abs(), date.day().unsigned_abs());
            let (month, of_month) = civil(day);
            assert_eq!((month, of_month), (expected.0.into(), expected.1.into()), "{date}");
            date = date.tomorrow().unwrap();
        }
    }
}
