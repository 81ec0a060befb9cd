//! What tests of rendering stand on: trees in memory, the real kustomize, a runtime for one call.
#![allow(dead_code)]

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, OnceLock};
use windlass::core::tree::memory::{MemTree, Node};
use windlass::render::{self, Options, RenderError, Rendered, builtin_scopes};

/// Options with the real kustomize and the namespace `shop`.
pub fn options() -> Options {
    Options {
        kustomize_binary: kustomize().to_owned(),
        target_namespace: Some("shop".into()),
        // What must succeed does so on a busy machine, too.
        timeout: std::time::Duration::from_secs(600),
        ..Options::default()
    }
}

/// Renders a directory of a tree.
pub fn run(tree: MemTree, path: &str, options: &Options) -> Result<Rendered, RenderError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(render::render(Arc::new(tree), path, options, &builtin_scopes()))
}

/// The kustomize that `WINDLASS_KUSTOMIZE` names, else the one beside the test cluster, built if need be.
pub fn kustomize() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| {
        if let Some(path) = std::env::var_os("WINDLASS_KUSTOMIZE") {
            return path.into();
        }
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
        let binary = target.join("cluster/kustomize");
        if !binary.exists() {
            let script = root.join("tests/cluster/build.sh");
            let status = Command::new(script).arg(target.join("cluster")).stdin(Stdio::null()).status();
            assert!(status.unwrap().success(), "kustomize cannot be built");
        }
        binary
    })
}

/// A directory of this machine as a tree, links as links.
pub fn load(root: &Path) -> MemTree {
    fn walk(root: &Path, dir: &Path, mut tree: MemTree) -> MemTree {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
            let kind = std::fs::symlink_metadata(&path).unwrap().file_type();
            tree = if kind.is_dir() {
                walk(root, &path, tree)
            } else if kind.is_symlink() {
                let target = std::fs::read_link(&path).unwrap().to_str().unwrap().to_owned();
                tree.with(&name, Node::Symlink(target))
            } else {
                tree.with(&name, Node::File(std::fs::read(&path).unwrap()))
            };
        }
        tree
    }
    walk(root, root, MemTree::default())
}
