//! A commit with a mistake that can be known is not begun: nothing is written, and people are told what is wrong, with
//! which object and in which file and line.

use crate::support::daemon::{World, condition, config_map, deployment};
use serde_json::json;
use windlass::api::condition::kind;
use windlass::api::delivery::Phase;

/// A mistake, and what must be said about it.
struct Mistake {
    name: &'static str,
    files: Vec<(&'static str, String)>,
    reason: &'static str,
    words: Vec<&'static str>,
}

fn mistake(
    name: &'static str,
    files: &[(&'static str, &str)],
    reason: &'static str,
    words: &[&'static str],
) -> Mistake {
    let files = files.iter().map(|(path, content)| (*path, (*content).to_owned())).collect();
    Mistake { name, files, reason, words: words.to_vec() }
}

fn mistakes() -> Vec<Mistake> {
    let web = deployment("web", "ok", 1);
    let second = format!("{}---\n{}", config_map("other", "1"), config_map("Bad_Name", "1"));
    vec![
        mistake(
            "an unknown field",
            &[("shop/web.yaml", &web.replace("replicas:", "replica:"))],
            "UnknownField",
            &["replica", "shop/web.yaml:1", "Deployment"],
        ),
        mistake(
            "an invalid value",
            &[("shop/bad.yaml", &second)],
            "Invalid",
            &["Bad_Name", "shop/bad.yaml:6"],
        ),
        mistake(
            "an unknown kind",
            &[("shop/bad.yaml", "apiVersion: example.com/v1\nkind: Gadget\nmetadata: {name: it}\n")],
            "KindUnknown",
            &["Gadget", "shop/bad.yaml:1"],
        ),
        mistake(
            "a missing namespace",
            &[(
                "shop/bad.yaml",
                &config_map("far", "1").replace("{name: far}", "{name: far, namespace: nowhere-at-all}"),
            )],
            "NamespaceMissing",
            &["nowhere-at-all", "shop/bad.yaml:1"],
        ),
        mistake(
            "an immutable field",
            &[("shop/web.yaml", &web.replace("app: web", "app: shop"))],
            "ImmutableField",
            &["spec.selector", "shop/web.yaml:1"],
        ),
        mistake(
            "an object in two files",
            &[("shop/bad.yaml", &config_map("settings", "2"))],
            "InvalidBundle",
            &["ConfigMap", "settings", "shop/bad.yaml:1", "shop/settings.yaml:1"],
        ),
        mistake(
            "generateName",
            &[("shop/bad.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {generateName: it-}\n")],
            "RenderFailed",
            &["generateName", "shop/bad.yaml:1"],
        ),
        mistake(
            "YAML that cannot be read",
            &[("shop/bad.yaml", "apiVersion: v1\nkind: [ConfigMap\nmetadata: {name: it}\n")],
            "RenderFailed",
            &["shop/bad.yaml:"],
        ),
        mistake(
            "an image that is no text",
            &[("shop/web.yaml", &web.replace("image: \"registry.example.com/web:ok\"", "image: 7"))],
            "UnknownField",
            &["image", "shop/web.yaml:1"],
        ),
    ]
}

#[tokio::test]
async fn each_mistake_is_told_with_its_place_and_nothing_is_written() {
    let world = World::new("half").await;
    let good =
        [("shop/web.yaml", deployment("web", "ok", 1)), ("shop/settings.yaml", config_map("settings", "1"))];
    let texts = |files: &[(&'static str, String)]| files.to_vec();
    let commit = |subject: &str, files: &[(&'static str, String)]| {
        let files: Vec<(&str, &str)> = files.iter().map(|(p, c)| (*p, c.as_str())).collect();
        world.commit(subject, &files)
    };
    let first = commit("Good", &texts(&good));
    world.deliver("shop", json!({})).await;
    world.wait_for("shop", Phase::Ready, &first).await;
    let mut last = first.clone();
    for Mistake { name, files, reason, words } in mistakes() {
        let audit = world.space.cluster.audit();
        // Something that would be changed if it were begun.
        let mut with = vec![("shop/new.yaml", config_map("new", "1"))];
        with.extend(texts(&files));
        let bad = commit(name, &with);
        let delivery = world
            .wait("shop", name, |d| {
                let failure = d.status.as_ref().and_then(|s| s.failure.as_ref());
                let of = failure.and_then(|f| f.revision.as_ref()).is_some_and(|r| r.commit == bad);
                // What only keeps it from being looked at, such as an API server that is slow, passes.
                of && failure.is_some_and(|f| f.problem.reason == reason)
            })
            .await;
        let (status, why, message) = condition(&delivery, kind::READY);
        assert_eq!((status.as_str(), why.as_str()), ("False", reason), "{name}: {message}");
        for word in words.iter().chain(&[bad.as_str(), last.as_str()]) {
            assert!(message.contains(word), "{name}: \"{word}\" is not in: {message}");
        }
        // A namespace may be made by somebody else any time.
        let stalled = if reason == "NamespaceMissing" { "False" } else { "True" };
        assert_eq!(condition(&delivery, kind::STALLED).0, stalled, "{name}");
        let text = world.wait_event("shop", reason).await;
        assert!(!text.is_empty());
        let writes = world.writes(&audit);
        assert!(writes.is_empty(), "{name}: {writes:#?}");
        assert_eq!(delivery.status.unwrap().effective.unwrap().commit, last, "{name}");
        // The next good commit gets through.
        let mut mended = texts(&good);
        mended[1].1 = config_map("settings", name);
        mended.push(("shop/new.yaml", String::new()));
        if files.iter().any(|(path, _)| *path == "shop/bad.yaml") {
            mended.push(("shop/bad.yaml", String::new()));
        }
        last = commit("Mended", &mended);
        let delivery = world.wait_for("shop", Phase::Ready, &last).await;
        assert_eq!(condition(&delivery, kind::STALLED).0, "False", "{name}");
        assert_eq!(world.get("v1", "configmaps", "settings").await["data"]["key"], name);
    }
    assert_eq!(world.names("v1", "configmaps").await, ["settings"]);
}

#[tokio::test]
async fn one_bad_object_among_ten_keeps_the_other_nine_away() {
    let world = World::new("ten").await;
    let mut text = String::new();
    for n in 0..9 {
        text.push_str(&config_map(&format!("it-{n}"), "1"));
        text.push_str("---\n");
    }
    let bad = format!("{text}{}", config_map("it-9", "1").replace("\ndata:", "\ndota:"));
    let good = format!("{text}{}", config_map("it-9", "1"));
    world.commit("Nine and a mistake", &[("shop/all.yaml", &bad)]);
    let audit = world.space.cluster.audit();
    world.deliver("shop", json!({})).await;
    let delivery = world.wait_refused("shop", "UnknownField").await;
    let (_, _, message) = condition(&delivery, kind::READY);
    assert!(message.contains("it-9") && message.contains("shop/all.yaml:46"), "{message}");
    assert_eq!(delivery.status.unwrap().phase, Phase::Failed);
    assert!(world.names("v1", "configmaps").await.is_empty());
    // The daemon keeps its key in this namespace; nothing else is written.
    let writes = world.writes(&audit);
    assert!(writes.iter().all(|r| r.resource == "secrets"), "{writes:#?}");
    let fixed = world.commit("Ten", &[("shop/all.yaml", &good)]);
    world.wait_for("shop", Phase::Ready, &fixed).await;
    assert_eq!(world.names("v1", "configmaps").await.len(), 10);
}

#[tokio::test]
async fn what_was_missing_is_noticed_without_a_commit() {
    let world = World::new("missing").await;
    let commit = world.commit("Wants a region", &[("shop/it.yaml", &config_map("it", "${REGION}"))]);
    let substitute = json!({"substitute": {"from": [{"configMap": "region"}]}});
    world.deliver("shop", substitute).await;
    let delivery = world.wait_refused("shop", "SettingsMissing").await;
    let (_, _, message) = condition(&delivery, kind::READY);
    assert!(message.contains("ConfigMap") && message.contains("region"), "{message}");
    let map = json!({"metadata": {"name": "region"}, "data": {"REGION": "eu"}});
    world.space.send("POST", &world.space.path("v1", "configmaps"), &map).await;
    world.wait_for("shop", Phase::Ready, &commit).await;
    assert_eq!(world.get("v1", "configmaps", "it").await["data"]["key"], "eu");
}
