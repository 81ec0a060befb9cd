//! What kinds do to an object before it is stored, and what they do not take.
//!
//! Of the server's validation only what a test or a simulated commit may run into is modelled: names, selectors,
//! what cannot be changed, what must be there.

use super::kinds::Kind;
use super::managed;
use super::refuse::Wrong;
use super::schema::{Scalar, Type};
use super::select::Selector;
use jiff::Timestamp;
use serde_json::{Map, Value, json};

/// Kinds whose objects have a generation from the beginning.
fn has_generation(kind: &Kind) -> bool {
    kind.custom || ["Deployment", "ReplicaSet", "Job", "Pod"].contains(&kind.kind.as_str())
}

/// What the server sets on a new object.
pub fn before_create(kind: &Kind, object: &mut Value, uid: &str, now: Timestamp, number: u64) {
    let meta = &mut object["metadata"];
    meta["uid"] = uid.into();
    meta["creationTimestamp"] = managed::time(now).into();
    if let Some(fields) = meta.as_object_mut() {
        for name in
            ["deletionTimestamp", "deletionGracePeriodSeconds", "selfLink", "generation", "resourceVersion"]
        {
            fields.remove(name);
        }
    }
    if has_generation(kind) {
        meta["generation"] = 1.into();
    }
    if kind.status {
        match kind.empty.get("status") {
            Some(status) => object["status"] = status.clone(),
            None => drop(object.as_object_mut().and_then(|o| o.remove("status"))),
        }
    }
    match kind.kind.as_str() {
        "Namespace" if !kind.custom => {
            object["status"] = json!({"phase": "Active"});
            let spec = &mut object["spec"];
            let finalizers = spec["finalizers"].as_array().cloned().unwrap_or_default();
            if !finalizers.contains(&json!("kubernetes")) {
                spec["finalizers"] = finalizers.into_iter().chain([json!("kubernetes")]).collect();
            }
        }
        "Pod" => object["status"] = json!({"phase": "Pending", "qosClass": quality(object)}),
        "PersistentVolumeClaim" => {
            object["status"] = json!({"phase": "Pending"});
            let finalizers = object["metadata"]["finalizers"].as_array().cloned().unwrap_or_default();
            let own = json!("kubernetes.io/pvc-protection");
            object["metadata"]["finalizers"] = finalizers.into_iter().chain([own]).collect();
        }
        "Service" => addresses(object, number),
        "Job" => job_labels(object, uid),
        _ => {}
    }
}

fn quality(pod: &Value) -> &'static str {
    let containers = pod["spec"]["containers"].as_array().into_iter().flatten();
    let asks = |c: &Value| c["resources"]["requests"].is_object() || c["resources"]["limits"].is_object();
    if containers.into_iter().any(asks) { "Burstable" } else { "BestEffort" }
}

fn addresses(object: &mut Value, number: u64) {
    let spec = &mut object["spec"];
    if spec["type"] == "ExternalName" {
        return;
    }
    let given = spec["clusterIP"].as_str().unwrap_or_default().to_string();
    let address = match given.as_str() {
        "" => format!("10.96.{}.{}", number / 250 % 250, number % 250 + 1),
        given => given.to_string(),
    };
    spec["clusterIP"] = address.clone().into();
    spec["clusterIPs"] = json!([address]);
    // Without a selector and an address it is somebody else who fills it: both families are allowed.
    let open = address == "None" && spec["selector"].as_object().is_none_or(Map::is_empty);
    spec["ipFamilies"] = if open { json!(["IPv4", "IPv6"]) } else { json!(["IPv4"]) };
    spec["ipFamilyPolicy"] = if open { "RequireDualStack" } else { "SingleStack" }.into();
    let outside = ["NodePort", "LoadBalancer"].contains(&spec["type"].as_str().unwrap_or_default());
    if outside {
        for (i, port) in spec.get_mut("ports").and_then(Value::as_array_mut).into_iter().flatten().enumerate()
        {
            if port["nodePort"].is_null() {
                port["nodePort"] = (30000 + (number + i as u64) % 2700).into();
            }
        }
    }
}

