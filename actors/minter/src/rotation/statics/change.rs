//! How a static role's password changes, and how it is handed out.

use std::rc::Rc;

use mssm_domain::{MountId, Timestamp};
use mssm_messages::engine::EngineError;
use mssm_messages::rotation::{ReadStaticCredentials, RotateStaticRole, StaticCredentials};
use mssm_messages::{Changes, failpoint};

use super::{path, plan, read_record, take_turn};
use crate::book::{Book, Target, damaged};
use crate::engine::DbError;
use crate::guard;
use crate::mint::find_target;
use crate::mysql;
use crate::pool::Backend;
use crate::record::encode;
use crate::rotation::record::{Kept, StaticPending, StaticRoleRecord};
use crate::rotation::{Change, How, Key, dial, end_backend, generate_password, unavailable};

/// See [`RotateStaticRole`].
pub(crate) async fn rotate(book: &Rc<Book>, msg: RotateStaticRole) -> Result<(), EngineError> {
    let (mount, name) = (msg.mount, msg.name.as_str());
    let _turn = take_turn(book, mount, name).await?;
    let Some((version, record)) = read_record(book, mount, name).await? else {
        return Err(EngineError::Unknown("no static role found for role name".to_owned()));
    };
    let now = book.clock.now();
    let rests = Timestamp::from_unix_ms(record.next_ms);
    if record.is_pair() && record.pending.is_none() && rests > now && !msg.force {
        return Err(EngineError::Invalid(format!(
            "the other user of this pair was handed out less than a period ago, and its password holds until {rests}: force=true changes it all the same"
        )));
    }
    let mut role = Role { mount, name, version, record };
    role.change_and_plan(book, true).await
}

/// What the agenda has come to: finishes what is in doubt, or changes what is due.
pub(crate) async fn run_due(
    book: &Rc<Book>,
    mount: MountId,
    name: &str,
) -> Result<(), EngineError> {
    let _turn = take_turn(book, mount, name).await?;
    let Some((version, record)) = read_record(book, mount, name).await? else {
        book.agenda.remove(&Key::fixed(mount, name));
        return Ok(());
    };
    let now = book.clock.now();
    if record.due(now).is_none_or(|due| due > now) {
        plan(book, mount, name, &record);
        return Ok(());
    }
    let mut role = Role { mount, name, version, record };
    role.change_and_plan(book, false).await
}

/// A static role whose turn is held, as it is stored.
pub(super) struct Role<'a> {
    pub(super) mount: MountId,
    pub(super) name: &'a str,
    pub(super) version: u64,
    pub(super) record: StaticRoleRecord,
}

