#![allow(clippy::unwrap_used)]

use super::*;
use serde_json::json;

fn entry(api_version: &str, kind: &str, name: &str, candidate: bool) -> Value {
    let gvk = Gvk::new(api_version, kind);
    json!({"group": gvk.group, "version": gvk.version, "kind": kind, "namespace": "shop", "name": name,
        "origin": "Created", "candidate": candidate})
}

fn object(api_version: &str, kind: &str, name: &str, owner: &str, more: Value) -> Value {
    let mut object = json!({
        "apiVersion": api_version, "kind": kind,
        "metadata": {"name": name, "namespace": "shop", "uid": format!("{kind}-{name}")},
    });
    if !owner.is_empty() {
        object["metadata"]["ownerReferences"] = json!([{"uid": owner}]);
    }
    for (field, value) in more.as_object().unwrap() {
        object[field] = value.clone();
    }
    object
}

fn slice(name: &str, service: &str, endpoints: Value) -> Value {
    let mut slice = object(
        "discovery.k8s.io/v1",
        "EndpointSlice",
        name,
        &format!("Service-{service}"),
        json!({"ports": [{"name": "http", "port": 8080}], "endpoints": endpoints}),
    );
    slice["metadata"]["labels"] = json!({SERVICE_NAME: service});
    slice
}

fn endpoint(address: &str, pod: &str, conditions: Value) -> Value {
    json!({"addresses": [address], "nodeName": "node-1", "conditions": conditions, "targetRef": {"kind": "Pod", "name": pod}})
}

fn root() -> Root {
    Root { gvk: Gvk::new("windlass.dev/v1alpha1", "Delivery"), namespace: "shop".into(), name: "shop".into() }
}

fn looked(objects: &[Value]) -> Seen<Kept> {
    let mut seen = Seen::new();
    loop {
        let looks = wanted(&root(), &BTreeSet::new(), &seen);
        if looks.iter().eq(seen.keys()) {
            return seen;
        }
        seen = looks
            .into_iter()
            .map(|look| {
                let mut shown = Shown { complete: true, ..Shown::default() };
                for object in objects.iter().filter(|object| object["kind"] == *look.gvk.kind) {
                    let id = ObjectId::of(object);
                    if look.name.as_ref().is_none_or(|name| *name == id.name) {
                        shown.objects.insert((id.namespace, id.name), keep(object));
                    }
                }
                (look, shown)
            })
            .collect();
    }
}

fn shop() -> Vec<Value> {
    let ready = json!({"ready": true, "serving": true, "terminating": false});
    let ending = json!({"ready": false, "serving": true, "terminating": true});
    let route = json!({"spec": {"hostnames": ["shop.example.com"], "rules": [{
        "matches": [{"path": {"type": "PathPrefix", "value": "/"}}], "timeouts": {"request": "10s", "backendRequest": "2s"},
        "backendRefs": [{"name": "web", "port": 80, "weight": 80}, {"name": "web-canary", "port": 80, "weight": 20}]}]}});
    let inventory = json!([
        entry("v1", "ConfigMap", "settings", false),
        entry("v1", "Service", "web", false),
        entry("v1", "Service", "web-canary", true),
        entry("v1", "Service", "idle", false),
        entry("v1", "Service", "elsewhere", false),
        entry("apps/v1", "Deployment", "web", false),
        entry("apps/v1", "Deployment", "web-canary", true),
        entry("gateway.networking.k8s.io/v1", "HTTPRoute", "web", false),
    ]);
    vec![
        object("windlass.dev/v1alpha1", "Delivery", "shop", "", json!({"status": {"inventory": inventory}})),
        object("v1", "Service", "web", "", json!({"spec": {"type": "ClusterIP"}})),
        object("v1", "Service", "web-canary", "", json!({"spec": {}})),
        object("v1", "Service", "idle", "", json!({"spec": {}})),
        object(
            "v1",
            "Service",
            "elsewhere",
            "",
            json!({"spec": {"type": "ExternalName", "externalName": "a"}}),
        ),
        object("apps/v1", "Deployment", "web", "", json!({})),
        object("apps/v1", "Deployment", "web-canary", "", json!({})),
        object("apps/v1", "ReplicaSet", "web-1", "Deployment-web", json!({})),
        object("apps/v1", "ReplicaSet", "web-canary-1", "Deployment-web-canary", json!({})),
        object("v1", "Pod", "web-1-a", "ReplicaSet-web-1", json!({})),
        object("v1", "Pod", "web-canary-1-b", "ReplicaSet-web-canary-1", json!({})),
        slice(
            "web-x",
            "web",
            json!([endpoint("10.0.0.1", "web-1-a", ready), endpoint("10.0.0.9", "web-1-z", ending)]),
        ),
        slice("web-y", "web", json!([endpoint("fd00::1", "web-1-a", json!({}))])),
        slice(
            "web-canary-x",
            "web-canary",
            json!([endpoint("10.0.0.2", "web-canary-1-b", json!({"ready": false}))]),
        ),
        object("gateway.networking.k8s.io/v1", "HTTPRoute", "web", "", route.clone()),
        object("gateway.networking.k8s.io/v1", "HTTPRoute", "of-others", "", route),
    ]
}

