//! The real kustomize renders what the repository holds: bases beside it, patches, generators. It reaches nothing else,
//! is stopped when it takes too long, and its errors speak of the repository's paths.

use crate::support::rendering::{options, run};
use serde_json::json;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};
use windlass::core::tree::memory::{MemTree, Node};
use windlass::render::{Options, Rendered, Substitutions};

/// Longer than anything here takes on a busy machine.
const BUSY: Duration = Duration::from_secs(180);

const DEPLOYMENT: &str = "# the web server
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: ${REPLICAS}
  template:
    spec:
      containers:
      - name: web
        image: 'registry/web:${TAG}'
        env: [{name: PORT, value: \"${PORT}\"}]
";

fn shop() -> MemTree {
    MemTree::new([
        (
            "base/kustomization.yaml",
            "resources: [service.yaml, web.yaml]\nconfigMapGenerator:\n- name: settings\n  literals: [\"replicas=${REPLICAS}\"]\n",
        ),
        (
            "base/service.yaml",
            "---\napiVersion: v1\nkind: Service\nmetadata: {name: web}\n---\napiVersion: v1\nkind: ServiceAccount\nmetadata: {name: web}\n",
        ),
        ("base/web.yaml", DEPLOYMENT),
        (
            "apps/shop/kustomization.yaml",
            "namePrefix: eu-\nresources:\n- ../../base\n- role.yaml\npatches:\n- path: patch.yaml\n- target: {kind: Deployment}\n  patch: |\n    - {op: add, path: /spec/minReadySeconds, value: \"${READY}\"}\n    - op: add\n      path: /spec/revisionHistoryLimit\n      value: ${HISTORY}\n",
        ),
        (
            "apps/shop/patch.yaml",
            "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web}\nspec: {paused: true}\n",
        ),
        (
            "apps/shop/role.yaml",
            "apiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRole\nmetadata: {name: reader}\n",
        ),
    ])
}

fn find<'r>(rendered: &'r Rendered, kind: &str) -> &'r windlass::core::manifest::Manifest {
    rendered.objects.iter().find(|o| o.gvk().kind == kind).unwrap()
}

#[test]
fn objects_come_from_bases_beside_it_and_know_their_files() {
    let rendered = run(shop(), "apps/shop", &options()).unwrap();
    let mut places: Vec<_> =
        rendered.objects.iter().map(|o| (o.id().to_string(), o.origin.to_string())).collect();
    places.sort();
    assert!(places[1].0.starts_with("ConfigMap shop/eu-settings-"), "{places:?}");
    places.remove(1);
    let want = [
        ("ClusterRole eu-reader", "apps/shop/role.yaml:1"),
        ("Deployment shop/eu-web", "base/web.yaml:2"),
        ("Service shop/eu-web", "base/service.yaml:2"),
        ("ServiceAccount shop/eu-web", "base/service.yaml:6"),
    ];
    let want: Vec<_> = want.into_iter().map(|(id, at)| (id.to_owned(), at.to_owned())).collect();
    assert_eq!(places, want);
    for object in &rendered.objects {
        assert_eq!(object.annotation("config.kubernetes.io/origin"), None);
    }
    assert_eq!(find(&rendered, "Deployment").fields()["spec"]["replicas"], "${REPLICAS}");
}

#[test]
fn variables_keep_the_type_that_the_sources_give_them() {
    let values = [("REPLICAS", "3"), ("TAG", "12"), ("PORT", "80"), ("READY", "5"), ("HISTORY", "2")];
    let values = values.into_iter().map(|(k, v)| (k.to_owned(), v.to_owned())).collect();
    let options = Options { substitute: Some(Substitutions { values }), ..options() };
    let rendered = run(shop(), "apps/shop", &options).unwrap();
    let spec = &find(&rendered, "Deployment").fields()["spec"];
    assert_eq!(spec["replicas"], 3);
    assert_eq!(spec["minReadySeconds"], "5");
    assert_eq!(spec["revisionHistoryLimit"], 2);
    assert_eq!(spec["template"]["spec"]["containers"][0]["image"], "registry/web:12");
    assert_eq!(spec["template"]["spec"]["containers"][0]["env"], json!([{"name": "PORT", "value": "80"}]));
    assert_eq!(find(&rendered, "ConfigMap").fields()["data"], json!({"replicas": "3"}));
}

