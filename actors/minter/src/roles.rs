//! The definitions of roles: checked when they are written, so that what is minted can be ended.

use std::rc::Rc;

use mssm_domain::{Caller, MountId, RoleName, Ttl};
use mssm_messages::Changes;
use mssm_messages::engine::EngineError;
use mssm_messages::minter::{
    DeleteRole, ListRoles, ReadRole, RolePatch, RoleView, Tester, TryConfigured, WriteRole,
};

use crate::book::{Book, connection_path, role_path};
use crate::connections::{managed, names, of_file};
use crate::dialect::Dialect;
use crate::ladder::{owner_query, unfit_owner};
use crate::mint::{find_target, is_allowed};
use crate::record::{ConnectionRecord, RoleRecord};
use crate::rolecheck::{check_creation, check_later};
use crate::selftest::try_out;

/// More rounds would only be a way to keep our processors busy.
const MAX_ROUNDS: u32 = 1_000_000;

/// A password is kept no longer than this to be handed out again.
const MAX_REUSE_SECS: u64 = 3_600;

/// See [`WriteRole`].
pub(crate) async fn write(book: &Rc<Book>, msg: WriteRole) -> Result<Vec<String>, EngineError> {
    book.cluster()?;
    let (mount, name) = (msg.mount, msg.name.as_str());
    let path = role_path(mount, name);
    let (over, mut record) = match book.read::<RoleRecord>(&path).await? {
        Some((_, record)) if record.managed => return Err(managed("role")),
        Some((version, record)) => (version, record),
        None => (0, RoleRecord::new()),
    };
    let verifies = msg.patch.verify != Some(false);
    record.verified = false;
    let db_name = msg.patch.db_name.as_ref().unwrap_or(&record.db_name);
    let dialect = dialect(book, mount, db_name).await?;
    let mut warnings = apply(&mut record, dialect, msg.patch)?;
    check_connection(book, mount, name, &record, &mut warnings).await?;
    let target = book.target(mount, &record.db_name).await?;
    match (&msg.tester, target) {
        (Some(tester), Some(target)) if verifies => {
            let tried = try_out(book, &target, (mount, name), &record, tester).await?;
            warnings.extend(tried);
            record.verified = true;
        }
        (Some(_), _) => {
            let text = "not verified: no login was made by these statements yet";
            warnings.push(text.to_owned());
        }
        (None, _) => {}
    }
    book.write(path, over, &record).await?;
    book.forget_role(mount, name);
    Ok(warnings)
}

/// Whose SQL a connection speaks, if there is one of that name.
async fn dialect(
    book: &Book,
    mount: MountId,
    db_name: &str,
) -> Result<Option<Dialect>, EngineError> {
    let read = book.read::<ConnectionRecord>(&connection_path(mount, db_name)).await?;
    let dialect = read.map(|(_, connection)| connection.dialect());
    dialect.transpose().map_err(EngineError::Invalid)
}

fn apply(
    record: &mut RoleRecord,
    dialect: Option<Dialect>,
    patch: RolePatch,
) -> Result<Vec<String>, EngineError> {
    fn set<T>(field: &mut T, value: Option<T>) {
        if let Some(value) = value {
            *field = value;
        }
    }
    let invalid = |text: &str| Err(EngineError::Invalid(text.to_owned()));
    set(&mut record.db_name, patch.db_name);
    set(&mut record.creation_statements, patch.creation_statements);
    set(&mut record.revocation_statements, patch.revocation_statements);
    set(&mut record.rollback_statements, patch.rollback_statements);
    set(&mut record.renew_statements, patch.renew_statements);
    set(&mut record.default_ttl_secs, patch.default_ttl_secs);
    set(&mut record.max_ttl_secs, patch.max_ttl_secs);
    set(&mut record.scram_iterations, patch.scram_iterations);
    set(&mut record.orphan_leases, patch.orphan_leases);
    set(&mut record.reuse_window_secs, patch.reuse_window_secs);
    set(&mut record.max_leases, patch.max_leases);
    set(&mut record.max_leases_per_token, patch.max_leases_per_token);
    set(&mut record.allow_privileged, patch.allow_privileged);
    if let Some(owner) = patch.owner {
        record.owner = (!owner.is_empty()).then_some(owner);
    }
    if record.db_name.is_empty() {
        return invalid("empty database name attribute");
    }
    if patch.credential_type.is_some_and(|kind| kind != "password") {
        return invalid("credential_type: only password is supported");
    }
    for secs in [record.default_ttl_secs, record.max_ttl_secs] {
        if secs > Ttl::MAX_SECS {
            return invalid("default_ttl and max_ttl must be at most 10 years");
        }
    }
    if record.max_ttl_secs > 0 && record.default_ttl_secs > record.max_ttl_secs {
        return invalid("default_ttl must not be greater than max_ttl");
    }
    if !(1..=MAX_ROUNDS).contains(&record.scram_iterations) {
        return invalid("scram_iterations must be from 1 to 1,000,000");
    }
    if record.reuse_window_secs > MAX_REUSE_SECS {
        return invalid(
            "reuse_window must be at most 1 hour: the password is kept in memory as long",
        );
    }
    record.dialect = dialect.unwrap_or_else(|| guess(record));
    let mut warnings = check_statements(record).map_err(EngineError::Invalid)?;
    for (texts, field) in [
        (&record.revocation_statements, "revocation_statements"),
        (&record.renew_statements, "renew_statements"),
    ] {
        check_later(record.dialect, texts, field).map_err(EngineError::Invalid)?;
    }
    if !record.dialect.is_postgres() {
        check_later(record.dialect, &record.rollback_statements, "rollback_statements")
            .map_err(EngineError::Invalid)?;
        if record.owner.is_some() {
            return invalid("owner: users own nothing in MySQL");
        }
    } else if !record.rollback_statements.is_empty() {
        let text =
            "rollback_statements are kept and not used: a failed creation is undone as a whole";
        warnings.push(text.to_owned());
    }
    Ok(warnings)
}

