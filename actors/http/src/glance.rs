//! One question for all who ask it at the same moment: how many look is nobody's burden.

use std::cell::RefCell;

use futures_util::FutureExt;
use futures_util::future::{LocalBoxFuture, WeakShared};

/// An answer that is on its way to one worker; whoever asks meanwhile is told the same.
pub(crate) struct Glance<T: Clone>(RefCell<Option<WeakShared<LocalBoxFuture<'static, T>>>>);

impl<T: Clone> Default for Glance<T> {
    fn default() -> Self {
        Self(RefCell::new(None))
    }
}

impl<T: Clone + 'static> Glance<T> {
    /// Asks, unless somebody has asked and was not answered yet.
    pub(crate) async fn of<F>(&self, ask: impl FnOnce() -> F) -> T
    where
        F: Future<Output = T> + 'static,
    {
        let under_way = self.0.borrow().as_ref().and_then(WeakShared::upgrade);
        let answer = under_way.filter(|answer| answer.peek().is_none()).unwrap_or_else(|| {
            let answer = ask().boxed_local().shared();
            *self.0.borrow_mut() = answer.downgrade();
            answer
        });
        answer.await
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::rc::Rc;

    use futures_util::future::{join, join_all};
    use tokio::sync::Notify;

    use super::*;

    #[actix_rt::test]
    async fn who_looks_at_the_same_moment_is_told_one_answer_and_who_comes_later_another() {
        let (glance, asked) = (Glance::default(), Cell::new(0));
        let answered = Rc::new(Notify::new());
        let look = || {
            glance.of(|| {
                asked.set(asked.get() + 1);
                let (answer, answered) = (asked.get(), Rc::clone(&answered));
                async move {
                    answered.notified().await;
                    answer
                }
            })
        };
        let looks = join_all((0..20).map(|_| look()));
        assert_eq!(join(looks, async { answered.notify_one() }).await.0, [1; 20]);
        assert_eq!(join(look(), async { answered.notify_one() }).await.0, 2);
        // Who goes away in the middle keeps nobody from asking anew.
        {
            let mut gone = Box::pin(look());
            assert!(futures_util::poll!(gone.as_mut()).is_pending());
        }
        assert_eq!(join(look(), async { answered.notify_one() }).await.0, 4);
    }
}
