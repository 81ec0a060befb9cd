//! `windlass drift` in each of its forms: for people, for a whole cluster, for programs, for CI systems, object by object.

use crate::support::cli::{Answer, Watching, windlass};
use crate::support::daemon::{World, config_map};
use serde_json::{Value, json};
use windlass::api::delivery::Phase;

fn ask(world: &World, arguments: &[&str]) -> Answer {
    windlass(&world.space, &[&["drift", "-n", &world.space.name], arguments].concat())
}

#[tokio::test]
async fn as_a_table_a_summary_json_junit_and_whole_objects() {
    let world = World::new("reads").await;
    let secret = "apiVersion: v1\nkind: Secret\nmetadata: {name: login}\nstringData: {user: ada, password: hunter-one}\n";
    let commit = world.commit(
        "It",
        &[
            ("shop/settings.yaml", &config_map("settings", "blue")),
            ("shop/login.yaml", secret),
            ("shop/more.yaml", &config_map("more", "1")),
        ],
    );
    world.deliver("shop", json!({"drift": {"mode": "Report"}})).await;
    world.wait_for("shop", Phase::Ready, &commit).await;
    let none = ask(&world, &["-o", "junit"]);
    assert!(none.code == 0 && none.out.contains("tests=\"1\" failures=\"0\""), "{none:?}");

    world.patch("v1", "configmaps", "settings", json!({"data": {"key": "mauve", "theirs": "1"}})).await;
    // base64 of hunter-two.
    world.patch("v1", "secrets", "login", json!({"data": {"password": "aHVudGVyLXR3bw=="}})).await;
    world.delete("v1", "configmaps", "more").await;
    world.wait("shop", "drift", |d| d.status.as_ref().is_some_and(|s| s.drift == Some(3))).await;
    world.wait_report("three differ", |r| r.count == 3).await;

    let json = ask(&world, &["-o", "json"]);
    let list: Value = serde_json::from_str(&json.out).unwrap();
    let objects = &list["deliveries"][0]["objects"];
    let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
    let mut states: Vec<_> =
        objects.as_array().unwrap().iter().map(|o| (text(&o["name"]), text(&o["state"]))).collect();
    states.sort();
    let wanted = [("login", "Modified"), ("more", "Missing"), ("settings", "Modified")];
    assert_eq!(states, wanted.map(|(name, state)| (name.to_owned(), state.to_owned())));
    let login = objects.as_array().unwrap().iter().find(|o| o["name"] == "login").unwrap();
    assert_eq!(login["fields"][0]["live"], "\"<redacted: differs>\"");
    let settings = objects.as_array().unwrap().iter().find(|o| o["name"] == "settings").unwrap();
    assert_eq!(settings["fields"][0]["pointer"], "/data/key");
    let yaml = ask(&world, &["-o", "yaml"]);
    let same: Value = serde_saphyr::from_str(&yaml.out).unwrap();
    assert_eq!(same["drifted"], list["drifted"]);

    let junit = ask(&world, &["-o", "junit"]);
    assert_eq!(junit.code, 1, "{junit:?}");
    let settings = format!("name=\"ConfigMap {}/settings\"", world.space.name);
    for word in ["tests=\"3\" failures=\"3\"", &settings, "type=\"Missing\"", "mauve", "by hand"] {
        assert!(junit.out.contains(word), "{word}: {junit:?}");
    }
    let well = ask(&world, &["--exit-code=false"]);
    assert!(well.code == 0 && well.out.contains("3 objects differ"), "{well:?}");

    let whole = ask(&world, &["shop", "--diff"]);
    assert_eq!(whole.code, 1, "{whole:?}");
    for line in ["-   key: blue", "+   key: mauve", "    theirs:", "<redacted: before>", "<redacted: after>"]
    {
        assert!(whole.out.contains(line), "{line}: {whole:?}");
    }
    assert!(!whole.out.contains("resourceVersion"), "{whole:?}");
    assert_eq!(ask(&world, &["--diff"]).code, 2, "of which Delivery?");

    let all = windlass(&world.space, &["drift", "-A"]);
    assert_eq!(all.code, 1, "{all:?}");
    let line =
        all.out.lines().find(|l| l.starts_with(&world.space.name)).unwrap_or_else(|| panic!("{all:?}"));
    let cells: Vec<&str> = line.split_whitespace().collect();
    assert_eq!(cells[1], "shop");
    assert_eq!(cells[2], format!("main@{}", &commit[..7]));
    assert_eq!(cells[3..7], ["2", "1", "-", "-"], "{line}");
    assert!(line.contains("hand"), "{line}");
    for answer in [&json, &yaml, &junit, &well, &whole, &all] {
        for value in ["hunter", "aHVudGVy"] {
            assert!(!answer.out.contains(value), "{answer:?}");
        }
    }
}

