//! An Application expands to objects that the API server takes as they are, and the schema of the resource says what the
//! expansion says: what is left out has the same value, and what contradicts itself is refused, in both.
//!
//! `tests/golden/applications` has Applications and, in `.expanded`, what `windlass render` prints of each (with
//! `UPDATE_GOLDEN=1` that is written). No daemon watches the namespaces of this file.

use crate::routes_are_valid::{Served, crds, definitions};
use crate::support::cli::kubectl;
use crate::support::cluster::{Space, TEST_AGENT, try_send, wait_until};
use crate::support::daemon::LIMIT;
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use windlass::api::application::definition;
use windlass::core::application::{Kinds, defaulted, expand, expand_for, is_application, read};
use windlass::core::manifest::{Manifest, Origin};
use windlass::render::yaml::{Keep, Limits, parse};

const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/applications")
}

/// The names of the files with Applications.
fn files() -> Vec<String> {
    let entries = std::fs::read_dir(folder()).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = entries.filter(|name| !name.contains(".expanded.")).collect();
    names.sort();
    assert!(names.len() > 5, "{names:?}");
    names
}

fn documents(text: &str) -> Vec<Value> {
    let documents = parse(text, Keep::Variables, &Limits::default()).unwrap();
    documents.into_iter().map(|document| document.value).filter(|value| !value.is_null()).collect()
}

fn applications() -> Vec<(String, Value)> {
    let read = |name: String| {
        let all = documents(&std::fs::read_to_string(folder().join(&name)).unwrap());
        all.into_iter()
            .filter(is_application)
            .map(move |document| (name.clone(), document))
            .collect::<Vec<_>>()
    };
    files().into_iter().flat_map(read).collect()
}

