//! What a Delivery depends on, as it is now. Nothing is asked: Deliveries and Repositories are known to the daemon, and
//! other objects are watched, as the Delivery's account.

use super::Scope;
use super::work::Memory;
use crate::api::Delivery;
use crate::api::delivery::Problem;
use crate::cluster::objects::{Known, as_account};
use crate::cluster::{NamedObject, ServiceAccount};
use crate::core::expression::Expression;
use crate::core::health::{Status, verdict};
use crate::core::rollout::Dependencies;
use crate::core::rollout::dependencies::{self as core, Key, On};
use crate::reconcile::daemon::Daemon;
use crate::reconcile::dependencies::Node;
use kube::ResourceExt;
use kube::runtime::reflector::ObjectRef;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;

/// A watched object, and why it is not ready.
pub type Depended = BTreeMap<(NamedObject, Option<String>), crate::cluster::objects::Waiter<Option<String>>>;

fn not_ready(object: String, message: impl Into<String>) -> Problem {
    Problem { reason: core::NOT_READY.into(), object, message: message.into() }
}

/// Looks at all that a Delivery depends on.
pub fn look(scope: &Scope<'_>, memory: &mut Memory) -> Dependencies {
    let daemon = scope.daemon;
    let delivery = scope.delivery;
    let own = (delivery.namespace().unwrap_or_default(), delivery.name_any());
    let entries = &delivery.spec.template.depends_on;
    let on = match core::read(entries, &own.0) {
        Ok(on) => on,
        Err(problem) => {
            daemon.wake_keys(daemon.dependencies.depends(&own, Default::default()));
            memory.depended.clear();
            return Dependencies::Refused(problem);
        }
    };
    let nodes = on.iter().filter_map(|on| match on {
        On::Delivery(key) => Some(Node::Delivery(key.clone())),
        On::Repository(key) => Some(Node::Repository(key.clone())),
        On::Object { .. } => None,
    });
    daemon.wake_keys(daemon.dependencies.depends(&own, nodes.collect()));
    follow(scope, memory, &on);
    if on.is_empty() {
        return Dependencies::Ready;
    }
    if let Some(way) = core::cycle(&own, |key| edges(daemon, key)) {
        return Dependencies::Refused(core::told_cycle(&way));
    }
    let unready = on.iter().zip(entries).find_map(|(on, entry)| match on {
        On::Delivery(key) => delivery_unready(daemon, key, &own),
        On::Repository(key) => repository_unready(daemon, key),
        On::Object { gvk, namespace, name, .. } => {
            let object = object(scope.account(), gvk, namespace, name);
            let why = memory.depended.get(&(object, entry.ready.clone())).and_then(|w| w.made());
            why.map(|why| not_ready(format!("{} {namespace}/{name}", gvk.kind), why))
        }
    });
    unready.map_or(Dependencies::Ready, Dependencies::Waiting)
}

/// A Delivery that depends on this one and is being deleted too, as this one's status names it. Nobody waits in a circle.
pub fn going_before(scope: &Scope<'_>) -> Option<String> {
    let daemon = scope.daemon;
    let own = (scope.delivery.namespace().unwrap_or_default(), scope.delivery.name_any());
    if core::cycle(&own, |key| edges(daemon, key)).is_some() {
        return None;
    }
    let all = daemon.shown.get()?.deliveries.state();
    let going = all.iter().filter(|d| d.metadata.deletion_timestamp.is_some()).find(|d| {
        let key = (d.namespace().unwrap_or_default(), d.name_any());
        edges(daemon, &key).contains(&own)
    })?;
    Some(match going.namespace().unwrap_or_default() {
        namespace if namespace == own.0 => format!("Delivery {namespace}/{}", going.name_any()),
        _ => "a Delivery of another namespace".into(),
    })
}

/// The Deliveries that one depends on and may.
fn edges(daemon: &Daemon, key: &Key) -> Vec<Key> {
    let Some(delivery) = shown(daemon, key) else { return Vec::new() };
    let mut on = core::deliveries(&delivery.spec.template.depends_on, &key.0);
    on.retain(|to| to.0 == key.0 || shown(daemon, to).is_some_and(|d| allows(&d, &key.0)));
    on
}

fn shown(daemon: &Daemon, (namespace, name): &Key) -> Option<Arc<Delivery>> {
    daemon.shown.get()?.deliveries.get(&ObjectRef::new(name).within(namespace))
}