#[test]
fn who_serves_is_told_by_variant_and_service() {
    let seen = looked(&shop());
    assert!(!seen.keys().any(|look| look.gvk.kind == "ConfigMap"), "it says nothing of this");
    let serving = serving(&root(), &BTreeSet::new(), &seen);
    let lines: Vec<String> = serving
        .endpoints
        .iter()
        .map(|e| {
            format!(
                "{:?} {} {} {} {:?} ready={} serving={} terminating={}",
                e.variant, e.service, e.pod, e.node, e.addresses, e.ready, e.serving, e.terminating
            )
        })
        .collect();
    assert_eq!(
        lines,
        [
            "Stable web web-1-a node-1 [\"10.0.0.1:8080\", \"[fd00::1]:8080\"] ready=true serving=true terminating=false",
            "Stable web web-1-z node-1 [\"10.0.0.9:8080\"] ready=false serving=true terminating=true",
            "Candidate web-canary web-canary-1-b node-1 [\"10.0.0.2:8080\"] ready=false serving=false terminating=false",
        ]
    );
    // One that nobody serves, and not the one that is another's name.
    assert_eq!(serving.idle, ["idle", "web-canary"]);
    let [route] = serving.policies.as_slice() else { unreachable!("{:?}", serving.policies) };
    assert_eq!(
        (route.object.as_str(), route.hosts.as_slice()),
        ("HTTPRoute shop/web", &["shop.example.com".into()][..])
    );
    let rule = &route.rules[0];
    let backends: Vec<_> =
        rule.backends.iter().map(|b| (b.name.as_str(), b.variant, b.weight, b.percent)).collect();
    assert_eq!(
        backends,
        [("web:80", Variant::Stable, 80, 80.0), ("web-canary:80", Variant::Candidate, 20, 20.0)]
    );
    assert_eq!(rule.says, [("perTryTimeout", "2s".to_owned()), ("timeout", "10s".to_owned())].into());
}

#[test]
fn with_one_service_for_both_the_pods_tell_the_variant() {
    let mut objects = shop();
    objects[11]["endpoints"][1]["targetRef"]["name"] = json!("web-canary-1-b");
    let serving = serving(&root(), &BTreeSet::new(), &looked(&objects));
    let of = |service: &str, variant| {
        serving.endpoints.iter().filter(|e| e.service == service && e.variant == variant).count()
    };
    assert_eq!((of("web", Variant::Stable), of("web", Variant::Candidate)), (1, 1));
}

#[test]
fn slices_that_may_not_be_read_make_no_service_idle() {
    let mut seen = looked(&shop());
    for (look, shown) in &mut seen {
        if look.gvk.kind == "EndpointSlice" {
            *shown = Shown { failing: Some("no".into()), ..Shown::default() };
        }
    }
    let serving = serving(&root(), &BTreeSet::new(), &seen);
    assert!(serving.idle.is_empty() && serving.endpoints.is_empty());
    assert_eq!(serving.unseen, ["EndpointSlice in namespace shop: no"]);
    assert!(!serving.is_well());
}

