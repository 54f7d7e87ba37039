//! Behind a pooler that gives one session of the database to many: nothing is made, and what is there
//! can be ended.

use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use mssm_messages::engine::{EngineError, Outcome};
use mssm_messages::minter::ConnectionPatch;
use mssm_testkit::TestPostgres;
use tokio::sync::Mutex;

use super::revoking::rig;
use crate::engine::{DbError, Dialer, Row, Servers, Session};
use crate::spec::Spec;
use crate::testing::{CREATE, Rig, patch, real_now};

/// Gives what few sessions there are to whoever has a transaction, the one that was used last first.
#[derive(Default)]
struct Pooler {
    idle: Arc<Mutex<Vec<Box<dyn Session>>>>,
}

struct Client(Arc<Mutex<Vec<Box<dyn Session>>>>);

impl Dialer for Pooler {
    fn dial<'a>(
        &'a self,
        spec: &'a Spec,
        database: Option<&'a str>,
    ) -> BoxFuture<'a, Result<Box<dyn Session>, DbError>> {
        async move {
            // One more for each client, so that nobody waits.
            self.idle.lock().await.insert(0, Servers.dial(spec, database).await?);
            let client: Box<dyn Session> = Box::new(Client(Arc::clone(&self.idle)));
            Ok(client)
        }
        .boxed()
    }
}

impl Session for Client {
    fn run<'a>(&'a self, sql: &'a str) -> BoxFuture<'a, Result<Vec<Row>, DbError>> {
        async move {
            let session = self.0.lock().await.pop().ok_or(DbError::Busy)?;
            let done = session.run(sql).await;
            self.0.lock().await.push(session);
            done
        }
        .boxed()
    }

    fn is_usable(&self) -> bool {
        true
    }
}

#[actix_rt::test]
async fn behind_a_pooler_that_shares_sessions_nothing_is_made_and_what_is_there_can_be_ended() {
    let postgres = TestPostgres::shared();
    let (direct, database) = rig(postgres).await;
    let login = direct.mint("app").await.unwrap();
    let session = postgres.connect(&login.username, &login.password, &database.name).await.unwrap();
    direct.close().await;
    let pooled = Rig::over(Arc::new(Pooler::default()), direct.seed + 1, &direct.store);
    pooled.clock.set(real_now());
    let pooled = pooled.open().await;
    // It led to the database itself when it was written.
    let refused = pooled.mint("app").await.err().unwrap();
    assert!(!refused.in_doubt && refused.to_string().contains("pooler"), "{refused}");
    let refused = pooled.extend(&login, std::time::Duration::from_hours(1)).await.unwrap_err();
    assert!(refused.to_string().contains("pooler"), "{refused}");
    assert!(pooled.rotate_root().await.unwrap_err().to_string().contains("pooler"));
    assert_eq!(pooled.revoke(&login).await, Outcome::Gone);
    assert!(session.query("SELECT 1", &[]).await.is_err());
    assert!(!postgres.role_exists(&login.username).await);
    let refused = pooled.connect(patch(postgres, &database.name)).await.unwrap_err();
    assert!(
        matches!(&refused, EngineError::Invalid(why) if why.contains("pool_mode")),
        "{refused}"
    );
    let unseen =
        ConnectionPatch { verify_connection: Some(false), ..patch(postgres, &database.name) };
    pooled.connect(unseen).await.unwrap();
    pooled.role("app", &[CREATE]).await.unwrap();
    assert!(pooled.mint("app").await.is_err());
}
