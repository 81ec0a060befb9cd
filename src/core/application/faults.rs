//! What contradicts itself in an Application, and what may not do what was meant.
//!
//! Where the schema can say it too, it does, for whoever applies the resource by other means; a test holds both to one table.

use super::error::ApplicationError as Error;
use super::notice::Notice;
use super::{App, exposure, rollout, traffic};
use crate::api::application::{LoadBalancer, Mtls, TrafficRouter, same_namespace};
use crate::core::diff::is_less;
use k8s_openapi::api::core::v1::Probe;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde_json::json;
use std::collections::BTreeSet;

/// Everything that is wrong about an Application.
pub(super) fn find(app: &App) -> Vec<Error> {
    let mut errors = Vec::new();
    if !is_service_name(&app.name) {
        errors.push(Error::Name(app.name.clone()));
    }
    ports(app, &mut errors);
    variables(app, &mut errors);
    probes(app, &mut errors);
    resources(app, &mut errors);
    scaling(app, &mut errors);
    exposed(app, &mut errors);
    metrics(app, &mut errors);
    security(app, &mut errors);
    mounts(app, &mut errors);
    balancer(app, &mut errors);
    rollout::faults(app, &mut errors);
    let update = &app.spec.rolling_update;
    if [&update.max_surge, &update.max_unavailable].into_iter().all(is_zero) {
        errors.push(Error::Stuck);
    }
    errors
}

/// What may not do what was meant.
pub(super) fn notices(app: &App) -> Vec<Notice> {
    let mut notices = traffic::notices(app);
    notices.extend(shut_out(app));
    notices.extend(refused(app));
    let spec = app.spec;
    let tag = spec.image.rsplit('/').next().unwrap_or_default();
    if !tag.contains([':', '@']) || tag.ends_with(":latest") {
        notices.push(Notice::new(
            "ImageWithoutVersion",
            "spec.image names no version: a newer image of this name rolls nothing out, and going back to an older one is not \
             possible; use a tag for each build, or a digest",
        ));
    }
    if !app.ports.is_empty() && spec.health_check.as_ref().is_none_or(|checks| checks.readiness.is_none()) {
        notices.push(Notice::new(
            "NoReadinessProbe",
            "spec.healthCheck.readiness is not there: a pod gets traffic, and counts as healthy, as soon as its process runs",
        ));
    }
    if spec.config.as_ref().is_some_and(|config| config.files.is_empty() && config.env.is_empty()) {
        notices.push(Notice::new("EmptyConfig", "spec.config says nothing: it takes files and env"));
    }
    notices
}

/// Who is meant to reach the pods, and cannot as long as the policy lets in the pods of the namespace alone.
fn shut_out(app: &App) -> Option<Notice> {
    let access = app.spec.security.network_policy.as_ref()?;
    if access.allow_from != same_namespace() {
        return None;
    }
    let gateway = app.spec.expose.as_ref().and_then(|expose| expose.gateway.as_ref());
    let who = from_outside(app, gateway.is_some_and(|gateway| gateway.namespace.is_none()))?;
    let text = format!(
        "spec.security.networkPolicy lets in the pods of the namespace alone, which {who} may not be in; name in allowFrom where they are"
    );
    Some(Notice::new("NetworkPolicyShutsOut", text))
}

/// Who is meant to reach the pods, and cannot where the mesh refuses everybody who does not belong to it.
fn refused(app: &App) -> Option<Notice> {
    let traffic = app.spec.traffic.as_ref()?;
    if traffic.router != TrafficRouter::Istio || traffic.mtls != Some(Mtls::Strict) {
        return None;
    }
    let gateway = app.spec.expose.as_ref().is_some_and(|expose| expose.gateway.is_some());
    let who = from_outside(app, gateway)?;
    let text = format!(
        "spec.traffic.mtls is Strict, so the pods refuse whoever does not belong to the mesh, as {who} may not; with Permissive they \
         let them in"
    );
    Some(Notice::new("MtlsShutsOut", text))
}

/// Who asks the pods and is none of the namespace's, as a rule.
fn from_outside(app: &App, gateway: bool) -> Option<String> {
    let expose = app.spec.expose.as_ref();
    let ingress = expose.is_some_and(|expose| expose.ingress.is_some() || expose.http_proxy.is_some());
    let all = [
        (gateway, "the proxies of the Gateway"),
        (ingress, "the ingress controller"),
        (app.spec.metrics.is_some(), "Prometheus"),
    ];
    let who: Vec<&str> = all.into_iter().filter_map(|(is, who)| is.then_some(who)).collect();
    (!who.is_empty()).then(|| who.join(" and "))
}

