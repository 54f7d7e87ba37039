//! What is under way with a lease or a connection, while its guard lives.

use std::rc::Rc;

use mssm_domain::{LeaseId, MountId};

use super::Book;

/// A login that is being made, or ended.
pub(crate) struct Making {
    pub(super) book: Rc<Book>,
    pub(super) lease: LeaseId,
}

impl Drop for Making {
    fn drop(&mut self) {
        self.book.state.borrow_mut().making.remove(&self.lease);
    }
}

/// A connection that is about to go, or to lead elsewhere: nothing new is decided on it.
pub(crate) struct Leaving {
    pub(super) book: Rc<Book>,
    pub(super) key: (MountId, String),
}

impl Drop for Leaving {
    fn drop(&mut self) {
        self.book.state.borrow_mut().leaving.remove(&self.key);
    }
}
