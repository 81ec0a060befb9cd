//! An Application, by what Windlass itself says of it.
//!
//! Where a directory delivers an Application, the directory's Delivery is the one that goes back: it has to learn soon that a
//! revision cannot be put in place, and must not take pods that are lost for that.

use super::Verdict;
use super::live::Live;

/// Reasons of `Degraded` that no time mends, since the spec itself is what is wrong.
const BROKEN: [&str; 2] = ["InvalidApplication", "RolloutFailed"];

/// An Application.
pub(super) fn verdict(live: &Live<'_>) -> Verdict {
    let (generation, observed) = (live.generation(), live.int("/status/observedGeneration"));
    if observed.is_none_or(|seen| seen < generation) {
        let seen = observed.map_or("nothing".to_owned(), |seen| format!("generation {seen}"));
        return Verdict::progressing(format!("Windlass has seen {seen} of it and not yet {generation}"));
    }
    let find = |kind: &str| live.conditions().find(|c| c.kind == kind);
    if let Some(degraded) = find("Degraded").filter(|c| c.is_true()) {
        let message = format!("is degraded: {}", degraded.why());
        return match BROKEN.iter().find(|reason| **reason == degraded.reason) {
            Some(reason) => Verdict::broken(reason, message),
            None => Verdict::degraded(message),
        };
    }
    if let Some(held) = find("Held").filter(|c| c.is_true()) {
        return Verdict::degraded(format!("was rolled back by itself: {}", held.why()));
    }
    match find("Ready") {
        Some(ready) if ready.is_true() => Verdict::healthy("is ready"),
        Some(ready) => Verdict::progressing(format!("is not ready: {}", ready.why())),
        None => Verdict::progressing("is not ready yet"),
    }
}
