//! `spec.deliveries` of a Repository: one Delivery for each directory that matches.

use super::daemon::Daemon;
use super::sources::{Awaited, Fetched, Known};
use crate::api::delivery::{DeliverySpec, DeliveryTemplate, Problem, Source};
use crate::api::repository::{DeliverySet, RepositoryStatus};
use crate::api::{Delivery, Repository, names};
use crate::core::tree::{Tree, join};
use crate::render::yaml::{Keep, Limits, parse};
use crate::source::matching_directories;
use futures::{StreamExt, stream};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, Preconditions};
use kube::{Api, Resource, ResourceExt};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// A directory's own settings of its Delivery.
const FILE: &str = "windlass.yaml";

/// The reason when the API server does not take the Deliveries.
pub const NOT_WRITTEN: &str = "DeliveriesNotWritten";

/// Largest `windlass.yaml`, in bytes.
const FILE_LIMIT: u64 = 64 << 10;

/// Deliveries that are written at once.
const AT_ONCE: usize = 8;

/// Fields that decide what a tenant may do: a directory cannot set them for itself.
const RESERVED: [&str; 4] = ["serviceAccountName", "targetNamespace", "createNamespace", "source"];

fn problem(reason: &str, message: impl Into<String>) -> Problem {
    Problem { reason: reason.into(), object: String::new(), message: message.into() }
}

/// The Deliveries that a tree asks for.
#[derive(Debug, Default)]
pub struct Wanted {
    /// What they are to be, by name.
    pub specs: BTreeMap<String, DeliverySpec>,
    /// By name, those whose directory holds a `windlass.yaml` that cannot be used: nobody knows what they are to be, so they stay
    /// as they are, with the commit that they have.
    pub unusable: BTreeMap<String, Unusable>,
}

/// A directory whose own settings cannot be used.
#[derive(Clone, Debug)]
pub struct Unusable {
    /// The directory.
    pub path: String,
    /// What is wrong with its file.
    pub problem: Problem,
}

impl Wanted {
    fn names(&self, name: &str) -> bool {
        self.specs.contains_key(name) || self.unusable.contains_key(name)
    }

    /// What is wrong with the first of them, and how many more there are.
    fn problem(&self) -> Option<Problem> {
        let mut problem = self.unusable.values().next()?.problem.clone();
        if let more @ 1.. = self.unusable.len() - 1 {
            problem.message += &format!("; and {more} more such files");
        }
        Some(problem)
    }
}

/// The Deliveries that a tree asks for. Pure but for reading the tree. A directory whose own settings cannot be used keeps no
/// other from its own; whatever else is wrong is wrong for all of them.
pub fn wanted(repository: &str, sets: &[DeliverySet], tree: &dyn Tree) -> Result<Wanted, Problem> {
    let mut wanted = Wanted::default();
    let mut paths: BTreeMap<String, String> = BTreeMap::new();
    for set in sets {
        let directories = matching_directories(tree, &set.path)
            .map_err(|e| problem("InvalidPath", format!("spec.deliveries path \"{}\": {e}", set.path)))?;
        for path in directories {
            let directory = match path.rsplit('/').next() {
                Some("") | None => repository,
                Some(last) => last,
            };
            let template = expand(&set.template, directory, &path)?;
            let name = name_for(repository, directory);
            if let Some(other) = paths.get(&name)
                && *other != path
            {
                return Err(problem(
                    "NameCollision",
                    format!(
                        "the directories \"{other}\" and \"{path}\" both end in \"{directory}\" and would both make the Delivery \
                         {name}; rename one, or give them Deliveries of their own"
                    ),
                ));
            }
            paths.insert(name.clone(), path.clone());
            match overridden(template, tree, &path) {
                Ok(template) => {
                    let source = Source { repository: repository.into(), path, ..Source::default() };
                    wanted.specs.insert(name, DeliverySpec { source, template });
                }
                Err(problem) => _ = wanted.unusable.insert(name, Unusable { path, problem }),
            }
        }
    }
    // Two sets may give one directory; one that can be used is no excuse for the other.
    wanted.specs.retain(|name, _| !wanted.unusable.contains_key(name));
    Ok(wanted)
}

/// A name for the Delivery of a directory: the directory's, with what a name cannot hold replaced.
fn name_for(repository: &str, directory: &str) -> String {
    let text: String = directory
        .to_lowercase()
        .chars()
        .map(|c| if c.is_ascii_lowercase() || c.is_ascii_digit() || c == '.' { c } else { '-' })
        .take(200)
        .collect();
    let text = text.trim_matches(|c| c == '-' || c == '.').to_owned();
    if text.is_empty() { repository.to_owned() } else { text }
}

