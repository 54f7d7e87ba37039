//! All policies, compiled for each set that tokens have; kept while it is used.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use mssm_domain::PolicyName;

use crate::cache::Cache;
use crate::policy::{Acl, Policy};

/// How many compiled sets are kept, half of it.
const SETS_HALF: usize = 256;

/// Every policy by its name; `root` is not among them. Shared by all workers, replaced as a whole.
pub(crate) type PolicySet = BTreeMap<PolicyName, Arc<Policy>>;

/// The policies in force, and what was compiled of them.
#[derive(Debug)]
pub(crate) struct Policies {
    set: Arc<PolicySet>,
    compiled: Cache<Vec<PolicyName>, Rc<Acl>>,
}

impl Policies {
    /// Nothing compiled yet.
    pub(crate) fn new(set: Arc<PolicySet>) -> Self {
        Self { set, compiled: Cache::new(SETS_HALF) }
    }

    /// The policies.
    pub(crate) const fn set(&self) -> &Arc<PolicySet> {
        &self.set
    }

    /// Puts other policies in their place.
    pub(crate) fn replace(&mut self, set: Arc<PolicySet>) {
        self.set = set;
        self.compiled.clear();
    }

    /// What a token with these policies (sorted) may do. Those that are not there allow nothing.
    pub(crate) fn acl(&mut self, names: &Vec<PolicyName>) -> Rc<Acl> {
        if let Some(acl) = self.compiled.get(names) {
            return acl;
        }
        let acl = if names.iter().any(PolicyName::is_root) {
            Acl::root()
        } else {
            let found = names.iter().filter_map(|name| Some((name, self.set.get(name)?.as_ref())));
            Acl::new(found)
        };
        let acl = Rc::new(acl);
        self.compiled.insert(names.clone(), Rc::clone(&acl));
        acl
    }
}
