//! Vouchers: the smallest engine that hands out leased credentials. docs/engines.md goes through it.
//!
//! Its service keeps each voucher as a file: the lease and the mount that it was made for (the
//! marker), its password, its end. Invariants: a voucher has a lease that ends it; what has no marker
//! is never touched. It answers one message at a time and its service answers at once, so a voucher
//! that is not there cannot come any more: nothing is ever in doubt.

use std::fs;
use std::io::{ErrorKind, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, Context, Handler};
use mssm_domain::{
    ConnectionId, LeaseId, MountId, Random, RoleName, SecretBytes, SecretText, generate_base62,
};
use mssm_messages::engine::{
    Confirm, Create, CreateError, Created, DynamicSecretsEngine, EngineError, EngineKind, Extend,
    LeaseRules, Outcome, Prepare, Prepared, Revoke, SecretsEngine, Unmount,
};
use mssm_messages::reconcile::{Adopt, ReconcilePorts, Stray};
use mssm_messages::seal::{Opened, StageError};

/// The one service: all its vouchers fail together.
const SERVICE: &str = "6f2c3a86-4d7c-4b3a-9a51-0d6f3d0c7e11";
/// How long the lease manager may take to read its leases.
const LOADING: Duration = Duration::from_secs(50);

/// Makes, extends and ends vouchers; asks the lease manager about those that it finds.
pub struct Vouchers {
    /// Where the service keeps them.
    service: PathBuf,
    leases: ReconcilePorts,
    random: Arc<dyn Random>,
}

impl Vouchers {
    /// An engine for the service in a folder.
    pub fn new(service: PathBuf, leases: ReconcilePorts, random: Arc<dyn Random>) -> Self {
        Self { service, leases, random }
    }

    /// Replaces a voucher's file as a whole, or makes it.
    fn write(&self, name: &str, text: &str) -> Result<(), EngineError> {
        let draft = self.service.join(format!(".{name}"));
        let written = fs::create_dir_all(&self.service)
            .and_then(|()| fs::File::create(&draft))
            .and_then(|mut file| {
                file.write_all(text.as_bytes())?;
                file.sync_all()
            })
            .and_then(|()| fs::rename(&draft, self.service.join(name)));
        written.map_err(|error| refused(&error))
    }
}

fn refused(error: &std::io::Error) -> EngineError {
    EngineError::Unavailable(format!("the voucher service refused: {}", error.kind()))
}

fn service() -> Result<ConnectionId, EngineError> {
    ConnectionId::parse(SERVICE).map_err(|_| EngineError::Internal)
}

/// The voucher's name, which is all that the lease must remember of it.
fn name_of(data: &SecretBytes) -> Result<&str, EngineError> {
    // EXPOSE: a public name.
    std::str::from_utf8(data.expose()).map_err(|_| EngineError::Internal)
}

impl Actor for Vouchers {
    type Context = Context<Self>;
}

impl SecretsEngine for Vouchers {}
impl DynamicSecretsEngine for Vouchers {}

impl Handler<Unmount> for Vouchers {
    type Result = Result<(), EngineError>;

    /// Its leases have ended before, and it stores nothing of its own.
    fn handle(&mut self, _msg: Unmount, _ctx: &mut Self::Context) -> Self::Result {
        Ok(())
    }
}

impl Handler<Prepare> for Vouchers {
    type Result = Result<Prepared, EngineError>;

    fn handle(&mut self, msg: Prepare, _ctx: &mut Self::Context) -> Self::Result {
        let name = format!("voucher-{}-{}", msg.role, generate_base62(&*self.random, 20));
        Ok(Prepared {
            target: service()?,
            data: name.clone().into_bytes().into(),
            ttl: None,
            max_ttl: None,
            renewable: true,
            rules: LeaseRules::default(),
            name,
            warnings: Vec::new(),
        })
    }
}

impl Handler<Create> for Vouchers {
    type Result = Result<Created, CreateError>;

