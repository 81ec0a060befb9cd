//! The expansion as values.
#![allow(clippy::unwrap_used, clippy::panic)]

use super::*;
use serde::Deserialize;

#[derive(Deserialize)]
struct Refused {
    name: String,
    spec: Value,
    errors: Vec<String>,
}

fn document(spec: Value) -> Value {
    json!({
        "apiVersion": "windlass.dev/v1alpha1", "kind": "Application",
        "metadata": {"name": "web", "namespace": "shop"}, "spec": spec,
    })
}

fn expanded(document: &Value) -> Result<Expansion, Invalid> {
    expand(&read(document)?, &Origin { file: "web.yaml".into(), line: 3 })
}

fn object(expansion: &Expansion, kind: &str) -> Option<Value> {
    expansion.objects.iter().find(|object| object.gvk().kind == kind).map(Manifest::to_value)
}

#[test]
fn what_contradicts_itself_is_refused_with_the_field() {
    let cases: Vec<Refused> = serde_saphyr::from_str(include_str!("cases/refused.yaml")).unwrap();
    let mut wrong = Vec::new();
    for case in &cases {
        let told: Vec<String> = match expanded(&document(case.spec.clone())) {
            Ok(_) => Vec::new(),
            Err(invalid) => invalid.errors.iter().map(ToString::to_string).collect(),
        };
        if told != case.errors {
            wrong.push(format!("{}: {told:#?}, and not {:#?}", case.name, case.errors));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(cases.len() > 30);
}

#[test]
fn a_name_that_no_service_can_have_and_another_version_are_refused() {
    let told = |name: &str, api: &str| {
        let mut document = document(json!({"image": "web:1"}));
        document["metadata"]["name"] = name.into();
        document["apiVersion"] = api.into();
        expanded(&document).map_err(|invalid| invalid.errors)
    };
    let good = "windlass.dev/v1alpha1";
    for name in ["Web", "1web", "web-", "web.shop", &"a".repeat(64)] {
        assert_eq!(told(name, good), Err(vec![ApplicationError::Name(name.into())]));
    }
    for name in ["a", "web-1", &"a".repeat(63)] {
        assert!(told(name, good).is_ok(), "{name}");
    }
    let other = "windlass.dev/v2";
    assert_eq!(told("web", other), Err(vec![ApplicationError::Version(other.into())]));
}

#[test]
fn a_changed_configuration_is_another_config_map_and_a_changed_template() {
    let with = |text: &str| {
        expanded(&document(json!({"image": "web:1", "config": {"files": {"a": text}, "env": {"B": "1"}}})))
            .unwrap()
    };
    let (one, same, other) = (with("x"), with("x"), with("y"));
    assert_eq!(one, same);
    let maps = |expansion: &Expansion| -> Vec<Value> {
        let maps = expansion.objects.iter().filter(|object| object.gvk().kind == "ConfigMap");
        maps.map(Manifest::to_value).collect()
    };
    let (before, after) = (maps(&one), maps(&other));
    assert_eq!(before[0], after[0], "the environment is the same one");
    assert_ne!(before[1]["metadata"]["name"], after[1]["metadata"]["name"]);
    let template =
        |expansion: &Expansion| object(expansion, "Deployment").unwrap()["spec"]["template"].clone();
    assert_ne!(template(&one), template(&other));
    let mounted = &template(&one)["spec"]["volumes"][0]["configMap"]["name"];
    assert_eq!(*mounted, before[1]["metadata"]["name"]);
    assert!(before.iter().all(|map| map["immutable"] == true));
}

#[test]
fn a_change_of_scale_restarts_no_pod() {
    let template = |spec: Value| {
        object(&expanded(&document(spec)).unwrap(), "Deployment").unwrap()["spec"]["template"].clone()
    };
    let base = || json!({"image": "web:1", "port": 80, "resources": {"requests": {"cpu": "1"}}});
    let with = |field: &str, value: Value| {
        let mut spec = base();
        spec[field] = value;
        spec
    };
    for changed in [
        with("replicas", json!(0)),
        with("replicas", json!(7)),
        with("autoscaling", json!({"minReplicas": 2, "maxReplicas": 9})),
        with("disruptionBudget", json!({"maxUnavailable": 2})),
        with("rollingUpdate", json!({"maxSurge": 3})),
        with("expose", json!({"host": "web.example.com", "ingress": {}})),
        with("security", json!({"networkPolicy": {}})),
    ] {
        assert_eq!(template(base()), template(changed.clone()), "{changed}");
    }
}

#[test]
fn a_budget_is_there_from_two_pods_up_and_replicas_are_the_autoscalers() {
    let kinds = |spec: Value| {
        let expansion = expanded(&document(spec)).unwrap();
        let deployment = object(&expansion, "Deployment").unwrap();
        (object(&expansion, "PodDisruptionBudget").is_some(), deployment["spec"]["replicas"].clone())
    };
    let asks = json!({"requests": {"cpu": 1}});
    let scaled = |min: i32| json!({"image": "w:1", "replicas": 5, "resources": asks, "autoscaling": {"minReplicas": min, "maxReplicas": 9}});
    assert_eq!(kinds(json!({"image": "w:1"})), (false, json!(1)));
    assert_eq!(kinds(json!({"image": "w:1", "replicas": 0})), (false, json!(0)));
    assert_eq!(kinds(json!({"image": "w:1", "replicas": 2})), (true, json!(2)));
    assert_eq!(kinds(scaled(1)), (false, Value::Null));
    assert_eq!(kinds(scaled(2)), (true, Value::Null));
}

#[test]
fn what_is_left_out_is_told_with_the_value_that_it_has() {
    let mut document = document(json!({
        "image": "web:1", "port": 80, "replicas": null,
        "security": {"runAsNonRoot": false, "capabilities": {"drop": ["NET_RAW"]}},
        "healthCheck": {"liveness": {"httpGet": {"port": 80}}, "startup": {}},
    }));
    let told = |document: &Value| -> Vec<String> {
        let application = read(document).unwrap();
        defaulted(document, &application.spec).iter().map(ToString::to_string).collect()
    };
    let all = told(&document);
    for wanted in [
        "spec.replicas: 1",
        "spec.healthCheck.startup.failureThreshold: 30",
        "spec.healthCheck.startup.httpGet.port: 80",
        "spec.security.capabilities.add: []",
        "spec.security.readOnlyRootFilesystem: true",
        "spec.security.seccompProfile.type: \"RuntimeDefault\"",
        "spec.rollingUpdate.maxUnavailable: 0",
        "spec.topologySpread: [{\"maxSkew\":1,\"topologyKey\":\"topology.kubernetes.io/zone\",\"whenUnsatisfiable\":\"ScheduleAnyway\"},\
         {\"maxSkew\":1,\"topologyKey\":\"kubernetes.io/hostname\",\"whenUnsatisfiable\":\"ScheduleAnyway\"}]",
    ] {
        assert!(all.iter().any(|told| told == wanted), "{wanted}: {all:#?}");
    }
    assert!(!all.iter().any(|told| told.contains("runAsNonRoot") || told.contains("drop")), "{all:#?}");
    // Who writes all that down has left nothing out.
    let spec = completed(read(&document).unwrap().spec);
    document["spec"] = value(&spec);
    assert_eq!(told(&document), Vec::<String>::new());
    let again = expanded(&document).unwrap();
    assert_eq!(
        again.objects,
        expand(&read(&document).unwrap(), &Origin { file: "web.yaml".into(), line: 3 }).unwrap().objects
    );
}

#[test]
fn what_may_not_do_what_was_meant_is_told() {
    let notices = |spec: Value| {
        let notices = expanded(&document(spec)).unwrap().notices;
        notices.iter().map(Notice::to_string).collect::<Vec<_>>()
    };
    let probe = json!({"readiness": {"tcpSocket": {"port": 80}}});
    for image in ["web", "web:latest", "registry:5000/web", "registry:5000/web:latest"] {
        let told = notices(json!({"image": image}));
        assert!(told.len() == 1 && told[0].starts_with("spec.image names no version"), "{image}: {told:?}");
    }
    for image in ["web:1", "registry:5000/web:1", "web@sha256:abc"] {
        assert_eq!(notices(json!({"image": image, "port": 80, "healthCheck": probe})), Vec::<String>::new());
    }
    let told = notices(json!({
        "image": "web:1", "port": 80, "healthCheck": probe, "config": {},
        "expose": {"host": "a.example.com", "ingress": {}}, "security": {"networkPolicy": {}},
    }));
    assert!(
        told.len() == 2 && told[0].contains("allowFrom") && told[1].starts_with("spec.config"),
        "{told:?}"
    );
    // What is not carried out at all comes first: a condition is named after it.
    let spec = json!({"image": "web", "port": 80, "traffic": {"mtls": "Strict"}});
    let told = expanded(&document(spec)).unwrap().notices;
    assert_eq!(told[0].reason, "UnsupportedByRouter", "{told:?}");
    assert_eq!(told.len(), 3);
}

#[test]
fn contour_does_what_it_has_a_field_for_and_the_rest_is_told() {
    let told = |readiness: Value, traffic: Value, way: Value| {
        let mut expose = json!({"host": "a.example.com"});
        for (field, value) in way.as_object().unwrap() {
            expose[field] = value.clone();
        }
        let expansion = expanded(&document(json!({
            "image": "web:1", "ports": [{"name": "http", "port": 80}, {"name": "admin", "port": 81}],
            "healthCheck": {"readiness": readiness}, "expose": expose, "traffic": traffic,
        })));
        let expansion = expansion.unwrap();
        let route = object(&expansion, "HTTPProxy").map(|proxy| proxy["spec"]["routes"][0].clone());
        let notices: Vec<String> = expansion.notices.iter().map(ToString::to_string).collect();
        (route.unwrap_or_default(), notices)
    };
    let asked = |port: Value| json!({"httpGet": {"path": "/ready", "port": port}});
    let proxy = || json!({"httpProxy": {}});
    let breaks = || json!({"circuitBreaker": {"consecutive5xxErrors": 5, "baseEjectionTime": "25s"}});

    // With or without the name of the router.
    for router in ["HTTPProxy", "GatewayAPI"] {
        let mut traffic = breaks();
        traffic["router"] = router.into();
        let (route, notices) = told(asked(json!("http")), traffic, proxy());
        let check = json!({"path": "/ready", "intervalSeconds": 10, "unhealthyThresholdCount": 5,
            "healthyThresholdCount": 3, "expectedStatuses": [{"start": 200, "end": 400}]});
        assert_eq!(route["healthCheckPolicy"], check, "{router}");
        assert!(notices.len() == 1 && notices[0].contains("counts failed checks of /ready"), "{notices:?}");
    }
    // A check that could not be made is not made in silence.
    for (readiness, why) in [
        (asked(json!(81)), "asks another port than http"),
        (json!({"tcpSocket": {"port": 80}}), "healthCheck.readiness.httpGet, which is not there"),
        (json!({"httpGet": {"port": 80, "scheme": "HTTPS"}}), "asks for more"),
        (json!({"httpGet": {"port": 80, "httpHeaders": [{"name": "X-Key", "value": "a"}]}}), "asks for more"),
    ] {
        let (route, notices) = told(readiness, breaks(), proxy());
        assert!(route["healthCheckPolicy"].is_null(), "{route}");
        let all = "spec.traffic.circuitBreaker.consecutive5xxErrors, spec.traffic.circuitBreaker.baseEjectionTime cannot";
        assert!(notices.len() == 1 && notices[0].starts_with(all) && notices[0].contains(why), "{notices:?}");
    }
    let (route, notices) = told(
        json!({"httpGet": {"port": 80, "host": "b", "httpHeaders": [{"name": "host", "value": "c"}]}}),
        breaks(),
        proxy(),
    );
    assert_eq!(
        (&route["healthCheckPolicy"]["host"], &route["healthCheckPolicy"]["path"]),
        (&json!("c"), &json!("/"))
    );
    assert_eq!(notices.len(), 1);
    let (_, notices) = told(asked(json!(80)), json!({"circuitBreaker": {"interval": "3s"}}), proxy());
    assert!(notices.len() == 1 && notices[0].contains("without consecutive5xxErrors"), "{notices:?}");
    // Nobody there who could.
    let (route, notices) =
        told(asked(json!(80)), json!({"router": "HTTPProxy", "timeout": "1s"}), json!({"ingress": {}}));
    assert!(route.is_null());
    assert_eq!(
        notices,
        [
            "spec.traffic.timeout cannot be carried out: there is no expose.httpProxy, so no HTTPProxy that could"
        ]
    );
    let (route, notices) =
        told(asked(json!(80)), json!({"timeout": "1s", "loadBalancer": "random"}), proxy());
    assert_eq!(route["loadBalancerPolicy"], json!({"strategy": "Random"}));
    assert_eq!((route["timeoutPolicy"].clone(), notices.len()), (json!({"response": "1s"}), 0));
    // Without words Contour would take its own.
    let again = |attempts: u32, retry_on: &str| {
        let retries = json!({"attempts": attempts, "perTryTimeout": "1s", "retryOn": retry_on});
        told(asked(json!(80)), json!({"retries": retries}), proxy())
    };
    for (attempts, words, all) in [
        (
            2,
            "per-try-idle-timeout",
            "spec.traffic.retries.attempts, spec.traffic.retries.retryOn, spec.traffic.retries.perTryTimeout cannot",
        ),
        (0, "5xx", "spec.traffic.retries.perTryTimeout cannot be carried out: with one try"),
    ] {
        let (route, notices) = again(attempts, words);
        assert_eq!(route["retryPolicy"], json!({"count": -1}));
        assert!(notices.len() == 1 && notices[0].starts_with(all), "{notices:?}");
    }
    let (route, notices) = again(2, "per-try-idle-timeout,503");
    assert_eq!(
        (&route["retryPolicy"]["count"], &route["retryPolicy"]["perTryTimeout"]),
        (&json!(2), &json!("1s"))
    );
    assert!(
        notices.len() == 1 && notices[0].starts_with("spec.traffic.retries.retryOn cannot"),
        "{notices:?}"
    );
}

#[test]
fn a_virtual_service_names_only_what_istio_knows() {
    let retries = |retries: Value| {
        // No limit of the whole, so that none of a try exceeds it.
        let traffic = json!({"router": "Istio", "timeout": "0s", "retries": retries});
        let spec = json!({
            "image": "web:1", "port": 80, "traffic": traffic,
            "healthCheck": {"readiness": {"exec": {"command": ["true"]}}},
        });
        let expansion = expanded(&document(spec)).unwrap();
        let service = expansion.objects.iter().find(|o| o.gvk().kind == "VirtualService").unwrap();
        let told: Vec<String> = expansion.notices.iter().map(Notice::to_string).collect();
        (service.to_value()["spec"]["http"][0]["retries"].clone(), told)
    };
    for (asked, written) in [
        (
            json!({"attempts": 3, "perTryTimeout": "2s", "retryOn": "5xx, connect-failure,503"}),
            json!({"attempts": 3, "perTryTimeout": "2s", "retryOn": "5xx,connect-failure,503"}),
        ),
        (json!({"attempts": 2}), json!({"attempts": 2})),
        (json!({"attempts": 0}), json!({"attempts": 0})),
        (json!({"attempts": 0, "retryOn": "5xx"}), json!({"attempts": 0})),
    ] {
        let (is, told) = retries(asked.clone());
        assert_eq!((is, told.len()), (written, 0), "{asked}: {told:?}");
    }
    for (asked, written, begins, why) in [
        (
            json!({"attempts": 0, "perTryTimeout": "2s"}),
            json!({"attempts": 0}),
            "spec.traffic.retries.perTryTimeout cannot",
            "with one try",
        ),
        (
            json!({"attempts": 2, "perTryTimeout": "2s", "retryOn": "per-try-idle-timeout,799"}),
            json!({"attempts": 0}),
            "spec.traffic.retries.attempts, spec.traffic.retries.retryOn, spec.traffic.retries.perTryTimeout cannot",
            "Istio knows no per-try-idle-timeout, 799",
        ),
        (
            json!({"attempts": 2, "retryOn": "599,reset,5XX"}),
            json!({"attempts": 2, "retryOn": "reset"}),
            "spec.traffic.retries.retryOn cannot",
            "Istio knows no 5XX, 599",
        ),
    ] {
        let (is, told) = retries(asked.clone());
        assert_eq!(is, written, "{asked}");
        assert!(told.len() == 1 && told[0].starts_with(begins) && told[0].contains(why), "{told:?}");
    }
}

#[test]
fn a_mesh_tells_what_does_not_come_by_it() {
    let told = |spec: Value| -> Vec<String> {
        let mut whole =
            json!({"image": "web:1", "healthCheck": {"readiness": {"exec": {"command": ["true"]}}}});
        whole.as_object_mut().unwrap().append(spec.clone().as_object_mut().unwrap());
        expanded(&document(whole)).unwrap().notices.iter().map(Notice::to_string).collect()
    };
    let traffic =
        json!({"router": "Istio", "timeout": "1s", "loadBalancer": "random", "retries": {"attempts": 1}});
    assert_eq!(told(json!({"port": 80, "traffic": traffic})), Vec::<String>::new());
    let ingress = json!({"host": "a.example.com", "ingress": {}});
    let by_ingress = told(json!({"port": 80, "traffic": traffic, "expose": ingress}));
    let all = "spec.traffic.timeout, spec.traffic.retries cannot be carried out: for requests that come by the Ingress";
    assert!(by_ingress.len() == 1 && by_ingress[0].starts_with(all), "{by_ingress:?}");
    assert!(by_ingress[0].ends_with("in the mesh it is as asked for"), "{by_ingress:?}");
    let mut unknown = traffic.clone();
    unknown["retries"] = json!({"attempts": 1, "retryOn": "reset,5XX"});
    let by_ingress = told(json!({"port": 80, "traffic": unknown, "expose": ingress}));
    assert!(
        by_ingress.len() == 2 && by_ingress[0].ends_with("for the mesh that is told by itself"),
        "{by_ingress:?}"
    );
    let udp = told(json!({"ports": [{"name": "dns", "port": 53, "protocol": "UDP"}], "traffic": traffic}));
    let all = "spec.traffic.loadBalancer, spec.traffic.timeout, spec.traffic.retries cannot be carried out: there are no ports for TCP";
    assert!(udp.len() == 1 && udp[0].starts_with(all), "{udp:?}");
}

/// An Application behind a Gateway, with this channel and this policy.
fn behind_a_gateway(channel: &str, traffic: Value) -> Expansion {
    let spec = json!({
        "image": "web:1", "port": 80, "healthCheck": {"readiness": {"httpGet": {"port": 80}}}, "traffic": traffic,
        "expose": {"host": "a.example.com", "gateway": {"name": "public", "channel": channel}},
    });
    expanded(&document(spec)).unwrap()
}

#[test]
fn who_is_shut_out_by_a_policy_or_by_the_mesh_is_told() {
    let told = |expose: Value, more: Value| -> Vec<String> {
        let readiness = json!({"readiness": {"httpGet": {"path": "/ready", "port": "http"}}});
        let mut spec = json!({"image": "web:1", "port": 80, "healthCheck": readiness, "expose": expose});
        for (field, value) in more.as_object().unwrap() {
            spec[field] = value.clone();
        }
        expanded(&document(spec)).unwrap().notices.iter().map(Notice::to_string).collect()
    };
    let policy = json!({"security": {"networkPolicy": {}}});
    let mesh = |mtls: &str| json!({"traffic": {"router": "Istio", "mtls": mtls}});
    let by = |way: Value| {
        let mut expose = json!({"host": "a.example.com"});
        expose.as_object_mut().unwrap().append(way.clone().as_object_mut().unwrap());
        expose
    };
    let gateway = by(json!({"gateway": {"name": "public"}}));
    let named = by(json!({"gateway": {"name": "public", "namespace": "edge"}}));
    let ingress = by(json!({"ingress": {}}));
    for (expose, more, who) in [
        (&gateway, &policy, Some("which the proxies of the Gateway may not be in")),
        (&named, &policy, None),
        (&ingress, &policy, Some("which the ingress controller may not be in")),
        (&gateway, &mesh("Strict"), Some("as the proxies of the Gateway may not")),
        (&named, &mesh("Strict"), Some("as the proxies of the Gateway may not")),
        (&ingress, &mesh("Strict"), Some("as the ingress controller may not")),
        (&gateway, &mesh("Permissive"), None),
    ] {
        let told = told(expose.clone(), more.clone());
        assert_eq!(told.len(), usize::from(who.is_some()), "{expose} {more}: {told:?}");
        assert!(who.is_none_or(|who| told[0].contains(who)), "{told:?}");
    }
}

#[test]
fn a_gateway_tries_again_where_its_channel_has_a_field_for_it_and_the_rest_is_told() {
    let of = |channel: &str, traffic: Value| {
        let expansion = behind_a_gateway(channel, traffic);
        let rule = object(&expansion, "HTTPRoute").unwrap()["spec"]["rules"][0].clone();
        (rule, expansion.notices.iter().map(Notice::to_string).collect::<Vec<_>>())
    };
    let (standard, experimental) = ("Standard", "Experimental");
    let (rule, told) =
        of(experimental, json!({"retries": {"attempts": 3, "perTryTimeout": "2s", "retryOn": "5xx,reset"}}));
    assert_eq!(rule["retry"], json!({"attempts": 3, "codes": [500, 502, 503, 504]}));
    assert_eq!(rule["timeouts"], json!({"backendRequest": "2s"}));
    assert!(told.is_empty(), "{told:?}");
    // Without names it is as the controller has it.
    for (retries, retry) in [
        (json!({"attempts": 1}), json!({"attempts": 1})),
        (json!({"attempts": 1, "retryOn": "connect-failure"}), json!({"attempts": 1})),
    ] {
        let (rule, told) = of(experimental, json!({"retries": retries}));
        assert_eq!((&rule["retry"], told.len()), (&retry, 0), "{told:?}");
    }
    // Whoever else carries the rest out: a Gateway goes by its route.
    for (router, more) in [
        ("Istio", "spec.traffic.mtls is Strict"),
        ("HTTPProxy", "spec.traffic.mtls cannot be carried out: there is no expose.httpProxy"),
    ] {
        let traffic =
            json!({"router": router, "timeout": "5s", "retries": {"attempts": 1}, "mtls": "Strict"});
        let (rule, told) = of(experimental, traffic);
        assert_eq!(
            (&rule["retry"]["attempts"], &rule["timeouts"]["request"]),
            (&json!(1), &json!("5s")),
            "{router}"
        );
        assert!(told.len() == 1 && told[0].starts_with(more), "{told:?}");
    }

    let to_do = "for retries set expose.gateway.channel: Experimental";
    for router in ["GatewayAPI", "Istio", "HTTPProxy"] {
        let (rule, told) =
            of(standard, json!({"router": router, "retries": {"attempts": 3, "retryOn": "5xx"}}));
        assert!(rule["retry"].is_null(), "{rule}");
        assert_eq!(told.len(), 1, "{told:?}");
        // With one try its limit would be that of the whole.
        let tries = json!({"attempts": 3, "perTryTimeout": "2s", "retryOn": "5xx"});
        let (rule, _) = of(standard, json!({"router": router, "timeout": "9s", "retries": tries}));
        assert_eq!(rule["timeouts"], json!({"request": "9s"}), "{router}");
        assert!(told[0].starts_with("spec.traffic.retries cannot") && told[0].contains(to_do), "{told:?}");
    }
    let (_, told) = of(standard, json!({"loadBalancer": "random"}));
    assert!(told.len() == 1 && !told[0].contains(to_do), "nobody asked for retries: {told:?}");
    let (_, told) = of(experimental, json!({"loadBalancer": "random"}));
    assert!(told.len() == 1 && told[0].contains("no fields for it but time limits and retries"), "{told:?}");

    // What a route cannot say.
    for (retries, retry, field, why) in [
        (json!({"attempts": 0}), Value::Null, "spec.traffic.retries.attempts cannot", "cannot say 0"),
        (
            json!({"attempts": 2, "retryOn": "503,unavailable,304"}),
            json!({"attempts": 2, "codes": [503]}),
            "spec.traffic.retries.retryOn cannot",
            "an HTTPRoute knows no unavailable, 304; it knows 5xx, gateway-error,",
        ),
        // Not for connection errors instead, which nobody named.
        (
            json!({"attempts": 2, "retryOn": "retriable-headers"}),
            Value::Null,
            "spec.traffic.retries.attempts, spec.traffic.retries.retryOn cannot",
            "knows no retriable-headers",
        ),
        (
            json!({"attempts": 0, "perTryTimeout": "2s"}),
            Value::Null,
            "spec.traffic.retries.attempts, spec.traffic.retries.perTryTimeout cannot",
            "cannot say 0",
        ),
    ] {
        for (router, ends) in [("GatewayAPI", false), ("Istio", true)] {
            let (rule, told) = of(experimental, json!({"router": router, "retries": retries}));
            assert_eq!(rule["retry"], retry, "{retries}");
            assert!(told[0].starts_with(field) && told[0].contains(why), "{told:?}");
            // Of a limit for each of no tries the mesh has a word of its own.
            let besides = ends && retries["attempts"] == 0 && retries["perTryTimeout"].is_string();
            assert_eq!(told.len(), 1 + usize::from(besides), "{told:?}");
            let mesh = if besides {
                "for the mesh that is told by itself"
            } else {
                "in the mesh it is as asked for"
            };
            let beside = format!("(for requests that come by the Gateway; {mesh})");
            assert_eq!(told[0].ends_with(&beside), ends, "{told:?}");
        }
    }
    let (_, told) = of(standard, json!({"retries": {"attempts": 0}}));
    assert!(told.len() == 1 && !told[0].contains(to_do), "the other channel cannot say 0 either: {told:?}");
}

#[test]
fn a_rollout_keeps_the_retries_of_a_route_on_every_rule() {
    use crate::api::rollout::{GatewayRouter, HeaderMatch, Router};
    use crate::core::router::{Protocol, ServicePort, Split, VariantLabel, VariantService, shape};

    let expansion = behind_a_gateway(
        "Experimental",
        json!({"timeout": "5s", "retries": {"attempts": 3, "retryOn": "503"}}),
    );
    let service = VariantService {
        namespace: "shop".into(),
        stable: "web".into(),
        candidate: "web-canary".into(),
        ports: vec![ServicePort { number: 80, protocol: Protocol::Http }],
        label: VariantLabel::default(),
    };
    let split = Split {
        services: vec![service],
        weight: 20,
        header: Some(HeaderMatch { name: "x-canary".into(), value: "yes".into(), ..Default::default() }),
        cookie: None,
        mirror: None,
    };
    let router = Router {
        gateway_api: Some(GatewayRouter { route: "web".into(), ..Default::default() }),
        ..Default::default()
    };
    let shaped = shape(&router, "shop", expansion.objects, Some(&split)).unwrap();
    let route = shaped.objects.iter().find(|object| object.gvk().kind == "HTTPRoute").unwrap().to_value();
    let rules = route["spec"]["rules"].as_array().unwrap();
    assert_eq!(rules.len(), 2, "one more for the header: {route}");
    for rule in rules {
        assert_eq!(rule["retry"], json!({"attempts": 3, "codes": [503]}), "{rule}");
        assert_eq!(rule["timeouts"], json!({"request": "5s"}), "{rule}");
    }
}

#[test]
fn a_change_is_rolled_out_by_every_router_with_its_own_configuration() {
    use crate::api::delivery::Empty;
    use crate::api::rollout::{
        Base, GatewayRouter, IstioRouter, Layout, RolloutPolicy, Router, ServiceRouter, Size, Strategy,
        WorkloadKind, WorkloadRef,
    };
    use crate::core::bundle::Bundle;
    use crate::core::variant::stage;

    let bundle = |image: &str, text: &str| {
        let expansion = expanded(&document(json!({
            "image": image, "port": 80, "replicas": 4,
            "config": {"files": {"a": text}, "env": {"B": text}},
            "expose": {"host": "web.example.com", "gateway": {"name": "public"}},
            "security": {"networkPolicy": {}, "serviceAccount": {"create": true}},
            "traffic": {"router": "Istio", "loadBalancer": "random", "timeout": "3s", "mtls": "Strict"},
        })))
        .unwrap();
        Bundle::new(expansion.objects).unwrap()
    };
    let (stable, target) = (bundle("web:1", "one"), bundle("web:2", "two"));
    let routers = [
        Router {
            gateway_api: Some(GatewayRouter { route: "web".into(), ..Default::default() }),
            ..Default::default()
        },
        Router { istio: Some(IstioRouter { virtual_service: "web".into() }), ..Default::default() },
        Router { service: Some(ServiceRouter { name: "web".into() }), ..Default::default() },
        Router { replicas: Some(Empty::default()), ..Default::default() },
    ];
    for router in routers {
        let strategy = if router.service.is_some() { Strategy::BlueGreen } else { Strategy::Canary };
        let policy = RolloutPolicy {
            strategy,
            workload: Some(WorkloadRef { kind: WorkloadKind::Deployment, name: "web".into() }),
            router: Some(router.clone()),
            step_weight: (strategy == Strategy::Canary).then_some(25),
            ..Default::default()
        };
        let layout = Layout { base: Base::Stable, size: Some(Size::Percent(50)), ..Default::default() };
        let made =
            stage(&stable, &target, &policy, &layout, &[]).unwrap_or_else(|p| panic!("{router:?}: {p:?}"));
        let pods = |name: &str| {
            let mut all = made.objects.iter().filter(|o| o.gvk().kind == "Deployment");
            all.find(|o| o.name() == name).map(|o| o.to_value()["spec"]["template"]["spec"].clone()).unwrap()
        };
        let suffix = if strategy == Strategy::BlueGreen { "preview" } else { "canary" };
        let (ours, theirs) = (pods("web"), pods(&format!("web-{suffix}")));
        assert_eq!(
            (&ours["containers"][0]["image"], &theirs["containers"][0]["image"]),
            (&json!("web:1"), &json!("web:2"))
        );
        // Each variant reads what its own revision says, and all of it is there.
        let says = |pods: &Value| -> Vec<Value> {
            let names = [
                &pods["volumes"][0]["configMap"]["name"],
                &pods["containers"][0]["envFrom"][0]["configMapRef"]["name"],
            ];
            let map =
                |name: &Value| made.objects.iter().find(|o| o.gvk().kind == "ConfigMap" && *name == o.name());
            names.into_iter().map(|name| map(name).unwrap().to_value()["data"].clone()).collect()
        };
        assert_eq!(says(&ours), [json!({"a": "one"}), json!({"B": "one"})], "{router:?}");
        assert_eq!(says(&theirs), [json!({"a": "two"}), json!({"B": "two"})], "{router:?}");
    }
}

#[test]
fn a_pod_monitor_is_made_where_the_cluster_has_the_kind() {
    let document = |metrics: Value| document(json!({"image": "web:1", "port": 80, "metrics": metrics}));
    let of = |metrics: Value, pod_monitors: bool| {
        expand_for(&read(&document(metrics)).unwrap(), &Origin::default(), Kinds { pod_monitors }).unwrap()
    };
    let asked = json!({"port": 9090, "podMonitor": {"labels": {"release": "prometheus"}, "interval": "30s"}});
    let monitor = object(&of(asked.clone(), true), "PodMonitor").unwrap();
    assert_eq!(monitor["metadata"]["labels"]["release"], "prometheus");
    assert_eq!(
        monitor["spec"]["podMetricsEndpoints"],
        json!([{"port": "metrics", "path": "/metrics", "interval": "30s"}])
    );
    let deployment = |expansion: &Expansion| object(expansion, "Deployment").unwrap();
    assert_eq!(monitor["spec"]["selector"], deployment(&of(asked.clone(), true))["spec"]["selector"]);
    // Pods are the same ones, whether it is there or not.
    let without = of(asked.clone(), false);
    assert_eq!(object(&without, "PodMonitor"), None);
    assert_eq!(deployment(&without), deployment(&of(asked, true)));
    assert!(without.notices.iter().any(|notice| notice.reason == "KindNotServed"));
    let shared = object(&of(json!({"podMonitor": {}}), true), "PodMonitor").unwrap();
    assert_eq!(shared["spec"]["podMetricsEndpoints"][0]["port"], "http");
    // Nobody has to ask for it, and whoever does not want it says so.
    assert!(object(&of(json!({}), true), "PodMonitor").is_some());
    let (silent, refused) = (of(json!({}), false), of(json!({"podMonitor": {"enabled": false}}), true));
    assert!(silent.notices.iter().all(|notice| notice.reason != "KindNotServed"), "the annotations do");
    assert_eq!(object(&refused, "PodMonitor"), None);
    let elsewhere = of(json!({"podMonitor": {"enabled": false}}), false);
    assert!(elsewhere.notices.iter().all(|notice| notice.reason != "KindNotServed"));
    let annotations =
        |expansion: &Expansion| deployment(expansion)["spec"]["template"]["metadata"]["annotations"].clone();
    assert_eq!(annotations(&refused)["prometheus.io/scrape"], "true");
}