/// Whether a probe does something.
pub(super) fn has_action(probe: &Probe) -> bool {
    actions(probe) > 0
}

fn actions(probe: &Probe) -> usize {
    let all =
        [probe.http_get.is_some(), probe.tcp_socket.is_some(), probe.grpc.is_some(), probe.exec.is_some()];
    all.into_iter().filter(|there| *there).count()
}

/// RFC 1035, which names of Services follow.
fn is_service_name(name: &str) -> bool {
    let letters = name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-');
    letters && name.len() <= 63 && name.starts_with(|c: char| c.is_ascii_lowercase()) && !name.ends_with('-')
}

fn is_zero(amount: &IntOrString) -> bool {
    match amount {
        IntOrString::Int(number) => *number == 0,
        IntOrString::String(text) => text.trim_end_matches('%') == "0",
    }
}

fn ports(app: &App, errors: &mut Vec<Error>) {
    if let (Some(port), false) = (app.spec.port, app.spec.ports.is_empty()) {
        errors.push(Error::PortTwice { port });
        return;
    }
    let (mut numbers, mut services, mut names) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    for (at, port) in app.ports.iter().enumerate() {
        let path = |field: &str| format!("spec.ports[{at}].{field}");
        let same =
            |path: String, number: i32| Error::SamePort { path, number, protocol: port.protocol.to_owned() };
        if !numbers.insert((port.number, port.protocol)) {
            errors.push(same(path("port"), port.number));
        } else if !services.insert((port.service, port.protocol)) {
            errors.push(same(path("servicePort"), port.service));
        }
        let taken = port.name == "metrics" && app.metrics_port().is_some();
        if !names.insert(port.name.as_str()) || taken {
            errors.push(Error::SameName { path: path("name"), name: port.name.clone() });
        }
    }
}

fn variables(app: &App, errors: &mut Vec<Error>) {
    let mut names = BTreeSet::new();
    for (at, variable) in app.spec.env.iter().enumerate() {
        if !names.insert(variable.name.as_str()) {
            let path = format!("spec.env[{at}].name");
            errors.push(Error::SameVariable { path, name: variable.name.clone() });
        }
    }
}

fn probes(app: &App, errors: &mut Vec<Error>) {
    let Some(checks) = &app.spec.health_check else { return };
    let probes =
        [("liveness", &checks.liveness), ("readiness", &checks.readiness), ("startup", &checks.startup)];
    for (name, probe) in probes {
        let Some(probe) = probe else { continue };
        let path = format!("spec.healthCheck.{name}");
        if actions(probe) != 1 {
            let hint = match name {
                "startup" => ", or a probe in liveness or readiness that it can do as well",
                _ => "",
            };
            errors.push(Error::Action { path, hint });
            continue;
        }
        let number = |number: i32| IntOrString::Int(number);
        let asked = [
            ("httpGet", probe.http_get.as_ref().map(|action| action.port.clone())),
            ("tcpSocket", probe.tcp_socket.as_ref().map(|action| action.port.clone())),
            ("grpc", probe.grpc.as_ref().map(|action| number(action.port))),
        ];
        for (action, port) in asked {
            if let Some(port) = port
                && !knows(app, &port)
            {
                errors.push(no_such_port(app, format!("{path}.{action}.port"), &port, true));
            }
        }
    }
}

/// Whether the container has a port, by number or name.
fn knows(app: &App, port: &IntOrString) -> bool {
    match port {
        IntOrString::Int(number) => {
            app.ports.iter().any(|port| port.number == *number) || app.metrics_port() == Some(*number)
        }
        IntOrString::String(name) => {
            app.ports.iter().any(|port| port.name == *name)
                || (app.metrics_port().is_some() && name == "metrics")
        }
    }
}

fn no_such_port(app: &App, path: String, port: &IntOrString, metrics: bool) -> Error {
    let port = match port {
        IntOrString::Int(number) => number.to_string(),
        IntOrString::String(name) => name.clone(),
    };
    let own = app.metrics_port().filter(|_| metrics).map(|number| format!("metrics ({number})"));
    let known = app.ports.iter().map(|port| format!("{} ({})", port.name, port.number)).chain(own);
    Error::NoSuchPort { path, port, known: known.collect() }
}

