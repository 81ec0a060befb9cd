//! `windlass diff` tells what a commit would change before it is merged: everything, prunes and the rollout included; it
//! writes nothing, and needs no more than the right to read.

use crate::knowing_costs_nothing::settled;
use crate::support::cli::{Answer, windlass, windlass_with};
use crate::support::daemon::{World, config_map, deployment};
use serde_json::{Value, json};
use std::fs;

const SECRET: &str = "apiVersion: v1\nkind: Secret\nmetadata: {name: it}\nstringData: {password: VALUE}\n";

/// What runs, and a commit on a branch that nothing follows: one object changes, one comes, one goes, one stays.
async fn proposed(test: &str) -> (World, String) {
    let mut world = World::new(test).await;
    let first = world.commit(
        "It",
        &[
            ("shop/web.yaml", &deployment("web", "ok", 2)),
            ("shop/secret.yaml", &SECRET.replace("VALUE", "hunter-one")),
            ("shop/stays.yaml", &config_map("stays", "1")),
            ("shop/goes.yaml", &config_map("goes", "1")),
        ],
    );
    world.deliver("shop", json!({"rollback": {"bake": "1m"}})).await;
    settled(&world, &first).await;
    // Nobody but the command asks for anything from here on, and nothing is on its way.
    world.signal("TERM");
    world.wait_ended("the daemon ends").await;
    world.repo.git(&["checkout", "--quiet", "-b", "proposal"]);
    let late = config_map("comes", "1")
        .replace("{name: comes}", "{name: comes, annotations: {windlass.dev/wave: \"1\"}}");
    let proposal = world.commit(
        "Proposed",
        &[
            ("shop/web.yaml", &deployment("web", "two", 2)),
            ("shop/secret.yaml", &SECRET.replace("VALUE", "hunter-two")),
            ("shop/goes.yaml", ""),
            ("shop/comes.yaml", &late),
        ],
    );
    world.repo.git(&["checkout", "--quiet", "-"]);
    (world, proposal)
}

fn preview(world: &World, arguments: &[&str]) -> Answer {
    let name = format!("{}/shop", world.space.name);
    let all = ["diff", "--delivery", &name, "-n", &world.space.name, "--installation", world.installation()];
    let answer = windlass(&world.space, &all.iter().chain(arguments).copied().collect::<Vec<_>>());
    assert!(!format!("{answer:?}").contains("hunter"), "{answer:?}");
    assert!(!format!("{answer:?}").contains("aHVudGVy"), "{answer:?}");
    answer
}

fn acts(report: &Value) -> Vec<(String, String)> {
    let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
    let mut acts: Vec<_> = report["objects"]
        .as_array()
        .unwrap()
        .iter()
        .map(|o| (text(&o["object"]).rsplit('/').next().unwrap_or_default().to_owned(), text(&o["act"])))
        .collect();
    acts.sort();
    acts
}

