//! Kinds that another API server serves behind the API server (an APIService) are delivered, watched and removed as all others are;
//! while it does not answer, nothing of them is taken for gone, and who has none of them does not notice.

use crate::support::cli;
use crate::support::cluster::{Cluster, send, wait_until};
use crate::support::daemon::{LIMIT, World, config_map};
use serde_json::{Value, json};
use windlass::api::delivery::Phase;

const GROUP: &str = "behind.test";
const API: &str = "behind.test/v1";
const SERVICE: &str = "/apis/apiregistration.k8s.io/v1/apiservices/v1.behind.test";

/// Two API servers, of which one serves the Widgets of the other.
struct Two {
    front: &'static Cluster,
    behind: &'static Cluster,
    world: World,
}

impl Two {
    async fn new() -> Self {
        let front = Cluster::own();
        let behind = Cluster::own_behind(front);
        let world = World::stopped_in(front, "behind").await;
        let namespace = json!({"metadata": {"name": world.space.name}});
        let definition = json!({
            "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
            "metadata": {"name": format!("widgets.{GROUP}")},
            "spec": {
                "group": GROUP, "scope": "Namespaced",
                "names": {"kind": "Widget", "listKind": "WidgetList", "plural": "widgets", "singular": "widget"},
                "versions": [{
                    "name": "v1", "served": true, "storage": true,
                    "schema": {"openAPIV3Schema": {"type": "object", "properties": {
                        "spec": {"type": "object", "properties": {"size": {"type": "integer"}}},
                    }}},
                }],
            },
        });
        let client = behind.connect().await.client;
        send(&client, "POST", "/api/v1/namespaces", &namespace).await;
        let definitions = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
        send(&client, "POST", definitions, &definition).await;
        front.serve_behind(GROUP, "v1", behind).await;
        let mut two = Two { front, behind, world };
        two.wait_available("True").await;
        wait_until("Widgets are served", LIMIT, || async {
            two.world.space.discovery.refresh().await.map_err(|e| e.to_string())?;
            let found =
                two.world.space.discovery.resource(&windlass::core::manifest::Gvk::new(API, "Widget"));
            found.map(|_| ()).ok_or_else(|| "not yet".into())
        })
        .await;
        two.world.start();
        two
    }

    /// Waits until the API server says so of the one behind it.
    async fn wait_available(&self, status: &str) {
        wait_until(&format!("the API server behind is available: {status}"), LIMIT, || async {
            let service = self.world.space.send("GET", SERVICE, &Value::Null).await;
            let conditions = service["status"]["conditions"].as_array();
            let is = |c: &Value| c["type"] == "Available" && c["status"] == status;
            if conditions.is_some_and(|all| all.iter().any(is)) {
                Ok(())
            } else {
                Err(service["status"].to_string())
            }
        })
        .await;
    }

    fn stop(self) {
        drop(self.world);
        self.front.stop();
        self.behind.stop();
    }
}

fn widget(size: u32) -> String {
    format!("apiVersion: {API}\nkind: Widget\nmetadata: {{name: big}}\nspec: {{size: {size}}}\n")
}

#[tokio::test]
async fn its_objects_are_applied_shown_mended_and_removed() {
    let two = Two::new().await;
    let world = &two.world;
    let (map, big) = (config_map("map", "1"), widget(3));
    let first = world.commit("A Widget", &[("shop/map.yaml", &map), ("shop/big.yaml", &big)]);
    world.deliver("shop", json!({})).await;
    world.wait_for("shop", Phase::Ready, &first).await;
    // It lies with the other API server.
    let client = two.behind.connect().await.client;
    let path = format!("{}/big", world.space.path(API, "widgets"));
    let there = send(&client, "GET", &path, &Value::Null).await;
    assert_eq!(there["spec"]["size"], 3, "{there}");
    let tree = cli::windlass(&world.space, &["tree", "shop", "-n", &world.space.name]);
    assert!(tree.out.contains("Widget.behind.test big"), "{}{}", tree.out, tree.err);
    // Somebody changes it there.
    send(&client, "PATCH", &path, &json!({"spec": {"size": 5}})).await;
    world.wait_object(API, "widgets", "big", "mended", |w| w["spec"]["size"] == 3).await;
    let second = world.commit("None any more", &[("shop/map.yaml", &map), ("shop/big.yaml", "")]);
    world.wait_for("shop", Phase::Ready, &second).await;
    assert!(world.names(API, "widgets").await.is_empty());
    two.stop();
}

#[tokio::test]
async fn while_it_does_not_answer_nothing_of_it_is_gone_and_others_are_delivered() {
    let two = Two::new().await;
    let world = &two.world;
    let (map, big) = (config_map("map", "1"), widget(3));
    let other = config_map("other", "1");
    let files = [("shop/map.yaml", &*map), ("shop/big.yaml", &*big), ("other/map.yaml", &*other)];
    let first = world.commit("A Widget", &files);
    world.deliver("*", json!({})).await;
    world.wait_for("shop", Phase::Ready, &first).await;
    world.wait_for("other", Phase::Ready, &first).await;

    let mut two = two;
    let stopped = two.behind.kill_api_server();
    two.wait_available("False").await;
    // What was known of it is forgotten on both sides.
    two.world.kill();
    let front = two.front.kill_api_server().start();
    two.wait_available("False").await;
    two.world.start();
    let world = &two.world;
    let other = config_map("other", "2");
    let second = world.commit("No Widget any more", &[("shop/big.yaml", ""), ("other/map.yaml", &other)]);
    world.wait_for("other", Phase::Ready, &second).await;
    let told = |d: &windlass::api::Delivery| {
        json!(d.status).to_string().contains("APIService v1.behind.test does not answer")
    };
    let waiting = world.wait("shop", "it says who does not answer", told).await;
    assert_ne!(waiting.status.unwrap().phase, Phase::Ready);
    let answer = cli::windlass(&world.space, &["status", "-n", &world.space.name]);
    assert!(answer.out.contains("v1.behind.test"), "{}{}", answer.out, answer.err);

    let behind = stopped.start();
    world.wait_for("shop", Phase::Ready, &second).await;
    // The other one is asked itself: the first may take it for away once more while the machine is busy.
    let client = two.behind.connect().await.client;
    let left = send(&client, "GET", &world.space.path(API, "widgets"), &Value::Null).await;
    assert_eq!(left["items"], json!([]), "it was not taken for gone");
    drop((front, behind));
    two.stop();
}
