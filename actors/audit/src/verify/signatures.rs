//! Checks signatures beside the reading of lines: they cost more than all else.

use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::{Scope, ScopedJoinHandle};

use mssm_crypto::chain::CheckpointVerifier;

use super::lines::Place;

/// How many checkpoints may wait for a worker.
const WAITING: usize = 1024;

/// A checkpoint whose line is right in all but perhaps its signature.
pub(super) struct Claim {
    pub(super) seq: u64,
    pub(super) place: Place,
    /// The first record that no earlier checkpoint covers.
    pub(super) since: u64,
    /// What is said to be signed.
    pub(super) text: String,
    pub(super) signature: Vec<u8>,
    /// True if the next line names this line's hash.
    pub(super) linked: bool,
}

/// The workers, one a core.
pub(super) struct Checkers<'scope> {
    workers: Vec<Worker<'scope>>,
    turn: usize,
}

struct Worker<'scope> {
    claims: SyncSender<Claim>,
    /// Replies the first claim that did not hold.
    thread: ScopedJoinHandle<'scope, Option<Claim>>,
}

impl<'scope> Checkers<'scope> {
    /// Starts them.
    pub(super) fn start<'env>(
        scope: &'scope Scope<'scope, 'env>,
        key: &'env CheckpointVerifier,
    ) -> Self {
        let number = std::thread::available_parallelism().map_or(1, usize::from);
        let workers = (0..number).map(|_| {
            let (claims, waiting) = sync_channel::<Claim>(WAITING);
            let thread = scope.spawn(move || {
                waiting
                    .into_iter()
                    .find(|claim| key.verify(claim.text.as_bytes(), &claim.signature).is_err())
            });
            Worker { claims, thread }
        });
        Self { workers: workers.collect(), turn: 0 }
    }

    /// Has a claim checked by and by.
    pub(super) fn check(&mut self, claim: Claim) {
        self.turn = (self.turn + 1) % self.workers.len().max(1);
        if let Some(worker) = self.workers.get(self.turn) {
            // A worker that has found a false one takes no more.
            let _ = worker.claims.send(claim);
        }
    }

    /// The first claim that did not hold, of all.
    pub(super) fn finish(self) -> Option<Claim> {
        let threads: Vec<_> = self.workers.into_iter().map(|worker| worker.thread).collect();
        let found = threads.into_iter().filter_map(|thread| thread.join().ok().flatten());
        found.min_by_key(|claim| claim.seq)
    }
}
