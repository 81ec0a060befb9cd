//! `windlass install`: the custom resource definitions, or all of Windlass.

use super::connect::{ClusterArgs, HOME};
use super::{WELL, asynchronously};
use crate::cluster::apply::{apply, delete, get};
use crate::cluster::crds::{self, Installed};
use crate::cluster::{Access, Discovery, Guard, Propagation, Resource};
use crate::core::manifest::Gvk;
use crate::installation::{DEPLOYER, Installation};
use anyhow::Context;
use clap::Args;
use serde_json::Value;
use std::time::Duration;

/// Definitions have to be usable within this time.
const LIMIT: Duration = Duration::from_secs(60);

/// Put Windlass into a cluster: its custom resource definitions, with --daemon everything. Can be repeated.
#[derive(Args, Debug)]
pub struct InstallArgs {
    /// Also namespace, accounts, roles, Deployment and Service
    #[arg(long)]
    daemon: bool,
    /// The image of the daemon
    #[arg(long, requires = "daemon", value_name = "REF", default_value_t = Installation::default().image)]
    image: String,
    /// Daemons: one works, the others stand by
    #[arg(long, requires = "daemon", value_name = "N", default_value_t = 1,
          value_parser = clap::value_parser!(u32).range(0..=9))]
    replicas: u32,
    /// The namespace of the installation
    #[arg(long, short = 'n', default_value = HOME, env = "WINDLASS_NAMESPACE", value_name = "NAME")]
    namespace: String,
    /// Name of the installation: several can share a cluster
    #[arg(long, default_value = "default", env = "WINDLASS_INSTALLATION", value_name = "NAME")]
    installation: String,
    /// Act on the Repositories and Deliveries of this namespace only, with rights that end there
    #[arg(long, requires = "daemon", value_name = "NAME")]
    watch_namespace: Option<String>,
    /// A service account that the daemon may act as, whatever its namespace; can be repeated. Any when not given
    #[arg(long = "allow-account", requires = "daemon", value_name = "NAME")]
    accounts: Vec<String>,
    /// The ClusterRole whose rights deployments have that name no account of their own, in all namespaces:
    /// cluster-admin, edit, one of your own, or none. What was chosen before stays when not given
    #[arg(long, requires = "daemon", value_name = "ROLE")]
    deployer_role: Option<String>,
    /// Print the objects instead of applying them
    #[arg(long, short = 'o', value_enum, value_name = "FORMAT")]
    output: Option<Output>,
    #[command(flatten)]
    cluster: ClusterArgs,
}

/// How objects are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Output {
    /// Documents as `kubectl apply -f -` reads them.
    Yaml,
}

/// Installs, or prints.
pub fn run(args: InstallArgs) -> anyhow::Result<i32> {
    let installation = Installation {
        name: args.installation.clone(),
        namespace: args.namespace.clone(),
        image: args.image.clone(),
        replicas: args.replicas,
        watch_namespace: args.watch_namespace.clone(),
        accounts: args.accounts.clone(),
        deployer_role: args.deployer_role.clone().filter(|role| role != "none"),
    };
    let objects = if args.daemon { installation.objects() } else { crate::api::crds() };
    match args.output {
        Some(Output::Yaml) => {
            anstream::print!("{}", documents(&objects)?);
            Ok(WELL)
        }
        None => asynchronously(put(args, installation, objects)),
    }
}

/// Objects as YAML documents.
pub fn documents(objects: &[Value]) -> anyhow::Result<String> {
    let mut text = String::new();
    for object in objects {
        let document = serde_saphyr::to_string(object).context("an object cannot be written as YAML")?;
        text.push_str("---\n");
        text.push_str(document.trim_end());
        text.push('\n');
    }
    Ok(text)
}

async fn put(args: InstallArgs, installation: Installation, objects: Vec<Value>) -> anyhow::Result<i32> {
    let connection = args.cluster.connect().await?;
    let access = connection.access(None);
    let discovery = Discovery::new(connection.client.clone());
    discovery
        .refresh()
        .await
        .with_context(|| format!("the API server {} does not answer", connection.server))?;
    let (definitions, others): (Vec<_>, Vec<_>) =
        objects.into_iter().partition(|o| o["kind"] == "CustomResourceDefinition");
    let answers = crds::install(&access, &discovery, &definitions, LIMIT).await?;
    for (definition, answer) in definitions.iter().zip(answers) {
        let word = match answer {
            Installed::Created => "created",
            Installed::Updated => "configured",
            Installed::Unchanged => "unchanged",
        };
        told(definition, word);
    }
    if !args.daemon {
        return Ok(WELL);
    }
    for object in &others {
        let word = put_one(&access, &discovery, object).await?;
        told(object, word);
    }
    deployer_rights(&args, &installation, &access, &discovery).await?;
    Ok(WELL)
}

