//! The verbs: get, list, watch, create, update, patch, apply, delete.

use super::canonical::Noticed;
use super::managed::{self, Managers, Who, Write, conflict_message};
use super::patch::{self, Failed};
use super::refuse::{self, About, Refusal};
use super::store::Key;
use super::{Answer, Cluster, Target, Watch, defaults, rules, typed};
use serde_json::{Map, Value, json};
use std::sync::Arc;

type Answered = Result<Answer, Refusal>;

/// What finalizers of propagation are called.
const FOREGROUND: &str = "foregroundDeletion";
const ORPHAN: &str = "orphan";

fn ok(status: u16, object: impl Into<Arc<Value>>) -> Answered {
    Ok(Answer::Object { status, body: object.into() })
}

fn text<'a>(object: &'a Value, field: &str) -> &'a str {
    object["metadata"][field].as_str().unwrap_or_default()
}

impl Target<'_> {
    fn key(&self) -> Key {
        (self.at, self.namespace.clone(), self.name.clone())
    }

    fn about<'a>(&'a self, qualified: &'a str, name: &'a str) -> About<'a> {
        About { qualified, group: &self.kind.group, kind: &self.kind.plural, name }
    }

    fn not_found(&self) -> Refusal {
        self.about(&self.kind.qualified(), &self.name).not_found()
    }

    fn body(&self) -> Result<Value, Refusal> {
        serde_json::from_slice(self.request.body)
            .map_err(|e| refuse::bad_request(format!("the object provided is unrecognized: {e}")))
    }
}

impl Cluster {
    pub(super) fn perform(&mut self, target: &Target<'_>) -> Answered {
        match (target.request.method, target.name.is_empty()) {
            ("GET", true) => self.list(target),
            ("GET", false) if matches!(target.parameter("watch"), "true" | "1") => self.list(target),
            ("GET", false) => self.read(target),
            ("POST", true) => self.create(target),
            ("PUT", false) => self.put(target),
            ("PATCH", false) => self.patch(target),
            ("DELETE", false) => self.delete(target),
            _ => Err(refuse::refusal(
                405,
                "MethodNotAllowed",
                "the server does not allow this method on the requested resource".into(),
                json!({}),
            )),
        }
    }

    fn read(&mut self, target: &Target<'_>) -> Answered {
        let object = self.store.get(target.at, &target.namespace, &target.name);
        let object = object.ok_or_else(|| target.not_found())?;
        match target.subresource.as_str() {
            "scale" => ok(200, scale_of(object)),
            _ => ok(200, object.clone()),
        }
    }

    fn list(&mut self, target: &Target<'_>) -> Answered {
        let selector = target.selector()?;
        let version = target.parameter("resourceVersion");
        if matches!(target.parameter("watch"), "true" | "1") {
            let fresh = matches!(version, "" | "0");
            let version = version.parse().unwrap_or(0);
            let (namespace, name) = (target.namespace.clone(), target.name.clone());
            let (at, ended) = (target.at, false);
            return Ok(Answer::Watch(Watch { at, namespace, name, selector, version, fresh, ended }));
        }
        let limit: usize = target.parameter("limit").parse().unwrap_or(0);
        let token = target.parameter("continue");
        let mut meta = Map::new();
        let (mut items, mut last) = (Vec::new(), None);
        let mut remaining = 0_usize;
        let mut take = |key: &Key, object: &Arc<Value>| {
            if !selector.fits(object) {
                return;
            }
            if limit > 0 && items.len() >= limit {
                remaining += 1;
                return;
            }
            last = Some((key.1.clone(), key.2.clone()));
            let mut item = object.as_ref().clone();
            // Items of a list do not say what they are, those of custom kinds do.
            if !target.kind.custom
                && let Some(fields) = item.as_object_mut()
            {
                fields.remove("apiVersion");
                fields.remove("kind");
            }
            items.push(item);
        };
        let at = if token.is_empty() {
            for (key, object) in self.store.list(target.at, &target.namespace) {
                take(key, object);
            }
            self.store.version()
        } else {
            let (version, namespace, name) = token_parts(token)
                .ok_or_else(|| refuse::bad_request("continue key is not valid: invalid token"))?;
            let expired = || {
                refuse::expired(
                    "The provided continue parameter is too old to display a consistent list result. You can \
                     start a new list without the continue parameter, or use the continue token in this \
                     response to retrieve the remainder of the results.",
                )
            };
            let then = self.store.list_at(target.at, &target.namespace, version).ok_or_else(expired)?;
            for (key, object) in then.iter().filter(|(k, _)| (&k.1, &k.2) > (&namespace, &name)) {
                take(key, object);
            }
            version
        };
        meta.insert("resourceVersion".into(), at.to_string().into());
        if let (true, Some((namespace, name))) = (remaining > 0, last) {
            meta.insert("continue".into(), token_of(at, &namespace, &name).into());
            if selector.is_empty() {
                meta.insert("remainingItemCount".into(), remaining.into());
            }
        }
        let kind = format!("{}List", target.kind.kind);
        let body =
            json!({"kind": kind, "apiVersion": target.kind.api_version(), "metadata": meta, "items": items});
        ok(200, body)
    }