/// Without its connection, a role's statements themselves say whose they are.
fn guess(record: &RoleRecord) -> Dialect {
    let fits = |dialect| {
        check_creation(dialect, &record.creation_statements, record.allow_privileged).is_ok()
    };
    if !fits(Dialect::Postgres) && fits(Dialect::MySql) {
        Dialect::MySql
    } else {
        Dialect::Postgres
    }
}

fn check_statements(record: &RoleRecord) -> Result<Vec<String>, String> {
    check_creation(record.dialect, &record.creation_statements, record.allow_privileged)
}

/// What only the connection can say; a database that is down costs a warning, no more.
async fn check_connection(
    book: &Book,
    mount: MountId,
    name: &str,
    record: &RoleRecord,
    warnings: &mut Vec<String>,
) -> Result<(), EngineError> {
    let Some(target) = book.target(mount, &record.db_name).await? else {
        warnings.push(format!("there is no connection \"{}\" yet", record.db_name));
        return Ok(());
    };
    if !is_allowed(&target.record.allowed_roles, name) {
        warnings.push(format!("the connection's allowed_roles do not have \"{name}\""));
    }
    let Some(owner) = &record.owner else { return Ok(()) };
    let asked = match target.mint.lend().await {
        Ok(session) => session.run(&owner_query(owner)).await,
        Err(error) => Err(error),
    };
    let rows = match asked {
        Ok(rows) => rows,
        Err(error) => {
            warnings.push(format!("the owner was not checked: {}", error.public()));
            return Ok(());
        }
    };
    let row = rows.into_iter().next().map(|row| row.into_iter().flatten().collect::<Vec<_>>());
    match row.as_deref() {
        None => Err(EngineError::Invalid(format!("the owner \"{owner}\" does not exist"))),
        Some([unfit, ..]) if unfit == "t" => Err(EngineError::Invalid(unfit_owner(owner))),
        Some([_, member]) if member != "t" => {
            warnings.push(format!(
                "the connection's user has not inherited the owner \"{owner}\" (GRANT it): handing over will fail"
            ));
            Ok(())
        }
        Some(_) => Ok(()),
    }
}

/// See [`ReadRole`].
pub(crate) async fn read(book: &Rc<Book>, msg: ReadRole) -> Result<RoleView, EngineError> {
    let role = book.role(msg.mount, msg.name.as_str()).await?.ok_or(EngineError::NotFound)?;
    let record = role.record.clone();
    Ok(RoleView {
        rules: record.rules(),
        db_name: record.db_name,
        creation_statements: record.creation_statements,
        revocation_statements: record.revocation_statements,
        rollback_statements: record.rollback_statements,
        renew_statements: record.renew_statements,
        default_ttl: Ttl::from_secs(record.default_ttl_secs).ok(),
        max_ttl: Ttl::from_secs(record.max_ttl_secs).ok(),
        owner: record.owner,
        scram_iterations: record.scram_iterations,
        allow_privileged: record.allow_privileged,
        verified: record.verified,
        managed_by_configuration: record.managed,
    })
}

/// See [`ListRoles`].
pub(crate) async fn list(book: &Rc<Book>, msg: ListRoles) -> Result<Vec<String>, EngineError> {
    names(book, &role_path(msg.mount, "")).await
}

