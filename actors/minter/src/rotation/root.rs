//! Root passwords: changed so that no failure at any moment locks the server out.
//!
//! Both passwords are durable before the database is told, and both are tried by whoever logs in.
//! Which of them holds counts as settled only when one logs in and the other is refused, seen after
//! the backend that was told is gone. The one before stays behind until the next is settled.

use std::rc::Rc;
use std::time::Duration;

use mssm_domain::{MountId, SecretText, generate_uuid};
use mssm_messages::engine::EngineError;
use mssm_messages::minter::ConnectionPatch;
use mssm_messages::rotation::{RootRotationView, RotateRoot};
use mssm_messages::{Changes, failpoint};

use super::members::{Member, all, sharing};
use super::record::{Kept, RootPending};
use super::{Change, How, Key, dial, end_backend, generate_password, unavailable};
use crate::book::{Book, connection_path, damaged};
use crate::guard;
use crate::mint::find_target;
use crate::mysql;
use crate::pool::{Backend, Live};
use crate::record::{ConnectionRecord, encode};

/// How long a rotation waits for another's end.
const TURN: Duration = Duration::from_secs(20);
/// How often a write is tried anew because a record changed meanwhile.
const TRIES: u32 = 8;

/// Notes when a connection's password is due to change.
pub(crate) fn plan(book: &Book, mount: MountId, name: &str, record: &ConnectionRecord) {
    book.agenda.set(Key::root(mount, name), record.rotation.due(book.clock.now()));
}

/// For callers.
pub(crate) fn view(record: &ConnectionRecord) -> RootRotationView {
    let rotation = &record.rotation;
    let at = mssm_domain::Timestamp::from_unix_ms(rotation.rotated_ms);
    RootRotationView {
        plan: rotation.plan.view(),
        disabled: rotation.disabled,
        rotated_at: (rotation.rotated_ms > 0).then_some(at),
        in_doubt: rotation.pending.is_some(),
    }
}

/// What must be held to change who logs in, and how; nothing for other changes.
pub(crate) async fn turn_for(
    book: &Book,
    patch: &ConnectionPatch,
) -> Result<Option<tokio::sync::OwnedMutexGuard<()>>, EngineError> {
    Ok(if logs_in_anew(patch) { Some(take_turn(book).await?) } else { None })
}

const fn logs_in_anew(patch: &ConnectionPatch) -> bool {
    patch.password.is_some() || patch.username.is_some() || patch.connection_url.is_some()
}

/// Takes over what a definition says of rotation. An operator who says anew how to log in gives up
/// the passwords that were kept; replies the change that was in doubt.
pub(crate) fn apply(
    book: &Book,
    record: &mut ConnectionRecord,
    patch: &mut ConnectionPatch,
) -> Result<Option<RootPending>, EngineError> {
    let rotation = &mut record.rotation;
    let before = rotation.plan.clone();
    rotation.plan.apply(std::mem::take(&mut patch.plan))?;
    if let Some(disabled) = patch.disable_automated_rotation {
        rotation.disabled = disabled;
    }
    if rotation.plan != before {
        rotation.since_ms = book.clock.now().unix_ms();
    }
    if !logs_in_anew(patch) {
        return Ok(None);
    }
    rotation.previous = None;
    let pending = rotation.pending.take();
    if pending.is_some() && patch.verify_connection == Some(false) {
        return Err(EngineError::Invalid(
            "a rotation of its password is not settled: what replaces it must be verified"
                .to_owned(),
        ));
    }
    Ok(pending)
}

