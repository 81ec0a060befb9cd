//! A controller of the Gateway API: it looks at a route a while after that changed, says whether it takes it, and from
//! then on traffic goes as the route says.

use super::*;
use std::collections::BTreeMap;

/// What is remembered of each route, by its uid.
pub type Memory = BTreeMap<String, Route>;

/// What is remembered of a route.
#[derive(Clone, Debug, Default)]
pub struct Route {
    /// The generation that was seen last.
    wanted: i64,
    /// When it is in effect.
    due: Option<Timestamp>,
    /// The generation that is in effect.
    programmed: i64,
    /// Its rules.
    rules: Value,
}

impl Route {
    /// The rules that traffic goes by.
    pub fn rules(&self) -> &Value {
        &self.rules
    }
}

/// How long a change takes to be in effect: not always the same.
fn delay(route: &Value) -> SignedDuration {
    let version: usize = text(route, "resourceVersion").parse().unwrap_or(0);
    SignedDuration::from_millis([40, 250, 900, 3_000][version % 4])
}

/// One step for each route.
pub fn run(cluster: &mut Cluster, now: Timestamp) {
    let routes: Vec<_> = cluster.routes.iter().flat_map(|at| snapshot(cluster, *at)).collect();
    cluster.controllers.routes.retain(|uid, _| routes.iter().any(|(_, route)| text(route, "uid") == uid));
    for (key, route) in routes {
        let generation = number(&route["metadata"], "generation");
        let uid = text(&route, "uid").to_owned();
        let mut memory = cluster.controllers.routes.remove(&uid).unwrap_or_default();
        if memory.wanted != generation {
            memory.wanted = generation;
            memory.due = Some(now + delay(&route));
        }
        match memory.due {
            Some(due) if due <= now => {
                memory.due = None;
                memory.programmed = generation;
                memory.rules = route["spec"]["rules"].clone();
            }
            Some(due) => cluster.controllers.at(due),
            None => {}
        }
        if memory.programmed > 0 && !is_deleting(&route) {
            tell(cluster, &key, &route, &memory, now);
        }
        cluster.controllers.routes.insert(uid, memory);
    }
}

fn tell(cluster: &mut Cluster, key: &Key, route: &Value, memory: &Route, now: Timestamp) {
    let missing = super::super::gateway::named(&memory.rules)
        .find(|(name, _)| cluster.store.get(at::SERVICE, &key.1, name).is_none())
        .map(|(name, _)| format!("service {:?} not found", format!("{}/{name}", key.1)));
    let parents = route["spec"]["parentRefs"].as_array().into_iter().flatten().map(|parent| {
        let before = route["status"]["parents"].as_array().into_iter().flatten();
        let before = before.clone().find(|p| p["parentRef"] == *parent);
        let before = before.map_or(&Value::Null, |p| &p["conditions"]);
        let condition = |kind: &str, fine: bool, reason: &str, message: &str| {
            let mut out = condition(before, kind, if fine { "True" } else { "False" }, reason, message, now);
            out["observedGeneration"] = memory.programmed.into();
            out
        };
        let refs = match &missing {
            None => condition("ResolvedRefs", true, "ResolvedRefs", ""),
            Some(message) => condition("ResolvedRefs", false, "BackendNotFound", message),
        };
        json!({
            "parentRef": parent, "controllerName": "example.com/gateway",
            "conditions": [condition("Accepted", true, "Accepted", ""), refs],
        })
    });
    let status = json!({"parents": parents.collect::<Vec<_>>()});
    if route["status"] != status {
        let kind = cluster.kinds[key.0].clone();
        let path = format!(
            "/apis/{}/namespaces/{}/{}/{}/status?fieldManager=gateway",
            kind.api_version(),
            key.1,
            kind.plural,
            key.2
        );
        cluster.act(now, "PATCH", &path, &json!({"status": status}));
    }
}
