//! Whoever asks something of a rollout writes his own name: the policy that an installation brings has the API server refuse
//! any other, and gets in the way of nothing else.

use crate::a_rollout_goes_step_by_step::{canary, service, web};
use crate::support::cli::{Answer, kubectl, windlass_with};
use crate::support::cluster::{suffix, wait_until};
use crate::support::daemon::{LIMIT, World, condition, config_map};
use serde_json::{Value, json};
use windlass::api::Delivery;
use windlass::api::condition::kind;
use windlass::api::delivery::Phase;
use windlass::api::names;
use windlass::installation::Installation;

/// The policy and its binding, for this namespace alone.
async fn guarded(world: &mut World) {
    let name = format!("rollout-requests-{}", suffix());
    let objects = Installation::default().objects();
    for (kind, plural) in [
        ("ValidatingAdmissionPolicy", "validatingadmissionpolicies"),
        ("ValidatingAdmissionPolicyBinding", "validatingadmissionpolicybindings"),
    ] {
        let found: Vec<&Value> = objects.iter().filter(|o| o["kind"] == kind).collect();
        assert_eq!(found.len(), 1, "{kind}");
        let mut object = found[0].clone();
        assert_eq!(object["metadata"]["name"], "windlass-rollout-requests");
        object["metadata"]["name"] = json!(name);
        if kind.ends_with("Binding") {
            object["spec"]["policyName"] = json!(name);
            let only = json!({"matchLabels": {"kubernetes.io/metadata.name": world.space.name}});
            object["spec"]["matchResources"] = json!({"namespaceSelector": only});
        }
        let collection = format!("/apis/admissionregistration.k8s.io/v1/{plural}");
        world.space.make_cluster_object(&collection, &object).await;
    }
}

/// Somebody who may do everything, and says who he is.
fn by(world: &World, who: &str, arguments: &[&str]) -> Answer {
    let (who, namespace) = (format!("--as={who}"), format!("--namespace={}", world.space.name));
    let all: Vec<&str> =
        arguments.iter().copied().chain([who.as_str(), "--as-group=system:masters", &namespace]).collect();
    kubectl(&world.space, &all)
}

fn annotate(world: &World, who: &str, value: &str) -> Answer {
    let annotation = format!("{}={value}", names::ROLLOUT_REQUEST);
    by(world, who, &["annotate", "--overwrite", "deliveries.windlass.dev", "shop", &annotation])
}

async fn asked(world: &World) -> Value {
    world.get("windlass.dev/v1alpha1", "deliveries", "shop").await["metadata"]["annotations"]
        [names::ROLLOUT_REQUEST]
        .clone()
}

#[tokio::test]
async fn anothers_is_refused_and_nothing_else() {
    let mut world = World::stopped("own-names").await;
    guarded(&mut world).await;
    world.deliver_by_hand("shop", "shop", json!({})).await;
    // A policy is in force a moment after it was made. What stands there already asks for nothing new: another value each time.
    wait_until("another's name is refused", LIMIT, || async {
        match annotate(&world, "eve", &format!("promote:abc:{}:ada", suffix())) {
            answer if answer.err.contains("the user must be who asks: eve") => Ok(()),
            answer => Err(format!("{answer:?}")),
        }
    })
    .await;
    let removed = by(
        &world,
        "eve",
        &["annotate", "deliveries.windlass.dev", "shop", &format!("{}-", names::ROLLOUT_REQUEST)],
    );
    assert_eq!(removed.code, 0, "what is asked for may be taken back: {removed:?}");
    assert_eq!(asked(&world).await, Value::Null);

    let account = format!("system:serviceaccount:{}:ci", world.space.name);
    let own = format!("promote:abc:t:{account}");
    let anothers = own.replace("abc", "abd");
    let table: [(&str, &str, bool); 9] = [
        ("ada", "promote:abc:20261121T100000Z:ada", true),
        (&account, &own, true),
        // Not what it is to look like.
        ("ada", "promote", false),
        ("ada", "promote:abc:ada", false),
        ("ada", "promote:abc:t:", false),
        ("ada", "promote:abc:t:Ada", false),
        ("ada", "promote:abc:t:ada:and-more", false),
        ("ci", &anothers, false),
        (&account, "promote:abc:t:ci", false),
    ];
    for (who, value, passes) in table {
        let before = asked(&world).await;
        let answer = annotate(&world, who, value);
        assert_eq!(answer.code == 0, passes, "{who}: {value}: {answer:?}");
        assert_eq!(asked(&world).await, if passes { json!(value) } else { before }, "{who}: {value}");
    }

    // What others write into the same object has nothing to do with that, also where somebody has asked already.
    let others: [&[&str]; 3] = [
        &["label", "deliveries.windlass.dev", "shop", "team=shop"],
        &["annotate", "deliveries.windlass.dev", "shop", "windlass.dev/reconcile=now"],
        &["patch", "deliveries.windlass.dev", "shop", "--type=merge", "-p", "{\"spec\":{\"suspend\":true}}"],
    ];
    for arguments in others {
        let answer = by(&world, "eve", arguments);
        assert_eq!(answer.code, 0, "{arguments:?}: {answer:?}");
    }
    let status = json!({"status": {"phase": "Ready"}}).to_string();
    let of_status = by(
        &world,
        "eve",
        &["patch", "deliveries.windlass.dev", "shop", "--subresource=status", "--type=merge", "-p", &status],
    );
    assert_eq!(of_status.code, 0, "{of_status:?}");
    assert_eq!(asked(&world).await, json!(own));

    // One that is made with a request in it is looked at as well.
    let made = json!({
        "apiVersion": "windlass.dev/v1alpha1", "kind": "Delivery",
        "metadata": {"name": "other", "annotations": {names::ROLLOUT_REQUEST: "abort:abc:t:ada"}},
        "spec": {"source": {"repository": "config", "path": "other"}, "targetNamespace": world.space.name},
    });
    let file = world.file("made.json");
    std::fs::write(&file, made.to_string()).unwrap();
    for (who, passes) in [("eve", false), ("ada", true)] {
        let answer = by(&world, who, &["create", "-f", &file.display().to_string()]);
        assert_eq!(answer.code == 0, passes, "{who}: {answer:?}");
    }
}

