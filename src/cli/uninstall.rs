//! `windlass uninstall`: takes Windlass out of a cluster, without a daemon. What it deployed stays as it is.

use super::connect::{ClusterArgs, HOME};
use super::find::{explained, patiently};
use super::request::MANAGER;
use super::{ERROR, WELL};
use crate::api::{Application, Delivery, DriftReport, Repository, names};
use crate::cluster::apply::{Deletion, Propagation, delete, get};
use crate::cluster::discovery::Resource;
use crate::cluster::lease::{Candidate, Leadership, LeaseError, LeaseOptions};
use crate::cluster::{Access, Connection, Discovery, crds};
use crate::core::manifest::{Gvk, ObjectId};
use crate::core::plan::{self, Removal};
use crate::reconcile::delivery::adopted::Befores;
use crate::reconcile::delivery::inventory;
use crate::reconcile::delivery::prune;
use anyhow::{Context, bail};
use k8s_openapi::api::apps::v1::ControllerRevision;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::{DeleteParams, DynamicObject, ListParams, Patch, PatchParams, Preconditions};
use kube::{Api, ResourceExt};
use serde_json::json;
use std::io::{BufRead, IsTerminal, Write};
use std::time::Duration;
use tokio::time::Instant;

/// How long objects that finalizers hold are waited for, for each Delivery.
const PATIENCE: Duration = Duration::from_secs(30);

/// Label on everything that `windlass install` puts into a cluster.
pub const PART_OF: &str = "app.kubernetes.io/part-of";

/// Label that tells which installation it was put there for; what several may share has none.
pub const INSTANCE: &str = "app.kubernetes.io/instance";

/// How long the pods of the daemon, and what is deleted, may take to go.
const GONE: Duration = Duration::from_secs(90);

/// How long a definition whose objects are gone may take to go before the API server is asked to look again.
const OVERLOOKED: Duration = Duration::from_secs(5);

/// Kinds of what `windlass install` makes, in the order in which they go.
const PARTS: [(&str, &str); 13] = [
    ("apps/v1", "Deployment"),
    ("v1", "Service"),
    ("v1", "ConfigMap"),
    ("v1", "Secret"),
    ("policy/v1", "PodDisruptionBudget"),
    ("networking.k8s.io/v1", "NetworkPolicy"),
    ("rbac.authorization.k8s.io/v1", "RoleBinding"),
    ("rbac.authorization.k8s.io/v1", "Role"),
    ("v1", "ServiceAccount"),
    ("rbac.authorization.k8s.io/v1", "ClusterRoleBinding"),
    ("rbac.authorization.k8s.io/v1", "ClusterRole"),
    ("admissionregistration.k8s.io/v1", "ValidatingAdmissionPolicyBinding"),
    ("admissionregistration.k8s.io/v1", "ValidatingAdmissionPolicy"),
];

/// Take Windlass out of the cluster: its resources, their definitions, and what `windlass install` made.
///
/// What was deployed stays as it is, without our label and ownership. Needs no daemon; one that runs outside of the
/// cluster must be stopped before.
#[derive(clap::Args, Clone, Debug)]
pub struct UninstallArgs {
    /// Name of the installation
    #[arg(long, default_value = "default", env = "WINDLASS_INSTALLATION", value_name = "NAME")]
    installation: String,
    /// The namespace of the installation
    #[arg(short = 'n', long, default_value = HOME, env = "WINDLASS_NAMESPACE", value_name = "NAME")]
    namespace: String,
    /// Do not ask
    #[arg(short = 'y', long)]
    yes: bool,
    /// Delete what was deployed, too
    #[arg(long)]
    delete_objects: bool,
    #[command(flatten)]
    cluster: ClusterArgs,
}

/// What is there of an installation.
#[derive(Default)]
struct Found {
    deliveries: Vec<Delivery>,
    /// Deliveries of other installations, which stay.
    others: Vec<Delivery>,
    repositories: Vec<Repository>,
    applications: Vec<Application>,
    reports: Vec<DriftReport>,
    /// Secrets that the daemon or `windlass run` wrote.
    secrets: Vec<Thing>,
    /// The daemon's own Deployment.
    deployments: Vec<Thing>,
    /// What else carries our label.
    parts: Vec<Thing>,
    definitions: Vec<Thing>,
    lease: Option<Thing>,
    /// The namespace, where it is ours.
    home: Option<Thing>,
}

