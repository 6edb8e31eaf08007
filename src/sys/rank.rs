//! The order of the locks.

/// Every lock of the library, in the order they may be taken in: a thread that holds one may wait only for those behind
/// it. What each one guards is told at the top of `core`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rank {
    /// `Keeper::thread`
    KeeperThread,
    /// `Keeper::running`
    KeeperRunning,
    /// `Keeper::driven`
    KeeperDriven,
    /// `Keeper::dropping`
    KeeperDropping,
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
    /// `lookup_ticket::Slot::answer`
    LookupAnswer,
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
    /// `Log::hook`
    LogHook,
    /// `SharedFd::giving`
    SharedFd,
}
