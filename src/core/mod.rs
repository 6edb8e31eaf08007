//! Sockets, sessions and streams in safe Rust, with nothing of C and no bytes of SAM, which are `ffi` and `protocol`.
//! Every operation is a step that never blocks; blocking is step + poll.
//!
//! # Locks
//!
//! These are all the locks, in the order they may be taken: a thread holding one may wait only for those below it.
//! `sys::lock` checks this in debug builds. None is held while the program's hook runs, during disk access or name
//! resolution, or while a thread waits for the network. In a child of fork(2) the thread holding a lock may not exist,
//! so there we only try them.
//!
//! | Rank | Lock | Guards |
//! |---|---|---|
//! | `KeeperThread` | `Keeper::thread` | the handle of the keeper thread; held while starting it |
//! | `KeeperRunning` | `Keeper::running` | held while the keeper steps a destination, so that removing it waits for the step to end |
//! | `KeeperSeats` | `Keeper::seats` | what the keeper drives, and the deadlines |
//! | `KeeperReleasing` | `Keeper::releasing` | threads that release the names of ended destinations |
//! | `Destinations` | `Context::destinations` | the destinations of a controller |
//! | `TunnelThread` | `Tunnel::thread` | the handle of a tunnel's thread |
//! | `TunnelReport` | `tunnel::Shared::unheard` | what a tunnel has not reported yet: errors, and the state reported last |
//! | `Recovery` | `Recovery::attempt` | the connection that reopens a lost session; held while stepping, others skip |
//! | `Followers` | `Destination::followers` | the listeners of a destination |
//! | `ArmedAccepts` | `AcceptLoop::armed` | the accepts of a listener, or its forward; held while stepping, others skip |
//! | `AcceptQueue` | `AcceptLoop::queue` | streams waiting to be fetched from a listener |
//! | `Kept` | `Destination::kept` | what is dropped when a destination ends: its name lease |
//! | `Names` | `NameRegistry::names` | which names are taken, and who is waiting for them |
//! | `Present` | `Destination::present` | a destination's state and current session |
//! | `Targets` | `TargetCache` | the addresses that datagrams are sent to |
//! | `ControlSocket` | `Session::control_socket` | the conversation on a session's control socket |
//! | `AcceptPool` | `AcceptPool::list` | abandoned accepts of a session, and who watches them |
//! | `Refusals` | `Session::refusals` | accepts that the router has refused |
//! | `LookupAnswer` | `AnswerSlot::inside` | the answer to a lookup |
//! | `Lookups` | `Lookups::list` | lookups on connections of their own, and how many others there are; held while stepping |
//! | `LastSessions` | `last_session::SESSIONS` | the last sessions of all destinations of this process; in a child of fork(2) it is tried for a while, as it outlives every controller |
//! | `ScopeSockets` | `Scope::sockets` | sockets that end together |
//! | `ScopeCause` | `Scope::cause` | why they have ended |
//! | `DatagramSources` | `Receiver::sources` | the peers that datagrams last came from |
//! | `DatagramError` | `Receiver::deferred` | an error for the next receive to return |
//! | `DatagramBatch` | `Receiver::batch` | the buffers for receiving many; taken out while in use |
//! | `KeeperPoked` | `Keeper::poked` | what the keeper has to run even without an event; poking is allowed with any of the above held |
//! | `LogHook` | `Log::hook` | the program's log hook |
//! | `SharedFd` | `SharedFd::giving` | keeps a descriptor that was given away from being shut down |

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
