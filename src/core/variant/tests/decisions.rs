//! Which revisions need a rollout.

use super::*;
use crate::core::variant::{stamp, stamped};
use std::collections::BTreeSet;

fn why(from: &str, to: &str) -> (bool, Vec<String>) {
    assert!(from.is_empty() || WEB.contains(from), "{from} is not in the manifests");
    let target = if from.is_empty() { WEB.to_owned() } else { WEB.replacen(from, to, 1) };
    match needs_rollout(&bundle(WEB), &bundle(&target), &policy()).unwrap() {
        Decision::Direct { why } => (false, why),
        Decision::Rollout { why, workloads } => {
            assert_eq!(workloads, [id("apps", "Deployment", "web")]);
            (true, why)
        }
    }
}

#[test]
fn a_change_of_the_pods_or_of_what_they_read_needs_a_rollout_and_nothing_else_does() {
    let same = ["Deployment shop/web: neither its pods change nor what they read"];
    let table: [(&str, &str, bool, &[&str]); 15] = [
        ("", "", false, &same),
        ("web:1", "web:2", true, &["Deployment shop/web: image of container app: web:1 -> web:2"]),
        ("replicas: 3", "replicas: 5", false, &same),
        ("  labels: {app: web}\n  annotations", "  labels: {app: web, x: y}\n  annotations", false, &same),
        (
            "spec:\n  replicas: 3",
            "spec:\n  minReadySeconds: 5\n  strategy: {type: Recreate}\n  replicas: 3",
            false,
            &same,
        ),
        ("cache:1", "cache:2", false, &same),
        ("minAvailable: 2", "minAvailable: 1", false, &same),
        (
            "LEVEL: info",
            "LEVEL: debug",
            true,
            &["ConfigMap shop/web-env, which Deployment shop/web reads: LEVEL changes"],
        ),
        (
            "{a.conf: one}",
            "{b.conf: one}",
            true,
            &[
                "ConfigMap shop/web-files, which Deployment shop/web reads: a.conf is removed, b.conf is added",
            ],
        ),
        (
            "mode: fast",
            "mode: slow",
            true,
            &["ConfigMap shop/shared, which Deployment shop/web reads: mode changes"],
        ),
        (
            "hidden-one",
            "hidden-two",
            true,
            &["Secret shop/web-keys, which Deployment shop/web reads: key changes"],
        ),
        // The same Secret in another spelling.
        ("stringData: {key: hidden-one}", "type: Opaque\ndata: {key: aGlkZGVuLW9uZQ==}", false, &same),
        (
            "metadata: {name: web-env}",
            "metadata: {name: web-env, labels: {x: y}}\nimmutable: true",
            false,
            &same,
        ),
        (
            "team: shop}",
            "team: sales}",
            true,
            &["Deployment shop/web: metadata.labels.team of its pod template changes"],
        ),
        // A default that is said changes no pod.
        ("image: web:1", "image: web:1\n        terminationMessagePath: /dev/termination-log", false, &same),
    ];
    for (from, to, rollout, expected) in table {
        assert_eq!(
            why(from, to),
            (rollout, expected.iter().map(ToString::to_string).collect()),
            "{from} -> {to}"
        );
    }
}

#[test]
fn no_sentence_holds_a_value_of_a_secret_or_of_a_variable() {
    let (_, why) = why("hidden-one", "hidden-two");
    assert!(!why.join(" ").contains("hidden"), "{why:?}");
    let literal = |value: &str| {
        WEB.replacen("image: web:1", &format!("image: web:1\n        args: [--token={value}]"), 1)
    };
    let decision =
        needs_rollout(&bundle(&literal("hidden-a")), &bundle(&literal("hidden-b")), &policy()).unwrap();
    assert!(matches!(&decision, Decision::Rollout { why, .. } if why.len() == 1));
    assert!(!format!("{decision:?}").contains("hidden"), "{decision:?}");
}