/// The Applications of the documentation.
fn documented() -> Vec<Value> {
    fn pages(folder: &Path, out: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => pages(&path, out),
                false => out.push(path),
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut all = vec![root.join("README.md"), root.join("CHANGELOG.md")];
    pages(&root.join("docs"), &mut all);
    let of_page = |path: PathBuf| {
        let page = std::fs::read_to_string(path).unwrap();
        let blocks = page.split("```yaml\n").skip(1).map(|rest| rest.split("```").next().unwrap());
        let blocks = blocks.filter(|block| block.contains("kind: Application"));
        blocks.flat_map(documents).filter(is_application).collect::<Vec<_>>()
    };
    let found: Vec<Value> = all.into_iter().flat_map(of_page).collect();
    assert!(found.len() > 1, "{found:?}");
    found
}

fn rendered(arguments: &[&str]) -> (i32, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_windlass"))
        .arg("render")
        .args(arguments)
        .current_dir(folder())
        .output()
        .unwrap();
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (output.status.code().unwrap(), text(&output.stdout), text(&output.stderr))
}

#[test]
fn every_application_expands_to_what_is_written_beside_it() {
    let update = std::env::var_os("UPDATE_GOLDEN").is_some();
    let mut stale = Vec::new();
    for name in files() {
        let (code, out, err) = rendered(&[&name]);
        assert_eq!(code, 0, "{name}: {err}");
        let told: String = err.lines().map(|line| format!("# {line}\n")).collect();
        let (text, file) = (format!("{told}{out}"), folder().join(name.replace(".yaml", ".expanded.yaml")));
        if update {
            std::fs::write(&file, &text).unwrap();
        }
        if std::fs::read_to_string(&file).unwrap_or_default() != text {
            stale.push(format!("{}:\n{text}", file.display()));
        }
    }
    assert!(
        stale.is_empty(),
        "UPDATE_GOLDEN=1 writes what is looked at and committed then:\n{}",
        stale.join("\n")
    );
}

#[test]
fn every_field_is_in_one_of_them() {
    /// The fields that a schema has, as deep as they are ours: not those of a probe, a variable or a selector.
    fn fields(schema: &Value, path: &str, out: &mut BTreeSet<String>) {
        let theirs =
            ["liveness", "readiness", "startup", "env[]", "envFrom[]", "allowFrom[]", "allowTo[]", "rollout"];
        if theirs.iter().any(|end| path.ends_with(end)) && path != "spec.config.env" {
            return;
        }
        for (name, below) in schema["properties"].as_object().into_iter().flatten() {
            let path = format!("{path}.{name}");
            out.insert(path.clone());
            fields(below, &path, out);
        }
        if schema["items"].is_object() {
            fields(&schema["items"], &format!("{path}[]"), out);
        }
    }
    fn said(value: &Value, path: &str, out: &mut BTreeSet<String>) {
        match value {
            Value::Object(map) => map.iter().for_each(|(name, below)| {
                let path = format!("{path}.{name}");
                out.insert(path.clone());
                said(below, &path, out);
            }),
            Value::Array(items) => items.iter().for_each(|item| said(item, &format!("{path}[]"), out)),
            _ => {}
        }
    }
    let definition = definition();
    let (mut known, mut used) = (BTreeSet::new(), BTreeSet::new());
    let schema = &definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"];
    fields(schema, "spec", &mut known);
    assert!(known.len() > 60, "{known:?}");
    applications().iter().for_each(|(_, document)| said(&document["spec"], "spec", &mut used));
    let missing: Vec<_> = known.difference(&used).collect();
    assert!(missing.is_empty(), "in no golden Application: {missing:?}");
}

#[test]
fn what_is_wrong_is_told_with_the_line_and_the_field() {
    let file = tempfile::Builder::new().suffix(".yaml").tempfile().unwrap();
    let path = file.path().to_str().unwrap();
    let told = |text: &str, more: &[&str]| {
        std::fs::write(file.path(), text).unwrap();
        let (code, out, err) = rendered(&[&[path], more].concat());
        assert_eq!((code, out.as_str()), (2, ""), "{err}");
        err
    };
    let head = "apiVersion: windlass.dev/v1alpha1\nkind: Application\nmetadata: {name: web}\n";
    let err = told(&format!("# A comment.\n{head}spec: {{image: 'web:1', prot: 80}}\n"), &[]);
    let place = format!("{path}:2");
    assert!(
        err.contains(&place) && err.contains("spec.prot is no field of an Application; did you mean port?"),
        "{err}"
    );
    let err = told(&format!("{head}spec: {{image: 'web:1', security: {{runAsUser: 0}}}}\n"), &[]);
    assert!(
        err.contains("Application web cannot be expanded") && err.contains("spec.security.runAsUser is 0"),
        "{err}"
    );
    let err = told("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n", &[]);
    assert!(err.contains("holds no Application; render takes a directory"), "{err}");
    let err = told(&format!("{head}spec: {{image: 'web:1'}}\n"), &["--set", "A=B"]);
    assert!(err.contains("--set is for directories"), "{err}");
    let err = told("a: [\n", &[]);
    assert!(err.contains(path), "{err}");
}

#[test]
fn in_a_directory_an_application_stays_one() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::copy(folder().join("minimal.yaml"), directory.path().join("app.yaml")).unwrap();
    let (code, out, err) = rendered(&[directory.path().to_str().unwrap(), "-n", "shop"]);
    assert_eq!(code, 0, "{err}");
    let objects = documents(&out);
    assert_eq!(objects.len(), 1, "{out}");
    assert_eq!(
        (&objects[0]["kind"], &objects[0]["metadata"]["namespace"]),
        (&json!("Application"), &json!("shop"))
    );
}

