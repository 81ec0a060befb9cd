//! `windlass diff PATH|--revision SHA`: what a directory on disk, or a commit, would change in the cluster. Reads and dry-runs;
//! writes nothing. Where a dry-run is not allowed it compares by reading alone and says so.

use super::connect::ClusterArgs;
use super::directory::{Directory, assigned, assignment};
use super::find::{self, ScopeArgs, explained, full_name};
use super::output::{Output, emit, form as form_of};
use super::rendered::{redacted, render, settings_of};
use super::run::default_cache_dir;
use super::{ERROR, NOT_WELL, WELL};
use crate::api::delivery::{DeliverySpec, DeliveryTemplate, InventoryEntry, Problem, Revision, Source};
use crate::api::dependency::Dependency;
use crate::api::rollout::RolloutPolicy;
use crate::api::{Delivery, Repository, names};
use crate::cluster::apply::{Guard, dry_run, get};
use crate::cluster::{Access, ApplyError, Cause, Connection, Discovery};
use crate::core::bundle::Bundle;
use crate::core::diff::{ChangeKind, diff};
use crate::core::fields::{Segment, owned_by};
use crate::core::hook::{job, job_name};
use crate::core::hook_outlook::outlook;
use crate::core::ignore::Rules;
use crate::core::manifest::{Manifest, ObjectId, Origin};
use crate::core::outlook;
use crate::core::plan::{self, Brings, Removal};
use crate::core::removal::{removal_patch, removals};
use crate::core::rollout::steps::Steps;
use crate::core::rollout::{Refusal, brief, status};
use crate::core::variant::{self, Decision};
use crate::reconcile::delivery::inventory;
use crate::reconcile::delivery::leave::without_others;
use crate::reconcile::delivery::observe;
use crate::reconcile::delivery::prepare::may_recreate;
use crate::reconcile::delivery::settings;
use crate::reconcile::delivery::stage::{Eyes, foresee};
use crate::reconcile::directories::overridden;
use crate::report::diff::{Act, DiffProblem, DiffReport, ObjectDiff, text};
use crate::report::markdown::markdown;
use crate::source::{CommitId, Credentials, RemoteUrl, resolve};
use anyhow::{anyhow, bail};
use futures::{StreamExt, stream};
use k8s_openapi::api::core::v1::Secret;
use kube::api::ListParams;
use kube::{Api, ResourceExt};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The reason of what the API server does not let one do.
const NOT_ALLOWED: &str = "Forbidden";

/// Objects that are compared at once.
const AT_ONCE: usize = 16;

/// Show what a directory on disk, or a commit, would change in the cluster.
///
/// The directory is compared as the Delivery that delivers it, with its namespace and settings, and what left the
/// directory is shown too. For a directory that nothing delivers, --namespace says where its objects go.
/// Exit code 0: nothing would change, and no hook would run. 1: something would. 2: it could not be found out.
#[derive(clap::Args, Clone, Debug)]
pub struct DiffArgs {
    /// The directory; with --revision it may be left out, and is then that of --delivery. With --delivery it may be the top of
    /// the Git repository, too
    #[arg(required_unless_present = "revision")]
    path: Option<PathBuf>,
    /// The commit to look at instead of what stands on disk: any revision of the Git repository that the directory is in;
    /// without a directory also a full commit id of the Delivery's Repository
    #[arg(long, value_name = "SHA")]
    revision: Option<String>,
    /// The Delivery that it is compared as, as NAME or NAMESPACE/NAME; found by the path in its Git repository when
    /// neither this nor --namespace is given
    #[arg(long, value_name = "NAME")]
    delivery: Option<String>,
    /// With --delivery: the namespace of the Delivery. Without: the namespace of objects that name none
    #[arg(short = 'n', long, value_name = "NAME")]
    namespace: Option<String>,
    /// How to print: lines that differ without it; markdown is for a comment on a pull request
    #[arg(short = 'o', long, value_enum)]
    output: Option<Form>,
    /// A value for ${NAME} in the manifests; may be given several times
    #[arg(long, value_name = "NAME=VALUE", value_parser = assignment)]
    set: Vec<(String, String)>,
    /// The installation whose Delivery is meant
    #[arg(long, default_value = "default", env = "WINDLASS_INSTALLATION", value_name = "NAME")]
    installation: String,
    /// The kustomize binary
    #[arg(long, env = "WINDLASS_KUSTOMIZE", value_name = "FILE")]
    kustomize: Option<PathBuf>,
    #[command(flatten)]
    cluster: ClusterArgs,
}