#[tokio::test]
async fn a_long_value_is_compared_line_by_line_and_shows_nothing_that_came_from_a_secret() {
    let world = World::new("long").await;
    let secret = "correct-horse-battery";
    world.texts("Secret", "login", json!({"password": secret})).await;
    // Longer than what a report has room for.
    let lines: Vec<String> = (0..60).map(|n| format!("setting {n} is as Git says\n")).collect();
    let file = |nth: usize, line: &str| {
        let mut lines = lines.clone();
        lines[nth] = line.to_owned();
        lines.concat()
    };
    let app = |conf: &str, key: &str| {
        let data = json!({"app.conf": conf, "password": key, "theirs": null});
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "app"}, "data": data})
    };
    let mut wanted = app(&lines.concat(), "${password}");
    wanted["data"].as_object_mut().unwrap().remove("theirs");
    let commit = world.commit("It", &[("shop/app.yaml", &wanted.to_string())]);
    world.repository(json!({})).await;
    let template = json!({"substitute": {"from": [{"secret": "login"}]}, "drift": {"mode": "Report"}});
    world.delivery("config", "shop", template).await;
    world.wait_for("shop", Phase::Ready, &commit).await;
    let by_hand = file(30, "setting 30 was changed by hand\n");
    world.patch("v1", "configmaps", "app", json!({"data": {"app.conf": by_hand}})).await;
    world.wait_report("one differs", |r| r.count == 1).await;
    let whole = ask(&world, &["shop", "--diff"]);
    assert_eq!(whole.code, 1, "{whole:?}");
    let changed: Vec<&str> =
        whole.out.lines().filter(|l| l.starts_with("- ") || l.starts_with("+ ")).map(str::trim_end).collect();
    assert_eq!(changed.len(), 2, "{}", whole.out);
    assert!(changed[0].ends_with("setting 30 is as Git says"), "{changed:?}");
    assert!(changed[1].ends_with("setting 30 was changed by hand"), "{changed:?}");
    // As context, and on either side.
    let near = file(59, "setting 59 was changed by hand\n");
    world.patch("v1", "configmaps", "app", json!({"data": {"app.conf": near}})).await;
    let looked = |r: &windlass::api::drift_report::DriftReportSpec| {
        let at = r.objects.first().and_then(|o| o.fields.first());
        at.is_some_and(|f| f.live.is_some()) && r.count == 1
    };
    world.wait_report("one differs", looked).await;
    let beside = ask(&world, &["shop", "--diff"]);
    assert!(beside.out.contains("(value of password)"), "{}", beside.out);
    world.patch("v1", "configmaps", "app", json!({"data": {"password": "by hand"}})).await;
    world.wait_report("two fields", |r| r.objects.first().is_some_and(|o| o.fields.len() == 2)).await;
    let changed = ask(&world, &["shop", "--diff"]);
    assert!(changed.out.contains("by hand"), "{}", changed.out);
    for answer in [&whole, &beside, &changed] {
        assert!(!format!("{answer:?}").contains(secret), "{answer:?}");
    }
    // Whoever may not read the Secret is shown no objects that may have its value.
    world.space.send("DELETE", &format!("{}/login", world.space.path("v1", "secrets")), &Value::Null).await;
    let unread = ask(&world, &["shop", "--diff"]);
    assert!(unread.out.contains("its objects are not shown"), "{unread:?}");
    assert!(!format!("{unread:?}").contains(secret), "{unread:?}");
}

#[tokio::test]
async fn watching_prints_again_when_something_changes_also_when_as_many_objects_differ() {
    let world = World::new("watches").await;
    let commit = world.commit("It", &[("shop/settings.yaml", &config_map("settings", "blue"))]);
    world.deliver("shop", json!({"drift": {"mode": "Report"}})).await;
    world.wait_for("shop", Phase::Ready, &commit).await;
    let mut watching = Watching::of(&world, &["drift", "-n", &world.space.name, "--watch"]);
    watching.wait("nothing differs").await;
    for value in ["mauve", "green"] {
        world.patch("v1", "configmaps", "settings", json!({"data": {"key": value}})).await;
        watching.wait(value).await;
    }
    let code = watching.interrupt().await;
    assert_eq!(code, Some(1), "what was printed last differs");
}