#[test]
fn a_workload_that_is_new_is_applied_directly_and_one_that_is_gone_is_an_error() {
    let before = "
apiVersion: v1
kind: ConfigMap
metadata: {name: other}
";
    let decision = needs_rollout(&bundle(before), &bundle(WEB), &policy()).unwrap();
    assert_eq!(
        decision,
        Decision::Direct {
            why: vec!["Deployment shop/web is new: there is nothing to compare a candidate with".into()]
        }
    );
    let both =
        RolloutPolicy { workload: None, workloads: vec![workload("web"), workload("cache")], ..policy() };
    let (first, _) = WEB.split_once("---\napiVersion: apps/v1").unwrap();
    let decision = needs_rollout(&bundle(first), &bundle(&WEB.replacen("web:1", "web:2", 1)), &both).unwrap();
    let Decision::Rollout { why, workloads } = decision else { panic!("{decision:?}") };
    assert_eq!(workloads, [id("apps", "Deployment", "web")]);
    assert!(why[1].starts_with("Deployment shop/cache is new: it comes at promotion"), "{why:?}");
    let renamed = WEB.replacen("  name: web\n  labels", "  name: shopfront\n  labels", 1);
    let problem = needs_rollout(&bundle(WEB), &bundle(&renamed), &policy()).unwrap_err();
    assert_eq!(problem.reason, "WorkloadRemoved");
    assert_eq!(problem.object, "Deployment shop/web");
    assert!(problem.message.contains("(app.yaml:2)"), "{}", problem.message);
    assert!(problem.message.contains("Deployment shop/shopfront"), "{}", problem.message);
    let problem = needs_rollout(&bundle(before), &bundle(before), &policy()).unwrap_err();
    assert_eq!((problem.reason.as_str(), problem.object.as_str()), ("WorkloadNotFound", "Deployment web"));
}

#[test]
fn rolling_is_always_direct() {
    let target = WEB.replacen("web:1", "web:2", 1);
    let policy = RolloutPolicy { strategy: Strategy::Rolling, ..policy() };
    let decision = needs_rollout(&bundle(WEB), &bundle(&target), &policy).unwrap();
    assert!(matches!(decision, Decision::Direct { .. }));
}

#[test]
fn a_digest_is_written_when_the_configuration_first_changes_and_then_stays() {
    let all = |bundle: &Bundle, stamp: &BTreeSet<ObjectId>, key: &[u8]| {
        let stamped = super::super::stamp(bundle, stamp, key);
        let mut digests = Vec::new();
        for object in stamped.objects() {
            let annotations = &super::super::template(object)["metadata"]["annotations"];
            if let Some(digest) = annotations[crate::api::names::CONFIG].as_str() {
                digests.push((object.id().to_string(), digest.to_owned()));
            }
        }
        digests
    };
    let (one, none) = (bundle(WEB), BTreeSet::new());
    // At adoption, and with a commit that changes no configuration.
    assert_eq!(stamped(&one, &one, &none), none);
    assert_eq!(stamped(&one, &bundle(&WEB.replacen("web:1", "web:2", 1)), &none), none);
    assert_eq!(stamp(&one, &none, b"k"), one);
    let two = bundle(&WEB.replacen("hidden-one", "hidden-two", 1));
    let now = stamped(&one, &two, &none);
    assert_eq!(now, [id("apps", "Deployment", "web")].into());
    // It stays with the next commits, and with the last good bundle should it be put back.
    assert_eq!(stamped(&two, &two, &now), now);
    let (before, after) = (all(&one, &now, b"k"), all(&two, &now, b"k"));
    assert_eq!((before.len(), after.len()), (1, 1));
    assert_ne!(before, after);
    assert_eq!(after, all(&two, &now, b"k"));
    // A guess at the Secret cannot be checked without the key.
    assert_ne!(after, all(&two, &now, b"other"));
    // The digest itself needs no rollout: what it stands for does, and is told.
    let stamped = (stamp(&two, &none, b"k"), stamp(&two, &now, b"k"));
    assert!(matches!(needs_rollout(&stamped.0, &stamped.1, &policy()).unwrap(), Decision::Direct { .. }));
    // Nothing else of the bundle changes.
    let rest =
        |bundle: &Bundle| bundle.objects().iter().filter(|o| o.name() != "web").cloned().collect::<Vec<_>>();
    assert_eq!(rest(&stamped.0), rest(&stamped.1));
}
