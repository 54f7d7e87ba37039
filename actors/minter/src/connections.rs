//! The definitions of connections: written after they were tried, shown without secrets.

use std::rc::Rc;

use mssm_domain::{ConnectionId, MountId, RecordPath, generate_uuid};
use mssm_messages::Changes;
use mssm_messages::engine::{EngineError, Unmount};
use mssm_messages::minter::{
    Configure, ConnectionPatch, ConnectionView, DeleteConnection, ListConnections, ReadConnection,
    ResetConnection, WriteConnection,
};

use crate::book::{Book, connection_path, damaged};
use crate::dialect::{Dialect, POSTGRESQL_PLUGIN};
use crate::dsn::masked;
use crate::guard;
use crate::marker;
use crate::moving::{self, Brought, Way};
use crate::mysql;
use crate::pool::Live;
use crate::quote::literal;
use crate::record::{ConnectionRecord, encode};
use crate::rolecheck::check_rotation;
use crate::roles::{self, Untried};
use crate::rotation::{Key, root, statics};
use crate::spec::{Lane, Spec, application_name};

/// More definitions in one mount than anybody lists.
const LIST_LIMIT: usize = 100_000;

/// See [`WriteConnection`].
pub(crate) async fn write(
    book: &Rc<Book>,
    msg: WriteConnection,
) -> Result<Vec<String>, EngineError> {
    let cluster = book.cluster()?;
    let (mount, name) = (msg.mount, msg.name.as_str());
    let path = connection_path(mount, name);
    let mut patch = msg.patch;
    let _turn = root::turn_for(book, &patch).await?;
    let stored = book.read::<ConnectionRecord>(&path).await?;
    let (over, mut record) = match stored {
        Some((_, record)) if record.managed => return Err(managed("connection")),
        Some((version, record)) => (version, record),
        None => (0, ConnectionRecord::new(generate_id(book))),
    };
    let before = if over > 0 { Some(user_of(&record)?) } else { None };
    let (way, brought) = (Way::of(&record), Brought::by(&patch));
    let verifies = patch.verify_connection != Some(false);
    let superseded = root::apply(book, &mut record, &mut patch)?;
    let mut warnings = apply(&mut record, patch)?;
    if over > 0 {
        moving::check(way.as_ref(), &mut record, brought)?;
    }
    if !record.rotation.plan.is_empty() {
        root::check(name, &record)?;
    }
    let application = application_name(cluster, book.boot, Lane::Mint);
    let spec = Spec::new(&record, &application, Lane::Mint).map_err(EngineError::Invalid)?;
    let mut leaving = None;
    if verifies {
        let tried = Live::open(book.dialer.as_ref(), &spec, None, book.clock.as_ref()).await;
        let live = tried.map_err(|error| {
            let why = error.public();
            EngineError::Invalid(format!(
                "error creating database object: error verifying connection: {why}"
            ))
        })?;
        if let Some(pending) = superseded {
            root::supersede(book, &record, &live, &pending).await?;
        }
        if !live.facts.dialect.is_postgres() && !live.facts.superuser {
            return Err(EngineError::Invalid(mysql::facts::LACKS.to_owned()));
        }
        refuse_pooler(book, &spec, &live).await?;
        let seen = live.facts.system_identifier.clone();
        if leads_elsewhere(&record, seen.as_deref()) {
            leaving = Some(book.leave(mount, name)?);
            let count = book.count_leases(record.id).await?;
            if count > 0 {
                return Err(EngineError::Invalid(format!(
                    "this leads to another database server, and {count} leases need the one before: revoke them first, or use another name"
                )));
            }
            record.id = generate_id(book);
        } else if before.is_some() && before != user_of(&record).ok() {
            check_heir(book, &record, &live).await?;
        }
        adopt_server(&mut record, seen, &mut warnings);
    }
    book.write(path, over, &record).await?;
    book.forget_connection(mount, name);
    root::plan(book, mount, name, &record);
    drop(leaving);
    Ok(warnings)
}

