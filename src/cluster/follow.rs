//! One watch, kept alive: lists, watches, and begins again whatever happens to the server, the kind or our rights.
//!
//! Built on kube's watcher, which resumes and lists again after a 410. What is added: objects stay as the JSON that
//! came (so that a digest of a watched object is the digest of an applied one), an unknown kind is looked up again
//! until it is there, errors are told as [`Cause`]s, and beginning takes turns, for a daemon that starts opens
//! hundreds.
//!
//! The list is a consistent read in pages, not a streaming list: that one is served from a cache that may be older
//! than what was seen before a restart, and an aggregated API server that does not know it would never say when it
//! is complete.

use super::access::unreachable;
use super::discovery::{Discovery, DiscoveryError, Resource};
use super::error::Cause;
use super::limit::Share;
use super::refusal::{Refusal, classify};
use crate::core::manifest::{Gvk, ObjectId};
use futures::StreamExt;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::Api;
use kube::core::{ApiResource, DynamicResourceScope};
use kube::runtime::watcher::{self, watcher};
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use std::borrow::Cow;
use std::ops::ControlFlow;
use std::time::Duration;

/// Objects listed at once. A page is in memory as a whole: a few megabytes. Smaller ones take longer, for each is asked for when
/// the one before it was read.
const PAGE: u32 = 500;

/// The first wait after an error, and the longest.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(10));

/// The longest wait while something is missing that a person has to give (rights, a CRD).
const MISSING_BACK_OFF: Duration = Duration::from_secs(30);

/// A watch that was begun again says nothing until something happens: without an error for so long, it goes on.
const CALM: Duration = Duration::from_secs(5);

/// What to watch.
#[derive(Clone)]
pub(super) struct Source {
    pub(super) client: kube::Client,
    pub(super) discovery: Discovery,
    pub(super) share: Share,
    pub(super) gvk: Gvk,
    /// `None`: the whole cluster.
    pub(super) namespace: Option<String>,
    /// A label selector.
    pub(super) labels: Option<String>,
    /// A field selector.
    pub(super) fields: Option<String>,
}

/// What is seen of it.
pub(super) enum Seen {
    /// A complete list begins; each of its objects comes as `Listed`.
    Begin,
    /// An object of the list.
    Listed(Value),
    /// The list is complete: what it did not hold is gone.
    Complete,
    /// An object was made or changed.
    Applied(Value),
    /// An object is gone, or does not match any more; its last state.
    Gone(Value),
    /// Nothing is seen for the time being.
    Failed(Cause),
    /// No error for a while after one: the watch goes on.
    Calm,
}

/// Watches until `see` breaks off.
pub(super) async fn follow(source: Source, mut see: impl FnMut(Seen) -> ControlFlow<()>) {
    let mut wait = Wait::default();
    loop {
        let resource = match source.discovery.find(&source.gvk).await {
            Ok(Some(resource)) if resource.can("watch") && resource.can("list") => resource,
            Ok(found) => {
                let kind = source.gvk.to_string();
                let cause = match found {
                    Some(_) => Cause::Refused { code: 405, message: format!("{kind} cannot be watched") },
                    None => Cause::KindUnknown { kind },
                };
                if see(Seen::Failed(cause.clone())).is_break() {
                    return;
                }
                wait.after(&cause, &source.discovery).await;
                continue;
            }
            Err(e) => {
                let cause = match e {
                    DiscoveryError::Failed(cause) => cause,
                    e @ (DiscoveryError::TooOld | DiscoveryError::Silent { .. }) => {
                        Cause::Unavailable { message: e.to_string() }
                    }
                };
                if see(Seen::Failed(cause.clone())).is_break() {
                    return;
                }
                wait.after(&cause, &source.discovery).await;
                continue;
            }
        };
        if run(&source, &resource, &mut wait, &mut see).await.is_break() {
            return;
        }
        // The kind is not served any more, as far as the server says: ask it what it serves now.
        let _ = source.discovery.refresh_if_older(Duration::from_secs(1)).await;
    }
}

/// Watches a kind until `see` breaks off (`Break`) or the server does not know the kind any more (`Continue`).
async fn run(
    source: &Source,
    resource: &Resource,
    wait: &mut Wait,
    see: &mut impl FnMut(Seen) -> ControlFlow<()>,
) -> ControlFlow<()> {
    let kind = resource.api_resource();
    let client = source.client.clone();
    let api: Api<Raw> = match &source.namespace {
        Some(namespace) if resource.namespaced => Api::namespaced_with(client, namespace, &kind),
        _ => Api::all_with(client, &kind),
    };
    let mut config = watcher::Config::default().page_size(PAGE);
    config.label_selector = source.labels.clone();
    config.field_selector = source.fields.clone();
    let mut turn = Some(source.share.permit().await);
    let mut stream = std::pin::pin!(watcher(api, config));
    let mut complete = false;
    loop {
        let next = if complete && wait.failures > 0 {
            match tokio::time::timeout(CALM, stream.next()).await {
                Ok(next) => next,
                Err(_) => {
                    wait.failures = 0;
                    see(Seen::Calm)?;
                    continue;
                }
            }
        } else {
            stream.next().await
        };
        let Some(event) = next else { break };
        let seen = match event {
            // The watcher says so before it asks the server.
            Ok(watcher::Event::Init) => {
                complete = false;
                Seen::Begin
            }
            Ok(event) => {
                wait.failures = 0;
                match event {
                    watcher::Event::InitDone => {
                        (complete, turn) = (true, None);
                        Seen::Complete
                    }
                    watcher::Event::Apply(raw) => Seen::Applied(raw.typed(&kind)),
                    watcher::Event::Delete(raw) => Seen::Gone(raw.typed(&kind)),
                    watcher::Event::InitApply(raw) => Seen::Listed(raw.typed(&kind)),
                    watcher::Event::Init => Seen::Begin,
                }
            }
            Err(error) => {
                turn = None;
                let expired = is_expired(&error);
                let cause = meaning(&resource.gvk, source.namespace.as_deref(), error);
                if let Cause::Throttled { retry_after } = cause {
                    source.share.hold_off(retry_after);
                }
                if expired {
                    continue;
                }
                if cause.is_transient() {
                    source.discovery.contact_was_lost();
                }
                see(Seen::Failed(cause.clone()))?;
                wait.after(&cause, &source.discovery).await;
                if matches!(cause, Cause::KindUnknown { .. }) {
                    return ControlFlow::Continue(());
                }
                continue;
            }
        };
        see(seen)?;
    }
    drop(turn);
    ControlFlow::Continue(())
}