    /// An object from a request's body, as it is read: typed, with defaults, its name and namespace looked at.
    fn read_in(&self, target: &Target<'_>, mut object: Value) -> Result<Value, Refusal> {
        let kind = &target.kind;
        let said = |field: &str| object[field].as_str().unwrap_or_default().to_string();
        let (version, name) = (said("apiVersion"), said("kind"));
        if !version.is_empty() && version != kind.api_version() || !name.is_empty() && name != kind.kind {
            return Err(refuse::bad_request(format!(
                "{name} in version {version:?} cannot be handled as a {}",
                kind.kind
            )));
        }
        if !object.is_object() {
            return Err(refuse::bad_request("the object provided is unrecognized"));
        }
        if !object["metadata"].is_object() {
            object["metadata"] = json!({});
        }
        let strict = target.parameter("fieldValidation") == "Strict";
        let mut noticed = Noticed::default();
        object["apiVersion"] = kind.api_version().into();
        object["kind"] = kind.kind.clone().into();
        let mut object = kind.canonical(object, true, &mut noticed);
        if let Some(said) = noticed.misfit.filter(|_| !kind.custom) {
            return Err(refuse::bad_request(format!(
                "{} in version {:?} cannot be handled as a {}: {said}",
                kind.kind, kind.version, kind.kind
            )));
        }
        if strict && !noticed.unknown.is_empty() {
            let unknown: Vec<String> =
                noticed.unknown.iter().map(|path| format!("unknown field {path:?}")).collect();
            return Err(refuse::bad_request(format!(
                "{} in version {:?} cannot be handled as a {}: strict decoding error: {}",
                kind.kind,
                kind.version,
                kind.kind,
                unknown.join(", ")
            )));
        }
        if !kind.custom {
            defaults::fill(&kind.kind, &mut object);
        }
        if kind.namespaced && !target.namespace.is_empty() {
            let given = text(&object, "namespace");
            if !given.is_empty() && given != target.namespace {
                return Err(refuse::bad_request(
                    "the namespace of the provided object does not match the namespace sent on the request",
                ));
            }
            object["metadata"]["namespace"] = target.namespace.clone().into();
        }
        Ok(object)
    }

