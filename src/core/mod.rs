//! Sockets, sessions and streams in safe Rust. Every operation is a step that never blocks; blocking is step + poll.
//!
//! # Locks
//!
//! These are all the locks there are, in the order they may be taken in: a thread that holds one may wait only for those
//! below it. `sys::lock` checks that in builds for debugging. None is held while a program's hook runs, while the disk
//! is used or a name is resolved, or while a thread waits for the network. In a child of fork(2) the thread that holds
//! one may not exist, so there they are only tried.
//!
//! | Rank | Lock | Guards |
//! |---|---|---|
//! | `KeeperThread` | `Keeper::thread` | the handle of the background thread, while it is started |
//! | `KeeperRunning` | `Keeper::running` | held while the background thread steps a destination, so that removing it waits for the end of the step |
//! | `KeeperDriven` | `Keeper::driven` | what the background thread drives |
//! | `KeeperDropping` | `Keeper::dropping` | threads that give back the names of destinations that have ended |
//! | `Destinations` | `Context::destinations` | the destinations of a controller |
//! | `TunnelThread` | `Tunnel::thread` | the handle of a tunnel's thread |
//! | `TunnelReport` | `tunnel::Shared::unheard` | what a tunnel has not told yet: errors, the state told last |
//! | `Recovery` | `Recovery::attempt` | the connection that opens a lost session again; held while stepping, others skip |
//! | `Followers` | `Destination::followers` | the listeners of a destination |
//! | `ArmedAccepts` | `AcceptLoop::armed` | the accepts of a listener, or its forward; held while stepping, others skip |
//! | `AcceptQueue` | `AcceptLoop::queue` | streams that wait to be fetched from a listener |
//! | `Kept` | `Destination::kept` | what is dropped when a destination ends: the lease of its name |
//! | `Names` | `NameRegistry::names` | which names are taken, and who waits for them |
//! | `Present` | `Destination::present` | the state of a destination and its session |
//! | `Targets` | `TargetCache` | addresses that datagrams were sent to, and lookups on their way |
//! | `ControlSocket` | `Session::control_socket` | the conversation on a session's control socket |
//! | `AcceptPool` | `AcceptPool::list` | accepts of a session that were given up, and who watches them |
//! | `LookupAnswer` | `lookup_ticket::Slot::answer` | the answer to a lookup |
//! | `ScopeSockets` | `Scope::sockets` | sockets that end together |
//! | `ScopeCause` | `Scope::cause` | why they have ended |
//! | `DatagramSources` | `Receiver::sources` | the peers that datagrams came from last |
//! | `DatagramError` | `Receiver::deferred` | an error that the next receive returns |
//! | `DatagramBatch` | `Receiver::batch` | the room for receiving many; taken out while it is used |
//! | `LogHook` | `Log::hook` | the program's log hook |
//! | `SharedFd` | `SharedFd::giving` | "given away" against "shut down by number" |

pub(crate) mod bridge;
pub mod controller;
pub mod datagram;
pub mod destination;
pub mod drive;
pub mod listener;
pub(crate) mod relay;
pub(crate) mod session;
pub mod settings;
pub mod store;
pub mod stream;
pub mod tunnel;