/// How long to wait after the errors so far.
#[derive(Default)]
struct Wait {
    failures: u32,
}

impl Wait {
    async fn after(&mut self, cause: &Cause, discovery: &Discovery) {
        let (first, mut longest) = BACK_OFF;
        if !cause.is_transient() {
            longest = MISSING_BACK_OFF;
        }
        let wait = first.saturating_mul(1 << self.failures.min(16)).min(longest);
        self.failures += 1;
        // Between half and all of it: hundreds of watches that broke together do not come back together.
        let wait = tokio::time::sleep(wait.mul_f64(0.5 + fastrand::f64() / 2.0));
        if matches!(cause, Cause::KindUnknown { .. }) {
            let came = discovery.changed();
            tokio::select! { biased; () = came => (), () = wait => () }
        } else {
            wait.await;
        }
    }
}

fn is_expired(error: &watcher::Error) -> bool {
    match error {
        watcher::Error::WatchError(status) => status.code == 410,
        watcher::Error::InitialListFailed(kube::Error::Api(status))
        | watcher::Error::WatchStartFailed(kube::Error::Api(status))
        | watcher::Error::WatchFailed(kube::Error::Api(status)) => status.code == 410,
        _ => false,
    }
}

fn meaning(gvk: &Gvk, namespace: Option<&str>, error: watcher::Error) -> Cause {
    let told = |status: &kube::core::Status| {
        let id = ObjectId {
            group: gvk.group.clone(),
            kind: gvk.kind.clone(),
            namespace: namespace.unwrap_or_default().into(),
            name: String::new(),
        };
        let body = serde_json::to_vec(status).unwrap_or_default();
        classify(&id, &gvk.to_string(), Refusal { code: status.code, body: &body, retry_after: None })
    };
    match error {
        watcher::Error::WatchError(status) => told(&status),
        watcher::Error::InitialListFailed(error)
        | watcher::Error::WatchStartFailed(error)
        | watcher::Error::WatchFailed(error) => match error {
            kube::Error::Api(status) => told(&status),
            // Where it is broken, not what stands there: it may be a Secret.
            kube::Error::SerdeError(e) => Cause::Unavailable {
                message: format!("a watch sent what is no object (line {}, column {})", e.line(), e.column()),
            },
            other => unreachable(other),
        },
        watcher::Error::NoResourceVersion => {
            Cause::Unavailable { message: "the list has no resourceVersion".into() }
        }
    }
}

/// An object as it came, for kube's watcher.
#[derive(Clone)]
struct Raw {
    value: Value,
    meta: ObjectMeta,
}

impl std::fmt::Debug for Raw {
    // kube may log what it holds; nothing of an object belongs into a log.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Raw")
    }
}

impl Raw {
    /// The object with `apiVersion` and `kind`, which the items of a list lack.
    fn typed(self, kind: &ApiResource) -> Value {
        let mut value = self.value;
        if let Some(object) = value.as_object_mut() {
            object.entry("apiVersion").or_insert_with(|| kind.api_version.clone().into());
            object.entry("kind").or_insert_with(|| kind.kind.clone().into());
        }
        value
    }
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(deserializer)?;
        // All that the watcher asks for.
        let resource_version = value["metadata"]["resourceVersion"].as_str().map(String::from);
        Ok(Raw { value, meta: ObjectMeta { resource_version, ..ObjectMeta::default() } })
    }
}

impl kube::Resource for Raw {
    type DynamicType = ApiResource;
    type Scope = DynamicResourceScope;

    fn kind(kind: &ApiResource) -> Cow<'_, str> {
        kind.kind.as_str().into()
    }

    fn group(kind: &ApiResource) -> Cow<'_, str> {
        kind.group.as_str().into()
    }

    fn version(kind: &ApiResource) -> Cow<'_, str> {
        kind.version.as_str().into()
    }

    fn plural(kind: &ApiResource) -> Cow<'_, str> {
        kind.plural.as_str().into()
    }

    fn meta(&self) -> &ObjectMeta {
        &self.meta
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.meta
    }
}