/// How a revision would reach traffic, by what would change in the cluster: at once, through a candidate, or not at all, as the
/// daemon would find out before anything else.
async fn way(
    eyes: &Eyes<'_>,
    policy: &RolloutPolicy,
    bundle: &Bundle,
    inventory: &[InventoryEntry],
    report: &mut DiffReport,
) -> Vec<String> {
    let Some((before, after)) = sides(bundle, report) else { return Vec::new() };
    let refused = |problem: &Problem| vec![format!("would be refused: {}", status::told(problem))];
    let (why, workloads) = match variant::needs_rollout(&before, &after, policy) {
        Ok(Decision::Direct { why }) => return vec![format!("is applied at once: {}", why.join("; "))],
        Ok(Decision::Rollout { why, workloads }) => (why, workloads),
        Err(problem) => return refused(&problem),
    };
    let first = vec![format!(
        "is rolled out first ({:?}: {}): {}",
        policy.strategy,
        brief::steps(policy),
        why.join("; ")
    )];
    let steps = match Steps::new(policy) {
        Ok(Some(steps)) => steps,
        Ok(None) => return first,
        Err(problem) => return refused(&problem),
    };
    match foresee(eyes, policy, &steps, [&before, &after], &workloads, inventory).await {
        Ok(known) => {
            let problem = |message| DiffProblem { object: String::new(), file: String::new(), message };
            report.unchecked.extend(known.unchecked.into_iter().map(problem));
            first.into_iter().chain(known.notices).collect()
        }
        // Whoever asks may not look at what the daemon would look at.
        Err(Refusal { problem, transient }) if transient || problem.reason == NOT_ALLOWED => {
            report.unchecked.push(DiffProblem {
                object: problem.object,
                file: String::new(),
                message: format!("whether its rollout can begin: {}", problem.message),
            });
            first
        }
        Err(Refusal { problem, .. }) => refused(&problem),
    }
}

/// The objects as they stand, and as they would.
fn sides(bundle: &Bundle, report: &DiffReport) -> Option<(Bundle, Bundle)> {
    let manifest = |value: &Value| {
        let read = Manifest::new(value.clone(), Origin::default()).ok()?;
        let origin = bundle.get(&read.id()).map(|m| m.origin.clone()).unwrap_or_default();
        Manifest::new(value.clone(), origin).ok()
    };
    let mut before: BTreeMap<ObjectId, Manifest> =
        bundle.objects().iter().map(|object| (object.id(), object.clone())).collect();
    let mut after = before.clone();
    for (was, becomes) in report.changed() {
        let (was, becomes) = (manifest(was), manifest(becomes));
        let Some(id) = was.as_ref().or(becomes.as_ref()).map(Manifest::id) else { continue };
        match was {
            Some(was) => before.insert(id.clone(), was),
            None => before.remove(&id),
        };
        match becomes {
            Some(becomes) => after.insert(id, becomes),
            None => after.remove(&id),
        };
    }
    let hooks = bundle.hooks().iter().map(|hook| hook.manifest.clone());
    let before = Bundle::new(before.into_values().collect()).ok()?;
    Some((before, Bundle::new(after.into_values().chain(hooks).collect()).ok()?))
}

/// How a difference is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Form {
    /// For programs.
    Json,
    /// For programs.
    Yaml,
    /// The same as without it.
    Wide,
    /// For a comment on a pull request.
    Markdown,
}

