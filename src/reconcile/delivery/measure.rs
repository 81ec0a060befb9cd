//! Measuring a rollout: what is asked in the step that is under way, with what, and for whom.

use super::Scope;
use super::stage::pairs;
use super::work::Memory;
use crate::analysis::{Credentials, Inputs, Order, Running};
use crate::api::analysis::AnalysisPolicy;
use crate::api::delivery::DeliveryStatus;
use crate::cluster::apply::list_where;
use crate::core::analysis::{AnalysisSeen, Pair, Variables, Variant, secrets};
use crate::core::manifest::Gvk;
use crate::core::rollout::{Measuring, Spec, Staging, measuring, staging};
use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt;
use serde_json::Value;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

/// What is measured of one Delivery.
#[derive(Default)]
pub struct Measures {
    running: Running,
    /// What it is measured with, and of which step that was found out.
    found: Option<(String, Inputs)>,
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
    let inputs = match &memory.measures.found {
        Some((key, inputs)) if *key == measuring.key => inputs.clone(),
        _ => match inputs(scope, memory, status, &spec, &measuring.policy).await {
            Some(inputs) => inputs,
            // Nothing is measured in this round; the next one tries again.
            None => return,
        },
    };
    let inputs = with_endpoints(scope, inputs, &measuring.policy).await;
    memory.measures.found = Some((measuring.key.clone(), inputs.clone()));
    let runs = status.attempt.as_ref().and_then(|a| a.rollout.as_ref()).map(|r| r.analysis.clone());
    let Measuring { key, policy, kind, since } = measuring;
    let order = Order { key, policy, kind, since, runs: runs.unwrap_or_default(), inputs };
    let clock = scope.daemon.options.clock.clone();
    let wake = scope.daemon.waker(&scope.label);
    memory.measures.running.ensure(&scope.daemon.measures, order, move || clock.now(), wake);
}

fn wanted(scope: &Scope<'_>, spec: &Spec, status: &DeliveryStatus) -> Option<Measuring> {
    if spec.suspend || scope.delivery.metadata.deletion_timestamp.is_some() {
        return None;
    }
    let attempt = status.attempt.as_ref()?;
    measuring(&attempt.revision, attempt.rollout.as_ref()?, spec.rollout.as_ref()?)
}

async fn inputs(
    scope: &Scope<'_>,
    memory: &Memory,
    status: &DeliveryStatus,
    spec: &Spec,
    policy: &AnalysisPolicy,
) -> Option<Inputs> {
    let attempt = status.attempt.as_ref()?;
    let Staging::Staged(staged) = staging(attempt, status.effective.as_ref(), spec) else { return None };
    let found = match pairs(scope, memory, &staged).await {
        Ok(found) => found,
        Err(refusal) => {
            tracing::warn!("what is compared cannot be told: {}", refusal.problem.message);
            return None;
        }
    };
    let namespace = found.first().map(|(stable, _, _)| stable.namespace.clone()).unwrap_or_default();
    let pairs = found.into_iter().map(|(stable, candidate, services)| {
        let (of_stable, of_candidate) = services.map_or_else(Default::default, |s| (s.stable, s.candidate));
        let variant = |workload, service| Variant { workload, service, endpoints: Vec::new() };
        Pair { stable: variant(stable.name, of_stable), candidate: variant(candidate.name, of_candidate) }
    });
    let variables = Variables {
        namespace,
        revision: attempt.revision.to_string(),
        delivery: scope.delivery.name_any(),
        step: attempt.rollout.as_ref().map_or(0, |r| r.step),
        pairs: pairs.collect(),
    };
    let mut credentials = BTreeMap::new();
    for name in secrets(policy) {
        let read = read(scope, &name).await;
        credentials.insert(name, read.map(Arc::new));
    }
    Some(Inputs { variables, credentials })
}

/// A Secret of the Delivery's namespace, read as the account that acts for it.
async fn read(scope: &Scope<'_>, name: &str) -> Result<Credentials, String> {
    let namespace = scope.delivery.namespace().unwrap_or_default();
    let api: kube::Api<Secret> = kube::Api::namespaced(scope.access.client().clone(), &namespace);
    let secret = match api.get_opt(name).await {
        Ok(Some(secret)) => secret,
        Ok(None) => return Err(format!("there is no Secret {namespace}/{name}")),
        // The server's words about a Secret are not passed on.
        Err(kube::Error::Api(status)) => {
            return Err(format!("Secret {namespace}/{name} could not be read ({})", status.code));
        }
        Err(_) => return Err(format!("Secret {namespace}/{name} could not be read")),
    };
    let data = secret.data.unwrap_or_default().into_iter().map(|(key, value)| (key, value.0)).collect();
    Credentials::from_secret(&data).map_err(|error| format!("Secret {namespace}/{name}: {error}"))
}

/// The endpoints that are ready now, where a metric asks each of them.
async fn with_endpoints(scope: &Scope<'_>, mut inputs: Inputs, policy: &AnalysisPolicy) -> Inputs {
    if !policy.metrics.iter().any(|m| m.http.as_ref().is_some_and(|h| h.path.is_some())) {
        return inputs;
    }
    let Some(slices) = scope.daemon.discovery.resource(&Gvk::new("discovery.k8s.io/v1", "EndpointSlice"))
    else {
        return inputs;
    };
    let namespace = inputs.variables.namespace.clone();
    for pair in &mut inputs.variables.pairs {
        for variant in [&mut pair.stable, &mut pair.candidate] {
            if variant.service.is_empty() {
                continue;
            }
            let selector = format!("kubernetes.io%2Fservice-name%3D{}", variant.service);
            match list_where(&scope.access, &slices, &namespace, &selector).await {
                Ok(found) => variant.endpoints = ready(&found),
                // Without endpoints a measurement has no value, which is never a success.
                Err(error) => {
                    tracing::warn!(%error, service = %variant.service, "endpoints could not be listed");
                    variant.endpoints.clear();
                }
            }
        }
    }
    inputs
}

/// The addresses of ready endpoints, sorted.
fn ready(slices: &[Value]) -> Vec<SocketAddr> {
    let items = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let mut all = Vec::new();
    for slice in slices {
        let Some(port) = slice["ports"][0]["port"].as_u64().and_then(|p| u16::try_from(p).ok()) else {
            continue;
        };
        for endpoint in items(&slice["endpoints"]).iter().filter(|e| e["conditions"]["ready"] != false) {
            let address = endpoint["addresses"][0].as_str().and_then(|a| a.parse::<IpAddr>().ok());
            all.extend(address.map(|address| SocketAddr::new(address, port)));
        }
    }
    all.sort();
    all.dedup();
    all
}
