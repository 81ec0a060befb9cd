//! A directory of a tree becomes objects: plain YAML or Kustomize, then substitution, then namespaces.
//!
//! An edge: it reads trees and starts one binary, and knows of nothing but [`crate::core`]. What a directory holds is
//! found by looking (a `kustomization.yaml`, else plain YAML) unless the options say it.

pub mod error;
pub mod yaml;

mod files;
mod inputs;
mod kustomize;
mod namespace;
mod plain;
mod substitute;

pub use error::RenderError;
pub use inputs::inputs;
pub use kustomize::find_binary as find_kustomize;
pub use namespace::{Scope, Scopes, builtin_scopes};
pub use substitute::Substitutions;

use crate::core::manifest::Manifest;
use crate::core::tree::{EntryKind, Origin, Tree};
use files::Files;
use serde_json::Value;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// How a directory is rendered.
#[derive(Clone, Debug)]
pub struct Options {
    /// Whether Kustomize renders it; `None` finds out by looking for a kustomization.
    pub kustomize: Option<bool>,
    /// The kustomize binary: see [`find_kustomize`].
    pub kustomize_binary: PathBuf,
    /// The namespace of namespaced objects that name none.
    pub target_namespace: Option<String>,
    /// How long one run of the binary may take.
    pub timeout: Duration,
    /// Values of `${NAME}`; without, nothing is substituted.
    pub substitute: Option<Substitutions>,
    /// Bounds of what is read.
    pub limits: Limits,
}

impl Default for Options {
    /// Found by looking, with one minute for Kustomize, no namespace and no substitution.
    fn default() -> Self {
        Options {
            kustomize: None,
            kustomize_binary: find_kustomize(None),
            target_namespace: None,
            timeout: Duration::from_secs(60),
            substitute: None,
            limits: Limits::default(),
        }
    }
}

/// Bounds of what one directory is rendered from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of one file.
    pub file_bytes: u64,
    /// Bytes of all files together, and of the output of Kustomize.
    pub total_bytes: u64,
    /// Files and directories that are looked at.
    pub files: u64,
    /// Objects that come out.
    pub objects: u64,
    /// Nesting and aliases of one YAML text.
    pub yaml: yaml::Limits,
}

impl Default for Limits {
    /// 8 MiB a file, 64 MiB together, 20,000 files, 10,000 objects. (An object that the API server takes has 1.5 MiB
    /// at most; the largest files people keep are all CRDs of one operator.)
    fn default() -> Self {
        Limits {
            file_bytes: 8 << 20,
            total_bytes: 64 << 20,
            files: 20_000,
            objects: 10_000,
            yaml: yaml::Limits::default(),
        }
    }
}

/// What a directory renders to.
#[derive(Clone, Debug, PartialEq)]
pub struct Rendered {
    /// The objects, with the file and line that each came from.
    pub objects: Vec<Manifest>,
    /// What the reader should know, each with file and line.
    pub warnings: Vec<String>,
}

/// A document on its way to an object.
#[derive(Clone, Debug)]
pub(crate) struct Draft {
    value: Value,
    /// How its strings with variables are written.
    marks: yaml::Marks,
    origin: Origin,
}

/// Renders a directory of a tree (`""` is its root).
///
/// Errors name file and line, and never hold the value of a variable.
pub async fn render(
    tree: Arc<dyn Tree>,
    path: &str,
    options: &Options,
    scopes: &dyn Scopes,
) -> Result<Rendered, RenderError> {
    let path = files::normalise("", path).ok_or_else(|| RenderError::PathOutside(path.into()))?;
    let (mut drafts, prepared, skipped) = in_tree(tree, {
        let (path, limits, kustomize) = (path.clone(), options.limits.clone(), options.kustomize);
        move |tree| read(tree, &path, kustomize, &limits)
    })
    .await
    .map_err(interrupted)??;
    for one in prepared {
        drafts.extend(kustomize::build(one, options).await?);
    }
    if drafts.is_empty() {
        return Err(RenderError::Empty { path, skipped });
    }
    let mut objects = Vec::with_capacity(drafts.len());
    for mut draft in drafts {
        if let Some(substitutions) = &options.substitute {
            substitute::apply(&mut draft, substitutions)?;
        }
        let Draft { value, origin, .. } = draft;
        let object = Manifest::new(value, origin.clone());
        objects.push(object.map_err(|error| RenderError::Manifest { origin, error })?);
    }
    let warnings = namespace::assign(&mut objects, options.target_namespace.as_deref(), scopes);
    Ok(Rendered { objects, warnings })
}

/// Reads a tree, on a thread of its own where that may take a while. Errors: that thread ended early.
pub async fn in_tree<T: Send + 'static>(
    tree: Arc<dyn Tree>,
    read: impl FnOnce(&dyn Tree) -> T + Send + 'static,
) -> Result<T, tokio::task::JoinError> {
    if tree.blocks() {
        tokio::task::spawn_blocking(move || read(tree.as_ref())).await
    } else {
        Ok(read(tree.as_ref()))
    }
}

type Parts = (Vec<Draft>, Vec<kustomize::Prepared>, Vec<String>);

/// Reads the files of a directory, and prepares the kustomizations in it.
fn read(tree: &dyn Tree, path: &str, kustomize: Option<bool>, limits: &Limits) -> Result<Parts, RenderError> {
    let files = Files::new(tree, limits);
    let found = files.find(path)?.ok_or_else(|| RenderError::NoSuchDirectory(path.into()))?;
    match found.kind {
        EntryKind::Directory => {}
        EntryKind::Submodule => return Err(RenderError::Submodule(path.into())),
        EntryKind::File | EntryKind::Symlink => return Err(RenderError::NotADirectory(path.into())),
    }
    let by_kustomize = match kustomize {
        Some(choice) => choice,
        None => kustomize::is_kustomization(&tree.entries(&found.path)?),
    };
    if by_kustomize {
        return Ok((Vec::new(), vec![kustomize::prepare(&files, path)?], Vec::new()));
    }
    let plain = plain::read(&files, path, kustomize.is_none())?;
    let prepared = plain.kustomizations.iter().map(|dir| kustomize::prepare(&files, dir));
    Ok((plain.drafts, prepared.collect::<Result<_, _>>()?, plain.skipped))
}

/// A thread that ended early: the runtime is being shut down, or a defect.
fn interrupted(error: tokio::task::JoinError) -> RenderError {
    RenderError::Workspace { path: String::new(), message: error.to_string() }
}

#[cfg(test)]
mod tests;