    fn create(&mut self, target: &Target<'_>) -> Answered {
        let kind = target.kind.clone();
        let mut object = self.read_in(target, target.body()?)?;
        if !text(&object, "resourceVersion").is_empty() {
            return Err(refuse::refusal(
                400,
                "BadRequest",
                "resourceVersion should not be set on objects to be created".into(),
                Value::Null,
            ));
        }
        let mut managers = given_managers(&object, &Value::Null, "").unwrap_or_default();
        if let Some(meta) = object["metadata"].as_object_mut() {
            meta.remove("managedFields");
        }
        let who = Who::new(target.manager(), false, &kind.api_version(), "");
        let version = kind.api_version();
        let write = Write { of: &kind.of, ignored: &kind.ignored(""), who: &who, version: &version };
        managers.update(write, &kind.empty, &object, target.now);
        managers.write(&mut object);
        self.begin(target, object).and_then(|object| ok(201, object))
    }

    /// Makes an object that is not there.
    fn begin(&mut self, target: &Target<'_>, mut object: Value) -> Result<Arc<Value>, Refusal> {
        let kind = target.kind.clone();
        self.namespace_takes(target)?;
        if text(&object, "name").is_empty() && !text(&object, "generateName").is_empty() {
            let name = format!("{}{}", text(&object, "generateName"), suffix(self.store.number()));
            object["metadata"]["name"] = name.into();
        }
        let uid = self.store.uid();
        rules::before_create(&kind, &mut object, &uid, target.now, self.store.version());
        let wrongs = rules::wrong_in(&kind, &object);
        let name = text(&object, "name").to_string();
        if !wrongs.is_empty() {
            return Err(target.about(&kind.qualified(), &name).invalid(&kind.kind, &wrongs));
        }
        let namespace = if kind.namespaced { target.namespace.clone() } else { String::new() };
        if self.store.get(target.at, &namespace, &name).is_some() {
            return Err(target.about(&kind.qualified(), &name).already_exists());
        }
        if target.dry_run() {
            return Ok(Arc::new(object));
        }
        Ok(self.store.put((target.at, namespace, name), object))
    }

    /// The namespace is there and not on its way out.
    fn namespace_takes(&self, target: &Target<'_>) -> Result<(), Refusal> {
        if !target.kind.namespaced {
            return Ok(());
        }
        let about = About { qualified: "namespaces", group: "", kind: "namespaces", name: &target.namespace };
        // Namespaces are the first kind.
        let namespace = self.store.get(0, "", &target.namespace).ok_or_else(|| about.not_found())?;
        if namespace["metadata"]["deletionTimestamp"].is_null() {
            return Ok(());
        }
        let said = format!(
            "unable to create new content in namespace {} because it is being terminated",
            target.namespace
        );
        let mut refusal = target.about(&target.kind.qualified(), &target.name).forbidden(&said);
        refusal.body["details"]["causes"] = json!([{
            "reason": "NamespaceTerminating", "field": "metadata.namespace",
            "message": format!("namespace {} is being terminated", target.namespace),
        }]);
        Err(refusal)
    }

    fn put(&mut self, target: &Target<'_>) -> Answered {
        let kind = target.kind.clone();
        if target.subresource == "scale" {
            let scale = target.body()?;
            return self.scale(target, &scale);
        }
        let object = self.read_in(target, target.body()?)?;
        let name = text(&object, "name");
        if name != target.name {
            return Err(refuse::bad_request(match name {
                "" => "name must be provided".to_string(),
                _ => format!(
                    "the name of the object ({name}) does not match the name on the URL ({})",
                    target.name
                ),
            }));
        }
        let Some(live) = self.store.get(target.at, &target.namespace, &target.name).cloned() else {
            if !kind.put_creates || !target.subresource.is_empty() {
                return Err(target.not_found());
            }
            let mut object = object;
            let mut managers = Managers::default();
            let who = Who::new(target.manager(), false, &kind.api_version(), "");
            let version = kind.api_version();
            let write = Write { of: &kind.of, ignored: &kind.ignored(""), who: &who, version: &version };
            managers.update(write, &kind.empty, &object, target.now);
            managers.write(&mut object);
            return self.begin(target, object).and_then(|object| ok(201, object));
        };
        let uid = text(&object, "uid");
        if !uid.is_empty() && uid != text(&live, "uid") {
            let said = format!(
                "Precondition failed: UID in precondition: {uid}, UID in object meta: {}",
                text(&live, "uid")
            );
            return Err(target.about(&kind.qualified(), &target.name).conflict(&said));
        }
        self.replace(target, &live, object)
    }