fn resources(app: &App, errors: &mut Vec<Error>) {
    let Some(resources) = &app.spec.resources else { return };
    for (part, map) in [("requests", &resources.requests), ("limits", &resources.limits)] {
        for (resource, amount) in map {
            let amount = json!(amount.0);
            // What cannot be compared with itself is no quantity.
            if is_less(&amount, &amount).is_none() {
                let path = format!("spec.resources.{part}.{resource}");
                let problem = "is no quantity; write it like 500m, 2, 128Mi or 1Gi".to_owned();
                errors.push(Error::Value { path, problem });
            }
        }
    }
    for (resource, limit) in &resources.limits {
        let request = resources.requests.get(resource);
        if let Some(request) = request
            && is_less(&json!(limit.0), &json!(request.0)) == Some(true)
        {
            let path = format!("spec.resources.requests.{resource}");
            errors.push(Error::AboveLimit { path, request: request.0.clone(), limit: limit.0.clone() });
        }
    }
}

fn scaling(app: &App, errors: &mut Vec<Error>) {
    let Some(scaling) = &app.spec.autoscaling else { return };
    if scaling.min_replicas > scaling.max_replicas {
        errors.push(Error::Bounds { min: scaling.min_replicas, max: scaling.max_replicas });
    }
    let targets = [
        ("targetCPUUtilization", "cpu", scaling.target_cpu_utilization),
        ("targetMemoryUtilization", "memory", scaling.target_memory_utilization),
    ];
    for (field, resource, target) in targets {
        // A limit without a request is the request too.
        let asks = app.spec.resources.as_ref().is_some_and(|resources| {
            resources.requests.contains_key(resource) || resources.limits.contains_key(resource)
        });
        if target.is_some() && !asks {
            errors.push(Error::NoRequest { path: format!("spec.autoscaling.{field}"), resource });
        }
    }
}

fn exposed(app: &App, errors: &mut Vec<Error>) {
    let Some(expose) = &app.spec.expose else { return };
    let ways = [expose.gateway.is_some(), expose.ingress.is_some(), expose.http_proxy.is_some()];
    if ways.into_iter().filter(|way| *way).count() != 1 {
        errors.push(Error::OneOf { path: "spec.expose".into(), choices: "gateway, ingress and httpProxy" });
    }
    if app.first_port().is_none() {
        errors.push(Error::NoPort { path: "spec.expose".into() });
    } else if let (None, Some(port)) = (exposure::port(app), &expose.port) {
        errors.push(no_such_port(app, "spec.expose.port".into(), port, false));
    }
}

fn metrics(app: &App, errors: &mut Vec<Error>) {
    if app.spec.metrics.as_ref().is_some_and(|metrics| metrics.port.is_none()) && app.first_port().is_none() {
        errors.push(Error::NoPort { path: "spec.metrics".into() });
    }
}

fn security(app: &App, errors: &mut Vec<Error>) {
    let security = &app.spec.security;
    if security.run_as_non_root && security.run_as_user == Some(0) {
        errors.push(Error::Root);
    }
    let any = ["SYS_ADMIN", "CAP_SYS_ADMIN", "ALL"];
    let gives = security.capabilities.add.iter().find(|name| any.contains(&name.as_str()));
    if let (false, Some(name)) = (security.allow_privilege_escalation, gives) {
        errors.push(Error::Escalation(name.clone()));
    }
    if !security.service_account.create && !security.service_account.annotations.is_empty() {
        errors.push(Error::Annotations);
    }
}

fn mounts(app: &App, errors: &mut Vec<Error>) {
    let config = app.spec.config.as_ref().filter(|config| !config.files.is_empty());
    let mut places: BTreeSet<&str> =
        config.into_iter().map(|config| config.mount_path.trim_end_matches('/')).collect();
    for (at, path) in app.spec.security.writable_paths.iter().enumerate() {
        if !places.insert(path.trim_end_matches('/')) {
            let field = format!("spec.security.writablePaths[{at}]");
            errors.push(Error::SamePlace { path: field, place: path.clone() });
        }
    }
}

fn balancer(app: &App, errors: &mut Vec<Error>) {
    let Some(traffic) = &app.spec.traffic else { return };
    let hashes = traffic.load_balancer == Some(LoadBalancer::ConsistentHash);
    if hashes != traffic.consistent_hash.is_some() {
        errors.push(Error::Hash);
    }
    let each = traffic.retries.as_ref().and_then(|retries| retries.per_try_timeout);
    if let (Some(each), Some(whole)) = (each, traffic.timeout)
        // None is no limit.
        && !whole.0.is_zero()
        && each > whole
    {
        errors.push(Error::Try { each: each.to_string(), whole: whole.to_string() });
    }
}
