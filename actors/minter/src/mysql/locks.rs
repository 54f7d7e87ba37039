//! Named locks by which any session of ours finds, ends and sees gone any other.
//!
//! Nothing else tells whose a session is: MariaDB shows no name of a program. A server frees such a lock
//! in the session's own thread, after its last statement: who holds none has nothing under way.
//!
//! Each session takes two, with the same number: one of this run of the server, one of its cluster. So
//! whoever holds the second and not the first belongs to an earlier run.
//!
//! Anybody who may connect can take a lock of any name, a login that is to be ended among them. Who may
//! make no users is no server of ours, and loses its session where it is in the way.

use std::collections::BTreeMap;
use std::time::Duration;

use mssm_domain::{BootId, ClusterId};

use super::errors::{MAY_NOT_KILL, NO_SUCH_SESSION};
use super::facts::OWN_USER;
use super::quote::literal;
use crate::engine::{DbError, Session};
use crate::guard::Standing;
use crate::pool::{Backend, Live};
use crate::spec::{Lane, application_name, cluster_prefix};

/// More than the sessions that one run opens on all connections to one server.
const SLOTS: u64 = 256;
/// How often we look whether sessions that were told to end have: about 5 s in all.
const LOOKS: u32 = 20;

/// The names of locks, but for their numbers.
pub(crate) struct Locks {
    run: String,
    cluster: String,
}

impl Locks {
    /// Those of the sessions of a name, as `mssm:<cluster>:<boot><lane>`.
    pub(crate) fn of(application: &str) -> Self {
        let mut parts = application.split(':').skip(1);
        let (cluster, boot) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        // 64 characters are all there is.
        let boot = boot.get(..16).unwrap_or(boot);
        Self { run: format!("mssm:{cluster}:{boot}:"), cluster: format!("mssm:{cluster}:") }
    }

    /// Those of a run's sessions.
    pub(crate) fn of_run(cluster: ClusterId, boot: BootId) -> Self {
        Self::of(&application_name(cluster, boot, Lane::Revoke))
    }

    /// Takes both, with the first number that is free; replies the name of the run's.
    pub(crate) async fn take(&self, session: &dyn Session, id: u64) -> Result<String, DbError> {
        for step in 0..SLOTS {
            let number = (id + step) % SLOTS;
            if step == 1 {
                self.end_posing(session).await;
            }
            let (run, cluster) = self.pair(number);
            let sql = format!(
                "SELECT GET_LOCK({}, 0), GET_LOCK({}, 0)",
                literal(&run),
                literal(&cluster)
            );
            let row = session.run(&sql).await?.into_iter().next().unwrap_or_default();
            let taken = row.iter().filter(|field| field.as_deref() == Some("1")).count();
            if taken == 2 {
                return Ok(run);
            }
            // Whoever holds one of a pair would look like one of an earlier run to others.
            let (run, cluster) = (literal(&run), literal(&cluster));
            session.run(&format!("DO RELEASE_LOCK({run}), RELEASE_LOCK({cluster})")).await?;
        }
        Err(DbError::Busy)
    }

    /// Ends those who hold locks of ours and are no servers; a refusal costs a word in the log.
    async fn end_posing(&self, session: &dyn Session) {
        let names = (0..SLOTS).flat_map(|number| <[String; 2]>::from(self.pair(number)));
        if let Err(why) = end_in(session, &posing(names)).await {
            tracing::warn!(why, "sessions that hold locks of ours and are not ours go on");
        }
    }

    fn pair(&self, number: u64) -> (String, String) {
        (format!("{}{number}", self.run), format!("{}{number}", self.cluster))
    }

    /// Ends every session of earlier runs and sees them gone.
    pub(crate) async fn end_earlier(&self, live: &Live) -> Result<(), String> {
        let fields = (0..SLOTS).map(|number| {
            let (run, cluster) = self.pair(number);
            let (run, cluster) = (literal(&run), literal(&cluster));
            format!("(SELECT IS_USED_LOCK({cluster}) id, IS_USED_LOCK({run}) own)")
        });
        let pairs = fields.collect::<Vec<_>>().join(" UNION ALL ");
        let sql = format!("SELECT id FROM ({pairs}) held WHERE id IS NOT NULL AND NOT id <=> own");
        end(live, &sql).await
    }
}

/// A server whose machine is gone loses its session, and the lock, when it has not spoken for so long.
pub(crate) const GUARD_SETTINGS: &str = "SET SESSION wait_timeout = 60";

fn guard_name(cluster: ClusterId) -> String {
    format!("{}guard", cluster_prefix(cluster))
}

/// Takes the lock of the one server of a cluster that is at work here.
pub(crate) fn take_guard(cluster: ClusterId) -> String {
    format!("SELECT GET_LOCK({}, 0)", literal(&guard_name(cluster)))
}

