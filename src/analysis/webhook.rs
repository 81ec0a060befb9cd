//! Somebody else decides: a POST that says which rollout it is about.
//!
//! 2xx is success, other answers are failure; where nobody is there to decide (no connection, no answer in time, 429, 502 to
//! 504, a redirect to a login) it is an error.

use super::Asking;
use crate::api::analysis::WebhookMetric;
use crate::core::analysis::Reading;
use crate::core::analysis::template::{Place, Side};
use serde_json::json;

/// What it answers about one variant.
pub(super) async fn read(asking: &Asking<'_>, of: &WebhookMetric, side: Side) -> Reading {
    let url = match asking.fill(&of.url, side, Place::Url) {
        Ok(url) => url,
        Err(error) => return Reading::Error(error.to_string()),
    };
    let (variables, pair) = (asking.variables, asking.pair);
    let body = json!({
        "delivery": variables.delivery,
        "namespace": variables.namespace,
        "revision": variables.revision,
        "step": variables.step,
        "metric": asking.metric.name,
        "stable": pair.stable.workload,
        "candidate": pair.candidate.workload,
        "variant": pair.side(side).workload,
        "service": pair.side(side).service,
        "metadata": of.metadata,
    });
    let mut ask = asking.ask(&url, &of.headers);
    ask.body = Some(("application/json", body.to_string().into_bytes()));
    let answer = match asking.clients.ask(ask).await {
        Ok(answer) => answer,
        Err(error) => return Reading::Error(error.to_string()),
    };
    let code = answer.status.as_u16();
    if answer.status.is_redirection() || matches!(code, 401 | 403 | 404 | 407 | 408 | 429 | 502..=504) {
        return Reading::Error(answer.told());
    }
    if !answer.status.is_success() {
        return Reading::Bad(answer.told());
    }
    if asking.metric.success.is_none() && asking.metric.failure.is_none() {
        return Reading::Well(answer.told());
    }
    match serde_json::from_slice(&answer.body) {
        Ok(value) => Reading::Json(value),
        Err(_) => Reading::Error(answer.no_json()),
    }
}