    /// Puts a new state in the place of an old one, in the name of an updater.
    fn replace(&mut self, target: &Target<'_>, live: &Arc<Value>, mut object: Value) -> Answered {
        let kind = target.kind.clone();
        let reset = is_reset(&object["metadata"]["managedFields"]);
        let mut managers = match reset && target.subresource.is_empty() {
            true => Managers::default(),
            false => given_managers(&object, live, &target.subresource).unwrap_or_default(),
        };
        if let Some(meta) = object["metadata"].as_object_mut() {
            meta.remove("managedFields");
        }
        // Who never managed anything is not tracked from an update on.
        if !managers.0.is_empty() {
            let who = Who::new(target.manager(), false, &kind.api_version(), &target.subresource);
            let ignored = kind.ignored(&target.subresource);
            let write = Write { of: &kind.of, ignored: &ignored, who: &who, version: &kind.api_version() };
            managers.update(write, live, &object, target.now);
        }
        managers.write(&mut object);
        self.finish(target, live, object)
    }

    /// The common end of all updates.
    fn finish(&mut self, target: &Target<'_>, live: &Arc<Value>, mut object: Value) -> Answered {
        let kind = target.kind.clone();
        let qualified = kind.qualified();
        let about = target.about(&qualified, &target.name);
        let given = text(&object, "resourceVersion").to_string();
        if given.is_empty() || given == "0" {
            if !kind.put_unconditionally {
                let wrong = refuse::Wrong::invalid(
                    "metadata.resourceVersion",
                    &json!(0),
                    "must be specified for an update",
                );
                let mut refusal = about.invalid(&kind.kind, &[wrong]);
                refusal.body["details"]["kind"] = kind.plural.clone().into();
                return Err(refusal);
            }
            object["metadata"]["resourceVersion"] = live["metadata"]["resourceVersion"].clone();
        } else if given != text(live, "resourceVersion") {
            return Err(about.modified());
        }
        rules::before_update(&kind, &target.subresource, live, &mut object);
        let mut wrongs = rules::wrong_change(&kind, live, &object);
        wrongs.extend(rules::wrong_in(&kind, &object));
        if !wrongs.is_empty() {
            return Err(about.invalid(&kind.kind, &wrongs));
        }
        keep_times_of_nothing(live, &mut object);
        let ends = !object["metadata"]["deletionTimestamp"].is_null()
            && object["metadata"]["finalizers"].as_array().is_none_or(Vec::is_empty)
            && is_over(&object);
        if target.dry_run() {
            return ok(200, object);
        }
        if ends {
            self.store.put(target.key(), object);
            let last = self.store.remove(&target.key()).unwrap_or_default();
            return ok(200, last);
        }
        if object == **live {
            return ok(200, live.clone());
        }
        let stored = self.store.put(target.key(), object);
        ok(200, stored)
    }

