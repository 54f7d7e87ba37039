//! The marked logins of one server, and which of them are seen to have a lease. Kept small: there
//! may be millions.

use std::collections::HashMap;

use mssm_domain::{ClusterId, LeaseId, same_in_constant_time};
use mssm_messages::keys::KeysPort;

use super::{Trouble, words};
use crate::dialect::Dialect;
use crate::engine::Row;
use crate::marker::{Marker, hashes, macs, prefix};
use crate::mysql;
use crate::pool::Live;
use crate::quote::{literal, literals};

/// Roles read at a time.
const PAGE: usize = 1_000;
/// More than this are not compared: 32 bytes each.
const MARKS_MAX: usize = 2_000_000;
/// Roles with a marker that does not fit that are looked into in one run.
const ODD_MAX: usize = 1_000;
/// How the leases of such logins begin.
const ADOPTED: &str = "orphan/";

/// A lease's hash, shortened: to 96 bits, or what a name on MySQL has room for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Key(u128);

impl Key {
    /// Of a hash in full, or of what [`adopted`] left of it.
    fn of(dialect: Dialect, hash: &str) -> Option<Self> {
        u128::from_str_radix(hash.get(..dialect.hash_chars())?, 16).ok().map(Self)
    }
}

/// What the lease of a login that nobody remembers is called, so that it gets no second one.
pub(super) fn adopted(dialect: Dialect, connection: &str, marker: &Marker) -> Option<LeaseId> {
    let tail = marker.hash.get(..dialect.hash_chars())?;
    // Lease ids end in 24 characters.
    LeaseId::parse(&format!("{ADOPTED}{connection}/{tail:0<24}")).ok()
}

/// What leases are called in markers, shortened, in order.
pub(super) async fn keys_of(
    keys: &KeysPort,
    dialect: Dialect,
    leases: &[&str],
) -> Result<Vec<Option<Key>>, Trouble> {
    let hashed = hashes(keys, leases).await?;
    let key = |(lease, hash): (&&str, &String)| {
        let tail = lease.strip_prefix(ADOPTED).and_then(|rest| rest.rsplit_once('/'));
        let hash = tail.map_or(hash.as_str(), |(_, tail)| tail);
        Key::of(dialect, hash)
    };
    Ok(leases.iter().zip(&hashed).map(key).collect())
}

/// A role that has a marker of our cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Marked {
    pub(super) oid: String,
    pub(super) name: String,
    /// `None` if it only begins as one.
    pub(super) marker: Option<Marker>,
}

impl Marked {
    fn read(dialect: Dialect, cluster: ClusterId, row: Row) -> Option<Self> {
        let mut fields = row.into_iter().flatten();
        if !dialect.is_postgres() {
            let name = fields.next()?;
            let marker = Some(mysql::marker::parse(&name)?.1);
            return Some(Self { oid: NO_OID.to_owned(), name, marker });
        }
        let (oid, name, text) = (fields.next()?, fields.next()?, fields.next()?);
        Some(Self { oid, name, marker: Marker::parse(cluster, &text) })
    }
}

/// What stands for the oid of a user, who has none.
const NO_OID: &str = "0";

struct Mark {
    key: Key,
    oid: u32,
    seen: bool,
}

/// What was found.
pub(super) struct Survey {
    dialect: Dialect,
    marks: Vec<Mark>,
    /// Roles whose marker is not theirs.
    pub(super) odd: Vec<Marked>,
}

impl Survey {
    /// Reads every marked role, page by page.
    pub(super) async fn take(
        keys: &KeysPort,
        cluster: ClusterId,
        session: &Live,
    ) -> Result<Self, Trouble> {
        let dialect = session.facts.dialect;
        let mut survey = Self { dialect, marks: Vec::new(), odd: Vec::new() };
        let beginning = literal(&prefix(cluster));
        let mut after = "0".to_owned();
        loop {
            let sql = if dialect.is_postgres() {
                page(&after, &beginning)
            } else {
                mysql::survey::page(&after, PAGE)
            };
            let rows = session.run(&sql).await.map_err(words)?;
            let full = rows.len() >= PAGE;
            if let Some(Some(last)) = rows.last().and_then(|row| row.first()) {
                after.clone_from(last);
            }
            let page = rows.into_iter().filter_map(|row| Marked::read(dialect, cluster, row));
            for (role, genuine) in check(keys, dialect, cluster, page.collect()).await? {
                survey.enter(role, genuine);
            }
            if survey.marks.len() > MARKS_MAX {
                return Err(Trouble::Here("too many logins to compare".to_owned()));
            }
            if !full {
                break;
            }
        }
        survey.marks.sort_unstable_by_key(|mark| mark.key);
        Ok(survey)
    }

