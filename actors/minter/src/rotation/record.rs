//! How rotations are written down: beside a connection's definition, and as a static role.

use std::time::Duration;

use mssm_domain::{Cron, SecretText, Timestamp};
use mssm_messages::engine::EngineError;
use mssm_messages::rotation::{PlanPatch, PlanView};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::pool::Backend;

/// The version that is written; others are not read.
const VERSION: u8 = 1;
/// Vault's own bound: the database is not there to be kept busy.
const MIN_PERIOD_SECS: u64 = 5;
/// Ten years: longer is a mistake.
const MAX_SECS: u64 = mssm_domain::Ttl::MAX_SECS;

/// A password in a record.
#[derive(Debug)]
pub(crate) struct Kept(pub(crate) SecretText);

impl Serialize for Kept {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        // EXPOSE: the record is sealed before it leaves.
        to.serialize_str(self.0.expose())
    }
}

impl<'de> Deserialize<'de> for Kept {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from).map(|text| Self(SecretText::new(text)))
    }
}

/// When a password changes by itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Plan {
    /// 0 if a schedule says when, or nothing does.
    period_secs: u64,
    /// Empty if a period says when, or nothing does.
    schedule: String,
    /// How long after a scheduled time a change may still begin; 0 for no limit.
    window_secs: u64,
}

impl Plan {
    /// True if nothing says when.
    pub(crate) fn is_empty(&self) -> bool {
        self.period_secs == 0 && self.schedule.is_empty()
    }

    /// Takes a change over, whole or not at all.
    pub(crate) fn apply(&mut self, patch: PlanPatch) -> Result<(), EngineError> {
        let invalid = |text: &str| Err(EngineError::Invalid(text.to_owned()));
        let period = patch.rotation_period_secs;
        let schedule = patch.rotation_schedule;
        let sets_period = period.is_some_and(|secs| secs > 0);
        let sets_schedule = schedule.as_ref().is_some_and(|text| !text.trim().is_empty());
        if sets_period && sets_schedule {
            return invalid(
                "mutually exclusive fields rotation_period and rotation_schedule were both specified; only one of them can be provided",
            );
        }
        let mut plan = self.clone();
        if let Some(secs) = period {
            plan.period_secs = secs;
        }
        if let Some(text) = schedule {
            text.trim().clone_into(&mut plan.schedule);
        }
        if sets_period {
            (plan.schedule, plan.window_secs) = (String::new(), 0);
        }
        if sets_schedule {
            plan.period_secs = 0;
        }
        if let Some(secs) = patch.rotation_window_secs {
            plan.window_secs = secs;
        }
        if plan.period_secs > 0 && plan.period_secs < MIN_PERIOD_SECS {
            return invalid("rotation_period must be 5 seconds or more");
        }
        if plan.period_secs > MAX_SECS || plan.window_secs > MAX_SECS {
            return invalid("rotation_period and rotation_window must be at most 10 years");
        }
        if plan.window_secs > 0 && plan.schedule.is_empty() {
            return invalid("rotation_window is invalid without rotation_schedule");
        }
        if plan.window_secs > 0 && plan.window_secs < 60 {
            return invalid("rotation_window must be a minute or more");
        }
        if !plan.schedule.is_empty() {
            let wrong = |error: mssm_domain::Invalid| {
                EngineError::Invalid(format!("rotation_schedule: {error}"))
            };
            Cron::parse(&plan.schedule).map_err(wrong)?;
        }
        *self = plan;
        Ok(())
    }

    /// When a change is due after the one at `last`, as seen at `now`: a scheduled time whose window
    /// has passed is left out.
    pub(crate) fn next(&self, last: Timestamp, now: Timestamp) -> Option<Timestamp> {
        if self.period_secs > 0 {
            return Some(last.after(Duration::from_secs(self.period_secs)));
        }
        let cron = Cron::parse(&self.schedule).ok()?;
        if self.window_secs == 0 {
            return cron.next_after(last);
        }
        let oldest = now.unix_ms().saturating_sub(self.window_secs * 1000);
        cron.next_after(last.max(Timestamp::from_unix_ms(oldest)))
    }

    /// For callers.
    pub(crate) fn view(&self) -> PlanView {
        PlanView {
            rotation_period_secs: self.period_secs,
            rotation_schedule: self.schedule.clone(),
            rotation_window_secs: self.window_secs,
        }
    }
}

/// A backend that may still have a change of a password.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Sent {
    pid: String,
    started: String,
}

