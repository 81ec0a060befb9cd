//! What a kustomization reads: followed from file to file before the binary runs.
//!
//! So that only what is named gets into the private directory, that nothing remote is ever asked for, and that a mistake is
//! told with the line of the reference. Each reference is one of: another directory with a kustomization (anywhere in the
//! repository), or a file at or below the kustomization's own directory (Kustomize's default restriction, kept since the
//! alternative would let it read any file of the machine).

use crate::core::tree::{EntryKind, Origin, join};
use crate::render::error::{ReferenceProblem, RenderError};
use crate::render::files::{Files, is_manifest_name, normalise};
use crate::render::yaml::{Document, Keep, Marks};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// Directories that one kustomization may lead to.
const MAX_ROOTS: usize = 500;

/// What a kustomization reads.
#[derive(Debug, Default)]
pub(in crate::render) struct Closure {
    /// The directories with kustomizations, and the path of each one's file.
    pub roots: BTreeMap<String, String>,
    /// Content of the files by path, the kustomizations included; links are replaced by what they point to.
    pub files: BTreeMap<String, Vec<u8>>,
    /// Directories that are named through a link, and where they really are.
    pub links: BTreeMap<String, String>,
    /// The documents of resources and patches.
    pub sources: Vec<(String, Vec<Document>)>,
    /// Directories whose every file may be read, since plugins are configured there.
    whole: BTreeSet<String>,
}

struct Reader<'f, 't> {
    files: &'f Files<'t>,
    contents: bool,
    closure: Closure,
}

/// A place in a kustomization.
struct Place<'k> {
    /// Directory of the kustomization.
    dir: &'k str,
    /// Its file.
    file: &'k str,
    /// Line of the reference.
    line: usize,
    /// Field, such as `resources`.
    field: &'k str,
}

/// What a path in a kustomization is for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Use {
    /// A file of objects or a directory with a kustomization.
    Resource,
    /// A directory with a kustomization.
    Base,
    /// Configuration of plugins: a file, a directory, or YAML in place.
    Plugin,
    /// A patch: a file, or YAML in place.
    Patch,
    /// Any other file.
    Data,
}

/// Follows the kustomization of a directory, given by its path without links. Without `contents` only kustomizations are read.
pub(in crate::render) fn follow(
    files: &Files<'_>,
    dir: &str,
    contents: bool,
) -> Result<Closure, RenderError> {
    let mut reader = Reader { files, contents, closure: Closure::default() };
    reader.visit(dir)?;
    if contents {
        for dir in std::mem::take(&mut reader.closure.whole) {
            reader.take_all(&dir, 0)?;
        }
    }
    Ok(reader.closure)
}

impl Reader<'_, '_> {
    fn visit(&mut self, dir: &str) -> Result<(), RenderError> {
        if self.closure.roots.contains_key(dir) {
            return Ok(());
        }
        if self.closure.roots.len() >= MAX_ROOTS {
            let limit = MAX_ROOTS as u64;
            return Err(RenderError::TooMuch { path: dir.into(), what: "kustomizations", limit });
        }
        let no = || RenderError::NoKustomization(dir.to_owned());
        let found = self.files.find(dir)?.ok_or_else(no)?;
        let entries = self.files.tree.entries(&found.path)?;
        let name = super::NAMES.iter().find(|n| entries.iter().any(|e| e.name == **n)).ok_or_else(no)?;
        let file = join(dir, name);
        let real = self.files.find(&join(&found.path, name))?.ok_or_else(no)?;
        let bytes = self.files.read(&real.path, &file)?;
        self.closure.roots.insert(dir.to_owned(), file.clone());
        let documents = self.files.documents(&bytes, &file, Keep::All)?;
        self.closure.files.insert(file.clone(), bytes);
        for document in &documents {
            self.kustomization(dir, &file, document)?;
        }
        Ok(())
    }

    fn kustomization(&mut self, dir: &str, file: &str, document: &Document) -> Result<(), RenderError> {
        let Value::Object(fields) = &document.value else { return Ok(()) };
        for (field, value) in fields {
            let marks = document.strings.below(field);
            let at = |line: usize, what: &str| Place {
                dir,
                file,
                line: if line == 0 { document.line } else { line },
                field: known_field(what),
            };
            let usage = match field.as_str() {
                "resources" => Use::Resource,
                "bases" | "components" => Use::Base,
                "generators" | "transformers" | "validators" => Use::Plugin,
                "patchesStrategicMerge" => Use::Patch,
                "crds" | "configurations" => Use::Data,
                "helmCharts" | "helmChartInflationGenerator" => {
                    let line = first_line(marks).unwrap_or(document.line);
                    let origin = Origin { file: file.into(), line };
                    let reason = "charts are not rendered; commit the output of `helm template` instead";
                    return Err(RenderError::KustomizeFeature { origin, field: field.clone(), reason });
                }
                "openapi" => {
                    self.path_of(value, marks, Use::Data, &at)?;
                    continue;
                }
                "patches" | "patchesJson6902" | "replacements" => {
                    for (i, item) in list(value) {
                        let marks = marks.and_then(|m| m.below(&i));
                        let usage = if field == "replacements" { Use::Data } else { Use::Patch };
                        self.path_of(item, marks, usage, &at)?;
                        if let Some(text) = item["patch"].as_str() {
                            self.inline(text, file);
                        }
                    }
                    continue;
                }
                "configMapGenerator" | "secretGenerator" => {
                    for (i, item) in list(value) {
                        let marks = marks.and_then(|m| m.below(&i));
                        self.generator(item, marks, &at)?;
                    }
                    continue;
                }
                _ => continue,
            };
            for (i, item) in list(value) {
                let Some(text) = item.as_str() else { continue };
                let line = marks.and_then(|m| m.below(&i)).and_then(Marks::own).map_or(0, |m| m.line);
                self.reference(text, usage, &at(line, field))?;
            }
        }
        Ok(())
    }