    fn handle(&mut self, msg: Create, _ctx: &mut Self::Context) -> Self::Result {
        let certain = |error| CreateError { error, in_doubt: false };
        let name = name_of(&msg.data).map_err(certain)?;
        let password = SecretText::new(generate_base62(&*self.random, 24));
        let (lease, mount, end) = (&msg.lease, msg.mount, msg.expires_at);
        // EXPOSE: the service is told the password.
        let text = format!("{lease}\n{mount}\n{}\n{end}\n", password.expose());
        self.write(name, &text).map_err(certain)?;
        let username = SecretText::new(name.to_owned());
        Ok(Created { secret: vec![("username", username), ("password", password)], data: None })
    }
}

impl Handler<Confirm> for Vouchers {
    type Result = Result<bool, EngineError>;

    fn handle(&mut self, msg: Confirm, _ctx: &mut Self::Context) -> Self::Result {
        Ok(self.service.join(name_of(&msg.data)?).exists())
    }
}

impl Handler<Extend> for Vouchers {
    type Result = Result<(), EngineError>;

    fn handle(&mut self, msg: Extend, _ctx: &mut Self::Context) -> Self::Result {
        let name = name_of(&msg.data)?;
        let text = fs::read_to_string(self.service.join(name)).map_err(|error| refused(&error))?;
        let kept: String = text.lines().take(3).map(|line| format!("{line}\n")).collect();
        self.write(name, &format!("{kept}{}\n", msg.expires_at))
    }
}

impl Handler<Revoke> for Vouchers {
    type Result = Result<Vec<Outcome>, EngineError>;

    fn handle(&mut self, msg: Revoke, _ctx: &mut Self::Context) -> Self::Result {
        let end = |data| match fs::remove_file(self.service.join(name_of(data)?)) {
            Ok(()) => Ok(Outcome::Gone),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Outcome::Gone),
            Err(error) => Ok(Outcome::Failed(refused(&error).to_string())),
        };
        msg.credentials.iter().map(|credential| end(&credential.data)).collect()
    }
}

impl Handler<Opened> for Vouchers {
    type Result = Result<(), StageError>;

    /// Vouchers that no lease ends are ended: a restored store does not know what it made since.
    fn handle(&mut self, _msg: Opened, _ctx: &mut Self::Context) -> Self::Result {
        let (found, leases) = (self.marked(), self.leases.clone());
        actix_rt::spawn(async move {
            if let Err(error) = reconcile(found, &leases).await {
                tracing::warn!(error, "vouchers and leases were not compared");
            }
        });
        Ok(())
    }
}

impl Vouchers {
    /// All vouchers with a marker: the lease, the mount, the name.
    fn marked(&self) -> Vec<(LeaseId, MountId, String)> {
        let files = fs::read_dir(&self.service).into_iter().flatten().flatten();
        let marked = files.filter_map(|file| {
            let text = fs::read_to_string(file.path()).ok()?;
            let mut lines = text.lines();
            let lease = LeaseId::parse(lines.next()?).ok()?;
            let mount = MountId::parse(lines.next()?).ok()?;
            Some((lease, mount, file.file_name().into_string().ok()?))
        });
        marked.collect()
    }
}

/// Has those ended that no lease ends; the lease manager knows which.
async fn reconcile(
    found: Vec<(LeaseId, MountId, String)>,
    leases: &ReconcilePorts,
) -> Result<(), String> {
    let target = service().map_err(|error| error.to_string())?;
    let role = RoleName::parse("voucher").map_err(|error| error.to_string())?;
    let strays = found.into_iter().map(|(lease, mount, name)| {
        let data = name.clone().into_bytes().into();
        Stray { lease, mount, target, role: role.clone(), name, data }
    });
    let adopt = Adopt { engine: EngineKind::Voucher, strays: strays.collect() };
    let adopted = leases.adopt.ask(adopt, LOADING).await.map_err(|error| error.to_string())?;
    adopted.map(drop).map_err(|error| error.to_string())
}
