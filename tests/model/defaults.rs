//! What the server fills in, as far as somebody can notice it: all of it ends up in an updater's set and in the
//! object that answers.
//!
//! Not modelled: requests of Pods by pod-level limits, host ports of Pods on the host's network, versions of the
//! cluster's addresses (`ipFamilies` is always IPv4).

use serde_json::{Map, Value, json};

/// Fills in what a built-in kind leaves out.
pub fn fill(kind: &str, object: &mut Value) {
    match kind {
        "Namespace" => {
            let name = object["metadata"]["name"].clone();
            if name.as_str().is_some_and(|n| !n.is_empty()) {
                object["metadata"]["labels"]["kubernetes.io/metadata.name"] = name;
            }
            set(&mut object["status"], "phase", "Active".into());
        }
        "Secret" => set(object, "type", "Opaque".into()),
        "Service" => service(object),
        "PersistentVolumeClaim" => {
            set(&mut object["status"], "phase", "Pending".into());
            set(&mut object["spec"], "volumeMode", "Filesystem".into());
        }
        "Pod" => {
            set(&mut object["status"], "phase", "Pending".into());
            pod_spec(&mut object["spec"]);
            set(&mut object["spec"], "enableServiceLinks", true.into());
            for list in ["containers", "initContainers"] {
                for container in items(&mut object["spec"], list) {
                    let limits = container["resources"]["limits"].clone();
                    for (name, limit) in limits.as_object().into_iter().flatten() {
                        set(&mut container["resources"]["requests"], name, limit.clone());
                    }
                }
            }
        }
        "Deployment" => {
            let spec = &mut object["spec"];
            set(spec, "replicas", 1.into());
            set(spec, "revisionHistoryLimit", 10.into());
            set(spec, "progressDeadlineSeconds", 600.into());
            set(&mut spec["strategy"], "type", "RollingUpdate".into());
            if spec["strategy"]["type"] == "RollingUpdate" {
                let rolling = &mut spec["strategy"]["rollingUpdate"];
                set(rolling, "maxUnavailable", "25%".into());
                set(rolling, "maxSurge", "25%".into());
            }
            pod_spec(&mut spec["template"]["spec"]);
        }
        "ReplicaSet" => {
            let spec = &mut object["spec"];
            set(spec, "replicas", 1.into());
            pod_spec(&mut spec["template"]["spec"]);
        }
        "Job" => job(object),
        "HorizontalPodAutoscaler" => autoscaler(&mut object["spec"]),
        _ => {}
    }
}

/// Sets a field that is not there or empty.
fn set(object: &mut Value, name: &str, value: Value) {
    if object.is_null() {
        *object = json!({});
    }
    let Some(fields) = object.as_object_mut() else { return };
    let missing = fields.get(name).is_none_or(|v| v.is_null() || v == "");
    if missing {
        fields.insert(name.into(), value);
    }
}

fn items<'a>(object: &'a mut Value, list: &str) -> impl Iterator<Item = &'a mut Value> {
    object.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten()
}

fn service(object: &mut Value) {
    let spec = &mut object["spec"];
    set(spec, "sessionAffinity", "None".into());
    if spec["sessionAffinity"] == "None" {
        remove(spec, "sessionAffinityConfig");
    } else if spec["sessionAffinityConfig"]["clientIP"]["timeoutSeconds"].is_null() {
        spec["sessionAffinityConfig"] = json!({"clientIP": {"timeoutSeconds": 10800}});
    }
    set(spec, "type", "ClusterIP".into());
    for port in items(spec, "ports") {
        set(port, "protocol", "TCP".into());
        if port["targetPort"] == 0 || port["targetPort"] == "" || port["targetPort"].is_null() {
            port["targetPort"] = port["port"].clone();
        }
    }
    let outside = ["NodePort", "LoadBalancer"].contains(&spec["type"].as_str().unwrap_or_default());
    if outside || spec["externalIPs"].is_array() && spec["type"] == "ClusterIP" {
        set(spec, "externalTrafficPolicy", "Cluster".into());
    }
    if spec["type"] != "ExternalName" {
        set(spec, "internalTrafficPolicy", "Cluster".into());
    }
    if spec["type"] == "LoadBalancer" {
        set(spec, "allocateLoadBalancerNodePorts", true.into());
    }
}

fn remove(object: &mut Value, name: &str) {
    if let Some(fields) = object.as_object_mut() {
        fields.remove(name);
    }
}

fn job(object: &mut Value) {
    let labels = object["spec"]["template"]["metadata"]["labels"].clone();
    let own = object["metadata"].get("labels").and_then(Value::as_object).is_none_or(Map::is_empty);
    if labels.is_object() && own {
        object["metadata"]["labels"] = labels;
    }
    let spec = &mut object["spec"];
    if spec.get("completions").is_none() && spec.get("parallelism").is_none() {
        set(spec, "completions", 1.into());
    }
    set(spec, "parallelism", 1.into());
    let per_index = spec.get("backoffLimitPerIndex").is_some();
    set(spec, "backoffLimit", if per_index { i32::MAX } else { 6 }.into());
    set(spec, "completionMode", "NonIndexed".into());
    set(spec, "suspend", false.into());
    let policy = if spec.get("podFailurePolicy").is_some() { "Failed" } else { "TerminatingOrFailed" };
    set(spec, "podReplacementPolicy", policy.into());
    set(spec, "manualSelector", false.into());
    pod_spec(&mut spec["template"]["spec"]);
}

