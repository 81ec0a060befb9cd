//! Measures what a rollout's analysis asks for: Prometheus, the app itself by HTTP, somebody else by a webhook. What a
//! measurement means is decided in `crate::core::analysis`.
//!
//! One client serves all: connections are used again, redirects are not followed, no proxy of the environment stands between, an
//! answer has a time limit and at most [`LARGEST`] bytes, and addresses that lead to the daemon's own machine are refused
//! ([`Reach`]).

mod client;
mod credentials;
mod http;
mod prometheus;
mod running;
#[cfg(test)]
mod tests;
mod webhook;

pub use client::{Clients, LARGEST, Reach};
pub use credentials::{Credentials, CredentialsError};
pub use running::{Order, Running};

use crate::api::analysis::Metric;
use crate::core::analysis::template::{Place, Side, TemplateError, fill};
use crate::core::analysis::{Measurement, Pair, Reading, Settings, Variables, names_stable, secret};
use client::Ask;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// What a measurement is made with. It may change while a step lasts: endpoints come and go, Secrets are rotated.
#[derive(Clone, Debug, Default)]
pub struct Inputs {
    /// Which rollout it is.
    pub variables: Variables,
    /// The Secrets that the metrics name, by name, or why one cannot be used.
    pub credentials: BTreeMap<String, Result<Arc<Credentials>, String>>,
}

/// One measurement of one metric at one time.
struct Asking<'a> {
    clients: &'a Clients,
    metric: &'a Metric,
    variables: &'a Variables,
    pair: &'a Pair,
    credentials: Option<&'a Credentials>,
    limit: Duration,
}

impl Asking<'_> {
    /// A text with the variables of one variant put in.
    fn fill(&self, text: &str, side: Side, place: Place) -> Result<String, TemplateError> {
        fill(text, self.variables, self.pair, side, place)
    }

    /// A request with what all of them have in common.
    fn ask<'b>(&'b self, url: &'b str, headers: &'b BTreeMap<String, String>) -> Ask<'b> {
        Ask { url, headers, credentials: self.credentials, limit: self.limit, body: None, keep: true }
    }
}

/// Measures a metric once. Whatever goes wrong is part of the measurement.
pub async fn measure(
    clients: &Clients,
    metric: &Metric,
    settings: &Settings,
    inputs: &Inputs,
) -> Measurement {
    let pair = match inputs.variables.pair(metric.workload.as_deref()) {
        Ok(pair) => pair,
        Err(error) => return Measurement::of(Reading::Error(error.to_string())),
    };
    let credentials = match secret(metric) {
        None => None,
        Some(name) => match inputs.credentials.get(name) {
            Some(Ok(credentials)) => Some(credentials.as_ref()),
            Some(Err(error)) => return Measurement::of(Reading::Error(format!("Secret {name}: {error}"))),
            None => return Measurement::of(Reading::Error(format!("Secret {name} was not read"))),
        },
    };
    let limit = Duration::try_from(settings.timeout).unwrap_or(Duration::from_secs(10));
    let asking = Asking { clients, metric, variables: &inputs.variables, pair, credentials, limit };
    let candidate = read(&asking, Side::Candidate);
    if !names_stable(metric) {
        return Measurement { candidate: candidate.await, stable: None };
    }
    let (candidate, stable) = tokio::join!(candidate, read(&asking, Side::Stable));
    Measurement { candidate, stable: stable.into_iter().next().map(|(_, reading)| reading) }
}

/// What one variant says.
async fn read(asking: &Asking<'_>, side: Side) -> Vec<(String, Reading)> {
    let metric = asking.metric;
    let one = if let Some(of) = &metric.prometheus {
        prometheus::read(asking, of, side).await
    } else if let Some(of) = &metric.http {
        return http::read(asking, of, side).await;
    } else if let Some(of) = &metric.webhook {
        webhook::read(asking, of, side).await
    } else {
        Reading::Error("the metric takes one of prometheus, http and webhook".into())
    };
    vec![(String::new(), one)]
}
