//! The differential test of the drift engine: whatever others do to objects of many kinds, what is told from ownership alone is
//! what a dry-run of our apply would change. No false alarm, and none missed.
//!
//! `WINDLASS_TEST_EDITS=20000` makes so many edits instead of two thousand, all of which the server took; a failure names the seed that repeats it
//! (`WINDLASS_TEST_SEED`).

use crate::support::cluster::{Space, try_send};
use crate::support::edits::{
    Target, define_thing, edit, lines, more_objects, objects, real_changes, without_empty,
};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use windlass::api::names::{DELIVERY_LABEL, FIELD_MANAGER};
use windlass::core::drift::{ObjectDrift, drift, is_unchanged};
use windlass::core::fields::{owned_by, owned_digest};

/// How often of so many edits something else is done than an edit of the object itself.
const VERBS: u8 = 24;

/// What is done.
const VERB_NAMES: [&str; 11] = [
    "scale",
    "status",
    "unlabel",
    "forget",
    "delete",
    "make",
    "apply",
    "update",
    "json-patch",
    "merge-patch",
    "strategic-patch",
];

/// Edits that the server refuses, for each that it takes, at most.
const REFUSED: usize = 4;

/// What was compared.
#[derive(Debug, Default)]
struct Tally {
    edits: usize,
    in_sync: usize,
    sure: usize,
    doubtful: usize,
    /// Doubtful, and a dry-run said that nothing would change.
    cleared: usize,
    refused: usize,
    by_verb: BTreeMap<&'static str, usize>,
}

impl Tally {
    fn add(&mut self, other: &Tally) {
        self.edits += other.edits;
        self.in_sync += other.in_sync;
        self.sure += other.sure;
        self.doubtful += other.doubtful;
        self.cleared += other.cleared;
        self.refused += other.refused;
        for (verb, n) in &other.by_verb {
            *self.by_verb.entry(verb).or_default() += n;
        }
    }
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|text| text.parse().ok())
}

#[tokio::test]
async fn for_random_edits_to_objects_of_many_kinds() {
    let space = Space::new("differential").await;
    define_thing(&space).await;
    let seed = number("WINDLASS_TEST_SEED").unwrap_or_else(|| fastrand::u64(..));
    let all: Vec<_> = objects(&space).into_iter().chain(more_objects(&space)).collect();
    let kinds = all.len();
    assert!(kinds > 15, "{kinds} kinds");
    let edits = usize::try_from(number("WINDLASS_TEST_EDITS").unwrap_or(2000)).unwrap();
    let each = edits.div_ceil(kinds);
    let tries = all.into_iter().enumerate().map(|(i, (desired, plural))| {
        let space = &space;
        async move { try_object(space, &desired, plural, seed, i as u64, each).await }
    });
    let found = futures::future::join_all(tries).await;
    let (mut tally, mut wrong) = (Tally::default(), Vec::new());
    for (one, problem) in found {
        tally.add(&one);
        wrong.extend(problem);
    }
    println!("{kinds} kinds, seed {seed}: {tally:?}");
    assert!(wrong.is_empty(), "seed {seed}:\n{}", wrong.join("\n\n"));
    assert!(tally.edits >= edits, "too many edits were refused: {tally:?}");
    let verbs = if each > usize::from(VERBS) { &VERB_NAMES[..] } else { &[] };
    for verb in verbs {
        assert!(tally.by_verb.get(verb).is_some_and(|n| *n > 0), "no {verb}: {tally:?}");
    }
    assert!(tally.in_sync > 0 && tally.sure > 0, "{tally:?}");
    // Each costs a request.
    assert!(tally.doubtful * 5 < tally.edits, "{} of {} had to be asked", tally.doubtful, tally.edits);
}

/// One thing that somebody does to an object: which, and whether the server took it.
async fn act(
    target: &Target<'_>,
    desired: &Value,
    nth: u8,
    random: &mut fastrand::Rng,
) -> (&'static str, bool) {
    let managers = ["kubectl-edit", "someone", "controller"];
    let manager = managers[random.usize(..managers.len())];
    match nth {
        0 => {
            let none = json!({"metadata": {"labels": {DELIVERY_LABEL: null}}});
            ("unlabel", target.merge(manager, "", &none).await.is_ok())
        }
        1 => {
            ("forget", target.merge(manager, "", &json!({"metadata": {"managedFields": [{}]}})).await.is_ok())
        }
        2 | 3 if ["Deployment", "StatefulSet"].contains(&desired["kind"].as_str().unwrap_or_default()) => {
            let scale = json!({"spec": {"replicas": random.u8(..2)}});
            ("scale", target.merge("kubectl", "/scale", &scale).await.is_ok())
        }
        4 | 5 => {
            let status = match desired["kind"].as_str().unwrap_or_default() {
                "Service" | "Ingress" => {
                    json!({"loadBalancer": {"ingress": [{"ip": format!("192.0.2.{}", random.u8(1..))}]}})
                }
                "Deployment" | "StatefulSet" | "DaemonSet" | "PodDisruptionBudget" => json!({"conditions": [{
                    "type": "Odd", "status": random.choice(["True", "False"]), "reason": "Test", "message": "",
                    "lastTransitionTime": "2026-01-01T00:00:00Z"}]}),
                "ResourceQuota" => json!({"used": {"pods": random.u8(..5).to_string()}}),
                _ => return edit(target, desired, random).await,
            };
            ("status", target.merge(manager, "/status", &json!({"status": status})).await.is_ok())
        }
        6 => {
            target.delete().await;
            ("delete", true)
        }
        _ => edit(target, desired, random).await,
    }
}

