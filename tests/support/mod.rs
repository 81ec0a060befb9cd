//! What the tests stand on: a real control plane, real Git servers, real daemons, and faults before them.

pub mod applications;
pub mod cli;
pub mod cluster;
pub mod daemon;
pub mod edits;
pub mod faults;
pub mod gateway;
pub mod git;
pub mod git_https;
pub mod load;
pub mod plane;
pub mod prometheus;
pub mod remote;
pub mod rendering;
pub mod shop;
pub mod sshd;
pub mod values;