#[tokio::test]
async fn the_api_server_takes_every_object_as_it_is() {
    let mut space = Space::new("expanded").await;
    let standard = routes(&mut space, "gateway-new").await;
    let experimental = routes(&mut space, "gateway-experimental").await;
    let istio = crds().join("istio.yaml");
    let routing = definitions(&istio, &["destinationrules", "virtualservices"]);
    let routing = Served::new(&mut space, "networking.istio.io", routing).await;
    let rights = definitions(&istio, &["peerauthentications"]);
    let rights = Served::new(&mut space, "security.istio.io", rights).await;
    let contour = definitions(&crds().join("contour.yaml"), &["httpproxies"]);
    let contour = Served::new(&mut space, "projectcontour.io", contour).await;
    let monitors = definitions(&crds().join("monitors.yaml"), &["podmonitors"]);
    let monitors = Served::new(&mut space, "monitoring.coreos.com", monitors).await;
    let mut kinds = BTreeSet::new();
    let documented = documented().into_iter().map(|document| ("docs".to_owned(), document));
    for (name, document) in applications().into_iter().chain(documented) {
        let served = Kinds { pod_monitors: true };
        let expansion = expand_for(&read(&document).unwrap(), &Origin::default(), served).unwrap();
        let gateway = match document["spec"]["expose"]["gateway"]["channel"].as_str() {
            Some("Experimental") => &experimental,
            _ => &standard,
        };
        for object in expansion.objects {
            kinds.insert(object.gvk().kind);
            let wanted = object.to_value();
            let answer = match object.gvk().group.as_str() {
                "gateway.networking.k8s.io" => gateway.applied(&space, &wanted, "&dryRun=All").await,
                "networking.istio.io" => routing.applied(&space, &wanted, "&dryRun=All").await,
                "monitoring.coreos.com" => monitors.applied(&space, &wanted, "&dryRun=All").await,
                "projectcontour.io" => contour.applied(&space, &wanted, "&dryRun=All").await,
                "security.istio.io" => rights.applied(&space, &wanted, "&dryRun=All").await,
                _ => applied(&space, &object).await,
            };
            let answer = answer.unwrap_or_else(|e| panic!("{name}: {}: {e}", object.id()));
            // Nothing of it is taken otherwise than it is written: no default stands against it, no quantity is rounded.
            let mut wanted = wanted["spec"].clone();
            merge(&mut wanted, &answer["spec"]);
            assert_eq!(wanted, answer["spec"], "{name}: {}", object.id());
        }
    }
    let all = [
        "ConfigMap",
        "Deployment",
        "DestinationRule",
        "HTTPProxy",
        "HTTPRoute",
        "HorizontalPodAutoscaler",
        "Ingress",
        "NetworkPolicy",
        "PeerAuthentication",
        "PodDisruptionBudget",
        "PodMonitor",
        "Service",
        "ServiceAccount",
        "VirtualService",
    ];
    assert_eq!(kinds, BTreeSet::from(all.map(String::from)));
}

/// The HTTPRoute of a release of the Gateway API.
async fn routes(space: &mut Space, release: &str) -> Served {
    let file = crds().join(release).join("gateway.networking.k8s.io_httproutes.yaml");
    Served::new(space, "gateway.networking.k8s.io", definitions(&file, &["httproutes"])).await
}

#[tokio::test]
async fn retries_of_a_gateway_are_valid_in_the_experimental_channel_and_in_no_other() {
    let mut space = Space::new("retries").await;
    let standard = routes(&mut space, "gateway-new").await;
    let experimental =
        [routes(&mut space, "gateway-old").await, routes(&mut space, "gateway-experimental").await];
    let named =
        ["5xx", "503,gateway-error,503", "retriable-4xx,429", "400,599,600,99", "reset", "5xx,internal", ""];
    for (attempts, retry_on) in named.iter().flat_map(|name| [(1, *name), (100, *name)]) {
        let mut retries = json!({"attempts": attempts});
        if !retry_on.is_empty() {
            retries["retryOn"] = retry_on.into();
        }
        let document = json!({
            "apiVersion": "windlass.dev/v1alpha1", "kind": "Application", "metadata": {"name": "web", "namespace": "shop"},
            "spec": {
                "image": "web:1", "port": 80, "traffic": {"retries": retries},
                "expose": {"host": "web.example.com", "gateway": {"name": "public", "channel": "Experimental"}},
            },
        });
        let expansion = expand(&read(&document).unwrap(), &Origin::default()).unwrap();
        let route =
            expansion.objects.iter().find(|object| object.gvk().kind == "HTTPRoute").unwrap().to_value();
        let retry = &route["spec"]["rules"][0]["retry"];
        assert_eq!(retry["attempts"], attempts, "{retry_on}");
        for served in &experimental {
            let answer = served.applied(&space, &route, "&dryRun=All").await;
            let answer = answer.unwrap_or_else(|e| panic!("{retry_on}: {e}"));
            assert_eq!(answer["spec"]["rules"][0]["retry"], *retry, "{retry_on}");
        }
        let refused = standard.applied(&space, &route, "&dryRun=All").await.unwrap_err();
        assert!(refused.contains(".spec.rules[0].retry: field not declared in schema"), "{refused}");
    }
}