/// `windlass` as somebody who may do everything, and says who he is.
fn windlass_by(world: &World, who: &str, verb: &str) -> Answer {
    let text = std::fs::read_to_string(&world.space.cluster.kubeconfig).unwrap();
    let mut config: Value = serde_saphyr::from_str(&text).unwrap();
    let user = &mut config["users"][0]["user"];
    (user["as"], user["as-groups"]) = (json!(who), json!(["system:masters"]));
    let file = world.file(who);
    std::fs::write(&file, config.to_string()).unwrap();
    windlass_with(&file, &[verb, "shop", "-n", &world.space.name])
}

/// A request in another's name is refused once the policy is in force.
async fn wait_in_force(world: &World) {
    wait_until("another's name is refused", LIMIT, || async {
        match annotate(world, "eve", &format!("promote:{}:{}:ada", "0".repeat(40), suffix())) {
            answer if answer.err.contains("the user must be who asks: eve") => Ok(()),
            answer => Err(format!("{answer:?}")),
        }
    })
    .await;
}

/// What was handled last: the verb, of which commit, and who asked; and that it was since then.
fn handled(delivery: &Delivery, since: jiff::Timestamp) -> (String, String, String) {
    let recorded = delivery.status.as_ref().and_then(|s| s.handled_rollout.clone()).unwrap_or_default();
    let parts: Vec<&str> = recorded.split(':').collect();
    let [verb, commit, time, user] = parts[..] else { panic!("{recorded}") };
    let time: jiff::Timestamp = time.parse().unwrap_or_else(|e| panic!("{recorded}: {e}"));
    assert!(time.as_second() >= since.as_second() && time <= jiff::Timestamp::now(), "{recorded}");
    (verb.into(), commit.into(), user.into())
}