fn expand(template: &DeliveryTemplate, directory: &str, path: &str) -> Result<DeliveryTemplate, Problem> {
    let mut value = json!(template);
    expand_texts(&mut value, directory, path);
    serde_json::from_value(value)
        .map_err(|e| problem("InvalidTemplate", format!("spec.deliveries template: {e}")))
}

fn expand_texts(value: &mut Value, directory: &str, path: &str) {
    match value {
        Value::String(text) if text.contains("{{") => {
            for (name, by) in [("directory", directory), ("path", path)] {
                for form in [format!("{{{{ {name} }}}}"), format!("{{{{{name}}}}}")] {
                    *text = text.replace(&form, by);
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|v| expand_texts(v, directory, path)),
        Value::Object(map) => map.values_mut().for_each(|v| expand_texts(v, directory, path)),
        _ => {}
    }
}

/// A template with what the directory's own `windlass.yaml` sets.
pub fn overridden(
    template: DeliveryTemplate,
    tree: &dyn Tree,
    path: &str,
) -> Result<DeliveryTemplate, Problem> {
    let file = join(path, FILE);
    let invalid = |message: String| problem("InvalidWindlassYaml", format!("{file}: {message}"));
    if !matches!(tree.entry(&file), Ok(Some(_))) {
        return Ok(template);
    }
    let text = tree.read(&file, FILE_LIMIT).map_err(|e| invalid(e.to_string()))?;
    let text = String::from_utf8(text).map_err(|_| invalid("is not UTF-8 text".into()))?;
    let mut documents = parse(&text, Keep::Variables, &Limits::default())
        .map_err(|e| invalid(format!("line {}: {}", e.line, e.problem)))?;
    if documents.len() > 1 {
        return Err(invalid("holds more than one document".into()));
    }
    let own = documents.pop().map_or(Value::Null, |d| d.value);
    let own = match own {
        Value::Null => return Ok(template),
        Value::Object(map) => map,
        _ => return Err(invalid("must be a mapping of fields of a Delivery's spec".into())),
    };
    let mut value = json!(template);
    for (field, setting) in own {
        if RESERVED.contains(&field.as_str()) {
            return Err(invalid(format!(
                "{field} decides what a tenant may do and cannot be set here; set it in the Repository's \
                 spec.deliveries"
            )));
        }
        value[field] = setting;
    }
    strict(value).map_err(invalid)
}

/// Reads a template and refuses fields that it does not have.
fn strict(value: Value) -> Result<DeliveryTemplate, String> {
    let template: DeliveryTemplate = serde_json::from_value(value.clone()).map_err(|e| e.to_string())?;
    let known = json!(template);
    if let (Value::Object(given), Value::Object(known)) = (&value, &known) {
        // A field that is set to its default is not written again; only what no schema has is unknown.
        let schema = json!(schemars::schema_for!(DeliveryTemplate));
        for field in given.keys() {
            if !known.contains_key(field) && schema["properties"].get(field).is_none() {
                return Err(format!("there is no field {field}; see the fields of a Delivery's spec"));
            }
        }
    }
    Ok(template)
}

/// How long it may take until the watch has shown all Deliveries.
const SHOWN: Duration = Duration::from_secs(30);

/// The Deliveries that a Repository made, by name: as the watch shows them, which has read them anyway, else as they are listed.
/// The watch may be a moment behind: what is then written again is the same, and a Delivery that goes is looked for when it is
/// gone.
async fn there(
    daemon: &Daemon,
    api: &Api<Delivery>,
    namespace: &str,
    repository: &str,
) -> Result<BTreeMap<String, Arc<Delivery>>, kube::Error> {
    if let Some(shown) = daemon.shown.get()
        && tokio::select! {
            biased;
            () = tokio::time::sleep(SHOWN) => false,
            () = daemon.all_deliveries_seen() => true,
        }
    {
        let ours = |d: &Delivery| {
            d.metadata.namespace.as_deref() == Some(namespace)
                && d.labels().get(names::REPOSITORY_LABEL).is_some_and(|of| of == repository)
        };
        return Ok(shown.deliveries.state_filter(ours).into_iter().map(|d| (d.name_any(), d)).collect());
    }
    let selector = format!("{}={repository}", names::REPOSITORY_LABEL);
    let listed = api.list(&ListParams::default().labels(&selector)).await?.items;
    Ok(listed.into_iter().map(|d| (d.name_any(), Arc::new(d))).collect())
}

/// What a commit makes of a Repository's Deliveries.
pub enum Expanded {
    /// What is there already: how many they are, `None` when the Repository asks for none.
    AsTheyAre(Option<i64>),
    /// What is to be written.
    Anew(Expansion),
}

/// Deliveries to make, change and remove.
pub struct Expansion {
    /// Commit and generation.
    seen: String,
    wanted: Wanted,
    there: BTreeMap<String, Arc<Delivery>>,
}

impl Expansion {
    /// It went and came back before its objects were gone: it is made anew when they are.
    fn is_going(&self, name: &str) -> bool {
        self.there.get(name).is_some_and(|d| d.metadata.deletion_timestamp.is_some())
    }

    fn changed(&self) -> impl Iterator<Item = (&String, &DeliverySpec)> {
        let differs =
            |name: &String, spec: &DeliverySpec| self.there.get(name).is_none_or(|d| d.spec != *spec);
        self.wanted.specs.iter().filter(move |(name, spec)| !self.is_going(name) && differs(name, spec))
    }

    fn gone(&self) -> Vec<&Arc<Delivery>> {
        let gone = |(name, d): &(&String, &Arc<Delivery>)| {
            !self.wanted.names(name) && d.metadata.deletion_timestamp.is_none()
        };
        self.there.iter().filter(gone).map(|(_, delivery)| delivery).collect()
    }

    /// Has the commit taken together with these specs: at the moment in which it becomes known. Answers whether other Deliveries
    /// than before have to go without it.
    pub fn await_in(&self, known: &mut Known) -> bool {
        let mut awaited = (*known.awaited).clone();
        let refused = |awaited: &BTreeMap<String, Awaited>| -> Vec<(String, Awaited)> {
            let refused = awaited.iter().filter(|(_, how_far)| matches!(how_far, Awaited::Refused(_)));
            refused.map(|(name, how_far)| (name.clone(), how_far.clone())).collect()
        };
        let before = refused(&awaited);
        let changed: BTreeSet<&String> = self.changed().map(|(name, _)| name).collect();
        awaited.retain(|name, how_far| {
            self.wanted.specs.contains_key(name)
                && (changed.contains(name) || !matches!(how_far, Awaited::Refused(_)))
        });
        for (name, how_far) in &mut awaited {
            let shown = self.there.get(name).and_then(|d| d.resource_version()?.parse().ok());
            if let (Awaited::Writing, Some(version)) = (&how_far, shown) {
                *how_far = Awaited::Written(version);
            }
        }
        for name in changed.into_iter().filter(|name| self.there.contains_key(*name)) {
            // What was refused is refused until it was taken.
            if !matches!(awaited.get(name), Some(Awaited::Refused(_))) {
                awaited.insert(name.clone(), Awaited::Writing);
            }
        }
        for (name, unusable) in &self.wanted.unusable {
            awaited.insert(name.clone(), Awaited::Refused(unusable.problem.clone()));
        }
        let others = refused(&awaited) != before;
        known.awaited = Arc::new(awaited);
        others
    }
}

/// What a commit makes of the Deliveries. Writes nothing.
pub async fn look(
    daemon: &Daemon,
    repository: &Repository,
    fetched: &Fetched,
    before: &RepositoryStatus,
) -> Result<Expanded, Problem> {
    if repository.spec.deliveries.is_empty() && before.deliveries.unwrap_or(0) == 0 {
        return Ok(Expanded::AsTheyAre(None));
    }
    let namespace = repository.namespace().unwrap_or_default();
    let name = repository.name_any();
    let seen =
        format!("{}/{}", fetched.commit.id.as_str(), repository.metadata.generation.unwrap_or_default());
    if daemon.directories_seen(&namespace, &name).as_deref() == Some(&seen) {
        return Ok(Expanded::AsTheyAre(before.deliveries));
    }
    let key = (namespace.clone(), name.clone());
    let Some(store) = daemon.sources.get(&key).and_then(|k| k.store) else {
        return Ok(Expanded::AsTheyAre(before.deliveries));
    };
    let (sets, of) = (repository.spec.deliveries.clone(), name.clone());
    let tree = store.mirror.tree(&fetched.commit.id).await.map_err(|e| problem(e.reason(), e.to_string()))?;
    let wanted = crate::render::in_tree(tree, move |tree| wanted(&of, &sets, tree))
        .await
        .map_err(|e| problem("Internal", e.to_string()))??;
    let api: Api<Delivery> = Api::namespaced(daemon.connection.client.clone(), &namespace);
    let failed = |error: kube::Error| problem(NOT_WRITTEN, error.to_string());
    let there = there(daemon, &api, &namespace, &name).await.map_err(failed)?;
    let expansion = Expansion { seen, wanted, there };
    let (gone, wanted, there) = (expansion.gone(), &expansion.wanted, &expansion.there);
    // Most directories gone at once is a moved directory or a wrong branch rather than a wish.
    if gone.len() > 1 && gone.len() * 2 > there.len()
        || (!gone.is_empty() && wanted.specs.is_empty() && wanted.unusable.is_empty())
    {
        let confirmed = repository.annotations().get(names::CONFIRM_REMOVAL);
        let commit = fetched.commit.id.as_str();
        if !confirmed.is_some_and(|c| c.len() >= 7 && commit.starts_with(c.as_str())) {
            return Err(problem(
                "MassRemoval",
                format!(
                    "{} of {} directories are gone in {commit}; nothing was removed. If that is meant: kubectl annotate \
                     --overwrite repository -n {namespace} {name} {}={}",
                    gone.len(),
                    there.len(),
                    names::CONFIRM_REMOVAL,
                    &commit[..12.min(commit.len())]
                ),
            ));
        }
    }
    Ok(Expanded::Anew(expansion))
}

/// Makes, changes and removes Deliveries. Answers how many there are, and what could not be used.
pub async fn write(
    daemon: &Daemon,
    repository: &Repository,
    expansion: &Expansion,
) -> Result<(Option<i64>, Option<Problem>), Problem> {
    let namespace = repository.namespace().unwrap_or_default();
    let name = repository.name_any();
    let key = (namespace.clone(), name.clone());
    let api: Api<Delivery> = Api::namespaced(daemon.connection.client.clone(), &namespace);
    let failed = |error: kube::Error| problem(NOT_WRITTEN, error.to_string());
    let params = PatchParams::apply(names::FIELD_MANAGER).force();
    let Some(owner) = repository.owner_ref(&()) else { return Ok((None, None)) };
    let (wanted, there) = (&expansion.wanted, &expansion.there);
    let all = wanted.unusable.is_empty() && !wanted.specs.keys().any(|name| expansion.is_going(name));
    let changed: Vec<(&String, &DeliverySpec)> = expansion.changed().collect();
    let made = |name: &str| there.contains_key(name);
    if changed.iter().any(|(name, _)| !made(name)) {
        // One list for all of them: a question for each would take longer than making them.
        let others = api.list_metadata(&ListParams::default()).await.map_err(failed)?.items;
        let others: BTreeSet<String> = others
            .iter()
            .filter(|d| d.labels().get(names::REPOSITORY_LABEL) != Some(&name))
            .map(ResourceExt::name_any)
            .collect();
        let taken = |name: &str| !made(name) && others.contains(name);
        if let Some((delivery, spec)) = changed.iter().find(|(name, _)| taken(name)) {
            return Err(problem(
                "NameCollision",
                format!(
                    "a Delivery {namespace}/{delivery} is there that this Repository did not make; rename the directory \
                     \"{}\" or the Delivery",
                    spec.source.path
                ),
            ));
        }
    }
    // Collected first: a closure over borrowed objects is not general enough for a future that is sent to a thread.
    let mut writes = Vec::with_capacity(changed.len());
    for (delivery, spec) in changed {
        let body = json!({
            "apiVersion": "windlass.dev/v1alpha1", "kind": "Delivery",
            "metadata": {
                "name": delivery, "namespace": namespace,
                "labels": {names::REPOSITORY_LABEL: name},
                "finalizers": [names::FINALIZER],
                "ownerReferences": [owner],
            },
            "spec": spec,
        });
        let (api, params, key) = (&api, &params, &key);
        writes.push(async move {
            let written = api.patch(delivery, params, &Patch::Apply(body)).await;
            if let Err(kube::Error::Api(e)) = &written
                && [400, 422].contains(&e.code)
            {
                let problem = problem(NOT_WRITTEN, format!("its spec was not taken: {}", e.message));
                daemon.sources.update(key, |known| known.awaits(delivery, Awaited::Refused(problem)));
            }
            let written = written?;
            if let Some(version) = written.resource_version().and_then(|text| text.parse().ok()) {
                daemon.sources.update(key, |known| known.awaits(delivery, Awaited::Written(version)));
            }
            Ok(())
        });
    }
    // One that is refused keeps no other from its commit.
    let written: Vec<Result<(), kube::Error>> =
        stream::iter(writes).buffer_unordered(AT_ONCE).collect().await;
    written.into_iter().collect::<Result<(), _>>().map_err(failed)?;
    for delivery in expansion.gone() {
        let params = DeleteParams {
            preconditions: Some(Preconditions { uid: delivery.uid(), resource_version: None }),
            ..DeleteParams::default()
        };
        match api.delete(&delivery.name_any(), &params).await {
            Ok(_) => {}
            Err(kube::Error::Api(e)) if e.code == 404 || e.code == 409 => {}
            Err(error) => return Err(failed(error)),
        }
    }
    if all {
        daemon.set_directories_seen(&namespace, &name, expansion.seen.clone());
    }
    Ok((Some(i64::try_from(wanted.specs.len()).unwrap_or(i64::MAX)), wanted.problem()))
}
