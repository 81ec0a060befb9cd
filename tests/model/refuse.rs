//! Answers that are no objects: the `Status` bodies of refusals.

use serde_json::{Value, json};

/// A refusal: its HTTP status and body.
#[derive(Clone, Debug)]
pub struct Refusal {
    /// The HTTP status.
    pub status: u16,
    /// A `Status` object.
    pub body: Value,
}

/// One thing that is wrong with a field.
#[derive(Clone, Debug)]
pub struct Wrong {
    /// `FieldValueInvalid`, `FieldValueRequired`, ...
    pub reason: &'static str,
    /// Its path.
    pub field: String,
    /// What is wrong.
    pub message: String,
}

impl Wrong {
    /// A value that is not valid.
    pub fn invalid(field: &str, value: &Value, said: &str) -> Wrong {
        Wrong {
            reason: "FieldValueInvalid",
            field: field.into(),
            message: format!("Invalid value: {value}: {said}"),
        }
    }

    /// A value that is missing.
    pub fn required(field: &str, said: &str) -> Wrong {
        let said = if said.is_empty() { String::new() } else { format!(": {said}") };
        Wrong { reason: "FieldValueRequired", field: field.into(), message: format!("Required value{said}") }
    }

    /// A value that must not be set.
    pub fn forbidden(field: &str, said: &str) -> Wrong {
        Wrong { reason: "FieldValueForbidden", field: field.into(), message: format!("Forbidden: {said}") }
    }

    /// A value that must be one of some.
    pub fn not_supported(field: &str, value: &Value, allowed: &[&str]) -> Wrong {
        let allowed: Vec<String> = allowed.iter().map(|a| format!("{a:?}")).collect();
        let message = format!("Unsupported value: {value}: supported values: {}", allowed.join(", "));
        Wrong { reason: "FieldValueNotSupported", field: field.into(), message }
    }
}

/// Any refusal.
pub fn refusal(status: u16, reason: &str, message: String, details: Value) -> Refusal {
    let mut body = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": message, "code": status,
    });
    if !reason.is_empty() {
        body["reason"] = reason.into();
    }
    if !details.is_null() {
        body["details"] = details;
    }
    Refusal { status, body }
}

/// What a refusal is about.
#[derive(Clone, Copy, Debug)]
pub struct About<'a> {
    /// `deployments.apps`
    pub qualified: &'a str,
    /// The group.
    pub group: &'a str,
    /// The plural, or for [`About::invalid`] the kind.
    pub kind: &'a str,
    /// The object's name.
    pub name: &'a str,
}

impl About<'_> {
    fn details(&self) -> Value {
        let mut details = json!({"name": self.name, "kind": self.kind});
        if !self.group.is_empty() {
            details["group"] = self.group.into();
        }
        details
    }

    /// 404.
    pub fn not_found(&self) -> Refusal {
        let message = format!("{} {:?} not found", self.qualified, self.name);
        refusal(404, "NotFound", message, self.details())
    }

    /// 409 for an object that is there.
    pub fn already_exists(&self) -> Refusal {
        let message = format!("{} {:?} already exists", self.qualified, self.name);
        refusal(409, "AlreadyExists", message, self.details())
    }

    /// 409.
    pub fn conflict(&self, said: &str) -> Refusal {
        let message = format!("Operation cannot be fulfilled on {} {:?}: {said}", self.qualified, self.name);
        refusal(409, "Conflict", message, self.details())
    }

    /// 409 for an object that changed meanwhile.
    pub fn modified(&self) -> Refusal {
        self.conflict(
            "the object has been modified; please apply your changes to the latest version and try again",
        )
    }

    /// 403.
    pub fn forbidden(&self, said: &str) -> Refusal {
        let message = format!("{} {:?} is forbidden: {said}", self.qualified, self.name);
        refusal(403, "Forbidden", message, self.details())
    }

    /// 422.
    pub fn invalid(&self, kind: &str, wrongs: &[Wrong]) -> Refusal {
        let said: Vec<String> = wrongs.iter().map(|w| format!("{}: {}", w.field, w.message)).collect();
        let said = if said.len() == 1 { said[0].clone() } else { format!("[{}]", said.join(", ")) };
        let qualified =
            if self.group.is_empty() { kind.to_string() } else { format!("{kind}.{}", self.group) };
        let mut details = self.details();
        details["kind"] = kind.into();
        details["causes"] = wrongs
            .iter()
            .map(|w| json!({"reason": w.reason, "message": w.message, "field": w.field}))
            .collect();
        refusal(422, "Invalid", format!("{qualified} {:?} is invalid: {said}", self.name), details)
    }
}

/// 400.
pub fn bad_request(message: impl Into<String>) -> Refusal {
    refusal(400, "BadRequest", message.into(), Value::Null)
}

/// 410 for a version that is forgotten.
pub fn expired(message: &str) -> Refusal {
    refusal(410, "Expired", message.into(), Value::Null)
}

/// 404 for a path that nothing stands behind.
pub fn no_such_path() -> Refusal {
    refusal(404, "NotFound", "the server could not find the requested resource".into(), json!({}))
}