impl Form {
    fn print(form: Option<Self>, report: &DiffReport) -> anyhow::Result<String> {
        let output = match form {
            Some(Form::Markdown) => return Ok(markdown(report)),
            Some(Form::Json) => Some(Output::Json),
            Some(Form::Yaml) => Some(Output::Yaml),
            Some(Form::Wide) | None => None,
        };
        form_of(output, report, |_| text(report))
    }
}

/// Compares; the answer is the exit code.
pub async fn run(args: DiffArgs) -> anyhow::Result<i32> {
    let connection = args.cluster.connect().await?;
    let discovery = Discovery::new(connection.client.clone());
    discovery.refresh().await?;
    let access = connection.access(None);
    let (directory, delivery) = opened(&args, &connection).await?;
    let (spec, label) = match &delivery {
        Some(delivery) => {
            let namespace = delivery.namespace().unwrap_or_default();
            let label = names::delivery_label(&args.installation, &namespace, &delivery.name_any());
            (spec_of(&connection, delivery, &directory).await?, label)
        }
        None => (spec_for(&args, &directory)?, String::new()),
    };
    let set = assigned(&args.set);
    let settings = match &delivery {
        Some(delivery) => settings_of(delivery, &spec, &access).await?,
        None => None,
    };
    let values = match &delivery {
        None => super::render::values(&spec.template, set),
        Some(_) if settings.is_none() && set.is_empty() => None,
        Some(_) => {
            let read = settings.as_ref().map(|s| s.values.clone()).unwrap_or_default();
            Some(read.into_iter().chain(set).collect())
        }
    };
    let redact = |text: String| redacted(settings.as_ref(), text);
    let (bundle, warnings) =
        render(&directory, &spec, values.as_ref(), &discovery, &label, args.kustomize.as_deref())
            .await
            .map_err(|error| anyhow!(redact(error.to_string())))?;
    for warning in warnings {
        anstream::eprintln!("warning: {warning}");
    }
    let delivery = match delivery {
        Some(mut delivery) => {
            inventory::complete(&connection.client, &mut delivery, &mut inventory::Shards::new()).await?;
            Some(delivery)
        }
        None => None,
    };
    let inventory = delivery.as_ref().and_then(|d| d.status.as_ref()).map_or(&[][..], |s| &s.inventory);
    let digests = inventory.iter().filter_map(|e| Some((e.id(), e.config.clone()?))).collect();
    let bundle = variant::carry(&bundle, &digests);
    check_namespaces(&bundle, &discovery)?;
    let mut brings = plan::brings(bundle.objects());
    if let (true, Some(target)) = (spec.template.create_namespace, &spec.template.target_namespace) {
        brings.namespaces.insert(target.clone());
    }
    let ignore = spec.template.drift.as_ref().map_or(&[][..], |d| &d.ignore);
    let rules = Rules::parse(ignore)?;
    let comparison = Comparison {
        rules: &rules,
        access: &access,
        discovery: &discovery,
        label: &label,
        installation: &args.installation,
        brings: &brings,
    };
    let mut report = comparison.bundle(&bundle).await;
    if let Some(delivery) = &delivery {
        report.delivery = Some(full_name(delivery));
        if spec.template.prune.unwrap_or(true) {
            comparison.prunes(&bundle, inventory, &mut report).await;
        }
    }
    let trees = crate::render::inputs(directory.tree.as_ref(), &directory.path)?;
    let inputs = observe::inputs_digest(&spec.template, &trees);
    let status = delivery.as_ref().and_then(|d| d.status.as_ref());
    let known = match &delivery {
        Some(delivery) => Some(settings::Comparable::read(delivery, &access, values.as_ref()).await),
        None => None,
    };
    let same_values = |digest: &str| known.as_ref().and_then(|known| known.is(digest));
    report.hooks = outlook(bundle.hooks(), &inputs, status, &same_values);
    comparison.hooks(&bundle, &mut report).await;
    if let (Some(delivery), true) = (&delivery, report.does_something()) {
        let removes = report.objects.iter().filter(|o| o.act == Act::Delete).count();
        let waits: Vec<String> = spec.template.depends_on.iter().map(dependency).collect();
        let bake = spec.template.rollback.as_ref().is_some_and(|r| r.bake.is_some());
        let name = delivery.name_any();
        report.rollout = outlook::delivery(&name, &(&spec).into(), bake, &waits, status, &inputs, removes);
        let runs = status.is_some_and(|s| s.effective.is_some());
        if let Some(policy) = spec.template.rollout.as_ref().filter(|_| runs) {
            let namespace = spec.template.target_namespace.as_deref().unwrap_or_default();
            let eyes = Eyes { access: &access, discovery: &discovery, label: &label, namespace };
            let way = way(&eyes, policy, &bundle, inventory, &mut report).await;
            report.rollout.splice(0..0, way);
        }
    }
    emit(&redact(Form::print(args.output, &report)?))?;
    if args.output.is_none() {
        for note in &report.unchecked {
            anstream::eprintln!(
                "not checked: {} ({}): {}",
                note.object,
                note.file,
                redact(note.message.clone())
            );
        }
    }
    for problem in &report.problems {
        let file = if problem.file.is_empty() { String::new() } else { format!(" ({})", problem.file) };
        anstream::eprintln!("error: {}{file}: {}", problem.object, redact(problem.message.clone()));
    }
    Ok(match (report.problems.is_empty(), report.does_something()) {
        (false, _) => ERROR,
        (true, true) => NOT_WELL,
        (true, false) => WELL,
    })
}

