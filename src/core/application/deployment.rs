//! The Deployment of an Application.

use super::{App, config, set, value};
use serde_json::{Map, Value, json};

/// The Deployment.
pub(super) fn deployment(app: &App) -> Value {
    let mut object = app.object("apps/v1", "Deployment", &app.name);
    let update = &app.spec.rolling_update;
    object["spec"] = json!({
        "selector": {"matchLabels": app.selector()},
        "strategy": {
            "type": "RollingUpdate",
            "rollingUpdate": {"maxSurge": value(&update.max_surge), "maxUnavailable": value(&update.max_unavailable)},
        },
        "template": {"metadata": template_metadata(app), "spec": pod(app)},
    });
    // An autoscaler decides, and whoever wrote a number here would fight it.
    let replicas = app.spec.autoscaling.is_none().then(|| app.spec.replicas.into());
    set(&mut object["spec"], "replicas", replicas);
    object
}

fn template_metadata(app: &App) -> Value {
    let mut metadata = json!({"labels": app.labels()});
    let annotations = app.spec.metrics.as_ref().and_then(|metrics| {
        let port = metrics.port.or(app.first_port().map(|port| port.number))?;
        Some(json!({
            "prometheus.io/scrape": "true",
            "prometheus.io/port": port.to_string(),
            "prometheus.io/path": metrics.path,
        }))
    });
    set(&mut metadata, "annotations", annotations);
    metadata
}

fn pod(app: &App) -> Value {
    let (spec, security) = (app.spec, &app.spec.security);
    let account = &security.service_account;
    let mut context = json!({
        "runAsNonRoot": security.run_as_non_root,
        "seccompProfile": value(&security.seccomp_profile),
    });
    set(&mut context, "runAsUser", security.run_as_user.map(Value::from));
    set(&mut context, "runAsGroup", security.run_as_group.map(Value::from));
    set(&mut context, "fsGroup", security.fs_group.map(Value::from));
    let mut pod = json!({
        "automountServiceAccountToken": account.mount_token,
        "securityContext": context,
        "terminationGracePeriodSeconds": drain(app) + spec.shutdown.grace_period_seconds,
        "containers": [container(app)],
    });
    let name = account.name.clone().or_else(|| account.create.then(|| app.name.clone()));
    set(&mut pod, "serviceAccountName", name.map(Value::from));
    let volumes = volumes(app);
    set(&mut pod, "volumes", list(volumes.iter().map(|(volume, _)| volume.clone())));
    set(&mut pod, "imagePullSecrets", list(spec.image_pull_secrets.iter().map(value)));
    let spread = spec.topology_spread.iter().map(|spread| {
        json!({
            "topologyKey": spread.topology_key,
            "maxSkew": spread.max_skew,
            "whenUnsatisfiable": spread.when_unsatisfiable.as_str(),
            "labelSelector": {"matchLabels": app.selector()},
            // Those of the revision that goes are not counted: else the last ones to come stand where it was empty, not evenly.
            "matchLabelKeys": ["pod-template-hash"],
        })
    });
    set(&mut pod, "topologySpreadConstraints", list(spread));
    pod
}

/// For how long a pod serves on after its endpoint is taken out, in seconds.
fn drain(app: &App) -> i64 {
    if app.ports.is_empty() { 0 } else { app.spec.shutdown.drain_seconds }
}

fn container(app: &App) -> Value {
    let (spec, security) = (app.spec, &app.spec.security);
    let capabilities = [("drop", &security.capabilities.drop), ("add", &security.capabilities.add)];
    let capabilities = capabilities.into_iter().filter(|(_, list)| !list.is_empty());
    let capabilities: Map<String, Value> =
        capabilities.map(|(verb, list)| (verb.to_owned(), json!(list))).collect();
    let mut context = json!({
        "allowPrivilegeEscalation": security.allow_privilege_escalation,
        "readOnlyRootFilesystem": security.read_only_root_filesystem,
    });
    set(&mut context, "capabilities", (!capabilities.is_empty()).then(|| capabilities.into()));
    let mut container = json!({"name": app.name, "image": spec.image, "securityContext": context});
    set(&mut container, "command", list(spec.command.iter().map(value)));
    set(&mut container, "args", list(spec.args.iter().map(value)));
    let ports = app
        .ports
        .iter()
        .map(|port| json!({"name": port.name, "containerPort": port.number, "protocol": port.protocol}));
    let metrics = app
        .metrics_port()
        .map(|number| json!({"name": "metrics", "containerPort": number, "protocol": "TCP"}));
    set(&mut container, "ports", list(ports.chain(metrics)));
    set(&mut container, "env", list(spec.env.iter().map(value)));
    // What is given later wins: configuration of its own wins over what it shares.
    let own = config::env_name(app).map(|name| json!({"configMapRef": {"name": name}}));
    set(&mut container, "envFrom", list(spec.env_from.iter().map(value).chain(own)));
    let resources = spec.resources.as_ref().map(value);
    set(&mut container, "resources", resources.filter(|r| r.as_object().is_some_and(|r| !r.is_empty())));
    if let Some(checks) = &spec.health_check {
        set(&mut container, "livenessProbe", checks.liveness.as_ref().map(value));
        set(&mut container, "readinessProbe", checks.readiness.as_ref().map(value));
        set(&mut container, "startupProbe", checks.startup.as_ref().map(value));
    }
    let sleep = drain(app);
    let lifecycle = (sleep > 0).then(|| json!({"preStop": {"sleep": {"seconds": sleep}}}));
    set(&mut container, "lifecycle", lifecycle);
    set(&mut container, "volumeMounts", list(volumes(app).into_iter().map(|(_, mount)| mount)));
    container
}

/// The volumes, each with where it is mounted: the files of the configuration, and directories that can be written.
fn volumes(app: &App) -> Vec<(Value, Value)> {
    let files = config::files_name(app).zip(app.spec.config.as_ref()).map(|(name, config)| {
        (
            json!({"name": "config", "configMap": {"name": name}}),
            json!({"name": "config", "mountPath": config.mount_path, "readOnly": true}),
        )
    });
    let paths = app.spec.security.writable_paths.iter().enumerate();
    let writable = paths.filter(|_| app.spec.security.read_only_root_filesystem).map(|(at, path)| {
        let name = format!("writable-{at}");
        (json!({"name": name, "emptyDir": {}}), json!({"name": name, "mountPath": path}))
    });
    files.into_iter().chain(writable).collect()
}

/// A list that is left out when nothing is in it.
fn list(items: impl Iterator<Item = Value>) -> Option<Value> {
    let items: Vec<Value> = items.collect();
    (!items.is_empty()).then(|| items.into())
}