#[tokio::test]
async fn by_default_pods_are_as_restricted_as_the_strictest_standard() {
    let space = Space::new("application-pods").await;
    let label = json!({"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "restricted"}}});
    space.send("PATCH", &format!("/api/v1/namespaces/{}", space.name), &label).await;
    let path = format!("{}?dryRun=All", space.path("v1", "pods"));
    let tried = async |name: &str| {
        let document =
            applications().into_iter().find(|(file, _)| *file == format!("{name}.yaml")).unwrap().1;
        let expansion = expand(&read(&document).unwrap(), &Origin::default()).unwrap();
        let deployment = expansion.objects.iter().find(|object| object.gvk().kind == "Deployment").unwrap();
        let mut pod = deployment.to_value()["spec"]["template"].clone();
        pod["metadata"]["name"] = name.into();
        pod["spec"].as_object_mut().unwrap().remove("serviceAccountName");
        try_send(&space.connection.client, "POST", &path, &pod).await.map_err(|e| e.to_string())
    };
    // The label, and the account that every pod has, take a moment to arrive.
    wait_until("the standard holds, and refuses what is opened up", LIMIT, || async {
        match tried("open").await {
            Err(told) if told.contains("violates PodSecurity") => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    for name in ["minimal", "user-service", "ports", "mesh"] {
        tried(name).await.unwrap_or_else(|told| panic!("{name}: {told}"));
    }
}

/// Applies an object as a dry run, strictly, in the test's namespace.
async fn applied(space: &Space, object: &Manifest) -> Result<Value, String> {
    let mut object = object.clone();
    object.set_metadata("namespace", space.name.as_str().into());
    let gvk = object.gvk();
    let plural = space.discovery.resource(&gvk).unwrap_or_else(|| panic!("{gvk} is not served")).plural;
    let path = format!(
        "{}/{}?fieldManager={TEST_AGENT}&dryRun=All&fieldValidation=Strict",
        space.path(&gvk.api_version(), &plural),
        object.name()
    );
    try_send(&space.connection.client, "APPLY", &path, &object.to_value()).await.map_err(|e| e.to_string())
}

/// Adds what `from` has besides to a value, lists by position.
fn merge(value: &mut Value, from: &Value) {
    match (value, from) {
        (Value::Object(map), Value::Object(from)) => {
            for (name, from) in from {
                match map.get_mut(name) {
                    Some(below) => merge(below, from),
                    None => drop(map.insert(name.clone(), from.clone())),
                }
            }
        }
        (Value::Array(items), Value::Array(from)) => {
            items.iter_mut().zip(from).for_each(|(item, from)| merge(item, from));
        }
        _ => {}
    }
}

#[derive(Deserialize)]
struct Refused {
    name: String,
    spec: Value,
    server: Option<String>,
}

/// The definition as it is generated, there for as long as the test cluster; others install the same one.
async fn installed(space: &Space) {
    let name = "applications.windlass.dev";
    let path = format!("{DEFINITIONS}/{name}?fieldManager={TEST_AGENT}&force=true");
    space.send("APPLY", &path, &definition()).await;
    wait_until("Applications are served", LIMIT, || async {
        let found =
            try_send(&space.connection.client, "GET", &format!("{DEFINITIONS}/{name}"), &Value::Null).await;
        let found = found.map_err(|e| e.to_string())?;
        let conditions = found["status"]["conditions"].clone();
        let is = |kind: &str, status: &str| {
            conditions
                .as_array()
                .is_some_and(|all| all.iter().any(|c| c["type"] == kind && c["status"] == status))
        };
        assert!(!is("NonStructuralSchema", "True"), "{conditions}");
        let list = space.path("windlass.dev/v1alpha1", "applications");
        try_send(&space.connection.client, "GET", &list, &Value::Null).await.map_err(|e| e.to_string())?;
        if is("Established", "True") { Ok(()) } else { Err(conditions.to_string()) }
    })
    .await;
}

#[tokio::test]
async fn the_schema_says_what_the_expansion_says() {
    let space = Space::new("application-schema").await;
    installed(&space).await;
    let path = |query: &str| {
        format!("{}?fieldValidation=Strict{query}", space.path("windlass.dev/v1alpha1", "applications"))
    };
    let client = &space.connection.client;

    // What is left out has the value that the expansion takes.
    for (name, mut document) in applications() {
        document["metadata"]["namespace"] = space.name.as_str().into();
        let stored = try_send(client, "POST", &path(""), &document).await;
        let stored = stored.unwrap_or_else(|e| panic!("{name}: {e}"));
        let ours = read(&document).unwrap();
        let theirs = read(&json!({
            "apiVersion": stored["apiVersion"], "kind": stored["kind"],
            "metadata": {"name": ours.metadata.name}, "spec": stored["spec"],
        }))
        .unwrap();
        assert_eq!(theirs.spec, ours.spec, "{name}");
        // What follows from other fields only the expansion says.
        let left = defaulted(&json!({"spec": stored["spec"]}), &ours.spec);
        let follows = ["spec.healthCheck.startup.", "spec.autoscaling.targetCPUUtilization"];
        let left: Vec<String> = left.into_iter().map(|default| default.path).collect();
        assert!(left.iter().all(|path| follows.iter().any(|f| path.starts_with(f))), "{name}: {left:?}");
    }

    // What people are shown is taken as it stands there.
    let shown = Space::new("application-docs").await;
    let shown_path =
        format!("{}?fieldValidation=Strict", shown.path("windlass.dev/v1alpha1", "applications"));
    for mut document in documented() {
        let spec = document["spec"].clone();
        document["metadata"]["namespace"] = shown.name.as_str().into();
        let stored = try_send(client, "POST", &shown_path, &document).await;
        let stored = stored.unwrap_or_else(|e| panic!("{document}: {e}"));
        let mut wanted = spec;
        merge(&mut wanted, &stored["spec"]);
        assert_eq!(wanted, stored["spec"], "with defaults, and nothing else");
    }

    // What contradicts itself is refused by both, where a schema can say it.
    let text = include_str!("../src/core/application/cases/refused.yaml");
    let cases: Vec<Refused> = serde_saphyr::from_str(text).unwrap();
    let mut wrong = Vec::new();
    for case in &cases {
        let document = json!({
            "apiVersion": "windlass.dev/v1alpha1", "kind": "Application",
            "metadata": {"name": "refused"}, "spec": case.spec,
        });
        let answer = try_send(client, "POST", &path("&dryRun=All"), &document).await;
        let told = answer.err().map(|e| e.to_string());
        let as_wanted = match (&told, &case.server) {
            (Some(told), Some(wanted)) => told.contains(wanted),
            (None, None) => true,
            _ => false,
        };
        if !as_wanted {
            wrong.push(format!("{}: {told:?}, and not {:?}", case.name, case.server));
        }
    }
    for name in ["1web", "web.shop", &"a".repeat(64)] {
        let document = json!({
            "apiVersion": "windlass.dev/v1alpha1", "kind": "Application",
            "metadata": {"name": name}, "spec": {"image": "web:1"},
        });
        let told = try_send(client, "POST", &path("&dryRun=All"), &document).await.map_err(|e| e.to_string());
        if !told.as_ref().is_err_and(|told| told.contains("the name is that of a Service too")) {
            wrong.push(format!("{name}: {told:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));

    // The short name, the columns and the scale.
    let namespace = space.name.as_str();
    let scaled = kubectl(&space, &["scale", "-n", namespace, "wapp/hello", "--replicas=4"]);
    assert_eq!(scaled.code, 0, "{}", scaled.err);
    let listed = kubectl(&space, &["get", "-n", namespace, "wapp", "hello", "-o", "wide"]);
    assert!(
        listed.out.contains("IMAGE") && listed.out.contains("registry.example.com/hello:1.0"),
        "{}",
        listed.out
    );
    let replicas =
        kubectl(&space, &["get", "-n", namespace, "wapp", "hello", "-o", "jsonpath={.spec.replicas}"]);
    assert_eq!(replicas.out, "4");
    let all = kubectl(&space, &["get", "all", "-n", namespace, "-o", "name"]);
    assert!(all.out.contains("application.windlass.dev/hello"), "{}", all.out);
}
