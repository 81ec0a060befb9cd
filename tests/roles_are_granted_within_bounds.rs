//! A service account without `escalate` and `bind` delivers roles and their bindings together, as far as its own rights go;
//! beyond that nothing is written, and what right is missing is said.

use crate::support::daemon::{World, condition};
use serde_json::{Value, json};
use windlass::api::condition::kind;
use windlass::api::delivery::Phase;
use windlass::api::names;

const RBAC: &str = "rbac.authorization.k8s.io/v1";

/// A service account that may handle roles and bindings, and read ConfigMaps.
async fn deployer(world: &World) {
    let all = ["get", "list", "watch", "create", "update", "patch", "delete"];
    let rules = json!([
        {"apiGroups": ["rbac.authorization.k8s.io"], "resources": ["roles", "rolebindings"], "verbs": all},
        {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get", "list"]},
    ]);
    world.space.account("deployer", rules).await;
}

fn role(verbs: &str) -> String {
    format!(
        "apiVersion: {RBAC}\nkind: Role\nmetadata: {{name: reader}}\nrules:\n\
         - {{apiGroups: [\"\"], resources: [configmaps], verbs: [{verbs}]}}\n"
    )
}

fn binding(role: &str) -> String {
    format!(
        "apiVersion: {RBAC}\nkind: RoleBinding\nmetadata: {{name: reader}}\n\
         roleRef: {{apiGroup: rbac.authorization.k8s.io, kind: Role, name: {role}}}\n\
         subjects: [{{kind: ServiceAccount, name: app}}]\n"
    )
}

#[tokio::test]
async fn a_role_and_its_binding_come_in_one_commit() {
    let world = World::new("roles").await;
    deployer(&world).await;
    let account = format!("service account {}/deployer", world.space.name);
    // Sorted by name the binding would come first.
    let first =
        world.commit("Readers", &[("shop/a.yaml", &binding("reader")), ("shop/b.yaml", &role("get, list"))]);
    world.deliver("shop", json!({"serviceAccountName": "deployer"})).await;
    world.wait_for("shop", Phase::Ready, &first).await;
    let uid = world.get(RBAC, "rolebindings", "reader").await["metadata"]["uid"].clone();
    assert!(uid.is_string());

    // More than it has itself: refused before anything is written, and it is said what is missing.
    let audit = world.space.cluster.audit();
    world.commit("Writers", &[("shop/b.yaml", &role("get, delete, patch"))]);
    let delivery = world.wait_refused("shop", "Escalates").await;
    let (_, reason, message) = condition(&delivery, kind::READY);
    assert_eq!(reason, "Escalates");
    let words =
        [account.as_str(), "delete, patch configmaps", "verb escalate on roles", "shop/b.yaml:1", "Role "];
    for word in words {
        assert!(message.contains(word), "{word}: {message}");
    }
    assert!(!message.contains("get,"), "what it may grant is not named: {message}");
    assert!(world.writes(&audit).is_empty(), "{:#?}", world.writes(&audit));

    // A person gives the right that is missing.
    let rules = json!([{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["delete", "patch"]}]);
    world.space.grant("deployer", rules).await;
    world.annotate("shop", names::RECONCILE_REQUEST, "now").await;
    world.wait("shop", "ready", |d| d.status.as_ref().is_some_and(|s| s.phase == Phase::Ready)).await;
    assert_eq!(world.get(RBAC, "rolebindings", "reader").await["metadata"]["uid"], uid);
}

#[tokio::test]
async fn a_binding_to_a_role_that_is_nowhere_or_too_strong_is_refused() {
    let world = World::new("bindings").await;
    deployer(&world).await;
    world.commit("To nobody's role", &[("shop/a.yaml", &binding("nowhere"))]);
    world.deliver("shop", json!({"serviceAccountName": "deployer"})).await;
    let delivery = world.wait_refused("shop", "RoleMissing").await;
    let (_, _, message) = condition(&delivery, kind::READY);
    let role = format!("Role {}/nowhere", world.space.name);
    for word in [role.as_str(), "does not exist", "shop/a.yaml:1"] {
        assert!(message.contains(word), "{word}: {message}");
    }

    let strong = json!({"metadata": {"name": "strong"},
        "rules": [{"apiGroups": ["apps"], "resources": ["deployments"], "verbs": ["*"]}]});
    world.space.send("POST", &world.space.path(RBAC, "roles"), &strong).await;
    world.commit("To a strong role", &[("shop/a.yaml", &binding("strong"))]);
    let delivery = world.wait_refused("shop", "Escalates").await;
    let (_, _, message) = condition(&delivery, kind::READY);
    for word in ["* deployments.apps", "the verb bind", "shop/a.yaml:1"] {
        assert!(message.contains(word), "{word}: {message}");
    }
    assert_eq!(world.get(RBAC, "rolebindings", "reader").await, Value::Null);
}