    fn patch(&mut self, target: &Target<'_>) -> Answered {
        let kind = target.kind.clone();
        if target.request.content_type.starts_with("application/apply-patch+") {
            return self.apply(target);
        }
        let body = target.body()?;
        let live = self.store.get(target.at, &target.namespace, &target.name).cloned();
        let live = live.ok_or_else(|| target.not_found())?;
        let mut object = if target.subresource == "scale" { scale_of(&live) } else { live.as_ref().clone() };
        match target.request.content_type.split(';').next().unwrap_or_default() {
            "application/json-patch+json" => match patch::json(&mut object, &body) {
                Ok(()) => {}
                Err(Failed::Malformed(said)) => return Err(refuse::bad_request(said)),
                Err(Failed::Operation(_)) => {
                    return Err(refuse::refusal(
                        422,
                        "Invalid",
                        "the server rejected our request due to an error in our request".into(),
                        json!({}),
                    ));
                }
            },
            // A strategic patch differs in lists only, which nobody here sends.
            "application/merge-patch+json" | "application/strategic-merge-patch+json" => {
                patch::merge(&mut object, &body);
            }
            other => {
                return Err(refuse::refusal(
                    415,
                    "UnsupportedMediaType",
                    format!("the body of the request was in an unknown format - {other}"),
                    json!({}),
                ));
            }
        }
        if target.subresource == "scale" {
            return self.scale(target, &object);
        }
        let object = self.read_in(target, object)?;
        if text(&object, "uid") != text(&live, "uid") && !text(&object, "uid").is_empty() {
            let said = format!(
                "Precondition failed: UID in precondition: {}, UID in object meta: {}",
                text(&object, "uid"),
                text(&live, "uid")
            );
            return Err(target.about(&kind.qualified(), &target.name).conflict(&said));
        }
        self.replace(target, &live, object)
    }

    fn apply(&mut self, target: &Target<'_>) -> Answered {
        let kind = target.kind.clone();
        if target.parameter("fieldManager").is_empty() {
            return Err(refuse::bad_request(
                "PatchOptions.meta.k8s.io \"\" is invalid: fieldManager: Required value: is required for apply patch",
            ));
        }
        let config = target.body()?;
        let said = |field: &str| config[field].as_str().unwrap_or_default();
        if said("apiVersion") != kind.api_version() || said("kind") != kind.kind {
            return Err(refuse::bad_request(format!(
                "invalid object type: {}, Kind={}",
                said("apiVersion"),
                said("kind")
            )));
        }
        if !config["metadata"]["managedFields"].is_null() {
            return Err(refuse::bad_request("metadata.managedFields must be nil"));
        }
        let named = format!(
            "{}/{}; {}, Kind={}",
            target.namespace,
            target.name,
            if kind.group.is_empty() { format!("/{}", kind.version) } else { kind.api_version() },
            kind.kind
        );
        let errors = typed::validate(&kind.of, &without_type(&config), false);
        if !errors.is_empty() {
            let said = match errors.as_slice() {
                [one] => one.clone(),
                many => format!("errors:\n  {}", many.join("\n  ")),
            };
            let message = format!("failed to create typed patch object ({named}): {said}");
            return Err(refuse::refusal(500, "", message, Value::Null));
        }
        let live = self.store.get(target.at, &target.namespace, &target.name).cloned();
        let empty = || Arc::new(kind.empty.clone());
        let before = live.clone().unwrap_or_else(empty);
        let mut managers = Managers::of(&before);
        let version = kind.api_version();
        if managers.0.is_empty() && live.is_some() {
            let who = Who::new("before-first-apply", false, &version, &target.subresource);
            let ignored = kind.ignored(&target.subresource);
            let write = Write { of: &kind.of, ignored: &ignored, who: &who, version: &version };
            managers.update(write, &kind.empty, &before, target.now);
        }
        let mut stripped = before.as_ref().clone();
        if let Some(meta) = stripped["metadata"].as_object_mut() {
            meta.remove("managedFields");
        }
        let who = Who::new(target.manager(), true, "", &target.subresource);
        let force = target.parameter("force") == "true";
        let ignored = kind.ignored(&target.subresource);
        let write = Write { of: &kind.of, ignored: &ignored, who: &who, version: &version };
        let applied = managers.apply(write, &stripped, &config, force);
        let new = applied.map_err(|conflicts| {
            let (message, causes) = conflict_message(&conflicts);
            refuse::refusal(409, "Conflict", message, json!({"causes": causes}))
        })?;
        let mut object = match new {
            None => stripped,
            Some(mut new) => {
                if let Some(mine) = managers.0.get_mut(&who) {
                    mine.time = managed::time(target.now);
                }
                new["apiVersion"] = version.clone().into();
                new["kind"] = kind.kind.clone().into();
                let mut noticed = Noticed::default();
                let mut object = kind.canonical(new, false, &mut noticed);
                if let Some(said) = noticed.misfit.filter(|_| !kind.custom) {
                    let message = format!(
                        "failed to convert new object ({named}) to proper version ({version}): error decoding \
                         from json: {said}"
                    );
                    return Err(refuse::refusal(500, "", message, Value::Null));
                }
                if !kind.custom {
                    defaults::fill(&kind.kind, &mut object);
                }
                object
            }
        };
        managers.write(&mut object);
        let qualified = kind.qualified();
        let about = target.about(&qualified, &target.name);
        for (field, wanted) in [("name", &target.name), ("namespace", &target.namespace)] {
            let given = text(&object, field);
            if given.is_empty() && !wanted.is_empty() {
                object["metadata"][field] = wanted.clone().into();
            } else if given != wanted {
                let what = if field == "name" { "name" } else { "namespace" };
                return Err(refuse::bad_request(match what {
                    "name" => format!(
                        "the name of the object ({given}) does not match the name on the URL ({wanted})"
                    ),
                    _ => "the namespace of the provided object does not match the namespace sent on the request"
                        .into(),
                }));
            }
        }
        match live {
            None => {
                let uid = text(&object, "uid");
                if !uid.is_empty() {
                    return Err(about.conflict(&format!(
                        "uid mismatch: the provided object specified uid {uid}, and no existing object was found"
                    )));
                }
                if !target.subresource.is_empty() {
                    return Err(target.not_found());
                }
                self.begin(target, object).and_then(|object| ok(201, object))
            }
            Some(live) => self.finish(target, &live, object),
        }
    }

