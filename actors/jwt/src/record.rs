//! How mounts, keys and roles are written down.

mod marks;

use std::sync::Arc;

use base64::Engine;
use base64::display::Base64Display;
use base64::engine::general_purpose::STANDARD;
use mssm_crypto::jose::{Algorithm, PublicKey};
use mssm_domain::{KeyName, MountId, RecordPath, RoleName, SecretBytes, Timestamp};
use mssm_messages::engine::EngineError;
use serde::{Deserialize, Serialize, Serializer};

use crate::keyset::{Active, Copies, KeySet, Pair, Retired, Settings};
use crate::role::Role;
use crate::{table, template};

pub(crate) use marks::{UsedRecord, revoked, revoked_bytes, used, used_bytes};

/// The only format so far; a record of another is refused, never guessed at.
const FORMAT: u8 = 1;

/// Where settings lie.
pub(crate) const CONFIG: &str = "jwt-config";
/// Where sets of keys lie.
pub(crate) const KEY: &str = "jwt-key";
/// Where roles lie.
pub(crate) const ROLE: &str = "jwt-role";
/// Where it is counted how often a key has signed.
pub(crate) const USED: &str = "jwt-used";
/// Where revoked tokens lie.
pub(crate) const REVOKED: &str = "jwt-revoked";
/// All of them.
pub(crate) const FOLDERS: [&str; 5] = [CONFIG, KEY, ROLE, USED, REVOKED];

/// Where all of one kind lie, or all of one mount's.
pub(crate) fn folder(kind: &str, mount: Option<MountId>) -> RecordPath {
    let mount = mount.map(|mount| mount.to_string()).unwrap_or_default();
    RecordPath::new(&[kind, &mount])
}

/// Where one lies.
pub(crate) fn path(kind: &str, mount: MountId, name: &str) -> RecordPath {
    folder(kind, Some(mount)).child(name)
}

/// Where the revocation of a `jti` lies, whatever characters it is of.
pub(crate) fn revoked_path(mount: MountId, jti: &str) -> RecordPath {
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    path(REVOKED, mount, &URL_SAFE_NO_PAD.encode(jti))
}

/// Bytes as base64, written without a copy in between.
struct Encoded<'a>(&'a [u8]);

impl Serialize for Encoded<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&Base64Display::new(self.0, &STANDARD))
    }
}

#[derive(Serialize)]
struct ActiveOut<'a> {
    public: Encoded<'a>,
    private: Encoded<'a>,
    published: u64,
    signs_from: u64,
    imported: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ActiveRecord<'a> {
    public: &'a str,
    private: &'a str,
    published: u64,
    signs_from: u64,
    imported: bool,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RetiredRecord {
    public: String,
    published: u64,
    signs_from: u64,
    until: u64,
    imported: bool,
}

/// The members of a set that are the same on the way out and in.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SetRecord {
    mount: String,
    name: String,
    algorithm: String,
    rsa_bits: usize,
    rotation_period: u64,
    rotation_count: u64,
    verification_ttl: u64,
    allowed_client_ids: Vec<String>,
    life: u64,
    asked: bool,
    previous: Vec<RetiredRecord>,
}

#[derive(Serialize)]
struct KeyOut<'a> {
    format: u8,
    set: SetRecord,
    current: ActiveOut<'a>,
    next: ActiveOut<'a>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyRecord<'a> {
    format: u8,
    set: SetRecord,
    #[serde(borrow)]
    current: ActiveRecord<'a>,
    #[serde(borrow)]
    next: ActiveRecord<'a>,
}

