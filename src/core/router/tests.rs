//! The routers as tables (`cases/`), and what stands beside the routes.
#![allow(clippy::unwrap_used, clippy::panic)]

use super::*;
use crate::api::rollout::{GatewayRouter, IstioRouter, RouteKind, ServiceRouter};
use crate::core::manifest::Origin;
use serde_json::json;
use std::path::Path;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    name: String,
    #[serde(default)]
    kind: Option<String>,
    spec: Value,
    split: SplitCase,
    becomes: Option<Value>,
    refused: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SplitCase {
    #[serde(default)]
    weight: u32,
    header: Option<HeaderMatch>,
    cookie: Option<CookieMatch>,
    mirror: Option<u32>,
}

fn cases(file: &str) -> Vec<Case> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/core/router/cases").join(file);
    let text = std::fs::read_to_string(&file).unwrap();
    serde_saphyr::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

pub(super) fn web() -> VariantService {
    VariantService {
        namespace: "shop".into(),
        stable: "web".into(),
        candidate: "web-canary".into(),
        ports: vec![ServicePort { number: 80, protocol: Protocol::Http }],
        label: VariantLabel { key: "app".into(), stable: "web".into(), candidate: "web-canary".into() },
    }
}

pub(super) fn weight(weight: u32) -> Split {
    Split { services: vec![web()], weight, ..Split::default() }
}

pub(super) fn gateway() -> Router {
    Router {
        gateway_api: Some(GatewayRouter { route: "web".into(), kind: RouteKind::HTTPRoute }),
        ..Router::default()
    }
}

pub(super) fn istio() -> Router {
    Router { istio: Some(IstioRouter { virtual_service: "web".into() }), ..Router::default() }
}

pub(super) fn service() -> Router {
    Router { service: Some(ServiceRouter { name: "web".into() }), ..Router::default() }
}

fn object(api: &str, kind: &str, spec: &Value) -> Manifest {
    let value = json!({
        "apiVersion": api, "kind": kind,
        "metadata": {"name": "web", "namespace": "shop"}, "spec": spec,
    });
    Manifest::new(value, Origin { file: "web.yaml".into(), line: 1 }).unwrap()
}

pub(super) fn route(spec: &Value) -> Manifest {
    object("gateway.networking.k8s.io/v1", "HTTPRoute", spec)
}

pub(super) fn virtual_service(spec: &Value) -> Manifest {
    object("networking.istio.io/v1", "VirtualService", spec)
}

/// What the API server holds of a manifest.
pub(super) fn live(object: &Manifest) -> Value {
    let mut value = object.to_value();
    value["metadata"]["resourceVersion"] = "7".into();
    value["metadata"]["uid"] = "u".into();
    value["metadata"]["generation"] = 3.into();
    value
}

fn check(router: &Router, case: &Case, object: &Manifest) {
    let split = Split {
        services: vec![web()],
        weight: case.split.weight,
        header: case.split.header.clone(),
        cookie: case.split.cookie.clone(),
        mirror: case.split.mirror,
    };
    let shaped = shape(router, "shop", vec![object.clone()], Some(&split));
    match (&case.becomes, &case.refused) {
        (Some(becomes), None) => {
            let shaped = shaped.unwrap_or_else(|p| panic!("{}: {}", case.name, p.message));
            let found = &shaped.objects[0].to_value()["spec"];
            assert_eq!(found, becomes, "{}:\n{found:#}", case.name);
            assert_eq!(shaped.place, Place::Bundle(object.id()), "{}", case.name);
            let there = points_at_candidate(router, &shaped.objects[0].to_value(), &split.services);
            assert!(there, "{}", case.name);
            // The same by a patch, and back.
            let before = live(object);
            let after = patched(router, &before, Some(&split));
            assert_eq!(&after["spec"], becomes, "{}", case.name);
            assert_eq!(patch(router, &after, Some(&split)).unwrap(), None, "{}", case.name);
            assert_eq!(patched(router, &after, None), before, "{}", case.name);
            let mut after = after;
            after["spec"]["parentRefs"] = json!([{"name": "public"}]);
            refers(router, "shop", Some(&after), &[split]).unwrap();
        }
        (None, Some(words)) => {
            let problem = shaped.err().unwrap_or_else(|| panic!("{} was not refused", case.name));
            assert!(problem.message.contains(words), "{}: {}", case.name, problem.message);
            let problem = refers(router, "shop", Some(&live(object)), &[split]).unwrap_err();
            assert_eq!(problem.object, object.id().to_string());
        }
        _ => panic!("{} has one of becomes and refused", case.name),
    }
}