fn dependency(on: &Dependency) -> String {
    let kind = on.kind.as_deref().unwrap_or("Delivery");
    match &on.namespace {
        Some(namespace) => format!("{kind} {namespace}/{}", on.name),
        None => format!("{kind} {}", on.name),
    }
}

/// The directory that is looked at, and the Delivery that it is compared as.
async fn opened(args: &DiffArgs, connection: &Connection) -> anyhow::Result<(Directory, Option<Delivery>)> {
    let cache = default_cache_dir().join("diff");
    let mut directory = match (&args.path, &args.revision) {
        (Some(path), None) => Directory::open(path)?,
        (Some(path), Some(revision)) => Directory::at(path, revision, &cache).await?,
        (None, revision) => {
            let (Some(name), Some(revision)) = (&args.delivery, revision) else {
                bail!("say which directory is meant, by its path or by --delivery NAME");
            };
            let scope = ScopeArgs { namespace: args.namespace.clone(), all_namespaces: false };
            let delivery = find::delivery(&connection.client, &scope, name).await?;
            if let Some(application) = &delivery.spec.source.application {
                bail!(
                    "{} delivers the spec of Application {application}, which has no commits; `windlass render FILE` prints what a \
                     file with Applications becomes",
                    full_name(&delivery)
                );
            }
            return Ok((of_repository(connection, &delivery, revision, &cache).await?, Some(delivery)));
        }
    };
    let delivery = delivery(args, connection, &directory).await?;
    if let Some(delivery) = delivery.as_ref().filter(|_| args.delivery.is_some())
        && directory.enter(&delivery.spec.source.path)
    {
        anstream::eprintln!("note: {} is compared, which {} delivers", directory.path, full_name(delivery));
    }
    Ok((directory, delivery))
}

