//! `windlass render PATH`: the objects that a directory, or a file with Applications, renders to.

use super::WELL;
use super::directory::{Directory, assigned, assignment};
use super::expansion::{comments, expanded};
use super::output::emit;
use crate::api::delivery::{DeliverySpec, DeliveryTemplate, Source};
use crate::core::bundle::Bundle;
use crate::core::diff::hide_secrets;
use crate::core::plan::is_secret;
use crate::core::tree::Tree;
use crate::reconcile::delivery::bundle::{self, Renderer};
use crate::reconcile::directories::overridden;
use crate::render::{Substitutions, builtin_scopes, find_kustomize};
use anyhow::anyhow;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

/// Print the objects that a directory on disk renders to, in the order in which they would be applied.
///
/// Of a file with Applications the objects are printed that they expand to, below what the Applications leave to their
/// defaults. In a directory an Application is an object like any other.
///
/// Needs no cluster: of kinds that are not Kubernetes' own it is not known whether they live in namespaces, and they
/// are taken as namespaced. The fields render and substitute of a windlass.yaml in the directory are obeyed.
#[derive(clap::Args, Clone, Debug)]
pub struct RenderArgs {
    /// The directory, or a file with Applications
    path: PathBuf,
    /// The namespace of objects that name none
    #[arg(short = 'n', long, value_name = "NAME")]
    namespace: Option<String>,
    /// How to print
    #[arg(short = 'o', long, value_enum, default_value = "yaml")]
    output: RenderOutput,
    /// A value for ${NAME} in the manifests; may be given several times
    #[arg(long, value_name = "NAME=VALUE", value_parser = assignment)]
    set: Vec<(String, String)>,
    /// Print the values of Secrets, which are left out otherwise
    #[arg(long)]
    show_secrets: bool,
    /// The kustomize binary
    #[arg(long, env = "WINDLASS_KUSTOMIZE", value_name = "FILE")]
    kustomize: Option<PathBuf>,
}

/// How the objects are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum RenderOutput {
    /// Documents, each below the file and line that it came from.
    Yaml,
    /// One List.
    Json,
}

/// Prints the bundle.
pub async fn run(args: RenderArgs) -> anyhow::Result<i32> {
    if args.path.is_file() {
        return run_file(&args);
    }
    let directory = Directory::open(&args.path)?;
    let template =
        DeliveryTemplate { target_namespace: args.namespace.clone(), ..DeliveryTemplate::default() };
    let template =
        overridden(template, directory.tree.as_ref(), &directory.path).map_err(|p| anyhow!(p.message))?;
    let values = values(&template, assigned(&args.set));
    let spec =
        DeliverySpec { source: Source { path: directory.path.clone(), ..Source::default() }, template };
    let renderer = Renderer { kustomize: find_kustomize(args.kustomize.as_deref()) };
    let mut options = bundle::options(&spec, None, &renderer);
    options.substitute = values.map(|values| Substitutions { values });
    let tree: Arc<dyn Tree> = directory.tree.clone();
    let (bundle, warnings) = bundle::render(tree, &directory.path, &options, &builtin_scopes(), "")
        .await
        .map_err(|refusal| anyhow!(refusal.problem.message))?;
    for warning in warnings {
        anstream::eprintln!("warning: {warning}");
    }
    tell_of_secrets(&bundle, &args);
    emit(&print(&bundle, args.output, args.show_secrets)?)?;
    Ok(WELL)
}

/// Prints what a file with Applications expands to.
fn run_file(args: &RenderArgs) -> anyhow::Result<i32> {
    if !args.set.is_empty() {
        anyhow::bail!("--set is for directories: nothing is replaced in a file with Applications");
    }
    let expanded = expanded(&args.path, args.namespace.as_deref())?;
    for notice in &expanded.notices {
        anstream::eprintln!("warning: {notice}");
    }
    tell_of_secrets(&expanded.bundle, args);
    let objects = print(&expanded.bundle, args.output, args.show_secrets)?;
    let defaults = match args.output {
        RenderOutput::Yaml => comments(&expanded.defaults),
        RenderOutput::Json => String::new(),
    };
    emit(&format!("{defaults}{objects}"))?;
    Ok(WELL)
}

fn tell_of_secrets(bundle: &Bundle, args: &RenderArgs) {
    let secrets = bundle.objects().iter().filter(|o| is_secret(&o.to_value())).count();
    if secrets > 0 && !args.show_secrets {
        anstream::eprintln!(
            "warning: the values of {secrets} Secrets are left out; --show-secrets prints them"
        );
    }
}

/// What stands for `${NAME}`: nothing is replaced unless somebody wants it. Objects that `substitute.from` names
/// are in a cluster and not read.
pub fn values(
    template: &DeliveryTemplate,
    set: BTreeMap<String, String>,
) -> Option<BTreeMap<String, String>> {
    match &template.substitute {
        None if set.is_empty() => None,
        substitute => {
            let mut values = substitute.as_ref().map(|s| s.values.clone()).unwrap_or_default();
            if substitute.as_ref().is_some_and(|s| !s.from.is_empty()) {
                anstream::eprintln!(
                    "warning: substitute.from names objects of a cluster; give their values by --set"
                );
            }
            values.extend(set);
            Some(values)
        }
    }
}

fn print(bundle: &Bundle, output: RenderOutput, show_secrets: bool) -> anyhow::Result<String> {
    let hooks = bundle.hooks().iter().map(|hook| &hook.manifest);
    let objects = bundle.objects().iter().chain(hooks).map(|manifest| {
        let mut value = manifest.to_value();
        if !show_secrets {
            hide_secrets(&mut Value::Null, &mut value);
        }
        (manifest.origin.to_string(), value)
    });
    match output {
        RenderOutput::Json => {
            let items: Vec<Value> = objects.map(|(_, value)| value).collect();
            let list = json!({"apiVersion": "v1", "kind": "List", "items": items});
            Ok(format!("{}\n", serde_json::to_string_pretty(&list)?))
        }
        RenderOutput::Yaml => {
            let mut text = String::new();
            for (origin, value) in objects {
                text.push_str("---\n");
                if !origin.is_empty() {
                    text.push_str(&format!("# {}\n", crate::report::table::tame(&origin)));
                }
                text.push_str(serde_saphyr::to_string(&value)?.trim_end());
                text.push('\n');
            }
            Ok(text)
        }
    }
}