fn allows(delivery: &Delivery, namespace: &str) -> bool {
    delivery.spec.template.allow_dependents_from.iter().any(|from| from == "*" || from == namespace)
}

fn delivery_unready(daemon: &Daemon, key: &Key, own: &Key) -> Option<Problem> {
    let object = format!("Delivery {}/{}", key.0, key.1);
    let foreign = key.0 != own.0;
    let there = shown(daemon, key).filter(|d| !foreign || allows(d, &own.0));
    let Some(there) = there else {
        return Some(not_ready(
            object,
            match foreign {
                // The same words for both: nothing is told of Deliveries that do not want to be depended on.
                true => format!(
                    "is not there, or does not name the namespace {} in its spec.allowDependentsFrom",
                    own.0
                ),
                false => "does not exist; spec.dependsOn names it".into(),
            },
        ));
    };
    let newest = daemon.sources.get(&there.source_key()).and_then(|known| known.fetched);
    let newest = newest.as_ref().map(|fetched| fetched.commit.id.as_str());
    let standing = daemon.dependencies.standing(key);
    let why = core::unready(standing.as_ref(), there.metadata.generation.unwrap_or_default(), newest)?;
    Some(not_ready(object, if foreign { "is not ready yet".to_owned() } else { why }))
}

fn repository_unready(daemon: &Daemon, key: &Key) -> Option<Problem> {
    let object = format!("Repository {}/{}", key.0, key.1);
    let shown = daemon.shown.get().and_then(|s| s.repositories.get(&ObjectRef::new(&key.1).within(&key.0)));
    let Some(there) = shown else {
        return Some(not_ready(object, "does not exist; spec.dependsOn names it"));
    };
    match daemon.dependencies.polled(key) {
        Some((generation, true)) if Some(generation) == there.metadata.generation => None,
        Some((generation, false)) if Some(generation) == there.metadata.generation => {
            Some(not_ready(object, "is not ready; its conditions say why"))
        }
        _ => Some(not_ready(object, "is not ready yet")),
    }
}

fn object(
    account: Option<ServiceAccount>,
    gvk: &crate::core::manifest::Gvk,
    namespace: &str,
    name: &str,
) -> NamedObject {
    NamedObject { account, gvk: gvk.clone(), namespace: namespace.into(), name: name.into() }
}

/// Watches the objects that the Delivery depends on, and no others.
fn follow(scope: &Scope<'_>, memory: &mut Memory, on: &[On]) {
    let account = scope.account();
    let texts = scope.delivery.spec.template.depends_on.iter().map(|d| d.ready.clone());
    let wanted: BTreeMap<(NamedObject, Option<String>), Option<Arc<Expression>>> = on
        .iter()
        .zip(texts)
        .filter_map(|(on, text)| match on {
            On::Object { gvk, namespace, name, rule } => {
                Some(((object(account.clone(), gvk, namespace, name), text), rule.clone()))
            }
            _ => None,
        })
        .collect();
    memory.depended.retain(|key, _| wanted.contains_key(key));
    for (key, rule) in wanted {
        if let Entry::Vacant(place) = memory.depended.entry(key) {
            let wake = scope.daemon.waker(&scope.label);
            let who = as_account(account.as_ref());
            let make = move |known: &Known| object_unready(known, rule.as_deref(), &who);
            let watch = scope.daemon.objects.ensure(&place.key().0, make, wake);
            place.insert(watch);
        }
    }
}

/// Why an object is not ready.
fn object_unready(known: &Known, rule: Option<&Expression>, who: &str) -> Option<String> {
    let object = match known {
        Known::Unseen => return Some("was not looked at yet".into()),
        Known::Failing(cause) => return Some(format!("cannot be watched by {who}: {cause}")),
        Known::Absent => return Some("is not in the cluster".into()),
        Known::Present(object) => object,
    };
    if object["metadata"]["deletionTimestamp"].is_string() {
        return Some("is being deleted".into());
    }
    match rule {
        Some(rule) => match rule.holds(object) {
            Ok(true) => None,
            Ok(false) => Some("is not ready by the expression in spec.dependsOn".into()),
            Err(error) => Some(error.to_string()),
        },
        None => {
            let verdict = verdict(object);
            match verdict.status {
                Status::Healthy => None,
                Status::Unknown => {
                    Some(format!("{}; say by an expression in `ready` when it is ready", verdict.message))
                }
                _ => Some(format!("is not ready: {}", verdict.message)),
            }
        }
    }
}