/// Performs the patches that routers write.
pub(super) fn patched(router: &Router, live: &Value, split: Option<&Split>) -> Value {
    let mut value = live.clone();
    let Some(patch) = patch(router, live, split).unwrap() else { return value };
    let operations = patch.as_array().unwrap();
    assert_eq!(operations[0]["path"], "/metadata/resourceVersion");
    assert_eq!(operations[0]["value"], live["metadata"]["resourceVersion"]);
    for operation in operations {
        let (parent, last) = operation["path"].as_str().unwrap().rsplit_once('/').unwrap();
        let fields = value.pointer_mut(parent).unwrap().as_object_mut().unwrap();
        let last = last.replace("~1", "/");
        match operation["op"].as_str().unwrap() {
            "test" => assert_eq!(fields[&last], operation["value"]),
            "remove" => drop(fields.remove(&last).unwrap()),
            "replace" => drop(fields.insert(last, operation["value"].clone()).unwrap()),
            "add" => drop(fields.insert(last, operation["value"].clone())),
            other => panic!("{other}"),
        }
    }
    value
}

#[test]
fn gateway_routes() {
    for case in cases("gateway.yaml") {
        let kind = case.kind.as_deref().unwrap_or("HTTPRoute");
        let mut router = gateway();
        if kind == "GRPCRoute" {
            router.gateway_api.as_mut().unwrap().kind = RouteKind::GRPCRoute;
        }
        check(&router, &case, &object("gateway.networking.k8s.io/v1", kind, &case.spec));
    }
}

#[test]
fn virtual_services() {
    for case in cases("istio.yaml") {
        check(&istio(), &case, &virtual_service(&case.spec));
    }
}

#[test]
fn nothing_asked_changes_no_byte() {
    let objects = vec![
        route(&json!({"rules": [{"backendRefs": [{"name": "other", "port": 80}]}]})),
        virtual_service(&json!({"http": [{"route": [{"destination": {"host": "web", "subset": "v1"}}]}]})),
        object("v1", "Service", &json!({"selector": {"tier": "front"}})),
        object("networking.istio.io/v1", "DestinationRule", &json!({"host": "web"})),
    ];
    for router in [gateway(), istio(), service(), Router::default()] {
        let shaped = shape(&router, "shop", objects.clone(), None).unwrap();
        assert_eq!(shaped.objects, objects);
        if !router.names_backends() {
            let shaped = shape(&router, "shop", objects.clone(), Some(&weight(0))).unwrap();
            assert_eq!(shaped.objects, objects);
        }
        assert_eq!(patch(&router, &live(&objects[0]), None).unwrap(), None);
    }
}

#[test]
fn a_route_is_among_the_objects_or_elsewhere_or_made() {
    let id = |kind: &str, group: &str| ObjectId {
        group: group.into(),
        kind: kind.into(),
        namespace: "shop".into(),
        name: "web".into(),
    };
    let place =
        |router: &Router, split: &Split| shape(router, "shop", Vec::new(), Some(split)).unwrap().place;
    assert_eq!(place(&gateway(), &weight(5)), Place::External(id("HTTPRoute", gateway::GROUP)));
    assert_eq!(place(&service(), &weight(100)), Place::External(id("Service", "")));
    assert_eq!(place(&istio(), &weight(0)), Place::Made(id("VirtualService", istio::GROUP)));
    assert_eq!(place(&istio(), &weight(5)), Place::Made(id("VirtualService", istio::GROUP)));
    assert_eq!(place(&Router::default(), &weight(5)), Place::Pods);

    let spec = json!({"rules": [{"backendRefs": [{"name": "web", "port": 80}]}]});
    let mut abroad = route(&spec);
    abroad.set_metadata("namespace", "edge".into());
    let shaped = shape(&gateway(), "shop", vec![abroad.clone(), route(&spec)], Some(&weight(5))).unwrap();
    assert_eq!(shaped.place, Place::Bundle(route(&spec).id()));
    assert_eq!(shaped.objects[0], abroad);
    let mut third = route(&spec);
    third.set_metadata("namespace", "more".into());
    let problem = shape(&gateway(), "shop", vec![abroad, third], None).unwrap_err();
    assert_eq!(problem.reason, "RouteAmbiguous");
}