fn job_labels(object: &mut Value, uid: &str) {
    if object["spec"]["manualSelector"] == true {
        return;
    }
    let name = object["metadata"]["name"].clone();
    let labels = &mut object["spec"]["template"]["metadata"]["labels"];
    let values = [
        ("job-name", name.clone()),
        ("batch.kubernetes.io/job-name", name),
        ("controller-uid", uid.into()),
        ("batch.kubernetes.io/controller-uid", uid.into()),
    ];
    for (label, value) in values {
        if labels[label].is_null() {
            labels[label] = value;
        }
    }
    object["spec"]["selector"]["matchLabels"]["batch.kubernetes.io/controller-uid"] = uid.into();
}

/// What an update cannot change, and what follows from what it does change.
pub fn before_update(kind: &Kind, subresource: &str, old: &Value, new: &mut Value) {
    let copy = |new: &mut Value, field: &str| match old.get(field) {
        Some(value) => new[field] = value.clone(),
        None => drop(new.as_object_mut().and_then(|o| o.remove(field))),
    };
    match subresource {
        "status" if kind.custom => {
            let take = |object: &mut Value, field: &str| object.as_object_mut().and_then(|o| o.remove(field));
            let (status, managed) = (take(new, "status"), take(&mut new["metadata"], "managedFields"));
            let others = old.as_object().into_iter().flatten().filter(|(field, _)| *field != "status");
            *new = Value::Object(others.map(|(field, value)| (field.clone(), value.clone())).collect());
            if let Some(status) = status {
                new["status"] = status;
            }
            restore(&mut new["metadata"], "managedFields", managed);
        }
        "status" => {
            copy(new, "spec");
            if kind.kind == "Deployment" {
                let labels = old["metadata"].get("labels").cloned();
                restore(&mut new["metadata"], "labels", labels);
            }
            if kind.kind == "Pod" {
                let owners = old["metadata"].get("ownerReferences").cloned();
                restore(&mut new["metadata"], "ownerReferences", owners);
            }
        }
        _ if kind.status => copy(new, "status"),
        _ => {}
    }
    if kind.kind == "Namespace" && subresource.is_empty() {
        let finalizers = old["spec"].get("finalizers").cloned();
        restore(&mut new["spec"], "finalizers", finalizers);
    }
    if kind.kind == "Service" && subresource.is_empty() {
        keep_addresses(old, new);
    }
    let meta = &mut new["metadata"];
    for field in ["creationTimestamp", "deletionTimestamp", "generation", "deletionGracePeriodSeconds"] {
        restore(meta, field, old["metadata"].get(field).cloned());
    }
    if meta["uid"].as_str().is_none_or(str::is_empty) {
        meta["uid"] = old["metadata"]["uid"].clone();
    }
    if kind.kind == "Secret" && new["type"].as_str().is_none_or(str::is_empty) {
        new["type"] = old["type"].clone();
    }
    if let Some(generation) = old["metadata"]["generation"].as_i64()
        && subresource != "status"
        && counts(kind, old, new)
    {
        new["metadata"]["generation"] = (generation + 1).into();
    }
}

fn restore(object: &mut Value, field: &str, value: Option<Value>) {
    if let Some(fields) = object.as_object_mut() {
        match value {
            Some(value) => drop(fields.insert(field.into(), value)),
            None => drop(fields.remove(field)),
        }
    }
}

/// Whether the change is one that its controller has to see.
fn counts(kind: &Kind, old: &Value, new: &Value) -> bool {
    if !kind.custom {
        return old["spec"] != new["spec"]
            || kind.kind == "Deployment" && old["metadata"]["annotations"] != new["metadata"]["annotations"];
    }
    let content = |object: &Value| {
        let fields = object.as_object().into_iter().flatten();
        let fields = fields.filter(|(name, _)| *name != "metadata" && (*name != "status" || !kind.status));
        fields.map(|(name, value)| (name.clone(), value.clone())).collect::<Map<_, _>>()
    };
    content(old) != content(new)
}

