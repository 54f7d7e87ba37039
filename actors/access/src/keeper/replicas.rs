//! The replicas: who is told of changes, and what becomes of those who do not answer.

use std::cell::{Cell, RefCell};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use actix::Recipient;
use futures_util::future::join_all;
use mssm_domain::TokenId;

use crate::policies::PolicySet;
use crate::words::{Forget, Install, Policed, Register};

/// How long a replica may take to acknowledge.
const DEADLINE: Duration = Duration::from_secs(1);

/// Every replica, and what all of them have or are about to get.
#[derive(Default)]
pub(super) struct Replicas {
    links: RefCell<Vec<Link>>,
    epoch: Cell<u64>,
    in_force: RefCell<Option<Arc<PolicySet>>>,
}

#[derive(Clone)]
struct Link {
    install: Recipient<Install>,
    forget: Recipient<Forget>,
    retired: Arc<AtomicBool>,
}

impl Replicas {
    /// Adds a replica; replies what is in force.
    pub(super) fn add(&self, register: Register) -> Policed {
        let Register { install, forget, retired } = register;
        self.links.borrow_mut().push(Link { install, forget, retired });
        self.policed()
    }

    /// Installs policies everywhere (`None`: sealed); returns when no replica uses older ones.
    pub(super) async fn install(&self, policies: Option<Arc<PolicySet>>) {
        self.epoch.set(self.epoch.get() + 1);
        self.in_force.replace(policies);
        let policed = self.policed();
        self.tell(|link| {
            let reply = link.install.send(Install(policed.clone())).timeout(DEADLINE);
            async move { reply.await.is_ok() }
        })
        .await;
    }

    /// Has tokens read anew everywhere; returns when no replica uses what it held of them.
    pub(super) async fn forget(&self, tokens: Vec<TokenId>) {
        let tokens: Arc<[TokenId]> = tokens.into();
        self.tell(|link| {
            let reply = link.forget.send(Forget(Arc::clone(&tokens))).timeout(DEADLINE);
            async move { reply.await.is_ok() }
        })
        .await;
    }

    fn policed(&self) -> Policed {
        Policed { epoch: self.epoch.get(), policies: self.in_force.borrow().clone() }
    }

    /// Tells every replica. One that does not answer is given up: it must not use what it holds any
    /// more, and sees that at its next step.
    async fn tell<F: Future<Output = bool>>(&self, send: impl Fn(&Link) -> F) {
        let links = self.links.borrow().clone();
        let answers = join_all(links.iter().map(send)).await;
        let mut silent = false;
        for (link, answered) in links.iter().zip(answers) {
            if !answered {
                link.retired.store(true, Ordering::SeqCst);
                silent = true;
            }
        }
        if silent {
            self.links.borrow_mut().retain(|link| !link.retired.load(Ordering::SeqCst));
        }
    }
}
