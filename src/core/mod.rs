//! What decides. Values in, values out: no client, no file, no clock, no randomness.

pub mod autoscale;
pub mod bundle;
pub mod closest;
pub mod contest;
pub mod diff;
pub mod digest;
pub mod drift;
pub mod drift_report;
pub mod expression;
pub mod fields;
pub mod health;
pub mod hook;
pub mod hook_outlook;
pub mod ignore;
pub mod lost;
pub mod manifest;
pub mod outlook;
pub mod plan;
pub mod removal;
pub mod restore;
pub mod rightful;
pub mod rollout;
pub mod selector;
pub mod strategy;
pub mod tree;
pub mod wanted;