    fn enter(&mut self, role: Marked, genuine: bool) {
        let key = role
            .marker
            .as_ref()
            .filter(|_| genuine)
            .and_then(|marker| Key::of(self.dialect, &marker.hash));
        match (key, role.oid.parse()) {
            (Some(key), Ok(oid)) => self.marks.push(Mark { key, oid, seen: false }),
            _ if self.odd.len() < ODD_MAX => self.odd.push(role),
            _ => {}
        }
    }

    /// How many logins of ours there are.
    pub(super) fn count(&self) -> u64 {
        self.marks.len() as u64
    }

    /// A lease lives; true if its login is there.
    pub(super) fn see(&mut self, key: Key) -> bool {
        let Ok(at) = self.marks.binary_search_by_key(&key, |mark| mark.key) else { return false };
        if let Some(mark) = self.marks.get_mut(at) {
            mark.seen = true;
        }
        true
    }

    /// The oids of logins that no lease was seen for; on MySQL, what their names say of a lease.
    pub(super) fn unseen(&self, most: usize) -> Vec<String> {
        let unseen = self.marks.iter().filter(|mark| !mark.seen).take(most);
        let width = self.dialect.hash_chars();
        let say = |mark: &Mark| match self.dialect {
            Dialect::Postgres => Some(mark.oid.to_string()),
            Dialect::MySql | Dialect::MariaDb => {
                mysql::marker::half(&format!("{:0width$x}", mark.key.0))
            }
        };
        unseen.filter_map(say).collect()
    }
}

fn page(after: &str, beginning: &str) -> String {
    format!(
        "SELECT d.objoid, r.rolname, d.description FROM pg_shdescription d \
         JOIN pg_roles r ON r.oid = d.objoid WHERE d.classoid = 'pg_authid'::regclass \
         AND d.objoid > {}::oid AND starts_with(d.description, {beginning}) \
         ORDER BY d.objoid LIMIT {PAGE}",
        literal(after)
    )
}

/// Says of each role whether its marker is its own. Names that others gave are left out: they look
/// the same.
async fn check(
    keys: &KeysPort,
    dialect: Dialect,
    cluster: ClusterId,
    roles: Vec<Marked>,
) -> Result<Vec<(Marked, bool)>, Trouble> {
    if !dialect.is_postgres() {
        let names = roles.iter().map(|role| role.name.as_str());
        let ours = mysql::marker::genuine(keys, cluster, names).await?;
        let ours: Vec<Marked> =
            roles.iter().filter(|role| ours.contains(role.name.as_str())).cloned().collect();
        return Ok(ours.into_iter().map(|role| (role, true)).collect());
    }
    let claims = roles.iter().filter_map(|role| Some((role.marker.as_ref()?, role.name.as_str())));
    let claims: Vec<(&str, &str)> =
        claims.map(|(marker, name)| (marker.hash.as_str(), name)).collect();
    let mut macs = macs(keys, cluster, &claims).await?.into_iter();
    let genuine: Vec<bool> = roles
        .iter()
        .map(|role| {
            let made = role.marker.as_ref().and_then(|marker| Some((marker, macs.next()?)));
            made.is_some_and(|(marker, mac)| same_in_constant_time(&marker.mac, mac))
        })
        .collect();
    Ok(roles.into_iter().zip(genuine).collect())
}

