//! Which of several daemons works: a Lease that one of them holds.
//!
//! Own code, and not the crate that offers it: that one judges a holder dead by comparing the holder's clock with
//! ours, and takes a Lease over by a patch without precondition, so two candidates may both believe that they have
//! it. Here a Lease is free when *we* saw it unchanged for its whole duration, and every write carries the
//! `resourceVersion` that was read. A Lease cannot stop a request that is under way; guards on the objects do
//! (see `apply`).

use super::access::Access;
use super::apply;
use super::connect::Connection;
use super::discovery::Resource;
use super::error::{ApplyError, Cause};
use crate::core::manifest::Gvk;
use crate::lock::lock;
use http::{Method, Request, header};
use serde_json::{Value, json};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;

/// Which Lease, and how long it holds.
#[derive(Clone, Debug)]
pub struct LeaseOptions {
    /// Namespace of the Lease.
    pub namespace: String,
    /// Name of the Lease.
    pub name: String,
    /// Who we are: unique among all that ever ask, since a restarted daemon is another one.
    pub identity: String,
    /// A Lease that is not renewed for so long is free. Whole seconds, at least one.
    pub duration: Duration,
}

impl LeaseOptions {
    /// A Lease of 15 s.
    pub fn new(namespace: &str, name: &str, identity: &str) -> Self {
        LeaseOptions {
            namespace: namespace.into(),
            name: name.into(),
            identity: identity.into(),
            duration: Duration::from_secs(15),
        }
    }

    /// How often it is renewed, or looked at.
    fn pause(&self) -> Duration {
        self.duration / 5
    }

    /// Who could not renew it for so long stops working, well before others may begin.
    fn deadline(&self) -> Duration {
        self.duration * 2 / 3
    }
}

/// What a Lease says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// Who holds it; empty if it was released.
    pub holder: String,
    /// For how many seconds after a renewal.
    pub seconds: u64,
    /// When the holder last renewed it, by the holder's clock; to be compared with itself and shown only.
    pub renewed: String,
    /// How often it changed hands.
    pub transitions: u64,
    resource_version: String,
    acquired: String,
}

/// What to do about a Lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// There is none: create it.
    Create,
    /// It is ours: renew it.
    Renew,
    /// It is free: take it.
    Take,
    /// Somebody holds it: look again later.
    Wait,
}

/// What to do about a Lease that was seen unchanged for so long.
pub fn decide(record: Option<&Record>, identity: &str, unchanged_for: Duration) -> Step {
    match record {
        None => Step::Create,
        Some(record) if record.holder == identity => Step::Renew,
        Some(record) if record.holder.is_empty() => Step::Take,
        Some(record) if unchanged_for >= Duration::from_secs(record.seconds) => Step::Take,
        Some(_) => Step::Wait,
    }
}

/// Why the Lease was not got.
#[derive(Debug, thiserror::Error)]
pub enum LeaseError {
    /// Another daemon holds it and renews it.
    #[error(
        "another windlass holds the Lease {namespace}/{name}: {holder} (renewed {renewed}); stop that one, or give \
         this one another --installation"
    )]
    Held {
        /// Namespace of the Lease.
        namespace: String,
        /// Name of the Lease.
        name: String,
        /// Its identity.
        holder: String,
        /// When it last renewed, by its clock.
        renewed: String,
    },
    /// The Lease could not be read or written.
    #[error("cannot use the Lease: {0}")]
    Failed(#[from] ApplyError),
}

/// Asks for a Lease.
pub struct Candidate {
    options: LeaseOptions,
    access: Access,
    resource: Resource,
    seen: Option<(Option<Record>, Instant)>,
}

/// How long ago the Lease was last known to be ours. A process that slept finds out by this, and not only by the next
/// renewal, that it may be another's by now. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Contact {
    renewed: Arc<Mutex<Instant>>,
    deadline: Duration,
}

impl Contact {
    fn new(deadline: Duration) -> Self {
        Contact { renewed: Arc::new(Mutex::new(Instant::now())), deadline }
    }

    fn renewed_at(&self, at: Instant) {
        *lock(&self.renewed) = at;
    }

    /// How long ago.
    pub fn silent_for(&self) -> Duration {
        lock(&self.renewed).elapsed()
    }

    /// Whether nobody else can have taken it since.
    pub fn holds(&self) -> bool {
        self.silent_for() < self.deadline
    }

    /// Whether the API server took our last renewal about when it was due.
    pub fn is_close(&self) -> bool {
        self.silent_for() < self.deadline / 2
    }
}

/// The Lease is ours, until it is lost or given back. Renewed in the background.
pub struct Leadership {
    contact: Contact,
    lost: watch::Receiver<bool>,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    task: tokio::task::JoinHandle<()>,
}

