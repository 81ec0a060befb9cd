//! What decides. Values in, values out: no client, no file, no clock, no randomness.

pub mod bundle;
pub mod digest;
pub mod manifest;
pub mod plan;
pub mod rollout;
pub mod tree;
