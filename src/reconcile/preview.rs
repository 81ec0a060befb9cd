//! What delivering a repository would do, found out without writing anything.

use super::daemon::Options;
use super::delivery::bundle::{ClusterScopes, options, render};
use super::delivery::inventory;
use super::delivery::observe::inputs_digest;
use super::delivery::prepare::{Knows, Planner};
use super::delivery::settings::{Comparable, read_from};
use super::delivery::work::Act;
use super::directories::wanted;
use crate::api::delivery::{DeletionPolicy, DeliverySpec, EntryOrigin, Goal, InventoryEntry};
use crate::api::repository::RepositorySpec;
use crate::api::{Delivery, names};
use crate::cluster::apply::{Guard, dry_run, get};
use crate::cluster::{Access, ApplyError, Connection, Discovery};
use crate::core::diff::changes_between;
use crate::core::hook_outlook::{Fate, Outlook, outlook};
use crate::core::manifest::Manifest;
use crate::core::plan;
use crate::core::tree::{EntryKind, Tree};
use crate::source::{Credentials, Limits, Mirror, Reference, RemoteUrl};
use k8s_openapi::api::core::v1::Namespace;
use kube::api::ListParams;
use kube::{Api, ResourceExt};
use std::collections::BTreeMap;
use std::sync::Arc;

/// How often, and how soon, the server is asked again that has no time: right after our definitions came it makes room for
/// them first.
const PATIENCE: usize = 20;
const PAUSE: std::time::Duration = std::time::Duration::from_millis(500);

/// What delivering a repository would do.
#[derive(Clone, Debug, Default)]
pub struct Preview {
    /// `branch@sha1:<commit>`.
    pub revision: String,
    /// Each directory that would be delivered.
    pub directories: Vec<Directory>,
    /// Directories that were delivered so far and are not any more: their Deliveries go, with these objects.
    pub leaving: Vec<Directory>,
    /// Directories that do not match, when none does.
    pub others: Vec<String>,
}

impl Preview {
    /// Whether something would be written.
    pub fn changes(&self) -> bool {
        let changes = |d: &Directory| {
            [&d.create, &d.adopt, &d.update, &d.remove].iter().any(|objects| !objects.is_empty())
                || d.hooks.iter().any(|hook| hook.fate == Fate::Runs)
        };
        !self.leaving.is_empty() || self.directories.iter().any(changes)
    }

    /// Whether something would not work.
    pub fn failed(&self) -> bool {
        self.directories.is_empty() || self.directories.iter().any(|d| d.problem.is_some())
    }
}

/// What delivering one directory would do.
#[derive(Clone, Debug, Default)]
pub struct Directory {
    /// Its path.
    pub path: String,
    /// Where its objects go.
    pub namespace: String,
    /// The namespace is not there.
    pub namespace_missing: bool,
    /// Objects that are not there.
    pub create: Vec<String>,
    /// Objects that are there and belong to nobody.
    pub adopt: Vec<String>,
    /// Objects that are delivered by this Delivery already, and change.
    pub update: Vec<String>,
    /// Objects that are delivered by this Delivery already, as they should be.
    pub keep: Vec<String>,
    /// Objects that this Delivery has, and that are removed since they left Git.
    pub remove: Vec<String>,
    /// What would become of its hooks.
    pub hooks: Vec<Outlook>,
    /// Why it would not work.
    pub problem: Option<String>,
}

