//! An Application, by what Windlass itself says of it.
//!
//! Where a directory delivers an Application, the directory's Delivery is the one that goes back: it has to learn soon that a
//! revision cannot be put in place, and must not take pods that are lost for that.

use super::Verdict;
use super::live::Live;

/// Reasons of `Degraded` that no time mends, since the spec itself is what is wrong.
const BROKEN: [&str; 2] = ["InvalidApplication", "RolloutFailed"];

/// Reason of `Degraded` where nothing of the spec could be begun.
const REFUSED: &str = "RolloutRefused";

/// Why nothing could be begun (the reason of `Ready`), where only another spec can be. What else is refused may pass: a right or a
/// kind that comes a moment later, an object that another Delivery lets go of.
const SPEC_REFUSED: [&str; 5] = ["PodsWouldRestart", "ImmutableField", "Invalid", "UnknownField", "TooLarge"];

/// An Application.
pub(super) fn verdict(live: &Live<'_>) -> Verdict {
    let (generation, observed) = (live.generation(), live.int("/status/observedGeneration"));
    if observed.is_none_or(|seen| seen < generation) {
        let seen = observed.map_or("nothing".to_owned(), |seen| format!("generation {seen}"));
        return Verdict::progressing(format!("Windlass has seen {seen} of it and not yet {generation}"));
    }
    let find = |kind: &str| live.conditions().find(|c| c.kind == kind);
    // It does not try this spec again, whatever its pods do now.
    if let Some(held) = find("Held").filter(|c| c.is_true()) {
        return Verdict::broken("RolledBack", format!("was rolled back: {}", held.why()));
    }
    if let Some(degraded) = find("Degraded").filter(|c| c.is_true()) {
        let message = format!("is degraded: {}", degraded.why());
        let refused = find("Ready").is_some_and(|ready| SPEC_REFUSED.contains(&ready.reason));
        if degraded.reason == REFUSED && refused {
            return Verdict::broken(REFUSED, message);
        }
        return match BROKEN.iter().find(|reason| **reason == degraded.reason) {
            Some(reason) => Verdict::broken(reason, message),
            None => Verdict::degraded(message),
        };
    }
    match find("Ready") {
        Some(ready) if ready.is_true() => Verdict::healthy("is ready"),
        Some(ready) => Verdict::progressing(format!("is not ready: {}", ready.why())),
        None => Verdict::progressing("is not ready yet"),
    }
}