/// Takes over what a definition of the configuration file says of the password and its changes.
///
/// Of what was there before the passwords stay: one of them may be the one that holds. Under a plan the
/// file's password is the first one, and counts again when the file has another. One that cannot be
/// read now leaves what was there: logins that live need it to end.
pub(crate) fn configured(
    book: &Book,
    record: &mut ConnectionRecord,
    before: ConnectionRecord,
    patch: &mut ConnectionPatch,
) -> Result<(), EngineError> {
    let ConnectionRecord { password: stored, rotation: before, .. } = before;
    let rotated = before.rotated_ms > 0;
    let rotation = &mut record.rotation;
    (rotation.pending, rotation.previous) = (before.pending, before.previous);
    rotation.plan.apply(std::mem::take(&mut patch.plan))?;
    let planned = !rotation.plan.is_empty();
    if planned {
        let same = rotation.plan == before.plan;
        rotation.since_ms = if same { before.since_ms } else { book.clock.now().unix_ms() };
        (rotation.rotated_ms, rotation.configured) = (before.rotated_ms, before.configured);
    }
    let Some(file) = patch.password.take() else {
        patch.password = Some(stored);
        return Ok(());
    };
    let known = rotation.configured.as_ref().is_some_and(|Kept(known)| known.is_same_as(&file));
    if planned && rotated && known {
        patch.password = Some(stored);
        return Ok(());
    }
    if rotated && !stored.is_same_as(&file) {
        rotation.previous = Some(Kept(stored));
    }
    rotation.configured = planned.then(|| Kept(file.duplicate()));
    patch.password = Some(file);
    Ok(())
}

/// Sees to it that a change that was in doubt cannot come through behind the definition that
/// replaces it: `live` logged in by that one.
pub(crate) async fn supersede(
    book: &Book,
    record: &ConnectionRecord,
    live: &Live,
    pending: &RootPending,
) -> Result<(), EngineError> {
    end_backend(live, &Backend::from(&pending.sent)).await?;
    // It may have come through before.
    dial(book, record, None).await.map(|_| ()).map_err(unavailable)
}

/// See [`RotateRoot`].
pub(crate) async fn rotate(book: &Rc<Book>, msg: RotateRoot) -> Result<(), EngineError> {
    let _turn = take_turn(book).await?;
    rotate_in_turn(book, msg.mount, msg.name.as_str()).await
}

/// What the agenda has come to: settles what is in doubt, or changes what is due.
pub(crate) async fn run_due(
    book: &Rc<Book>,
    mount: MountId,
    name: &str,
) -> Result<(), EngineError> {
    let _turn = take_turn(book).await?;
    let key = Key::root(mount, name);
    let Some((_, record)) = book.read::<ConnectionRecord>(&connection_path(mount, name)).await?
    else {
        book.agenda.remove(&key);
        return Ok(());
    };
    if record.rotation.pending.is_some() {
        allow(book, mount, name).await?;
        return settle(book, &record).await.map(|_| ());
    }
    let now = book.clock.now();
    match record.rotation.due(now) {
        Some(due) if due <= now => rotate_in_turn(book, mount, name).await,
        due => {
            book.agenda.set(key, due);
            Ok(())
        }
    }
}

/// An error where another server is at work: it has the same passwords.
async fn allow(book: &Book, mount: MountId, name: &str) -> Result<(), EngineError> {
    let target = find_target(book, mount, name).await?;
    guard::allow(book, &target).await
}

async fn take_turn(book: &Book) -> Result<tokio::sync::OwnedMutexGuard<()>, EngineError> {
    let turn =
        tokio::time::timeout(TURN, std::sync::Arc::clone(&book.agenda.roots).lock_owned()).await;
    let busy = "another rotation is under way, try again";
    turn.map_err(|_| EngineError::Unavailable(busy.to_owned()))
}

