//! `windlass diff` tells what a commit would change before it is merged: everything, prunes and the rollout included; it
//! writes nothing, and needs no more than the right to read.

use crate::a_rollout_goes_step_by_step::{blue_green, deployed, service, web};
use crate::knowing_costs_nothing::settled;
use crate::support::cli::{Answer, windlass, windlass_with};
use crate::support::daemon::{World, config_map, deployment};
use serde_json::{Value, json};
use std::fs;
use windlass::api::delivery::Phase;

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

const MIGRATE: &str = "apiVersion: batch/v1
kind: Job
metadata: {name: migrate, annotations: {windlass.dev/hook: before-apply}}
spec:
  template: {spec: {restartPolicy: Never, containers: [{name: it, image: registry.example.com/migrate}]}}
";

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
    // The Job of a hook cannot be tried either, and that is no failure.
    world.repo.git(&["checkout", "--quiet", "-b", "hooked", &proposal]);
    let hooked = world.commit("Hooked", &[("shop/migrate.yaml", MIGRATE)]);
    world.repo.git(&["checkout", "--quiet", "-"]);
    let mut arguments = arguments.to_vec();
    *arguments.last_mut().unwrap() = &hooked;
    let with_hook = windlass_with(&file, &[&arguments[..], &["-o", "json"]].concat());
    assert_eq!(with_hook.code, 1, "{with_hook:?}");
    let report: Value = serde_json::from_str(&with_hook.out).unwrap();
    let unchecked = report["unchecked"].as_array().unwrap();
    assert_eq!(unchecked.len(), 5, "{report}");
    let of_hook = unchecked.iter().find(|u| u["object"].as_str().unwrap().contains("migrate")).unwrap();
    assert!(
        of_hook["message"].as_str().unwrap().starts_with("whether its Job would be taken: "),
        "{of_hook}"
    );
    assert!(!format!("{answer:?}{comment:?}").contains("aHVudGVy"), "{comment:?}");
    let writes: Vec<_> = audit.in_namespace(&world.space.name).into_iter().filter(|r| !r.is_read()).collect();
    assert!(writes.is_empty(), "{writes:#?}");
}

/// Nobody follows what is checked out from here on.
async fn quiet(world: &mut World) {
    world.signal("TERM");
    world.wait_ended("the daemon ends").await;
}

/// What a change of some files would come to, as JSON, while no daemon runs.
fn proposal(world: &World, files: &[(&str, &str)]) -> Value {
    world.repo.git(&["checkout", "--quiet", "-b", "proposal"]);
    let commit = world.commit("Proposed", files);
    world.repo.git(&["checkout", "--quiet", "-"]);
    world.repo.git(&["branch", "--quiet", "-D", "proposal"]);
    let answer = preview(world, &["--revision", &commit, "-o", "json"]);
    assert_eq!(answer.code, 1, "{answer:?}");
    serde_json::from_str(&answer.out).unwrap()
}

#[tokio::test]
async fn what_a_rollout_would_do_is_told_with_its_steps_and_a_refusal_before_it_is_one() {
    let (mut world, good) = deployed("previewsteps", "app: web, tier: front", blue_green()).await;
    quiet(&mut world).await;
    let first = |report: &Value| report["rollout"][0].as_str().unwrap_or_default().to_owned();
    let told = first(&proposal(&world, &[("shop/web.yaml", &web("ok2", 2))]));
    let steps = "is rolled out first (BlueGreen: pause until a person says go, all traffic, promotion): ";
    assert!(told.starts_with(steps) && told.contains("image"), "{told}");
    let told = first(&proposal(&world, &[("shop/web.yaml", &web("ok", 3))]));
    assert!(told.starts_with("is applied at once: ") && told.contains("neither its pods change"), "{told}");
    // The daemon would refuse it, and says the same.
    let team = web("ok2", 2).replace("metadata: {labels: {", "metadata: {labels: {team: shop, ");
    let aside = service("team: shop").replace("name: web", "name: team");
    let both = [("shop/web.yaml", team.as_str()), ("shop/team.yaml", aside.as_str())];
    let told = first(&proposal(&world, &both));
    let rest = told.strip_prefix("would be refused: ").unwrap_or_else(|| panic!("{told}")).to_owned();
    assert!(rest.contains("Service") && rest.contains("shop/team.yaml"), "{told}");
    world.commit("Really", &both);
    world.start();
    let delivery = world.wait_refused("shop", "ServiceSeesBothVariants").await;
    let problem = delivery.status.as_ref().and_then(|s| s.failure.clone()).unwrap().problem;
    assert_eq!(windlass::core::rollout::status::told(&problem), rest);
    assert_eq!(delivery.status.unwrap().effective.unwrap().commit, good);
}

#[tokio::test]
async fn a_route_that_is_not_there_is_told_before_a_rollout_needs_it() {
    let policy = json!({
        "strategy": "Canary", "workload": {"name": "web"}, "router": {"gatewayAPI": {"route": "web"}},
        "steps": [{"weight": 10}, {"pause": "5m"}], "settle": "300ms",
    });
    let (mut world, _) = deployed("previewroute", "app: web, tier: front", policy).await;
    quiet(&mut world).await;
    let report = proposal(&world, &[("shop/web.yaml", &web("ok2", 2))]);
    let told = report["rollout"][0].as_str().unwrap_or_default();
    assert!(told.starts_with("would be refused: ") && told.contains("HTTPRoute"), "{report}");
}

#[tokio::test]
async fn what_is_deleted_and_made_again_is_told_so() {
    let mut world = World::new("previewanew").await;
    let first = world.commit("It", &[("shop/web.yaml", &deployment("web", "ok", 1))]);
    world.deliver("shop", json!({})).await;
    world.wait_for("shop", Phase::Ready, &first).await;
    quiet(&mut world).await;
    let other = deployment("web", "ok", 1).replace("app: web", "app: other").replacen(
        "metadata: {name: web",
        "metadata: {annotations: {windlass.dev/recreate: enabled}, name: web",
        1,
    );
    let report = proposal(&world, &[("shop/web.yaml", &other)]);
    assert_eq!(acts(&report), [("web".to_owned(), "Recreate".to_owned())], "{report}");
    world.repo.git(&["checkout", "--quiet", "-b", "again"]);
    let commit = world.commit("Again", &[("shop/web.yaml", &other)]);
    world.repo.git(&["checkout", "--quiet", "-"]);
    let text = preview(&world, &["--revision", &commit]);
    assert!(text.out.contains("would be deleted and created again"), "{text:?}");
    assert!(text.out.contains("1 to recreate"), "{text:?}");
    let comment = preview(&world, &["--revision", &commit, "-o", "markdown"]);
    assert!(comment.out.contains("delete and create again"), "{comment:?}");
    // Without a word that it may be, it is a problem, and says what to write.
    let not_said = other.replace("annotations: {windlass.dev/recreate: enabled}, ", "");
    world.repo.git(&["checkout", "--quiet", "again"]);
    let commit = world.commit("Not said", &[("shop/web.yaml", &not_said)]);
    world.repo.git(&["checkout", "--quiet", "-"]);
    let problem = preview(&world, &["--revision", &commit]);
    assert!(problem.code == 2 && problem.err.contains("windlass.dev/recreate"), "{problem:?}");
}