impl Candidate {
    /// Asks nothing yet.
    pub fn new(connection: &Connection, options: LeaseOptions) -> Self {
        let gvk = Gvk::new("coordination.k8s.io/v1", "Lease");
        let verbs = vec![];
        let resource = Resource { gvk, plural: "leases".into(), namespaced: true, verbs };
        // A renewal that takes longer than the Lease holds is of no use.
        let access = connection.access_to_lease().with_limit(options.deadline() / 2);
        Candidate { options, access, resource, seen: None }
    }

    /// Waits until the Lease is ours, however long another holds it. API errors are waited out.
    pub async fn acquire(mut self) -> Leadership {
        loop {
            match self.attempt().await {
                Ok(true) => return self.lead(),
                Ok(false) => {}
                Err(e) => tracing::warn!(error = %e, "cannot ask for the Lease"),
            }
            tokio::time::sleep(self.options.pause()).await;
        }
    }

    /// Waits only as long as it is not known whether another daemon is alive: a Lease that nobody renews is taken
    /// after its duration, one that is renewed while we look is [`LeaseError::Held`].
    pub async fn acquire_unless_held(mut self) -> Result<Leadership, LeaseError> {
        let mut first: Option<Record> = None;
        loop {
            if self.attempt().await? {
                return Ok(self.lead());
            }
            if let Some((Some(record), _)) = &self.seen {
                let before = first.get_or_insert_with(|| record.clone());
                if before.renewed != record.renewed && !record.holder.is_empty() {
                    return Err(LeaseError::Held {
                        namespace: self.options.namespace.clone(),
                        name: self.options.name.clone(),
                        holder: record.holder.clone(),
                        renewed: record.renewed.clone(),
                    });
                }
            }
            tokio::time::sleep(self.options.pause()).await;
        }
    }

    /// What the Lease says now; `None` if there is none.
    pub async fn read(&self) -> Result<Option<Record>, ApplyError> {
        let (namespace, name) = (&self.options.namespace, &self.options.name);
        Ok(apply::get(&self.access, &self.resource, namespace, name).await?.map(|lease| record(&lease)))
    }

    /// Looks, and writes if it is free or ours. Whether it is ours now.
    async fn attempt(&mut self) -> Result<bool, ApplyError> {
        let now = Instant::now();
        let record = self.read().await?;
        let since = match &self.seen {
            Some((old, since)) if *old == record => *since,
            _ => now,
        };
        self.seen = Some((record.clone(), since));
        let step = decide(record.as_ref(), &self.options.identity, now.duration_since(since));
        let old = record.unwrap_or_default();
        let time = micro_time();
        let new = match step {
            Step::Wait => return Ok(false),
            Step::Renew => Record { renewed: time, ..old },
            Step::Create => Record { renewed: time.clone(), acquired: time, ..old },
            Step::Take => {
                Record { renewed: time.clone(), acquired: time, transitions: old.transitions + 1, ..old }
            }
        };
        let new =
            Record { holder: self.options.identity.clone(), seconds: self.options.duration.as_secs(), ..new };
        match self.write(&new).await {
            Ok(()) => Ok(true),
            // Somebody was faster: look again.
            Err(ApplyError { cause: Cause::Conflict | Cause::UidChanged | Cause::NotFound, .. }) => Ok(false),
            Err(e) => Err(e),
        }
    }

