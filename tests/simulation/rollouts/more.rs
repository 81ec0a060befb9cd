//! What happens in rollouts besides: candidates whose pods stop being ready, commits that return to what runs while a person is waited
//! for, workloads that get another name, first revisions that are removed when they fail, policies that are given to what runs, and
//! rollbacks that people ask for. Drawn apart, so that what a seed is otherwise stays as it was.

use super::super::history::{Edit, History, Step, What};
use super::super::things::{Key, Kind, Tag};
use super::FRONT;
use serde_json::{Value, json};

/// Another name of the workload, with the same labels.
pub const RENAMED: &str = "fore";

/// The name of the candidate's workload.
pub fn candidate(policy: &Value) -> String {
    let suffix = if policy["strategy"] == "BlueGreen" { "preview" } else { "canary" };
    format!("{FRONT}-{suffix}")
}

/// Adds them to a history.
pub fn add(history: &mut History) {
    add_to_rollouts(history);
    // Drawn apart once more.
    let mut random = fastrand::Rng::with_seed(history.seed ^ 0x7377_6974_6368_6564);
    if random.u32(0..6) == 0 {
        switch_on(history, random.u64(2_000..20_000));
    }
    let mut random = fastrand::Rng::with_seed(history.seed ^ 0x6279_5f68_616e_6421);
    if random.u32(0..6) == 0 {
        let commits = history.steps.iter().filter(|s| matches!(s.what, What::Commit(_)));
        let at: Vec<u64> = commits.map(|s| s.at).collect();
        let at = if at.is_empty() { 10_000 } else { at[random.usize(0..at.len())] };
        history.steps.push(Step { at: at + random.u64(3_000..50_000), what: What::Rollback(0) });
    }
    history.steps.sort_by_key(|step| step.at);
}

/// A policy is given to what runs already.
pub fn switch_on(history: &mut History, at: u64) {
    let policy = history.deliveries[0].rollout.take();
    history.steps.push(Step { at, what: What::Policy(0, policy) });
}

fn add_to_rollouts(history: &mut History) {
    let mut random = fastrand::Rng::with_seed(history.seed ^ 0x6d6f_7265_726f_6c6c);
    let mut one_in = |n: u32| random.u32(0..n) == 0;
    let (sick, heals, returns, renamed, removed) = (one_in(3), one_in(3), one_in(10), one_in(10), one_in(10));
    let setup = &mut history.deliveries[0];
    let Some(policy) = setup.rollout.clone() else { return };
    if sick {
        let commits = history.steps.iter().filter(|s| matches!(s.what, What::Commit(_)));
        let at = commits.map(|s| s.at).next().unwrap_or(10_000) + random.u64(4_000..50_000);
        let name = candidate(&policy);
        history.steps.push(Step { at, what: What::Sick(name.clone(), true) });
        if heals {
            let at = at + random.u64(1_000..30_000);
            history.steps.push(Step { at, what: What::Sick(name, false) });
        }
    }
    if returns {
        go_back(history, random.u64(15_000..60_000));
    } else if renamed {
        rename(history, &policy, random.u64(5_000..60_000));
    } else if removed {
        let front = Key(Kind::Deployment, FRONT.into());
        let setup = &mut history.deliveries[0];
        setup.remove_first = true;
        if let Some(thing) = setup.first.things.get_mut(&front) {
            let all = [Tag::Crash, Tag::Missing, Tag::Unready];
            thing.tag = all[random.usize(0..all.len())];
        }
    }
}

/// A rollout waits for a person, and Git goes back to what runs.
fn go_back(history: &mut History, after: u64) {
    let policy = history.deliveries[0].rollout.as_mut();
    let steps = policy.and_then(|policy| policy.get_mut("steps")?.as_array_mut());
    let Some(steps) = steps else { return };
    steps.insert(steps.len().min(1), json!({"pause": {}}));
    let Some(first) = history.steps.iter().position(|s| matches!(s.what, What::Commit(_))) else { return };
    history.steps.retain({
        let mut n = 0;
        move |s| {
            n += 1;
            n - 1 == first || matches!(s.what, What::Sick(..) | What::Killed(_) | What::Cut | What::Compacted)
        }
    });
    let commit = history.steps.iter_mut().find(|s| matches!(s.what, What::Commit(_)));
    let Some(Step { at, what: What::Commit(edits) }) = commit else { return };
    for edit in edits {
        if let Edit::Put(_, Key(Kind::Deployment, _), thing) = edit {
            thing.tag = Tag::Ok;
        }
    }
    let at = *at + after;
    history.steps.push(Step { at, what: What::Revert });
}

/// The workload gets another name in Git, and a while later in the policy.
fn rename(history: &mut History, policy: &Value, after: u64) {
    let front = Key(Kind::Deployment, FRONT.into());
    let first = &history.deliveries[0].first;
    let several = policy["workload"].is_null() || first.things.keys().any(|key| key.0 == Kind::Scaler);
    let Some(thing) = first.things.get(&front).cloned().filter(|_| !several) else { return };
    let commit = |s: &&mut Step| matches!(s.what, What::Commit(_));
    let Some(last) = history.steps.iter_mut().filter(commit).last() else { return };
    let thing = super::super::things::Thing { value: 5_000, tag: Tag::Ok, ..thing };
    let edits = vec![Edit::Remove(0, front), Edit::Put(0, Key(Kind::Deployment, RENAMED.into()), thing)];
    last.what = What::Commit(edits);
    let at = last.at;
    // What comes after it would bring the old one back.
    history.steps.retain(|s| s.at <= at || !matches!(s.what, What::Revert | What::Policy(..)));
    let mut policy = policy.clone();
    policy["workload"]["name"] = RENAMED.into();
    history.steps.push(Step { at: at + after, what: What::Policy(0, Some(policy)) });
}
