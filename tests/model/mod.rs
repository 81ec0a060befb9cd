//! A modelled cluster: the API server's answers and what controllers make of the objects, without a server, a clock,
//! or chance. Everything is handed in, so that a run can be repeated from its seed.
//!
//! It serves the kinds of `kinds.rs`, which are those that the tests' bundles are made of, and custom kinds that
//! are installed. What the daemon can tell apart is modelled: who manages which field, what is refused and with
//! which words, versions, finalizers, watches. `the_model_answers_as_the_server_does` holds it to the real API
//! server. Not modelled: who may do what, quotas and admission webhooks (the harness puts faults in front).
#![allow(dead_code)]

mod canonical;
mod controllers;
mod defaults;
mod discovery;
pub mod gateway;
mod kinds;
mod managed;
pub mod mesh;
mod patch;
mod refuse;
mod rules;
mod schema;
mod select;
mod set;
mod store;
mod typed;
mod verbs;
mod watch;

pub use kinds::Kind;
pub use watch::Watch;

use jiff::Timestamp;
use refuse::Refusal;
use select::Selector;
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;
use store::Store;

/// The cluster.
#[derive(Clone, Debug)]
pub struct Cluster {
    kinds: Vec<Arc<Kind>>,
    store: Store,
    controllers: controllers::Controllers,
    /// Where routes of the Gateway API stand among the kinds, as far as they are installed.
    routes: Vec<usize>,
}

/// One request.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// `GET`, `POST`, ...
    pub method: &'a str,
    /// The path with its query, as it was sent.
    pub path_and_query: &'a str,
    /// The body's type; empty if there is none.
    pub content_type: &'a str,
    /// `Impersonate-User`. Anybody may do anything.
    pub user: Option<&'a str>,
    /// The body.
    pub body: &'a [u8],
}

/// What is answered.
#[derive(Clone, Debug)]
pub enum Answer {
    /// An object, a list or a `Status`.
    Object {
        /// The HTTP status.
        status: u16,
        /// The body.
        body: Arc<Value>,
    },
    /// A stream of events; ask [`Cluster::events`].
    Watch(Watch),
}

/// Where a request goes, taken apart.
pub(crate) struct Target<'a> {
    kind: Arc<Kind>,
    at: usize,
    namespace: String,
    name: String,
    subresource: String,
    query: BTreeMap<String, String>,
    request: &'a Request<'a>,
    now: Timestamp,
}

impl Target<'_> {
    fn parameter(&self, name: &str) -> &str {
        self.query.get(name).map_or("", String::as_str)
    }

    fn dry_run(&self) -> bool {
        self.parameter("dryRun") == "All"
    }

    /// Who writes. The user agent stands in where no manager is named, which is the daemon's.
    fn manager(&self) -> &str {
        match self.parameter("fieldManager") {
            "" => "windlass",
            named => named,
        }
    }

    fn selector(&self) -> Result<Selector, Refusal> {
        Selector::parse(self.parameter("labelSelector"), self.parameter("fieldSelector"))
            .map_err(refuse::bad_request)
    }
}

impl Default for Cluster {
    fn default() -> Self {
        Cluster::new()
    }
}

