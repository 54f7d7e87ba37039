//! Databases of the configuration file: what they define is put in place, tried, and told in the log.

use std::time::Duration;

use serde_json::json;

use crate::harness::{CREATE, Client, Database, Options, Server, eventually, write_private};
use crate::victim::{Kind, on_each_kind};

fn connection(database: &Database, name: &str, port: u16) -> String {
    let postgres = database.postgres();
    let (host, user) = (postgres.host(), postgres.admin_user());
    format!(
        "[db.connections.{name}]\nhost = \"{host}\"\nport = {port}\ndatabase = \"{}\"\n\
         username = \"{user}\"\npassword_file = \"{{folder}}/db.password\"\ntls = \"disable\"\n\
         allowed_roles = [\"*\"]\n\n",
        database.name
    )
}

fn options(database: &Database, more: String) -> Options {
    let files = vec![("db.password", database.postgres().admin_password().to_owned())];
    Options { more, files, ..Options::default() }
}

on_each_kind!(what_the_configuration_file_defines_is_tried_behind_the_start);

fn what_the_configuration_file_defines_is_tried_behind_the_start(kind: Kind) {
    let database = kind.private();
    let definition = |name: &str, more: Option<&str>| {
        let creation = database.creation().into_iter().chain(more.map(str::to_owned));
        let creation = json!(creation.collect::<Vec<_>>());
        format!("[db.roles.{name}]\nconnection = \"main\"\ncreation = {creation}\n\n")
    };
    let more = [
        database.in_file("main"),
        database.in_file("gone").replace("port = ", "port = 1 # "),
        definition("good", None),
        definition("bad", Some("SELECT * FROM nowhere.nothing")),
    ]
    .concat();
    let files = vec![("db.password", database.admin_password().to_owned())];
    let server = Server::ready(Options { more, files, ..Options::default() });
    let root = server.root();
    let cluster = root.get("sys/seal-status").text_at("/cluster_id");
    let said = |what: &str, name: &str| {
        let log = server.log();
        log.lines().any(|line| line.contains(what) && line.contains(name))
    };
    eventually("all is tried", Duration::from_secs(20), || {
        (said("passed its trial", "good")
            && said("a role of the configuration file does not work", "nowhere.nothing")
            && said("a connection of the configuration file works", "main")
            && said("a connection of the configuration file does not work", "gone"))
        .then_some(())
    });
    assert!(!server.log().contains('\u{1b}'), "a file is no screen: no colours");
    eventually("nothing is left", Duration::from_secs(20), || {
        let none =
            database.marked(&cluster).is_empty() && root.list("sys/leases/lookup/db").status == 404;
        none.then_some(())
    });
}

fn credentials(root: &Client) -> Option<(String, String)> {
    let answer = root.get("db/static-creds/report");
    (answer.status == 200)
        .then(|| (answer.text_at("/data/username"), answer.text_at("/data/password")))
}

#[test]
fn static_roles_of_the_configuration_file_wait_for_their_database_and_follow_the_file() {
    let database = Database::private();
    let user = format!("{}_report", database.name);
    database.sql(&format!("CREATE ROLE {user} LOGIN"));
    let more = connection(&database, "main", database.postgres().port())
        + &format!(
            "[db.static_roles.report]\nconnection = \"main\"\nusernames = [\"{user}\"]\n\
             rotation_period = \"24h\"\n\n[db.static_roles.nobody]\nconnection = \"main\"\n\
             usernames = [\"nobody_at_all\"]\nrotation_schedule = \"0 3 * * *\"\n"
        );
    database.postgres().stop();
    let mut server = Server::ready(options(&database, more));
    eventually("it is said that one waits", Duration::from_secs(20), || {
        server.log().contains("waits for its database").then_some(())
    });
    database.postgres().start();
    let root = server.root();
    let first = eventually("it is in place", Duration::from_secs(30), || credentials(&root));
    assert_eq!(first.0, user);
    assert!(database.login(&user, &first.1).is_ok());
    eventually("what is wrong is said", Duration::from_secs(20), || {
        let log = server.log();
        let said = |line: &str| line.contains("has no user") && line.contains("nobody_at_all");
        log.lines().any(said).then_some(())
    });
    // Another start changes no password by itself.
    server.kill9();
    server.again();
    server.unseal();
    let root = server.root();
    let again = eventually("it is there", Duration::from_secs(20), || credentials(&root));
    assert_eq!(again, first);
}

#[test]
fn under_a_plan_a_password_of_the_configuration_file_is_the_first_and_counts_when_it_changes() {
    let database = Database::shared();
    let user = format!("{}_root", database.name);
    database.sql(&format!("CREATE ROLE {user} LOGIN CREATEROLE PASSWORD 'first'"));
    let plain = connection(&database, "main", database.postgres().port());
    let plain = plain.trim_end().replace(database.postgres().admin_user(), &user);
    let create = CREATE.replace('"', "\\\"");
    let more = format!(
        "{plain}\nrotation_period = \"5s\"\n\n[db.roles.app]\nconnection = \"main\"\n\
         creation = [\"{create}\"]\n"
    );
    let files = vec![("db.password", "first".to_owned())];
    let mut server = Server::ready(Options { more, files, ..Options::default() });
    let mints = |server: &Server| server.root().get("db/creds/app").status == 200;
    assert!(mints(&server));
    eventually("it is rotated", Duration::from_secs(30), || {
        database.login(&user, "first").is_err().then_some(())
    });
    assert!(mints(&server));
    for _ in 0..2 {
        server.kill9();
        server.again();
        server.unseal();
        eventually("it logs in", Duration::from_secs(15), || mints(&server).then_some(()));
    }
    // Set anew by hand: the file has it, and nobody else.
    server.stop();
    database.sql(&format!("ALTER ROLE {user} PASSWORD 'second'"));
    write_private(&server.path("db.password"), "second");
    server.again();
    server.unseal();
    eventually("it logs in", Duration::from_secs(15), || mints(&server).then_some(()));
    eventually("it is rotated", Duration::from_secs(30), || {
        database.login(&user, "second").is_err().then_some(())
    });
    assert!(mints(&server));
}