#[expect(clippy::struct_excessive_bools, reason = "each is a field of the role by itself")]
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RoleRecord {
    format: u8,
    mount: String,
    name: String,
    key: String,
    issuer: String,
    audience: Vec<String>,
    subject: String,
    claims: String,
    allowed_claims: Vec<String>,
    ttl: u64,
    max_ttl: u64,
    not_before: bool,
    not_before_leeway: u64,
    jti: bool,
    headers: String,
    access_token: bool,
    client_id: String,
    identity: bool,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ConfigRecord {
    format: u8,
    mount: String,
    issuer: String,
    max_age: u64,
    older_until: u64,
}

fn write(record: &impl Serialize, room: usize) -> Result<SecretBytes, EngineError> {
    // Room for all of it at once: a buffer that grows leaves copies behind.
    let mut bytes = Vec::with_capacity(room);
    serde_json::to_writer(&mut bytes, record).map_err(|_| EngineError::Internal)?;
    Ok(SecretBytes::new(bytes))
}

fn read<'a, T: Deserialize<'a>>(bytes: &'a SecretBytes) -> Result<T, EngineError> {
    // EXPOSE: parsed into what it describes, in which secrets are secrets again.
    serde_json::from_slice(bytes.expose()).map_err(|_| EngineError::Internal)
}

fn at(ms: u64) -> Timestamp {
    Timestamp::from_unix_ms(ms)
}

fn broken<E>(_: E) -> EngineError {
    EngineError::Internal
}

fn known(format: u8) -> Result<(), EngineError> {
    if format == FORMAT { Ok(()) } else { Err(EngineError::Internal) }
}

fn active_out(key: &Active) -> ActiveOut<'_> {
    ActiveOut {
        public: Encoded(key.pair.public.as_bytes()),
        // EXPOSE: it goes into the barrier, which seals it.
        private: Encoded(key.pair.private.expose()),
        published: key.published_at.unix_ms(),
        signs_from: key.signs_from.unix_ms(),
        imported: key.pair.imported,
    }
}

/// The bytes of a set of keys.
pub(crate) fn key_bytes(mount: MountId, set: &KeySet) -> Result<SecretBytes, EngineError> {
    let previous = set.previous.iter().map(|key| RetiredRecord {
        public: STANDARD.encode(key.public.as_bytes()),
        published: key.published_at.unix_ms(),
        signs_from: key.signs_from.unix_ms(),
        until: key.verifies_until.unix_ms(),
        imported: key.imported,
    });
    let record = KeyOut {
        format: FORMAT,
        set: SetRecord {
            mount: mount.to_string(),
            name: set.name.to_string(),
            algorithm: set.algorithm.name().to_owned(),
            rsa_bits: set.rsa_bits,
            rotation_period: set.settings.rotation_period_secs,
            rotation_count: set.settings.rotation_count,
            verification_ttl: set.settings.verification_ttl_secs,
            allowed_client_ids: set.settings.allowed_client_ids.clone(),
            life: set.life_secs,
            asked: set.asked,
            previous: previous.collect(),
        },
        current: active_out(&set.current),
        next: active_out(&set.next),
    };
    let ids: usize = set.settings.allowed_client_ids.iter().map(|id| id.len() * 6 + 8).sum();
    write(&record, 2048 + ids + (set.previous.len() + 2) * 5120)
}

fn public(algorithm: Algorithm, text: &str) -> Result<PublicKey, EngineError> {
    PublicKey::parse(algorithm, &STANDARD.decode(text).map_err(broken)?).map_err(broken)
}

fn active(algorithm: Algorithm, record: &ActiveRecord<'_>) -> Result<Active, EngineError> {
    let private = SecretBytes::new(STANDARD.decode(record.private).map_err(broken)?);
    let pair = Pair::stored(public(algorithm, record.public)?, private, record.imported);
    Ok(Active {
        pair: Arc::new(pair),
        published_at: at(record.published),
        signs_from: at(record.signs_from),
    })
}