/// Makes a deleted object again, as somebody else would.
async fn make_again(target: &Target<'_>, desired: &Value, random: &mut fastrand::Rng) {
    let mut again = desired.clone();
    if random.bool() {
        again["metadata"]["labels"].as_object_mut().unwrap().remove(DELIVERY_LABEL);
    }
    target.create("someone", &again).await;
}

/// Edits one object and compares after each edit. Answers what was counted, and the first verdict that was wrong.
async fn try_object(
    space: &Space,
    desired: &Value,
    plural: &str,
    seed: u64,
    nth: u64,
    rounds: usize,
) -> (Tally, Option<String>) {
    let random = &mut fastrand::Rng::with_seed(seed.wrapping_add(nth));
    let target = Target::new(space, desired, plural);
    let key = Some(&b"key"[..]);
    let mut tally = Tally::default();
    let digest = |object: &Value| (object["metadata"]["uid"].clone(), owned_digest(object, key));
    let mut applied = digest(&target.apply(FIELD_MANAGER, desired, false).await.unwrap());
    let mut gone = false;
    for round in 0..rounds * REFUSED {
        if tally.edits >= rounds {
            break;
        }
        let (verb, taken) = match gone {
            true => {
                make_again(&target, desired, random).await;
                ("make", true)
            }
            // Each verb once, then at random.
            false => {
                let nth =
                    u8::try_from(round).ok().filter(|n| *n < VERBS).unwrap_or_else(|| random.u8(..VERBS));
                act(&target, desired, nth, random).await
            }
        };
        if !taken {
            tally.refused += 1;
            continue;
        }
        let (live, answer) = match target.live_or_none(desired).await {
            Ok(both) => both,
            // What was put beside ours makes the whole invalid (two ports of one name), or cannot be changed back: begin anew.
            Err(kube::Error::Api(e)) if e.code == 422 => {
                tally.refused += 1;
                target.delete().await;
                applied = digest(&target.apply(FIELD_MANAGER, desired, false).await.unwrap());
                continue;
            }
            Err(e) => panic!("{plural}: {e}"),
        };
        tally.edits += 1;
        *tally.by_verb.entry(verb).or_default() += 1;
        gone = live.is_none();
        let verdict = drift(desired, live.as_ref());
        let nothing = Value::Null;
        let before = live.as_ref().unwrap_or(&nothing);
        let owned = |object: &Value| without_empty(&owned_by(object, FIELD_MANAGER), desired);
        let changes = real_changes(before, &answer);
        let moved = live.is_none() || !changes.is_empty() || owned(before) != owned(&answer);
        let wrong = |what: &str| {
            Some(format!(
                "{what}: {} after {verb} in round {round}, WINDLASS_TEST_SEED={seed}\nverdict {verdict:#?}\nthe server would \
                 change\n{}owned {}\nthen {}",
                desired["kind"],
                lines(&changes),
                owned(before).encode(),
                owned(&answer).encode(),
            ))
        };
        if live.is_some() && digest(before) == applied && moved {
            return (tally, wrong("missed, for the digest is the same"));
        }
        match &verdict {
            ObjectDrift::InSync if moved => return (tally, wrong("missed")),
            ObjectDrift::InSync => tally.in_sync += 1,
            other if other.is_doubtful() && moved && is_unchanged(desired, before, &answer) => {
                return (tally, wrong("missed, for it was doubtful and is taken for settled"));
            }
            other if other.is_doubtful() && !moved && !is_unchanged(desired, before, &answer) => {
                return (tally, wrong("a false alarm, for it was doubtful and is taken for changed"));
            }
            other if other.is_doubtful() => {
                tally.doubtful += 1;
                tally.cleared += usize::from(!moved);
            }
            _ if !moved => return (tally, wrong("a false alarm")),
            ObjectDrift::Missing if live.is_some() => return (tally, wrong("not missing")),
            _ => tally.sure += 1,
        }
        if random.u8(..3) == 0 {
            gone = false;
            applied = match target.apply(FIELD_MANAGER, desired, false).await {
                Ok(object) => {
                    let after = drift(desired, Some(&object));
                    if after != ObjectDrift::InSync && !after.is_doubtful() {
                        let said = format!("{after:#?}");
                        return (tally, wrong(&format!("not in sync after an apply: {said}")));
                    }
                    digest(&object)
                }
                Err(e) => panic!("{plural}: {e}"),
            };
        }
    }
    let _ =
        try_send(&space.connection.client, "PATCH", &target.path, &json!({"metadata": {"finalizers": null}}))
            .await;
    (tally, None)
}
