//! Behind the real PgBouncer, where it is installed: refused where it shares sessions, at work where not.

use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::json;

use crate::harness::{CREATE, Database, Login, Server, eventually, free_port, skipped};

/// A PgBouncer in front of a database.
pub(crate) struct Pooler {
    program: Child,
    _folder: tempfile::TempDir,
    port: u16,
}

impl Drop for Pooler {
    fn drop(&mut self) {
        let _ = self.program.kill();
        let _ = self.program.wait();
    }
}

impl Pooler {
    fn start(database: &Database, mode: &str) -> Result<Self, String> {
        Self::start_at(database, mode, free_port())
    }

    pub(crate) fn start_at(database: &Database, mode: &str, port: u16) -> Result<Self, String> {
        let postgres = database.postgres();
        let folder = tempfile::tempdir().unwrap();
        let open = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(folder.path(), open).unwrap();
        let settings = format!(
            "[databases]\n{} = host={} port={} user={} password={}\n[pgbouncer]\nlisten_addr = 127.0.0.1\n\
             listen_port = {port}\nunix_socket_dir =\nauth_type = any\npool_mode = {mode}\n\
             default_pool_size = 60\n",
            database.name,
            postgres.host(),
            postgres.port(),
            postgres.admin_user(),
            postgres.admin_password(),
        );
        let file = folder.path().join("pgbouncer.ini");
        std::fs::write(&file, settings).unwrap();
        let mut command = Command::new("pgbouncer");
        if rustix::process::getuid().is_root() {
            command.args(["-u", "nobody"]);
        }
        command
            .arg("-q")
            .arg(file)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let program = command.spawn().map_err(|error| format!("PgBouncer: {error}"))?;
        let pooler = Self { program, _folder: folder, port };
        eventually("the pooler listens", Duration::from_secs(10), || {
            std::net::TcpStream::connect(("127.0.0.1", port)).ok()
        });
        Ok(pooler)
    }

    pub(crate) fn url(&self, database: &Database) -> String {
        let (port, name) = (self.port, &database.name);
        format!(
            "postgresql://{{{{username}}}}:{{{{password}}}}@127.0.0.1:{port}/{name}?sslmode=disable"
        )
    }
}

#[test]
fn a_pooler_that_shares_sessions_is_refused_and_one_that_keeps_them_apart_is_not() {
    let database = Database::shared();
    let server = Server::open();
    let root = server.root();
    let mut connection = database.connection();
    for mode in ["transaction", "session"] {
        let pooler = match Pooler::start(&database, mode) {
            Ok(pooler) => pooler,
            Err(reason) => return skipped(&reason),
        };
        connection["connection_url"] = json!(pooler.url(&database));
        if mode == "transaction" {
            root.post("db/config/main", connection.clone()).refused(400, "pool_mode = session");
            // Whoever says so may write it down; nothing is made by it.
            let mut unseen = connection.clone();
            unseen["verify_connection"] = json!(false);
            root.post("db/config/unseen", unseen).expect(204);
            let role =
                json!({"db_name": "unseen", "creation_statements": [CREATE], "verify": false});
            root.post("db/roles/unseen", role).expect(200);
            root.get("db/creds/unseen").refused(503, "pooler");
            continue;
        }
        root.post("db/config/main", connection.clone()).expect(204);
        // Warned of: this pooler asks nobody for a password.
        let role = json!({"db_name": "main", "creation_statements": [CREATE]});
        root.post("db/roles/app", role).expect(200);
        let login = Login::mint(&root, "db/creds/app");
        let session = database.login(&login.user, &login.password).unwrap();
        root.put("sys/leases/renew", json!({"lease_id": login.lease, "increment": 60})).expect(200);
        root.put("sys/leases/revoke", json!({"lease_id": login.lease, "sync": true})).expect(204);
        assert!(session.run("SELECT 1").is_err());
        eventually("the role is gone", Duration::from_secs(10), || {
            (!database.has_role(&login.user)).then_some(())
        });
    }
}
