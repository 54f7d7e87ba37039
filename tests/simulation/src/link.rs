//! How a run of the server reaches a model: sessions whose answers get lost, come late, or go on
//! though nobody waits for them any more.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use mssm_minter::{DbError, Dialer, Row, Session, Spec};
use tokio::sync::oneshot;

use crate::weather::Weather;

const DEADLINE: Duration = Duration::from_secs(10);

/// A model, as its sessions see it.
pub(crate) trait Server: Clone + Send + Sync + 'static {
    fn weather(&self) -> &Weather;

    /// A new session's number.
    fn connect(&self, application: &str, boot: u64) -> Result<u64, DbError>;

    /// What is answered at once and never lost.
    fn facts(&self, pid: u64, sql: &str) -> Option<Vec<Row>>;

    /// A session is at work, or no more.
    fn set_busy(&self, pid: u64, busy: bool);

    /// What one session does with one text of SQL; goes on whoever waits for it.
    fn execute(&self, pid: u64, sql: &str) -> impl Future<Output = Result<Vec<Row>, DbError>>;

    /// Nobody has the other end any more: it ends once it is idle.
    fn hang_up_one(&self, pid: u64);

    fn lives(&self, pid: u64) -> bool;
}

/// How one run of the server reaches it.
pub(crate) struct Way<S> {
    pub(crate) server: S,
    pub(crate) boot: u64,
    pub(crate) dead: Arc<AtomicBool>,
}

struct Link<S: Server> {
    server: S,
    pid: u64,
    dead: Arc<AtomicBool>,
    usable: AtomicBool,
}

impl<S: Server> Dialer for Way<S> {
    fn dial<'a>(
        &'a self,
        spec: &'a Spec,
        _database: Option<&'a str>,
    ) -> BoxFuture<'a, Result<Box<dyn Session>, DbError>> {
        let (server, dead) = (self.server.clone(), Arc::clone(&self.dead));
        let (application, boot) = (spec.application().to_owned(), self.boot);
        async move {
            tokio::time::sleep(server.weather().span()).await;
            if dead.load(Ordering::SeqCst) {
                return std::future::pending().await;
            }
            let pid = server.connect(&application, boot)?;
            let link = Link { server, pid, dead, usable: AtomicBool::new(true) };
            Ok(Box::new(link) as Box<dyn Session>)
        }
        .boxed()
    }
}

impl<S: Server> Session for Link<S> {
    fn run<'a>(&'a self, sql: &'a str) -> BoxFuture<'a, Result<Vec<Row>, DbError>> {
        async move {
            if self.dead.load(Ordering::SeqCst) {
                return std::future::pending().await;
            }
            if let Some(facts) = self.server.facts(self.pid, sql) {
                return Ok(facts);
            }
            let (reply, answer) = oneshot::channel();
            let (server, pid, text) = (self.server.clone(), self.pid, sql.to_owned());
            server.set_busy(pid, true);
            actix_rt::spawn(async move {
                let done = server.execute(pid, &text).await;
                server.set_busy(pid, false);
                let _ = reply.send(done);
            });
            let weather = self.server.weather();
            let patience = if weather.chance(2) {
                Duration::from_millis(weather.random.below(20))
            } else {
                DEADLINE
            };
            let answer = tokio::time::timeout(patience, answer).await;
            if self.dead.load(Ordering::SeqCst) {
                return std::future::pending().await;
            }
            let answer =
                answer.map_or(Err(DbError::Lost), |answer| answer.unwrap_or(Err(DbError::Lost)));
            if answer == Err(DbError::Lost) {
                self.usable.store(false, Ordering::SeqCst);
            }
            answer
        }
        .boxed()
    }

    fn is_usable(&self) -> bool {
        self.usable.load(Ordering::SeqCst) && self.server.lives(self.pid)
    }
}

impl<S: Server> Drop for Link<S> {
    fn drop(&mut self) {
        self.server.hang_up_one(self.pid);
    }
}