    /// Writes the Lease as it was read, or creates it where there was none.
    async fn write(&self, record: &Record) -> Result<(), ApplyError> {
        let LeaseOptions { namespace, name, .. } = &self.options;
        let id = self.resource.id(namespace, name);
        let mut lease = json!({
            "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
            "metadata": {"name": name, "namespace": namespace},
            "spec": {
                "holderIdentity": record.holder, "leaseDurationSeconds": record.seconds.max(1),
                "renewTime": record.renewed, "leaseTransitions": record.transitions,
            },
        });
        if !record.acquired.is_empty() {
            lease["spec"]["acquireTime"] = record.acquired.as_str().into();
        }
        let create = record.resource_version.is_empty();
        if !create {
            lease["metadata"]["resourceVersion"] = record.resource_version.as_str().into();
        }
        let (method, path) = match create {
            true => (Method::POST, self.resource.path(namespace, None)),
            false => (Method::PUT, self.resource.path(namespace, Some(name))),
        };
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::CONTENT_TYPE, "application/json")
            .body(lease.to_string().into_bytes())
            .map_err(|e| ApplyError {
                object: Box::new(id.clone()),
                cause: Cause::Refused { code: 0, message: e.to_string() },
            })?;
        self.access.call(&id, &self.resource.gvk.to_string(), &request).await.map(|_| ())
    }

    /// Renews from now on.
    fn lead(self) -> Leadership {
        let (tell, lost) = watch::channel(false);
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let contact = Contact::new(self.options.deadline());
        let task = tokio::spawn(self.renew(tell, stopped, contact.clone()));
        Leadership { contact, lost, stop: Some(stop), task }
    }

    async fn renew(
        mut self,
        tell: watch::Sender<bool>,
        mut stopped: tokio::sync::oneshot::Receiver<()>,
        contact: Contact,
    ) {
        loop {
            tokio::select! {
                () = tokio::time::sleep(self.options.pause()) => {}
                _ = &mut stopped => {
                    self.give_back().await;
                    return;
                }
            }
            let begin = Instant::now();
            match self.attempt().await {
                // Counted from before the request: the server may have stamped it then.
                Ok(true) => contact.renewed_at(begin),
                Ok(false) if matches!(&self.seen, Some((Some(r), _)) if r.holder != self.options.identity) => {
                    break;
                }
                Ok(false) => {}
                Err(e) => tracing::warn!(error = %e, "cannot renew the Lease"),
            }
            if !contact.holds() {
                break;
            }
        }
        tell.send_replace(true);
    }

    /// Lets the next one begin at once.
    async fn give_back(&self) {
        let Ok(Some(record)) = self.read().await else { return };
        if record.holder == self.options.identity {
            let free = Record { holder: String::new(), seconds: 1, renewed: micro_time(), ..record };
            if let Err(e) = self.write(&free).await {
                tracing::debug!(error = %e, "the Lease was not given back");
            }
        }
    }
}

impl Leadership {
    /// How long ago it was last known to be ours, for those who write.
    pub fn contact(&self) -> Contact {
        self.contact.clone()
    }

    /// Returns when the Lease is lost: stop working at once.
    pub async fn lost(&self) {
        let mut lost = self.lost.clone();
        // An error means that the renewing ended, which is as bad.
        let _ = lost.wait_for(|lost| *lost).await;
    }

    /// Whether it is still ours, as far as we know.
    pub fn is_held(&self) -> bool {
        !*self.lost.borrow() && !self.task.is_finished()
    }

    /// Gives the Lease back and waits until that is done.
    pub async fn release(mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
        let _ = (&mut self.task).await;
    }
}

impl Drop for Leadership {
    fn drop(&mut self) {
        // Dropped without a release it runs out by itself, as after a crash.
        if self.stop.is_some() {
            self.task.abort();
        }
    }
}

fn record(lease: &Value) -> Record {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_string();
    let spec = &lease["spec"];
    Record {
        holder: text(&spec["holderIdentity"]),
        seconds: spec["leaseDurationSeconds"].as_u64().unwrap_or(1),
        renewed: text(&spec["renewTime"]),
        transitions: spec["leaseTransitions"].as_u64().unwrap_or(0),
        resource_version: text(&lease["metadata"]["resourceVersion"]),
        acquired: text(&spec["acquireTime"]),
    }
}

fn micro_time() -> String {
    jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn without_the_lease_everything_is_read_and_nothing_is_written() {
        let service = tower::service_fn(|_: Request<kube::client::Body>| async {
            Ok::<_, tower::BoxError>(http::Response::new(axum::body::Body::from("{}")))
        });
        let connection = Connection::from_service(service, "default");
        let sent = async |held: Duration, method: &str, path: &str| {
            let client = connection.while_held(Contact::new(held)).client;
            let request = Request::builder().method(method).uri(path).body(Vec::new().into());
            client.send(request.unwrap()).await.is_ok()
        };
        let hour = Duration::from_secs(3600);
        assert!(sent(hour, "PUT", "/a").await);
        assert!(sent(Duration::ZERO, "GET", "/a").await);
        assert!(sent(Duration::ZERO, "PATCH", "/a?fieldManager=windlass&dryRun=All").await);
        for method in ["PUT", "POST", "PATCH", "DELETE"] {
            assert!(!sent(Duration::ZERO, method, "/a").await, "{method}");
        }
    }

    #[test]
    fn a_lease_is_taken_only_when_nobody_lives_by_it() {
        let held = |holder: &str| Record { holder: holder.into(), seconds: 15, ..Record::default() };
        let table = [
            (None, 0, Step::Create),
            (Some(held("me")), 100, Step::Renew),
            (Some(held("")), 0, Step::Take),
            (Some(held("other")), 0, Step::Wait),
            (Some(held("other")), 14, Step::Wait),
            (Some(held("other")), 15, Step::Take),
        ];
        for (record, seconds, step) in table {
            assert_eq!(decide(record.as_ref(), "me", Duration::from_secs(seconds)), step, "{record:?}");
        }
    }
}
