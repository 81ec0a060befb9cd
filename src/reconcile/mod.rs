//! The controllers. Each reads as the pipeline does: source, render, plan, apply, health, status.

pub mod application;
pub mod clock;
pub mod daemon;
pub mod delivery;
pub mod dependencies;
pub mod directories;
pub mod fault;
pub mod key;
pub mod live;
pub mod metrics;
pub mod preview;
pub mod repository;
pub mod run;
pub mod slots;
pub mod snapshot;
pub mod sources;