    fn path_of<'k>(
        &mut self,
        value: &Value,
        marks: Option<&Marks>,
        usage: Use,
        at: &impl Fn(usize, &str) -> Place<'k>,
    ) -> Result<(), RenderError> {
        let Some(path) = value["path"].as_str() else { return Ok(()) };
        let line = marks.and_then(|m| m.below("path")).and_then(Marks::own).map_or(0, |m| m.line);
        self.reference(path, usage, &at(line, "path"))
    }

    fn generator<'k>(
        &mut self,
        value: &Value,
        marks: Option<&Marks>,
        at: &impl Fn(usize, &str) -> Place<'k>,
    ) -> Result<(), RenderError> {
        for field in ["files", "envs", "env"] {
            let marks = marks.and_then(|m| m.below(field));
            if let Some(path) = value[field].as_str() {
                let line = marks.and_then(Marks::own).map_or(0, |m| m.line);
                self.reference(path, Use::Data, &at(line, field))?;
            }
            for (i, item) in list(&value[field]) {
                let Some(text) = item.as_str() else { continue };
                let line = marks.and_then(|m| m.below(&i)).and_then(Marks::own).map_or(0, |m| m.line);
                let path =
                    if field == "files" { text.split_once('=').map_or(text, |(_, p)| p) } else { text };
                self.reference(path, Use::Data, &at(line, field))?;
            }
        }
        Ok(())
    }

    fn reference(&mut self, text: &str, usage: Use, place: &Place<'_>) -> Result<(), RenderError> {
        let origin = Origin { file: place.file.into(), line: place.line };
        if matches!(usage, Use::Plugin | Use::Patch) && is_inline(text) {
            if usage == Use::Plugin {
                self.plugin(text.as_bytes(), &origin)?;
            }
            self.inline(text, place.file);
            return Ok(());
        }
        let wrong = |problem| RenderError::Reference {
            origin: origin.clone(),
            field: place.field.to_owned(),
            reference: text.chars().take(200).collect(),
            problem,
        };
        if is_url(text) {
            return Err(wrong(ReferenceProblem::Remote));
        }
        let path = normalise(place.dir, text).ok_or_else(|| wrong(ReferenceProblem::Outside))?;
        let Some(found) = self.files.find(&path)? else {
            let problem =
                if looks_remote(text) { ReferenceProblem::Remote } else { ReferenceProblem::Missing };
            return Err(wrong(problem));
        };
        match (found.kind, usage) {
            (EntryKind::Submodule, _) => Err(RenderError::Submodule(path)),
            (EntryKind::Directory, Use::Resource | Use::Base | Use::Plugin) => {
                if usage == Use::Plugin {
                    self.closure.whole.insert(found.path.clone());
                }
                if found.path != path {
                    self.closure.links.insert(path.clone(), found.path.clone());
                }
                // Kustomize too resolves the links of a directory before what stands in it.
                match self.visit(&found.path) {
                    Err(RenderError::NoKustomization(p)) if p == found.path => {
                        Err(wrong(ReferenceProblem::NotAKustomization))
                    }
                    other => other,
                }
            }
            (EntryKind::Directory, _) => Err(wrong(ReferenceProblem::Missing)),
            (EntryKind::File | EntryKind::Symlink, _) => {
                let within = place.dir.is_empty() || path.starts_with(&format!("{}/", place.dir));
                if !within {
                    return Err(wrong(ReferenceProblem::AboveKustomization));
                }
                if usage == Use::Plugin {
                    self.closure.whole.insert(place.dir.to_owned());
                }
                if self.contents || usage == Use::Plugin {
                    self.take(&path, &found.path, usage)?;
                }
                Ok(())
            }
        }
    }

    fn take(&mut self, path: &str, real: &str, usage: Use) -> Result<(), RenderError> {
        if self.closure.files.contains_key(path) {
            return Ok(());
        }
        let bytes = self.files.read(real, path)?;
        if usage == Use::Plugin {
            self.plugin(&bytes, &Origin { file: path.into(), line: 0 })?;
        }
        if usage != Use::Data && is_manifest_name(path) {
            // Read here too, so that a mistake is told by its line, and a bomb does not reach the binary.
            let documents = self.files.documents(&bytes, path, Keep::Variables)?;
            self.closure.sources.push((path.to_owned(), documents));
        }
        self.closure.files.insert(path.to_owned(), bytes);
        Ok(())
    }

    /// Every file below a directory, except for what is too large or leads out: whoever needs it is told by the binary.
    fn take_all(&mut self, dir: &str, depth: usize) -> Result<(), RenderError> {
        let Some(found) = self.files.find(dir)? else { return Ok(()) };
        if depth > 32 {
            return Ok(());
        }
        for entry in self.files.tree.entries(&found.path)? {
            let path = join(dir, &entry.name);
            let Ok(Some(found)) = self.files.find(&path) else { continue };
            match found.kind {
                EntryKind::Directory => self.take_all(&path, depth + 1)?,
                EntryKind::File if !self.closure.files.contains_key(&path) => {
                    if let Ok(bytes) = self.files.read(&found.path, &path) {
                        self.closure.files.insert(path, bytes);
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Notes how strings are written in YAML that stands within YAML.
    fn inline(&mut self, text: &str, file: &str) {
        if let Ok(documents) = self.files.documents(text.as_bytes(), file, Keep::Variables) {
            self.closure.sources.push((file.to_owned(), documents));
        }
    }

    /// Plugins that are part of Kustomize read files too: none of them may be remote.
    fn plugin(&self, bytes: &[u8], origin: &Origin) -> Result<(), RenderError> {
        for document in self.files.documents(bytes, &origin.file, Keep::All)? {
            let at = |line| Origin { file: origin.file.clone(), line };
            if document.value["kind"] == "HelmChartInflationGenerator" {
                return Err(RenderError::KustomizeFeature {
                    origin: at(document.line),
                    field: "HelmChartInflationGenerator".into(),
                    reason: "charts are not rendered; commit the output of `helm template` instead",
                });
            }
            if let Some((field, text, line)) = remote_path(&document.value, Some(&document.strings), false) {
                return Err(RenderError::Reference {
                    origin: at(line.unwrap_or(document.line)),
                    field,
                    reference: text,
                    problem: ReferenceProblem::Remote,
                });
            }
        }
        Ok(())
    }
}

/// A URL at or below a field that names files.
fn remote_path(value: &Value, marks: Option<&Marks>, named: bool) -> Option<(String, String, Option<usize>)> {
    match value {
        Value::String(text) if named => {
            let path = text.split_once('=').map_or(text.as_str(), |(_, p)| p);
            (is_url(path) || is_url(text))
                .then(|| ("path".into(), text.clone(), marks.and_then(Marks::own).map(|m| m.line)))
        }
        Value::Array(items) => items
            .iter()
            .enumerate()
            .find_map(|(i, item)| remote_path(item, marks.and_then(|m| m.below(&i.to_string())), named)),
        Value::Object(fields) => fields.iter().find_map(|(key, item)| {
            let names_files = ["path", "paths", "files", "envs", "env", "resources"].contains(&key.as_str());
            remote_path(item, marks.and_then(|m| m.below(key)), names_files)
                .map(|(_, text, line)| (key.clone(), text, line))
        }),
        _ => None,
    }
}

fn list(value: &Value) -> impl Iterator<Item = (String, &Value)> {
    value.as_array().into_iter().flatten().enumerate().map(|(i, item)| (i.to_string(), item))
}

fn first_line(marks: Option<&Marks>) -> Option<usize> {
    let marks = marks?;
    marks.own().map(|m| m.line).or_else(|| marks.branches().filter_map(|(_, m)| first_line(Some(m))).min())
}

/// The names of fields are few and known, so that places need not own them.
fn known_field(field: &str) -> &'static str {
    const FIELDS: [&str; 13] = [
        "resources",
        "bases",
        "components",
        "generators",
        "transformers",
        "validators",
        "patchesStrategicMerge",
        "crds",
        "configurations",
        "path",
        "files",
        "envs",
        "env",
    ];
    FIELDS.into_iter().find(|f| *f == field).unwrap_or("it")
}

fn is_inline(text: &str) -> bool {
    text.contains('\n') || text.contains(": ") || text.trim_start().starts_with(['{', '['])
}

/// What no path can be mistaken for.
fn is_url(text: &str) -> bool {
    let lower = text.trim().to_ascii_lowercase();
    let scp = lower.split_once(':').is_some_and(|(host, _)| host.contains('@') && !host.contains('/'));
    lower.contains("://")
        || lower.starts_with("git::")
        || lower.starts_with("http:")
        || lower.starts_with("https:")
        || scp
}

/// What is remote unless a directory of that name is there: `github.com/acme/base?ref=v1`.
fn looks_remote(text: &str) -> bool {
    let (first, rest) = text.split_once('/').unwrap_or((text, ""));
    let host = first.contains('.') && !first.starts_with('.') && !rest.is_empty();
    host || text.contains("?ref=") || text.contains("?version=") || text.contains(".git//")
}
