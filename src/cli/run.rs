//! `windlass run`: the daemon, in a pod or on a desk.

use super::connect::{ClusterArgs, HOME};
use super::{ERROR, NOT_WELL, WELL};
use crate::api::delivery::DeliveryTemplate;
use crate::api::repository::{DeliverySet, LocalRef, RepositoryRef, RepositorySpec};
use crate::api::{Repository, names};
use crate::cluster::lease::{Candidate, Leadership, LeaseError, LeaseOptions};
use crate::cluster::{Connection, Discovery, crds};
use crate::reconcile::daemon::Options;
use crate::reconcile::delivery::bundle::Renderer;
use crate::reconcile::delivery::inventory::SHARD;
use crate::reconcile::preview::{self, Preview};
use crate::reconcile::run as daemon;
use crate::render::find_kustomize;
use crate::server::{Listen, Status, serve};
use crate::source::RemoteUrl;
use anyhow::{Context, bail};
use clap::Args;
use k8s_openapi::api::core::v1::{Namespace, Secret};
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::json;
use std::io::{BufRead, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How soon the Lease is asked for again after the API server did not answer.
const BEGIN_AGAIN: Duration = Duration::from_secs(1);

/// Run the daemon.
#[derive(Args, Debug)]
pub struct RunArgs {
    /// A Git repository to deliver from: a URL or a local directory. Without it, the Repositories that are in the
    /// cluster already are delivered
    #[arg(long, value_name = "URL|DIR")]
    repo: Option<String>,
    /// The branch to follow; the remote's default branch when not given
    #[arg(long, requires = "repo", value_name = "NAME")]
    branch: Option<String>,
    /// The directories to deliver, each to the namespace of its name; `*` does not cross `/`. May be given several times
    #[arg(long, requires = "repo", default_value = "*", value_name = "PATTERN")]
    path: Vec<String>,
    /// Private key for an ssh repository; the host must be in known_hosts
    #[arg(long, requires = "repo", value_name = "FILE")]
    ssh_key: Option<PathBuf>,
    /// known_hosts for an ssh repository
    #[arg(long, requires = "ssh_key", value_name = "FILE")]
    known_hosts: Option<PathBuf>,
    /// Name of an environment variable that holds a token for an https repository
    #[arg(long, requires = "repo", conflicts_with = "ssh_key", value_name = "VAR")]
    token_env: Option<String>,
    /// Certificate authority of an https repository
    #[arg(long, requires = "repo", value_name = "FILE")]
    ca_file: Option<PathBuf>,
    /// Make the namespaces that are not there
    #[arg(long, requires = "repo")]
    create_namespaces: bool,
    /// Show what would be done, and end: exit code 0 when nothing would change, 1 when something would, 2 when it
    /// would not work
    #[arg(long, requires = "repo")]
    dry_run: bool,
    /// Do not ask
    #[arg(long, short = 'y')]
    yes: bool,
    /// The namespace of the installation
    #[arg(long, short = 'n', default_value = HOME, env = "WINDLASS_NAMESPACE", value_name = "NAME")]
    namespace: String,
    /// Name of the installation: several can share a cluster
    #[arg(long, default_value = "default", env = "WINDLASS_INSTALLATION", value_name = "NAME")]
    installation: String,
    /// The namespace whose Repositories and Deliveries are acted on; all when not given
    #[arg(long, value_name = "NAME")]
    watch_namespace: Option<String>,
    /// The service account that acts for Deliveries that name none; the daemon's own when not given
    #[arg(long, env = "WINDLASS_DEFAULT_SERVICE_ACCOUNT", value_name = "NAME")]
    default_service_account: Option<String>,
    /// Where Git repositories are kept
    #[arg(long, env = "WINDLASS_CACHE_DIR", value_name = "DIR")]
    cache_dir: Option<PathBuf>,
    /// Let Repositories name directories of this machine (always so outside a cluster)
    #[arg(long)]
    allow_file_repos: bool,
    /// The kustomize binary
    #[arg(long, env = "WINDLASS_KUSTOMIZE", value_name = "FILE")]
    kustomize: Option<PathBuf>,
    /// Wait for the Lease while another daemon holds it (always so in a pod), instead of ending
    #[arg(long)]
    standby: bool,
    /// Where /livez, /readyz and /metrics are served: ADDRESS:PORT, or :PORT for all addresses; `off` for nowhere.
    /// In a pod :8080 when not given, elsewhere off
    #[arg(long, env = "WINDLASS_LISTEN", value_name = "ADDRESS")]
    listen: Option<String>,
    /// Objects of a Delivery whose inventory stands in one object; a larger inventory is kept in several
    #[arg(long, hide = true, default_value_t = SHARD, value_name = "N")]
    inventory_shard_size: usize,
    #[command(flatten)]
    cluster: ClusterArgs,
}

impl RunArgs {
    fn listen(&self, in_cluster: bool) -> anyhow::Result<Option<Listen>> {
        match self.listen.as_deref() {
            None => Ok(in_cluster.then_some(Listen::Everywhere(8080))),
            Some("" | "off") => Ok(None),
            Some(text) => text.parse().map(Some).map_err(|problem| anyhow::anyhow!("--listen: {problem}")),
        }
    }
}

/// Runs the daemon until it is told to stop.
pub async fn run(args: RunArgs) -> anyhow::Result<i32> {
    let connection = args.cluster.connect().await?;
    let in_cluster = connection.context.is_none();
    let status = Status::standby(connection.counters.clone());
    if let Some(listen) = args.listen(in_cluster)? {
        let address = serve(listen, status.clone()).await.context("--listen: the address cannot be taken")?;
        tracing::info!(%address, "health and metrics are served");
    }
    let cache_dir = args.cache_dir.clone().unwrap_or_else(default_cache_dir);
    std::fs::create_dir_all(&cache_dir)
        .with_context(|| format!("the cache directory {} cannot be made", cache_dir.display()))?;
    let discovery = Discovery::new(connection.client.clone());
    let patient = in_cluster || args.standby;
    let identity = format!("{}-{}", hostname(), std::process::id());
    let lease = LeaseOptions::new(&args.namespace, &format!("windlass-{}", args.installation), &identity);
    let (told, stop) = tokio::sync::watch::channel(false);
    let told = std::sync::Arc::new(told);
    // Where nobody is asked and nothing is installed first, the Lease is asked for at the same time.
    let (mut kinds, early) = match args.repo {
        Some(_) => (discovery.refresh().await, None),
        None => {
            tokio::spawn(tell_when_asked(told.clone()));
            let first = lead(&connection, &lease, patient, false, stop.clone());
            let (kinds, first) = tokio::join!(discovery.refresh(), first);
            (kinds, Some(first))
        }
    };
    while let Err(error) = kinds {
        // In a pod nobody looks at an exit code: it would only be begun again, later each time.
        if !patient {
            if let Some(Ok(Some(held))) = early {
                held.release().await;
            }
            return Err(error)
                .with_context(|| format!("the API server {} does not answer", connection.server));
        }
        tracing::warn!(%error, "the API server does not answer");
        // Who has the Lease asks again before anything is begun.
        if early.is_some() {
            break;
        }
        tokio::select! {
            () = tokio::time::sleep(BEGIN_AGAIN) => {}
            () = stop_asked() => return Ok(WELL),
        }
        kinds = discovery.refresh().await;
    }
    let options = Options {
        installation: args.installation.clone(),
        namespaces: args.watch_namespace.iter().cloned().collect(),
        default_service_account: args.default_service_account.clone().filter(|s| !s.is_empty()),
        cache_dir,
        allow_file: args.allow_file_repos || !in_cluster,
        clock: crate::reconcile::clock::Clock::default(),
        inventory_shard: args.inventory_shard_size.max(1),
        renderer: Renderer { kustomize: find_kustomize(args.kustomize.as_deref()) },
        measures: None,
    };
    let wanted = args.repo.as_deref().map(|repo| repository(&args, repo)).transpose()?;
    if let Some(wanted) = &wanted {
        say(&format!(
            "context    {}\nserver     {}\nrepository {}",
            connection.context.as_deref().unwrap_or("(in cluster)"),
            connection.server,
            wanted.spec.url
        ));
        let preview = preview::look(
            &connection,
            &discovery,
            &options,
            &args.namespace,
            &wanted.name,
            &wanted.spec,
            wanted.credentials()?,
        )
        .await
        .map_err(|problem| anyhow::anyhow!(problem))?;
        print_preview(&preview, args.create_namespaces);
        if preview.directories.is_empty() {
            bail!(
                "no directory matches \"{}\"; there are: {}",
                args.path.join("\", \""),
                if preview.others.is_empty() { "none".into() } else { preview.others.join(", ") }
            );
        }
        if args.dry_run {
            let missing = !args.create_namespaces && preview.directories.iter().any(|d| d.namespace_missing);
            return Ok(match (preview.failed() || missing, preview.changes()) {
                (true, _) => ERROR,
                (false, true) => NOT_WELL,
                (false, false) => WELL,
            });
        }
        if !args.yes && !asked()? {
            return Ok(ERROR);
        }
    }
    if wanted.is_some() {
        install_what_is_missing(&connection, &discovery, &args.namespace).await?;
    }
    let first = match early {
        Some(first) => first?,
        None => {
            // Not before: somebody who is asked may end it at the terminal.
            tokio::spawn(tell_when_asked(told.clone()));
            lead(&connection, &lease, patient, false, stop.clone()).await?
        }
    };
    let Some(first) = first else { return Ok(WELL) };
    if let Some(wanted) = &wanted {
        write_repository(&connection, &args.namespace, wanted).await?;
    }
    let mut leadership = Some(first);
    // Once for each time that the Lease is got: one that was lost, for the API server was away, is waited for again.
    while let Some(held) = leadership.take() {
        let ours = connection.while_held(held.contact());
        let prepared = daemon::prepare(ours, discovery.clone(), options.clone(), &args.namespace).await;
        let (daemon, inboxes) = match prepared {
            Ok(prepared) => prepared,
            Err(error) if patient || status.has_led() => {
                tracing::warn!(%error, "cannot go on yet");
                drop(held);
                tokio::time::sleep(BEGIN_AGAIN).await;
                leadership = lead(&connection, &lease, patient, true, stop.clone()).await?;
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        // Set once: a daemon is made for each time that the Lease is got.
        let _ = daemon.contact.set(held.contact());
        status.lead(daemon.clone());
        let held = std::sync::Arc::new(held);
        let (still, mut stop_now) = (held.clone(), stop.clone());
        let shutdown = async move {
            tokio::select! {
                () = stopped(&mut stop_now) => tracing::info!("stopping: what is being written is finished"),
                () = still.lost() => tracing::error!(
                    "the Lease was lost: another daemon may work now; stopping until it is ours again"
                ),
            }
        };
        tracing::info!("running");
        daemon::run(daemon, inboxes, shutdown).await;
        status.rest();
        let lost = !held.is_held();
        if let Some(held) = std::sync::Arc::into_inner(held) {
            held.release().await;
        }
        if lost && !*stop.borrow() {
            leadership = lead(&connection, &lease, patient, true, stop.clone()).await?;
        }
    }
    if wanted.is_some() {
        say(
            "stopped. What was deployed stays as it is; `windlass uninstall` takes Windlass out of the cluster.",
        );
    }
    Ok(WELL)
}

/// Gets the Lease: `patient` waits while another daemon holds it, `again` while the API server is away. `None` when it
/// was asked to stop meanwhile.
async fn lead(
    connection: &Connection,
    lease: &LeaseOptions,
    patient: bool,
    again: bool,
    mut stop: tokio::sync::watch::Receiver<bool>,
) -> anyhow::Result<Option<Leadership>> {
    let got = async {
        loop {
            let candidate = Candidate::new(connection, lease.clone());
            if patient {
                return Ok(candidate.acquire().await);
            }
            match candidate.acquire_unless_held().await {
                Err(error @ LeaseError::Held { .. }) => {
                    bail!("{error}; end it first, or run another installation with --installation NAME")
                }
                Err(error) if again => {
                    tracing::warn!(%error, "the API server is away");
                    tokio::time::sleep(BEGIN_AGAIN).await;
                }
                got => return Ok(got?),
            }
        }
    };
    tokio::select! {
        got = got => got.map(Some),
        () = stopped(&mut stop) => Ok(None),
    }
}

/// Tells all who wait for it that it was asked to stop.
async fn tell_when_asked(told: std::sync::Arc<tokio::sync::watch::Sender<bool>>) {
    stop_asked().await;
    told.send_replace(true);
}

/// Returns when it was asked to stop.
async fn stopped(stop: &mut tokio::sync::watch::Receiver<bool>) {
    // Who would ask is gone only with the process.
    if stop.wait_for(|stop| *stop).await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// What `--repo` and its companions ask for.
struct Wanted {
    name: String,
    spec: RepositorySpec,
    secret: std::collections::BTreeMap<String, Vec<u8>>,
}

impl Wanted {
    fn credentials(&self) -> anyhow::Result<crate::source::Credentials> {
        if self.secret.is_empty() {
            return Ok(crate::source::Credentials::default());
        }
        Ok(crate::source::Credentials::from_secret(&self.secret)?)
    }
}

fn repository(args: &RunArgs, repo: &str) -> anyhow::Result<Wanted> {
    let local = Path::new(repo);
    let url = if local.is_dir() {
        let full = local.canonicalize().with_context(|| format!("{repo} cannot be read"))?;
        full.to_str().context("the path of the repository is not UTF-8")?.to_owned()
    } else {
        repo.to_owned()
    };
    RemoteUrl::parse(&url, true)?;
    let name = name_of(&url);
    let read =
        |path: &Path| std::fs::read(path).with_context(|| format!("{} cannot be read", path.display()));
    let mut secret = std::collections::BTreeMap::new();
    if let Some(key) = &args.ssh_key {
        secret.insert("identity".to_owned(), read(key)?);
        let hosts = args.known_hosts.clone().or_else(|| {
            let home = std::env::var_os("HOME")?;
            Some(Path::new(&home).join(".ssh/known_hosts"))
        });
        let hosts = hosts.context("--ssh-key needs --known-hosts")?;
        secret.insert("known_hosts".to_owned(), read(&hosts)?);
    }
    if let Some(variable) = &args.token_env {
        let token = std::env::var(variable).with_context(|| format!("--token-env: {variable} is not set"))?;
        // What the large forges take: any user name with the token as password.
        secret.insert("username".to_owned(), b"git".to_vec());
        secret.insert("password".to_owned(), token.into_bytes());
    }
    if let Some(file) = &args.ca_file {
        secret.insert("ca.crt".to_owned(), read(file)?);
    }
    let template: DeliveryTemplate = serde_json::from_value(json!({
        "targetNamespace": "{{ directory }}",
        "createNamespace": args.create_namespaces,
    }))?;
    let spec = RepositorySpec {
        url,
        reference: args
            .branch
            .as_ref()
            .map(|branch| RepositoryRef { branch: Some(branch.clone()), ..Default::default() }),
        interval: crate::api::Duration::from_secs(15),
        timeout: crate::api::Duration::from_secs(60),
        secret_ref: (!secret.is_empty()).then(|| LocalRef { name: format!("{name}-credentials") }),
        deliveries: args
            .path
            .iter()
            .map(|path| DeliverySet { path: path.clone(), template: template.clone() })
            .collect(),
        suspend: false,
    };
    Ok(Wanted { name, spec, secret })
}

/// A name for the Repository: the last segment of its URL.
fn name_of(url: &str) -> String {
    let last = url.trim_end_matches('/').rsplit(['/', ':']).next().unwrap_or_default();
    let last = last.strip_suffix(".git").unwrap_or(last);
    let name: String = last
        .to_lowercase()
        .chars()
        .map(|c| if c.is_ascii_lowercase() || c.is_ascii_digit() { c } else { '-' })
        .take(50)
        .collect();
    let name = name.trim_matches('-').to_owned();
    if name.is_empty() { "repository".into() } else { name }
}

async fn install_what_is_missing(
    connection: &Connection,
    discovery: &Discovery,
    namespace: &str,
) -> anyhow::Result<()> {
    let access = connection.access(None);
    let definitions = crate::api::crds();
    let answers = crds::install(&access, discovery, &definitions, Duration::from_secs(30)).await?;
    for (definition, answer) in definitions.iter().zip(answers) {
        if answer != crds::Installed::Unchanged {
            let name = definition["metadata"]["name"].as_str().unwrap_or_default();
            say(&format!(
                "customresourcedefinition {name} {}",
                match answer {
                    crds::Installed::Created => "created",
                    _ => "updated",
                }
            ));
        }
    }
    let api: Api<Namespace> = Api::all(connection.client.clone());
    if api.get_opt(namespace).await?.is_none() {
        // The label tells `uninstall` whose namespace it is.
        let labels = json!({(super::uninstall::PART_OF): "windlass"});
        let body = serde_json::from_value(json!({"metadata": {"name": namespace, "labels": labels}}))?;
        match api.create(&PostParams::default(), &body).await {
            Ok(_) => say(&format!("namespace {namespace} created")),
            Err(kube::Error::Api(e)) if e.code == 409 => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

async fn write_repository(connection: &Connection, namespace: &str, wanted: &Wanted) -> anyhow::Result<()> {
    let params = PatchParams::apply("windlass-cli").force();
    if let Some(reference) = &wanted.spec.secret_ref {
        let api: Api<Secret> = Api::namespaced(connection.client.clone(), namespace);
        let data: std::collections::BTreeMap<_, _> =
            wanted.secret.iter().map(|(k, v)| (k, k8s_openapi::ByteString(v.clone()))).collect();
        let body =
            json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": reference.name}, "data": data});
        api.patch(&reference.name, &params, &Patch::Apply(body))
            .await
            .context("the Secret cannot be written")?;
    }
    let api: Api<Repository> = Api::namespaced(connection.client.clone(), namespace);
    let body = json!({
        "apiVersion": format!("{}/v1alpha1", names::GROUP), "kind": "Repository",
        "metadata": {"name": wanted.name}, "spec": wanted.spec,
    });
    api.patch(&wanted.name, &params, &Patch::Apply(body))
        .await
        .context("the Repository cannot be written")?;
    say(&format!("repository {namespace}/{} applied", wanted.name));
    Ok(())
}

fn print_preview(preview: &Preview, create_namespaces: bool) {
    say(&format!("revision   {}", preview.revision));
    for directory in &preview.directories {
        say(&format!("\n{} -> namespace {}", directory.path, directory.namespace));
        if let Some(problem) = &directory.problem {
            say(&format!("  problem: {problem}"));
        }
        if directory.namespace_missing && !create_namespaces {
            say(&format!(
                "  problem: namespace {} does not exist; --create-namespaces makes it",
                directory.namespace
            ));
        }
        for (what, objects) in [
            ("create", &directory.create),
            ("adopt", &directory.adopt),
            ("update", &directory.update),
            ("keep", &directory.keep),
            ("remove", &directory.remove),
        ] {
            for object in objects {
                say(&format!("  {what:<7}{object}"));
            }
        }
        for hook in &directory.hooks {
            say(&format!("  hook   {} ({}) {}", hook.object, hook.point, hook.told()));
        }
    }
    for directory in &preview.leaving {
        say(&format!(
            "\n{} is not delivered any more, and what it brought to namespace {} goes",
            directory.path, directory.namespace
        ));
        for object in &directory.remove {
            say(&format!("  remove {object}"));
        }
    }
    let all = || preview.directories.iter().chain(&preview.leaving);
    let count = |f: fn(&preview::Directory) -> usize| all().map(f).sum::<usize>();
    say(&format!(
        "\n{}: {} objects to create, {} to adopt, {} to update, {} to remove, {} as they should be",
        match preview.directories.len() {
            1 => "1 directory".to_owned(),
            n => format!("{n} directories"),
        },
        count(|d| d.create.len()),
        count(|d| d.adopt.len()),
        count(|d| d.update.len()),
        count(|d| d.remove.len()),
        count(|d| d.keep.len())
    ));
}

fn asked() -> anyhow::Result<bool> {
    if !std::io::stdin().is_terminal() {
        bail!("nobody is there to be asked; say --yes");
    }
    anstream::eprint!("deliver this? [y/N] ");
    std::io::stderr().flush()?;
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line)?;
    Ok(matches!(line.trim().to_lowercase().as_str(), "y" | "yes"))
}

fn say(text: &str) {
    anstream::println!("{text}");
}

/// Where mirrors are kept when nobody says otherwise.
pub(super) fn default_cache_dir() -> PathBuf {
    let base = std::env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache")));
    base.unwrap_or_else(std::env::temp_dir).join("windlass")
}

fn hostname() -> String {
    let from_env = std::env::var("HOSTNAME").ok().filter(|h| !h.is_empty());
    let from_kernel = || std::fs::read_to_string("/proc/sys/kernel/hostname").ok();
    from_env.or_else(from_kernel).map_or_else(|| "windlass".into(), |h| h.trim().to_owned())
}

async fn stop_asked() {
    use tokio::signal::unix::{SignalKind, signal};
    let terminated = async {
        match signal(SignalKind::terminate()) {
            Ok(mut signals) => {
                signals.recv().await;
            }
            Err(_) => std::future::pending::<()>().await,
        }
    };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        () = terminated => {}
    }
}