/// Looks at a repository and the cluster. The error is a sentence.
pub async fn look(
    connection: &Connection,
    discovery: &Discovery,
    choices: &Options,
    home: &str,
    name: &str,
    spec: &RepositorySpec,
    credentials: Credentials,
) -> Result<Preview, String> {
    let url = RemoteUrl::parse(&spec.url, true).map_err(|e| e.to_string())?;
    let mirror = Mirror::open(&choices.cache_dir, url).map_err(|e| e.to_string())?;
    let reference = match &spec.reference {
        Some(r) => r.branch.clone().map_or(Reference::Default, Reference::Branch),
        None => Reference::Default,
    };
    let polled =
        mirror.poll(&reference, None, &credentials, &Limits::default()).await.map_err(|e| e.to_string())?;
    let tree: Arc<dyn Tree> = Arc::new(mirror.tree(&polled.commit).map_err(|e| e.to_string())?);
    let found = wanted(name, &spec.deliveries, tree.as_ref()).map_err(|p| p.message)?;
    let mut preview = Preview { revision: polled.revision(), ..Preview::default() };
    if found.specs.is_empty() && found.unusable.is_empty() {
        preview.others = directories(tree.as_ref());
        return Ok(preview);
    }
    let place = Place { connection, discovery, choices, home };
    let mut existing = delivered(connection, home, name).await?;
    for (delivery, unusable) in found.unusable {
        // It stays as it is.
        let existing = existing.remove(&delivery);
        preview.directories.push(Directory {
            namespace: existing.and_then(|d| d.spec.template.target_namespace).unwrap_or_default(),
            path: unusable.path,
            problem: Some(unusable.problem.message),
            ..Directory::default()
        });
    }
    for (delivery, spec) in found.specs {
        let existing = existing.remove(&delivery);
        preview.directories.push(directory(&place, &delivery, &spec, &tree, existing.as_ref()).await);
    }
    for delivery in existing.into_values() {
        let template = &delivery.spec.template;
        let orphan = template.deletion_policy == Some(DeletionPolicy::Orphan);
        preview.leaving.push(Directory {
            path: delivery.spec.source.path.clone(),
            namespace: template.target_namespace.clone().unwrap_or_default(),
            remove: if orphan { Vec::new() } else { removed(&delivery, |_| true) },
            ..Directory::default()
        });
    }
    Ok(preview)
}

/// The Deliveries that this Repository has made so far, by name.
async fn delivered(
    connection: &Connection,
    home: &str,
    repository: &str,
) -> Result<BTreeMap<String, Delivery>, String> {
    let api: Api<Delivery> = Api::namespaced(connection.client.clone(), home);
    let made_by = ListParams::default().labels(&format!("{}={repository}", names::REPOSITORY_LABEL));
    let mut listed = api.list(&made_by).await;
    for _ in 0..PATIENCE {
        if !matches!(&listed, Err(kube::Error::Api(e)) if e.code == 429) {
            break;
        }
        tokio::time::sleep(PAUSE).await;
        listed = api.list(&made_by).await;
    }
    let found = match listed {
        Ok(found) => found.items,
        // Windlass was never here.
        Err(kube::Error::Api(e)) if e.code == 404 => Vec::new(),
        Err(error) => return Err(format!("the Deliveries of namespace {home} could not be read: {error}")),
    };
    let mut all = BTreeMap::new();
    for mut delivery in found {
        inventory::complete(&connection.client, &mut delivery, &mut inventory::Shards::new()).await.map_err(
            |error| format!("the inventory of {} could not be read: {error}", delivery.name_any()),
        )?;
        all.insert(delivery.name_any(), delivery);
    }
    Ok(all)
}

/// The objects of a Delivery that would be deleted, of those that leave it.
fn removed(delivery: &Delivery, leaves: impl Fn(&InventoryEntry) -> bool) -> Vec<String> {
    let inventory = delivery.status.iter().flat_map(|s| &s.inventory);
    let deleted = inventory.filter(|e| leaves(e) && plan::removal(e, false) == plan::Removal::Delete);
    deleted.map(|e| e.id().to_string()).collect()
}

/// The directories of the first two levels.
fn directories(tree: &dyn Tree) -> Vec<String> {
    let below = |dir: &str| -> Vec<String> {
        let entries = tree.entries(dir).unwrap_or_default();
        entries
            .into_iter()
            .filter(|e| e.kind == EntryKind::Directory && !e.name.starts_with('.'))
            .map(|e| crate::core::tree::join(dir, &e.name))
            .collect()
    };
    let top = below("");
    let mut all = top.clone();
    for dir in &top {
        all.extend(below(dir));
    }
    all.sort();
    all.truncate(40);
    all
}

/// Where a repository would be delivered, and by whom.
struct Place<'a> {
    connection: &'a Connection,
    discovery: &'a Discovery,
    choices: &'a Options,
    home: &'a str,
}