impl From<&Backend> for Sent {
    fn from(backend: &Backend) -> Self {
        Self { pid: backend.pid.clone(), started: backend.started.clone() }
    }
}

impl From<&Sent> for Backend {
    fn from(sent: &Sent) -> Self {
        Self { pid: sent.pid.clone(), started: sent.started.clone() }
    }
}

/// A change of a root password whose outcome is not known yet.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RootPending {
    /// One rotation; the same in every connection that it changes.
    pub(crate) id: String,
    pub(crate) old: Kept,
    pub(crate) new: Kept,
    pub(crate) sent: Sent,
}

/// What a connection's record says of the changes of its password.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct RootRotation {
    pub(crate) plan: Plan,
    pub(crate) disabled: bool,
    /// When the plan began to count, if nothing was changed since.
    pub(crate) since_ms: u64,
    /// 0 for never.
    pub(crate) rotated_ms: u64,
    pub(crate) pending: Option<RootPending>,
    /// The one before: a failover or a restored backup of the database may bring it back.
    pub(crate) previous: Option<Kept>,
    /// What the configuration file said when it was last read; it counts again when that changes.
    pub(crate) configured: Option<Kept>,
}

impl RootRotation {
    /// True if there is nothing to write down.
    pub(crate) fn is_empty(&self) -> bool {
        let Self { plan, disabled, since_ms: _, rotated_ms, pending, previous, configured } = self;
        let nothing = pending.is_none() && previous.is_none() && configured.is_none();
        plan.is_empty() && !disabled && *rotated_ms == 0 && nothing
    }

    /// The passwords that may hold beside the definition's own, most likely first.
    pub(crate) fn others(&self) -> impl Iterator<Item = &SecretText> {
        let pending = self.pending.as_ref();
        let both = pending.into_iter().flat_map(|pending| [&pending.new.0, &pending.old.0]);
        both.chain(self.previous.as_ref().map(|kept| &kept.0))
    }

    /// When there is something to do: at once while a change is in doubt.
    pub(crate) fn due(&self, now: Timestamp) -> Option<Timestamp> {
        if self.pending.is_some() {
            return Some(now);
        }
        let last = Timestamp::from_unix_ms(self.rotated_ms.max(self.since_ms));
        self.plan.next(last, now).filter(|_| !self.disabled)
    }
}

/// A user whose password is ours.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Account {
    pub(crate) username: String,
    pub(crate) password: Option<Kept>,
}

/// A change of one account's password whose outcome is not known yet.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct StaticPending {
    /// Which account.
    pub(crate) account: usize,
    pub(crate) new: Kept,
    pub(crate) sent: Sent,
    /// True if somebody asked for it out of turn.
    pub(crate) by_hand: bool,
}

/// A static role: its definition and its passwords.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct StaticRoleRecord {
    version: u8,
    pub(crate) db_name: String,
    /// One, or two that take turns.
    pub(crate) accounts: Vec<Account>,
    /// Which of them is handed out.
    pub(crate) active: usize,
    pub(crate) rotation_statements: Vec<String>,
    pub(crate) plan: Plan,
    pub(crate) scram_iterations: u32,
    /// When what is handed out was made; 0 for never.
    pub(crate) rotated_ms: u64,
    /// When the next change is due; 0 for at once.
    pub(crate) next_ms: u64,
    pub(crate) pending: Option<StaticPending>,
}

impl StaticRoleRecord {
    /// A definition with nothing in it but what holds by default.
    pub(crate) fn new() -> Self {
        Self {
            version: VERSION,
            db_name: String::new(),
            accounts: Vec::new(),
            active: 0,
            rotation_statements: Vec::new(),
            plan: Plan::default(),
            scram_iterations: mssm_crypto::scram::DEFAULT_ITERATIONS,
            rotated_ms: 0,
            next_ms: 0,
            pending: None,
        }
    }

    /// True if two users take turns.
    pub(crate) fn is_pair(&self) -> bool {
        self.accounts.len() > 1
    }

    /// The account that is handed out.
    pub(crate) fn handed_out(&self) -> Option<&Account> {
        self.accounts.get(self.active)
    }

    /// Whose password changes next: of a pair, the one that is not handed out.
    pub(crate) fn next_account(&self) -> usize {
        let handed_out = self.handed_out().is_some_and(|account| account.password.is_some());
        if self.is_pair() && handed_out { 1 - self.active.min(1) } else { self.active }
    }

