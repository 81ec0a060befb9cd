//! Why a router cannot do what is asked, and what to change.

use super::accepted::counted;
use crate::api::delivery::Problem;
use crate::core::manifest::{ObjectId, Origin};

/// Why a router cannot do what is asked. Rules are counted from 1, as people count.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Why {
    #[error(
        "is neither in the revision nor in the cluster; write it, or name another in spec.rollout.router"
    )]
    NotFound,
    #[error("stands in {0} namespaces of the revision, and in none of them with the workload's Service")]
    Ambiguous(usize),
    #[error("selects no pods of the workload, {0} does; name that in spec.rollout.router.service")]
    NoService(String),
    #[error("sends no traffic to {services}; it names {found}. Have one of its rules send traffic there")]
    Unrelated { services: String, found: String },
    #[error(
        "sends traffic to Service {stable} and to Service {candidate} in {rule}; take {candidate} out: it is added for as long as a rollout lasts"
    )]
    NamesCandidate { rule: String, stable: String, candidate: String },
    #[error(
        "cannot tell requests by a cookie: Gateway API has no portable match for cookies; use a header, or Istio"
    )]
    Cookie,
    #[error("cannot {what}: {because}; use {instead}")]
    Cannot { what: &'static str, because: &'static str, instead: &'static str },
    #[error("would have {} in {place}, and {limit} is the most that the API allows", counted(*.count, .what))]
    TooMany { place: String, what: &'static str, count: usize, limit: usize },
    #[error(
        "matches header {header} in {rule} already, in a way that cannot be combined with the rollout's own match of it; use another header for the rollout"
    )]
    HeaderTaken { rule: String, header: String },
    #[error(
        "matches the same path in {rule} and in {other}; a rule for header {header} made of {rule} would take requests from {other}, which goes elsewhere. Give {other} a path of its own, or have it send traffic to the same Service"
    )]
    Overtakes { rule: String, other: String, header: String },
    #[error(
        "has weights in {rule} that cannot be divided at {percent}% into whole numbers up to {limit}; use smaller weights"
    )]
    Weights { rule: String, percent: u32, limit: u64 },
    #[error(
        "sends traffic to subset {subset} of {host} in {rule}; a subset divides the pods of one Service, and the candidate has a Service of its own. Take the subset out of that destination, so that it names the Service alone"
    )]
    Subset { rule: String, host: String, subset: String },
    #[error(
        "mirrors requests in {rule} already; write that as an entry of mirrors, so that another can stand beside it"
    )]
    MirrorTaken { rule: String },
    #[error(
        "has no HTTP route to {services}, only TLS or TCP ones, in which requests cannot be {asked}; use weight"
    )]
    OnlyStreams { services: String, asked: &'static str },
    #[error(
        "would be made for {host}, which {other} routes already; name that one in spec.rollout.router.istio"
    )]
    HostTaken { host: String, other: String },
    #[error("is not in the revision, and cannot be made for {0}; write it")]
    CannotMake(String),
    #[error(
        "has no {key}: {stable} in its selector, so it would select the pods of both variants; add it to spec.selector"
    )]
    BroadSelector { key: String, stable: String },
    #[error(
        "cannot give the candidate {0}% of the traffic: a selector takes one variant or the other; use 0 or 100, or another router"
    )]
    Switch(u32),
    #[error(
        "is in namespace {from} and may not send traffic to Service {service} in namespace {to}: no ReferenceGrant there covers it. {advice}"
    )]
    Grant { from: String, service: String, to: String, advice: String },
    #[error("{0}")]
    Refused(String),
    #[error("has no metadata.resourceVersion, so it is not as it stands in the cluster")]
    NotLive,
}

impl Why {
    /// In CamelCase; for programs.
    pub(super) fn reason(&self) -> &'static str {
        match self {
            Why::NotFound | Why::NoService(_) => "RouteNotFound",
            Why::Ambiguous(_) => "RouteAmbiguous",
            Why::Unrelated { .. } => "RouteUnrelated",
            Why::NamesCandidate { .. } => "RouteNamesCandidate",
            Why::Cookie | Why::Cannot { .. } | Why::OnlyStreams { .. } | Why::Switch(_) => "RouterCannot",
            Why::TooMany { .. } => "RouteTooLarge",
            Why::HeaderTaken { .. } | Why::Overtakes { .. } | Why::MirrorTaken { .. } => "RouteConflict",
            Why::HostTaken { .. } => "RouteConflict",
            Why::Weights { .. } => "RouteWeights",
            Why::Subset { .. } => "RouteUsesSubsets",
            Why::CannotMake(_) => "RouteNotFound",
            Why::BroadSelector { .. } => "ServiceSelectsBoth",
            Why::Grant { .. } => "ReferenceGrantMissing",
            Why::Refused(_) => "RouteRefused",
            Why::NotLive => "RouteNotLive",
        }
    }

    /// As a problem of an object, with where it stands in Git if it does.
    pub(super) fn problem(&self, object: &ObjectId, origin: Option<&Origin>) -> Problem {
        let place = origin.map(|origin| format!(" ({origin})")).unwrap_or_default();
        Problem {
            reason: self.reason().into(),
            object: object.to_string(),
            message: format!("{object}{place} {self}"),
        }
    }
}

/// `rule 2`, or `http rule 2` where a route has several lists.
pub(super) fn rule(list: &str, at: usize) -> String {
    match list {
        "rules" => format!("rule {}", at + 1),
        list => format!("{list} rule {}", at + 1),
    }
}
