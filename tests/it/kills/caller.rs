//! What clients do under load, and what they know of it.

use std::collections::BTreeMap;
use std::sync::Mutex;

use mssm_testkit::SeededRandom;
use serde_json::{Value, json};

use super::{CONFIRMS, Fate};
use crate::harness::{Answer, Client, Login};

/// One client under load.
pub(super) struct Caller<'a> {
    pub(super) root: Client,
    pub(super) known: &'a Mutex<BTreeMap<String, (Login, Fate)>>,
    pub(super) random: SeededRandom,
    /// The role of most logins.
    pub(super) often: &'static str,
}

impl Caller<'_> {
    /// Does one thing; `None` once the server is gone.
    pub(super) fn act(&self) -> Option<()> {
        match self.random.below(12) {
            0..=3 if self.often == CONFIRMS => {
                self.send("POST", "sys/leases/reconcile", &json!({"confirm": true})).map(|_| ())
            }
            0..=3 => self.mint(self.often),
            4 => self.mint("plain"),
            5 => self.mint("brief"),
            6 => self.mint("broken"),
            7 | 8 => {
                let lease = self.pick()?;
                self.send("PUT", "sys/leases/renew", &json!({"lease_id": lease})).map(|_| ())
            }
            _ => self.revoke(),
        }
    }

    fn send(&self, verb: &str, path: &str, body: &Value) -> Option<Answer> {
        let body = (verb != "GET").then(|| body.to_string());
        self.root.try_send(verb, path, &[], body.as_deref()).ok()
    }

    fn mint(&self, role: &str) -> Option<()> {
        let answer = self.send("GET", &format!("db/creds/{role}"), &Value::Null)?;
        if answer.status == 200 {
            let login = Login::of(&answer);
            // Of what is handed out again its client may have asked for the end.
            let fate = if matches!(role, "brief" | "again") { Fate::Ending } else { Fate::Held };
            self.known.lock().unwrap().insert(login.lease.clone(), (login, fate));
        }
        Some(())
    }

    /// The lease of some login; one that does not exist if there is none.
    fn pick(&self) -> Option<String> {
        let known = self.known.lock().unwrap();
        let at = self.random.below(known.len().max(1) as u64);
        let lease = known.keys().nth(usize::try_from(at).ok()?).cloned();
        Some(lease.unwrap_or_else(|| "db/creds/app/none".to_owned()))
    }

    fn revoke(&self) -> Option<()> {
        let lease = self.pick()?;
        let set = |fate| {
            if let Some((_, known)) = self.known.lock().unwrap().get_mut(&lease)
                && *known != Fate::Revoked
            {
                *known = fate;
            }
        };
        set(Fate::Ending);
        let sync = self.random.below(2) == 0;
        let answer =
            self.send("PUT", "sys/leases/revoke", &json!({"lease_id": lease, "sync": sync}))?;
        if answer.status == 204 {
            set(Fate::Revoked);
        }
        Some(())
    }
}
