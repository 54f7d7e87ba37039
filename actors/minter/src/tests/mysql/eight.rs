//! What MySQL 8 is told, where it differs from MariaDB: on a server that says it is one.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use mssm_domain::SecretText;
use mssm_messages::engine::Outcome;
use mssm_messages::minter::ConnectionPatch;
use mssm_testkit::MemoryStore;

use super::CREATE;
use crate::engine::{DbError, Dialer, Row, Session};
use crate::spec::Spec;
use crate::testing::{Rig, no, row};

/// What it says to SQL that holds some words.
type Answers = Vec<(&'static str, Result<Vec<Row>, DbError>)>;

/// A MySQL of some version, with what it was asked and what it says to it.
#[derive(Clone)]
pub(super) struct Server {
    version: &'static str,
    asked: Arc<Mutex<Vec<String>>>,
    answers: Arc<Mutex<Answers>>,
}

impl Server {
    pub(super) fn new(version: &'static str) -> Self {
        Self { version, asked: Arc::default(), answers: Arc::default() }
    }

    pub(super) const fn version(&self) -> &'static str {
        self.version
    }

    pub(super) fn answer(&self, words: &'static str, answer: Result<Vec<Row>, DbError>) {
        self.answers.lock().unwrap().push((words, answer));
    }

    pub(super) fn asked(&self) -> Vec<String> {
        std::mem::take(&mut self.asked.lock().unwrap())
    }

    async fn rig(&self) -> Rig {
        let rig = Rig::over(Arc::new(self.clone()), 8, &MemoryStore::new()).open().await;
        let patch = ConnectionPatch {
            plugin_name: Some("mysql-rds-database-plugin".to_owned()),
            connection_url: Some(SecretText::new("tcp(127.0.0.1)/".to_owned())),
            username: Some("admin".to_owned()),
            password: Some(SecretText::new("adminsecret".to_owned())),
            allowed_roles: Some(vec!["*".to_owned()]),
            ..ConnectionPatch::default()
        };
        rig.connect(patch).await.unwrap();
        rig.role("app", &[CREATE]).await.unwrap();
        self.asked();
        rig
    }
}

impl Dialer for Server {
    fn dial<'a>(
        &'a self,
        _spec: &'a Spec,
        _database: Option<&'a str>,
    ) -> BoxFuture<'a, Result<Box<dyn Session>, DbError>> {
        let session: Box<dyn Session> = Box::new(self.clone());
        async move { Ok(session) }.boxed()
    }
}

impl Session for Server {
    fn run<'a>(&'a self, sql: &'a str) -> BoxFuture<'a, Result<Vec<Row>, DbError>> {
        let known = [
            ("VERSION()", vec![self.version, "42", ""]),
            ("GET_LOCK(", vec!["1", "1"]),
            ("SHOW GRANTS", vec!["GRANT ALL PRIVILEGES ON *.* TO `admin`@`%`"]),
            ("@@server_uuid", vec!["3e11fa47-71ca-11e1-9e33-c80aa9429562"]),
            ("UNIX_TIMESTAMP(NOW(3))", vec!["1800000000000"]),
            ("read_only", vec!["admin", "f"]),
        ];
        let opening = known.iter().find(|(words, _)| sql.contains(words));
        let answer = match opening {
            Some((_, fields)) => Ok(vec![row(fields)]),
            None if ["SET SESSION", "DO 0", "SELECT 'mssm guard'"]
                .iter()
                .any(|words| sql.starts_with(words)) =>
            {
                Ok(Vec::new())
            }
            None => {
                self.asked.lock().unwrap().push(sql.to_owned());
                let mut answers = self.answers.lock().unwrap();
                match answers.iter().position(|(words, _)| sql.contains(words)) {
                    Some(index) => answers.remove(index).1,
                    None => Ok(Vec::new()),
                }
            }
        };
        async move { answer }.boxed()
    }

    fn is_usable(&self) -> bool {
        true
    }
}

