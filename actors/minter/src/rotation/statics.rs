//! Static roles: users that stay, whose passwords change by a plan, alone or as a pair in turns.

mod change;

pub(crate) use change::{credentials, rotate, run_due};

use std::rc::Rc;
use std::time::Duration;

use mssm_domain::{MountId, RecordPath, Timestamp};
use mssm_messages::Changes;
use mssm_messages::engine::EngineError;
use mssm_messages::rotation::{
    DeleteStaticRole, ListStaticRoles, ReadStaticRole, StaticRolePatch, StaticRoleView,
    WriteStaticRole,
};
use tokio::sync::OwnedMutexGuard;

use self::change::{Role, store};
use super::members::is_root_user;
use super::record::{Account, StaticRoleRecord};
use super::{Key, dial, unavailable};
use crate::book::{Book, Target};
use crate::connections::names;
use crate::mint::{find_target, is_allowed};
use crate::mysql;
use crate::quote::literals;
use crate::rolecheck::check_rotation;

/// Fewer rounds are for passwords that live for minutes.
const MIN_ROUNDS: u32 = mssm_crypto::scram::DEFAULT_ITERATIONS;
/// More would only be a way to keep our processors busy.
const MAX_ROUNDS: u32 = 1_000_000;
/// How long a caller waits for a change that is under way.
const TURN: Duration = Duration::from_secs(15);
/// PostgreSQL's bound on names.
const NAME_BYTES: usize = 63;

/// Where a static role lies.
pub(crate) fn path(mount: MountId, name: &str) -> RecordPath {
    RecordPath::new(&["db", &mount.to_string(), "static-role", name])
}

/// Reads a static role.
pub(crate) async fn read_record(
    book: &Book,
    mount: MountId,
    name: &str,
) -> Result<Option<(u64, StaticRoleRecord)>, EngineError> {
    book.cluster()?;
    book.read(&path(mount, name)).await
}

/// Notes when a role's password is due to change.
pub(crate) fn plan(book: &Book, mount: MountId, name: &str, record: &StaticRoleRecord) {
    book.agenda.set(Key::fixed(mount, name), record.due(book.clock.now()));
}

async fn take_turn(
    book: &Book,
    mount: MountId,
    name: &str,
) -> Result<OwnedMutexGuard<()>, EngineError> {
    let turn = book.agenda.turn(&Key::fixed(mount, name));
    let turn = tokio::time::timeout(TURN, turn.lock_owned()).await;
    let busy = "the password is being changed, try again";
    turn.map_err(|_| EngineError::Unavailable(busy.to_owned()))
}

/// See [`WriteStaticRole`].
pub(crate) async fn write(
    book: &Rc<Book>,
    msg: WriteStaticRole,
) -> Result<Vec<String>, EngineError> {
    let (mount, name) = (msg.mount, msg.name.as_str());
    let _turn = take_turn(book, mount, name).await?;
    let stored = read_record(book, mount, name).await?;
    let is_new = stored.is_none();
    let (version, mut record) = stored.unwrap_or_else(|| (0, StaticRoleRecord::new()));
    apply(&mut record, msg.patch, is_new)?;
    let target = find_target(book, mount, &record.db_name).await?;
    let dialect = target.record.dialect().map_err(EngineError::Invalid)?;
    check_rotation(dialect, &record.rotation_statements, "rotation_statements")
        .map_err(EngineError::Invalid)?;
    if !is_allowed(&target.record.allowed_roles, name) {
        return Err(EngineError::Forbidden(format!("\"{name}\" is not an allowed role")));
    }
    if !is_new {
        replan(book, &mut record);
        store(book, mount, name, version, &record).await?;
        plan(book, mount, name, &record);
        return Ok(Vec::new());
    }
    check_alone(book, mount, &record, &target).await?;
    let mut warnings = check_users(book, &record, &target).await?;
    let mut role = Role { mount, name, version, record };
    match role.change(book, &target, false).await {
        Ok(()) => warnings.extend(role.try_login(&target).await),
        Err(error) if role.version == 0 => return Err(error),
        // Certain that nothing changed: a role that cannot do its work is not kept.
        Err(error) if role.record.pending.is_none() => {
            book.barrier.commit(Changes::new().delete(path(mount, name))).await?;
            return Err(error);
        }
        Err(error) => warnings.push(format!(
            "the first password is not set yet, and is tried again until it is: {error}"
        )),
    }
    plan(book, mount, name, &role.record);
    Ok(warnings)
}