async fn directory(
    place: &Place<'_>,
    delivery: &str,
    spec: &DeliverySpec,
    tree: &Arc<dyn Tree>,
    existing: Option<&Delivery>,
) -> Directory {
    let Place { connection, discovery, choices, home } = place;
    let namespace = spec.template.target_namespace.clone().unwrap_or_default();
    let mut answer = Directory { path: spec.source.path.clone(), namespace, ..Directory::default() };
    let label = names::delivery_label(&choices.installation, home, delivery);
    let substitute = spec.template.substitute.as_ref();
    let read = read_from(home, substitute, &connection.access(None), &[], jiff::Timestamp::now()).await;
    let settings = match read.settings {
        Ok(settings) => settings,
        Err(problem) => {
            answer.problem = Some(crate::core::rollout::status::told(&problem));
            return answer;
        }
    };
    let rendering = options(spec, Some(&settings), &choices.renderer);
    let rendered =
        render(tree.clone(), &spec.source.path, &rendering, &ClusterScopes(discovery), &label).await;
    let bundle = match rendered {
        Ok((bundle, _)) => bundle,
        Err(refusal) => {
            answer.problem = Some(settings.redact(&refusal.problem.message));
            return answer;
        }
    };
    if let Some(existing) = existing
        && spec.template.prune.unwrap_or(true)
    {
        answer.remove = removed(existing, |entry| bundle.get(&entry.id()).is_none());
    }
    if let Ok(trees) = crate::render::inputs(tree.as_ref(), &spec.source.path) {
        let inputs = inputs_digest(&spec.template, &trees);
        let values = substitute.is_some().then_some(&settings.values);
        let known = match existing {
            Some(existing) => Some(Comparable::read(existing, &connection.access(None), values).await),
            None => None,
        };
        let same_values = |digest: &str| known.as_ref().and_then(|known| known.is(digest));
        let status = existing.and_then(|d| d.status.as_ref());
        answer.hooks = outlook(bundle.hooks(), &inputs, status, &same_values);
    }
    let brings = plan::brings(bundle.objects());
    let spaces: Api<Namespace> = Api::all(connection.client.clone());
    if !answer.namespace.is_empty() && !brings.namespaces.contains(&answer.namespace) {
        answer.namespace_missing = matches!(spaces.get_opt(&answer.namespace).await, Ok(None));
    }
    let access = connection.access(None);
    let nothing = |_: &crate::core::manifest::Manifest| None;
    // Without the definitions there are none yet, and nothing can be in conflict with them.
    let known = Api::<Delivery>::all(connection.client.clone()).list(&ListParams::default()).await;
    let known = known.map(|list| list.items).unwrap_or_default();
    let owner = |label: &str| names::owner(&choices.installation, &known, label);
    let ignore = spec.template.drift.as_ref().map_or(&[][..], |d| &d.ignore);
    let rules = crate::core::ignore::Rules::parse(ignore).map(Arc::new);
    let planner = Planner {
        access: &access,
        discovery,
        key: &[],
        label: &label,
        live: &nothing,
        now: jiff::Timestamp::now(),
        previous: None,
        owner: &owner,
        knows: Knows::All,
        rules,
        adopt: spec.template.adopt.unwrap_or_default(),
    };
    let mut later = brings.clone();
    later.namespaces.insert(answer.namespace.clone());
    for manifest in bundle.objects() {
        let id = manifest.id().to_string();
        match planner.plan_object(manifest, None, &later, false, Goal::Deploy).await {
            Ok(planned) => match (planned.act, planned.origin) {
                (_, Some(EntryOrigin::Adopted)) => answer.adopt.push(id),
                (Act::Create | Act::Later, _) => answer.create.push(id),
                _ => match would_change(&access, discovery, manifest).await {
                    Ok(true) => answer.update.push(id),
                    Ok(false) => answer.keep.push(id),
                    Err(error) => {
                        answer.problem.get_or_insert(settings.redact(&error.to_string()));
                    }
                },
            },
            Err(refusal) => {
                let problem = settings.redact(&crate::core::rollout::status::told(&refusal.problem));
                answer.problem.get_or_insert(problem);
            }
        }
    }
    answer
}

/// Whether applying an object that is there would change it.
async fn would_change(
    access: &Access,
    discovery: &Discovery,
    manifest: &Manifest,
) -> Result<bool, ApplyError> {
    let Some(resource) = discovery.resource(&manifest.gvk()) else { return Ok(true) };
    let before = get(access, &resource, manifest.namespace(), manifest.name()).await?;
    let after = dry_run(access, &resource, &manifest.to_value(), Guard::Any).await?;
    Ok(before.is_none_or(|before| !changes_between(&before, &after.object).is_empty()))
}