/// The directory of a Delivery as a commit has it: of the checkout around us where that has the commit, else of the Delivery's
/// Repository, with the credentials of that.
pub async fn of_repository(
    connection: &Connection,
    delivery: &Delivery,
    revision: &str,
    cache: &Path,
) -> anyhow::Result<Directory> {
    let path = delivery.spec.source.path.trim_matches('/').to_owned();
    let here = std::env::current_dir()?;
    let root = here.ancestors().find(|dir| dir.join(".git").exists());
    if let Some(commit) = root.and_then(|root| resolve(root, revision).ok())
        && let Some(root) = root
    {
        let url = RemoteUrl::parse(&root.to_string_lossy(), true)?;
        let found =
            Directory::from_mirror(url, &commit, path.clone(), &Credentials::default(), cache).await?;
        if found.tree.entry(&path)?.is_some() || path.is_empty() {
            return Ok(found);
        }
    }
    let namespace = delivery.namespace().unwrap_or_default();
    let name = &delivery.spec.source.repository;
    let api: Api<Repository> = Api::namespaced(connection.client.clone(), &namespace);
    let repository = api.get(name).await.map_err(explained)?;
    let commit: CommitId = revision.parse()?;
    let mut credentials = Credentials::default();
    if let Some(secret) = &repository.spec.secret_ref {
        let api: Api<Secret> = Api::namespaced(connection.client.clone(), &namespace);
        let found = api.get(&secret.name).await.map_err(|_| {
            anyhow!(
                "the credentials of Repository {namespace}/{name} (Secret {namespace}/{}) cannot be read; run this in a checkout \
                 that has the commit instead",
                secret.name
            )
        })?;
        let data = found.data.unwrap_or_default().into_iter().map(|(key, value)| (key, value.0)).collect();
        credentials = Credentials::from_secret(&data)?;
    }
    let url = RemoteUrl::parse(&repository.spec.url, true)?;
    Directory::from_mirror(url, &commit, path, &credentials, cache).await
}

/// The Delivery that a directory is compared as.
async fn delivery(
    args: &DiffArgs,
    connection: &Connection,
    directory: &Directory,
) -> anyhow::Result<Option<Delivery>> {
    if let Some(name) = &args.delivery {
        let scope = ScopeArgs { namespace: args.namespace.clone(), all_namespaces: false };
        return find::delivery(&connection.client, &scope, name).await.map(Some);
    }
    if args.namespace.is_some() {
        return Ok(None);
    }
    let all: Vec<Delivery> = match find::list(&connection.client, &ScopeArgs::default()).await {
        Ok(all) => all,
        // Without Windlass in the cluster, or the right to look, objects that name their namespace can be compared.
        Err(error) => {
            tracing::debug!("{error:#}");
            return Ok(None);
        }
    };
    let mut found: Vec<Delivery> = all.into_iter().filter(|d| d.delivers(&directory.path)).collect();
    if found.len() > 1 {
        let names: Vec<String> = found.iter().map(full_name).collect();
        bail!(
            "{} Deliveries deliver a directory \"{}\": {}; say which with --delivery NAME",
            found.len(),
            directory.path,
            names.join(", ")
        );
    }
    Ok(found.pop())
}

/// The settings of a Delivery as they would be with what stands on disk.
pub async fn spec_of(
    connection: &Connection,
    delivery: &Delivery,
    directory: &Directory,
) -> anyhow::Result<DeliverySpec> {
    let mut spec = delivery.spec.clone();
    if delivery.labels().contains_key(names::REPOSITORY_LABEL) {
        let namespace = delivery.namespace().unwrap_or_default();
        let api: Api<Repository> = Api::namespaced(connection.client.clone(), &namespace);
        let repository = api.get_opt(&spec.source.repository).await.map_err(explained)?;
        if let Some(repository) = repository
            && let Some(fresh) = directory.delivery(&spec.source.repository, &repository.spec.deliveries)?
        {
            spec = fresh;
        }
    }
    Ok(spec)
}

/// The settings of a directory that nothing delivers.
fn spec_for(args: &DiffArgs, directory: &Directory) -> anyhow::Result<DeliverySpec> {
    let template =
        DeliveryTemplate { target_namespace: args.namespace.clone(), ..DeliveryTemplate::default() };
    let template =
        overridden(template, directory.tree.as_ref(), &directory.path).map_err(|p| anyhow!(p.message))?;
    let source = Source { path: directory.path.clone(), ..Source::default() };
    Ok(DeliverySpec { source, template })
}