async fn rotate_in_turn(book: &Rc<Book>, mount: MountId, name: &str) -> Result<(), EngineError> {
    allow(book, mount, name).await?;
    let record = read(book, mount, name).await?;
    check(name, &record)?;
    if record.rotation.pending.is_some() {
        // Never a second one before the first is settled.
        settle(book, &record).await?;
    }
    let record = read(book, mount, name).await?;
    let members = sharing(book, &record).await?;
    for member in &members {
        check(&member.name, &member.record)?;
    }
    let live = dial(book, &record, None).await.map_err(unavailable)?;
    let username = check_server(&record, &live).await?;
    if logs_in(book, &record, &generate_password(book)).await? {
        return Err(EngineError::Invalid(format!(
            "the database server lets \"{username}\" in with any password: a rotation could not be verified"
        )));
    }
    let how = How {
        dialect: live.facts.dialect,
        statements: &record.root_rotation_statements,
        default: mysql::rotation::default(&live, &username).await.map_err(unavailable)?,
        plain: record.password_authentication == "password",
        rounds: mssm_crypto::scram::DEFAULT_ITERATIONS,
    };
    let change = Change::new(book, &how, &username, generate_password(book)).await?;
    let backend = live.facts.backend.clone();
    let id = generate_uuid(book.random.as_ref()).to_string();
    begin(book, members, &id, &change, &backend).await?;
    let sent = change.send(&live).await;
    failpoint::here("rotate.root_sent");
    drop(live);
    // Read again: it says what is pending now.
    let record = read(book, mount, name).await?;
    let settled = settle(book, &record).await;
    match (sent, settled) {
        (_, Ok(true)) => Ok(()),
        (Err(error), Ok(false)) => Err(change.explain(&error)),
        (Ok(()), Ok(false)) => Err(EngineError::Refused(
            "the statements ran, and the password is still the one before".to_owned(),
        )),
        (_, Err(error)) => Err(EngineError::Unavailable(format!(
            "whether the password changed is not known yet; both are kept and tried: {error}"
        ))),
    }
}

async fn read(book: &Book, mount: MountId, name: &str) -> Result<ConnectionRecord, EngineError> {
    let missing = || format!("failed to find entry for connection with name: \"{name}\"");
    let found = book.read::<ConnectionRecord>(&connection_path(mount, name)).await?;
    found.map(|(_, record)| record).ok_or_else(|| EngineError::Unknown(missing()))
}

/// An error if a connection's password is not ours to change.
pub(crate) fn check(name: &str, record: &ConnectionRecord) -> Result<(), EngineError> {
    let invalid = |why: &str| Err(EngineError::Invalid(format!("connection \"{name}\": {why}")));
    if record.managed && record.rotation.plan.is_empty() {
        return invalid(
            "its password comes from the server's configuration, which would have the old one: it is changed there, or given a rotation_period there",
        );
    }
    let dsn = record.dsn().map_err(EngineError::Invalid)?;
    if dsn.spells_password() {
        return invalid(
            "its password is written into connection_url: use the field password, and {{password}} in the URL",
        );
    }
    // EXPOSE: asked only whether it is empty.
    if record.password.expose().is_empty() {
        return invalid("it has no password that could be changed");
    }
    Ok(())
}

/// Who we are there; an error if it is not the server that was meant, or one that only follows.
async fn check_server(record: &ConnectionRecord, live: &Live) -> Result<String, EngineError> {
    let invalid = |text: &str| Err(EngineError::Unavailable(text.to_owned()));
    if live.facts.contradict(record.system_identifier.as_deref()) {
        return invalid("the connection leads to another database server than it did");
    }
    const WHO: &str = "SELECT session_user, pg_is_in_recovery()";
    let postgres = live.facts.dialect.is_postgres();
    let who = if postgres { WHO.to_owned() } else { mysql::facts::who() };
    let rows = live.run(&who).await.map_err(unavailable)?;
    let mut fields = rows.into_iter().next().unwrap_or_default().into_iter().flatten();
    match (fields.next(), fields.next().as_deref()) {
        (Some(username), Some("f")) if !live.facts.backend.started.is_empty() => Ok(username),
        (Some(_), Some("t")) => invalid("the connection leads to a standby"),
        _ => invalid("the database server does not say who we are"),
    }
}

