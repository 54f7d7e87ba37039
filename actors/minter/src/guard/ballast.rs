//! Room in the server's table of locks, kept for the ends of logins.
//!
//! Whoever may connect can take advisory locks until the whole server has no room for another lock. Then
//! nobody can log in, alter a role or so much as look at one, and whoever did it goes on reading. So the
//! session that has our lock has some more, for which nobody waits, and lets go of them when that happens.

use mssm_domain::{ClusterId, Random};

use super::badge::end_logins;
use super::{Guard, PAUSE, SETTINGS, TRIES};
use crate::engine::DbError;
use crate::pool::Live;

/// "out of shared memory".
pub(crate) const NO_ROOM: &str = "53200";
/// How many. Ending a login takes a dozen, and so does beginning a session.
const LOCKS: u32 = 64;

/// Takes the locks; replies their class, which nobody can have guessed.
pub(super) async fn load(live: &Live, random: &dyn Random) -> Result<i32, DbError> {
    let mut bytes = [0; 4];
    random.fill(&mut bytes);
    let class = i32::from_ne_bytes(bytes);
    let take = format!(
        "{SETTINGS}; SELECT count(*) FROM generate_series(1, {LOCKS}) lock \
         WHERE pg_try_advisory_lock({class}, lock)"
    );
    live.run(&take).await.map(|_| class)
}

/// A query that fails where there is no room for what a rung takes; one row. Nobody has its locks already.
pub(crate) fn has_room() -> String {
    format!(
        "SELECT count(*) AS room FROM generate_series(1, {LOCKS} / 2) lock \
         WHERE pg_try_advisory_xact_lock((random() * 2147483647)::int, lock)"
    )
}

impl Guard {
    /// The table of locks is full: makes room, and ends sessions of our logins that have more than their share.
    pub(crate) async fn make_room(&self, cluster: ClusterId) {
        for _ in 0..TRIES {
            if !self.beating.get() {
                break;
            }
            tokio::time::sleep(PAUSE).await;
        }
        let Some(live) = self.held.borrow().clone() else { return };
        if self.beating.replace(true) {
            return;
        }
        let drop = self.ballast.take().map_or(String::new(), |class| {
            format!(
                "SELECT FROM generate_series(1, {LOCKS}) lock \
                 WHERE NOT pg_advisory_unlock({class}, lock);\n"
            )
        });
        tracing::warn!(
            "the database server has no room for another lock, and its logins that have most are ended"
        );
        end_logins(cluster, &live, &drop, HOARDERS).await;
        self.beating.set(false);
    }
}

/// Who has more locks than the server reckons with for each session.
const HOARDERS: &str = "(SELECT pid FROM pg_locks WHERE pid IS NOT NULL GROUP BY 1 \
     HAVING count(*) > current_setting('max_locks_per_transaction')::int) l \
     JOIN pg_stat_activity a ON a.pid = l.pid WHERE true";