/// The addresses of a Service stay when an update leaves them out.
fn keep_addresses(old: &Value, new: &mut Value) {
    if new["spec"]["type"] == "ExternalName" {
        return;
    }
    for field in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
        if new["spec"].get(field).is_none_or(|v| v.is_null() || v == "")
            && let Some(value) = old["spec"].get(field)
        {
            new["spec"][field] = value.clone();
        }
    }
    let ports = old["spec"]["ports"].as_array().cloned().unwrap_or_default();
    let outside = ["NodePort", "LoadBalancer"].contains(&new["spec"]["type"].as_str().unwrap_or_default());
    let own = new["spec"].get_mut("ports").and_then(Value::as_array_mut);
    for (i, port) in own.into_iter().flatten().enumerate() {
        if outside && port["nodePort"].is_null() {
            let same = ports.iter().find(|p| p["port"] == port["port"] && p["protocol"] == port["protocol"]);
            port["nodePort"] =
                same.map(|p| p["nodePort"].clone()).filter(|p| !p.is_null()).unwrap_or((30000 + i).into());
        }
    }
}

/// Changes that are refused.
pub fn wrong_change(kind: &Kind, old: &Value, new: &Value) -> Vec<Wrong> {
    let mut out = Vec::new();
    let immutable = "field is immutable";
    let fixed = |path: &str, out: &mut Vec<Wrong>| {
        let pointer = format!("/{}", path.replace('.', "/"));
        let (a, b) = (old.pointer(&pointer), new.pointer(&pointer));
        if a != b {
            out.push(Wrong::invalid(path, b.unwrap_or(&Value::Null), immutable));
        }
    };
    fixed("metadata.uid", &mut out);
    match kind.kind.as_str() {
        _ if kind.custom => {}
        "Deployment" | "ReplicaSet" => fixed("spec.selector", &mut out),
        "Job" => {
            fixed("spec.completions", &mut out);
            fixed("spec.selector", &mut out);
            if old["spec"]["suspend"] != true {
                fixed("spec.template", &mut out);
            } else if unscheduled(old) != unscheduled(new) {
                let said = "only container resources may change while the Job is suspended";
                out.push(Wrong::invalid("spec.template.spec", &Value::Null, said));
            }
            let uid = &new["metadata"]["uid"];
            if old["metadata"]["uid"] != *uid && new["spec"]["manualSelector"] != true {
                // The labels that the server made of the uid do not fit it.
                let labels = ["batch.kubernetes.io/controller-uid", "controller-uid"];
                let labels = labels.map(|label| format!("spec.template.metadata.labels[{label}]"));
                for field in labels.iter().map(String::as_str).chain(["spec.selector"]) {
                    out.push(Wrong::invalid(field, uid, "must be the uid of the Job"));
                }
            }
            fixed("spec.completionMode", &mut out);
            fixed("spec.podFailurePolicy", &mut out);
        }
        "Service" if new["spec"]["type"] != "ExternalName" && old["spec"]["type"] != "ExternalName" => {
            let address = |object: &Value| object["spec"]["clusterIP"].clone();
            if address(old) != address(new) {
                out.push(Wrong::invalid("spec.clusterIPs[0]", &address(new), "may not change once set"));
            }
        }
        "Secret" => fixed("type", &mut out),
        _ => {}
    }
    if ["Secret", "ConfigMap"].contains(&kind.kind.as_str()) && old["immutable"] == true {
        let said = "field is immutable when `immutable` is set";
        if new["immutable"] != true {
            out.push(Wrong::forbidden("immutable", said));
        }
        for field in ["data", "binaryData"] {
            if old.get(field) != new.get(field) {
                out.push(Wrong::forbidden(field, said));
            }
        }
    }
    if kind.kind == "PersistentVolumeClaim" {
        let rest = |object: &Value| {
            let mut spec = object["spec"].clone();
            if let Some(fields) = spec.as_object_mut() {
                fields.remove("resources");
            }
            spec
        };
        if rest(old) != rest(new) {
            let said = "spec is immutable after creation except resources.requests and \
                        volumeAttributesClassName for bound claims";
            out.push(Wrong::forbidden("spec", said));
        }
        if old["spec"]["volumeMode"] != new["spec"]["volumeMode"] {
            out.push(Wrong::invalid("volumeMode", &new["spec"]["volumeMode"], immutable));
        }
    }
    if kind.kind == "Pod" && containers_without_image(old) != containers_without_image(new) {
        let said = "pod updates may not change fields other than `spec.containers[*].image`,\
                    `spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only \
                    additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set \
                    to 1 if it was previously negative)";
        out.push(Wrong::forbidden("spec", said));
    }
    let finalizers =
        |object: &Value| object["metadata"]["finalizers"].as_array().cloned().unwrap_or_default();
    if !old["metadata"]["deletionTimestamp"].is_null() {
        let before = finalizers(old);
        if finalizers(new).iter().any(|f| !before.contains(f)) {
            let said = "no new finalizers can be added if the object is being deleted";
            out.push(Wrong::forbidden("metadata.finalizers", said));
        }
    }
    out
}

