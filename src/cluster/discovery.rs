//! Which kinds the cluster serves, in two requests, remembered.
//!
//! Asked again when a kind is unknown (at most every few seconds: a bundle with a misspelt kind must not turn into
//! a stream of requests) and when somebody knows that a CRD changed.

use super::access::unreachable;
use super::error::Cause;
use crate::core::manifest::{Gvk, ObjectId};
use crate::lock::{read, write};
use kube::core::ApiResource;
use kube::core::discovery::v2::{APIGroupDiscovery, APIResourceDiscovery};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, RwLock};
use std::time::Duration;
use tokio::time::Instant;

/// An unknown kind makes the cluster be asked at most this often.
const UNKNOWN_KIND_PAUSE: Duration = Duration::from_secs(3);

/// How a kind is addressed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resource {
    /// Group, version and kind.
    pub gvk: Gvk,
    /// The name in paths, such as `deployments`.
    pub plural: String,
    /// Whether its objects live in namespaces.
    pub namespaced: bool,
    /// What can be done with it: `get`, `list`, `watch`, `patch`, ...
    pub verbs: Vec<String>,
}

impl Resource {
    /// For kube's `DynamicObject`.
    pub fn api_resource(&self) -> ApiResource {
        ApiResource {
            group: self.gvk.group.clone(),
            version: self.gvk.version.clone(),
            api_version: self.gvk.api_version(),
            kind: self.gvk.kind.clone(),
            plural: self.plural.clone(),
        }
    }

    /// Whether a verb is served.
    pub fn can(&self, verb: &str) -> bool {
        self.verbs.iter().any(|v| v == verb)
    }

    /// The identity of one of its objects.
    pub fn id(&self, namespace: &str, name: &str) -> ObjectId {
        ObjectId {
            group: self.gvk.group.clone(),
            kind: self.gvk.kind.clone(),
            namespace: if self.namespaced { namespace.into() } else { String::new() },
            name: name.into(),
        }
    }

    /// The path of the collection, or of one object. Every part is encoded: a name out of Git is a name and never
    /// more of the path.
    pub fn path(&self, namespace: &str, name: Option<&str>) -> String {
        let mut path = if self.gvk.group.is_empty() {
            format!("/api/{}", self.gvk.version)
        } else {
            format!("/apis/{}/{}", self.gvk.group, self.gvk.version)
        };
        if self.namespaced && !namespace.is_empty() {
            path.push_str("/namespaces/");
            segment(namespace, &mut path);
        }
        path.push('/');
        path.push_str(&self.plural);
        if let Some(name) = name {
            path.push('/');
            segment(name, &mut path);
        }
        path
    }
}

fn segment(text: &str, out: &mut String) {
    use std::fmt::Write;
    // A whole part of dots would climb the path; encoded, it is a name that the server refuses.
    let dots = text.chars().all(|c| c == '.');
    for byte in text.bytes() {
        match byte {
            b'.' if dots => out.push_str("%2E"),
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b':' => {
                out.push(byte.into())
            }
            _ => {
                let _ = write!(out, "%{byte:02X}");
            }
        }
    }
}

/// Why discovery failed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum DiscoveryError {
    /// The API server could not be asked, or refused.
    #[error("cannot ask the cluster for its kinds: {0}")]
    Failed(Cause),
    /// The answer has not the aggregated form.
    #[error("the cluster does not offer aggregated discovery; Kubernetes 1.30 or later is required")]
    TooOld,
    /// A kind of a group that an API server behind the API server serves, and that one does not answer: whether it has the kind is not
    /// known.
    #[error(
        "it is not known whether the cluster has {kind}: the API server behind APIService {service} does not answer \
         (kubectl describe apiservice {service} tells why)"
    )]
    Silent {
        /// The kind that was asked for.
        kind: String,
        /// What registers that server for a version of the kind's group.
        service: String,
    },
}

#[derive(Default)]
struct Known {
    kinds: BTreeMap<Gvk, Resource>,
    // Versions of a kind in the server's order of preference.
    versions: BTreeMap<(String, String), Vec<String>>,
    // Groups and versions, and whether the server that serves them answers. What one that does not had when it did is known until the API
    // server starts anew.
    answers: BTreeMap<(String, String), bool>,
}

impl Known {
    /// What the cluster says of its groups.
    fn of(groups: impl IntoIterator<Item = APIGroupDiscovery>) -> Self {
        let mut known = Known::default();
        for group in groups {
            let name = group.metadata.and_then(|m| m.name).unwrap_or_default();
            for version in group.versions {
                let number = version.version.unwrap_or_default();
                let answers = version.freshness.as_deref() != Some("Stale");
                known.answers.insert((name.clone(), number.clone()), answers);
                for resource in version.resources {
                    known.add(&name, &number, resource);
                }
            }
        }
        known
    }