#[test]
fn a_virtual_service_is_made_for_what_the_service_serves() {
    let made = |ports: &[(u16, Protocol)], split: Split| {
        let ports = ports.iter().map(|&(number, protocol)| ServicePort { number, protocol }).collect();
        let split = Split { services: vec![VariantService { ports, ..web() }], ..split };
        let service = object("v1", "Service", &json!({}));
        shape(&istio(), "shop", vec![service], Some(&split)).map(|s| s.objects[1].clone())
    };
    let one = made(&[(80, Protocol::Http)], weight(10)).unwrap();
    assert_eq!(one.origin.file, "web.yaml");
    assert_eq!(
        one.to_value(),
        json!({
            "apiVersion": "networking.istio.io/v1", "kind": "VirtualService",
            "metadata": {"name": "web", "namespace": "shop"},
            "spec": {"hosts": ["web"], "http": [{"route": [
                {"destination": {"host": "web"}, "weight": 90},
                {"destination": {"host": "web-canary"}, "weight": 10},
            ]}]},
        })
    );
    let two = made(&[(80, Protocol::Http), (5432, Protocol::Tcp)], weight(100)).unwrap();
    let to = |host: &str, port: u16, weight: u32| json!({"destination": {"host": host, "port": {"number": port}}, "weight": weight});
    assert_eq!(
        two.to_value()["spec"],
        json!({
            "hosts": ["web"],
            "http": [{"match": [{"port": 80}], "route": [to("web", 80, 0), to("web-canary", 80, 100)]}],
            "tcp": [{"match": [{"port": 5432}], "route": [to("web", 5432, 0), to("web-canary", 5432, 100)]}],
        })
    );
    let tls = made(&[(443, Protocol::Tls)], weight(10)).unwrap_err();
    assert!(tls.message.contains("port 443 speaks TLS"), "{}", tls.message);

    let mut other = virtual_service(&json!({"hosts": ["web.shop.svc.cluster.local"]}));
    other.set_metadata("name", "other".into());
    let problem = shape(&istio(), "shop", vec![other.clone()], Some(&weight(5))).unwrap_err();
    assert!(
        problem.message.contains("VirtualService.networking.istio.io shop/other routes already"),
        "{}",
        problem.message
    );
    // One that only a gateway listens to is no contest.
    other.fields_mut()["spec"]["gateways"] = json!(["public"]);
    assert!(shape(&istio(), "shop", vec![other], Some(&weight(5))).is_ok());

    let several =
        Split { services: vec![web(), VariantService { stable: "api".into(), ..web() }], ..weight(5) };
    let problem = shape(&istio(), "shop", Vec::new(), Some(&several)).unwrap_err();
    assert!(
        problem.message.contains("several Services: any of Services web, api; write it"),
        "{}",
        problem.message
    );
}

#[test]
fn ports_speak_what_istio_takes_them_to_speak() {
    let ports = ServicePort::of(&json!({"spec": {"ports": [
        {"port": 80}, {"port": 81, "name": "grpc-api"}, {"port": 82, "name": "http", "appProtocol": "tcp"},
        {"port": 83, "name": "https"}, {"port": 84, "name": "redis-a"}, {"port": 85, "protocol": "UDP"},
    ]}}));
    let expected = [
        (80, Protocol::Http),
        (81, Protocol::Http),
        (82, Protocol::Tcp),
        (83, Protocol::Tls),
        (84, Protocol::Tcp),
    ];
    assert_eq!(ports.iter().map(|p| (p.number, p.protocol)).collect::<Vec<_>>(), expected);
}