fn apply(
    record: &mut StaticRoleRecord,
    patch: StaticRolePatch,
    is_new: bool,
) -> Result<(), EngineError> {
    fn invalid<T>(text: &str) -> Result<T, EngineError> {
        Err(EngineError::Invalid(text.to_owned()))
    }
    if patch.credential_type.is_some_and(|kind| kind != "password") {
        return invalid("credential_type: only password is supported");
    }
    if let Some(db_name) = patch.db_name {
        if !is_new && db_name != record.db_name {
            return invalid("db_name of a static role cannot be changed: delete it first");
        }
        record.db_name = db_name;
    }
    if record.db_name.is_empty() {
        return invalid("db_name is required to create a static account");
    }
    if let Some(usernames) = patch.usernames {
        let before = record.accounts.iter().map(|account| &account.username);
        if !is_new && !before.eq(usernames.iter()) {
            return invalid("cannot update static account username");
        }
        if is_new {
            let account = |username| Account { username, password: None };
            record.accounts = usernames.into_iter().map(account).collect();
        }
    }
    match record.accounts.as_slice() {
        [] => return invalid("username is required to create a static account"),
        [_] => {}
        [one, other] if one.username != other.username => {}
        _ => return invalid("usernames must be two different users that take turns"),
    }
    let is_name = |account: &Account| {
        (1..=NAME_BYTES).contains(&account.username.len()) && !account.username.contains('\0')
    };
    if !record.accounts.iter().all(is_name) {
        return invalid("username must be the name of a database user, of 1 to 63 bytes");
    }
    if let Some(statements) = patch.rotation_statements {
        record.rotation_statements = statements;
    }
    record.plan.apply(patch.plan)?;
    if record.plan.is_empty() {
        return invalid(
            "one of rotation_schedule or rotation_period must be provided to create a static account",
        );
    }
    if let Some(rounds) = patch.scram_iterations {
        record.scram_iterations = rounds;
    }
    if !(MIN_ROUNDS..=MAX_ROUNDS).contains(&record.scram_iterations) {
        return invalid(
            "scram_iterations must be from 4,096 to 1,000,000: a password that stays must bear a search",
        );
    }
    Ok(())
}

/// A changed plan counts from the last change on.
fn replan(book: &Book, record: &mut StaticRoleRecord) {
    if record.rotated_ms == 0 {
        return;
    }
    let last = Timestamp::from_unix_ms(record.rotated_ms);
    let next = record.plan.next(last, book.clock.now()).map_or(0, Timestamp::unix_ms);
    // The one of a pair that rests was promised until the time that was planned.
    record.next_ms = if record.is_pair() { next.max(record.next_ms) } else { next };
}

/// No user belongs to two roles, nor to a role and to a connection: each would lock the other out.
async fn check_alone(
    book: &Book,
    mount: MountId,
    record: &StaticRoleRecord,
    target: &Target,
) -> Result<(), EngineError> {
    for account in &record.accounts {
        let user = &account.username;
        if is_root_user(book, &target.record, user).await? {
            return Err(EngineError::Invalid(format!(
                "\"{user}\" is a connection's own user: its password is changed by rotate-root"
            )));
        }
    }
    for name in names(book, &path(mount, "")).await? {
        let Some((_, other)) = read_record(book, mount, &name).await? else { continue };
        let shared =
            |account: &&Account| record.accounts.iter().any(|own| own.username == account.username);
        if other.db_name == record.db_name
            && let Some(account) = other.accounts.iter().find(shared)
        {
            let user = &account.username;
            return Err(EngineError::Invalid(format!(
                "\"{user}\" belongs to the static role \"{name}\" already"
            )));
        }
    }
    Ok(())
}