/// What cannot be fenced or locked is not connected to.
async fn refuse_pooler(book: &Book, spec: &Spec, live: &Live) -> Result<(), EngineError> {
    let (dialer, clock) = (book.dialer.as_ref(), book.clock.as_ref());
    let shared = async {
        let other = Live::open(dialer, spec, None, clock).await?;
        guard::is_shared(live, &other, book.random.as_ref()).await
    };
    match shared.await {
        Ok(false) => Ok(()),
        Ok(true) => Err(EngineError::Invalid(guard::SHARED.to_owned())),
        Err(error) => Err(EngineError::Unavailable(error.public())),
    }
}

/// A definition that leads to another server is another connection: leases of the first must not
/// be looked for on the second.
fn leads_elsewhere(record: &ConnectionRecord, seen: Option<&str>) -> bool {
    let known = record.system_identifier.as_deref();
    known.zip(seen).is_some_and(|(known, seen)| known != seen)
}

/// Whom a definition logs in as.
fn user_of(record: &ConnectionRecord) -> Result<String, EngineError> {
    let dsn = record.dsn().map_err(EngineError::Invalid)?;
    Ok(dsn.username(&record.username).unwrap_or_default())
}

/// A new user must be able to end what the one before made: from PostgreSQL 16 on that takes the ADMIN
/// OPTION on each login, before that the right to make roles.
async fn check_heir(
    book: &Book,
    record: &ConnectionRecord,
    live: &Live,
) -> Result<(), EngineError> {
    if live.facts.superuser || book.count_leases(record.id).await? == 0 {
        return Ok(());
    }
    let may = if live.facts.version >= 160_000 {
        "pg_has_role(current_user, r.oid, 'MEMBER WITH ADMIN OPTION')"
    } else {
        "(SELECT rolcreaterole FROM pg_roles WHERE rolname = current_user)"
    };
    let sql = format!(
        "SELECT count(*) FROM pg_roles r WHERE NOT {may} \
         AND starts_with(shobj_description(r.oid, 'pg_authid'), {})",
        literal(&marker::prefix(book.cluster()?))
    );
    let rows = live.run(&sql).await.map_err(|error| EngineError::Unavailable(error.public()))?;
    match rows.first().and_then(|row| row.first()?.as_deref()) {
        Some("0") => Ok(()),
        count => Err(EngineError::Invalid(format!(
            "the new user may not end {} logins that the one before made: GRANT each to it WITH ADMIN \
             OPTION, or revoke them first",
            count.unwrap_or("some")
        ))),
    }
}

fn adopt_server(record: &mut ConnectionRecord, seen: Option<String>, warnings: &mut Vec<String>) {
    if seen.is_some() {
        record.system_identifier = seen;
    } else {
        warnings.push("the server does not say which one it is (pg_control_system): that it stays the same cannot be checked".to_owned());
    }
}

fn generate_id(book: &Book) -> ConnectionId {
    ConnectionId::from_uuid(generate_uuid(book.random.as_ref()))
}

/// The refusal to change what the configuration file defines.
pub(crate) fn managed(what: &str) -> EngineError {
    EngineError::Invalid(format!("this {what} is defined in the server's configuration file"))
}

