//! What the suite asks of a database, whichever kind it is.

use serde_json::{Value, json};

use crate::harness::{CREATE, Database, Login};
use crate::mysql::{self, Shop};

/// A database whose logins are looked at from outside.
pub(super) trait Victim {
    /// What `POST db/config/:name` wants to hear.
    fn connection(&self) -> Value;

    /// The roles of the suite, in the order of their names there.
    fn definitions(&self) -> [Value; 7];

    /// The logins that are there and a server's own.
    fn marked(&self, cluster: &str) -> Vec<String>;

    fn has(&self, user: &str) -> bool;

    fn accepts(&self, login: &Login) -> bool;

    /// What makes a login the server's, but for its name.
    fn marker(&self, user: &str) -> String;

    fn drop_login(&self, user: &str);

    /// Makes a login that had been dropped, with its marker.
    fn make_again(&self, user: &str, marker: &str);
}

impl Victim for Database {
    fn connection(&self) -> Value {
        Self::connection(self)
    }

    fn definitions(&self) -> [Value; 7] {
        let grant = "GRANT SELECT ON orders TO \"{{name}}\"";
        let fails = ["SELECT 1 / 0"];
        // Fails now and then: five times in a row, after which half a minute is waited, never.
        let end = "DROP OWNED BY \"{{name}}\"; DROP ROLE IF EXISTS \"{{name}}\"";
        [
            json!({"creation_statements": [CREATE, grant]}),
            json!({"creation_statements": [CREATE]}),
            json!({"creation_statements": [CREATE, grant], "default_ttl": "1s"}),
            json!({"creation_statements": [CREATE], "renew_statements": fails}),
            json!({"creation_statements": [CREATE],
                "revocation_statements": ["SELECT 1 / (random() < 0.9)::int", end]}),
            json!({"creation_statements": [CREATE, "SELECT 1 / 0"]}),
            json!({"creation_statements": [CREATE], "reuse_window": "10m"}),
        ]
    }

    fn marked(&self, cluster: &str) -> Vec<String> {
        self.marked_roles(cluster)
    }

    fn has(&self, user: &str) -> bool {
        self.has_role(user)
    }

    fn accepts(&self, login: &Login) -> bool {
        Self::accepts(self, login)
    }

    fn marker(&self, user: &str) -> String {
        self.query(&format!(
            "SELECT shobj_description(oid, 'pg_authid') FROM pg_roles WHERE rolname = '{user}'"
        ))
        .remove(0)
    }

    fn drop_login(&self, user: &str) {
        self.sql(&format!("DROP ROLE \"{user}\""));
    }

    fn make_again(&self, user: &str, marker: &str) {
        self.sql(&format!(
            "CREATE ROLE \"{user}\" LOGIN; COMMENT ON ROLE \"{user}\" IS '{marker}'"
        ));
    }
}

/// On a server of its own: nothing but the names says whose the logins are.
impl Victim for Shop {
    fn connection(&self) -> Value {
        Self::connection(self)
    }

    fn definitions(&self) -> [Value; 7] {
        let create = mysql::CREATE;
        let grant = self.grant();
        let fails = "SELECT * FROM nowhere.nothing";
        // Fails now and then, for it overflows.
        let moody = ["SELECT EXP(IF(RAND() < 0.9, 1, 1000))", "DROP USER IF EXISTS '{{name}}'@'%'"];
        [
            json!({"creation_statements": [create, grant]}),
            json!({"creation_statements": [create]}),
            json!({"creation_statements": [create, grant], "default_ttl": "1s"}),
            json!({"creation_statements": [create], "renew_statements": [fails]}),
            json!({"creation_statements": [create], "revocation_statements": moody}),
            json!({"creation_statements": [create, fails]}),
            json!({"creation_statements": [create], "reuse_window": "10m"}),
        ]
    }

    fn marked(&self, _cluster: &str) -> Vec<String> {
        self.minted()
    }

    fn has(&self, user: &str) -> bool {
        self.runtime.block_on(self.server().user_exists(user))
    }

    fn accepts(&self, login: &Login) -> bool {
        Self::accepts(self, login)
    }

    fn marker(&self, _user: &str) -> String {
        String::new()
    }

    fn drop_login(&self, user: &str) {
        self.sql(&format!("DROP USER '{user}'@'%'"));
    }

    fn make_again(&self, user: &str, _marker: &str) {
        self.sql(&format!("CREATE USER '{user}'@'%'"));
    }
}
