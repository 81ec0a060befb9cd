//! What the tests stand on: a real control plane.

pub mod cluster;