    fn add(&mut self, group: &str, version: &str, resource: APIResourceDiscovery) {
        let Some(kind) = resource.response_kind.and_then(|k| k.kind) else { return };
        let gvk = Gvk { group: group.into(), version: version.into(), kind };
        let versions = self.versions.entry((group.into(), gvk.kind.clone())).or_default();
        if !versions.iter().any(|known| known == version) {
            versions.push(version.into());
        }
        let found = Resource {
            gvk: gvk.clone(),
            plural: resource.resource.unwrap_or_default(),
            namespaced: resource.scope.as_deref() == Some("Namespaced"),
            verbs: resource.verbs,
        };
        // Two resources of one kind (bindings, reviews): the one whose objects stay is meant.
        let better = self.kinds.get(&gvk).is_none_or(|old| !old.can("get") && found.can("get"));
        if better {
            self.kinds.insert(gvk, found);
        }
    }

    /// A kind that the cluster has. One that it may have, for all that is known, is an error.
    fn find(&self, gvk: &Gvk) -> Result<Option<Resource>, DiscoveryError> {
        if let Some(found) = self.kinds.get(gvk) {
            return Ok(Some(found.clone()));
        }
        // Another version that does not answer may have the kind where this version is served no more.
        let silent = |version: &str| match self.answers.get(&(gvk.group.clone(), gvk.version.clone())) {
            Some(answers) => !answers && version == gvk.version,
            None => true,
        };
        let mut services =
            self.answers.iter().filter(|((group, _), answers)| *group == gvk.group && !**answers);
        match services.find(|((_, version), _)| silent(version)) {
            Some(((group, version), _)) => {
                Err(DiscoveryError::Silent { kind: gvk.to_string(), service: format!("{version}.{group}") })
            }
            None => Ok(None),
        }
    }
}

/// The kinds of one cluster. Cheap to clone; clones share what is known.
#[derive(Clone)]
pub struct Discovery {
    client: kube::Client,
    known: Arc<RwLock<Arc<Known>>>,
    asked: Arc<tokio::sync::Mutex<Option<Instant>>>,
    changes: Arc<tokio::sync::watch::Sender<()>>,
    version: Arc<Version>,
}

/// The server's version, and whether it may be another by now.
#[derive(Default)]
struct Version {
    known: tokio::sync::Mutex<Option<String>>,
    suspected: AtomicBool,
}

impl Discovery {
    /// Knows nothing until [`Discovery::refresh`] or [`Discovery::find`].
    pub fn new(client: kube::Client) -> Self {
        let changes = Arc::new(tokio::sync::watch::Sender::new(()));
        let version = Arc::default();
        Discovery { client, known: Arc::default(), asked: Arc::default(), changes, version }
    }

    /// Asks the cluster (two requests).
    pub async fn refresh(&self) -> Result<(), DiscoveryError> {
        let mut asked = self.asked.lock().await;
        self.ask().await?;
        *asked = Some(Instant::now());
        Ok(())
    }

    /// Asks the cluster unless it was asked a moment ago.
    pub async fn refresh_if_older(&self, age: Duration) -> Result<(), DiscoveryError> {
        let mut asked = self.asked.lock().await;
        if asked.is_none_or(|at| at.elapsed() >= age) {
            self.ask().await?;
            *asked = Some(Instant::now());
        }
        Ok(())
    }

    /// What is known of a kind, without asking.
    pub fn resource(&self, gvk: &Gvk) -> Option<Resource> {
        self.snapshot().kinds.get(gvk).cloned()
    }

    /// What is known of a kind; asks the cluster if it is unknown, but not more often than every few seconds.
    /// `None` means that the cluster does not serve it; that it cannot be told is an error.
    pub async fn find(&self, gvk: &Gvk) -> Result<Option<Resource>, DiscoveryError> {
        if let Some(found) = self.resource(gvk) {
            return Ok(Some(found));
        }
        // Callers that ask for unknown kinds at the same time wait for one answer.
        let mut asked = self.asked.lock().await;
        if let Some(found) = self.resource(gvk) {
            return Ok(Some(found));
        }
        if asked.is_none_or(|at| at.elapsed() >= UNKNOWN_KIND_PAUSE) {
            self.ask().await?;
            *asked = Some(Instant::now());
        }
        self.snapshot().find(gvk)
    }

    /// Returns when kinds have come or gone since the call, as far as somebody asked the cluster.
    pub async fn changed(&self) {
        // The sender lives as long as this.
        let _ = self.changes.subscribe().changed().await;
    }

    /// Whether a kind lives in namespaces, in whatever version; `None` if it is unknown.
    pub fn scope(&self, group: &str, kind: &str) -> Option<bool> {
        self.preferred(group, kind).map(|r| r.namespaced)
    }

    /// A kind in the version that the server prefers: for objects of which only the identity is kept.
    pub fn preferred(&self, group: &str, kind: &str) -> Option<Resource> {
        let known = self.snapshot();
        let version = known.versions.get(&(group.to_string(), kind.to_string()))?.first()?;
        let gvk = Gvk { group: group.into(), version: version.clone(), kind: kind.into() };
        known.kinds.get(&gvk).cloned()
    }

