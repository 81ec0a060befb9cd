//! Kustomize, through its own binary: in a private directory with only the files that the kustomization names, without
//! network, plugins or a search path, and with limits of time and output.

pub(super) mod closure;
mod process;

use super::error::RenderError;
use super::files::Files;
use super::yaml::{Document, Keep, Marks, StringMark};
use super::{Draft, Options, plain};
use crate::core::tree::{Entry, EntryKind, Origin};
use closure::Closure;
use serde_json::Value;
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

pub use process::find_binary;

/// Names of a kustomization, in the order in which Kustomize looks for them.
pub(super) const NAMES: [&str; 3] = ["kustomization.yaml", "kustomization.yml", "Kustomization"];

const ORIGIN: &str = "config.kubernetes.io/origin";

/// Whether one of the entries is a kustomization.
pub(super) fn is_kustomization(entries: &[Entry]) -> bool {
    entries
        .iter()
        .any(|e| matches!(e.kind, EntryKind::File | EntryKind::Symlink) && NAMES.contains(&e.name.as_str()))
}

/// A kustomization written to a private directory, ready to be built.
pub(super) struct Prepared {
    dir: String,
    file: String,
    closure: Closure,
    /// Whether we asked for annotations that say where objects come from.
    with_origins: bool,
    workspace: tempfile::TempDir,
    root: PathBuf,
}

/// Reads what the kustomization of a directory names, and writes it to a private directory.
pub(super) fn prepare(files: &Files<'_>, dir: &str) -> Result<Prepared, RenderError> {
    let found = files.find(dir)?.ok_or_else(|| RenderError::NoSuchDirectory(dir.into()))?;
    let dir = found.path.as_str();
    let mut closure = closure::follow(files, dir, true)?;
    let file = closure.roots.get(dir).cloned().unwrap_or_else(|| dir.to_owned());
    let with_origins = ask_for_origins(files, &mut closure, &file);
    let failed =
        |error: std::io::Error| RenderError::Workspace { path: dir.into(), message: error.to_string() };
    let workspace = tempfile::Builder::new().prefix("windlass-render-").tempdir().map_err(failed)?;
    // Kustomize resolves links itself, and errors are to be told with the paths that it then uses.
    let root = workspace.path().canonicalize().map_err(failed)?;
    for (path, content) in &closure.files {
        let target = process::repository(&root).join(path);
        if let Some(parent) = target.parent() {
            std::fs::create_dir_all(parent).map_err(failed)?;
        }
        std::fs::write(target, content).map_err(failed)?;
    }
    for (path, target) in &closure.links {
        let link = below(&root, path);
        if let Some(parent) = link.parent() {
            std::fs::create_dir_all(parent).map_err(failed)?;
        }
        if !link.exists() {
            std::os::unix::fs::symlink(below(&root, target), link).map_err(failed)?;
        }
    }
    std::fs::create_dir_all(process::home(&root)).map_err(failed)?;
    Ok(Prepared { dir: dir.into(), file, closure, with_origins, workspace, root })
}

/// Adds `buildMetadata: [originAnnotations]` to the kustomization, unless it has a `buildMetadata` of its own or is
/// written in a way that nothing can be added to it.
fn ask_for_origins(files: &Files<'_>, closure: &mut Closure, file: &str) -> bool {
    let Some(bytes) = closure.files.get_mut(file) else { return false };
    let read = |bytes: &[u8]| -> Option<Value> {
        let documents = files.documents(bytes, file, Keep::Variables).ok()?;
        let [document] = documents.as_slice() else { return None };
        Some(document.value.clone())
    };
    let Some(Value::Object(mut wanted)) = read(bytes) else { return false };
    if wanted.contains_key("buildMetadata") {
        return false;
    }
    wanted.insert("buildMetadata".into(), serde_json::json!(["originAnnotations"]));
    let mut changed = bytes.clone();
    changed.extend_from_slice(b"\nbuildMetadata: [originAnnotations]\n");
    let understood = read(&changed) == Some(Value::Object(wanted));
    if understood {
        *bytes = changed;
    }
    understood
}

/// Builds a kustomization and reads what comes out.
pub(super) async fn build(prepared: Prepared, options: &Options) -> Result<Vec<Draft>, RenderError> {
    let output = process::run(&prepared.root, &prepared.dir, &prepared.file, options).await?;
    tokio::task::spawn_blocking({
        let limits = options.limits.clone();
        move || {
            let drafts = collect(&prepared, &output, &limits);
            // The private directory goes here, off the threads that must not block.
            drop(prepared.workspace);
            drafts
        }
    })
    .await
    .map_err(super::interrupted)?
}

fn collect(prepared: &Prepared, output: &[u8], limits: &super::Limits) -> Result<Vec<Draft>, RenderError> {
    let refused = |message: String| RenderError::Kustomize { path: prepared.file.clone(), message };
    let text = std::str::from_utf8(output).map_err(|_| refused("its output is not UTF-8".into()))?;
    let documents = super::yaml::parse(text, Keep::Variables, &limits.yaml)
        .map_err(|error| refused(format!("its output cannot be read: {error}")))?;
    let lines = Lines::of(&prepared.closure);
    let styles = Styles::of(&prepared.closure);
    let mut drafts = Vec::with_capacity(documents.len());
    for mut document in documents {
        if document.value.is_null() {
            continue;
        }
        let note = if prepared.with_origins { take_origin(&mut document.value) } else { None };
        let (file, generated) = match &note {
            Some(note) => note.file(&prepared.dir),
            None => (None, false),
        };
        let origin = match file {
            Some(file) => Origin { line: lines.line(&file, &document.value), file },
            None => Origin { file: prepared.file.clone(), line: 0 },
        };
        styles.apply(&document.value, &mut document.strings, "", generated);
        let draft = Draft { value: document.value, marks: document.strings, origin };
        plain::flatten(draft, &[], &mut drafts)?;
        if drafts.len() as u64 > limits.objects {
            let (path, limit) = (prepared.file.clone(), limits.objects);
            return Err(RenderError::TooMuch { path, what: "objects", limit });
        }
    }
    Ok(drafts)
}

