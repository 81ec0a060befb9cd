//! A file with Applications, as `render` takes it: the objects that they become.

use crate::core::application::{Defaulted, defaulted, expand, is_application, read};
use crate::core::bundle::Bundle;
use crate::core::manifest::{Manifest, Origin};
use crate::render::yaml::{Keep, Limits, parse};
use anyhow::{Context, bail};
use serde_json::Value;
use std::path::Path;

/// What a file becomes.
pub struct Expanded {
    /// The objects of its Applications, and the other objects of the file as they stand there.
    pub bundle: Bundle,
    /// For each Application what it is called, and what it leaves out.
    pub defaults: Vec<(String, Vec<Defaulted>)>,
    /// What the reader should know, each with file and line.
    pub notices: Vec<String>,
}

/// Reads a file. Errors name the line where the Application begins, and the field.
pub fn expanded(path: &Path, namespace: Option<&str>) -> anyhow::Result<Expanded> {
    let file = path.display().to_string();
    let text = std::fs::read_to_string(path).with_context(|| format!("{file} cannot be read"))?;
    let documents = parse(&text, Keep::Variables, &Limits::default())
        .map_err(|error| anyhow::anyhow!("{file}:{}: {}", error.line, error.problem))?;
    let (mut objects, mut defaults, mut notices) = (Vec::new(), Vec::new(), Vec::new());
    for document in documents.into_iter().filter(|document| !document.value.is_null()) {
        let origin = Origin { file: file.clone(), line: document.line };
        let mut manifest =
            Manifest::new(document.value, origin.clone()).with_context(|| origin.to_string())?;
        if !is_application(&manifest.to_value()) {
            objects.push(manifest);
            continue;
        }
        if let (true, Some(namespace)) = (manifest.namespace().is_empty(), namespace) {
            manifest.set_metadata("namespace", Value::String(namespace.into()));
        }
        let value = manifest.to_value();
        let application = read(&value).with_context(|| origin.to_string())?;
        let expansion = expand(&application, &origin).with_context(|| origin.to_string())?;
        objects.extend(expansion.objects);
        notices.extend(expansion.notices.into_iter().map(|notice| format!("{origin}: {notice}")));
        let id = manifest.id();
        let name = if id.namespace.is_empty() { id.name } else { format!("{}/{}", id.namespace, id.name) };
        defaults.push((format!("Application {name}"), defaulted(&value, &application.spec)));
    }
    if defaults.is_empty() {
        bail!(
            "{file} holds no Application; render takes a directory of manifests, or a file with Applications"
        );
    }
    Ok(Expanded { bundle: Bundle::new(objects)?, defaults, notices })
}

/// The defaults as comments above the objects.
pub fn comments(defaults: &[(String, Vec<Defaulted>)]) -> String {
    let mut text = String::new();
    for (application, defaults) in defaults.iter().filter(|(_, defaults)| !defaults.is_empty()) {
        text.push_str(&format!("# {application} leaves these to their defaults:\n"));
        for default in defaults {
            text.push_str(&format!("#   {}\n", crate::report::table::tame(&default.to_string())));
        }
    }
    text
}