    /// Every kind that the server has, each in the version that it prefers.
    pub fn resources(&self) -> Vec<Resource> {
        let known = self.snapshot();
        let preferred = known.versions.iter().filter_map(|((group, kind), versions)| {
            let gvk = Gvk { group: group.clone(), version: versions.first()?.clone(), kind: kind.clone() };
            known.kinds.get(&gvk).cloned()
        });
        preferred.collect()
    }

    /// The server's version, such as `v1.36.3`: asked once, and again after contact was lost. `None` while it cannot be asked.
    pub async fn server_version(&self) -> Option<String> {
        let mut known = self.version.known.lock().await;
        if self.version.suspected.swap(false, Ordering::AcqRel) {
            *known = None;
        }
        if known.is_none() {
            *known = self.client.apiserver_version().await.ok().map(|found| found.git_version);
        }
        known.clone()
    }

    /// Contact with the server was lost: what answers next may be of another version.
    pub fn contact_was_lost(&self) {
        self.version.suspected.store(true, Ordering::Release);
    }

    fn snapshot(&self) -> Arc<Known> {
        read(&self.known).clone()
    }

    async fn ask(&self) -> Result<(), DiscoveryError> {
        let failed = |e| DiscoveryError::Failed(refused(e));
        let (core, groups) = futures::try_join!(
            self.client.list_core_api_versions_aggregated(),
            self.client.list_api_groups_aggregated()
        )
        .map_err(failed)?;
        if core.items.is_empty() {
            return Err(DiscoveryError::TooOld);
        }
        let known = Arc::new(Known::of(core.items.into_iter().chain(groups.items)));
        let old = {
            let mut slot = write(&self.known);
            std::mem::replace(&mut *slot, known.clone())
        };
        if !known.kinds.keys().eq(old.kinds.keys()) {
            self.changes.send_replace(());
        }
        Ok(())
    }
}

/// What a refusal to list kinds means; there is no object to speak of.
fn refused(error: kube::Error) -> Cause {
    match error {
        kube::Error::Api(status) => match status.code {
            401 => Cause::Unauthorized,
            code @ 500..=599 | code @ 429 => {
                Cause::Unavailable { message: format!("{code} {}", status.message) }
            }
            code => Cause::Refused { code, message: status.message.clone() },
        },
        other => unreachable(other),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_kind_of_a_server_that_does_not_answer_is_not_called_unknown() {
        let widget = json!({"resource": "widgets", "responseKind": {"kind": "Widget"}, "scope": "Namespaced", "verbs": ["get"]});
        let group = |name: &str, freshness: &str, resources: &[&serde_json::Value]| {
            let version = json!({"version": "v1", "freshness": freshness, "resources": resources});
            serde_json::from_value(json!({"metadata": {"name": name}, "versions": [version]})).unwrap()
        };
        let known = Known::of([
            group("answers", "Current", &[&widget]),
            group("answered", "Stale", &[&widget]),
            group("silent", "Stale", &[]),
        ]);
        let find = |group: &str, kind: &str| known.find(&Gvk::new(&format!("{group}/v1"), kind));
        for group in ["answers", "answered"] {
            assert_eq!(find(group, "Widget").unwrap().unwrap().plural, "widgets");
        }
        assert_eq!(find("answers", "Gadget").unwrap(), None);
        assert_eq!(find("nobody", "Widget").unwrap(), None);
        for (group, kind) in [("answered", "Gadget"), ("silent", "Widget")] {
            let error = find(group, kind).unwrap_err().to_string();
            assert!(error.contains(&format!("APIService v1.{group} does not answer")), "{error}");
            assert!(error.contains(kind), "{error}");
        }
        // A version that answers has no others.
        let groups = json!([{"metadata": {"name": "both"}, "versions": [
            {"version": "v2", "freshness": "Current", "resources": []}, {"version": "v1", "freshness": "Stale", "resources": []},
        ]}]);
        let known = Known::of(serde_json::from_value::<Vec<APIGroupDiscovery>>(groups).unwrap());
        assert_eq!(known.find(&Gvk::new("both/v2", "Widget")).unwrap(), None);
        assert!(known.find(&Gvk::new("both/v1", "Widget")).is_err());
        assert!(
            known.find(&Gvk::new("both/v1beta1", "Widget")).is_err(),
            "it may have moved to the one that does not answer"
        );
    }

    #[test]
    fn a_name_never_becomes_more_of_the_path() {
        let resource = Resource {
            gvk: Gvk::new("apps/v1", "Deployment"),
            plural: "deployments".into(),
            namespaced: true,
            verbs: vec![],
        };
        let table = [
            ("web", "/apis/apps/v1/namespaces/shop/deployments/web"),
            ("system:web", "/apis/apps/v1/namespaces/shop/deployments/system:web"),
            ("web/status", "/apis/apps/v1/namespaces/shop/deployments/web%2Fstatus"),
            ("web?dryRun=All", "/apis/apps/v1/namespaces/shop/deployments/web%3FdryRun%3DAll"),
            ("..", "/apis/apps/v1/namespaces/shop/deployments/%2E%2E"),
        ];
        for (name, path) in table {
            assert_eq!(resource.path("shop", Some(name)), path);
        }
    }
}