/// Finds the sessions that hold some locks and are not of a server: their users may make no users.
fn posing(names: impl Iterator<Item = String>) -> String {
    let held = names.map(|name| format!("(SELECT IS_USED_LOCK({}) id)", literal(&name)));
    let held = held.collect::<Vec<_>>().join(" UNION ALL ");
    format!(
        "SELECT DISTINCT p.ID FROM information_schema.PROCESSLIST p JOIN ({held}) held ON held.id = p.ID \
         WHERE p.USER NOT IN (SELECT User FROM mysql.user WHERE Create_user_priv = 'Y' \
         UNION SELECT {OWN_USER})"
    )
}

/// Who has that lock: another connection of this run, or another server. Who lets go of it right now
/// counts as unknown, and so does who only poses as a server and loses it for that.
pub(crate) async fn guard_holder(
    live: &Live,
    cluster: ClusterId,
    boot: BootId,
) -> Result<Standing, DbError> {
    let locks = Locks::of_run(cluster, boot);
    let own = (0..SLOTS).map(|number| format!("IS_USED_LOCK({})", literal(&locks.pair(number).0)));
    let own = own.collect::<Vec<_>>().join(", ");
    let sql = format!(
        "SELECT id, id IN ({own}) FROM (SELECT IS_USED_LOCK({}) id) held",
        literal(&guard_name(cluster))
    );
    let rows = live.run(&sql).await?;
    let field = |index: usize| rows.first().and_then(|row| row.get(index)?.as_deref());
    let holder = match (field(0), field(1)) {
        (None, _) => return Ok(Standing::Unknown),
        (Some(_), Some("1")) => return Ok(Standing::Ours),
        (Some(id), _) => format!("session {id}"),
    };
    let posing = posing(std::iter::once(guard_name(cluster)));
    if live.run(&posing).await?.is_empty() {
        return Ok(Standing::Others(holder));
    }
    if let Err(why) = end(live, &posing).await {
        tracing::warn!(why, "a session that poses as another server goes on");
    }
    Ok(Standing::Unknown)
}

/// Ends sessions of this run and sees them gone.
pub(crate) async fn end_backends(live: &Live, backends: &[Backend]) -> Result<(), String> {
    // The same number may have gone to another since.
    let by_name: BTreeMap<&str, &str> =
        backends.iter().map(|backend| (backend.started.as_str(), backend.pid.as_str())).collect();
    let one = |(name, id): (&&str, &&str)| {
        format!("(SELECT IS_USED_LOCK({}) id, {} meant)", literal(name), literal(id))
    };
    let pairs: Vec<String> = by_name.iter().map(one).collect();
    if pairs.is_empty() {
        return Ok(());
    }
    let pairs = pairs.join(" UNION ALL ");
    let sql = format!(
        "SELECT id FROM ({pairs}) held WHERE id = CAST(meant AS UNSIGNED) AND id <> CONNECTION_ID()"
    );
    end(live, &sql).await
}

/// Ends what a query finds, until it finds nothing.
pub(super) async fn end(live: &Live, sql: &str) -> Result<(), String> {
    end_in(live.session(), sql).await
}

async fn end_in(session: &dyn Session, sql: &str) -> Result<(), String> {
    for look in 0..LOOKS {
        let rows = session.run(sql).await.map_err(|error| error.public())?;
        if rows.is_empty() {
            return Ok(());
        }
        for id in rows.into_iter().flatten().flatten() {
            kill(session, &id).await?;
        }
        tokio::time::sleep(Duration::from_millis(5 << look.min(6))).await;
    }
    Err("sessions that were told to end do not".to_owned())
}

async fn kill(session: &dyn Session, id: &str) -> Result<(), String> {
    let Ok(id) = id.parse::<u64>() else { return Err("a session has no number".to_owned()) };
    match session.run(&format!("KILL CONNECTION {id}")).await {
        Ok(_) => Ok(()),
        Err(error) if error.code() == NO_SUCH_SESSION => Ok(()),
        Err(error) if error.code() == MAY_NOT_KILL => Err(format!(
            "the connection's user may not end sessions (CONNECTION ADMIN): {}",
            error.public()
        )),
        Err(error) => Err(error.public()),
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn names_of_locks_fit_and_tell_runs_apart() {
        let id = Uuid::from_u128(u128::MAX);
        let name = |boot| {
            application_name(ClusterId::from_uuid(id), BootId::from_uuid(boot), Lane::Revoke)
        };
        let (run, cluster) = Locks::of(&name(id)).pair(SLOTS - 1);
        assert!(run.len() <= 64 && cluster.len() <= 64, "{run} {cluster}");
        assert_ne!(run, Locks::of(&name(Uuid::from_u128(1))).pair(SLOTS - 1).0);
        assert_eq!(cluster, Locks::of(&name(Uuid::from_u128(1))).pair(SLOTS - 1).1);
    }
}
