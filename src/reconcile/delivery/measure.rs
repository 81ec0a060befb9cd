//! Measuring a rollout: what is asked in the step that is under way, with what, and for whom.

use super::Scope;
use super::subjects::pairs;
use super::work::Memory;
use crate::analysis::{Credentials, Inputs, Order, Running};
use crate::api::analysis::AnalysisPolicy;
use crate::api::delivery::DeliveryStatus;
use crate::cluster::named::Version;
use crate::cluster::{EndpointWatch, Named, NamedObject, ServicesOf};
use crate::core::analysis::{AnalysisSeen, Variables, secrets};
use crate::core::manifest::Gvk;
use crate::core::rollout::{Measuring, Spec, Staging, measuring, staging};
use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt;
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// What is measured of one Delivery.
#[derive(Default)]
pub struct Measures {
    running: Running,
    /// What it is measured with, and of which step that was found out.
    found: Option<(String, Inputs)>,
    /// The Secrets that metrics name, watched while they do: one that is made or rotated meanwhile counts at once.
    secrets: BTreeMap<NamedObject, Named>,
    /// The endpoints that metrics ask, watched while one does.
    endpoints: Option<EndpointWatch>,
}

impl Measures {
    /// What was measured, for the machine.
    pub fn seen(&self) -> Option<AnalysisSeen> {
        self.running.seen()
    }
}

/// Measures what the step that is under way asks for, and nothing else.
pub async fn ensure(scope: &Scope<'_>, memory: &mut Memory, status: &DeliveryStatus) {
    // Most Deliveries are not rolled out, and their steps need not be spelled out for that.
    if status.attempt.as_ref().is_none_or(|attempt| attempt.rollout.is_none()) {
        memory.measures = Measures::default();
        return;
    }
    let spec = scope.spec();
    let Some(measuring) = wanted(scope, &spec, status) else {
        memory.measures = Measures::default();
        return;
    };
    follow(scope, &mut memory.measures, &measuring.policy);
    let outdated = memory.measures.secrets.values().any(Named::is_outdated);
    let (inputs, all_read) = match &memory.measures.found {
        Some((key, inputs)) if *key == measuring.key && !outdated => (inputs.clone(), true),
        _ => match inputs(scope, memory, status, &spec, &measuring.policy).await {
            Some(found) => found,
            // Nothing is measured in this round; the next one tries again.
            None => return,
        },
    };
    // A Secret that could not be read is read again with the next measurement.
    memory.measures.found = all_read.then(|| (measuring.key.clone(), inputs.clone()));
    // Until they are seen nothing can be said of them.
    let Some(inputs) = with_endpoints(scope, &mut memory.measures, inputs, &measuring.policy) else { return };
    let runs = status.attempt.as_ref().and_then(|a| a.rollout.as_ref()).map(|r| r.analysis.clone());
    let Measuring { key, policy, kind, since } = measuring;
    let order = Order { key, policy, kind, since, runs: runs.unwrap_or_default(), inputs };
    let clock = scope.daemon.options.clock.clone();
    let wake = scope.daemon.waker(&scope.label);
    memory.measures.running.ensure(&scope.daemon.measures, order, move || clock.now(), wake);
}

/// Watches the Secrets that a policy names, and no others.
fn follow(scope: &Scope<'_>, measures: &mut Measures, policy: &AnalysisPolicy) {
    let account = scope.account();
    let namespace = scope.delivery.namespace().unwrap_or_default();
    let wanted: BTreeSet<NamedObject> = secrets(policy)
        .into_iter()
        .map(|name| NamedObject {
            account: account.clone(),
            gvk: Gvk::new("v1", "Secret"),
            namespace: namespace.clone(),
            name,
        })
        .collect();
    measures.secrets.retain(|object, _| wanted.contains(object));
    for object in wanted {
        if let Entry::Vacant(place) = measures.secrets.entry(object) {
            let watch = scope.daemon.named.ensure(place.key(), scope.daemon.waker(&scope.label));
            place.insert(watch);
        }
    }
}

fn wanted(scope: &Scope<'_>, spec: &Spec, status: &DeliveryStatus) -> Option<Measuring> {
    if spec.suspend || scope.delivery.metadata.deletion_timestamp.is_some() {
        return None;
    }
    let attempt = status.attempt.as_ref()?;
    measuring(&attempt.revision, attempt.rollout.as_ref()?, spec.rollout.as_ref()?)
}