/// What of a Job's template stays as it is while the Job is suspended.
fn unscheduled(job: &Value) -> Value {
    let mut spec = job["spec"]["template"]["spec"].clone();
    if let Some(fields) = spec.as_object_mut() {
        for field in ["nodeSelector", "tolerations", "affinity", "schedulingGates"] {
            fields.remove(field);
        }
    }
    for list in ["containers", "initContainers"] {
        for container in spec.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
            container["resources"] = Value::Null;
        }
    }
    spec
}

fn containers_without_image(pod: &Value) -> Value {
    let mut spec = pod["spec"].clone();
    for list in ["containers", "initContainers"] {
        for container in spec.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
            container["image"] = Value::Null;
        }
    }
    if let Some(fields) = spec.as_object_mut() {
        for field in ["activeDeadlineSeconds", "tolerations", "nodeName"] {
            fields.remove(field);
        }
    }
    spec
}

/// What is wrong with an object as it would be stored.
pub fn wrong_in(kind: &Kind, object: &Value) -> Vec<Wrong> {
    let mut out = Vec::new();
    let name = object["metadata"]["name"].as_str().unwrap_or_default();
    if name.is_empty() {
        out.push(Wrong::required("metadata.name", "name or generateName is required"));
    } else if !valid_name(&kind.kind, name) {
        let said = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or \
                    '.', and must start and end with an alphanumeric character";
        out.push(Wrong::invalid("metadata.name", &name.into(), said));
    }
    if kind.custom {
        misfits(&kind.of, object, "", &mut out);
        return out;
    }
    let spec = &object["spec"];
    match kind.kind.as_str() {
        "Deployment" | "ReplicaSet" => {
            let selector = &spec["selector"];
            let empty = |of: &str| selector[of].as_object().is_none_or(Map::is_empty);
            let nothing =
                empty("matchLabels") && selector["matchExpressions"].as_array().is_none_or(Vec::is_empty);
            if selector.is_null() {
                out.push(Wrong::required("spec.selector", ""));
            } else if nothing {
                let said = "empty selector is invalid for deployment";
                out.push(Wrong::invalid("spec.selector", selector, said));
            }
            let labels = &spec["template"]["metadata"]["labels"];
            if !nothing && !Selector::of_workload(selector).fits_labels(labels.as_object()) {
                let said = "`selector` does not match template `labels`";
                out.push(Wrong::invalid("spec.template.metadata.labels", labels, said));
            }
            let strategy = &spec["strategy"];
            if strategy["type"] == "Recreate" && strategy["rollingUpdate"].is_object() {
                let said = "may not be specified when strategy `type` is 'Recreate'";
                out.push(Wrong::forbidden("spec.strategy.rollingUpdate", said));
            }
            if spec["replicas"].as_i64().unwrap_or(0) < 0 {
                let said = "must be greater than or equal to 0";
                out.push(Wrong::invalid("spec.replicas", &spec["replicas"], said));
            }
            template(&spec["template"]["spec"], "spec.template.spec", &["Always"], &mut out);
        }
        "Job" => {
            let labels = &spec["template"]["metadata"]["labels"];
            if spec["selector"].is_null() {
                out.push(Wrong::required("spec.selector", ""));
            }
            if !Selector::of_workload(&spec["selector"]).fits_labels(labels.as_object())
                || spec["selector"].is_null()
            {
                let said = "`selector` does not match template `labels`";
                out.push(Wrong::invalid("spec.template.metadata.labels", labels, said));
            }
            let policies = ["Always", "OnFailure", "Never"];
            template(&spec["template"]["spec"], "spec.template.spec", &policies, &mut out);
            if spec["template"]["spec"]["restartPolicy"] == "Always" {
                let said = "valid values: \"OnFailure\", \"Never\"";
                out.push(Wrong::required("spec.template.spec.restartPolicy", said));
            }
        }
        "PersistentVolumeClaim" => {
            if spec["accessModes"].as_array().is_none_or(Vec::is_empty) {
                out.push(Wrong::required("spec.accessModes", "at least 1 access mode is required"));
            }
            if spec["resources"]["requests"]["storage"].is_null() {
                out.push(Wrong::required("spec.resources[storage]", ""));
            }
        }
        "Pod" => template(spec, "spec", &["Always", "OnFailure", "Never"], &mut out),
        "Service" => service(spec, &mut out),
        "ConfigMap" | "Secret" => {
            for field in ["data", "binaryData"] {
                for key in object[field].as_object().into_iter().flatten().map(|(key, _)| key) {
                    let valid = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
                    if key.is_empty() || !key.chars().all(valid) {
                        let said =
                            "a valid config key must consist of alphanumeric characters, '-', '_' or '.'";
                        out.push(Wrong::invalid(&format!("{field}[{key}]"), &key.as_str().into(), said));
                    }
                }
            }
        }
        "HorizontalPodAutoscaler" => {
            let (least, most) =
                (spec["minReplicas"].as_i64().unwrap_or(1), spec["maxReplicas"].as_i64().unwrap_or(0));
            for field in ["kind", "name"] {
                if spec["scaleTargetRef"][field].as_str().unwrap_or_default().is_empty() {
                    out.push(Wrong::required(&format!("spec.scaleTargetRef.{field}"), ""));
                }
            }
            if most < 1 {
                out.push(Wrong::required("spec.maxReplicas", "must be greater than 0"));
            }
            if most < least {
                let said = "must be greater than or equal to `minReplicas`";
                out.push(Wrong::invalid("spec.maxReplicas", &most.into(), said));
            }
        }
        _ => {}
    }
    out
}

