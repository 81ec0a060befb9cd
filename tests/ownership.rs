//! Diff without asking: what we tell from ownership alone is what the API server would answer.

use crate::support::cluster::Space;
use crate::support::edits::{
    LABEL, Target, define_thing, deployment, edit, lines, objects, part_of, real_changes, without_empty,
};
use serde_json::{Value, json};
use windlass::api::names::{DELIVERY_LABEL, FIELD_MANAGER};
use windlass::core::diff::{Certainty, ChangeKind, changes_between, diff};
use windlass::core::drift::{ObjectDrift, drift};
use windlass::core::fields::{owned_by, owned_digest};
use windlass::core::removal::{removal_patch, removals};

#[tokio::test]
async fn verdicts_without_asking_are_those_of_the_api_server() {
    let space = Space::new("verdicts").await;
    define_thing(&space).await;
    let seed = std::env::var("WINDLASS_TEST_SEED")
        .ok()
        .and_then(|s| s.parse().ok())
        .unwrap_or_else(|| fastrand::u64(..));
    let rounds: usize = std::env::var("WINDLASS_TEST_EDITS").ok().and_then(|s| s.parse().ok()).unwrap_or(10);
    let tries = objects(&space).into_iter().enumerate().map(|(i, (desired, plural))| {
        let space = &space;
        async move { try_object(space, &desired, plural, seed.wrapping_add(i as u64), rounds).await }
    });
    let counts = futures::future::join_all(tries).await;
    let (edits, doubtful) = counts.iter().fold((0, 0), |(a, b), (c, d, _)| (a + c, b + d));
    let drifted: usize = counts.iter().map(|(_, _, drifted)| drifted).sum();
    println!("{edits} edits, {drifted} drifts, {doubtful} doubtful, seed {seed}");
    assert!(edits > rounds * 4, "most edits were refused: {counts:?}");
    assert!(doubtful * 3 < edits, "{doubtful} of {edits} would have to be asked");
}

/// Edits an object at random and compares our verdict with the server's after each edit. Returns how many edits were made,
/// how many verdicts were doubtful, and how many drift.
async fn try_object(
    space: &Space,
    desired: &Value,
    plural: &str,
    seed: u64,
    rounds: usize,
) -> (usize, usize, usize) {
    let random = &mut fastrand::Rng::with_seed(seed);
    let target = Target::new(space, desired, plural);
    let key = Some(&b"key"[..]);
    let mut applied = owned_digest(&target.apply(FIELD_MANAGER, desired, false).await.unwrap(), key);
    let (mut edits, mut doubtful, mut drifted) = (0, 0, 0);
    for round in 0..rounds {
        if !edit(&target, desired, random).await.1 {
            continue;
        }
        let (live, answer) = match target.live_and_answer(desired).await {
            Ok(both) => both,
            // What was put beside ours makes the whole invalid (two ports of one name): begin anew.
            Err(kube::Error::Api(e)) if e.code == 422 => {
                target.delete().await;
                applied = owned_digest(&target.apply(FIELD_MANAGER, desired, false).await.unwrap(), key);
                continue;
            }
            Err(e) => panic!("{e}"),
        };
        edits += 1;
        let verdict = drift(desired, Some(&live));
        let owned = |object: &Value| without_empty(&owned_by(object, FIELD_MANAGER), desired);
        let changes = real_changes(&live, &answer);
        let moved = !changes.is_empty() || owned(&live) != owned(&answer);
        let said = || {
            format!(
                "{} round {round} seed {seed}\nverdict {verdict:#?}\nthe server would change\n{}owned {}\nthen {}",
                desired["kind"],
                lines(&changes),
                owned(&live).encode(),
                owned(&answer).encode(),
            )
        };
        match &verdict {
            ObjectDrift::InSync => assert!(!moved, "{}", said()),
            other if other.is_doubtful() => doubtful += 1,
            other => {
                drifted += 1;
                assert!(moved, "{}", said());
                assert!(
                    other.fields().iter().any(|f| f.certainty == Certainty::Sure)
                        || other.fields().is_empty()
                );
            }
        }
        if owned_digest(&live, key) == applied {
            assert!(!moved, "the digest is the same: {}", said());
        }
        // Another manifest, as a new commit brings it: does it differ from what stands there?
        let next = part_of(desired, random);
        if let Ok((live, answer)) = target.live_and_answer(&next).await {
            let owned = owned_by(&live, FIELD_MANAGER);
            let said = diff(&next, &live, &owned);
            let changes = real_changes(&live, &answer);
            let moved = !changes.is_empty()
                || without_empty(&owned, &next) != without_empty(&owned_by(&answer, FIELD_MANAGER), &next);
            let told = || {
                format!(
                    "{} round {round} seed {seed}\nnext {next}\nsaid\n{}the server would change\n{}owned {}\nthen {}",
                    desired["kind"],
                    lines(&said),
                    lines(&changes),
                    owned.encode(),
                    owned_by(&answer, FIELD_MANAGER).encode(),
                )
            };
            let sure = said.iter().any(|c| c.certainty == Certainty::Sure);
            assert!(moved || !sure, "{}", told());
            assert!(!moved || !said.is_empty(), "{}", told());
            // What is said to change does, and nothing else.
            // Whether something empty within a value is written, only the server knows; that it becomes ours is sure.
            let full = |v: &Option<Value>| v.as_ref().map(without_empty_parts);
            for change in said.iter().filter(|c| {
                c.certainty == Certainty::Sure
                    && c.kind == ChangeKind::Changed
                    && full(&c.desired) != full(&c.live)
            }) {
                assert!(
                    changes.iter().any(|c| c.path.covers(&change.path) || change.path.covers(&c.path)),
                    "{}: {}",
                    change.path,
                    told()
                );
            }
        }
        if random.u8(..3) == 0 {
            let object = target.apply(FIELD_MANAGER, desired, false).await.unwrap();
            let after = drift(desired, Some(&object));
            assert!(after == ObjectDrift::InSync || after.is_doubtful(), "after an apply: {after:#?}");
            applied = owned_digest(&object, key);
        }
    }
    // Finalizers would keep the namespace.
    target.delete().await;
    (edits, doubtful, drifted)
}

