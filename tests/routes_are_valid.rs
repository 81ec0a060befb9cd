//! What routers write is valid by the published schemas of the Gateway API and of Istio, and reads back from an API server as it
//! was sent: a patch is not written twice, and a route that belongs to somebody else ends as it was.
//!
//! The CRDs are served under groups of the test's own, so that several releases stand side by side and no other test sees
//! them. The tables are those of the unit tests.

use crate::support::cluster::{Space, TEST_AGENT, suffix, try_send, wait_until};
use crate::support::daemon::LIMIT;
use serde::Deserialize;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::Command;
use windlass::api::rollout::{CookieMatch, GatewayRouter, HeaderMatch, IstioRouter, RouteKind, Router};
use windlass::core::manifest::{Manifest, Origin};
use windlass::core::router::{self, Protocol, ServicePort, Split, VariantLabel, VariantService};
use windlass::render::yaml::{self, Keep, Limits};

const GATEWAY: &str = "gateway.networking.k8s.io";
const ISTIO: &str = "networking.istio.io";

#[derive(Deserialize)]
struct Case {
    name: String,
    kind: Option<String>,
    spec: Value,
    split: SplitCase,
    refused: Option<String>,
}

#[derive(Deserialize)]
struct SplitCase {
    #[serde(default)]
    weight: u32,
    header: Option<HeaderMatch>,
    cookie: Option<CookieMatch>,
    mirror: Option<u32>,
}

impl SplitCase {
    fn split(&self) -> Split {
        let service = VariantService {
            namespace: "shop".into(),
            stable: "web".into(),
            candidate: "web-canary".into(),
            ports: [(80, Protocol::Http), (5432, Protocol::Tcp)]
                .map(|(number, protocol)| ServicePort { number, protocol })
                .into(),
            label: VariantLabel::default(),
        };
        Split {
            services: vec![service],
            weight: self.weight,
            header: self.header.clone(),
            cookie: self.cookie.clone(),
            mirror: self.mirror,
        }
    }
}

fn cases(file: &str) -> Vec<Case> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/core/router/cases").join(file);
    serde_saphyr::from_str(&std::fs::read_to_string(file).unwrap()).unwrap()
}

fn router(kind: &str) -> Router {
    let route = |kind| GatewayRouter { route: "web".into(), kind };
    match kind {
        "HTTPRoute" => Router { gateway_api: Some(route(RouteKind::HTTPRoute)), ..Router::default() },
        "GRPCRoute" => Router { gateway_api: Some(route(RouteKind::GRPCRoute)), ..Router::default() },
        _ => Router { istio: Some(IstioRouter { virtual_service: "web".into() }), ..Router::default() },
    }
}

/// The folder of the CRDs, fetched when they are not there.
pub fn crds() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let dir = root.join("target/crds");
    std::fs::create_dir_all(&dir).unwrap();
    let lock = std::fs::File::create(dir.join(".lock")).unwrap();
    lock.lock().unwrap();
    let status = Command::new(root.join("tests/cluster/crds.sh")).arg(&dir).status().unwrap();
    assert!(status.success(), "crds.sh: {status}");
    dir
}

/// The published definitions of these plurals.
pub fn definitions(file: &Path, plurals: &[&str]) -> Vec<Value> {
    let text = std::fs::read_to_string(file).unwrap();
    // The whole of Istio's file takes long to read.
    let wanted =
        |text: &&str| plurals.iter().any(|plural| text.contains(&format!("\n    plural: {plural}\n")));
    let read = |text: &str| yaml::parse(text, Keep::Variables, &Limits::default()).unwrap().remove(0).value;
    let found: Vec<Value> = text.split("\n---\n").filter(wanted).map(read).collect();
    assert!(!found.is_empty(), "{} holds no {plurals:?}", file.display());
    found
}

/// A release of an API, served under a group of its own.
pub struct Served {
    group: String,
    theirs: &'static str,
}

impl Served {
    pub async fn new(space: &mut Space, theirs: &'static str, definitions: Vec<Value>) -> Self {
        let group = format!("{}.{theirs}.example.com", suffix());
        for mut definition in definitions {
            let plural = definition["spec"]["names"]["plural"].as_str().unwrap().to_owned();
            let name = format!("{plural}.{group}");
            definition["metadata"] = json!({"name": name});
            definition["spec"]["group"] = group.as_str().into();
            definition.as_object_mut().unwrap().remove("status");
            space
                .make_cluster_object("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", &definition)
                .await;
            let path = space.path(&format!("{group}/v1"), &plural);
            wait_until(&format!("{name} is served"), LIMIT, || async {
                try_send(&space.connection.client, "GET", &path, &Value::Null)
                    .await
                    .map_err(|e| e.to_string())
            })
            .await;
        }
        Served { group, theirs }
    }

    /// The object as the test's API server is to see it: in this group and in the test's namespace. Names of backends stay.
    fn sent(&self, space: &Space, object: &Value) -> Value {
        let mut object = object.clone();
        let version = object["apiVersion"].as_str().unwrap().rsplit('/').next().unwrap().to_owned();
        object["apiVersion"] = format!("{}/{version}", self.group).into();
        object["metadata"]["namespace"] = space.name.as_str().into();
        object
    }

    /// And back, as a router sees it.
    fn seen(&self, object: &Value) -> Value {
        let mut object = object.clone();
        let version = object["apiVersion"].as_str().unwrap().rsplit('/').next().unwrap().to_owned();
        object["apiVersion"] = format!("{}/{version}", self.theirs).into();
        object["metadata"]["namespace"] = "shop".into();
        object
    }