/// An object to be deleted.
#[derive(Clone)]
struct Thing {
    resource: Resource,
    object: DynamicObject,
}

impl Thing {
    fn id(&self) -> ObjectId {
        self.resource.id(&self.object.namespace().unwrap_or_default(), &self.object.name_any())
    }
}

/// Removes, after asking.
pub async fn run(args: UninstallArgs) -> anyhow::Result<i32> {
    let connection = args.cluster.connect().await?;
    let discovery = Discovery::new(connection.client.clone());
    discovery.refresh().await?;
    let cluster = Cluster { access: connection.access(None), connection: &connection, discovery: &discovery };
    let found = cluster.look(&args).await?;
    if found.is_nothing() {
        anstream::println!("nothing of Windlass is in this cluster");
        return Ok(WELL);
    }
    anstream::println!(
        "context    {}\nserver     {}\n",
        connection.context.as_deref().unwrap_or("(in cluster)"),
        connection.server
    );
    found.tell(args.delete_objects);
    // A daemon on somebody's desk cannot be stopped from here: better known before the question than after it. The
    // Lease is held until the end, so that none begins meanwhile.
    let mut leadership = match found.deployments.is_empty() {
        true => cluster.nobody_else_works(&args, &found).await?,
        false => None,
    };
    let result = cluster.uninstall(&args, &found, &mut leadership).await;
    if let Some(leadership) = leadership {
        leadership.release().await;
    }
    result
}
fn listed(ids: &[ObjectId]) -> String {
    let shown: Vec<String> = ids.iter().take(5).map(ToString::to_string).collect();
    let more = ids.len().saturating_sub(shown.len());
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("{}{more}", shown.join(", "))
}

fn asked() -> anyhow::Result<bool> {
    if !std::io::stdin().is_terminal() {
        bail!("nobody is there to be asked; say --yes");
    }
    anstream::eprint!("\nremove all this? [y/N] ");
    std::io::stderr().flush()?;
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line)?;
    Ok(matches!(line.trim().to_lowercase().as_str(), "y" | "yes"))
}

impl Found {
    fn is_nothing(&self) -> bool {
        self.deliveries.is_empty()
            && self.repositories.is_empty()
            && self.applications.is_empty()
            && self.reports.is_empty()
            && self.secrets.is_empty()
            && self.deployments.is_empty()
            && self.parts.is_empty()
            && self.definitions.is_empty()
            && self.lease.is_none()
            && self.home.is_none()
    }

    fn tell(&self, delete_objects: bool) {
        let say = |text: String| anstream::println!("{text}");
        say("this will be removed:".into());
        for delivery in &self.deliveries {
            let count = delivery.status.as_ref().map_or(0, |s| s.inventory.len());
            let objects = if count == 1 { "object".to_owned() } else { format!("{count} objects") };
            let what = match delete_objects {
                true => format!("with its {objects}, which are deleted"),
                false => format!("its {objects} stay"),
            };
            say(format!("  Delivery {} ({what})", super::find::full_name(delivery)));
            if delete_objects {
                let inventory = delivery.status.as_ref().map_or(&[][..], |s| &s.inventory);
                for entry in inventory {
                    let how = plan::removal(entry, false);
                    let word = if how == Removal::Delete { "deleted" } else { "stays" };
                    say(format!("    {} {word}", entry.id()));
                }
            }
        }
        for r in &self.repositories {
            say(format!("  Repository {}/{}", r.namespace().unwrap_or_default(), r.name_any()));
        }
        for a in &self.applications {
            say(format!("  Application {}/{}", a.namespace().unwrap_or_default(), a.name_any()));
        }
        for r in &self.reports {
            say(format!("  DriftReport {}/{}", r.namespace().unwrap_or_default(), r.name_any()));
        }
        let things = self.deployments.iter().chain(&self.secrets).chain(&self.parts).chain(&self.definitions);
        for thing in things.chain(&self.lease) {
            say(format!("  {}", thing.id()));
        }
        if let Some(home) = &self.home {
            say(format!("  {}, if nothing else is in it", home.id()));
        }
        if !self.others.is_empty() {
            say(format!(
                "\nanother installation has {} Deliveries; they stay, and so does what all installations share",
                self.others.len()
            ));
        }
    }
}

struct Cluster<'a> {
    access: Access,
    connection: &'a Connection,
    discovery: &'a Discovery,
}