/// Every namespaced object must have a namespace.
fn check_namespaces(bundle: &Bundle, discovery: &Discovery) -> anyhow::Result<()> {
    let homeless = bundle.objects().iter().find(|o| {
        let gvk = o.gvk();
        o.namespace().is_empty() && discovery.scope(&gvk.group, &gvk.kind) == Some(true)
    });
    match homeless {
        Some(object) => bail!(
            "{} ({}) names no namespace, and no Delivery delivers this directory; say --delivery NAME or --namespace NAME",
            object.id(),
            object.origin
        ),
        None => Ok(()),
    }
}

struct Comparison<'a> {
    rules: &'a Rules,
    access: &'a Access,
    discovery: &'a Discovery,
    label: &'a str,
    installation: &'a str,
    brings: &'a Brings,
}

fn label_of(object: &Value) -> Option<&str> {
    object["metadata"]["labels"][names::DELIVERY_LABEL].as_str()
}

impl Comparison<'_> {
    /// Compares each object of a bundle.
    async fn bundle(&self, bundle: &Bundle) -> DiffReport {
        let mut report = DiffReport::default();
        let asked: Vec<_> = bundle.objects().iter().map(|manifest| self.object(manifest)).collect();
        let answers: Vec<_> = stream::iter(asked).buffered(AT_ONCE).collect().await;
        for (manifest, answer) in bundle.objects().iter().zip(answers) {
            let answer = answer.map(|(changed, unchecked)| {
                report.unchecked.extend(unchecked.map(|message| DiffProblem {
                    object: manifest.id().to_string(),
                    file: manifest.origin.to_string(),
                    message,
                }));
                changed
            });
            match answer {
                Ok(Some(mut changed)) => {
                    changed.wave = crate::core::bundle::wave(manifest).ok().map(|w| w.number);
                    report.objects.push(changed);
                }
                Ok(None) => report.unchanged += 1,
                Err(message) => report.problems.push(DiffProblem {
                    object: manifest.id().to_string(),
                    file: manifest.origin.to_string(),
                    message,
                }),
            }
        }
        report
    }

    /// Compares one object with what the API server would make of it.
    async fn object(&self, manifest: &Manifest) -> Result<(Option<ObjectDiff>, Option<String>), String> {
        let gvk = manifest.gvk();
        let (object, file) = (manifest.id().to_string(), manifest.origin.to_string());
        let made =
            |after: &Value| Ok((ObjectDiff::new(&object, &file, Act::Create, &Value::Null, after), None));
        let mut value = manifest.to_value();
        let Some(resource) = self.discovery.find(&gvk).await.map_err(|e| e.to_string())? else {
            if self.brings.kinds.contains(&(gvk.group.clone(), gvk.kind.clone())) {
                return made(&value);
            }
            return Err(Cause::KindUnknown { kind: gvk.to_string() }.to_string());
        };
        let live = get(self.access, &resource, manifest.namespace(), manifest.name())
            .await
            .map_err(|e| e.cause.to_string())?;
        let mut act = if live.is_some() { Act::Change } else { Act::Create };
        if let Some(live) = &live {
            match label_of(live) {
                // Compared as whoever delivers it would apply it.
                Some(label) if self.label.is_empty() => {
                    let mut labelled = manifest.clone();
                    labelled.set_label(names::DELIVERY_LABEL, label);
                    value = labelled.to_value();
                }
                Some(label) if label != self.label => {
                    let known = Api::<Delivery>::all(self.access.client().clone());
                    let known = known.list(&ListParams::default()).await.map(|l| l.items);
                    let owner = names::owner(self.installation, &known.unwrap_or_default(), label);
                    return Err(plan::whose(label, owner.as_deref()));
                }
                Some(_) => {}
                None if self.label.is_empty() => {}
                None => act = Act::Adopt,
            }
        }
        // What others are in charge of is not changed.
        let mut left = None;
        if let Some(live) = &live {
            let found = without_others(self.access, self.discovery, self.rules, &value, live)
                .await
                .map_err(|e| e.cause.to_string())?;
            value.clone_from(&found.desired);
            left = Some(found);
        }
        let uid = live.as_ref().and_then(|l| l["metadata"]["uid"].as_str());
        let before = live.clone().unwrap_or_default();
        let mut after =
            match dry_run(self.access, &resource, &value, uid.map_or(Guard::Any, Guard::Uid)).await {
                Ok(applied) => applied.object,
                Err(ApplyError { cause, .. }) => match &cause {
                    Cause::NamespaceMissing { namespace } if self.brings.namespaces.contains(namespace) => {
                        return made(&value);
                    }
                    Cause::KindUnknown { .. }
                        if self.brings.kinds.contains(&(gvk.group.clone(), gvk.kind.clone())) =>
                    {
                        return made(&value);
                    }
                    Cause::RoleMissing { .. } | Cause::Escalates { .. } if self.brings.role_of(manifest) => {
                        let before = projected(&before, &value);
                        return Ok((ObjectDiff::new(&object, &file, act, &before, &value), None));
                    }
                    Cause::Immutable { .. } if may_recreate(manifest) => {
                        let before = projected(&before, &value);
                        return Ok((ObjectDiff::new(&object, &file, Act::Recreate, &before, &value), None));
                    }
                    // What may not be tried, or cannot be without consequences, is compared here.
                    Cause::Forbidden { .. } | Cause::WebhookNoDryRun { .. } => {
                        let differs = match &live {
                            None => ObjectDiff::new(&object, &file, act, &Value::Null, &value),
                            Some(live) => self.read_only(&object, &file, act, live, &value),
                        };
                        return Ok((differs, Some(format!("compared by reading alone: {cause}"))));
                    }
                    cause => return Err(cause.to_string()),
                },
            };
        let ours = live.as_ref().is_some_and(|l| label_of(l).is_some());
        let mut release = removals(None, &value, &after, live.is_some() && !ours);
        if let Some(left) = &left {
            release.retain(|path| !left.covers(path) && !left.touches(path));
        }
        for operation in removal_patch(&after.clone(), &release) {
            if operation["op"] == "remove" {
                remove(&mut after, operation["path"].as_str().unwrap_or_default());
            }
        }
        Ok((ObjectDiff::new(&object, &file, act, &before, &after), None))
    }

    /// Compares an object without asking the API server what it would make of it: its defaults, its validation and its admission
    /// are not tried.
    fn read_only(
        &self,
        object: &str,
        file: &str,
        act: Act,
        live: &Value,
        value: &Value,
    ) -> Option<ObjectDiff> {
        let owned = owned_by(live, names::FIELD_MANAGER);
        let mut changes = diff(value, live, &owned);
        changes.retain(|c| c.kind != ChangeKind::Ownership);
        if changes.is_empty() && act == Act::Change {
            return None;
        }
        let mut before = projected(live, value);
        let mut after = before.clone();
        for change in &changes {
            match (&change.desired, &change.live) {
                (Some(wanted), _) => put(&mut after, change.path.segments(), wanted),
                (None, Some(was)) => put(&mut before, change.path.segments(), was),
                (None, None) => {}
            }
        }
        ObjectDiff::new(object, file, act, &before, &after)
    }

    /// Tries each hook as the daemon would before anything else.
    async fn hooks(&self, bundle: &Bundle, report: &mut DiffReport) {
        for hook in bundle.hooks() {
            let (manifest, Some(point)) = (&hook.manifest, hook.points.first().copied()) else { continue };
            let Some(resource) = self.discovery.resource(&manifest.gvk()) else { continue };
            let name = job_name(manifest.namespace(), manifest.name(), point, &Revision::default(), "");
            match dry_run(self.access, &resource, &job(hook, &name, point), Guard::Any).await.map(|_| ()) {
                Ok(()) => {}
                Err(ApplyError { cause: Cause::NamespaceMissing { namespace }, .. })
                    if self.brings.namespaces.contains(&namespace) => {}
                Err(ApplyError {
                    cause: cause @ (Cause::Forbidden { .. } | Cause::WebhookNoDryRun { .. }),
                    ..
                }) => report.unchecked.push(DiffProblem {
                    object: manifest.id().to_string(),
                    file: manifest.origin.to_string(),
                    message: format!("whether its Job would be taken: {cause}"),
                }),
                Err(error) => report.problems.push(DiffProblem {
                    object: manifest.id().to_string(),
                    file: manifest.origin.to_string(),
                    message: error.cause.to_string(),
                }),
            }
        }
    }

    /// What left the directory and is still there as ours.
    async fn prunes(&self, bundle: &Bundle, inventory: &[InventoryEntry], report: &mut DiffReport) {
        let left = |e: &&InventoryEntry| e.uid.is_some() && !e.candidate && bundle.get(&e.id()).is_none();
        for entry in inventory.iter().filter(left) {
            let act = match plan::removal(entry, false) {
                Removal::Delete => Act::Delete,
                Removal::Release => Act::Release,
            };
            let Ok(Some(resource)) = self.discovery.find(&entry.gvk()).await else { continue };
            match get(self.access, &resource, &entry.namespace, &entry.name).await {
                Ok(Some(live)) if label_of(&live) == Some(self.label) => {
                    report.objects.extend(ObjectDiff::new(
                        &entry.id().to_string(),
                        "",
                        act,
                        &live,
                        &Value::Null,
                    ));
                }
                Ok(_) => {}
                Err(error) => report.problems.push(DiffProblem {
                    object: entry.id().to_string(),
                    file: String::new(),
                    message: error.cause.to_string(),
                }),
            }
        }
    }
}