    fn path(&self, space: &Space, object: &Value) -> String {
        let kind = object["kind"].as_str().unwrap().to_lowercase();
        let plural = kind.strip_suffix('y').map_or(format!("{kind}s"), |stem| format!("{stem}ies"));
        let version = object["apiVersion"].as_str().unwrap().rsplit('/').next().unwrap();
        let collection = space.path(&format!("{}/{version}", self.group), &plural);
        format!("{collection}/{}", object["metadata"]["name"].as_str().unwrap())
    }

    pub async fn applied(&self, space: &Space, object: &Value, query: &str) -> Result<Value, String> {
        let path = format!(
            "{}?fieldManager={TEST_AGENT}&force=true&fieldValidation=Strict{query}",
            self.path(space, object)
        );
        let answer = try_send(&space.connection.client, "APPLY", &path, &self.sent(space, object)).await;
        answer.map(|object| self.seen(&object)).map_err(|e| e.to_string())
    }

    async fn patched(&self, space: &Space, object: &Value, patch: &Value) -> Result<Value, u16> {
        let path = format!("{}?fieldValidation=Strict", self.path(space, object));
        match try_send(&space.connection.client, "PATCH", &path, patch).await {
            Ok(object) => Ok(self.seen(&object)),
            Err(kube::Error::Api(status)) => Err(status.code),
            Err(other) => panic!("{other}"),
        }
    }
}

fn manifest(api: &str, kind: &str, spec: &Value) -> Manifest {
    let metadata = json!({"name": "web", "namespace": "shop"});
    let value = json!({"apiVersion": api, "kind": kind, "metadata": metadata, "spec": spec});
    Manifest::new(value, Origin::default()).unwrap()
}

/// Applies what `shape` makes of each case as a dry run, and takes each route through a split by patches and back.
async fn try_cases(space: &Space, served: &Served, cases: &[Case], versions: &[&str], kind: &str) -> usize {
    let mut tried = 0;
    for case in cases.iter().filter(|case| case.refused.is_none()) {
        let kind = case.kind.as_deref().unwrap_or(kind);
        let (router, split) = (router(kind), case.split.split());
        for version in versions {
            // GRPCRoute has one version only.
            if kind == "GRPCRoute" && *version != "v1" {
                continue;
            }
            let object = manifest(&format!("{}/{version}", served.theirs), kind, &case.spec);
            let shaped = router::shape(&router, "shop", vec![object], Some(&split)).unwrap();
            let told = |e: String| panic!("{} ({version}): {e}", case.name);
            served.applied(space, &shaped.objects[0].to_value(), "&dryRun=All").await.unwrap_or_else(told);
            tried += 1;
        }
        let object = manifest(&format!("{}/{}", served.theirs, versions[0]), kind, &case.spec).to_value();
        let before = served.applied(space, &object, "").await.unwrap();
        if let Some(patch) = router::patch(&router, &before, Some(&split)).unwrap() {
            let after = served.patched(space, &object, &patch).await;
            let after = after.unwrap_or_else(|code| panic!("{}: {code}", case.name));
            let again = router::patch(&router, &after, Some(&split)).unwrap();
            assert_eq!(again, None, "{} is patched twice", case.name);
            // Who comes late is told so.
            assert_eq!(served.patched(space, &object, &patch).await, Err(409), "{}", case.name);
            let back = router::patch(&router, &after, None).unwrap().unwrap();
            let end = served.patched(space, &object, &back).await.unwrap();
            assert_eq!(end["spec"], before["spec"], "{}", case.name);
            assert_eq!(end["metadata"].get("annotations"), before["metadata"].get("annotations"));
        }
        let path = served.path(space, &object);
        space.send("DELETE", &path, &Value::Null).await;
    }
    tried
}

#[tokio::test]
async fn gateway_routes_are_valid_in_old_and_new_releases() {
    let mut space = Space::new("gateway-routes").await;
    let crds = crds();
    for release in ["gateway-old", "gateway-new"] {
        let file = |plural: &str| crds.join(release).join(format!("{GATEWAY}_{plural}.yaml"));
        let mut both = definitions(&file("httproutes"), &["httproutes"]);
        both.extend(definitions(&file("grpcroutes"), &["grpcroutes"]));
        let served = Served::new(&mut space, GATEWAY, both).await;
        let tried = try_cases(&space, &served, &cases("gateway.yaml"), &["v1", "v1beta1"], "HTTPRoute").await;
        assert!(tried > 20, "{release}: {tried} objects");
    }
}

#[tokio::test]
async fn virtual_services_are_valid() {
    let mut space = Space::new("virtual-services").await;
    let published = definitions(&crds().join("istio.yaml"), &["virtualservices"]);
    let served = Served::new(&mut space, ISTIO, published).await;
    let versions = ["v1", "v1beta1"];
    let tried = try_cases(&space, &served, &cases("istio.yaml"), &versions, "VirtualService").await;
    assert!(tried > 12, "{tried} objects");

    // What is made where Git has none.
    let split = SplitCase { weight: 10, header: None, cookie: None, mirror: Some(5) }.split();
    let shaped = router::shape(&router("VirtualService"), "shop", Vec::new(), Some(&split)).unwrap();
    served.applied(&space, &shaped.objects[0].to_value(), "&dryRun=All").await.unwrap();
}