#[test]
fn each_router_says_it_in_the_words_of_an_application() {
    let candidates = BTreeSet::from([id(&Gvk::new("v1", "Service"), "shop", "web-canary")]);
    let said = |kind: &str, api: &str, spec: Value| {
        serde_json::to_value(policy::read(&object(api, kind, "web", "", json!({"spec": spec})), &candidates))
            .unwrap()
    };
    let istio = "networking.istio.io/v1";
    let mesh = said(
        "VirtualService",
        istio,
        json!({"hosts": ["web"], "http": [
        {"match": [{"uri": {"prefix": "/a"}, "headers": {"x-canary": {"exact": "yes"}}}],
         "route": [{"destination": {"host": "web-canary"}}]},
        {"route": [{"destination": {"host": "web.shop.svc", "port": {"number": 80}}, "weight": 1}, {"destination": {"host": "web-canary"}}],
         "timeout": "10s", "retries": {"attempts": 3, "perTryTimeout": "2s", "retryOn": "5xx"}}]}),
    );
    assert_eq!(
        mesh,
        json!({"object": "VirtualService.networking.istio.io shop/web", "hosts": ["web"], "rules": [
            {"matches": "/a header x-canary: yes",
             "backends": [{"name": "web-canary", "variant": "candidate", "weight": 1, "percent": 100.0}]},
            {"backends": [{"name": "web.shop.svc:80", "variant": "stable", "weight": 1, "percent": 100.0},
                          {"name": "web-canary", "variant": "candidate", "weight": 0, "percent": 0.0}],
             "says": {"perTryTimeout": "2s", "retries": "3", "retryOn": "5xx", "timeout": "10s"}}]})
    );
    let rule = said(
        "DestinationRule",
        istio,
        json!({"host": "web", "trafficPolicy": {
        "loadBalancer": {"simple": "LEAST_REQUEST"}, "connectionPool": {"tcp": {"maxConnections": 9}},
        "outlierDetection": {"consecutive5xxErrors": 5, "interval": "30s"}, "tls": {"mode": "ISTIO_MUTUAL"}}}),
    );
    assert_eq!(
        rule["says"],
        json!({"loadBalancer": "LEAST_REQUEST", "maxConnections": "9", "consecutive5xxErrors": "5", "interval": "30s", "tls": "ISTIO_MUTUAL"})
    );
    let rights = said(
        "PeerAuthentication",
        "security.istio.io/v1",
        json!({"selector": {"matchLabels": {"app": "web"}}, "mtls": {"mode": "STRICT"}}),
    );
    assert_eq!(
        rights,
        json!({"object": "PeerAuthentication.security.istio.io shop/web", "says": {"mtls": "STRICT"}})
    );
    let proxy = said(
        "HTTPProxy",
        "projectcontour.io/v1",
        json!({"virtualhost": {"fqdn": "a.test"}, "routes": [{
        "conditions": [{"prefix": "/a"}], "services": [{"name": "web", "port": 80}, {"name": "web-canary", "port": 80}],
        "timeoutPolicy": {"response": "10s"}, "retryPolicy": {"count": 3, "retryOn": ["5xx", "reset"]},
        "loadBalancerPolicy": {"strategy": "RequestHash", "requestHashPolicies": [{"headerHashOptions": {"headerName": "x-user"}}]},
        "healthCheckPolicy": {"path": "/ready", "unhealthyThresholdCount": 5}}]}),
    );
    assert_eq!(
        proxy["rules"][0],
        json!({"matches": "/a", "backends": [
            {"name": "web:80", "variant": "stable", "weight": 1, "percent": 50.0},
            {"name": "web-canary:80", "variant": "candidate", "weight": 1, "percent": 50.0}],
            "says": {"timeout": "10s", "retries": "3", "retryOn": "5xx,reset", "loadBalancer": "RequestHash", "consistentHash": "x-user",
                     "healthCheck": "/ready each 10s, passed over after 5 failures, back after 2"}})
    );
    let route = said(
        "HTTPRoute",
        "gateway.networking.k8s.io/v1",
        json!({"hostnames": ["a.test"], "rules": [{"backendRefs": [{"name": "web", "port": 80}],
        "timeouts": {"request": "10s", "backendRequest": "2s"}, "retry": {"attempts": 3, "codes": [502, 503]}}]}),
    );
    assert_eq!(
        route["rules"][0]["says"],
        json!({"timeout": "10s", "perTryTimeout": "2s", "retries": "3", "retryOn": "502,503"})
    );
    assert!(
        policy::read(
            &object("v1", "Service", "web", "", json!({"spec": {"sessionAffinity": "None"}})),
            &candidates
        )
        .is_none()
    );
}