    /// Sets `spec.replicas` through the subresource: others lose the field, the object's spec counts as changed.
    fn scale(&mut self, target: &Target<'_>, scale: &Value) -> Answered {
        let kind = target.kind.clone();
        let live = self.store.get(target.at, &target.namespace, &target.name).cloned();
        let live = live.ok_or_else(|| target.not_found())?;
        let given = text(scale, "resourceVersion");
        if !given.is_empty() && given != text(&live, "resourceVersion") {
            return Err(target.about(&kind.qualified(), &target.name).modified());
        }
        let replicas = scale["spec"]["replicas"].as_i64().unwrap_or(0);
        let mut object = live.as_ref().clone();
        if live["spec"]["replicas"] != replicas {
            object["spec"]["replicas"] = replicas.into();
            let mut managers = Managers::of(&live);
            if !managers.0.is_empty() {
                let who = Who::new(target.manager(), false, &kind.api_version(), "scale");
                let ignored = super::set::Set::default();
                let write =
                    Write { of: &kind.of, ignored: &ignored, who: &who, version: &kind.api_version() };
                managers.update(write, &live, &object, target.now);
            }
            managers.write(&mut object);
        }
        let main = Target {
            kind: kind.clone(),
            at: target.at,
            namespace: target.namespace.clone(),
            name: target.name.clone(),
            subresource: String::new(),
            query: target.query.clone(),
            request: target.request,
            now: target.now,
        };
        match self.finish(&main, &live, object)? {
            Answer::Object { body, .. } => ok(200, scale_of(&body)),
            watch => Ok(watch),
        }
    }