fn autoscaler(spec: &mut Value) {
    set(spec, "minReplicas", 1.into());
    if spec["metrics"].as_array().is_none_or(Vec::is_empty) {
        spec["metrics"] = json!([{"type": "Resource", "resource": {
            "name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}}}]);
    }
    if spec["behavior"].is_object() {
        let percent = json!({"type": "Percent", "value": 100, "periodSeconds": 15});
        let pods = json!({"type": "Pods", "value": 4, "periodSeconds": 15});
        let up = &mut spec["behavior"]["scaleUp"];
        set(up, "stabilizationWindowSeconds", 0.into());
        set(up, "selectPolicy", "Max".into());
        set(up, "policies", json!([pods, percent]));
        let down = &mut spec["behavior"]["scaleDown"];
        set(down, "selectPolicy", "Max".into());
        set(down, "policies", json!([percent]));
    }
}

fn pod_spec(spec: &mut Value) {
    set(spec, "dnsPolicy", "ClusterFirst".into());
    set(spec, "restartPolicy", "Always".into());
    set(spec, "securityContext", json!({}));
    set(spec, "terminationGracePeriodSeconds", 30.into());
    set(spec, "schedulerName", "default-scheduler".into());
    // The old name of the same field.
    let account = ["serviceAccountName", "serviceAccount"].map(|field| spec[field].clone());
    if let Some(name) = account.into_iter().find(Value::is_string) {
        spec["serviceAccount"] = name.clone();
        spec["serviceAccountName"] = name;
    }
    for list in ["containers", "initContainers"] {
        for container in items(spec, list) {
            fill_container(container);
        }
    }
    for volume in items(spec, "volumes") {
        fill_volume(volume);
    }
}

fn fill_container(container: &mut Value) {
    let image = container["image"].as_str().unwrap_or_default();
    let (name, digest) = image.split_once('@').map_or((image, false), |(name, _)| (name, true));
    let last = name.rsplit('/').next().unwrap_or_default();
    let latest = last.split_once(':').map_or(!digest, |(_, tag)| tag == "latest");
    let policy = if latest { "Always" } else { "IfNotPresent" };
    set(container, "imagePullPolicy", policy.into());
    set(container, "terminationMessagePath", "/dev/termination-log".into());
    set(container, "terminationMessagePolicy", "File".into());
    for port in items(container, "ports") {
        set(port, "protocol", "TCP".into());
    }
    for variable in items(container, "env") {
        for (source, field) in [("fieldRef", "apiVersion"), ("resourceFieldRef", "divisor")] {
            let Some(from) = variable.get_mut("valueFrom").and_then(|v| v.get_mut(source)) else { continue };
            set(from, field, if field == "divisor" { "0" } else { "v1" }.into());
        }
    }
    for probe in ["livenessProbe", "readinessProbe", "startupProbe"] {
        let Some(probe) = container.get_mut(probe) else { continue };
        set(probe, "timeoutSeconds", 1.into());
        set(probe, "periodSeconds", 10.into());
        set(probe, "successThreshold", 1.into());
        set(probe, "failureThreshold", 3.into());
        fill_get(probe);
    }
    for hook in ["preStop", "postStart"] {
        if let Some(hook) = container.get_mut("lifecycle").and_then(|l| l.get_mut(hook)) {
            fill_get(hook);
        }
    }
}

fn fill_get(handler: &mut Value) {
    if let Some(get) = handler.get_mut("httpGet") {
        set(get, "path", "/".into());
        set(get, "scheme", "HTTP".into());
    }
    if let Some(grpc) = handler.get_mut("grpc") {
        set(grpc, "service", "".into());
    }
}

fn fill_volume(volume: &mut Value) {
    if volume.as_object().is_some_and(|v| v.len() == 1 && v.contains_key("name")) {
        volume["emptyDir"] = json!({});
    }
    for source in ["configMap", "secret", "downwardAPI", "projected"] {
        if let Some(source) = volume.get_mut(source) {
            set(source, "defaultMode", 420.into());
        }
    }
    if let Some(path) = volume.get_mut("hostPath") {
        set(path, "type", "".into());
    }
    let projected = volume.get_mut("projected").and_then(|p| p.get_mut("sources"));
    for source in projected.and_then(Value::as_array_mut).into_iter().flatten() {
        if let Some(token) = source.get_mut("serviceAccountToken") {
            set(token, "expirationSeconds", 3600.into());
        }
        for item in source.get_mut("downwardAPI").into_iter().flat_map(|d| items(d, "items")) {
            if let Some(field) = item.get_mut("fieldRef") {
                set(field, "apiVersion", "v1".into());
            }
        }
    }
    for item in volume.get_mut("downwardAPI").into_iter().flat_map(|d| items(d, "items")) {
        if let Some(field) = item.get_mut("fieldRef") {
            set(field, "apiVersion", "v1".into());
        }
    }
}