/// What only the database can say of the users.
async fn check_users(
    book: &Book,
    record: &StaticRoleRecord,
    target: &Target,
) -> Result<Vec<String>, EngineError> {
    let names = record.accounts.iter().map(|account| account.username.as_str());
    let live = dial(book, &target.record, None).await.map_err(unavailable)?;
    if !live.facts.dialect.is_postgres() {
        return mysql::rotation::check_users(&live, names).await;
    }
    let users = literals(names);
    let sql = format!(
        "SELECT rolname, rolcanlogin, coalesce(shobj_description(oid, 'pg_authid') LIKE 'mssm2:%', \
         false) FROM pg_roles WHERE rolname IN ({users})"
    );
    let rows = live.run(&sql).await.map_err(unavailable)?;
    let rows: Vec<Vec<String>> =
        rows.into_iter().map(|row| row.into_iter().flatten().collect()).collect();
    let mut warnings = Vec::new();
    for account in &record.accounts {
        let user = &account.username;
        let row = rows.iter().find(|row| row.first() == Some(user));
        match row.map(Vec::as_slice) {
            None => {
                return Err(EngineError::Invalid(format!("the database has no user \"{user}\"")));
            }
            Some([.., leased]) if leased == "t" => {
                return Err(EngineError::Invalid(format!(
                    "\"{user}\" was made by this kind of server for a lease, and ends with it"
                )));
            }
            Some([_, login, _]) if login != "t" => {
                warnings.push(format!("\"{user}\" may not log in"));
            }
            Some(_) => {}
        }
    }
    Ok(warnings)
}

/// See [`ReadStaticRole`].
pub(crate) async fn read(
    book: &Rc<Book>,
    msg: ReadStaticRole,
) -> Result<StaticRoleView, EngineError> {
    let found = read_record(book, msg.mount, msg.name.as_str()).await?;
    let (_, record) = found.ok_or(EngineError::NotFound)?;
    let active = record.handed_out().map(|account| account.username.clone()).unwrap_or_default();
    let rotated_at = Timestamp::from_unix_ms(record.rotated_ms);
    Ok(StaticRoleView {
        db_name: record.db_name,
        usernames: record.accounts.into_iter().map(|account| account.username).collect(),
        active,
        rotation_statements: record.rotation_statements,
        plan: record.plan.view(),
        scram_iterations: record.scram_iterations,
        rotated_at: (record.rotated_ms > 0).then_some(rotated_at),
    })
}

/// See [`ListStaticRoles`].
pub(crate) async fn list(
    book: &Rc<Book>,
    msg: ListStaticRoles,
) -> Result<Vec<String>, EngineError> {
    names(book, &path(msg.mount, "")).await
}

/// See [`DeleteStaticRole`].
pub(crate) async fn delete(book: &Rc<Book>, msg: DeleteStaticRole) -> Result<(), EngineError> {
    let (mount, name) = (msg.mount, msg.name.as_str());
    book.cluster()?;
    let _turn = take_turn(book, mount, name).await?;
    book.barrier.commit(Changes::new().delete(path(mount, name))).await?;
    book.agenda.remove(&Key::fixed(mount, name));
    Ok(())
}

/// The static roles that need a connection.
pub(crate) async fn on_connection(
    book: &Book,
    mount: MountId,
    connection: &str,
) -> Result<Vec<String>, EngineError> {
    let mut found = Vec::new();
    for name in names(book, &path(mount, "")).await? {
        if let Ok(Some((_, record))) = read_record(book, mount, &name).await
            && record.db_name == connection
        {
            found.push(name);
        }
    }
    Ok(found)
}
