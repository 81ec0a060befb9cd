//! A directory of plain YAML and JSON, recursively.
//!
//! Hidden files and directories are left alone, and so are files that are known to be something else (a chart's
//! values, a compose file). What says that it is an object and is none, or says nothing, is an error: a
//! manifest that is silently not applied is worse. A subdirectory with a kustomization of its own is rendered by Kustomize,
//! since its files are meant to be read through it.

use super::error::{LinkProblem, RenderError};
use super::files::{Files, is_manifest_name};
use super::yaml::{Keep, Marks};
use super::{Draft, kustomize};
use crate::core::manifest::ManifestError;
use crate::core::tree::{EntryKind, Origin, join};
use serde_json::Value;

/// What a directory of plain YAML holds.
#[derive(Debug, Default)]
pub(super) struct Plain {
    /// The documents that are objects.
    pub drafts: Vec<Draft>,
    /// Subdirectories that Kustomize renders.
    pub kustomizations: Vec<String>,
    /// Files that were left out.
    pub skipped: Vec<String>,
}

/// Reads a directory. With `nested` false, subdirectories with a kustomization are read like others.
pub(super) fn read(files: &Files<'_>, dir: &str, nested: bool) -> Result<Plain, RenderError> {
    let mut plain = Plain::default();
    let mut count = 0;
    walk(files, dir, &mut Visit { nested, count: &mut count, stack: Vec::new() }, &mut |file| {
        match file {
            Item::File { shown, real } => read_file(files, &shown, &real, &mut plain)?,
            Item::Kustomization(dir) => plain.kustomizations.push(dir),
        }
        Ok(())
    })?;
    Ok(plain)
}

/// What a walk comes upon.
pub(super) enum Item {
    /// A file that can hold manifests.
    File {
        /// Path as it is walked.
        shown: String,
        /// Path without links.
        real: String,
    },
    /// A subdirectory with a kustomization.
    Kustomization(String),
}

struct Visit<'c> {
    nested: bool,
    count: &'c mut u64,
    stack: Vec<String>,
}

fn walk(
    files: &Files<'_>,
    dir: &str,
    visit: &mut Visit<'_>,
    then: &mut dyn FnMut(Item) -> Result<(), RenderError>,
) -> Result<(), RenderError> {
    let Some(real) = files.find(dir)? else { return Err(RenderError::NoSuchDirectory(dir.into())) };
    if visit.stack.contains(&real.path) {
        let target = real.path;
        return Err(RenderError::Link { path: dir.into(), target, problem: LinkProblem::Cycle });
    }
    let entries = files.tree.entries(&real.path)?;
    if entries.iter().any(|e| e.name == "Chart.yaml" && e.kind == EntryKind::File) {
        return Err(RenderError::Chart(dir.into()));
    }
    if visit.nested && !visit.stack.is_empty() && kustomize::is_kustomization(&entries) {
        return then(Item::Kustomization(dir.into()));
    }
    visit.stack.push(real.path.clone());
    for entry in entries {
        if entry.name.starts_with('.') {
            continue;
        }
        *visit.count += 1;
        if *visit.count > files.limits.files {
            return Err(RenderError::TooMuch { path: dir.into(), what: "files", limit: files.limits.files });
        }
        let shown = join(dir, &entry.name);
        let mut at = join(&real.path, &entry.name);
        let mut kind = entry.kind;
        if kind == EntryKind::Symlink {
            let Some(found) = files.find(&at)? else { continue };
            (at, kind) = (found.path, found.kind);
        }
        match kind {
            EntryKind::File if is_manifest_name(&entry.name) => then(Item::File { shown, real: at })?,
            EntryKind::Directory => walk(files, &shown, visit, then)?,
            EntryKind::Submodule => return Err(RenderError::Submodule(shown)),
            EntryKind::File | EntryKind::Symlink => {}
        }
    }
    visit.stack.pop();
    Ok(())
}

/// What a file is by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    /// It holds manifests.
    Manifests,
    /// It may hold settings, which are no manifests.
    Settings,
    /// Something else's file.
    Foreign,
}

/// Names of files that people keep beside manifests.
fn role(name: &str) -> Role {
    let stem = name.trim_end_matches(".yaml").trim_end_matches(".yml").trim_end_matches(".json");
    let foreign = [
        "windlass",
        "kustomization",
        "Chart",
        "skaffold",
        "compose",
        "docker-compose",
        "mkdocs",
        "Taskfile",
        "cloudbuild",
        "package",
        "package-lock",
        "tsconfig",
        "renovate",
    ];
    let settings = stem.split(['-', '.', '_']).any(|part| part == "values");
    if foreign.contains(&stem) || stem.starts_with("docker-compose.") || stem.starts_with("compose.") {
        Role::Foreign
    } else if settings {
        Role::Settings
    } else {
        Role::Manifests
    }
}

fn read_file(files: &Files<'_>, shown: &str, real: &str, plain: &mut Plain) -> Result<(), RenderError> {
    let name = shown.rsplit('/').next().unwrap_or(shown);
    let role = role(name);
    if role == Role::Foreign {
        plain.skipped.push(shown.into());
        return Ok(());
    }
    let bytes = files.read(real, shown)?;
    let before = plain.drafts.len();
    for document in files.documents(&bytes, shown, Keep::Variables)? {
        let origin = Origin { file: shown.into(), line: document.line };
        let has = |field: &str| document.value.get(field).is_some();
        if document.value.is_null() || is_kustomize_config(&document.value) {
            continue;
        }
        if document.value.is_object() && !has("apiVersion") && !has("kind") {
            if role == Role::Settings {
                continue;
            }
            return Err(RenderError::NotAManifest(origin));
        }
        flatten(
            Draft { value: document.value, marks: document.strings, origin },
            &document.item_lines,
            &mut plain.drafts,
        )?;
        if plain.drafts.len() as u64 > files.limits.objects {
            let limit = files.limits.objects;
            return Err(RenderError::TooMuch { path: shown.into(), what: "objects", limit });
        }
    }
    if plain.drafts.len() == before {
        plain.skipped.push(shown.into());
    }
    Ok(())
}

fn is_kustomize_config(value: &Value) -> bool {
    value["apiVersion"].as_str().is_some_and(|v| v.starts_with("kustomize.config.k8s.io/"))
}

/// Takes lists (`List`, `ConfigMapList` and so on) apart, lists of lists included.
pub(super) fn flatten(
    mut draft: Draft,
    item_lines: &[usize],
    into: &mut Vec<Draft>,
) -> Result<(), RenderError> {
    let is_list = draft.value["kind"].as_str().is_some_and(|kind| kind.ends_with("List"));
    let Some(Value::Array(items)) = draft.value.get_mut("items").filter(|_| is_list) else {
        into.push(draft);
        return Ok(());
    };
    let items = std::mem::take(items);
    let mut marks = draft.marks.take("items");
    for (i, value) in items.into_iter().enumerate() {
        let line = item_lines.get(i).copied().unwrap_or(draft.origin.line);
        let origin = Origin { file: draft.origin.file.clone(), line };
        if !value.is_object() {
            let error = ManifestError::NotAnObject("not a mapping");
            return Err(RenderError::Manifest { origin, error });
        }
        let marks: Marks = marks.take(&i.to_string());
        flatten(Draft { value, marks, origin }, &[], into)?;
    }
    Ok(())
}