/// A value without what is empty in it.
fn without_empty_parts(value: &Value) -> Value {
    let empty =
        |v: &Value| [json!({}), json!([]), json!(""), json!(0), json!(false), json!(null)].contains(v);
    match value {
        Value::Object(fields) => {
            let parts = fields.iter().map(|(name, v)| (name.clone(), without_empty_parts(v)));
            Value::Object(parts.filter(|(_, v)| !empty(v)).collect())
        }
        Value::Array(items) => items.iter().map(without_empty_parts).collect(),
        other => other.clone(),
    }
}

/// Takes optional parts out of a manifest.
fn leave_out(manifest: &Value, random: &mut fastrand::Rng) -> Value {
    let mut out = manifest.clone();
    let optional = [
        "/spec/strategy",
        "/spec/replicas",
        "/metadata/labels/app",
        "/metadata/annotations",
        "/spec/template/metadata/labels/tier",
        "/spec/template/spec/nodeSelector",
        "/spec/template/spec/tolerations",
        "/spec/template/spec/terminationGracePeriodSeconds",
        "/spec/template/spec/initContainers",
        "/spec/template/spec/volumes/1",
        "/spec/template/spec/containers/1",
        "/spec/template/spec/containers/0/args",
        "/spec/template/spec/containers/0/env/3",
        "/spec/template/spec/containers/0/env/0",
        "/spec/template/spec/containers/0/ports/1",
        "/spec/template/spec/containers/0/resources/limits/memory",
        "/spec/template/spec/containers/0/resources",
        "/spec/template/spec/containers/0/livenessProbe/periodSeconds",
        "/spec/template/spec/containers/0/livenessProbe",
    ];
    for place in optional.iter().filter(|_| random.bool()) {
        let (parent, token) = place.rsplit_once('/').unwrap();
        let index = token.parse::<usize>().unwrap_or(0);
        match out.pointer_mut(parent) {
            Some(Value::Object(fields)) => drop(fields.remove(token)),
            Some(Value::Array(items)) if index < items.len() => drop(items.remove(index)),
            _ => {}
        }
    }
    out
}

/// What can be compared between two objects that should be the same but for their names.
fn content(object: &Value) -> Value {
    let mut annotations = object["metadata"]["annotations"].clone();
    if let Some(map) = annotations.as_object_mut() {
        map.remove("deployment.kubernetes.io/revision");
        if map.is_empty() {
            annotations = Value::Null;
        }
    }
    json!({"labels": object["metadata"]["labels"], "annotations": annotations, "spec": object["spec"]})
}

