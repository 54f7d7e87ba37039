//! The actor: takes messages, hands them to the rules, ends in a reply whatever happens.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, AsyncContext, Context, Handler, Message, ResponseFuture};
use mssm_domain::{BootId, Clock, Random};
use mssm_messages::engine::{
    Confirm, Create, CreateError, Created, DynamicSecretsEngine, EngineError, Extend, Outcome,
    Prepare, Prepared, Revoke, SecretsEngine, Unmount,
};
use mssm_messages::lease::{self, CountTarget, Issue};
use mssm_messages::minter::{
    Configure, ConnectionView, DeleteConnection, DeleteRole, ListConnections, ListRoles,
    ReadConnection, ReadRole, ResetConnection, RoleView, TryConfigured, WriteConnection, WriteRole,
};
use mssm_messages::reconcile::{ConnectionReport, Reconcile, ReconcilePorts};
use mssm_messages::rotation::{
    DeleteStaticRole, ListStaticRoles, ReadStaticCredentials, ReadStaticRole, RotateRoot,
    RotateStaticRole, StaticCredentials, StaticRoleView, WriteStaticRole,
};
use mssm_messages::seal::{Closing, Opened, StageError};
use mssm_messages::{Barrier, Port, guarded_async};

use crate::book::Book;
use crate::engine::{Dialer, Servers};
use crate::rotation::{self, root, statics};
use crate::{confirm, connections, guard, ladder, mint, reconcile, roles, sweep};

/// How often it is seen which passwords are due.
const TICK: Duration = Duration::from_secs(1);

/// What a minter is told when it is made.
pub struct MinterConfig {
    /// This run of the server; part of every session's name.
    pub boot: BootId,
    /// How it reaches the lease manager.
    pub leases: LeaseManagerPorts,
    /// True if the store was restored from a copy: what it does not know is not ended unasked.
    pub restored: bool,
}

/// How the minter reaches the lease manager.
#[derive(Clone, Debug)]
pub struct LeaseManagerPorts {
    /// Says how many leases need a connection before it is deleted or moved.
    pub count: Port<CountTarget>,
    /// Has a self-test's login made under a lease.
    pub issue: Port<Issue>,
    /// Ends it.
    pub revoke: Port<lease::Revoke>,
    /// Says which leases there are, to compare them with the logins.
    pub reconcile: ReconcilePorts,
}

/// Makes, extends and ends database logins, and keeps the definitions they come from.
///
/// Reads and writes through the barrier, talks to databases. Knows nothing of lifetimes or HTTP.
pub struct Minter {
    book: Rc<Book>,
}

impl Minter {
    /// A minter that serves once it is told [`Opened`].
    pub fn new(
        config: MinterConfig,
        barrier: Barrier,
        clock: Arc<dyn Clock>,
        random: Arc<dyn Random>,
    ) -> Self {
        Self::over(config, barrier, clock, random, Arc::new(Servers))
    }

    /// The same over another way to reach databases.
    pub fn over(
        config: MinterConfig,
        barrier: Barrier,
        clock: Arc<dyn Clock>,
        random: Arc<dyn Random>,
        dialer: Arc<dyn Dialer>,
    ) -> Self {
        let MinterConfig { boot, leases, restored } = config;
        let book = Book::new(boot, leases, barrier, clock, random, dialer);
        book.watch.restored.set(restored);
        Self { book: Rc::new(book) }
    }
}

impl Actor for Minter {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.run_interval(TICK, |_minter, ctx| ctx.notify(Tick));
    }
}

/// The minter's word to itself: passwords may be due to change, and locks to be spoken for.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Tick;

impl Handler<Tick> for Minter {
    type Result = ResponseFuture<()>;

    fn handle(&mut self, _msg: Tick, _ctx: &mut Self::Context) -> Self::Result {
        guard::beat(&self.book);
        sweep::tick(&self.book);
        Box::pin(rotation::tick(Rc::clone(&self.book)))
    }
}

impl SecretsEngine for Minter {}
impl DynamicSecretsEngine for Minter {}

macro_rules! handle {
    ($message:ty, $reply:ty, $work:path) => {
        impl Handler<$message> for Minter {
            type Result = ResponseFuture<Result<$reply, EngineError>>;

            fn handle(&mut self, msg: $message, _ctx: &mut Self::Context) -> Self::Result {
                let book = Rc::clone(&self.book);
                Box::pin(async move { guarded_async($work(&book, msg)).await? })
            }
        }
    };
}

handle!(Unmount, (), connections::unmount);
handle!(Prepare, Prepared, mint::prepare);
handle!(Confirm, bool, confirm::confirm);
handle!(Extend, (), mint::extend);
handle!(Revoke, Vec<Outcome>, ladder::revoke);

impl Handler<Create> for Minter {
    type Result = ResponseFuture<Result<Created, CreateError>>;

    fn handle(&mut self, msg: Create, _ctx: &mut Self::Context) -> Self::Result {
        let book = Rc::clone(&self.book);
        Box::pin(async move {
            let made = guarded_async(mint::create(&book, msg)).await;
            // A panic may have come after the SQL was sent.
            made.unwrap_or_else(|panic| Err(CreateError { error: panic.into(), in_doubt: true }))
        })
    }
}

handle!(WriteConnection, Vec<String>, connections::write);
handle!(ReadConnection, ConnectionView, connections::read);
handle!(ListConnections, Vec<String>, connections::list);
handle!(DeleteConnection, (), connections::delete);
handle!(ResetConnection, (), connections::reset);
handle!(WriteRole, Vec<String>, roles::write);
handle!(ReadRole, RoleView, roles::read);
handle!(ListRoles, Vec<String>, roles::list);
handle!(DeleteRole, (), roles::delete);
handle!(Configure, Vec<String>, connections::configure);
handle!(TryConfigured, (), roles::begin_trials);
handle!(Reconcile, Vec<ConnectionReport>, reconcile::reconcile);
handle!(RotateRoot, (), root::rotate);
handle!(WriteStaticRole, Vec<String>, statics::write);
handle!(ReadStaticRole, StaticRoleView, statics::read);
handle!(ListStaticRoles, Vec<String>, statics::list);
handle!(DeleteStaticRole, (), statics::delete);
handle!(ReadStaticCredentials, StaticCredentials, statics::credentials);
handle!(RotateStaticRole, (), statics::rotate);

impl Handler<Opened> for Minter {
    type Result = Result<(), StageError>;

    fn handle(&mut self, msg: Opened, _ctx: &mut Self::Context) -> Self::Result {
        self.book.open(msg.cluster);
        actix_rt::spawn(rotation::scan(Rc::clone(&self.book)));
        actix_rt::spawn(sweep::remember(Rc::clone(&self.book)));
        actix_rt::spawn(reconcile::watch(Rc::clone(&self.book)));
        Ok(())
    }
}

impl Handler<Closing> for Minter {
    type Result = Result<(), StageError>;

    fn handle(&mut self, _msg: Closing, _ctx: &mut Self::Context) -> Self::Result {
        self.book.close();
        Ok(())
    }
}
