//! What is left to others, found out in the cluster before an object is compared with it or applied.

use super::prepare::Planner;
use crate::api::delivery::Problem;
use crate::cluster::apply::{Applied, Guard, apply, get, list};
use crate::cluster::{Access, ApplyError, Cause, Discovery, Resource};
use crate::core::ignore::{Left, RuleError, Rules, leave};
use crate::core::manifest::{Gvk, ObjectId};
use crate::core::rollout::{INVALID_RULE, Refusal};
use crate::core::{autoscale, rightful, router};
use serde_json::Value;

/// How often an apply to one version of an object is tried while others write it at the same time.
const TRIES: usize = 5;

/// A rule that cannot be used, as status tells it.
pub fn problem(error: &RuleError) -> Problem {
    Problem { reason: INVALID_RULE.into(), object: String::new(), message: error.to_string() }
}

/// The same while a revision is under way: it waits for a rule that can be used.
pub fn refusal(error: &RuleError) -> Refusal {
    Refusal { problem: problem(error), transient: true }
}

/// The digest as the inventory keeps it. Where something is left to others we own less than Git names: an equal digest would
/// not mean that all is as Git says, should the rule go. So it is marked, and equals none.
pub fn marked(digest: String, left: bool) -> String {
    if left { format!("left:{digest}") } else { digest }
}

/// A manifest that says nothing about what is left to others in the object that is there. Autoscalers are asked for only where
/// replicas are not as we applied them.
pub async fn without_others(
    access: &Access,
    discovery: &Discovery,
    rules: &Rules,
    desired: &Value,
    live: &Value,
) -> Result<Left, ApplyError> {
    Ok(without_others_by(access, discovery, rules, desired, live).await?.0)
}

/// The same, and the autoscaler that has the replicas, if one has.
pub async fn without_others_by(
    access: &Access,
    discovery: &Discovery,
    rules: &Rules,
    desired: &Value,
    live: &Value,
) -> Result<(Left, Option<(Resource, Value)>), ApplyError> {
    let mut exemptions = rules.exemptions(desired, live);
    let scaler = match rightful::replicas_are_anothers(desired, live) {
        true => scaler(access, discovery, &id_of(desired)).await?,
        false => None,
    };
    exemptions.extend(rightful::exemptions(desired, live, scaler.is_some()));
    Ok((leave(desired, live, &exemptions), scaler))
}

fn id_of(object: &Value) -> ObjectId {
    let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
    let kind = text(&object["kind"]);
    let gvk = Gvk::new(&text(&object["apiVersion"]), &kind);
    let metadata = &object["metadata"];
    ObjectId {
        group: gvk.group,
        kind,
        namespace: text(&metadata["namespace"]),
        name: text(&metadata["name"]),
    }
}

/// The autoscaler in its namespace that scales a workload. Where we may not look there is none for us.
async fn scaler(
    access: &Access,
    discovery: &Discovery,
    id: &ObjectId,
) -> Result<Option<(Resource, Value)>, ApplyError> {
    for (api_version, kind) in autoscale::AUTOSCALERS {
        let Some(resource) = discovery.resource(&Gvk::new(api_version, kind)) else { continue };
        let found = match list(access, &resource, &id.namespace).await {
            Ok(found) => found,
            Err(error) if error.is_transient() => return Err(error),
            Err(_) => continue,
        };
        let is_its = |scaler: &Value| autoscale::target(scaler).as_ref() == Some(id);
        if let Some(scaler) = found.into_iter().find(is_its) {
            return Ok(Some((resource, scaler)));
        }
    }
    Ok(None)
}

impl Planner<'_> {
    /// Applies a manifest to the object with this uid, but for what is left to others as it stands at that moment. Answers
    /// whether something was.
    pub async fn apply_leaving(
        &self,
        resource: &Resource,
        value: &Value,
        uid: &str,
    ) -> Result<(Applied, bool), ApplyError> {
        let id = id_of(value);
        // What cannot be read was refused while planning, unless nothing may be in the way of going back.
        let rules = self.rules.clone().unwrap_or_default();
        let mut tries = 1;
        loop {
            let Some(there) = get(self.access, resource, &id.namespace, &id.name).await? else {
                return Err(ApplyError::new(id, Cause::UidChanged));
            };
            let left = without_others(self.access, self.discovery, &rules, value, &there).await?;
            let mut desired = left.desired;
            if left.quotes || router::steers(&resource.gvk) {
                desired["metadata"]["resourceVersion"] = there["metadata"]["resourceVersion"].clone();
            }
            match apply(self.access, resource, &desired, Guard::Uid(uid)).await {
                Err(error) if error.cause == Cause::Conflict && tries < TRIES => tries += 1,
                answer => return answer.map(|applied| (applied, left.changed)),
            }
        }
    }

    /// Applies a manifest to the object with this uid as it was at this version: where somebody has written it since, which may
    /// be another daemon that knows better, whoever is still alive looks again.
    pub async fn apply_to(
        &self,
        resource: &Resource,
        mut value: Value,
        uid: &str,
        mut version: String,
    ) -> Result<Applied, ApplyError> {
        let id = id_of(&value);
        let mut tries = 1;
        loop {
            value["metadata"]["resourceVersion"] = version.as_str().into();
            match apply(self.access, resource, &value, Guard::Uid(uid)).await {
                Err(error) if error.cause == Cause::Conflict && tries < TRIES => tries += 1,
                answer => return answer,
            }
            let Some(there) = get(self.access, resource, &id.namespace, &id.name).await? else {
                return Err(ApplyError::new(id, Cause::UidChanged));
            };
            version = there["metadata"]["resourceVersion"].as_str().unwrap_or_default().to_owned();
        }
    }
}