/// Stores the new password beside the old one, everywhere, before the database is told.
async fn begin(
    book: &Book,
    members: Vec<Member>,
    id: &str,
    change: &Change,
    backend: &Backend,
) -> Result<(), EngineError> {
    let mut changes = Changes::new();
    let mut places = Vec::new();
    for Member { mount, name, version, mut record } in members {
        record.rotation.pending = Some(RootPending {
            id: id.to_owned(),
            old: Kept(record.password.duplicate()),
            new: Kept(change.password.duplicate()),
            sent: backend.into(),
        });
        let bytes = encode(&record).map_err(damaged)?;
        changes = changes.put(connection_path(mount, &name), version, bytes);
        places.push((mount, name));
    }
    failpoint::here("rotate.root_before_store");
    let stored = book.barrier.commit(changes).await;
    failpoint::here("rotate.root_stored");
    // Whoever logs in from now on tries both. Also if it is not known whether they are stored.
    for (mount, name) in places {
        book.forget_password(mount, &name);
        book.agenda.set(Key::root(mount, &name), Some(book.clock.now()));
    }
    Ok(stored?)
}

/// Finds out which of the two passwords holds, once nobody can change it any more, and writes it
/// down; true if it is the new one.
async fn settle(book: &Rc<Book>, record: &ConnectionRecord) -> Result<bool, EngineError> {
    let Some(pending) = &record.rotation.pending else { return Ok(false) };
    let live = dial(book, record, None).await.map_err(unavailable)?;
    check_server(record, &live).await?;
    end_backend(&live, &Backend::from(&pending.sent)).await?;
    failpoint::here("rotate.root_fenced");
    let new = logs_in(book, record, &pending.new.0).await?;
    failpoint::here("rotate.root_tried_new");
    let old = logs_in(book, record, &pending.old.0).await?;
    let both = [&pending.new.0, &pending.old.0];
    let replaced = !both.iter().any(|one| one.is_same_as(&record.password));
    // The configuration file may have another by now: if that is the one, neither will ever hold.
    let neither = !new && !old && replaced && logs_in(book, record, &record.password).await?;
    if new == old && !neither {
        let what = if new { "both passwords log in" } else { "neither password logs in" };
        return Err(EngineError::Unavailable(format!("{what}, so neither is given up")));
    }
    finish(book, &pending.id, new).await?;
    tracing::info!(changed = new, "a root rotation is settled");
    Ok(new)
}

/// True if a password logs in, false if it is refused; anything else is no answer.
async fn logs_in(
    book: &Book,
    record: &ConnectionRecord,
    password: &SecretText,
) -> Result<bool, EngineError> {
    match dial(book, record, Some(password)).await {
        Ok(live) => check_server(record, &live).await.map(|_| true),
        Err(error) if error.is_wrong_password() => Ok(false),
        Err(error) => Err(unavailable(error)),
    }
}

/// Writes down which password holds, in every connection that the rotation changes.
async fn finish(book: &Rc<Book>, id: &str, new: bool) -> Result<(), EngineError> {
    for _ in 0..TRIES {
        let mut changes = Changes::new();
        let mut members = Vec::new();
        for Member { mount, name, version, mut record } in all(book).await? {
            let Some(pending) = record.rotation.pending.take_if(|pending| pending.id == id) else {
                continue;
            };
            if new {
                record.password = pending.new.0;
                record.rotation.previous = Some(pending.old);
                record.rotation.rotated_ms = book.clock.now().unix_ms();
            }
            let bytes = encode(&record).map_err(damaged)?;
            changes = changes.put(connection_path(mount, &name), version, bytes);
            members.push((mount, name, record));
        }
        failpoint::here("rotate.root_before_end");
        match book.barrier.commit(changes).await {
            Ok(()) => {
                failpoint::here("rotate.root_ended");
                for (mount, name, record) in members {
                    book.forget_password(mount, &name);
                    plan(book, mount, &name, &record);
                }
                return Ok(());
            }
            // Somebody changed a definition meanwhile.
            Err(error) if error.failed_expectation().is_some() => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(EngineError::Unavailable("the definition changes all the time, try again".to_owned()))
}