impl Cluster<'_> {
    fn resource(&self, api_version: &str, kind: &str) -> Option<Resource> {
        self.discovery.resource(&Gvk::new(api_version, kind))
    }

    /// Objects of a kind in all namespaces; none when the cluster does not have the kind.
    async fn list(&self, api_version: &str, kind: &str, params: &ListParams) -> anyhow::Result<Vec<Thing>> {
        let Some(resource) = self.resource(api_version, kind) else { return Ok(Vec::new()) };
        let api: Api<DynamicObject> = Api::all_with(self.connection.client.clone(), &resource.api_resource());
        let items = api.list(params).await.with_context(|| format!("{kind} objects cannot be listed"))?.items;
        Ok(items.into_iter().map(|object| Thing { resource: resource.clone(), object }).collect())
    }

    async fn one(
        &self,
        api_version: &str,
        kind: &str,
        namespace: &str,
        name: &str,
    ) -> anyhow::Result<Option<Thing>> {
        let Some(resource) = self.resource(api_version, kind) else { return Ok(None) };
        let object = get(&self.access, &resource, namespace, name).await?;
        Ok(object.map(serde_json::from_value).transpose()?.map(|object| Thing { resource, object }))
    }

    async fn ours<K>(&self) -> anyhow::Result<Vec<K>>
    where
        K: kube::Resource<DynamicType = ()> + Clone + std::fmt::Debug + serde::de::DeserializeOwned,
    {
        let gvk = Gvk::new(&K::api_version(&()), &K::kind(&()));
        if self.discovery.resource(&gvk).is_none() {
            return Ok(Vec::new());
        }
        let api: Api<K> = Api::all(self.connection.client.clone());
        let list = patiently(async || api.list(&ListParams::default()).await).await;
        Ok(list.map_err(explained)?.items)
    }

    /// Everything of an installation.
    async fn look(&self, args: &UninstallArgs) -> anyhow::Result<Found> {
        let mut found = Found {
            repositories: self.ours().await?,
            applications: self.ours().await?,
            reports: self.ours().await?,
            ..Found::default()
        };
        let labelled = ListParams::default().labels(&format!("{PART_OF}=windlass"));
        for (api_version, kind) in PARTS {
            found.parts.extend(self.list(api_version, kind, &labelled).await?);
        }
        let instance = |thing: &Thing| thing.object.labels().get(INSTANCE).cloned();
        let leases: Api<Lease> = Api::all(self.connection.client.clone());
        let own = format!("windlass-{}", args.installation);
        let leases = leases.list(&ListParams::default()).await.map_err(explained)?.items;
        let shared = leases.iter().any(|l| {
            let name = l.name_any();
            name.starts_with("windlass-")
                && (name != own || l.namespace().as_deref() != Some(&args.namespace))
        }) || found.parts.iter().any(|p| instance(p).is_some_and(|i| i != args.installation));
        found.parts.retain(|p| instance(p).map_or(!shared, |i| i == args.installation));
        let parts = std::mem::take(&mut found.parts);
        (found.deployments, found.parts) =
            parts.into_iter().partition(|p| p.resource.gvk.kind == "Deployment");
        for mut delivery in self.ours::<Delivery>().await? {
            let client = &self.connection.client;
            inventory::complete(client, &mut delivery, &mut inventory::Shards::new())
                .await
                .map_err(explained)?;
            match shared && self.of_another(args, &delivery).await? {
                true => found.others.push(delivery),
                false => found.deliveries.push(delivery),
            }
        }
        if shared {
            let is = |namespace: Option<String>, repository: Option<&str>| {
                !found.others.iter().any(|d| {
                    d.namespace() == namespace
                        && repository.is_none_or(|name| d.spec.source.repository == name)
                })
            };
            found.repositories.retain(|r| is(r.namespace(), Some(&r.name_any())));
            found.applications.retain(|a| {
                !found.others.iter().any(|d| {
                    d.namespace() == a.namespace()
                        && d.spec.source.application.as_ref() == a.metadata.name.as_ref()
                })
            });
            found.reports.retain(|r| {
                found
                    .deliveries
                    .iter()
                    .any(|d| d.namespace() == r.namespace() && d.name_any() == r.name_any())
            });
        }
        let settings = ListParams::default().fields("type=windlass.dev/settings");
        found.secrets = self.list("v1", "Secret", &settings).await?;
        found.secrets.retain(|s| {
            found.deliveries.iter().any(|d| {
                d.namespace() == s.object.namespace()
                    && s.object.name_any() == format!("{}.windlass-settings", d.name_any())
            })
        });
        for repository in &found.repositories {
            let Some(secret) = &repository.spec.secret_ref else { continue };
            let namespace = repository.namespace().unwrap_or_default();
            let written = self.one("v1", "Secret", &namespace, &secret.name).await?;
            found.secrets.extend(
                written.filter(|s| {
                    s.object.managed_fields().iter().any(|m| m.manager.as_deref() == Some(MANAGER))
                }),
            );
        }
        found.secrets.extend(self.one("v1", "Secret", &args.namespace, &format!("{own}-key")).await?);
        found.lease = self.one("coordination.k8s.io/v1", "Lease", &args.namespace, &own).await?;
        if !shared {
            for definition in crate::api::crds() {
                let name = definition["metadata"]["name"].as_str().unwrap_or_default();
                let resource = crds::resource();
                let object = get(&self.access, &resource, "", name).await?;
                let object = object.map(serde_json::from_value).transpose()?;
                found.definitions.extend(object.map(|object| Thing { resource, object }));
            }
        }
        let ours = |t: &Thing| {
            if t.object.metadata.deletion_timestamp.is_some() {
                return false;
            }
            t.object.name_any() == HOME || t.object.labels().get(PART_OF).is_some_and(|l| l == "windlass")
        };
        found.home = self.one("v1", "Namespace", "", &args.namespace).await?.filter(ours);
        Ok(found)
    }

    /// Whether the objects of a Delivery carry the label that another installation gives.
    async fn of_another(&self, args: &UninstallArgs, delivery: &Delivery) -> anyhow::Result<bool> {
        let namespace = delivery.namespace().unwrap_or_default();
        let own = names::delivery_label(&args.installation, &namespace, &delivery.name_any());
        for entry in delivery.status.iter().flat_map(|s| &s.inventory) {
            let Some(resource) = self.discovery.resource(&entry.gvk()) else { continue };
            let live = get(&self.access, &resource, &entry.namespace, &entry.name).await?;
            let label =
                live.and_then(|l| l["metadata"]["labels"][names::DELIVERY_LABEL].as_str().map(str::to_owned));
            if let Some(label) = label {
                return Ok(label != own);
            }
        }
        // Nothing tells; what stands beside this installation belongs to it.
        Ok(namespace != args.namespace)
    }

    /// Takes the Lease, so that no daemon works meanwhile. `None` when there is nothing that one could work on.
    async fn nobody_else_works(
        &self,
        args: &UninstallArgs,
        found: &Found,
    ) -> anyhow::Result<Option<Leadership>> {
        if found.lease.is_none() {
            return Ok(None);
        }
        let identity = format!("uninstall-{}", std::process::id());
        let options =
            LeaseOptions::new(&args.namespace, &format!("windlass-{}", args.installation), &identity);
        let candidate = Candidate::new(self.connection, options);
        if let Ok(Some(record)) = candidate.read().await
            && !record.holder.is_empty()
            && !record.holder.starts_with("uninstall-")
        {
            anstream::eprintln!("looking whether the daemon {} still runs …", record.holder);
        }
        match candidate.acquire_unless_held().await {
            Ok(leadership) => Ok(Some(leadership)),
            Err(LeaseError::Held { holder, .. }) => {
                bail!(
                    "the daemon {holder} runs and would put back what is removed; stop it (Ctrl-C) and try again"
                )
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Asks, and removes.
    async fn uninstall(
        &self,
        args: &UninstallArgs,
        found: &Found,
        leadership: &mut Option<Leadership>,
    ) -> anyhow::Result<i32> {
        if !args.yes && !asked()? {
            return Ok(ERROR);
        }
        for deployment in &found.deployments {
            self.remove(deployment).await?;
        }
        if !found.deployments.is_empty() {
            self.pods_gone(&found.deployments).await?;
        }
        if leadership.is_none() {
            *leadership = self.nobody_else_works(args, found).await?;
        }
        let left = self.let_go(args, found).await?;
        if !left.is_empty() {
            for problem in left {
                anstream::eprintln!("error: {problem}");
            }
            bail!(
                "some objects could not be let go, and nothing more was removed; mend that and run this again"
            );
        }
        self.remove_resources(found).await?;
        for thing in found.secrets.iter().chain(&found.parts).chain(&found.definitions) {
            self.remove(thing).await?;
        }
        for definition in &found.definitions {
            self.gone(definition).await?;
        }
        if let Some(leadership) = leadership.take() {
            leadership.release().await;
        }
        if let Some(lease) = &found.lease {
            self.remove(lease).await?;
        }
        if let Some(home) = &found.home {
            let others = self.others_in(&args.namespace).await?;
            if others.is_empty() {
                self.remove(home).await?;
            } else {
                anstream::println!("namespace {} stays: it holds {}", args.namespace, listed(&others));
            }
        }
        anstream::println!(
            "\nWindlass is out of the cluster.{}",
            match args.delete_objects {
                true => "",
                false => " What it deployed runs on.",
            }
        );
        Ok(WELL)
    }

    /// Waits until the pods of the daemon are gone.
    async fn pods_gone(&self, deployments: &[Thing]) -> anyhow::Result<()> {
        let deadline = Instant::now() + GONE;
        for deployment in deployments {
            let labels = deployment.object.data["spec"]["selector"]["matchLabels"].clone();
            let selector: Vec<String> = labels
                .as_object()
                .into_iter()
                .flatten()
                .map(|(name, value)| format!("{name}={}", value.as_str().unwrap_or_default()))
                .collect();
            if selector.is_empty() {
                continue;
            }
            let namespace = deployment.object.namespace();
            let params = ListParams::default().labels(&selector.join(","));
            loop {
                let mut pods = self.list("v1", "Pod", &params).await?;
                pods.retain(|p| p.object.namespace() == namespace);
                if pods.is_empty() {
                    break;
                }
                if Instant::now() >= deadline {
                    bail!("{} is still there after {}s", pods[0].id(), GONE.as_secs());
                }
                tokio::time::sleep(Duration::from_millis(250)).await;
            }
        }
        Ok(())
    }

    /// Releases (or deletes) the objects of each Delivery; what could not be is told.
    async fn let_go(&self, args: &UninstallArgs, found: &Found) -> anyhow::Result<Vec<String>> {
        let what = if args.delete_objects { prune::What::All } else { prune::What::Orphan };
        let mut problems = Vec::new();
        let none = Befores::new();
        for delivery in &found.deliveries {
            let namespace = delivery.namespace().unwrap_or_default();
            let label = names::delivery_label(&args.installation, &namespace, &delivery.name_any());
            let inventory = delivery.status.as_ref().map_or(&[][..], |s| &s.inventory);
            let begin = std::time::Instant::now();
            let mut left =
                prune::run(&self.access, self.discovery, &label, inventory, what, |_| false, &none).await;
            // What finalizers hold is waited for: what it needs goes after it.
            while left.refusal.as_ref().is_some_and(|r| r.transient) && begin.elapsed() < PATIENCE {
                tokio::time::sleep(Duration::from_millis(250)).await;
                let rest = left.inventory;
                left = prune::run(&self.access, self.discovery, &label, &rest, what, |_| false, &none).await;
            }
            match left.refusal {
                Some(refusal) => problems.push(crate::core::rollout::status::told(&refusal.problem)),
                None if inventory.is_empty() => {}
                None => anstream::println!(
                    "{} objects of {} {}",
                    inventory.len(),
                    super::find::full_name(delivery),
                    if args.delete_objects { "deleted" } else { "let go" }
                ),
            }
        }
        Ok(problems)
    }

    /// Removes Deliveries, reports, Repositories and Applications with what is kept of them, in this order: each owns one before.
    async fn remove_resources(&self, found: &Found) -> anyhow::Result<()> {
        for delivery in &found.deliveries {
            let api: Api<Delivery> =
                Api::namespaced(self.connection.client.clone(), &delivery.namespace().unwrap_or_default());
            let others: Vec<&String> =
                delivery.finalizers().iter().filter(|f| *f != names::FINALIZER).collect();
            let patch = json!({"metadata": {"uid": delivery.uid(), "finalizers": others}});
            let params = PatchParams { field_manager: Some(MANAGER.into()), ..PatchParams::default() };
            match api.patch(&delivery.name_any(), &params, &Patch::Merge(patch)).await {
                Ok(_) => {}
                Err(kube::Error::Api(e)) if e.code == 404 => continue,
                Err(error) => return Err(explained(error)),
            }
            self.remove_ours(delivery).await?;
        }
        for report in &found.reports {
            self.remove_ours(report).await?;
        }
        for repository in &found.repositories {
            self.remove_ours(repository).await?;
        }
        for application in &found.applications {
            self.remove_kept(application).await?;
            self.remove_ours(application).await?;
        }
        Ok(())
    }

    /// Removes what an Application was. Not left to the garbage collector: the kind of its owner goes as well, and it does not judge
    /// owners that it cannot ask for.
    async fn remove_kept(&self, application: &Application) -> anyhow::Result<()> {
        let kept: Api<ControllerRevision> =
            Api::namespaced(self.connection.client.clone(), &application.namespace().unwrap_or_default());
        let of = format!("{}={}", names::APPLICATION_LABEL, application.name_any());
        let all = kept.list_metadata(&ListParams::default().labels(&of)).await.map_err(explained)?;
        let is_its = |owner: &OwnerReference| Some(&owner.uid) == application.metadata.uid.as_ref();
        let is_its_or_nobodys = |of: &[OwnerReference]| of.is_empty() || of.iter().any(is_its);
        for revision in all.items.iter().filter(|r| is_its_or_nobodys(r.owner_references())) {
            let preconditions = Some(Preconditions { uid: revision.uid(), ..Preconditions::default() });
            let params = DeleteParams { preconditions, ..DeleteParams::default() };
            match kept.delete(&revision.name_any(), &params).await {
                Err(kube::Error::Api(e)) if e.code == 404 || e.code == 409 => {}
                other => drop(other.map_err(explained)?),
            }
        }
        Ok(())
    }

    async fn remove_ours<K>(&self, object: &K) -> anyhow::Result<()>
    where
        K: kube::Resource<DynamicType = ()>,
    {
        let gvk = Gvk::new(&K::api_version(&()), &K::kind(&()));
        let Some(resource) = self.discovery.resource(&gvk) else { return Ok(()) };
        let metadata = object.meta().clone();
        let object = DynamicObject { types: None, metadata, data: serde_json::Value::Null };
        self.remove(&Thing { resource, object }).await
    }

    async fn remove(&self, thing: &Thing) -> anyhow::Result<()> {
        let id = thing.id();
        let uid = thing.object.uid().unwrap_or_default();
        let how = Propagation::Background;
        let gone = delete(&self.access, &thing.resource, &id.namespace, &id.name, &uid, None, how).await?;
        if matches!(gone, Deletion::Deleted | Deletion::Deleting) {
            anstream::println!("{id} removed");
        }
        Ok(())
    }

    /// Waits until an object is gone.
    async fn gone(&self, thing: &Thing) -> anyhow::Result<()> {
        let (id, deadline) = (thing.id(), Instant::now() + GONE);
        let mut look_again = Instant::now() + OVERLOOKED;
        while let Some(there) = get(&self.access, &thing.resource, &id.namespace, &id.name).await? {
            if there["metadata"]["uid"].as_str() != thing.object.uid().as_deref() {
                return Ok(());
            }
            if Instant::now() >= deadline {
                bail!(
                    "{id} is still there after {}s; do its objects have finalizers of others?",
                    GONE.as_secs()
                );
            }
            if Instant::now() >= look_again && id.kind == "CustomResourceDefinition" {
                crds::look_again(&self.access, &there).await?;
                look_again = Instant::now() + OVERLOOKED;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Ok(())
    }

    /// What is in a namespace that neither Kubernetes nor Windlass put there.
    async fn others_in(&self, namespace: &str) -> anyhow::Result<Vec<ObjectId>> {
        self.discovery.refresh().await?;
        let mut others = Vec::new();
        for resource in self.discovery.resources() {
            let kind = resource.gvk.kind.as_str();
            let passing = matches!(kind, "Event" | "EndpointSlice" | "Endpoints" | "PodMetrics");
            if !resource.namespaced || passing || !resource.can("list") || !resource.can("delete") {
                continue;
            }
            let api: Api<DynamicObject> =
                Api::namespaced_with(self.connection.client.clone(), namespace, &resource.api_resource());
            for object in patiently(async || api.list(&ListParams::default().limit(50)).await).await?.items {
                let name = object.name_any();
                let given = matches!(
                    (kind, name.as_str()),
                    ("ServiceAccount", "default") | ("ConfigMap", "kube-root-ca.crt")
                );
                let leaving =
                    object.metadata.deletion_timestamp.is_some() || !object.owner_references().is_empty();
                if !given && !leaving {
                    others.push(resource.id(namespace, &name));
                }
            }
        }
        Ok(others)
    }
}
