//! What may be mounted where, as rules on plain data.

use std::sync::Arc;

use mssm_domain::{MountId, Prefix, Random, generate_uuid};
use mssm_messages::engine::EngineKind;
use mssm_messages::mounts::{AuditRules, Enable, Mount, MountError, MountTable, TunePatch};

/// The most mounts: every request looks through them, and a store with more would not open.
pub(crate) const MOUNTS_MAX: usize = 400;
/// First segments that are the server's own.
const RESERVED: [&str; 5] = ["sys/", "auth/", "identity/", "audit/", "raw/"];

/// The mounts of a new store: prefix, engine, kv version, whether it must stay, and for whom it is.
const DEFAULTS: [(&str, EngineKind, u8, bool, &str); 7] = [
    ("auth/token", EngineKind::Token, 0, true, "token based credentials"),
    ("cubbyhole", EngineKind::Cubbyhole, 0, true, "per-token private secret storage"),
    ("db", EngineKind::Database, 0, false, "database logins that live for minutes"),
    ("identity", EngineKind::Identity, 0, true, "identity store"),
    ("jwt", EngineKind::JwtSigner, 0, false, "signed tokens"),
    ("secret", EngineKind::Kv, 2, false, "key/value secret storage"),
    ("sys", EngineKind::System, 0, true, "system endpoints used for control and policy"),
];

/// The mounts of a new store.
pub(crate) fn defaults(random: &dyn Random) -> Result<Vec<Mount>, MountError> {
    let mount = |(prefix, kind, version, built_in, description): (&str, _, _, _, &str)| {
        let prefix = Prefix::parse(prefix).map_err(|_| MountError::Internal)?;
        Ok(Mount { built_in, ..fresh(prefix, kind, version, description.to_owned(), random) })
    };
    DEFAULTS.into_iter().map(mount).collect()
}

/// The mount that was asked for, if it may be.
pub(crate) fn enable(
    table: &MountTable,
    wish: Enable,
    random: &dyn Random,
) -> Result<Mount, MountError> {
    let prefix = wish.prefix.as_str();
    if RESERVED.iter().any(|reserved| prefix.starts_with(reserved)) {
        return Err(MountError::Reserved(prefix.to_owned()));
    }
    let conflict = table
        .iter()
        .map(|mount| mount.prefix.as_str())
        .find(|taken| taken.starts_with(prefix) || prefix.starts_with(taken));
    if let Some(taken) = conflict {
        return Err(MountError::Taken(taken.to_owned()));
    }
    if table.iter().count() >= MOUNTS_MAX {
        return Err(MountError::Invalid(format!("there are {MOUNTS_MAX} mounts already")));
    }
    let version = mountable(wish.kind, wish.version)?;
    let mount = fresh(wish.prefix, wish.kind, version, wish.description, random);
    // The version is the mount's own; settings that come with it cannot contradict it.
    tune(&mount, &TunePatch { version: None, ..wish.tune })
}

/// The version that a new mount of a kind has; refuses what cannot be mounted.
fn mountable(kind: EngineKind, version: u8) -> Result<u8, MountError> {
    match (kind, version) {
        (EngineKind::Kv, 0 | 1) => Ok(1),
        (EngineKind::Kv, 2) => Ok(2),
        (EngineKind::Kv, _) => Err(MountError::Invalid("kv has versions 1 and 2".to_owned())),
        (EngineKind::Cubbyhole | EngineKind::Database | EngineKind::JwtSigner, _) => Ok(0),
        (EngineKind::Identity | EngineKind::System | EngineKind::Token, _) => {
            Err(MountError::Invalid(format!("{} cannot be mounted again", kind.name())))
        }
    }
}

/// The mount with its settings changed, if they make sense.
pub(crate) fn tune(mount: &Mount, patch: &TunePatch) -> Result<Mount, MountError> {
    let mut tuned = mount.clone();
    if let Some(version) = patch.version.filter(|version| *version != mount.version) {
        let text = format!(
            "the version of a mount cannot be changed to {version}: mount a new one beside it"
        );
        return Err(MountError::Invalid(text));
    }
    tuned.default_ttl = patch.default_ttl.unwrap_or(mount.default_ttl);
    tuned.max_ttl = patch.max_ttl.unwrap_or(mount.max_ttl);
    if let Some(description) = &patch.description {
        tuned.description.clone_from(description);
    }
    tune_audit(&mut tuned.audit, patch)?;
    tuned.listed_unauthenticated =
        patch.listed_unauthenticated.unwrap_or(mount.listed_unauthenticated);
    if tuned.default_ttl.is_some_and(|ttl| ttl > tuned.effective_max_ttl()) {
        let text = "the default lease TTL is longer than the maximum lease TTL";
        return Err(MountError::Invalid(text.to_owned()));
    }
    Ok(tuned)
}

/// What a mount's rules may name: every record of the log is held to them.
const AUDIT_NAMES_MAX: usize = 64;
/// The longest of these names.
const AUDIT_NAME_BYTES_MAX: usize = 128;
/// Headers that hold credentials: never in clear.
const SECRET_HEADERS: [&str; 4] =
    ["authorization", "cookie", "proxy-authorization", "x-vault-token"];

fn tune_audit(rules: &mut AuditRules, patch: &TunePatch) -> Result<(), MountError> {
    if let Some(names) = &patch.clear_request {
        rules.clear_request.clone_from(names);
    }
    if let Some(names) = &patch.clear_response {
        rules.clear_response.clone_from(names);
    }
    rules.hash_names = patch.hash_names.unwrap_or(rules.hash_names);
    match &patch.header {
        None => {}
        Some((name, None)) => {
            rules.headers.remove(name);
        }
        Some((name, Some(hashed))) => {
            let hashed = *hashed || SECRET_HEADERS.contains(&name.as_str());
            rules.headers.insert(name.clone(), hashed);
        }
    }
    let names = rules.clear_request.iter().chain(&rules.clear_response).chain(rules.headers.keys());
    if names.clone().count() > AUDIT_NAMES_MAX {
        return Err(MountError::Invalid(format!(
            "more than {AUDIT_NAMES_MAX} names for the audit"
        )));
    }
    if names.into_iter().any(|name| name.len() > AUDIT_NAME_BYTES_MAX) {
        let text = format!("a name for the audit has more than {AUDIT_NAME_BYTES_MAX} bytes");
        return Err(MountError::Invalid(text));
    }
    Ok(())
}

fn fresh(
    prefix: Prefix,
    kind: EngineKind,
    version: u8,
    description: String,
    random: &dyn Random,
) -> Mount {
    let mut tail = [0; 4];
    random.fill(&mut tail);
    let accessor = format!("{}_{:08x}", kind.name(), u32::from_be_bytes(tail));
    Mount {
        id: MountId::from_uuid(generate_uuid(random)),
        prefix,
        kind,
        version,
        description,
        accessor,
        default_ttl: None,
        max_ttl: None,
        listed_unauthenticated: false,
        leaving: false,
        built_in: false,
        audit: AuditRules::default(),
    }
}

/// The table with one mount put in place of the one with its id, or added.
pub(crate) fn with(table: &MountTable, mount: Mount) -> MountTable {
    let mut mounts = without(table, mount.id);
    mounts.push(Arc::new(mount));
    MountTable::new(mounts)
}

/// All mounts but one.
pub(crate) fn without(table: &MountTable, id: MountId) -> Vec<Arc<Mount>> {
    table.iter().filter(|mount| mount.id != id).cloned().collect()
}
