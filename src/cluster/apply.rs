//! The verbs on one object: try, apply, read, patch, delete. One request each (a 429 apart, and a strategy that the object's
//! defaults are in the way of: see [`strategy`]).

use super::access::{Access, Answer};
use super::discovery::Resource;
use super::error::{ApplyError, Cause};
use crate::api::names::{DELIVERY_LABEL, FIELD_MANAGER};
use crate::core::manifest::ObjectId;
use crate::core::strategy;
use http::{Method, Request, header};
use serde_json::{Value, json};

/// What came of an apply.
#[derive(Clone, Debug, PartialEq)]
pub struct Applied {
    /// The object as the server answered with it, managed fields included. It may carry a `deletionTimestamp`: an
    /// object that is being deleted takes an apply, and is gone afterwards all the same.
    pub object: Value,
    /// Whether it was made by this request (201).
    pub created: bool,
}

/// What an apply expects to find.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Guard<'a> {
    /// Whatever there is. For the first dry-run, which finds out.
    Any,
    /// Nothing. Server-side apply cannot demand it, but without force it does not overwrite what somebody else
    /// wrote meanwhile ([`Cause::Conflict`]), and [`Applied::created`] tells whether an object stood there.
    Absent,
    /// The object with this uid; anything else is [`Cause::UidChanged`], also if there is nothing.
    /// (A `resourceVersion` does not help: the server makes a missing object anew although one is given.)
    Uid(&'a str),
}

/// What came of a delete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deletion {
    /// It is gone.
    Deleted,
    /// It is marked for deletion, and finalizers or dependents have to be waited for.
    Deleting,
    /// It was not there.
    AlreadyGone,
    /// Another object stands in its place, which was left alone.
    Replaced,
    /// It changed since it was looked at, and was left alone.
    Changed,
}

/// What happens to the objects that a deleted one owns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Propagation {
    /// They go after it.
    Background,
    /// They go before it.
    Foreground,
    /// They stay.
    Orphan,
}

impl Propagation {
    fn as_str(self) -> &'static str {
        match self {
            Propagation::Background => "Background",
            Propagation::Foreground => "Foreground",
            Propagation::Orphan => "Orphan",
        }
    }
}

/// Server-side apply without consequences: what the object would be.
pub async fn dry_run(
    access: &Access,
    resource: &Resource,
    manifest: &Value,
    guard: Guard<'_>,
) -> Result<Applied, ApplyError> {
    match send_apply(access, resource, manifest, guard, DRY_RUN).await {
        Err(error) if is_in_the_way(manifest, &error) => {
            let rest = strategy::without(manifest);
            let mut applied = send_apply(access, resource, &rest, guard, DRY_RUN).await?;
            strategy::put_back(manifest, &mut applied.object);
            Ok(applied)
        }
        answer => answer,
    }
}

const DRY_RUN: &str = "&dryRun=All";

/// Whether only the defaults of another strategy keep an object from being applied.
fn is_in_the_way(manifest: &Value, error: &ApplyError) -> bool {
    match &error.cause {
        Cause::Invalid { problems } => {
            strategy::is_in_the_way(manifest, problems.iter().map(|p| p.field.as_str()))
        }
        _ => false,
    }
}

/// Server-side apply with strict field validation.
pub async fn apply(
    access: &Access,
    resource: &Resource,
    manifest: &Value,
    guard: Guard<'_>,
) -> Result<Applied, ApplyError> {
    let refused = match send_apply(access, resource, manifest, guard, "").await {
        Err(error) if is_in_the_way(manifest, &error) => error,
        answer => return answer,
    };
    let id = id_of(resource, manifest);
    let Some(live) = get(access, resource, &id.namespace, &id.name).await? else { return Err(refused) };
    let version = live["metadata"]["resourceVersion"].as_str().unwrap_or_default();
    match guard {
        Guard::Uid(uid) if live["metadata"]["uid"] != uid => {
            return Err(ApplyError::new(id, Cause::UidChanged));
        }
        // What stands there was not expected: nothing of it is changed without a new plan.
        Guard::Absent => return Err(ApplyError::new(id, Cause::Conflict)),
        Guard::Any | Guard::Uid(_) => {}
    }
    let operations = strategy::patch(manifest, &live);
    if operations.is_empty() {
        return Err(refused);
    }
    patch_json(access, resource, &id.namespace, &id.name, version, &operations).await?;
    send_apply(access, resource, manifest, guard, "").await
}