/// Looks at roles again by what [`Survey::unseen`] said; replies those whose marker is still there and theirs.
pub(super) async fn look_again(
    keys: &KeysPort,
    cluster: ClusterId,
    session: &Live,
    oids: &[String],
) -> Result<Vec<Marked>, Trouble> {
    let mut found = Vec::with_capacity(oids.len());
    for some in oids.chunks(PAGE) {
        let oids = literals(some.iter().map(String::as_str));
        let dialect = session.facts.dialect;
        let sql = if dialect.is_postgres() {
            format!(
                "SELECT r.oid, r.rolname, d.description FROM pg_roles r JOIN pg_shdescription d \
                 ON d.objoid = r.oid AND d.classoid = 'pg_authid'::regclass \
                 WHERE r.oid IN (SELECT unnest(ARRAY[{oids}]::oid[]))"
            )
        } else {
            mysql::survey::again(some)
        };
        let rows = session.run(&sql).await.map_err(words)?;
        let roles = rows.into_iter().filter_map(|row| Marked::read(dialect, cluster, row));
        let checked = check(keys, dialect, cluster, roles.collect()).await?;
        found.extend(checked.into_iter().filter(|(_, genuine)| *genuine).map(|(role, _)| role));
    }
    Ok(found)
}

/// The leases that some keys are of, as far as they are asked after.
pub(super) struct Owners(Dialect, HashMap<Key, Option<LeaseId>>);

impl Owners {
    /// Asks after these.
    pub(super) fn asking<'a>(dialect: Dialect, markers: impl Iterator<Item = &'a Marker>) -> Self {
        let key = |marker: &Marker| Some((Key::of(dialect, &marker.hash)?, None));
        Self(dialect, markers.filter_map(key).collect())
    }

    /// True if nobody is asked after who was not found.
    pub(super) fn is_complete(&self) -> bool {
        self.1.values().all(Option::is_some)
    }

    /// A lease that may be one of them.
    pub(super) fn offer(&mut self, key: Key, lease: &str) {
        if let Some(slot) = self.1.get_mut(&key) {
            *slot = LeaseId::parse(lease).ok();
        }
    }

    /// Whose a marker is.
    pub(super) fn of(&self, marker: &Marker) -> Option<&LeaseId> {
        self.1.get(&Key::of(self.0, &marker.hash)?)?.as_ref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn marked(oid: u32, hash: char) -> Marked {
        let marker = Marker { hash: hash.to_string().repeat(64), mac: "0".repeat(64) };
        Marked { oid: oid.to_string(), name: format!("r{oid}"), marker: Some(marker) }
    }

    #[test]
    fn logins_are_told_by_their_leases_and_those_without_are_left() {
        let mut survey = Survey { dialect: Dialect::Postgres, marks: Vec::new(), odd: Vec::new() };
        for (oid, hash) in [(7, 'c'), (5, 'a'), (6, 'b')] {
            survey.enter(marked(oid, hash), true);
        }
        survey.enter(marked(8, 'a'), false);
        survey.marks.sort_unstable_by_key(|mark| mark.key);
        let key = |hash: char| Key::of(Dialect::Postgres, &hash.to_string().repeat(64)).unwrap();
        assert!(survey.see(key('b')) && survey.see(key('c')) && !survey.see(key('d')));
        assert_eq!((survey.count(), survey.unseen(9)), (3, vec!["5".to_owned()]));
        assert_eq!(survey.odd, [marked(8, 'a')]);
    }

    #[actix_rt::test]
    async fn an_adopted_login_keeps_the_key_of_its_marker() {
        let keys = mssm_testkit::FakeKeys::start().port();
        let marker = marked(1, 'f').marker.unwrap();
        for dialect in [Dialect::Postgres, Dialect::MariaDb] {
            let connection = "00000000-0000-0000-0000-000000000002";
            let lease = adopted(dialect, connection, &marker).unwrap();
            let of = keys_of(&keys, dialect, &[lease.as_str(), "db/creds/a/b"]).await.unwrap();
            assert_eq!(of[0], Key::of(dialect, &marker.hash));
            assert!(of[1].is_some() && of[1] != of[0]);
            let mut owners = Owners::asking(dialect, std::iter::once(&marker));
            assert!(!owners.is_complete());
            owners.offer(of[0].unwrap(), lease.as_str());
            assert_eq!(owners.of(&marker), Some(&lease));
        }
    }
}