/// See [`DeleteRole`].
pub(crate) async fn delete(book: &Rc<Book>, msg: DeleteRole) -> Result<(), EngineError> {
    let path = role_path(msg.mount, msg.name.as_str());
    let Some((_, record)) = book.read::<RoleRecord>(&path).await? else { return Ok(()) };
    if record.managed {
        return Err(managed("role"));
    }
    book.barrier.commit(Changes::new().delete(path)).await?;
    book.forget_role(msg.mount, msg.name.as_str());
    Ok(())
}

/// The roles' part of [`mssm_messages::minter::Configure`].
pub(crate) async fn configure(
    book: &Book,
    mount: MountId,
    roles: Vec<(RoleName, RolePatch)>,
) -> Result<Vec<String>, EngineError> {
    let mut warnings = Vec::new();
    let named: Vec<String> = roles.iter().map(|(name, _)| name.as_str().to_owned()).collect();
    for (name, patch) in roles {
        let path = role_path(mount, name.as_str());
        let stored = book.read::<RoleRecord>(&path).await?;
        let mut record = RoleRecord::new();
        record.managed = true;
        let db_name = patch.db_name.clone().unwrap_or_default();
        let told = apply(&mut record, dialect(book, mount, &db_name).await?, patch);
        warnings.extend(told.map_err(|error| of_file("role", name.as_str(), &error))?);
        let over = stored.as_ref().map_or(0, |(version, _)| *version);
        if stored.is_none_or(|(_, before)| before != record) {
            book.write(path, over, &record).await?;
            book.forget_role(mount, name.as_str());
        }
    }
    for name in names(book, &role_path(mount, "")).await? {
        let path = role_path(mount, &name);
        if named.contains(&name) {
            continue;
        }
        if let Some((version, mut record)) = book.read::<RoleRecord>(&path).await?
            && record.managed
        {
            record.managed = false;
            book.write(path, version, &record).await?;
            book.forget_role(mount, &name);
            warnings.push(format!(
                "role \"{name}\" is no longer in the configuration file; it is kept until it is deleted"
            ));
        }
    }
    Ok(warnings)
}

/// What the configuration file defines and nobody has tried yet, until leases are open.
#[derive(Debug)]
pub(crate) struct Untried {
    pub(crate) mount: MountId,
    pub(crate) prefix: String,
    pub(crate) connections: Vec<String>,
    pub(crate) roles: Vec<String>,
}

/// See [`TryConfigured`].
pub(crate) async fn begin_trials(book: &Rc<Book>, _msg: TryConfigured) -> Result<(), EngineError> {
    if let Some(untried) = book.untried.take() {
        actix_rt::spawn(try_configured(Rc::clone(book), untried));
    }
    Ok(())
}

/// The start does not wait for databases. On PostgreSQL roles are rehearsed, and no login is made; on
/// MySQL one is, and its lease is the server's own.
async fn try_configured(book: Rc<Book>, untried: Untried) {
    let Untried { mount, prefix, connections, roles } = untried;
    for name in connections {
        let tried = match find_target(&book, mount, &name).await {
            Ok(target) => target.mint.lend().await.map(|_| ()).map_err(|error| error.public()),
            Err(error) => Err(error.to_string()),
        };
        match tried {
            Ok(()) => {
                tracing::info!(connection = name, "a connection of the configuration file works");
            }
            Err(why) => {
                tracing::warn!(
                    connection = name,
                    why,
                    "a connection of the configuration file does not work"
                );
            }
        }
    }
    for name in roles {
        match try_configured_role(&book, (mount, &prefix), &name).await {
            Ok(warnings) if warnings.is_empty() => {
                tracing::info!(role = name, "a role of the configuration file passed its trial");
            }
            Ok(warnings) => {
                let warnings = warnings.join("; ");
                tracing::warn!(
                    role = name,
                    warnings,
                    "a role of the configuration file passed its trial"
                );
            }
            Err(error) => {
                tracing::warn!(role = name, %error, "a role of the configuration file does not work");
            }
        }
    }
}

async fn try_configured_role(
    book: &Rc<Book>,
    (mount, prefix): (MountId, &str),
    name: &str,
) -> Result<Vec<String>, EngineError> {
    let role = book.role(mount, name).await?.ok_or(EngineError::NotFound)?;
    let target = find_target(book, mount, &role.record.db_name).await?;
    let mut warnings = Vec::new();
    check_connection(book, mount, name, &role.record, &mut warnings).await?;
    let caller = Caller::server("configured", book.clock.now());
    let caller = caller.map_err(|_| EngineError::Internal)?;
    let tester = Tester { caller, prefix: prefix.to_owned() };
    warnings.extend(try_out(book, &target, (mount, name), &role.record, &tester).await?);
    Ok(warnings)
}
