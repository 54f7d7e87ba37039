//! A panic ends one request, never an actor.

use std::any::Any;
use std::future::Future;
use std::panic::AssertUnwindSafe;

use futures_util::FutureExt;

/// A handler panicked; what it was doing is undone or left to its owner's recovery.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("internal error")]
pub struct Panicked;

/// Runs a handler's synchronous part; a panic becomes an error.
pub fn guarded<T>(work: impl FnOnce() -> T) -> Result<T, Panicked> {
    std::panic::catch_unwind(AssertUnwindSafe(work)).map_err(|panic| report(panic.as_ref()))
}

/// Runs a handler's future; a panic becomes an error.
pub async fn guarded_async<T>(work: impl Future<Output = T>) -> Result<T, Panicked> {
    AssertUnwindSafe(work).catch_unwind().await.map_err(|panic| report(panic.as_ref()))
}

fn report(panic: &(dyn Any + Send)) -> Panicked {
    let place = panic.downcast_ref::<&str>().copied().unwrap_or("a handler panicked");
    tracing::error!(place, "panic caught");
    Panicked
}