fn apply(
    record: &mut ConnectionRecord,
    patch: ConnectionPatch,
) -> Result<Vec<String>, EngineError> {
    fn invalid<T>(text: &str) -> Result<T, EngineError> {
        Err(EngineError::Invalid(text.to_owned()))
    }
    let before = Dialect::of_plugin(&record.plugin_name).ok();
    set(&mut record.plugin_name, patch.plugin_name);
    set(&mut record.connection_url, patch.connection_url);
    set(&mut record.username, patch.username);
    set(&mut record.password, patch.password);
    set(&mut record.allowed_roles, patch.allowed_roles);
    set(&mut record.max_open_connections, patch.max_open_connections);
    set(&mut record.tls_ca, patch.tls_ca);
    set(&mut record.tls_certificate, patch.tls_certificate);
    set(&mut record.password_authentication, patch.password_authentication);
    set(&mut record.root_rotation_statements, patch.root_rotation_statements);
    if let Some(key) = patch.tls_key {
        record.tls_key = key.into_text().or_else(|_| invalid("private_key is not PEM"))?;
    }
    if record.plugin_name.is_empty() {
        return invalid("empty plugin name");
    }
    let dialect = record.dialect().map_err(EngineError::Invalid)?;
    if before.is_some_and(|before| before.is_postgres() != dialect.is_postgres()) {
        return invalid("plugin_name names another kind of database: use another name for it");
    }
    check_rotation(dialect, &record.root_rotation_statements, "root_rotation_statements")
        .map_err(EngineError::Invalid)?;
    // EXPOSE: asked only whether it is empty.
    if record.connection_url.expose().is_empty() {
        return invalid("connection_url cannot be empty");
    }
    if !(1..=64).contains(&record.max_open_connections) {
        return invalid("max_open_connections must be from 1 to 64");
    }
    if !matches!(record.password_authentication.as_str(), "scram-sha-256" | "password") {
        return invalid("password_authentication must be scram-sha-256 or password");
    }
    if patch.username_template.is_some_and(|template| !template.is_empty()) {
        return invalid("username_template: only the built-in template is supported");
    }
    let mut warnings = Vec::new();
    if record.allowed_roles.is_empty() {
        warnings.push("allowed_roles is empty: no role can use this connection".to_owned());
    }
    let dsn = record.dsn().map_err(EngineError::Invalid)?;
    if !dialect.is_postgres() && !dsn.is_sure(!record.tls_ca.is_empty()) {
        warnings.push("TLS is off or not verified: whoever poses as the server on the network can have the password".to_owned());
    }
    Ok(warnings)
}

fn set<T>(field: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *field = value;
    }
}

/// See [`ReadConnection`].
pub(crate) async fn read(
    book: &Rc<Book>,
    msg: ReadConnection,
) -> Result<ConnectionView, EngineError> {
    book.cluster()?;
    let path = connection_path(msg.mount, msg.name.as_str());
    let (_, record) = book.read::<ConnectionRecord>(&path).await?.ok_or(EngineError::NotFound)?;
    let rotation = root::view(&record);
    let dialect = record.dialect().map_err(EngineError::Invalid)?;
    Ok(ConnectionView {
        id: record.id,
        rotation,
        plugin_name: record.plugin_name,
        // EXPOSE: shown without a password that is written into it.
        connection_url: masked(dialect, record.connection_url.expose()),
        username: record.username,
        allowed_roles: record.allowed_roles,
        max_open_connections: record.max_open_connections,
        password_authentication: record.password_authentication,
        root_rotation_statements: record.root_rotation_statements,
        username_template: String::new(),
        managed_by_configuration: record.managed,
    })
}

/// See [`ListConnections`].
pub(crate) async fn list(
    book: &Rc<Book>,
    msg: ListConnections,
) -> Result<Vec<String>, EngineError> {
    names(book, &connection_path(msg.mount, "")).await
}

/// The names of the records right below one.
pub(crate) async fn names(book: &Book, parent: &RecordPath) -> Result<Vec<String>, EngineError> {
    book.cluster()?;
    let children = book.barrier.list(parent, None, LIST_LIMIT).await?;
    Ok(children.into_iter().filter(|child| child.is_record).map(|child| child.name).collect())
}

/// See [`DeleteConnection`].
pub(crate) async fn delete(book: &Rc<Book>, msg: DeleteConnection) -> Result<(), EngineError> {
    book.cluster()?;
    let _leaving = book.leave(msg.mount, msg.name.as_str())?;
    let path = connection_path(msg.mount, msg.name.as_str());
    let Some((_, record)) = book.read::<ConnectionRecord>(&path).await? else { return Ok(()) };
    if record.managed {
        return Err(managed("connection"));
    }
    let count = book.count_leases(record.id).await?;
    if count > 0 {
        return Err(EngineError::Invalid(format!(
            "{count} leases need this connection to be revoked: revoke them first"
        )));
    }
    if let Some(role) = statics::on_connection(book, msg.mount, msg.name.as_str()).await?.first() {
        return Err(EngineError::Invalid(format!(
            "the static role \"{role}\" needs this connection: delete it first"
        )));
    }
    book.barrier.commit(Changes::new().delete(path)).await?;
    book.forget_connection(msg.mount, msg.name.as_str());
    book.agenda.remove(&Key::root(msg.mount, msg.name.as_str()));
    Ok(())
}

