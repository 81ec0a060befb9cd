//! Windlass keeps Kubernetes as Git says, and treats a commit as one transaction.
//!
//! Arrows between the modules point one way: `cli`, `server` -> `reconcile` -> `source`, `render`,
//! `cluster`, `analysis` -> `core` -> `api`. What decides lives in [`core`] and takes and returns values;
//! only the edges do IO.

pub mod analysis;
pub mod api;
pub mod cli;
pub mod cluster;
pub mod core;
pub mod installation;
mod lock;
pub mod reconcile;
pub mod render;
pub mod report;
pub mod server;
pub mod source;
pub mod telemetry;