/// What is measured with, and whether all of it could be read.
async fn inputs(
    scope: &Scope<'_>,
    memory: &Memory,
    status: &DeliveryStatus,
    spec: &Spec,
    policy: &AnalysisPolicy,
) -> Option<(Inputs, bool)> {
    let attempt = status.attempt.as_ref()?;
    let Staging::Staged(staged) = staging(attempt, status.effective.as_ref(), spec) else { return None };
    let (namespace, pairs) = match pairs(scope, memory, &staged).await {
        Ok(found) => found,
        Err(refusal) => {
            tracing::warn!("what is compared cannot be told: {}", refusal.problem.message);
            return None;
        }
    };
    let variables = Variables {
        namespace,
        revision: attempt.revision.to_string(),
        delivery: scope.delivery.name_any(),
        step: attempt.rollout.as_ref().map_or(0, |r| r.step),
        pairs,
    };
    let mut credentials = BTreeMap::new();
    let mut all_read = true;
    for name in secrets(policy) {
        let (version, read) = read(scope, &name).await;
        all_read &= version.is_some();
        let watch = memory.measures.secrets.iter().find(|(object, _)| object.name == name);
        if let (Some((_, watch)), Some(version)) = (watch, version) {
            watch.note(version);
        }
        credentials.insert(name, read.map(Arc::new));
    }
    Some((Inputs { variables, credentials }, all_read))
}

/// A Secret of the Delivery's namespace, read as the account that acts for it, and which version of it that is, where that is
/// known.
async fn read(scope: &Scope<'_>, name: &str) -> (Option<Version>, Result<Credentials, String>) {
    let namespace = scope.delivery.namespace().unwrap_or_default();
    let api: kube::Api<Secret> = kube::Api::namespaced(scope.access.client().clone(), &namespace);
    let secret = match api.get_opt(name).await {
        Ok(Some(secret)) => secret,
        Ok(None) => return (Some(None), Err("it is not there".to_owned())),
        // The server's words about a Secret are not passed on.
        Err(kube::Error::Api(status)) => {
            return (None, Err(format!("it could not be read ({})", status.code)));
        }
        Err(_) => return (None, Err("it could not be read".to_owned())),
    };
    let version = secret.resource_version().and_then(|version| version.parse().ok());
    let data = secret.data.unwrap_or_default().into_iter().map(|(key, value)| (key, value.0)).collect();
    (Some(version), Credentials::from_secret(&data).map_err(|error| error.to_string()))
}

/// The endpoints that are ready now, where a metric asks each of them; `None` until they are seen.
fn with_endpoints(
    scope: &Scope<'_>,
    measures: &mut Measures,
    mut inputs: Inputs,
    policy: &AnalysisPolicy,
) -> Option<Inputs> {
    if !policy.metrics.iter().any(|m| m.http.as_ref().is_some_and(|h| h.path.is_some())) {
        measures.endpoints = None;
        return Some(inputs);
    }
    let sides = inputs.variables.pairs.iter().flat_map(|pair| [&pair.stable, &pair.candidate]);
    let services: BTreeSet<String> =
        sides.map(|side| side.service.clone()).filter(|name| !name.is_empty()).collect();
    if services.is_empty() {
        measures.endpoints = None;
        return Some(inputs);
    }
    let of = ServicesOf { account: scope.account(), namespace: inputs.variables.namespace.clone(), services };
    if measures.endpoints.as_ref().is_none_or(|watch| *watch.of() != of) {
        let wake = scope.daemon.waker(&scope.label);
        let started = EndpointWatch::start(&scope.daemon.connection, &scope.daemon.discovery, of, wake);
        measures.endpoints = Some(started);
    }
    let watch = measures.endpoints.as_ref()?;
    let failing = watch.failing();
    for side in inputs.variables.pairs.iter_mut().flat_map(|pair| [&mut pair.stable, &mut pair.candidate]) {
        if side.service.is_empty() {
            continue;
        }
        match (&failing, watch.ready(&side.service)) {
            (Some(cause), _) => side.unseen = cause.to_string(),
            (None, Some(ready)) => side.endpoints = ready,
            (None, None) => return None,
        }
    }
    Some(inputs)
}