/// Values of a custom resource that are not of their type. (Other rules of its schema are not modelled.)
fn misfits(of: &Type, value: &Value, at: &str, out: &mut Vec<Wrong>) {
    let mut wrong = |wanted: &str| {
        let message = format!("Invalid value: {value}: {at} in body must be of type {wanted}: {value}");
        out.push(Wrong { reason: "FieldValueTypeInvalid", field: at.into(), message });
    };
    match (of, value) {
        (Type::Struct(s), Value::Object(fields)) => {
            for (name, value) in fields {
                let below = if at.is_empty() { name.clone() } else { format!("{at}.{name}") };
                let Some(field) = s.fields.get(name).filter(|_| below != "metadata") else { continue };
                if !(value.is_null() && field.nullable) {
                    misfits(&field.of, value, &below, out);
                }
            }
        }
        (Type::Map { of, .. }, Value::Object(fields)) => {
            for (name, value) in fields {
                misfits(of, value, &format!("{at}.{name}"), out);
            }
        }
        (Type::List { of, .. }, Value::Array(items)) => {
            for (i, item) in items.iter().enumerate() {
                misfits(of, item, &format!("{at}[{i}]"), out);
            }
        }
        (Type::Struct(_) | Type::Map { .. }, _) => wrong("object"),
        (Type::List { .. }, _) => wrong("array"),
        (Type::Scalar(Scalar::Text), value) if !value.is_string() => wrong("string"),
        (Type::Scalar(Scalar::Number), value) if !value.is_number() => wrong("integer"),
        (Type::Scalar(Scalar::Bool), value) if !value.is_boolean() => wrong("boolean"),
        // Anything, but of a type that says so.
        (Type::Untyped, Value::Null) => wrong("object"),
        _ => {}
    }
}

fn valid_name(kind: &str, name: &str) -> bool {
    let label = ["Namespace", "Service"].contains(&kind);
    let longest = if label { 63 } else { 253 };
    let part = |part: &str| {
        let ends = |c: Option<char>| c.is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
        ends(part.chars().next())
            && ends(part.chars().last())
            && part.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
    };
    name.len() <= longest && if label { part(name) } else { name.split('.').all(part) }
}

