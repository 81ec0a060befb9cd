//! Checks of the app by HTTP: a GET of an address, or of a path at each ready endpoint.
//!
//! What answers wrongly, too late or not to the end has failed. Where no connection can be made, it is the way there that may be
//! broken, which is an error; but a pod that refuses connections has failed.

use super::Asking;
use super::client::{Ask, AskError};
use crate::api::analysis::HttpMetric;
use crate::core::analysis::Reading;
use crate::core::analysis::template::{Place, Side};
use futures::{StreamExt, stream};
use std::collections::BTreeSet;
use std::net::SocketAddr;

/// Endpoints that are asked at once.
const AT_ONCE: usize = 16;

/// What a check comes to for one variant: for each endpoint of the candidate, for one of stable.
pub(super) async fn read(asking: &Asking<'_>, of: &HttpMetric, side: Side) -> Vec<(String, Reading)> {
    let Some(path) = &of.path else {
        let url = of.url.as_deref().unwrap_or_default();
        let reading = match asking.fill(url, side, Place::Url) {
            Ok(url) => one(asking, of, &url, false).await,
            Err(error) => Reading::Error(error.to_string()),
        };
        return vec![(String::new(), reading)];
    };
    let variant = asking.pair.side(side);
    if !variant.unseen.is_empty() {
        let told = format!("the endpoints of {} are not seen: {}", variant.workload, variant.unseen);
        return vec![(String::new(), Reading::Error(told))];
    }
    let mut endpoints: BTreeSet<SocketAddr> = variant.addresses(of.port.as_ref());
    if side == Side::Stable {
        endpoints = endpoints.into_iter().take(1).collect();
    }
    if endpoints.is_empty() {
        let told = format!("{} has no ready endpoint", variant.workload);
        return vec![(String::new(), Reading::NoData(told))];
    }
    let asked = endpoints.into_iter().map(|endpoint| async move {
        let reading = one(asking, of, &format!("http://{endpoint}{path}"), true).await;
        (endpoint.to_string(), reading)
    });
    stream::iter(asked).buffered(AT_ONCE).collect().await
}

async fn one(asking: &Asking<'_>, of: &HttpMetric, url: &str, endpoint: bool) -> Reading {
    let mut ask = Ask { keep: false, ..asking.ask(url, &of.headers) };
    if endpoint {
        // A pod is none of those that a Secret's credentials are for.
        ask.credentials = None;
    }
    let answer = match asking.clients.ask(ask).await {
        Ok(answer) => answer,
        Err(error @ AskError::Closed) if endpoint => return Reading::Bad(error.to_string()),
        Err(error) if error.is_of_the_other_side() => return Reading::Bad(error.to_string()),
        Err(error) => return Reading::Error(error.to_string()),
    };
    let code = answer.status.as_u16();
    let well = if of.status.is_empty() { answer.status.is_success() } else { of.status.contains(&code) };
    if !well {
        return Reading::Bad(answer.told());
    }
    if asking.metric.success.is_none() && asking.metric.failure.is_none() {
        return Reading::Well(answer.told());
    }
    match serde_json::from_slice(&answer.body) {
        Ok(value) => Reading::Json(value),
        Err(_) => Reading::Bad(answer.no_json()),
    }
}