/// Brings an object to what Git wants, as the daemon does: a dry-run, the removals, the apply.
async fn settle(target: &Target<'_>, previous: Option<&Value>, desired: &Value, adopting: bool) -> Value {
    loop {
        let (live, answer) = target.live_and_answer(desired).await.unwrap();
        let patch = removal_patch(&live, &removals(previous, desired, &answer, adopting));
        let sent = if patch.is_empty() {
            Ok(live)
        } else {
            let path = format!("{}?fieldManager={FIELD_MANAGER}", target.path);
            target.ask("PATCH", &path, "application/json-patch+json", &json!(patch)).await
        };
        match sent {
            // It changed meanwhile: look again.
            Err(kube::Error::Api(e)) if e.code == 409 => {}
            Err(e) => panic!("{e}\n{patch:#?}"),
            Ok(_) => return target.apply(FIELD_MANAGER, desired, false).await.unwrap(),
        }
    }
}

/// Somebody with an interest of his own.
async fn inject(target: &Target<'_>) {
    target
        .put("injector", |o| {
            o["metadata"]["annotations"]["injector"] = json!("was here");
            let containers = o["spec"]["template"]["spec"]["containers"].as_array_mut().unwrap();
            containers.push(json!({"name": "proxy", "image": "proxy:1"}));
        })
        .await
        .unwrap();
}

/// How a settled object differs from one that was made anew from the same manifest, and then injected into.
async fn unlike_fresh(space: &Space, settled: &Value, desired: &Value) -> Vec<String> {
    let mut wanted = desired.clone();
    wanted["metadata"]["name"] = json!(format!("fresh-{}", desired["metadata"]["name"].as_str().unwrap()));
    let fresh = Target::new(space, &wanted, "deployments");
    fresh.apply(FIELD_MANAGER, &wanted, false).await.unwrap();
    fresh
        .put("injector", |o| {
            if o["metadata"]["annotations"].is_null() {
                o["metadata"]["annotations"] = json!({});
            }
        })
        .await
        .unwrap();
    inject(&fresh).await;
    let expected = fresh.get().await;
    fresh.delete().await;
    let changes = changes_between(&content(&expected), &content(settled));
    // Where an injected container stands among ours is nobody's business.
    changes.iter().map(|c| lines(std::slice::from_ref(c))).collect()
}

#[tokio::test]
async fn what_left_git_is_gone_whoever_wrote_it_before() {
    let space = Space::new("adoption").await;
    let seed = std::env::var("WINDLASS_TEST_SEED")
        .ok()
        .and_then(|s| s.parse().ok())
        .unwrap_or_else(|| fastrand::u64(..));
    let writers = [
        ("kubectl-client-side-apply", "annotated"),
        ("kubectl-create", "create"),
        ("helm", "create"),
        ("kubectl", "apply"),
        ("helm", "apply"),
    ];
    for (i, (manager, how)) in writers.iter().cycle().take(writers.len() * 2).enumerate() {
        let said = format!("{manager} {how} seed {seed} try {i}");
        let random = &mut fastrand::Rng::with_seed(seed.wrapping_add(i as u64));
        let mut old = deployment(&space, &format!("web-{i}"));
        old["metadata"]["labels"].as_object_mut().unwrap().remove(DELIVERY_LABEL);
        let mut adopted = leave_out(&old, random);
        adopted["metadata"]["labels"][DELIVERY_LABEL] = json!(LABEL);
        let target = Target::new(&space, &old, "deployments");
        match *how {
            "apply" => drop(target.apply(manager, &old, false).await.unwrap()),
            "create" => target.create(manager, &old).await,
            _ => {
                let text = old.to_string();
                let mut sent = old.clone();
                sent["metadata"]["annotations"]["kubectl.kubernetes.io/last-applied-configuration"] =
                    json!(text);
                target.create(manager, &sent).await;
            }
        }
        inject(&target).await;

        let live = settle(&target, None, &adopted, true).await;
        let unlike = unlike_fresh(&space, &live, &adopted).await;
        assert!(unlike.is_empty(), "adopted: {said}: {unlike:#?}");
        assert_eq!(drift(&adopted, Some(&live)), ObjectDrift::InSync, "adopted: {said}");

        // A later commit drops more, which the former writer still has.
        let desired = leave_out(&adopted, random);
        if random.bool() {
            target.merge("someone", "", &json!({"metadata": {"managedFields": [{}]}})).await.unwrap();
        }
        let live = settle(&target, Some(&adopted), &desired, false).await;
        let unlike = unlike_fresh(&space, &live, &desired).await;
        assert!(unlike.is_empty(), "a later commit: {said}: {unlike:#?}");
        assert_eq!(drift(&desired, Some(&live)), ObjectDrift::InSync, "a later commit: {said}");
    }
}