#[test]
fn an_unset_variable_names_the_file_in_git() {
    let options = Options { substitute: Some(Substitutions::default()), ..options() };
    let error = run(shop(), "apps/shop", &options).unwrap_err().to_string();
    assert!(error.contains(".yaml:") && error.contains("which has no value"), "{error}");
}

#[test]
fn a_subdirectory_with_a_kustomization_is_rendered_by_it() {
    let tree = shop()
        .with("apps/x.yaml", Node::File(b"apiVersion: v1\nkind: Namespace\nmetadata: {name: ns}\n".to_vec()));
    assert_eq!(run(tree.clone(), "apps", &options()).unwrap().objects.len(), 6);
    let plain = Options { kustomize: Some(false), ..options() };
    assert_eq!(run(tree, "apps", &plain).unwrap().objects.len(), 3);
}

#[test]
fn metadata_of_the_build_that_the_author_asks_for_stays() {
    let tree = MemTree::new([
        ("a/kustomization.yaml", "resources: [x.yaml]\nbuildMetadata: [originAnnotations]\n"),
        ("a/x.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x}\n"),
    ]);
    let rendered = run(tree, "a", &options()).unwrap();
    let object = &rendered.objects[0];
    assert_eq!(object.annotation("config.kubernetes.io/origin"), Some("path: x.yaml\n"));
    assert_eq!(object.origin.file, "a/kustomization.yaml");
}

#[test]
fn what_stands_outside_is_out_of_reach() {
    let secret = tempfile::NamedTempFile::new().unwrap();
    let outside = secret.path().to_str().unwrap();
    let climb = format!("{}{}", "../".repeat(12), outside.trim_start_matches('/'));
    let generator = |file: &str| {
        format!(
            "apiVersion: builtin\nkind: ConfigMapGenerator\nmetadata: {{name: g}}\nfiles:\n- stolen={file}\n"
        )
    };
    // Plugins that are part of kustomize read files by themselves: its own restriction must hold for them.
    for file in [outside, &climb, "../secret.txt", "/etc/hostname"] {
        let tree = MemTree::new([
            ("a/kustomization.yaml".to_owned(), "generators: [g.yaml]".to_owned()),
            ("a/g.yaml".to_owned(), generator(file)),
            ("secret.txt".to_owned(), "s3cret".to_owned()),
        ]);
        let error = run(tree, "a", &options()).unwrap_err().to_string();
        assert!(error.starts_with("a/kustomization.yaml: kustomize: "), "{file}: {error}");
        assert!(!error.contains("windlass-render-"), "{error}");
    }
}

#[test]
fn links_are_read_as_what_they_point_to_in_the_repository() {
    let tree = MemTree::new([
        ("a/kustomization.yaml", "resources: [x.yaml, dir]\n"),
        ("shared/x.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x}\n"),
        ("shared/dir/kustomization.yaml", "resources: [../../more]\n"),
        ("more/kustomization.yaml", "resources: [m.yaml]\n"),
        ("more/m.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: m}\n"),
    ])
    .with("a/x.yaml", Node::Symlink("../shared/x.yaml".into()))
    .with("a/dir", Node::Symlink("../shared/dir".into()));
    let mut ids: Vec<_> =
        run(tree, "a", &options()).unwrap().objects.iter().map(|o| o.id().to_string()).collect();
    ids.sort();
    assert_eq!(ids, ["ConfigMap shop/m", "ConfigMap shop/x"]);
}

#[test]
fn what_kustomize_refuses_is_told_with_paths_of_the_repository() {
    let tree = MemTree::new([
        ("a/kustomization.yaml", "resources: [x.yaml]\nnot_a_field: 1\n"),
        ("a/x.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x}\n"),
    ]);
    let error = run(tree, "a", &options()).unwrap_err().to_string();
    assert!(
        error.starts_with("a/kustomization.yaml: kustomize: ") && error.contains("not_a_field"),
        "{error}"
    );
    assert!(!error.contains("/tmp") && !error.contains("windlass-render"), "{error}");
    let cycle = MemTree::new([
        ("a/kustomization.yaml", "resources: [../b]"),
        ("b/kustomization.yaml", "resources: [../a]"),
    ]);
    let error = run(cycle, "a", &options()).unwrap_err().to_string();
    assert!(error.contains("cycle"), "{error}");
}

/// Stands in for a binary that misbehaves as the real one does not.
fn script(body: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("kustomize");
    std::fs::write(&path, format!("#!/bin/sh\n{body}\n")).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    dir
}

