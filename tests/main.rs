//! The promises, one file each, linked once: linking is what takes the time.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

mod cluster_apply;
mod cluster_shared;
mod cluster_watch;
