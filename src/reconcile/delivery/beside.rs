//! Objects that what was found out about another one rests on, and that the watch of what carries our label does not show: an
//! object that lost the label and is not written back, an autoscaler that has the replicas of a workload, and a route of
//! others that a rollout divides.

use super::Scope;
use crate::cluster::objects::{Known, Waiter};
use crate::cluster::{NamedObject, Resource};
use crate::core::autoscale;
use crate::core::digest;
use crate::core::manifest::{Gvk, ObjectId};
use serde_json::Value;

/// Keeps an eye on such an object while it is held; the Delivery is woken when it is another than it was.
pub struct Beside {
    waiter: Waiter<Option<String>>,
    seen: String,
}

impl Beside {
    /// Whether it is another than it was. As long as it cannot be watched nothing is known to have changed.
    pub fn is_outdated(&self) -> bool {
        self.waiter.made().is_some_and(|now| now != self.seen)
    }

    /// A route of others, as it was left; `None` where it is not there.
    pub fn route(scope: &Scope<'_>, resource: &Resource, id: &ObjectId, there: Option<&Value>) -> Self {
        let place = (id.namespace.as_str(), id.name.as_str());
        let empty = Value::Null;
        let mut beside =
            Beside::of(scope, resource.gvk.clone(), place, there.unwrap_or(&empty), without_bookkeeping);
        if there.is_none() {
            beside.seen = String::new();
        }
        beside
    }

    fn of(
        scope: &Scope<'_>,
        gvk: Gvk,
        (namespace, name): (&str, &str),
        there: &Value,
        essence: fn(&Value) -> String,
    ) -> Self {
        let object = NamedObject {
            account: scope.account(),
            gvk,
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        };
        let make = move |known: &Known| match known {
            Known::Unseen | Known::Failing(_) => None,
            Known::Absent => Some(String::new()),
            Known::Present(object) => Some(essence(object)),
        };
        let wake = scope.daemon.waker(&scope.label);
        Beside { waiter: scope.daemon.objects.ensure(&object, make, wake), seen: essence(there) }
    }
}

/// An object of the Delivery that is out of sight, as it was read.
pub fn out_of_sight(scope: &Scope<'_>, gvk: &Gvk, id: &ObjectId, there: &Value) -> Beside {
    Beside::of(scope, gvk.clone(), (&id.namespace, &id.name), there, without_bookkeeping)
}

/// An autoscaler that has the replicas of a workload, as it was listed.
pub fn autoscaler(scope: &Scope<'_>, resource: &Resource, scaler: &Value) -> Beside {
    let text = |field: &str| scaler["metadata"][field].as_str().unwrap_or_default();
    let place = (text("namespace"), text("name"));
    Beside::of(scope, resource.gvk.clone(), place, scaler, |scaler| {
        autoscale::target(scaler).map_or_else(String::new, |target| target.to_string())
    })
}

/// What of an object is not written all the time by those who look after it.
fn without_bookkeeping(object: &Value) -> String {
    let mut object = object.clone();
    let Some(fields) = object.as_object_mut() else { return String::new() };
    fields.remove("status");
    if let Some(metadata) = object["metadata"].as_object_mut() {
        for field in ["managedFields", "resourceVersion", "generation"] {
            metadata.remove(field);
        }
    }
    digest::of_value(&object)
}
