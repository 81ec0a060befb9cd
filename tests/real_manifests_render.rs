//! Manifests that people really keep render, the plain ones and those for Kustomize.

use crate::support::rendering::{load, options, run};
use std::path::{Path, PathBuf};
use windlass::core::bundle::Bundle;
use windlass::core::tree::memory::MemTree;
use windlass::render::inputs;

fn repository(name: &str) -> Option<MemTree> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data/repos");
    let dir = std::env::var_os("WINDLASS_TEST_REPOS").map_or(beside, PathBuf::from).join(name);
    if !dir.is_dir() {
        eprintln!("SKIPPED: {} is not there", dir.display());
        return None;
    }
    Some(load(&dir))
}

fn bundle(tree: &MemTree, path: &str) -> (Bundle, Vec<String>) {
    let rendered = run(tree.clone(), path, &options()).unwrap_or_else(|e| panic!("{path}: {e}"));
    for object in &rendered.objects {
        assert!(object.origin.line > 0 || object.origin.file.contains("kustomization"), "{}", object.origin);
    }
    inputs(tree, path).unwrap();
    (Bundle::new(rendered.objects).unwrap_or_else(|e| panic!("{path}: {e}")), rendered.warnings)
}

#[test]
fn podinfo_renders() {
    let Some(tree) = repository("podinfo") else { return };
    let (kustomized, _) = bundle(&tree, "kustomize");
    let deployment = kustomized.objects().iter().find(|o| o.gvk().kind == "Deployment").unwrap();
    assert_eq!(deployment.origin.to_string(), "kustomize/deployment.yaml:1");
    assert!(deployment.annotation("config.kubernetes.io/origin").is_none());
    assert_eq!(deployment.namespace(), "shop");
}

#[test]
fn online_boutique_renders() {
    let Some(tree) = repository("microservices-demo") else { return };
    let (plain, _) = bundle(&tree, "kustomize/base");
    assert!(plain.objects().len() > 30, "{}", plain.objects().len());
    let (istio, warnings) = bundle(&tree, "istio-manifests");
    assert_eq!(istio.objects().len(), 5);
    assert!(
        warnings.iter().any(|w| w.contains("VirtualService") && w.contains("namespaced")),
        "{warnings:?}"
    );
    for overlay in ["kustomize", "kubernetes-manifests"] {
        bundle(&tree, overlay);
    }
}

#[test]
fn an_overlay_of_everything_renders_or_says_that_it_is_remote() {
    let Some(tree) = repository("microservices-demo") else { return };
    let overlays = ["memorystore", "service-mesh-istio", "spanner"];
    for overlay in overlays.map(|o| format!("kustomize/tests/{o}-with-all-components")) {
        match run(tree.clone(), &overlay, &options()) {
            Ok(rendered) => assert!(!rendered.objects.is_empty(), "{overlay}"),
            Err(error) => assert!(error.to_string().contains("which is remote"), "{overlay}: {error}"),
        }
    }
}