#[test]
fn a_selector_is_switched_and_nothing_in_between() {
    let web = object(
        "v1",
        "Service",
        &json!({"selector": {"app": "web", "tier": "front"}, "ports": [{"port": 80}]}),
    );
    let shaped = shape(&service(), "shop", vec![web.clone()], Some(&weight(100))).unwrap();
    let switched = json!({"app": "web-canary", "tier": "front"});
    assert_eq!(shaped.objects[0].to_value()["spec"]["selector"], switched);
    assert!(points_at_candidate(&service(), &shaped.objects[0].to_value(), &weight(0).services));

    let before = live(&web);
    let after = patched(&service(), &before, Some(&weight(100)));
    assert_eq!(after["spec"]["selector"], switched);
    assert_eq!(patched(&service(), &after, None), before);
    assert_eq!(patched(&service(), &after, Some(&weight(0))), before);
    // Even when the record is lost, as long as the labels are known.
    let mut lost = after;
    lost["metadata"].as_object_mut().unwrap().remove("annotations");
    assert_eq!(patched(&service(), &lost, Some(&weight(0))), before);

    let refused = |object: &Manifest, split: &Split| {
        shape(&service(), "shop", vec![object.clone()], Some(split)).unwrap_err().message
    };
    assert!(refused(&web, &weight(10)).contains("cannot give the candidate 10% of the traffic"));
    let header = HeaderMatch { name: "a".into(), value: "b".into(), regex: false };
    assert!(refused(&web, &Split { header: Some(header), ..weight(0) }).contains("use gatewayAPI or istio"));
    let broad = object("v1", "Service", &json!({"selector": {"tier": "front"}}));
    assert!(refused(&broad, &weight(100)).contains("has no app: web in its selector"));
    let other = Split {
        services: vec![VariantService { stable: "api".into(), ..super::tests::web() }],
        ..weight(100)
    };
    assert!(refused(&web, &other).contains("selects no pods of the workload, Service api does"));
}

#[test]
fn numbers_of_pods_know_only_weight() {
    let router = Router::default();
    assert!(refers(&router, "shop", None, &[weight(30)]).is_ok());
    let problem = refers(&router, "shop", None, &[Split { mirror: Some(5), ..weight(0) }]).unwrap_err();
    assert!(problem.message.starts_with("router replicas cannot copy requests"), "{}", problem.message);
}

#[test]
fn what_cannot_work_is_known_before_a_pod_is_started() {
    let problem = refers(&gateway(), "shop", None, &[weight(0)]).unwrap_err();
    assert_eq!(
        (problem.reason.as_str(), problem.message.as_str()),
        (
            "RouteNotFound",
            "HTTPRoute shop/web is neither in the revision nor in the cluster; write it, or name another in spec.rollout.router"
        )
    );
    assert!(refers(&istio(), "shop", None, &[weight(5)]).is_ok());
    // A split that moves nothing asks for a route that could.
    let other = live(&route(&json!({"rules": [{"backendRefs": [{"name": "other", "port": 80}]}]})));
    assert_eq!(refers(&gateway(), "shop", Some(&other), &[weight(0)]).unwrap_err().reason, "RouteUnrelated");
    // So does every step.
    let route = live(&route(&json!({"rules": [{"backendRefs": [{"name": "web", "port": 80}]}]})));
    let cookie = CookieMatch { name: "a".into(), value: "b".into() };
    let steps = [weight(5), Split { cookie: Some(cookie), ..weight(0) }];
    assert_eq!(refers(&gateway(), "shop", Some(&route), &steps).unwrap_err().reason, "RouterCannot");
    assert_eq!(
        refers(&gateway(), "shop", Some(&refused(route)), &[weight(5)]).unwrap_err().reason,
        "RouteRefused"
    );
}

fn answered(mut route: Value, generation: u64, accepted: &str, reason: &str, resolved: &str) -> Value {
    let condition = |kind: &str, status: &str, reason: &str| {
        json!({
            "type": kind, "status": status, "reason": reason, "message": "so it is", "observedGeneration": generation,
        })
    };
    route["spec"]["parentRefs"] = json!([{"name": "public"}]);
    route["status"] = json!({"parents": [{
        "parentRef": {"group": gateway::GROUP, "kind": "Gateway", "name": "public"},
        "controllerName": "example.com/gateway",
        "conditions": [condition("Accepted", accepted, reason), condition("ResolvedRefs", resolved, "ResolvedRefs")],
    }]});
    route
}

fn refused(route: Value) -> Value {
    answered(route, 3, "False", "NotAllowedByListeners", "True")
}