async fn send_apply(
    access: &Access,
    resource: &Resource,
    manifest: &Value,
    guard: Guard<'_>,
    more: &str,
) -> Result<Applied, ApplyError> {
    let id = id_of(resource, manifest);
    let mut manifest = manifest.clone();
    if let (Guard::Uid(uid), Some(metadata)) =
        (guard, manifest.get_mut("metadata").and_then(Value::as_object_mut))
    {
        metadata.insert("uid".into(), uid.into());
    }
    let force = guard != Guard::Absent;
    let path = resource.path(&id.namespace, Some(&id.name));
    let query = format!("fieldManager={FIELD_MANAGER}&force={force}&fieldValidation=Strict{more}");
    let request = build(&id, Method::PATCH, &format!("{path}?{query}"), APPLY, Some(&manifest))?;
    let answer =
        access.call(&id, &resource.gvk.to_string(), &request).await.map_err(|e| named(&manifest, e))?;
    Ok(Applied { created: answer.code == 201, object: object(&id, answer)? })
}

/// An apply makes what is not there: of a binding, "not found" is said about the role that it names.
fn named(manifest: &Value, error: ApplyError) -> ApplyError {
    let role = &manifest["roleRef"];
    if error.cause != Cause::NotFound || !role.is_object() {
        return error;
    }
    let text = |field: &str| role[field].as_str().unwrap_or_default();
    let role = match text("kind") {
        "Role" => format!("Role {}/{}", error.object.namespace, text("name")),
        kind => format!("{kind} {}", text("name")),
    };
    ApplyError { object: error.object, cause: Cause::RoleMissing { role } }
}

/// Reads one object; `None` if it is not there, or its namespace is not.
pub async fn get(
    access: &Access,
    resource: &Resource,
    namespace: &str,
    name: &str,
) -> Result<Option<Value>, ApplyError> {
    let id = resource.id(namespace, name);
    let request = build(&id, Method::GET, &resource.path(namespace, Some(name)), JSON, None)?;
    match access.call(&id, &resource.gvk.to_string(), &request).await {
        Ok(answer) => object(&id, answer).map(Some),
        Err(ApplyError { cause: Cause::NotFound | Cause::NamespaceMissing { .. }, .. }) => Ok(None),
        Err(e) => Err(e),
    }
}

/// All objects of a kind in a namespace (`""`: all of a cluster-scoped kind), without pages: for kinds of which there
/// are few. Items carry `apiVersion` and `kind`, which the server leaves out of lists.
pub async fn list(access: &Access, resource: &Resource, namespace: &str) -> Result<Vec<Value>, ApplyError> {
    list_all(access, resource, namespace, "").await
}

/// The same for those that a label selector, escaped as in a URL, matches.
pub async fn list_where(
    access: &Access,
    resource: &Resource,
    namespace: &str,
    labels: &str,
) -> Result<Vec<Value>, ApplyError> {
    list_all(access, resource, namespace, &format!("?labelSelector={labels}")).await
}

/// The same for those that carry this value of our label.
pub async fn list_labelled(
    access: &Access,
    resource: &Resource,
    namespace: &str,
    label: &str,
) -> Result<Vec<Value>, ApplyError> {
    // Label values need no escaping; the slash of the name does.
    let name = DELIVERY_LABEL.replace('/', "%2F");
    list_where(access, resource, namespace, &format!("{name}%3D{label}")).await
}

/// A subresource of an object that is plain text, such as the log of a pod.
pub async fn read_text(
    access: &Access,
    resource: &Resource,
    namespace: &str,
    name: &str,
    subresource: &str,
    query: &str,
) -> Result<String, ApplyError> {
    let id = resource.id(namespace, name);
    let path = format!("{}/{subresource}?{query}", resource.path(namespace, Some(name)));
    let request = build(&id, Method::GET, &path, JSON, None)?;
    let answer = access.call(&id, &resource.gvk.to_string(), &request).await?;
    Ok(String::from_utf8_lossy(&answer.body).into_owned())
}

async fn list_all(
    access: &Access,
    resource: &Resource,
    namespace: &str,
    query: &str,
) -> Result<Vec<Value>, ApplyError> {
    let id = resource.id(namespace, "");
    let path = format!("{}{query}", resource.path(namespace, None));
    let request = build(&id, Method::GET, &path, JSON, None)?;
    let answer = access.call(&id, &resource.gvk.to_string(), &request).await?;
    let mut list = object(&id, answer)?;
    let items = list["items"].as_array_mut().map(std::mem::take).unwrap_or_default();
    let named = items.into_iter().map(|mut item| {
        item["apiVersion"] = resource.gvk.api_version().into();
        item["kind"] = resource.gvk.kind.clone().into();
        item
    });
    Ok(named.collect())
}