/// The set of keys that a record's bytes describe, and its mount.
pub(crate) fn key(bytes: &SecretBytes) -> Result<(MountId, KeySet), EngineError> {
    let KeyRecord { format, set, current, next } = read(bytes)?;
    known(format)?;
    let algorithm = Algorithm::parse(&set.algorithm).ok_or(EngineError::Internal)?;
    let retired = |record: RetiredRecord| {
        let public = public(algorithm, &record.public)?;
        Ok(Retired {
            kid: public.thumbprint(),
            public,
            imported: record.imported,
            published_at: at(record.published),
            signs_from: at(record.signs_from),
            verifies_until: at(record.until),
        })
    };
    let previous: Result<_, EngineError> = set.previous.into_iter().map(retired).collect();
    let keys = KeySet {
        name: KeyName::parse(&set.name).map_err(broken)?,
        algorithm,
        rsa_bits: set.rsa_bits,
        settings: Settings {
            rotation_period_secs: set.rotation_period,
            rotation_count: set.rotation_count,
            verification_ttl_secs: set.verification_ttl,
            allowed_client_ids: set.allowed_client_ids,
        },
        previous: previous?,
        current: active(algorithm, &current)?,
        next: active(algorithm, &next)?,
        life_secs: set.life,
        asked: set.asked,
    };
    Ok((MountId::parse(&set.mount).map_err(broken)?, keys))
}

/// The bytes of a role.
pub(crate) fn role_bytes(
    mount: MountId,
    name: &RoleName,
    role: &Role,
) -> Result<SecretBytes, EngineError> {
    let record = RoleRecord {
        format: FORMAT,
        mount: mount.to_string(),
        name: name.to_string(),
        key: role.key.to_string(),
        issuer: role.issuer.clone(),
        audience: role.audience.clone(),
        subject: role.subject.clone(),
        claims: role.claims_text.clone(),
        allowed_claims: role.allowed_claims.clone(),
        ttl: role.ttl_secs,
        max_ttl: role.max_ttl_secs,
        not_before: role.not_before,
        not_before_leeway: role.not_before_leeway_secs,
        jti: role.jti,
        headers: role.headers_text.clone(),
        access_token: role.access_token,
        client_id: role.client_id.clone(),
        identity: role.identity,
    };
    write(&record, 4096)
}

/// The role that a record's bytes describe, its mount and its name.
pub(crate) fn role(bytes: &SecretBytes) -> Result<(MountId, RoleName, Role), EngineError> {
    let record: RoleRecord = read(bytes)?;
    known(record.format)?;
    let headers = match record.headers.trim() {
        "" => serde_json::Map::new(),
        text => serde_json::from_str(text).map_err(broken)?,
    };
    let role = Role {
        key: KeyName::parse(&record.key).map_err(broken)?,
        issuer: record.issuer,
        audience: record.audience,
        subject: record.subject,
        claims: template::parse_object(&record.claims).map_err(broken)?,
        claims_text: record.claims,
        allowed_claims: record.allowed_claims,
        ttl_secs: record.ttl,
        max_ttl_secs: record.max_ttl,
        not_before: record.not_before,
        not_before_leeway_secs: record.not_before_leeway,
        jti: record.jti,
        headers_text: record.headers,
        headers,
        access_token: record.access_token,
        client_id: record.client_id,
        identity: record.identity,
    };
    let name = RoleName::parse(&record.name).map_err(broken)?;
    Ok((MountId::parse(&record.mount).map_err(broken)?, name, role))
}

/// The bytes of a mount's settings.
pub(crate) fn config_bytes(
    mount: MountId,
    settings: &table::Settings,
) -> Result<SecretBytes, EngineError> {
    let record = ConfigRecord {
        format: FORMAT,
        mount: mount.to_string(),
        issuer: settings.issuer.clone(),
        max_age: settings.copies.max_age_secs,
        older_until: settings.copies.older_until.unix_ms(),
    };
    write(&record, 1024)
}

/// The settings that a record's bytes describe, and their mount.
pub(crate) fn config(bytes: &SecretBytes) -> Result<(MountId, table::Settings), EngineError> {
    let record: ConfigRecord = read(bytes)?;
    known(record.format)?;
    let copies = Copies { max_age_secs: record.max_age, older_until: at(record.older_until) };
    let settings = table::Settings { issuer: record.issuer, copies };
    Ok((MountId::parse(&record.mount).map_err(broken)?, settings))
}
