//! Many verdicts as one: the worst status, and the names of the few objects that make it so.

use super::{Status, Verdict};
use crate::core::manifest::ObjectId;

/// Objects that a summary names; the rest is counted.
const NAMED: usize = 3;

/// Worst first. Only what blocks takes part: what settles is as good as healthy for the whole.
fn rank(verdict: &Verdict) -> u8 {
    match verdict.status {
        _ if verdict.broken.is_some() => 0,
        _ if verdict.settles() => 5,
        Status::Degraded => 1,
        Status::Missing => 2,
        Status::Unknown => 3,
        _ => 4,
    }
}

/// One verdict for many objects. The status is the worst among those that do not settle, and `Healthy` when
/// all do (`Suspended` when all are). The message names at most three of the worst objects, then says `and N
/// more`. `broken` is that of the first broken object, with its name in front. No object at all is healthy.
pub fn summarize(verdicts: impl Iterator<Item = (ObjectId, Verdict)>) -> Verdict {
    let mut all: Vec<(ObjectId, Verdict)> = verdicts.collect();
    all.sort_by(|(a_id, a), (b_id, b)| rank(a).cmp(&rank(b)).then_with(|| a_id.cmp(b_id)));
    let total = all.len();
    let open: Vec<&(ObjectId, Verdict)> = all.iter().filter(|(_, v)| !v.settles()).collect();
    let Some((first_id, first)) = open.first() else {
        return settled(&all);
    };
    let mut message = format!("{} of {} objects are not healthy: ", open.len(), total);
    if total == 1 {
        message.clear();
    }
    let named: Vec<String> = open.iter().take(NAMED).map(|(id, v)| format!("{id}: {}", v.message)).collect();
    message.push_str(&named.join("; "));
    if open.len() > NAMED {
        message.push_str(&format!("; and {} more", open.len() - NAMED));
    }
    let broken = first.broken.clone().map(|mut broken| {
        broken.message = format!("{first_id}: {}", broken.message);
        broken
    });
    Verdict { status: first.status, message, broken, blocks: true }
}

fn settled(all: &[(ObjectId, Verdict)]) -> Verdict {
    let suspended = all.iter().filter(|(_, v)| v.status == Status::Suspended).count();
    if !all.is_empty() && suspended == all.len() {
        return Verdict::suspended(match all {
            [(id, verdict)] => format!("{id}: {}", verdict.message),
            _ => format!("all {suspended} objects are suspended"),
        });
    }
    let healthy = all.iter().filter(|(_, v)| v.status == Status::Healthy).count();
    let mut message = match all.len() {
        0 => return Verdict::healthy("there are no objects"),
        1 if healthy == 1 => "1 object is healthy".to_owned(),
        total if healthy == total => format!("all {total} objects are healthy"),
        total => format!("{healthy} of {total} objects are healthy"),
    };
    // What does not block is named all the same: it is not healthy, and somebody may want to know.
    let others: Vec<String> = all
        .iter()
        .filter(|(_, v)| v.status != Status::Healthy)
        .map(|(id, v)| format!("{id} is {}", v.status))
        .collect();
    if !others.is_empty() {
        message.push_str(&format!("; {}", others[..others.len().min(NAMED)].join(", ")));
        if others.len() > NAMED {
            message.push_str(&format!(" and {} more", others.len() - NAMED));
        }
    }
    Verdict::healthy(message)
}
