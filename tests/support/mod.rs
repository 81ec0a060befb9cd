//! What the tests stand on: a real control plane, and faults before it.

pub mod cluster;
pub mod faults;