    /// When there is something to do: at once while a change is in doubt.
    pub(crate) fn due(&self, now: Timestamp) -> Option<Timestamp> {
        if self.pending.is_some() || self.next_ms == 0 {
            return Some(now);
        }
        let next = Timestamp::from_unix_ms(self.next_ms);
        if next > now || self.plan.window_secs == 0 {
            return Some(next);
        }
        // A scheduled time may have passed with its window.
        self.plan.next(Timestamp::from_unix_ms(self.next_ms - 1), now)
    }

    /// Notes that a change is done, and when the next one is due.
    pub(crate) fn complete(&mut self, now: Timestamp) {
        let Some(pending) = self.pending.take() else { return };
        let Some(account) = self.accounts.get_mut(pending.account) else { return };
        account.password = Some(pending.new);
        (self.active, self.rotated_ms) = (pending.account, now.unix_ms());
        let mut next = self.plan.next(now, now);
        if self.is_pair() && pending.by_hand && !self.plan.schedule.is_empty() {
            // The one that rests now was promised until the scheduled time: not changed right then.
            next = next.and_then(|next| self.plan.next(next, next));
        }
        self.next_ms = next.map_or(0, Timestamp::unix_ms);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        // Of the one day that these tests live in.
        let (hours, minutes) = text.split_once(':').unwrap();
        let minutes = hours.parse::<u64>().unwrap() * 60 + minutes.parse::<u64>().unwrap();
        Timestamp::from_unix_ms(minutes * 60_000)
    }

    fn scheduled(schedule: &str, window_secs: u64) -> Plan {
        let mut plan = Plan::default();
        let patch = PlanPatch {
            rotation_schedule: Some(schedule.to_owned()),
            rotation_window_secs: Some(window_secs),
            ..PlanPatch::default()
        };
        plan.apply(patch).unwrap();
        plan
    }

    #[test]
    fn a_scheduled_time_counts_while_its_window_is_open() {
        let plan = scheduled("0 * * * *", 600);
        let cases = [
            ("0:30", "0:30", "1:00"),
            ("0:30", "1:05", "1:00"),
            ("0:30", "1:11", "2:00"),
            ("0:30", "7:11", "8:00"),
            ("1:01", "1:05", "2:00"),
        ];
        for (last, now, next) in cases {
            assert_eq!(plan.next(at(last), at(now)), Some(at(next)), "{last} {now}");
        }
        let whenever = scheduled("0 * * * *", 0);
        assert_eq!(whenever.next(at("0:30"), at("7:11")), Some(at("1:00")));
    }

    #[test]
    fn a_plan_is_a_period_or_a_schedule() {
        let period = |secs| PlanPatch { rotation_period_secs: Some(secs), ..PlanPatch::default() };
        let mut plan = scheduled("0 * * * *", 600);
        plan.apply(period(60)).unwrap();
        let next = plan.next(at("0:30"), at("9:00"));
        assert_eq!(next, Some(at("0:31")));
        assert!(plan.apply(period(4)).is_err());
        let both = PlanPatch { rotation_schedule: Some("@daily".to_owned()), ..period(60) };
        assert!(plan.apply(both).is_err());
        let window = PlanPatch { rotation_window_secs: Some(600), ..PlanPatch::default() };
        assert!(plan.apply(window).is_err());
        let wrong =
            PlanPatch { rotation_schedule: Some("@never".to_owned()), ..PlanPatch::default() };
        assert!(plan.apply(wrong).is_err());
        assert_eq!(plan.next(at("0:30"), at("9:00")), Some(at("0:31")), "nothing of it was taken");
    }

    #[test]
    fn a_pair_takes_turns_and_the_one_that_rests_keeps_its_password_for_a_period() {
        let account = |name: &str| Account { username: name.to_owned(), password: None };
        let mut role = StaticRoleRecord::new();
        role.accounts = vec![account("blue"), account("green")];
        role.plan = scheduled("0 * * * *", 0);
        let mut turn = |now: &str, by_hand| {
            let account = role.next_account();
            let sent = Sent { pid: String::new(), started: String::new() };
            let new = Kept(SecretText::new("x".to_owned()));
            role.pending = Some(StaticPending { account, new, sent, by_hand });
            role.complete(at(now));
            (role.active, Timestamp::from_unix_ms(role.next_ms))
        };
        assert_eq!(turn("0:10", false), (0, at("1:00")));
        assert_eq!(turn("1:00", false), (1, at("2:00")));
        assert_eq!(turn("2:00", false), (0, at("3:00")));
        assert_eq!(
            turn("2:50", true),
            (1, at("4:00")),
            "not at 3:00, when the other is still used"
        );
    }
}