impl Cluster {
    /// The built-in kinds, and the namespace `default`.
    pub fn new() -> Self {
        let kinds = kinds::built_ins().into_iter().map(Arc::new).collect();
        let mut cluster = Cluster {
            kinds,
            store: Store::default(),
            controllers: controllers::Controllers::default(),
            routes: Vec::new(),
        };
        cluster.make(
            Timestamp::UNIX_EPOCH,
            serde_json::json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "default"}}),
        );
        cluster
    }

    /// Serves a custom kind, as its CustomResourceDefinition says (of its first version).
    pub fn install(&mut self, definition: &Value) {
        let kind = Kind::of_definition(definition);
        if ["HTTPRoute", "GRPCRoute"].contains(&kind.kind.as_str()) {
            self.routes.push(self.kinds.len());
        }
        self.kinds.push(Arc::new(kind));
    }

    /// The rules that traffic goes by at this moment, of a route that was accepted.
    pub fn programmed(&self, route: &Value) -> Option<&Value> {
        let uid = route["metadata"]["uid"].as_str()?;
        self.controllers.route(uid).map(|known| known.rules())
    }

    /// One request, at once and as a whole.
    pub fn handle(&mut self, now: Timestamp, request: &Request<'_>) -> Answer {
        match self.answer(now, request) {
            Ok(answer) => answer,
            Err(refusal) => Answer::Object { status: refusal.status, body: refusal.body.into() },
        }
    }

    fn answer(&mut self, now: Timestamp, request: &Request<'_>) -> Result<Answer, Refusal> {
        let (path, query) = request.path_and_query.split_once('?').unwrap_or((request.path_and_query, ""));
        let query = query.split('&').filter(|p| !p.is_empty()).map(|parameter| {
            let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
            (decoded(name, true), decoded(value, true))
        });
        let query: BTreeMap<String, String> = query.collect();
        let parts: Vec<String> =
            path.split('/').filter(|p| !p.is_empty()).map(|p| decoded(p, false)).collect();
        let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
        if let Some(body) = discovery::answer(&self.kinds, &parts) {
            return Ok(Answer::Object { status: 200, body: body.into() });
        }
        let (group, version, rest) = match parts.as_slice() {
            ["api", version, rest @ ..] => ("", *version, rest),
            ["apis", group, version, rest @ ..] => (*group, *version, rest),
            _ => return Err(refuse::no_such_path()),
        };
        let find = |plural: &str| {
            self.kinds.iter().position(|k| k.group == group && k.version == version && k.plural == plural)
        };
        let (namespace, rest) = match rest {
            ["namespaces", namespace, rest @ ..] if !rest.is_empty() && find(rest[0]).is_some() => {
                (*namespace, rest)
            }
            rest => ("", rest),
        };
        let Some(at) = rest.first().and_then(|plural| find(plural)) else {
            return Err(refuse::no_such_path());
        };
        let kind = self.kinds[at].clone();
        let part = |i: usize| rest.get(i).copied().unwrap_or_default().to_string();
        let (name, subresource) = (part(1), part(2));
        let known = match subresource.as_str() {
            "" => true,
            "status" => kind.status,
            "scale" => kind.scale,
            _ => false,
        };
        if !known || rest.len() > 3 || (!kind.namespaced && !namespace.is_empty()) {
            return Err(refuse::no_such_path());
        }
        let target = Target { kind, at, namespace: namespace.into(), name, subresource, query, request, now };
        self.perform(&target)
    }

    /// Lets controllers do what is due, one step each; whether anything changed.
    pub fn run_controllers(&mut self, now: Timestamp) -> bool {
        controllers::run(self, now)
    }

    /// Lets controllers work until they have nothing to do at this moment.
    pub fn settle(&mut self, now: Timestamp) {
        while self.run_controllers(now) {}
    }

    /// When a controller has something to do next, if nothing else happens.
    pub fn next_due(&self) -> Option<Timestamp> {
        self.controllers.next_due()
    }

    /// All objects.
    pub fn objects(&self) -> impl Iterator<Item = &Value> {
        self.store.all()
    }

    /// The objects of a kind, by namespace and name.
    pub fn of_kind(&self, kind: &str) -> impl Iterator<Item = &Value> {
        let at = self.kinds.iter().position(|k| k.kind == kind);
        at.into_iter().flat_map(|at| self.store.of_kind(at)).map(|(_, object)| object.as_ref())
    }

    /// One object.
    pub fn get(&self, kind: &str, namespace: &str, name: &str) -> Option<&Value> {
        let at = self.kinds.iter().position(|k| k.kind == kind)?;
        self.store.get(at, namespace, name).map(|object| object.as_ref())
    }

    /// One object by the path that a GET of it has, without a query.
    pub fn at_path(&self, path: &str) -> Option<&Arc<Value>> {
        let mut parts = path.split('/').filter(|p| !p.is_empty());
        let (group, version) = match parts.next()? {
            "api" => ("", parts.next()?),
            _ => (parts.next()?, parts.next()?),
        };
        let rest: Vec<&str> = parts.collect();
        let (namespace, plural, name) = match rest.as_slice() {
            ["namespaces", namespace, plural, name] => (*namespace, *plural, *name),
            [plural, name] => ("", *plural, *name),
            _ => return None,
        };
        let is = |k: &&Arc<Kind>| k.group == group && k.version == version && k.plural == plural;
        let at = self.kinds.iter().position(|k| is(&k))?;
        self.store.get(at, namespace, name)
    }

    /// The last version in which Pods, or what makes them, changed.
    pub fn workloads_version(&self) -> u64 {
        controllers::workloads_version(&self.store)
    }

    /// How many of a Deployment's Pods may be missing at most while it is rolled out (`maxUnavailable`, as a number).
    pub fn may_be_missing(deployment: &Value) -> i64 {
        controllers::may_be_missing(deployment)
    }

    /// The last version that was given.
    pub fn version(&self) -> u64 {
        self.store.version()
    }

    /// Forgets old versions: watches and lists that ask for them get 410.
    pub fn compact(&mut self) {
        self.store.compact();
    }

    /// A request in the name of another manager, as `kubectl` sends it: `body` is JSON; a PATCH with a list is a
    /// JSON patch, `apply` makes it an apply.
    pub fn act(&mut self, now: Timestamp, method: &str, path_and_query: &str, body: &Value) -> (u16, Value) {
        let content_type = match method {
            "PATCH" if path_and_query.contains("force=") => "application/apply-patch+yaml",
            "PATCH" if body.is_array() => "application/json-patch+json",
            "PATCH" => "application/merge-patch+json",
            _ => "application/json",
        };
        let body = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
        match self.handle(now, &Request { method, path_and_query, content_type, user: None, body: &body }) {
            Answer::Object { status, body } => (status, Arc::unwrap_or_clone(body)),
            Answer::Watch(_) => (200, Value::Null),
        }
    }

    /// Makes an object as `test` does; it must be possible.
    pub fn make(&mut self, now: Timestamp, object: Value) -> Value {
        let path = self.collection_of(&object);
        let (status, body) = self.act(now, "POST", &format!("{path}?fieldManager=test"), &object);
        assert_eq!(status, 201, "{body}");
        body
    }

    /// The path of the collection that an object belongs into.
    pub fn collection_of(&self, object: &Value) -> String {
        let kind = self.kinds.iter().find(|k| k.kind == object["kind"].as_str().unwrap_or_default());
        let kind = kind.unwrap_or_else(|| panic!("no such kind: {object}"));
        let root =
            if kind.group.is_empty() { "/api/v1".into() } else { format!("/apis/{}", kind.api_version()) };
        match object["metadata"]["namespace"].as_str() {
            Some(namespace) => format!("{root}/namespaces/{namespace}/{}", kind.plural),
            None => format!("{root}/{}", kind.plural),
        }
    }
}

/// Without `%20` and, in a query, `+`.
fn decoded(text: &str, query: bool) -> String {
    if !text.contains(['%', '+']) {
        return text.to_string();
    }
    let bytes = text.as_bytes();
    let (mut out, mut i) = (Vec::with_capacity(bytes.len()), 0);
    while i < bytes.len() {
        let code = |i| text.get(i + 1..i + 3).and_then(|hex| u8::from_str_radix(hex, 16).ok());
        match bytes[i] {
            b'%' if code(i).is_some() => {
                out.extend(code(i));
                i += 2;
            }
            b'+' if query => out.push(b' '),
            byte => out.push(byte),
        }
        i += 1;
    }
    String::from_utf8_lossy(&out).into_owned()
}
