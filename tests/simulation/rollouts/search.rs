//! Looking for rollouts that break a promise.

use super::super::history::{Fault, History};
use super::super::oracle::Promise;
use super::super::planted::Planted;
use super::super::run::run;
use super::super::search::{Arguments, each, found_by, kept, tried};
use super::{answers_wrongly, endings, history, planted, promotion_fails, switched_on};
use std::collections::BTreeMap;

/// Seeds that a plain run tries.
const SEEDS: u64 = 100;

/// Seeds that are tried to find one bug that was put in on purpose.
const PLANTED_SEEDS: u64 = 1000;

/// Seeds, as many as there is time for.
pub fn seeds(arguments: &Arguments) -> Result<String, String> {
    tried(arguments, SEEDS, history)
}

/// Every write of rollouts that end in different ways, cut short before, after, and carried out late.
pub fn every_write(arguments: &Arguments) -> Result<String, String> {
    let mut cases = Vec::new();
    for base in endings() {
        let ended = run(&base, None, false);
        if let Some(violation) = ended.violation {
            return Err(kept(base, &violation, arguments));
        }
        for number in ended.writes {
            for fault in [Fault::CrashBefore, Fault::CrashAfter, Fault::CrashLate(15_000)] {
                cases.push(History { faults: BTreeMap::from([(number, fault)]), ..base.clone() });
            }
        }
    }
    let count = cases.len();
    let failed = each(arguments, 0..count as u64, |n| {
        let history = &cases[n as usize];
        run(history, None, false).violation.map(|violation| (history.clone(), violation))
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
    // A policy that people change is looked at like any other.
    let (bug, promises) = (Planted::TooMuchWeight, &[Promise::CandidateShare]);
    said.push(found_by(arguments, bug, promises, PLANTED_SEEDS, |seed| Some(switched_on(seed)))?);
    Ok(said.join(", "))
}