/// See [`ResetConnection`].
pub(crate) async fn reset(book: &Rc<Book>, msg: ResetConnection) -> Result<(), EngineError> {
    book.cluster()?;
    if !book.barrier.exists(&connection_path(msg.mount, msg.name.as_str())).await? {
        return Err(EngineError::NotFound);
    }
    book.forget_connection(msg.mount, msg.name.as_str());
    Ok(())
}

/// See [`Unmount`].
pub(crate) async fn unmount(book: &Rc<Book>, msg: Unmount) -> Result<(), EngineError> {
    book.cluster()?;
    let root = RecordPath::new(&["db", &msg.mount.to_string()]);
    book.barrier.delete_all(&root).await?;
    book.forget_mount(msg.mount);
    Ok(())
}

/// See [`Configure`].
pub(crate) async fn configure(book: &Rc<Book>, msg: Configure) -> Result<Vec<String>, EngineError> {
    let cluster = book.cluster()?;
    let mut warnings = Vec::new();
    let named: Vec<String> =
        msg.connections.iter().map(|(name, _)| name.as_str().to_owned()).collect();
    for (name, mut patch) in msg.connections {
        patch.plugin_name.get_or_insert_with(|| POSTGRESQL_PLUGIN.to_owned());
        let path = connection_path(msg.mount, name.as_str());
        let stored = book.read::<ConnectionRecord>(&path).await?;
        let before = stored.as_ref().map(|(_, record)| encode(record)).transpose();
        let before = before.map_err(damaged)?;
        let (over, before_it) = match stored {
            Some((version, record)) => (version, record),
            None => (0, ConnectionRecord::new(generate_id(book))),
        };
        // As the file says, nothing left of what was there but its identity and its passwords.
        let mut record = ConnectionRecord::new(before_it.id);
        (record.system_identifier, record.managed) = (before_it.system_identifier.clone(), true);
        root::configured(book, &mut record, before_it, &mut patch)
            .map_err(|error| of_file("connection", name.as_str(), &error))?;
        let application = application_name(cluster, book.boot, Lane::Mint);
        let told = apply(&mut record, patch);
        let told = told.map_err(|error| of_file("connection", name.as_str(), &error))?;
        Spec::new(&record, &application, Lane::Mint)
            .map_err(|why| of_file("connection", name.as_str(), &EngineError::Invalid(why)))?;
        warnings.extend(told);
        let after = encode(&record).map_err(damaged)?;
        if before.is_none_or(|before| !before.is_same_as(&after)) {
            book.write(path, over, &record).await?;
            book.forget_connection(msg.mount, name.as_str());
        }
        root::plan(book, msg.mount, name.as_str(), &record);
    }
    release(book, msg.mount, &named, &mut warnings).await?;
    let roles: Vec<String> = msg.roles.iter().map(|(name, _)| name.as_str().to_owned()).collect();
    warnings.extend(roles::configure(book, msg.mount, msg.roles).await?);
    let untried = Untried { mount: msg.mount, prefix: msg.prefix, connections: named, roles };
    book.untried.replace(Some(untried));
    Ok(warnings)
}

/// An error of the configuration file, and where it is.
pub(crate) fn of_file(what: &str, name: &str, error: &EngineError) -> EngineError {
    EngineError::Invalid(format!("configuration: {what} \"{name}\": {error}"))
}

/// What the file no longer defines stays, since leases may need it, and can be changed again.
async fn release(
    book: &Book,
    mount: MountId,
    named: &[String],
    warnings: &mut Vec<String>,
) -> Result<(), EngineError> {
    for name in names(book, &connection_path(mount, "")).await? {
        let path = connection_path(mount, &name);
        if named.contains(&name) {
            continue;
        }
        if let Some((version, mut record)) = book.read::<ConnectionRecord>(&path).await?
            && record.managed
        {
            record.managed = false;
            book.write(path, version, &record).await?;
            book.forget_connection(mount, &name);
            warnings.push(format!("connection \"{name}\" is no longer in the configuration file; it is kept until it is deleted"));
        }
    }
    Ok(())
}