#[tokio::test]
async fn who_paused_resumed_aborted_and_retried_stands_in_events_and_in_the_status() {
    let mut world = World::stopped("who-paused").await;
    guarded(&mut world).await;
    world.start();
    let first = world.commit(
        "First",
        &[
            ("shop/web.yaml", &web("ok", 2)),
            ("shop/service.yaml", &service("app: web")),
            ("shop/settings.yaml", &config_map("settings", "blue")),
        ],
    );
    let policy = canary(json!([{"weight": 30}, {"pause": {}}]));
    world.deliver("shop", json!({"rollout": policy})).await;
    world.wait_for("shop", Phase::Ready, &first).await;
    let second = world.commit("Second", &[("shop/web.yaml", &web("ok2", 2))]);
    let paused = |d: &Delivery| -> Option<windlass::api::delivery::Problem> {
        d.status.as_ref()?.attempt.as_ref()?.rollout.as_ref()?.paused.clone()
    };
    let waits = |d: &Delivery| paused(d).is_some_and(|p| p.reason == "AwaitsPromotion");
    world.wait("shop", "waits at its step", waits).await;
    wait_in_force(&world).await;

    let acted = |who: &'static str| {
        move |d: &Delivery| {
            let handled = d.status.as_ref().and_then(|s| s.handled_rollout.as_deref());
            handled.is_some_and(|h| h.ends_with(&format!(":{who}")))
        }
    };
    for (verb, who, event, said) in [
        ("pause", "ada", "PausedByHand", "ada pauses the rollout of"),
        ("resume", "bob", "Resumed", "bob resumes the rollout of"),
        ("abort", "cyd", "RollingBack", "cyd aborted its rollout"),
        ("retry", "dot", "Released", "is tried again, as dot asked"),
    ] {
        // In another's name it goes nowhere.
        let anothers = annotate(&world, "eve", &format!("{verb}:{second}:20261121T100000Z:{who}"));
        assert!(anothers.err.contains("the user must be who asks: eve"), "{verb}: {anothers:?}");
        let since = jiff::Timestamp::now();
        let asked = windlass_by(&world, who, verb);
        assert_eq!(asked.code, 0, "{verb}: {asked:?}");
        let delivery = world.wait("shop", &format!("{verb} by {who}"), acted(who)).await;
        assert_eq!(handled(&delivery, since), (verb.to_owned(), second.clone(), who.to_owned()));
        let told = world.wait_event("shop", event).await;
        assert!(told.contains(said) && told.contains(&second[..7]), "{verb}: {told}");
        match verb {
            "pause" => {
                let why = paused(&delivery).unwrap();
                assert_eq!(why.reason, "PausedByHand");
                assert!(why.message.contains("ada paused it"), "{why:?}");
            }
            "resume" => {
                world.wait("shop", "waits at its step again", waits).await;
            }
            "abort" => {
                let held = world.wait_for("shop", Phase::Held, &second).await;
                let (_, _, message) = condition(&held, kind::HELD);
                assert!(message.contains("cyd aborted its rollout"), "{message}");
            }
            _ => {
                let again = world.wait("shop", "is at its step once more", waits).await;
                assert!(again.status.unwrap().held.is_none());
            }
        }
    }
    for (_, text) in world.events("shop").await {
        assert!(text.split_whitespace().all(|word| word != "eve"), "{text}");
    }
}

#[tokio::test]
async fn who_promoted_and_who_aborted_stands_in_events_and_in_the_status() {
    let mut world = World::stopped("who-asked").await;
    guarded(&mut world).await;
    world.start();
    let first = world.commit(
        "First",
        &[
            ("shop/web.yaml", &web("ok", 2)),
            ("shop/service.yaml", &service("app: web")),
            ("shop/settings.yaml", &config_map("settings", "blue")),
        ],
    );
    let policy = canary(json!([{"weight": 30}, {"pause": {}}]));
    world.deliver("shop", json!({"rollout": policy})).await;
    world.wait_for("shop", Phase::Ready, &first).await;
    let second = world.commit("Second", &[("shop/web.yaml", &web("ok2", 2))]);
    world.wait_for("shop", Phase::Paused, &second).await;
    // In another's name it goes nowhere.
    wait_in_force(&world).await;
    let anothers = annotate(&world, "eve", &format!("promote:{second}:20261121T100000Z:ada"));
    assert_ne!(anothers.code, 0, "{anothers:?}");

    let before = jiff::Timestamp::now();
    let asked = windlass_by(&world, "ada", "promote");
    assert_eq!(asked.code, 0, "{asked:?}");
    let ready = world.wait_for("shop", Phase::Ready, &second).await;
    assert_eq!(handled(&ready, before), ("promote".into(), second.clone(), "ada".into()));
    let told = world.wait_event("shop", "Promoted").await;
    assert!(told.contains("ada lets go on") && told.contains(&second[..7]), "{told}");

    let third = world.commit("Third", &[("shop/web.yaml", &web("ok3", 2))]);
    world.wait_for("shop", Phase::Paused, &third).await;
    let asked = windlass_by(&world, "bob", "abort");
    assert_eq!(asked.code, 0, "{asked:?}");
    let held = world.wait_for("shop", Phase::Held, &third).await;
    assert_eq!(handled(&held, before), ("abort".into(), third.clone(), "bob".into()));
    let (_, _, message) = condition(&held, kind::HELD);
    assert!(message.contains("bob aborted"), "{message}");
    let history = &held.status.as_ref().unwrap().history;
    let why = history.iter().find_map(|h| h.problem.as_ref().filter(|_| h.revision.commit == third));
    assert!(why.is_some_and(|problem| problem.message.contains("bob aborted")), "{history:?}");
    let told = world.wait_event("shop", "RollingBack").await;
    assert!(told.contains("bob aborted"), "{told}");
    for (_, text) in world.events("shop").await {
        assert!(!text.contains("eve"), "{text}");
    }
}