#[test]
fn a_route_is_accepted_for_the_generation_that_it_has() {
    let route = || live(&route(&json!({"rules": []})));
    assert_eq!(accepted(&answered(route(), 3, "True", "Accepted", "True")), Acceptance::Accepted);
    let waits = |value: &Value| matches!(accepted(value), Acceptance::Waiting(_));
    assert!(waits(&answered(route(), 2, "True", "Accepted", "True")));
    assert!(waits(&answered(route(), 3, "False", "Pending", "True")));
    let mut silent = route();
    silent["spec"]["parentRefs"] = json!([{"name": "public"}]);
    assert!(waits(&silent));
    let Acceptance::Refused(problem) = accepted(&refused(route())) else { panic!() };
    assert_eq!((problem.reason.as_str(), problem.object.as_str()), ("RouteRefused", "HTTPRoute shop/web"));
    assert!(problem.message.contains("is not accepted by Gateway public"), "{}", problem.message);
    let Acceptance::Refused(problem) = accepted(&route()) else { panic!() };
    assert!(problem.message.contains("names no Gateway"), "{}", problem.message);

    let istio = |status: Value| {
        let mut value = live(&virtual_service(&json!({})));
        value["status"] = status;
        accepted(&value)
    };
    assert_eq!(istio(Value::Null), Acceptance::Accepted);
    let said = |level: &str| json!([{"level": level, "type": {"name": "ReferencedResourceNotFound", "code": "IST0101"}}]);
    assert_eq!(istio(json!({"validationMessages": said("WARNING")})), Acceptance::Accepted);
    // What was said about another generation says nothing.
    assert_eq!(
        istio(json!({"observedGeneration": "2", "validationMessages": said("ERROR")})),
        Acceptance::Accepted
    );
    let wrong = istio(json!({"observedGeneration": "3", "validationMessages": said("ERROR")}));
    let Acceptance::Refused(problem) = wrong else { panic!("{wrong:?}") };
    assert!(problem.message.contains("ReferencedResourceNotFound IST0101"), "{}", problem.message);
}

#[test]
fn a_grant_covers_the_candidate_too() {
    let mut route =
        route(&json!({"rules": [{"backendRefs": [{"name": "web", "namespace": "shop", "port": 80}]}]}));
    assert_eq!(grants_needed(&route, &weight(5)), []);
    route.set_metadata("namespace", "edge".into());
    let needed = grants_needed(&route, &weight(5));
    assert_eq!((needed[0].namespace.as_str(), needed[0].service.as_str()), ("shop", "web-canary"));
    let grant = |namespace: &str, to: Value| {
        json!({
            "metadata": {"name": "from-edge", "namespace": namespace},
            "spec": {"from": [{"group": gateway::GROUP, "kind": "HTTPRoute", "namespace": "edge"}], "to": [to]},
        })
    };
    let check = |grants: &[Value]| grants_checked(&needed, grants).map_err(|problem| problem.message);
    assert_eq!(check(&[grant("shop", json!({"group": "", "kind": "Service"}))]), Ok(()));
    assert_eq!(
        check(&[grant("shop", json!({"group": "", "kind": "Service", "name": "web-canary"}))]),
        Ok(())
    );
    let elsewhere = check(&[grant("edge", json!({"group": "", "kind": "Service"}))]).unwrap_err();
    assert!(
        elsewhere.contains(
            "Add one with from {group: gateway.networking.k8s.io, kind: HTTPRoute, namespace: edge}"
        )
    );
    let named = check(&[grant("shop", json!({"group": "", "kind": "Service", "name": "web"}))]).unwrap_err();
    assert!(named.contains("ReferenceGrant shop/from-edge covers Service web alone"), "{named}");
}

#[test]
fn the_ports_that_a_route_uses_are_known() {
    let services = [web(), VariantService { stable: "web-admin".into(), candidate: "x".into(), ..web() }];
    let rules = json!({"rules": [
        {"backendRefs": [{"name": "web", "port": 80, "weight": 9}, {"name": "web-canary", "port": 81, "weight": 1}]},
        {"backendRefs": [{"name": "web", "port": 8080}, {"name": "old", "port": 9}]},
    ]});
    let used = ports_used(&gateway(), &route(&rules).to_value(), &services);
    assert_eq!(used, [Some([80, 8080].into()), None]);
    let spec = json!({"http": [{"route": [
        {"destination": {"host": "web-admin.shop.svc", "port": {"number": 90}}, "weight": 5},
        {"destination": {"host": "web"}, "weight": 95},
    ]}]});
    let used = ports_used(&istio(), &virtual_service(&spec).to_value(), &services);
    assert_eq!(used, [Some(BTreeSet::new()), Some([90].into())]);
    let switch = Router { service: Some(ServiceRouter { name: "web-admin".into() }), ..Router::default() };
    assert_eq!(ports_used(&switch, &json!({}), &services), [None, Some(BTreeSet::new())]);
}
