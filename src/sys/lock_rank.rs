//! The lock order.

/// Every lock of the library, in the order they may be taken: a thread holding one may wait only for later ones. The
/// table at the top of `core` says what each one guards.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rank {
    /// `Keeper::thread`
    KeeperThread,
    /// `Keeper::running`
    KeeperRunning,
    /// `Keeper::seats`
    KeeperSeats,
    /// `Keeper::releasing`
    KeeperReleasing,
    /// `Context::destinations`
    Destinations,
    /// `Tunnel::thread`
    TunnelThread,
    /// `tunnel::Shared::unheard`
    TunnelReport,
    /// `Recovery::attempt`
    Recovery,
    /// `Destination::followers`
    Followers,
    /// `AcceptLoop::armed`
    ArmedAccepts,
    /// `AcceptLoop::queue`
    AcceptQueue,
    /// `Destination::kept`
    Kept,
    /// `NameRegistry::names`
    Names,
    /// `Destination::present`
    Present,
    /// `TargetCache`
    Targets,
    /// `Session::control_socket`
    ControlSocket,
    /// `AcceptPool::list`
    AcceptPool,
    /// `Session::refusals`
    Refusals,
    /// `AnswerSlot::inside`
    LookupAnswer,
    /// `Lookups::list`
    Lookups,
    /// `last_session::SESSIONS`
    LastSessions,
    /// `Scope::sockets`
    ScopeSockets,
    /// `Scope::cause`
    ScopeCause,
    /// `Receiver::sources`
    DatagramSources,
    /// `Receiver::deferred`
    DatagramError,
    /// `Receiver::batch`
    DatagramBatch,
    /// `Keeper::poked`
    KeeperPoked,
    /// `Log::hook`
    LogHook,
    /// `SharedFd::giving`
    SharedFd,
}
