//! `manifests/` is what `windlass install` would apply. After a change: `just generate`, or this test with
//! `UPDATE_MANIFESTS=1`.

use serde_json::Value;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use windlass::api::crds;
use windlass::cli::install::documents;
use windlass::installation::Installation;
use windlass::render::yaml::{Keep, Limits, parse};

const HEADER: &str = "# Generated from Rust by `just generate`; do not edit.\n";

fn wanted() -> Vec<(PathBuf, String, Vec<Value>)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("manifests");
    let mut files = vec![(root.join("install.yaml"), Installation::default().objects())];
    for crd in crds() {
        let name = crd["metadata"]["name"].as_str().unwrap();
        files.push((root.join("crds").join(format!("{name}.yaml")), vec![crd]));
    }
    files
        .into_iter()
        .map(|(path, objects)| (path, format!("{HEADER}{}", documents(&objects).unwrap()), objects))
        .collect()
}

#[test]
fn what_is_committed_is_what_would_be_installed() {
    let update = std::env::var_os("UPDATE_MANIFESTS").is_some();
    for (path, text, _) in wanted() {
        if update {
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, &text).unwrap();
        }
        let committed = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(committed == text, "{} is stale; run `just generate` and commit the result", path.display());
    }
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("manifests/crds");
    let there: BTreeSet<PathBuf> = std::fs::read_dir(directory).unwrap().map(|e| e.unwrap().path()).collect();
    let known: BTreeSet<PathBuf> = wanted().into_iter().map(|(path, ..)| path).collect();
    let left: Vec<_> = there.difference(&known).collect();
    assert!(left.is_empty(), "not generated any more: {left:?}");
}

#[test]
fn kubectl_reads_from_the_files_what_was_meant() {
    for (path, text, objects) in wanted() {
        let read: Vec<Value> = parse(&text, Keep::Variables, &Limits::default())
            .unwrap_or_else(|e| panic!("{}: line {}: {}", path.display(), e.line, e.problem))
            .into_iter()
            .map(|document| document.value)
            .collect();
        assert_eq!(read.len(), objects.len());
        for (read, meant) in read.iter().zip(&objects) {
            let differences = windlass::core::diff::changes_between(meant, read);
            assert!(differences.is_empty(), "{}: {differences:?}", path.display());
        }
    }
}