#[actix_rt::test]
async fn mysql_8_is_given_the_password_and_the_marker() {
    let server = Server::new("8.0.36");
    let rig = server.rig().await;
    let login = rig.mint("app").await.unwrap();
    let (name, password) = (&login.username, &login.password);
    let asked = server.asked();
    assert_eq!(asked.len(), 2, "{asked:?}");
    assert_eq!(asked[0], format!("CREATE USER '{name}'@'%' IDENTIFIED BY '{password}'"));
    let begins = format!(
        "ALTER USER '{name}'@'%' WITH MAX_USER_CONNECTIONS 10 PASSWORD EXPIRE INTERVAL 1 DAY \
         ATTRIBUTE '{{\"mssm\": \"mssm"
    );
    assert!(asked[1].starts_with(&begins), "{}", asked[1]);
    server.answer("password_last_changed", Ok(vec![row(&["%", "1800000000.000000"])]));
    rig.extend(&login, Duration::from_hours(1)).await.unwrap();
    let asked = server.asked();
    let asks =
        format!("UNIX_TIMESTAMP(password_last_changed) FROM mysql.user WHERE User = '{name}'");
    assert!(asked[0].contains(&asks), "{asked:?}");
    let prolongs = format!("ALTER USER '{name}'@'%' PASSWORD EXPIRE INTERVAL 1 DAY");
    assert_eq!(asked[1], prolongs);
    server.answer("FROM mysql.user", Ok(vec![row(&[name, "%"])]));
    assert_eq!(rig.revoke(&login).await, Outcome::Gone);
    let asked = server.asked();
    assert!(asked.contains(&format!("ALTER USER '{name}'@'%' ACCOUNT LOCK")), "{asked:?}");
    assert!(asked.contains(&format!("DROP USER IF EXISTS '{name}'@'%'")), "{asked:?}");
}

#[actix_rt::test]
async fn a_marker_under_another_name_is_told_and_an_old_server_has_none() {
    let server = Server::new("8.4.0");
    let rig = server.rig().await;
    let login = rig.mint("app").await.unwrap();
    let marker = server.asked()[1].split('"').nth(3).unwrap().to_owned();
    server.answer("USER_ATTRIBUTES", Ok(vec![row(&[&marker, "renamed"])]));
    match rig.revoke(&login).await {
        Outcome::Failed(why) => assert!(why.contains("renamed to \"renamed\""), "{why}"),
        other => panic!("{other:?}"),
    }
    let old = Server::new("5.7.44-log");
    let rig = old.rig().await;
    let login = rig.mint("app").await.unwrap();
    assert!(!old.asked()[1].contains("ATTRIBUTE"));
    assert_eq!(rig.revoke(&login).await, Outcome::Gone);
    assert!(!old.asked().iter().any(|sql| sql.contains("USER_ATTRIBUTES")));
    let ancient = Server::new("5.6.51");
    let error = Rig::over(Arc::new(ancient), 9, &MemoryStore::new()).open().await;
    let patch = ConnectionPatch {
        plugin_name: Some("mysql-database-plugin".to_owned()),
        connection_url: Some(SecretText::new("tcp(127.0.0.1)/".to_owned())),
        username: Some("admin".to_owned()),
        ..ConnectionPatch::default()
    };
    let error = error.connect(patch).await.unwrap_err().to_string();
    assert!(error.contains("too old"), "{error}");
}

#[actix_rt::test]
async fn a_login_that_cannot_be_taken_back_goes_down_the_ladder() {
    let server = Server::new("8.0.36");
    let rig = server.rig().await;
    server.answer("ALTER USER", Err(no("1227", "Access denied")));
    server.answer("DROP USER", Err(no("4006", "used as a definer")));
    let prepared = rig.prepare("app").await.unwrap();
    let error = rig.create(&prepared, &rig.lease()).await.unwrap_err();
    assert!(error.in_doubt, "{error}");
    server.answer("ALTER USER", Err(no("1227", "Access denied")));
    let error = rig.create(&prepared, &rig.lease()).await.unwrap_err();
    assert!(!error.in_doubt, "{error}");
    server.answer("CREATE USER", Err(DbError::Lost));
    let error = rig.create(&prepared, &rig.lease()).await.unwrap_err();
    assert!(error.in_doubt, "{error}");
}
