//! Looking for rollouts that break a promise.

use super::super::history::{Fault, History};
use super::super::oracle::Promise;
use super::super::planted::Planted;
use super::super::run::run;
use super::super::search::{Arguments, each, found_by, kept, tried};
use super::{answers_wrongly, history, planted, promotion_fails};
use std::collections::BTreeMap;

/// Seeds that a plain run tries.
const SEEDS: u64 = 100;

/// Seeds that are tried to find one bug that was put in on purpose.
const PLANTED_SEEDS: u64 = 1000;

/// Seeds, as many as there is time for.
pub fn seeds(arguments: &Arguments) -> Result<String, String> {
    tried(arguments, SEEDS, history)
}

/// Every write of a rollout that goes through all stages, cut short before or after.
pub fn every_write(arguments: &Arguments) -> Result<String, String> {
    let base = promotion_fails();
    let ended = run(&base, None, false);
    if let Some(violation) = ended.violation {
        return Err(kept(base, &violation, arguments));
    }
    // In turn: before the one and after the other is the same but for the answer; the third is carried out long after.
    let faults = [Fault::CrashBefore, Fault::CrashAfter, Fault::CrashLate(15_000)].into_iter().cycle();
    let cases: Vec<(u32, Fault)> = ended.writes.into_iter().zip(faults).collect();
    let count = cases.len();
    let failed = each(arguments, 0..count as u64, |n| {
        let history = History { faults: BTreeMap::from([cases[n as usize]]), ..base.clone() };
        run(&history, None, false).violation.map(|violation| (history, violation))
    });
    match failed {
        None => Ok(format!("{count} crashes")),
        Some((history, violation)) => Err(kept(history, &violation, arguments)),
    }
}

/// The same, each write carried out long after its daemon died, with a bug: the number of the first by which it is found.
pub fn late(arguments: &Arguments, bug: Planted, promises: &[Promise]) -> Option<u64> {
    let base = promotion_fails();
    let writes = run(&base, Some(bug), false).writes;
    each(arguments, 0..writes.len() as u64, |n| {
        let faults = BTreeMap::from([(writes[n as usize], Fault::CrashLate(20_000))]);
        let history = History { faults, ..base.clone() };
        let violation = run(&history, Some(bug), false).violation?;
        promises.contains(&violation.promise).then_some(n)
    })
}

/// Each bug is found, and by a promise that it breaks.
pub fn planted_bugs(arguments: &Arguments) -> Result<String, String> {
    let mut said = Vec::new();
    for (bug, promises) in planted::ALL {
        said.push(found_by(arguments, bug, promises, PLANTED_SEEDS, |seed| {
            Some(match bug {
                Planted::MeasuresPass => answers_wrongly(seed),
                _ => history(seed),
            })
        })?);
    }
    Ok(said.join(", "))
}