fn template(spec: &Value, at: &str, policies: &[&str], out: &mut Vec<Wrong>) {
    let containers = spec["containers"].as_array().map_or(&[][..], Vec::as_slice);
    if containers.is_empty() {
        out.push(Wrong::required(&format!("{at}.containers"), ""));
    }
    let mut volumes: Vec<&Value> = Vec::new();
    for (i, volume) in spec["volumes"].as_array().into_iter().flatten().enumerate() {
        if volumes.contains(&&volume["name"]) {
            let (reason, field) = ("FieldValueDuplicate", format!("{at}.volumes[{i}].name"));
            out.push(Wrong { reason, field, message: format!("Duplicate value: {}", volume["name"]) });
        }
        volumes.push(&volume["name"]);
        let sources = [
            "emptyDir",
            "hostPath",
            "secret",
            "persistentVolumeClaim",
            "downwardAPI",
            "configMap",
            "projected",
        ];
        for source in sources.into_iter().filter(|s| volume.get(*s).is_some()).skip(1) {
            let said = "may not specify more than 1 volume type";
            out.push(Wrong::forbidden(&format!("{at}.volumes[{i}].{source}"), said));
        }
    }
    for (list, required) in [("containers", true), ("initContainers", true)] {
        let mut seen: Vec<&str> = Vec::new();
        for (i, container) in spec[list].as_array().into_iter().flatten().enumerate() {
            let name = container["name"].as_str().unwrap_or_default();
            if name.is_empty() {
                out.push(Wrong::required(&format!("{at}.{list}[{i}].name"), ""));
            } else if seen.contains(&name) {
                let (reason, field) = ("FieldValueDuplicate", format!("{at}.{list}[{i}].name"));
                out.push(Wrong { reason, field, message: format!("Duplicate value: {name:?}") });
            }
            seen.push(name);
            if required && container["image"].as_str().unwrap_or_default().is_empty() {
                out.push(Wrong::required(&format!("{at}.{list}[{i}].image"), ""));
            }
            for mount in container["volumeMounts"].as_array().into_iter().flatten() {
                let known =
                    spec["volumes"].as_array().into_iter().flatten().any(|v| v["name"] == mount["name"]);
                if !known {
                    let (reason, field) =
                        ("FieldValueNotFound", format!("{at}.{list}[{i}].volumeMounts[0].name"));
                    out.push(Wrong { reason, field, message: format!("Not found: {}", mount["name"]) });
                }
            }
        }
    }
    let policy = spec["restartPolicy"].as_str().unwrap_or_default();
    if !policies.contains(&policy) {
        let field = format!("{at}.restartPolicy");
        out.push(Wrong::not_supported(&field, &policy.into(), policies));
    }
}

fn service(spec: &Value, out: &mut Vec<Wrong>) {
    let ports = spec["ports"].as_array().map_or(&[][..], Vec::as_slice);
    if ports.is_empty() && spec["type"] != "ExternalName" && spec["clusterIP"] != "None" {
        out.push(Wrong::required("spec.ports", ""));
    }
    let mut names: Vec<&str> = Vec::new();
    let mut numbers: Vec<(&Value, &Value)> = Vec::new();
    for (i, port) in ports.iter().enumerate() {
        let name = port["name"].as_str().unwrap_or_default();
        if name.is_empty() && ports.len() > 1 {
            out.push(Wrong::required(&format!("spec.ports[{i}].name"), ""));
        } else if !name.is_empty() && names.contains(&name) {
            let (reason, field) = ("FieldValueDuplicate", format!("spec.ports[{i}].name"));
            out.push(Wrong { reason, field, message: format!("Duplicate value: {name:?}") });
        }
        names.push(name);
        if !(1..=65535).contains(&port["port"].as_i64().unwrap_or(0)) {
            let said = "must be between 1 and 65535, inclusive";
            out.push(Wrong::invalid(&format!("spec.ports[{i}].port"), &port["port"], said));
            if port["targetPort"] == port["port"] {
                out.push(Wrong::invalid(&format!("spec.ports[{i}].targetPort"), &port["port"], said));
            }
        }
        let number = (&port["port"], &port["protocol"]);
        if numbers.contains(&number) {
            let (reason, field) = ("FieldValueDuplicate", format!("spec.ports[{i}]"));
            out.push(Wrong { reason, field, message: format!("Duplicate value: {port}") });
        }
        numbers.push(number);
    }
}
