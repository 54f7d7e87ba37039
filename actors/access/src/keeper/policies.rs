//! Founding, opening, closing; policies are loaded, written and deleted.

use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use mssm_domain::{ExpiryIndex, Fault, PolicyName, RecordPath};
use mssm_messages::Changes;
use mssm_messages::access::{AccessError, DeletePolicy, ReadPolicy, WritePolicy, token_record};
use mssm_messages::seal::{Closing, Found, Opened, Seeds};

use super::{Desk, Open, PAGE, accessor_record, policy_record};
use crate::policies::{Policies, PolicySet};
use crate::policy::{DEFAULT_POLICY, Policy, decode_text};
use crate::token::{
    AccessorRecord, PolicyRecord, accessor_of, broken, decode, encode, encode_token, fingerprint,
    new_text, root,
};

/// How long after opening, and after each time, what the dead left is looked for.
pub(super) const TIDY_EVERY: Duration = Duration::from_hours(6);

impl Desk {
    /// A new store begins with a root token and the default policy.
    pub(super) async fn found(self: Rc<Self>, _msg: Found) -> Result<Seeds, AccessError> {
        let text = new_text(self.random.as_ref());
        let id = fingerprint(&self.barrier, text.duplicate()).await?;
        let id = id.ok_or(AccessError::Internal)?;
        let token = root(self.clock.now(), id, accessor_of(self.random.as_ref())?);
        let accessor = &token.view.accessor;
        let lead = AccessorRecord { accessor: accessor.as_str().to_owned(), token: id.hex() };
        let name = PolicyName::default_policy();
        let policy =
            PolicyRecord { name: name.as_str().to_owned(), text: DEFAULT_POLICY.to_owned() };
        let changes = Changes::new()
            .put(token_record(id), 0, encode_token(&token).map_err(broken)?)
            .put(accessor_record(accessor), 0, encode(&lead).map_err(broken)?)
            .put(policy_record(&name), 0, encode(&policy).map_err(broken)?);
        Ok(Seeds { changes, root_token: Some(text) })
    }

    /// Loads the policies; tokens that end follow behind.
    pub(super) async fn open(self: Rc<Self>, _msg: Opened) -> Result<(), AccessError> {
        let _one_at_a_time = self.policy_change.lock().await;
        let (set, versions) = self.load_policies().await?;
        let set = Arc::new(set);
        let open = Open {
            policies: Policies::new(Arc::clone(&set)),
            versions,
            expiry: ExpiryIndex::default(),
            endings: std::collections::BTreeMap::new(),
            next_ending: 0,
            draining: false,
            next_tidy: self.clock.now().after(TIDY_EVERY),
        };
        self.open.replace(Some(open));
        self.opening.set(self.opening.get() + 1);
        self.replicas.install(Some(set)).await;
        let desk = Rc::clone(&self);
        let opening = self.opening.get();
        actix_rt::spawn(async move { desk.load_tokens(opening).await });
        Ok(())
    }

    /// Forgets everything; no replica knows anybody when this returns.
    pub(super) async fn close(self: Rc<Self>, _msg: Closing) -> Result<(), AccessError> {
        let _one_at_a_time = self.policy_change.lock().await;
        self.open.replace(None);
        self.opening.set(self.opening.get() + 1);
        self.replicas.install(None).await;
        Ok(())
    }

    async fn load_policies(&self) -> Result<(PolicySet, HashMap<PolicyName, u64>), AccessError> {
        let folder = RecordPath::new(&["policy"]);
        let (mut set, mut versions) = (PolicySet::new(), HashMap::new());
        let (mut after, mut unreadable) = (None, false);
        loop {
            let page = self.barrier.scan(&folder, after.as_ref(), PAGE).await?;
            let full = page.len() == PAGE;
            after = page.last().map(|(key, _)| key.clone());
            for (_, plain) in page {
                let read = plain.ok().and_then(|plain| {
                    let record: PolicyRecord = decode(&plain.bytes).ok()?;
                    Some((PolicyName::parse(&record.name).ok()?, record.text, plain.version))
                });
                let Some((name, text, version)) = read else {
                    unreadable = true;
                    continue;
                };
                let policy = Policy::parse(&text).unwrap_or_else(|error| {
                    tracing::error!(policy = %name, error, "stored policy, denies everything now");
                    Policy::deny_everything()
                });
                if let Some(unkept) = &policy.unkept {
                    tracing::error!(policy = %name, unkept, "stored policy, its rule denies");
                }
                set.insert(name.clone(), Arc::new(policy));
                versions.insert(name, version);
            }
            if !full {
                break;
            }
        }
        if unreadable {
            self.deny_unreadable(&folder, &mut set).await?;
        }
        Ok((set, versions))
    }