#[tokio::test]
async fn a_commit_is_told_from_the_repository_and_from_a_checkout_by_dry_runs_alone() {
    let (world, proposal) = proposed("preview").await;
    let audit = world.space.cluster.audit();
    let dir = world.repo.path().join("shop");
    let dir = dir.to_str().unwrap();
    let expected = [("comes", "Create"), ("goes", "Delete"), ("it", "Change"), ("web", "Change")]
        .map(|(name, act)| (name.to_owned(), act.to_owned()));
    for what in [&["--revision", &proposal][..], &[dir, "--revision", "proposal"]] {
        let answer = preview(&world, &[what, &["-o", "json"]].concat());
        assert_eq!(answer.code, 1, "{answer:?}");
        let report: Value = serde_json::from_str(&answer.out).unwrap();
        assert_eq!(acts(&report), expected, "{report}");
        let object = |name: &str| {
            let objects = report["objects"].as_array().unwrap();
            objects.iter().find(|o| o["object"].as_str().unwrap().ends_with(name)).unwrap().clone()
        };
        let path = "spec.template.spec.containers[name=app].image";
        assert!(object("/web")["changes"].as_array().unwrap().iter().any(|c| c["path"] == path), "{report}");
        assert_eq!(object("/web")["pods"], "replaces its 2 pods: 25% unavailable and 25% more at most");
        assert_eq!((&object("/web")["wave"], &object("/comes")["wave"]), (&json!(0), &json!(1)));
        let rollout = report["rollout"].to_string();
        for part in [
            "has 3m to become healthy",
            "is brought back and this one is held",
            "1 object is removed",
            "rollback.bake",
        ] {
            assert!(rollout.contains(part), "{part}: {rollout}");
        }
    }
    // What stands on disk is what runs: the branch that is checked out.
    let same = preview(&world, &[dir]);
    assert_eq!(same.code, 0, "{same:?}");
    // The top of the repository stands for the Delivery's directory in it.
    let top = world.repo.path();
    let top = top.to_str().unwrap();
    let same = preview(&world, &[top]);
    assert!(same.code == 0 && same.err.contains("note: shop is compared"), "{same:?}");
    let proposed = preview(&world, &[top, "--revision", "proposal", "-o", "json"]);
    assert_eq!(acts(&serde_json::from_str(&proposed.out).unwrap()), expected, "{proposed:?}");

    let comment = preview(&world, &["--revision", &proposal, "-o", "markdown"]);
    assert_eq!(comment.code, 1, "{comment:?}");
    for part in [
        "**1** to create, **2** to change, **1** to delete",
        "```diff",
        "+       - image: registry.example.com/web:two",
        "<code>ConfigMap ",
        "wave 1",
        "redacted",
    ] {
        assert!(comment.out.contains(part), "{part}: {}", comment.out);
    }
    // For people.
    let text = preview(&world, &["--revision", &proposal]);
    assert!(text.out.contains("would be deleted") && text.out.contains("rollout: has 3m"), "{}", text.out);
    let unknown = preview(&world, &["--revision", "no-such-thing"]);
    assert!(unknown.code == 2 && unknown.err.contains("no commit id"), "{unknown:?}");

    let asked = audit.in_namespace(&world.space.name);
    assert!(asked.iter().any(|r| r.uri.contains("dryRun=All")), "{asked:#?}");
    let writes: Vec<_> = asked.iter().filter(|r| !r.is_read() && r.user != "system:apiserver").collect();
    assert!(writes.is_empty(), "{writes:#?}");
}

#[tokio::test]
async fn the_right_to_read_is_enough_and_what_could_not_be_checked_is_said() {
    let (world, proposal) = proposed("previewread").await;
    let rules = json!([
        {"apiGroups": ["windlass.dev"], "resources": ["deliveries", "repositories"], "verbs": ["get", "list"]},
        {"apiGroups": ["", "apps"], "resources": ["configmaps", "secrets", "deployments"], "verbs": ["get", "list"]},
    ]);
    let account = world.space.account("reader", rules).await;
    // The same cluster as that account, as CI would be.
    let text = fs::read_to_string(&world.space.cluster.kubeconfig).unwrap();
    let mut config: Value = serde_saphyr::from_str(&text).unwrap();
    config["users"][0]["user"]["as"] =
        json!(format!("system:serviceaccount:{}:{}", account.namespace, account.name));
    let file = world.file("reader.kubeconfig");
    fs::write(&file, config.to_string()).unwrap();
    let audit = world.space.cluster.audit();
    let arguments = [
        "diff",
        "--delivery",
        "shop",
        "-n",
        &world.space.name,
        "--installation",
        world.installation(),
        "--revision",
        &proposal,
    ];
    let answer = windlass_with(&file, &[&arguments[..], &["-o", "json"]].concat());
    assert_eq!(answer.code, 1, "{answer:?}");
    let report: Value = serde_json::from_str(&answer.out).unwrap();
    let expected = [("comes", "Create"), ("goes", "Delete"), ("it", "Change"), ("web", "Change")]
        .map(|(name, act)| (name.to_owned(), act.to_owned()));
    assert_eq!(acts(&report), expected, "{report}");
    // Defaults that the API server filled in are no change.
    let web = report["objects"]
        .as_array()
        .unwrap()
        .iter()
        .find(|o| o["object"].as_str().unwrap().ends_with("/web"))
        .unwrap();
    let changes: Vec<&str> =
        web["changes"].as_array().unwrap().iter().map(|c| c["path"].as_str().unwrap()).collect();
    assert_eq!(changes, ["spec.template.spec.containers[name=app].image"], "{web}");
    let unchecked = report["unchecked"].as_array().unwrap();
    assert_eq!(unchecked.len(), 4, "{report}");
    assert!(unchecked[0]["message"].as_str().unwrap().starts_with("compared by reading alone: "), "{report}");
    let comment = windlass_with(&file, &[&arguments[..], &["-o", "markdown"]].concat());
    assert!(comment.out.contains("**Not checked**"), "{comment:?}");
    assert!(!format!("{answer:?}{comment:?}").contains("aHVudGVy"), "{comment:?}");
    let writes: Vec<_> = audit.in_namespace(&world.space.name).into_iter().filter(|r| !r.is_read()).collect();
    assert!(writes.is_empty(), "{writes:#?}");
}
