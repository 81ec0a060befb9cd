//! What controllers make of the objects.

use super::Cluster;
use jiff::Timestamp;

/// What controllers remember.
#[derive(Clone, Debug, Default)]
pub struct Controllers {}

impl Controllers {
    /// When something is due next.
    pub fn next_due(&self) -> Option<Timestamp> {
        None
    }
}

/// One step of all controllers; whether anything changed.
pub fn run(_cluster: &mut Cluster, _now: Timestamp) -> bool {
    false
}