    /// A policy that cannot be read may have denied something: it denies everything now.
    async fn deny_unreadable(
        &self,
        folder: &RecordPath,
        set: &mut PolicySet,
    ) -> Result<(), AccessError> {
        for child in self.barrier.list(folder, None, usize::MAX).await? {
            let name = hex::decode(&child.name).ok().and_then(|name| String::from_utf8(name).ok());
            let Some(name) = name.and_then(|name| PolicyName::parse(&name).ok()) else { continue };
            set.entry(name).or_insert_with_key(|name| {
                tracing::error!(policy = %name, "unreadable policy, denies everything now");
                Arc::new(Policy::deny_everything())
            });
        }
        Ok(())
    }

    pub(super) fn list_policies(&self) -> Result<Vec<PolicyName>, AccessError> {
        self.with_open(|open| {
            let names = open.policies.set().keys().cloned();
            names.chain([PolicyName::root()]).collect()
        })
    }

    pub(super) async fn read_policy(
        self: Rc<Self>,
        msg: ReadPolicy,
    ) -> Result<String, AccessError> {
        if !self.is_open() {
            return Err(AccessError::Sealed);
        }
        if msg.0.is_root() {
            // It has no text; Vault shows it empty.
            return Ok(String::new());
        }
        let plain = self.barrier.read(&policy_record(&msg.0)).await?;
        let plain = plain.ok_or(AccessError::NoPolicy)?;
        let record: PolicyRecord = decode(&plain.bytes).map_err(broken)?;
        Ok(record.text)
    }

    pub(super) async fn write_policy(
        self: Rc<Self>,
        msg: WritePolicy,
    ) -> Result<Vec<String>, AccessError> {
        if msg.name.is_root() {
            return Err(AccessError::Invalid("cannot update \"root\" policy".to_owned()));
        }
        let text = decode_text(&msg.text);
        if text.is_empty() {
            let text = "'policy' parameter not supplied or empty".to_owned();
            return Err(AccessError::Invalid(text));
        }
        let mut policy = Policy::parse(&text).map_err(AccessError::Invalid)?;
        if let Some(unkept) = policy.unkept {
            return Err(AccessError::Invalid(format!("failed to parse policy: {unkept}")));
        }
        let warnings = std::mem::take(&mut policy.warnings);
        let record = PolicyRecord { name: msg.name.as_str().to_owned(), text };
        let path = policy_record(&msg.name);

        let _one_at_a_time = self.policy_change.lock().await;
        let mut over = self.with_open(|open| open.versions.get(&msg.name).copied())?.unwrap_or(0);
        let bytes = || encode(&record).map_err(broken);
        let first = self.barrier.commit(Changes::new().put(path.clone(), over, bytes()?)).await;
        match first {
            Err(error) if error.failed_expectation().is_some() => {
                // What is there could not be read when the server opened.
                self.barrier.commit(Changes::new().delete(path.clone())).await?;
                over = 0;
                self.barrier.commit(Changes::new().put(path, over, bytes()?)).await?;
            }
            other => other?,
        }
        self.change_policies(|set, versions| {
            set.insert(msg.name.clone(), Arc::new(policy));
            versions.insert(msg.name, over + 1);
        })
        .await?;
        Ok(warnings)
    }

    pub(super) async fn delete_policy(
        self: Rc<Self>,
        msg: DeletePolicy,
    ) -> Result<(), AccessError> {
        let DeletePolicy(name) = msg;
        let refused = match name.as_str() {
            "root" => "cannot delete \"root\" policy",
            "default" => "cannot delete default policy",
            _ => "",
        };
        if !refused.is_empty() {
            return Err(AccessError::Invalid(refused.to_owned()));
        }
        let _one_at_a_time = self.policy_change.lock().await;
        if !self.with_open(|open| open.policies.set().contains_key(&name))? {
            return Ok(());
        }
        self.barrier.commit(Changes::new().delete(policy_record(&name))).await?;
        self.change_policies(|set, versions| {
            set.remove(&name);
            versions.remove(&name);
        })
        .await
    }

    /// Changes what is in force, everywhere.
    async fn change_policies(
        &self,
        change: impl FnOnce(&mut PolicySet, &mut HashMap<PolicyName, u64>),
    ) -> Result<(), AccessError> {
        let set = self.with_open(|open| {
            let mut set = PolicySet::clone(open.policies.set());
            change(&mut set, &mut open.versions);
            let set = Arc::new(set);
            open.policies.replace(Arc::clone(&set));
            set
        })?;
        self.replicas.install(Some(set)).await;
        Ok(())
    }

    /// Notes what ends when, and what dead tokens have left, without holding anybody up.
    async fn load_tokens(self: Rc<Self>, opening: u64) {
        if let Err(error) = self.load_endings(opening).await {
            tracing::error!(kind = ?error.kind(), "what dead tokens left could not be loaded");
        }
        if let Err(error) = self.load_expiries(opening).await {
            tracing::error!(kind = ?error.kind(), "tokens could not be loaded");
        }
    }
}