impl Role<'_> {
    async fn change_and_plan(&mut self, book: &Rc<Book>, by_hand: bool) -> Result<(), EngineError> {
        let target = find_target(book, self.mount, &self.record.db_name).await?;
        let changed = self.change(book, &target, by_hand).await;
        plan(book, self.mount, self.name, &self.record);
        changed?;
        if let Some(why) = self.try_login(&target).await {
            tracing::warn!(role = self.name, why, "a static role's new password was set");
        }
        Ok(())
    }

    /// Logs in with what is handed out, as who reads it would; replies the database's no.
    pub(super) async fn try_login(&self, target: &Target) -> Option<String> {
        let account = self.record.handed_out()?;
        let Kept(password) = account.password.as_ref()?;
        // EXPOSE: it logs in with it.
        let tried = target.mint.try_login(&account.username, password.expose()).await;
        match tried {
            Err(error @ DbError::Refused(_)) => Some(format!(
                "\"{}\" is not let in with its new password: {}",
                account.username,
                error.public()
            )),
            // Whether it is let in cannot be seen at this moment.
            Ok(()) | Err(DbError::Unreachable(_) | DbError::Lost | DbError::Busy) => None,
        }
    }

    /// Changes one password, or goes on with a change that is in doubt: the same password is set
    /// again, after the backend that may still be setting it is gone.
    pub(super) async fn change(
        &mut self,
        book: &Rc<Book>,
        target: &Target,
        by_hand: bool,
    ) -> Result<(), EngineError> {
        guard::allow(book, target).await?;
        let live = dial(book, &target.record, None).await.map_err(unavailable)?;
        let sent = (&live.facts.backend).into();
        let pending = match self.record.pending.take() {
            Some(pending) => {
                let ended = end_backend(&live, &Backend::from(&pending.sent)).await;
                if let Err(error) = ended {
                    self.record.pending = Some(pending);
                    return Err(error);
                }
                StaticPending { sent, ..pending }
            }
            None => StaticPending {
                account: self.record.next_account(),
                new: Kept(generate_password(book)),
                sent,
                by_hand,
            },
        };
        let account = self.record.accounts.get(pending.account).ok_or(EngineError::Internal)?;
        let default = mysql::rotation::default(&live, &account.username).await;
        let how = How {
            dialect: live.facts.dialect,
            statements: &self.record.rotation_statements,
            default: default.map_err(unavailable)?,
            plain: target.record.password_authentication == "password",
            rounds: self.record.scram_iterations,
        };
        let password = pending.new.0.duplicate();
        let change = Change::new(book, &how, &account.username, password).await?;
        self.record.pending = Some(pending);
        failpoint::here("rotate.static_before_store");
        self.store(book).await?;
        failpoint::here("rotate.static_stored");
        match change.send(&live).await {
            Ok(()) => {
                failpoint::here("rotate.static_sent");
                self.record.complete(book.clock.now());
                self.store(book).await?;
                failpoint::here("rotate.static_ended");
                Ok(())
            }
            Err(error) => {
                if error.code().is_empty() {
                    return Err(unavailable(error));
                }
                // The database undid all of it.
                self.record.pending = None;
                self.store(book).await?;
                Err(change.explain(&error))
            }
        }
    }

    async fn store(&mut self, book: &Book) -> Result<(), EngineError> {
        store(book, self.mount, self.name, self.version, &self.record).await?;
        self.version += 1;
        Ok(())
    }
}

pub(super) async fn store(
    book: &Book,
    mount: MountId,
    name: &str,
    over: u64,
    record: &StaticRoleRecord,
) -> Result<(), EngineError> {
    let bytes = encode(record).map_err(damaged)?;
    Ok(book.barrier.commit(Changes::new().put(path(mount, name), over, bytes)).await?)
}

/// See [`ReadStaticCredentials`].
pub(crate) async fn credentials(
    book: &Rc<Book>,
    msg: ReadStaticCredentials,
) -> Result<StaticCredentials, EngineError> {
    let (mount, name) = (msg.mount, msg.name.as_str());
    let unknown = || EngineError::Unknown(format!("unknown role: {name}"));
    let (_, mut record) = read_record(book, mount, name).await?.ok_or_else(unknown)?;
    let mut warnings = Vec::new();
    let touches = |pending: &StaticPending| pending.account == record.active;
    if record.pending.as_ref().is_some_and(touches) {
        // Which password holds is not known at this moment: better late than wrong.
        if let Err(error) = finish(book, mount, name).await {
            warnings.push(format!("the password is being changed, and may not hold: {error}"));
        }
        (_, record) = read_record(book, mount, name).await?.ok_or_else(unknown)?;
    }
    let now = book.clock.now();
    let next = Timestamp::from_unix_ms(record.next_ms);
    let (plan, rotated_at) = (record.plan.view(), Timestamp::from_unix_ms(record.rotated_ms));
    let active = record.active;
    let account = record.accounts.into_iter().nth(active);
    let password = account.and_then(|account| Some((account.username, account.password?)));
    let Some((username, Kept(password))) = password else {
        let text = "the first password is not set yet, try again";
        return Err(EngineError::Unavailable(text.to_owned()));
    };
    // Rounded up: whoever comes back after so many seconds finds the next one.
    let ttl_secs = now.until(next).as_millis().div_ceil(1000);
    let ttl_secs = u64::try_from(ttl_secs).unwrap_or(u64::MAX);
    Ok(StaticCredentials { username, password, rotated_at, ttl_secs, plan, warnings })
}

/// Waits for a change that is under way, and goes on with one that was left.
async fn finish(book: &Rc<Book>, mount: MountId, name: &str) -> Result<(), EngineError> {
    let _turn = take_turn(book, mount, name).await?;
    match read_record(book, mount, name).await? {
        Some((version, record)) if record.pending.is_some() => {
            Role { mount, name, version, record }.change_and_plan(book, false).await
        }
        _ => Ok(()),
    }
}
