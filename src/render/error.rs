//! Why a directory does not become objects. Every message says which file, and where it can the line.

use super::yaml::YamlError;
use crate::core::manifest::ManifestError;
use crate::core::tree::{Origin, TreeError};

/// Why a directory does not become objects.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RenderError {
    /// The directory is not in the tree.
    #[error("{0}: no such directory in the repository")]
    NoSuchDirectory(String),
    /// A file was given where a directory is wanted.
    #[error("{0}: is a file; give the directory that it stands in")]
    NotADirectory(String),
    /// A path leads out of the repository.
    #[error("{0}: leads out of the repository")]
    PathOutside(String),
    /// Nothing in the directory is a manifest.
    #[error("{path}: holds no manifest{}", left_out(.skipped))]
    Empty {
        /// The directory.
        path: String,
        /// Files that were looked at and are no manifests.
        skipped: Vec<String>,
    },
    /// The tree could not be read.
    #[error(transparent)]
    Tree(#[from] TreeError),
    /// A symbolic link cannot be followed.
    #[error("{path}: the link to \"{target}\" {problem}")]
    Link {
        /// Path of the link.
        path: String,
        /// Where it points to.
        target: String,
        /// What is wrong with it.
        problem: LinkProblem,
    },
    /// A submodule where manifests are wanted.
    #[error(
        "{0}: is a Git submodule, whose files are not in this repository; make it a Repository of its own"
    )]
    Submodule(String),
    /// A file that stands for one in Git LFS.
    #[error("{0}:1: is a pointer of Git LFS, not the file; keep manifests out of LFS (.gitattributes)")]
    Lfs(String),
    /// A file is not UTF-8.
    #[error("{file}:{line}: is not UTF-8 text; save the file as UTF-8")]
    NotUtf8 {
        /// The file.
        file: String,
        /// Line of the first byte that is not.
        line: usize,
    },
    /// A file is no YAML that is understood.
    #[error("{file}:{}:{}: {}", error.line, error.column, error.problem)]
    Yaml {
        /// The file.
        file: String,
        /// Where and why.
        error: YamlError,
    },
    /// A document is no manifest, though it says so or stands where one should.
    #[error("{origin}: {error}")]
    Manifest {
        /// Where it stands.
        origin: Origin,
        /// What is missing.
        error: ManifestError,
    },
    /// A document with neither `apiVersion` nor `kind`.
    #[error(
        "{0}: has neither apiVersion nor kind, so it is no manifest; move the file out of the directory, start its \
         name with a dot, or list the manifests in a kustomization.yaml"
    )]
    NotAManifest(Origin),
    /// More than is reasonable for one Delivery.
    #[error("{path}: {what} above the limit of {limit}; split the directory")]
    TooMuch {
        /// The directory, or the file that went over it.
        path: String,
        /// What is above it.
        what: &'static str,
        /// The limit.
        limit: u64,
    },
    /// A Helm chart.
    #[error(
        "{0}: is a Helm chart, and charts are not rendered; commit the output of `helm template` instead"
    )]
    Chart(String),
    /// Kustomize was asked for and there is no kustomization.
    #[error("{0}: holds no kustomization.yaml, and the Delivery asks for Kustomize")]
    NoKustomization(String),
    /// The kustomize binary is not there.
    #[error(
        "{path}: needs kustomize, and \"{binary}\" does not start: {message}; install it, or name it with --kustomize or WINDLASS_KUSTOMIZE"
    )]
    KustomizeMissing {
        /// The directory.
        path: String,
        /// The binary.
        binary: String,
        /// What the system said.
        message: String,
    },
    /// A kustomization names something that it must not or cannot have.
    #[error("{origin}: {field} names \"{reference}\", {problem}")]
    Reference {
        /// Where the reference stands.
        origin: Origin,
        /// The field of the kustomization.
        field: String,
        /// What it names.
        reference: String,
        /// What is wrong with it.
        problem: ReferenceProblem,
    },
    /// A kustomization uses what is switched off.
    #[error("{origin}: {field} is not supported: {reason}")]
    KustomizeFeature {
        /// Where it stands.
        origin: Origin,
        /// The field.
        field: String,
        /// Why, and what to do instead.
        reason: &'static str,
    },
    /// Kustomize refused.
    #[error("{path}: kustomize: {message}")]
    Kustomize {
        /// Path of the kustomization.
        path: String,
        /// What it said, with paths as they stand in the repository.
        message: String,
    },
    /// Kustomize took too long.
    #[error("{path}: kustomize did not finish within {seconds} s and was stopped")]
    KustomizeTimeout {
        /// Path of the kustomization.
        path: String,
        /// The limit.
        seconds: u64,
    },
    /// A variable has no value.
    #[error(
        "{origin}: {object}: {field} names ${{{name}}}, which has no value; set it under substitute, give it a \
         default (${{{name}:-default}}), or write $${{{name}}} for the text itself"
    )]
    Unset {
        /// Where the field or its object stands.
        origin: Origin,
        /// The object.
        object: String,
        /// Path of the field.
        field: String,
        /// Name of the variable.
        name: String,
    },
    /// A `${` that is no variable as substitution knows them.
    #[error(
        "{origin}: {object}: {field} holds a ${{{name} that is neither ${{{name}}} nor ${{{name}:-default}}; write \
         $${{ for the text itself, or annotate the object with {}: disabled",
        crate::api::names::SUBSTITUTE
    )]
    Malformed {
        /// Where the field or its object stands.
        origin: Origin,
        /// The object.
        object: String,
        /// Path of the field.
        field: String,
        /// The name after `${`.
        name: String,
    },
    /// The private directory could not be written.
    #[error("{path}: cannot prepare the rendering: {message}")]
    Workspace {
        /// The directory.
        path: String,
        /// What the system said.
        message: String,
    },
}

/// What is wrong with a symbolic link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LinkProblem {
    /// It is absolute, or has more `..` than there are directories.
    #[error("leads out of the repository")]
    Outside,
    /// Nothing stands there.
    #[error("points to nothing")]
    Dangling,
    /// It leads back to itself or to a directory that it stands in.
    #[error("goes round in circles")]
    Cycle,
}

/// What is wrong with a reference in a kustomization.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReferenceProblem {
    /// A URL or a Git reference.
    #[error("which is remote: rendering has no network; commit a copy, or make it a Delivery of its own")]
    Remote,
    /// Above the root of the repository, or absolute.
    #[error("which leads out of the repository")]
    Outside,
    /// A file above the kustomization's own directory.
    #[error(
        "a file outside of the kustomization's directory; kustomize reads files only below it (a directory with a kustomization.yaml may be elsewhere)"
    )]
    AboveKustomization,
    /// Nothing stands there.
    #[error("which does not exist")]
    Missing,
    /// A directory without kustomization.
    #[error("a directory without a kustomization.yaml")]
    NotAKustomization,
}

fn left_out(skipped: &[String]) -> String {
    match skipped {
        [] => " (files that end in .yaml, .yml or .json)".into(),
        files => format!("; left out: {}", files.join(", ")),
    }
}