/// What Kustomize notes about where an object comes from.
struct Note {
    path: Option<String>,
    configured_in: Option<String>,
}

impl Note {
    /// The file, and whether the object was made by a generator.
    fn file(&self, dir: &str) -> (Option<String>, bool) {
        let resolve = |path: &String| super::files::normalise(dir, path);
        match (&self.path, &self.configured_in) {
            (Some(path), _) => (resolve(path), false),
            (None, Some(path)) => (resolve(path), true),
            (None, None) => (None, false),
        }
    }
}

fn take_origin(value: &mut Value) -> Option<Note> {
    let metadata = value.get_mut("metadata")?.as_object_mut()?;
    let annotations = metadata.get_mut("annotations")?.as_object_mut()?;
    let text = annotations.remove(ORIGIN)?;
    if annotations.is_empty() {
        metadata.remove("annotations");
    }
    let note = super::yaml::parse(text.as_str()?, Keep::Variables, &super::yaml::Limits::default()).ok()?;
    let note = &note.first()?.value;
    let text = |field: &str| note[field].as_str().map(str::to_owned);
    Some(Note { path: text("path"), configured_in: text("configuredIn") })
}

/// Lines of the objects in the files that were read.
struct Lines {
    files: HashMap<String, Vec<(String, String, usize)>>,
}

impl Lines {
    fn of(closure: &Closure) -> Self {
        let mut files: HashMap<String, Vec<(String, String, usize)>> = HashMap::new();
        for (path, documents) in &closure.sources {
            let lines = files.entry(path.clone()).or_default();
            for document in documents.iter().filter(|d| d.value.is_object()) {
                let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
                let name = text(&document.value["metadata"]["name"]);
                lines.push((text(&document.value["kind"]), name, document.line));
            }
        }
        Lines { files }
    }

    /// The line of an object: Kustomize can have put a prefix and a suffix to its name, so the longest name that fits wins.
    fn line(&self, file: &str, value: &Value) -> usize {
        let Some(objects) = self.files.get(file) else { return 0 };
        if let [(_, _, line)] = objects.as_slice() {
            return *line;
        }
        let kind = value["kind"].as_str().unwrap_or_default();
        let name = value["metadata"]["name"].as_str().unwrap_or_default();
        let fitting = objects.iter().filter(|(k, n, _)| k == kind && name.contains(n.as_str()));
        fitting.max_by_key(|(_, n, _)| n.len()).map_or(0, |(_, _, line)| *line)
    }
}

/// How strings with variables are written in the sources. Kustomize drops quotes where YAML does not need them, so its
/// output does not say whether `${PORT}` was meant as text; the sources do. A string that is written both ways under
/// one key counts as text, and so does all that generators make.
struct Styles {
    plain: BTreeMap<(String, String), bool>,
}

impl Styles {
    fn of(closure: &Closure) -> Self {
        let mut styles = Styles { plain: BTreeMap::new() };
        for document in closure.sources.iter().flat_map(|(_, documents)| documents) {
            styles.note(document);
        }
        styles
    }

    fn note(&mut self, document: &Document) {
        fn walk(styles: &mut Styles, value: &Value, marks: &Marks, key: &str) {
            if let (Value::String(text), Some(mark)) = (value, marks.own()) {
                let plain = styles.plain.entry((key.to_owned(), text.clone())).or_insert(true);
                *plain &= mark.plain;
            }
            for (segment, below) in marks.branches() {
                match value {
                    Value::Object(map) => {
                        if let Some(child) = map.get(segment) {
                            walk(styles, child, below, segment);
                        }
                    }
                    Value::Array(items) => {
                        if let Some(child) = segment.parse::<usize>().ok().and_then(|i| items.get(i)) {
                            walk(styles, child, below, key);
                        }
                    }
                    _ => {}
                }
            }
        }
        walk(self, &document.value, &document.strings, "");
    }

    /// Sets the marks of an object of the output to how its strings are written in the sources.
    fn apply(&self, value: &Value, marks: &mut Marks, key: &str, generated: bool) {
        if let Value::String(text) = value {
            // The output's lines are nobody's.
            marks.set(StringMark { line: 0, plain: !generated && self.is_plain(key, text) });
        }
        for (segment, below) in marks.branches_mut() {
            let (child, key) = match value {
                Value::Object(map) => (map.get(segment), segment),
                Value::Array(items) => (segment.parse::<usize>().ok().and_then(|i| items.get(i)), key),
                _ => (None, key),
            };
            if let Some(child) = child {
                self.apply(child, below, key, generated);
            }
        }
    }

    fn is_plain(&self, key: &str, text: &str) -> bool {
        let look = |key: &str| self.plain.get(&(key.to_owned(), text.to_owned())).copied();
        // A JSON patch has the value under `value`, whatever the field is called.
        look(key).or_else(|| look("value")).unwrap_or(false)
    }
}

/// Path of a directory below the root of a workspace.
fn below(root: &Path, dir: &str) -> PathBuf {
    if dir.is_empty() { process::repository(root) } else { process::repository(root).join(dir) }
}