fn misbehaving(
    body: &str,
    timeout: Duration,
) -> (Result<Rendered, windlass::render::RenderError>, tempfile::TempDir) {
    let dir = script(body);
    let mut options = Options { kustomize_binary: dir.path().join("kustomize"), timeout, ..options() };
    options.limits.total_bytes = 1 << 20;
    (run(shop(), "apps/shop", &options), dir)
}

#[test]
fn one_that_hangs_is_stopped() {
    let begin = Instant::now();
    let (result, _dir) = misbehaving("while :; do :; done", Duration::from_millis(200));
    assert!(result.unwrap_err().to_string().contains("did not finish within"));
    assert!(begin.elapsed() < BUSY);
}

#[test]
#[cfg(target_os = "linux")]
fn its_memory_is_limited() {
    let body = "while [ \"$(ulimit -v)\" = unlimited ]; do :; done; echo limited to $(ulimit -v) >&2; exit 1";
    let (result, _dir) = misbehaving(body, BUSY);
    assert!(result.unwrap_err().to_string().ends_with("limited to 4194304"));
}

#[test]
fn what_it_starts_is_stopped_with_it() {
    // Were the child's own child left alone, the file would go on growing.
    let body = "(while :; do echo x; done > \"$0.beats\") & while :; do :; done";
    let (result, dir) = misbehaving(body, Duration::from_millis(500));
    assert!(result.unwrap_err().to_string().contains("did not finish within"));
    let size = || std::fs::metadata(dir.path().join("kustomize.beats")).map_or(0, |m| m.len());
    let begin = Instant::now();
    let mut last = size();
    let mut still = Instant::now();
    while still.elapsed() < Duration::from_millis(300) {
        assert!(begin.elapsed() < BUSY, "it still writes");
        std::thread::yield_now();
        if size() != last {
            (last, still) = (size(), Instant::now());
        }
    }
}

#[test]
fn one_that_never_stops_printing_is_stopped() {
    let (result, _dir) =
        misbehaving("while :; do echo aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa; done", BUSY);
    assert!(result.unwrap_err().to_string().contains("bytes of output above the limit of 1048576"));
}

#[test]
fn it_sees_only_what_is_named_and_an_empty_environment() {
    let body = "set > \"$0.env\"; for f in */* */*/* */*/*/*; do echo \"$f\"; done > \"$0.files\"; exit 1";
    let (result, dir) = misbehaving(body, BUSY);
    result.unwrap_err();
    let read = |name: &str| {
        let mut text = String::new();
        std::fs::File::open(dir.path().join(name)).unwrap().read_to_string(&mut text).unwrap();
        text
    };
    let environment = read("kustomize.env");
    assert!(environment.lines().any(|l| l == "PATH=''" || l == "PATH="), "{environment}");
    assert!(!environment.contains("CARGO"), "{environment}");
    let files = read("kustomize.files");
    let named =
        ["apps/shop/kustomization.yaml", "apps/shop/patch.yaml", "apps/shop/role.yaml", "base/web.yaml"];
    assert!(named.iter().all(|f| files.lines().any(|l| l == *f)), "{files}");
    let with_more = shop().with("apps/shop/notes.txt", Node::File(b"not named".to_vec()));
    let more = script("ls 2>/dev/null; for f in apps/shop/*; do echo \"$f\"; done > \"$0.files\"; exit 1");
    let options = Options { kustomize_binary: more.path().join("kustomize"), timeout: BUSY, ..options() };
    run(with_more, "apps/shop", &options).unwrap_err();
    let files = std::fs::read_to_string(more.path().join("kustomize.files")).unwrap();
    assert!(!files.contains("notes.txt"), "{files}");
}

#[test]
fn values_are_never_part_of_an_error() {
    let mut values: std::collections::BTreeMap<String, String> = ["REPLICAS", "TAG", "READY", "HISTORY"]
        .into_iter()
        .map(|k| (k.to_owned(), "s3cret".to_owned()))
        .collect();
    values.insert("OTHER".into(), "s3cret".into());
    let options = Options { substitute: Some(Substitutions { values }), ..options() };
    let error = run(shop(), "apps/shop", &options).unwrap_err();
    assert!(error.to_string().contains("${PORT}"), "{error}");
    assert!(!format!("{error} {error:?} {options:?}").contains("s3cret"));
}