/// A JSON patch (RFC 6902) of the object as it was at `resource_version`; [`Cause::Conflict`] if it is another now.
pub async fn patch_json(
    access: &Access,
    resource: &Resource,
    namespace: &str,
    name: &str,
    resource_version: &str,
    operations: &[Value],
) -> Result<Value, ApplyError> {
    let id = resource.id(namespace, name);
    // A `test` operation that fails answers 422 like any other mistake; a stale resourceVersion answers 409.
    let guard = json!({"op": "replace", "path": "/metadata/resourceVersion", "value": resource_version});
    let patch = Value::Array(std::iter::once(guard).chain(operations.iter().cloned()).collect());
    let path = format!("{}?fieldManager={FIELD_MANAGER}", resource.path(namespace, Some(name)));
    let request = build(&id, Method::PATCH, &path, JSON_PATCH, Some(&patch))?;
    let answer = access.call(&id, &resource.gvk.to_string(), &request).await?;
    object(&id, answer)
}

/// Sends a JSON patch that says itself which version it was made for. Fields that the API server does not know are refused.
pub async fn patch_strictly(
    access: &Access,
    resource: &Resource,
    namespace: &str,
    name: &str,
    patch: &Value,
) -> Result<Value, ApplyError> {
    let id = resource.id(namespace, name);
    let path = resource.path(namespace, Some(name));
    let path = format!("{path}?fieldManager={FIELD_MANAGER}&fieldValidation=Strict");
    let request = build(&id, Method::PATCH, &path, JSON_PATCH, Some(patch))?;
    let answer = access.call(&id, &resource.gvk.to_string(), &request).await?;
    object(&id, answer)
}

/// Deletes the object with this uid, and only as it was at `resource_version` if one is given.
pub async fn delete(
    access: &Access,
    resource: &Resource,
    namespace: &str,
    name: &str,
    uid: &str,
    resource_version: Option<&str>,
    propagation: Propagation,
) -> Result<Deletion, ApplyError> {
    let id = resource.id(namespace, name);
    let mut preconditions = json!({ "uid": uid });
    if let Some(version) = resource_version {
        preconditions["resourceVersion"] = version.into();
    }
    let options = json!({
        "apiVersion": "v1", "kind": "DeleteOptions",
        "preconditions": preconditions, "propagationPolicy": propagation.as_str(),
    });
    let request = build(&id, Method::DELETE, &resource.path(namespace, Some(name)), JSON, Some(&options))?;
    match access.call(&id, &resource.gvk.to_string(), &request).await {
        // Answered with a Status it is gone; answered with the object, something is still to happen to it.
        Ok(answer) => match serde_json::from_slice::<Value>(&answer.body) {
            Ok(body) if body["kind"] == "Status" => Ok(Deletion::Deleted),
            Ok(body) if body["metadata"]["deletionTimestamp"].is_null() => Ok(Deletion::Deleted),
            _ => Ok(Deletion::Deleting),
        },
        Err(ApplyError { cause: Cause::NotFound | Cause::NamespaceMissing { .. }, .. }) => {
            Ok(Deletion::AlreadyGone)
        }
        Err(ApplyError { cause: Cause::UidChanged, .. }) => Ok(Deletion::Replaced),
        Err(ApplyError { cause: Cause::Conflict, .. }) => Ok(Deletion::Changed),
        Err(e) => Err(e),
    }
}

const APPLY: &str = "application/apply-patch+yaml";
const JSON: &str = "application/json";
const JSON_PATCH: &str = "application/json-patch+json";

fn id_of(resource: &Resource, manifest: &Value) -> ObjectId {
    let text = |field: &str| manifest["metadata"][field].as_str().unwrap_or_default();
    resource.id(text("namespace"), text("name"))
}

fn build(
    id: &ObjectId,
    method: Method,
    path: &str,
    content_type: &str,
    body: Option<&Value>,
) -> Result<Request<Vec<u8>>, ApplyError> {
    let refuse = |message: String| ApplyError {
        object: Box::new(id.clone()),
        cause: Cause::Refused { code: 0, message },
    };
    let body = match body {
        Some(value) => serde_json::to_vec(value).map_err(|e| refuse(e.to_string()))?,
        None => Vec::new(),
    };
    Request::builder()
        .method(method)
        .uri(path)
        .header(header::CONTENT_TYPE, content_type)
        .header(header::ACCEPT, JSON)
        .body(body)
        .map_err(|e| refuse(e.to_string()))
}

fn object(id: &ObjectId, answer: Answer) -> Result<Value, ApplyError> {
    serde_json::from_slice(&answer.body).map_err(|e| ApplyError {
        object: Box::new(id.clone()),
        // Where the answer is broken, not what stands there.
        cause: Cause::Unavailable {
            message: format!("the answer is not JSON (line {}, column {})", e.line(), e.column()),
        },
    })
}
