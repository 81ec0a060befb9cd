//! The only place that holds a Kubernetes client: connecting, discovery, apply, delete, watches, events, leases.
//!
//! It does what it is told and reports what came of it; deciding is `core`'s. Every call has a time limit, none
//! is repeated behind the caller's back (but for a 429, which by definition was not carried out), and no error
//! carries a value of a Secret.

pub mod access;
pub mod apply;
mod closely;
pub mod connect;
pub mod crds;
pub mod discovery;
pub mod endpoints;
pub mod error;
pub mod events;
mod follow;
mod kubeconfig;
pub mod lease;
pub mod limit;
pub mod logs;
pub mod looks;
mod multiplex;
pub mod named;
pub mod objects;
pub mod pods;
pub mod refusal;
mod single;
mod store;
pub mod watch;

pub use access::Access;
pub use apply::{Applied, Deletion, Guard, Propagation};
pub use closely::Closely;
pub use connect::{ConnectError, ConnectOptions, Connection, Counters, ServiceAccount};
pub use discovery::{Discovery, Resource};
pub use endpoints::{EndpointWatch, ServicesOf};
pub use error::{ApplyError, Cause};
pub use looks::Looking;
pub use named::{Named, NamedWatches};
pub use objects::ObjectWatches;
pub use pods::{PodWatch, PodWatches};
pub use single::NamedObject;
pub use watch::{Change, Entry, Event, Filter, Interest, Watches};
