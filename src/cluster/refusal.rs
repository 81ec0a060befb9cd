//! What the API server's refusals mean.
//!
//! Pure: an answer's status and body in, a [`Cause`] out. Texts that stand in the API server's code were tried on a
//! real one (1.36); what is not recognised keeps the server's words. The server echoes values: nothing of an
//! answer about a Secret is passed on but field names and fixed texts.

use super::error::{Cause, FieldProblem};
use crate::core::manifest::ObjectId;
use serde::Deserialize;
use std::time::Duration;

/// An answer that is not a success, as it came.
#[derive(Clone, Copy, Debug)]
pub struct Refusal<'a> {
    /// The HTTP status.
    pub code: u16,
    /// The body; a `Status` object, or anything that stands between us and the server.
    pub body: &'a [u8],
    /// The `Retry-After` header.
    pub retry_after: Option<Duration>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Status {
    message: String,
    reason: String,
    details: Details,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Details {
    name: String,
    kind: String,
    causes: Vec<StatusCause>,
    retry_after_seconds: u64,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct StatusCause {
    reason: String,
    message: String,
    field: String,
}

/// Longest text of the server's that is passed on, in characters.
const LONGEST: usize = 600;

/// Stands where the server's words about a Secret would.
const WITHHELD: &str = "the reason is not shown, as it may quote the Secret";

/// What a refusal means. `kind` is `apiVersion kind`, to be shown.
pub fn classify(object: &ObjectId, kind: &str, refusal: Refusal<'_>) -> Cause {
    let secret = is_secret(object);
    let status: Status = serde_json::from_slice(refusal.body).unwrap_or_else(|_| Status {
        message: String::from_utf8_lossy(refusal.body).trim().to_string(),
        ..Status::default()
    });
    let message = status.message.as_str();
    let told = |text: &str| if secret { WITHHELD.to_string() } else { shorten(text) };
    let namespace = || object.namespace.clone();

    if let Some((webhook, said)) = webhook(message, "failed calling webhook ") {
        return Cause::WebhookUnavailable { webhook, message: told(said) };
    }
    if message.contains("does not support dry run")
        && let Some((webhook, _)) = webhook(message, "admission webhook ")
    {
        return Cause::WebhookNoDryRun { webhook };
    }
    if let Some((by, said)) = denied(message) {
        return Cause::AdmissionDenied { by, message: told(said) };
    }
    match refusal.code {
        400 if message.contains("strict decoding") || message.contains("already set in map") => {
            Cause::UnknownField { problem: strict(message, secret) }
        }
        401 => Cause::Unauthorized,
        403 if status.details.causes.iter().any(|c| c.reason == "NamespaceTerminating") => {
            Cause::NamespaceTerminating { namespace: namespace() }
        }
        403 => match escalation(object, message) {
            Some(cause) => cause,
            None => forbidden(message, secret),
        },
        404 if status.details.kind == "namespaces" && object.kind != "Namespace" => {
            Cause::NamespaceMissing { namespace: status.details.name }
        }
        // A path that no resource stands behind is answered without the name of an object.
        404 if status.details.name.is_empty() => Cause::KindUnknown { kind: kind.into() },
        404 => Cause::NotFound,
        409 if message.contains("uid mismatch") || message.contains("UID in the precondition") => {
            Cause::UidChanged
        }
        // Such a kind shows something (metrics) or answers a question (reviews), and keeps nothing that could be applied.
        code @ 405 => {
            let message = format!("{}; objects of this kind cannot be applied: take it out", told(message));
            Cause::Refused { code, message }
        }
        // Nothing was changed of the object itself: admission lost the race for a quota's count as often as it tries.
        409 if status.details.kind == "resourcequotas" && object.kind != "ResourceQuota" => {
            Cause::QuotaBusy { quota: status.details.name }
        }
        409 | 410 => Cause::Conflict,
        413 => Cause::TooLarge { message: "the request is larger than the API server takes (3 MiB)".into() },
        422 => invalid(status, secret),
        429 => Cause::Throttled {
            retry_after: refusal
                .retry_after
                .unwrap_or(Duration::from_secs(status.details.retry_after_seconds.max(1))),
        },
        500 if message.contains("request is too large") || message.contains("larger than max") => {
            Cause::TooLarge { message: "the object is larger than etcd takes (1.5 MiB)".into() }
        }
        // The server has no word of its own for a manifest that does not fit the schema: it answers 500.
        500 if message.starts_with("failed to create typed patch object") => {
            Cause::UnknownField { problem: typed(message, secret) }
        }
        500 if message.starts_with("failed to convert new object") => {
            let problem = if message.contains("illegal base64") {
                "data: a value is not base64; use stringData for plain text".to_string()
            } else {
                told(message.rsplit_once("error decoding from json: ").map_or(message, |(_, said)| said))
            };
            Cause::Invalid { problems: vec![FieldProblem { field: String::new(), problem }] }
        }
        500..=599 => Cause::Unavailable {
            message: if message.is_empty() { format!("status {}", refusal.code) } else { told(message) },
        },
        code => Cause::Refused { code, message: told(message) },
    }
}

/// Whether nothing of the object's values may be shown.
pub fn is_secret(object: &ObjectId) -> bool {
    object.kind == "Secret" && object.group.is_empty()
}

/// Cuts at a line end and at [`LONGEST`] characters.
fn shorten(text: &str) -> String {
    let line = text.split('\n').next().unwrap_or_default().trim();
    match line.char_indices().nth(LONGEST) {
        Some((at, _)) => format!("{}…", &line[..at]),
        None => line.to_string(),
    }
}

/// `admission webhook "NAME" REST`, wherever it begins.
fn webhook<'a>(message: &'a str, marker: &str) -> Option<(String, &'a str)> {
    let rest = message.get(message.find(marker)? + marker.len()..)?.strip_prefix('"')?;
    let (name, rest) = rest.split_once('"')?;
    Some((name.to_string(), rest.trim_start_matches([':', ' '])))
}

/// Who denied it, and its words.
fn denied(message: &str) -> Option<(String, &str)> {
    if let Some((name, rest)) = webhook(message, "admission webhook ") {
        let said = rest.strip_prefix("denied the request")?.trim_start_matches([':', ' ']);
        let said = if said.is_empty() { "it gave no reason" } else { said };
        return Some((format!("the admission webhook {name}"), said));
    }
    // ValidatingAdmissionPolicy 'NAME' with binding 'NAME' denied request: WORDS
    let rest =
        message.get(message.find("ValidatingAdmissionPolicy '")? + "ValidatingAdmissionPolicy '".len()..)?;
    let (name, rest) = rest.split_once('\'')?;
    let (_, said) = rest.split_once("denied request: ")?;
    Some((format!("the ValidatingAdmissionPolicy {name}"), said))
}

/// Paths and complaints of a strict decoding error, one after the other.
fn strict(message: &str, secret: bool) -> String {
    // error strict decoding YAML: ... line 1: key "k" already set in map
    let mut found = Vec::new();
    for part in message.split(['\n', ',']) {
        let part = part.trim().trim_start_matches("strict decoding error: ");
        if let Some((_, rest)) = part.split_once("key \"") {
            if let Some((key, _)) = rest.split_once('"') {
                found.push(format!("key {key:?} stands twice"));
            }
        } else if part.starts_with("unknown field") || part.starts_with("duplicate field") {
            found.push(part.to_string());
        }
    }
    match (found.is_empty(), secret) {
        (false, _) => found.join(", "),
        (true, true) => format!("does not fit its schema; {WITHHELD}"),
        (true, false) => shorten(message),
    }
}

/// `failed to create typed patch object (/b; /v1, Kind=ConfigMap): .data.k: expected string, got ...`
fn typed(message: &str, secret: bool) -> String {
    let said = message.split_once("): ").map_or(message, |(_, said)| said);
    let said = said.trim_start_matches("errors:").trim();
    let line = said.split('\n').next().unwrap_or_default().trim();
    // A value that was got is quoted in Go's notation, for lists and maps with all that is in them.
    let line = line.split_once(", got &").map_or(line, |(before, _)| before);
    let line = line.trim_start_matches('.');
    let line = if secret { line.split_once(", got ").map_or(line, |(before, _)| before) } else { line };
    if secret && !line.ends_with("field not declared in schema") && !line.contains(": expected ") {
        return format!("does not fit its schema; {WITHHELD}");
    }
    match line.strip_suffix(": field not declared in schema") {
        Some(path) => format!("unknown field {path}"),
        None => shorten(line),
    }
}

fn forbidden(message: &str, secret: bool) -> Cause {
    if let Some(quota) = message.split_once("exceeded quota: ").map(|(_, rest)| rest) {
        return Cause::QuotaExceeded { message: format!("quota exceeded: {}", shorten(quota)) };
    }
    if let Some(found) = rbac(message) {
        return found;
    }
    let said = message.split_once(" is forbidden: ").map_or(message, |(_, said)| said);
    Cause::AdmissionDenied {
        by: "an admission plugin".into(),
        message: if secret { WITHHELD.into() } else { shorten(said) },
    }
}

/// `user "U" (groups=[...]) is attempting to grant RBAC permissions not currently held:` and a right on each line.
fn escalation(object: &ObjectId, message: &str) -> Option<Cause> {
    let (head, rights) =
        message.split_once(" is attempting to grant RBAC permissions not currently held:")?;
    let user = head.split_once("user \"")?.1.split_once('"')?.0;
    // `; resolution errors: [...]` may follow.
    let rights = rights.split("; resolution errors").next().unwrap_or_default();
    let rights = rights.lines().map(str::trim).filter(|l| !l.is_empty()).map(right).collect();
    let cluster = if object.namespace.is_empty() { "clusterroles" } else { "roles" };
    let (verb, resource) = match object.kind.as_str() {
        "RoleBinding" | "ClusterRoleBinding" => ("bind", "the role".to_string()),
        _ => ("escalate", cluster.to_string()),
    };
    Some(Cause::Escalates { user: account(user), rights, verb, resource })
}

/// `{APIGroups:["apps"], Resources:["deployments"], Verbs:["get" "list"]}` as `get, list deployments.apps`; as it stands if
/// it has another form.
fn right(text: &str) -> String {
    let list = |field: &str| -> Vec<String> {
        let found = text.split_once(&format!("{field}:[")).and_then(|(_, rest)| rest.split_once(']'));
        let items = found.map_or("", |(items, _)| items);
        items.split('"').skip(1).step_by(2).map(str::to_string).collect()
    };
    let (verbs, groups) = (list("Verbs"), list("APIGroups"));
    let in_group = |resource: &String| match groups.first().map(String::as_str) {
        None | Some("") => resource.clone(),
        Some(group) => format!("{resource}.{group}"),
    };
    let mut what: Vec<String> = list("Resources").iter().map(in_group).collect();
    what.extend(list("NonResourceURLs"));
    if verbs.is_empty() || what.is_empty() {
        return shorten(text);
    }
    let names = list("ResourceNames");
    let names = if names.is_empty() { String::new() } else { format!(" {}", names.join(", ")) };
    format!("{} {}{names}", verbs.join(", "), what.join(", "))
}

/// A user as people know him.
fn account(user: &str) -> String {
    match user.strip_prefix("system:serviceaccount:").and_then(|u| u.split_once(':')) {
        Some((namespace, name)) => format!("service account {namespace}/{name}"),
        None => format!("user {user}"),
    }
}

/// `User "U" cannot VERB resource "R" in API group "G" in the namespace "N"`
fn rbac(message: &str) -> Option<Cause> {
    let rest = message.split_once("User \"")?.1;
    let (user, rest) = rest.split_once("\" cannot ")?;
    let (verb, rest) = rest.split_once(' ')?;
    let quoted = |marker: &str| Some(rest.split_once(marker)?.1.split_once('"')?.0);
    let resource = quoted("resource \"").unwrap_or("this");
    let group = quoted("in API group \"").unwrap_or_default();
    let namespace = quoted("in the namespace \"").unwrap_or_default();
    let user = account(user);
    let resource = if group.is_empty() { resource.to_string() } else { format!("{resource}.{group}") };
    Some(Cause::Forbidden { user, verb: verb.into(), resource, namespace: namespace.into() })
}

/// Texts by which kinds say that a field cannot be changed. There is no code for it.
const IMMUTABLE: &[&str] = &[
    "immutable",
    "may not change once set",
    "cannot change roleRef",
    "updates to statefulset spec for fields other than",
    "cannot be changed",
    "may not be changed",
    "may not be modified",
    "cannot be updated",
    "Pod updates may not change",
    "pod updates may not change",
    "must be unmodified",
];

fn invalid(status: Status, secret: bool) -> Cause {
    let mut problems: Vec<FieldProblem> = Vec::new();
    let mut fields: Vec<String> = Vec::new();
    for cause in &status.details.causes {
        // An object made anew answers to a uid that is not its own with "immutable".
        if cause.field == "metadata.uid" {
            return Cause::UidChanged;
        }
        if cause.reason == "FieldValueTooLong" && cause.field == "[]" {
            return Cause::TooLarge { message: shorten(&cause.message) };
        }
        let immutable = IMMUTABLE.iter().any(|text| cause.message.contains(text));
        if immutable && !fields.contains(&cause.field) {
            fields.push(cause.field.clone());
        }
        let problem = match (secret, immutable) {
            (true, true) => "cannot be changed".to_string(),
            (true, false) => words_for(&cause.reason).to_string(),
            _ => without_long_value(&cause.message),
        };
        let problem = FieldProblem { field: cause.field.clone(), problem };
        if !problems.contains(&problem) {
            problems.push(problem);
        }
    }
    if !fields.is_empty() {
        return Cause::Immutable { fields, problems };
    }
    if problems.is_empty() {
        let problem = if secret { WITHHELD.to_string() } else { shorten(&status.message) };
        problems.push(FieldProblem { field: String::new(), problem });
    }
    Cause::Invalid { problems }
}

/// Leaves out a quoted value that would fill the screen: a changed Job shows its whole template in Go's notation.
fn without_long_value(message: &str) -> String {
    let line = message.split('\n').next().unwrap_or_default();
    match line.strip_prefix("Invalid value: ").and_then(|rest| rest.rsplit_once(": ")) {
        Some((value, said)) if value.chars().count() > 80 => shorten(said),
        _ => shorten(line),
    }
}

/// The reasons of a `Status` cause in words, for when the server's own words may quote a Secret.
fn words_for(reason: &str) -> &'static str {
    match reason {
        "FieldValueRequired" => "a value is required",
        "FieldValueNotSupported" => "is not one of the values allowed",
        "FieldValueTooLong" => "is too long",
        "FieldValueForbidden" => "must not be set",
        "FieldValueDuplicate" => "stands twice",
        "FieldValueTypeInvalid" => "has the wrong type",
        _ => "has a value that is not valid",
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn object(kind: &str) -> ObjectId {
        ObjectId { group: String::new(), kind: kind.into(), namespace: "shop".into(), name: "it".into() }
    }

    fn cause(kind: &str, code: u16, body: Value) -> Cause {
        let body = body.to_string().into_bytes();
        classify(&object(kind), "v1 Thing", Refusal { code, body: &body, retry_after: None })
    }

    /// Answers that a test cluster does not give by itself; the others are tried on a real one.
    #[test]
    fn refusals_are_told_apart() {
        let table = [
            (
                500,
                json!({"message": r#"Internal error occurred: failed calling webhook "v.example.com": failed to call webhook: Post "https://x": connection refused"#, "reason": "InternalError"}),
                "WebhookUnavailable",
                true,
            ),
            (
                400,
                json!({"message": r#"admission webhook "v.example.com" does not support dry run"#, "reason": "BadRequest"}),
                "WebhookNoDryRun",
                false,
            ),
            (
                403,
                json!({"message": r#"admission webhook "v.example.com" denied the request: no latest tags"#, "reason": "Forbidden"}),
                "AdmissionDenied",
                false,
            ),
            (
                422,
                json!({"message": "deployments.apps \"web\" is forbidden: ValidatingAdmissionPolicy 'replicas' with binding 'all' denied request: too many", "reason": "Invalid"}),
                "AdmissionDenied",
                false,
            ),
            (
                403,
                json!({"message": r#"pods "x" is forbidden: violates PodSecurity "restricted:latest": runAsNonRoot"#, "reason": "Forbidden"}),
                "AdmissionDenied",
                false,
            ),
            (
                429,
                json!({"message": "too many requests", "details": {"retryAfterSeconds": 3}}),
                "Throttled",
                true,
            ),
            (503, json!({"message": "apiserver is shutting down"}), "Unavailable", true),
            (
                504,
                json!({"reason": "Timeout", "message": "request did not complete within requested timeout"}),
                "Unavailable",
                true,
            ),
            (401, json!({"reason": "Unauthorized", "message": "Unauthorized"}), "Unauthorized", true),
            (
                405,
                json!({"reason": "MethodNotAllowed", "message": "patch is not supported on resources of kind"}),
                "Refused",
                false,
            ),
            (409, json!({"reason": "AlreadyExists", "message": "exists"}), "ChangedMeanwhile", false),
            (
                409,
                json!({"reason": "Conflict", "message": "Operation cannot be fulfilled on resourcequotas \"quota\"",
                    "details": {"kind": "resourcequotas", "name": "quota"}}),
                "QuotaBusy",
                true,
            ),
        ];
        for (code, body, reason, transient) in table {
            let cause = cause("Thing", code, body);
            assert_eq!((cause.reason(), cause.is_transient()), (reason, transient), "{cause}");
        }
    }

    #[test]
    fn a_body_that_is_no_status_is_understood_by_its_code() {
        let body = b"<html>502 Bad Gateway</html>";
        let refusal = Refusal { code: 502, body, retry_after: None };
        assert!(classify(&object("Thing"), "v1 Thing", refusal).is_transient());
        let refusal = Refusal { code: 429, body: b"", retry_after: Some(Duration::from_secs(7)) };
        let cause = classify(&object("Thing"), "v1 Thing", refusal);
        assert_eq!(cause, Cause::Throttled { retry_after: Duration::from_secs(7) });
    }

    #[test]
    fn no_answer_about_a_secret_quotes_a_value() {
        let bodies = [
            (400, json!({"message": "strict decoding error: hunter2"})),
            (403, json!({"message": "secrets \"it\" is forbidden: hunter2"})),
            (403, json!({"message": "admission webhook \"w\" denied the request: hunter2"})),
            (405, json!({"message": "hunter2"})),
            (422, json!({"message": "hunter2"})),
            (
                422,
                json!({"message": "hunter2", "details": {"causes": [{"reason": "FieldValueInvalid", "field": "data[k]", "message": "Invalid value: \"hunter2\": bad"}]}}),
            ),
            (
                422,
                json!({"message": "hunter2", "details": {"causes": [{"reason": "FieldValueInvalid", "field": "type", "message": "Invalid value: \"hunter2\": field is immutable"}]}}),
            ),
            (
                500,
                json!({"message": "failed to create typed patch object (/it; /v1, Kind=Secret): .stringData.k: expected string, got &value.valueUnstructured{Value:hunter2}"}),
            ),
            (500, json!({"message": "failed to create typed patch object (/it; /v1, Kind=Secret): hunter2"})),
            (
                500,
                json!({"message": "failed to convert new object (/it; /v1, Kind=Secret) to proper version: error decoding from json: hunter2"}),
            ),
            (500, json!({"message": "failed calling webhook \"w\": hunter2"})),
            (500, json!({"message": "hunter2"})),
        ];
        for (code, body) in bodies {
            let cause = cause("Secret", code, body);
            assert!(!format!("{cause} {cause:?}").contains("hunter2"), "{cause:?}");
        }
    }
}