/// Takes away what a JSON pointer leads to.
fn remove(object: &mut Value, pointer: &str) {
    let Some((above, last)) = pointer.rsplit_once('/') else { return };
    let last = last.replace("~1", "/").replace("~0", "~");
    match object.pointer_mut(above) {
        Some(Value::Object(fields)) => {
            fields.remove(&last);
        }
        Some(Value::Array(items)) => {
            if let Some(index) = last.parse().ok().filter(|i: &usize| *i < items.len()) {
                items.remove(index);
            }
        }
        _ => {}
    }
}

/// Puts a value to where a path leads.
fn put(object: &mut Value, path: &[Segment], value: &Value) {
    let Some((first, rest)) = path.split_first() else {
        *object = value.clone();
        return;
    };
    match (first, &mut *object) {
        (Segment::Field(name), Value::Object(fields)) => {
            put(fields.entry(name.clone()).or_insert(Value::Null), rest, value);
        }
        (Segment::Field(name), Value::Null) => {
            *object = Value::Object(serde_json::Map::from_iter([(name.clone(), Value::Null)]));
            put(&mut object[name], rest, value);
        }
        (step, Value::Array(items)) => {
            let list = Value::Array(items.clone());
            match step.position(&list).and_then(|at| items.get_mut(at)) {
                Some(item) => put(item, rest, value),
                None if rest.is_empty() => items.push(value.clone()),
                None => {}
            }
        }
        _ => {}
    }
}

/// What of a live object a manifest speaks of.
fn projected(live: &Value, manifest: &Value) -> Value {
    match (live, manifest) {
        (Value::Object(live), Value::Object(wanted)) => live
            .iter()
            .filter_map(|(name, value)| Some((name.clone(), projected(value, wanted.get(name)?))))
            .collect(),
        (Value::Array(live), Value::Array(wanted)) if live.len() == wanted.len() => {
            live.iter().zip(wanted).map(|(l, w)| projected(l, w)).collect()
        }
        (live, _) => live.clone(),
    }
}