    fn delete(&mut self, target: &Target<'_>) -> Answered {
        let kind = target.kind.clone();
        let options = if target.request.body.is_empty() { json!({}) } else { target.body()? };
        let dry = target.dry_run() || options["dryRun"] == json!(["All"]);
        let live = self.store.get(target.at, &target.namespace, &target.name).cloned();
        let live = live.ok_or_else(|| target.not_found())?;
        let qualified = kind.qualified();
        let about = target.about(&qualified, &target.name);
        for (field, called) in [("uid", "UID"), ("resourceVersion", "ResourceVersion")] {
            let Some(wanted) = options["preconditions"][field].as_str() else { continue };
            let found = text(&live, field);
            if wanted != found {
                let happened = if field == "uid" { "deleted and then recreated" } else { "modified" };
                return Err(about.conflict(&format!(
                    "the {called} in the precondition ({wanted}) does not match the {called} in record ({found}). \
                     The object might have been {happened}"
                )));
            }
        }
        let policy = match (options["propagationPolicy"].as_str(), target.parameter("propagationPolicy")) {
            (Some(policy), _) => policy,
            (None, "") if kind.kind == "Job" => "Orphan",
            (None, policy) => policy,
        };
        let mut finalizers: Vec<String> = live["metadata"]["finalizers"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .map(str::to_string)
            .collect();
        let before = finalizers.clone();
        let wanted = match policy {
            "Foreground" => Some(FOREGROUND),
            "Orphan" => Some(ORPHAN),
            _ => None,
        };
        if !policy.is_empty() {
            finalizers.retain(|f| Some(f.as_str()) == wanted || f != FOREGROUND && f != ORPHAN);
        }
        if let Some(wanted) = wanted.filter(|w| !finalizers.iter().any(|f| f == w)) {
            finalizers.push(wanted.into());
        }
        let deleting = !live["metadata"]["deletionTimestamp"].is_null();
        let grace = grace_of(&kind.kind, &live, &options);
        let waits = !finalizers.is_empty() || grace > 0 || kind.kind == "Namespace";
        if !waits {
            if !dry {
                self.store.remove(&target.key());
            }
            let answers_object = ["ServiceAccount", "PersistentVolumeClaim", "Namespace", "Pod", "Service"];
            if answers_object.contains(&kind.kind.as_str()) && !kind.custom {
                return ok(200, live);
            }
            let mut details = json!({"name": target.name, "kind": kind.plural, "uid": text(&live, "uid")});
            if !kind.group.is_empty() {
                details["group"] = kind.group.clone().into();
            }
            let body = json!({
                "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details,
            });
            return ok(200, body);
        }
        if deleting && finalizers == before {
            return ok(200, live);
        }
        let mut object = live.as_ref().clone();
        let meta = &mut object["metadata"];
        if !finalizers.is_empty() {
            meta["finalizers"] = json!(finalizers);
        }
        if !deleting {
            meta["deletionTimestamp"] =
                managed::time(target.now + jiff::SignedDuration::from_secs(grace)).into();
            if kind.kind != "Namespace" {
                meta["deletionGracePeriodSeconds"] = grace.into();
            }
            if let Some(generation) = meta["generation"].as_i64() {
                meta["generation"] = (generation + 1).into();
            }
            if kind.kind == "Namespace" {
                object["status"]["phase"] = "Terminating".into();
            }
        }
        if dry {
            return ok(200, object);
        }
        let stored = self.store.put(target.key(), object);
        ok(200, stored)
    }
}

/// How long an object lives on after it was deleted, in seconds: Pods only, once they run somewhere.
fn grace_of(kind: &str, live: &Value, options: &Value) -> i64 {
    if kind != "Pod" || live["spec"]["nodeName"].as_str().unwrap_or_default().is_empty() {
        return 0;
    }
    let over = ["Succeeded", "Failed"].contains(&live["status"]["phase"].as_str().unwrap_or_default());
    if over {
        return 0;
    }
    let wanted = options["gracePeriodSeconds"].as_i64();
    wanted.or(live["spec"]["terminationGracePeriodSeconds"].as_i64()).unwrap_or(30)
}

/// Nothing but finalizers holds an object that is being deleted.
fn is_over(object: &Value) -> bool {
    match object["kind"].as_str() {
        Some("Namespace") => object["spec"]["finalizers"].as_array().is_none_or(Vec::is_empty),
        _ => object["metadata"]["deletionGracePeriodSeconds"].as_i64().unwrap_or(0) == 0,
    }
}

/// What stands in an object without its type, which is no field of its schema.
fn without_type(object: &Value) -> Value {
    let mut object = object.clone();
    if let Some(fields) = object.as_object_mut() {
        fields.remove("apiVersion");
        fields.remove("kind");
    }
    object
}

/// The managed fields that a request brings, or those of the live object.
fn given_managers(object: &Value, live: &Value, subresource: &str) -> Option<Managers> {
    if subresource.is_empty()
        && let Some(managers) = Managers::decode(&object["metadata"]["managedFields"])
        && !managers.0.is_empty()
    {
        return Some(managers);
    }
    Managers::decode(&live["metadata"]["managedFields"])
}

/// `[]` or `[{}]`: nobody manages anything any more.
fn is_reset(entries: &Value) -> bool {
    match entries.as_array().map(Vec::as_slice) {
        Some([]) => true,
        Some([one]) => one.as_object().is_some_and(Map::is_empty),
        _ => false,
    }
}

/// A write that changes nothing but times of managed fields changes nothing.
fn keep_times_of_nothing(live: &Value, object: &mut Value) {
    let entries =
        |object: &Value| object["metadata"]["managedFields"].as_array().cloned().unwrap_or_default();
    let timeless = |entries: &[Value]| {
        let mut out: Vec<String> = entries
            .iter()
            .map(|entry| {
                let mut entry = entry.clone();
                if let Some(fields) = entry.as_object_mut() {
                    fields.remove("time");
                }
                entry.to_string()
            })
            .collect();
        out.sort();
        out
    };
    let others = |object: &Value, name: &str| {
        object.as_object().map_or(0, |o| o.len() - usize::from(o.contains_key(name)))
    };
    let same = |a: &Value, b: &Value, except: &str| {
        others(a, except) == others(b, except)
            && a.as_object()
                .into_iter()
                .flatten()
                .all(|(name, value)| name == except || b.get(name) == Some(value))
    };
    if !same(live, object, "metadata") || !same(&live["metadata"], &object["metadata"], "managedFields") {
        return;
    }
    let (old, new) = (entries(live), entries(object));
    if old == new || timeless(&old) != timeless(&new) {
        return;
    }
    object["metadata"]["managedFields"] = live["metadata"]["managedFields"].clone();
}

/// What `scale` shows of a workload.
fn scale_of(object: &Value) -> Value {
    let meta = &object["metadata"];
    let labels = object["spec"]["selector"]["matchLabels"].as_object().into_iter().flatten();
    let selector: Vec<String> =
        labels.map(|(k, v)| format!("{k}={}", v.as_str().unwrap_or_default())).collect();
    json!({
        "kind": "Scale", "apiVersion": "autoscaling/v1",
        "metadata": {
            "name": meta["name"], "namespace": meta["namespace"], "uid": meta["uid"],
            "resourceVersion": meta["resourceVersion"], "creationTimestamp": meta["creationTimestamp"],
        },
        "spec": {"replicas": object["spec"]["replicas"]},
        "status": {"replicas": object["status"]["replicas"].as_i64().unwrap_or(0), "selector": selector.join(",")},
    })
}

/// The end of a generated name: five letters and digits, another for each number.
pub(super) fn suffix(number: u64) -> String {
    const LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    let mut rest = number;
    let letters = (0..5).map(|_| {
        let letter = LETTERS[(rest % 27) as usize];
        rest /= 27;
        char::from(letter)
    });
    letters.collect()
}

fn token_of(version: u64, namespace: &str, name: &str) -> String {
    use base64::Engine;
    let token = json!({"v": version, "namespace": namespace, "name": name}).to_string();
    base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(token)
}

fn token_parts(token: &str) -> Option<(u64, String, String)> {
    use base64::Engine;
    let bytes = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(token).ok()?;
    let token: Value = serde_json::from_slice(&bytes).ok()?;
    Some((token["v"].as_u64()?, token["namespace"].as_str()?.into(), token["name"].as_str()?.into()))
}