fn resource_of(discovery: &Discovery, api_version: &str, kind: &str) -> anyhow::Result<Resource> {
    let gvk = Gvk::new(api_version, kind);
    discovery.resource(&gvk).with_context(|| format!("the cluster does not serve {gvk}"))
}

async fn put_one(access: &Access, discovery: &Discovery, object: &Value) -> anyhow::Result<&'static str> {
    let text = |path: &str| object.pointer(path).and_then(Value::as_str).unwrap_or_default();
    let resource = resource_of(discovery, text("/apiVersion"), text("/kind"))?;
    let (namespace, name) = (text("/metadata/namespace"), text("/metadata/name"));
    let before = get(access, &resource, namespace, name).await?;
    // A binding's role cannot be changed.
    if let Some(before) = &before
        && !object["roleRef"].is_null()
        && before["roleRef"] != object["roleRef"]
    {
        remove(access, &resource, before).await?;
        apply(access, &resource, object, Guard::Any).await?;
        return Ok("replaced");
    }
    let applied = apply(access, &resource, object, Guard::Any).await?;
    let version = |o: &Value| o["metadata"]["resourceVersion"].clone();
    Ok(match before {
        _ if applied.created => "created",
        Some(before) if version(&before) == version(&applied.object) => "unchanged",
        _ => "configured",
    })
}

async fn remove(access: &Access, resource: &Resource, object: &Value) -> anyhow::Result<()> {
    let text = |path: &str| object.pointer(path).and_then(Value::as_str).unwrap_or_default();
    let (namespace, name, uid) = (text("/metadata/namespace"), text("/metadata/name"), text("/metadata/uid"));
    delete(access, resource, namespace, name, uid, None, Propagation::Background).await?;
    Ok(())
}

/// Takes away what is not wanted any more, and says what Deliveries can do.
async fn deployer_rights(
    args: &InstallArgs,
    installation: &Installation,
    access: &Access,
    discovery: &Discovery,
) -> anyhow::Result<()> {
    let account = format!("{}/{DEPLOYER}", installation.namespace);
    if let Some(role) = &installation.deployer_role {
        say(&format!(
            "\nDeliveries in {} that name no account act as {account}, with the rights of {role}.",
            installation.namespace
        ));
        return Ok(());
    }
    let binding = resource_of(discovery, "rbac.authorization.k8s.io/v1", "ClusterRoleBinding")?;
    let bound = get(access, &binding, "", &installation.deployer_binding()).await?;
    match bound {
        Some(bound) if args.deployer_role.is_some() => {
            remove(access, &binding, &bound).await?;
            told(&bound, "deleted");
        }
        Some(bound) => {
            let role = bound["roleRef"]["name"].as_str().unwrap_or_default();
            say(&format!("\n{account} keeps the rights of {role}."));
            return Ok(());
        }
        None => {}
    }
    say(&format!(
        "\n{account} was given no rights: Deliveries that name no account of their own are refused until it has some.\n\
         Choose a ClusterRole for it, which it then has in all namespaces:\n  \
         windlass install --daemon --deployer-role ROLE      (cluster-admin lets a commit do anything)\n\
         or bind it in the namespaces where it may deploy:\n  \
         kubectl create rolebinding {DEPLOYER} -n NAMESPACE --clusterrole=admin --serviceaccount={}:{DEPLOYER}",
        installation.namespace
    ));
    Ok(())
}

fn told(object: &Value, word: &str) {
    let text = |path: &str| object.pointer(path).and_then(Value::as_str).unwrap_or_default();
    let (kind, namespace, name) =
        (text("/kind").to_lowercase(), text("/metadata/namespace"), text("/metadata/name"));
    let at = if namespace.is_empty() { name.to_owned() } else { format!("{namespace}/{name}") };
    say(&format!("{kind} {at} {word}"));
}

fn say(text: &str) {
    anstream::println!("{text}");
}
