//! The Service and the account of an Application.

use super::{App, contour, set};
use serde_json::{Value, json};

/// The Service, where there are ports.
pub(super) fn service(app: &App) -> Option<Value> {
    if app.ports.is_empty() {
        return None;
    }
    let ports = app.ports.iter().map(|port| {
        let mut value = json!({
            "name": port.name,
            "port": port.service,
            // By name: the number may differ between the pods of two revisions.
            "targetPort": port.name,
            "protocol": port.protocol,
        });
        set(&mut value, "appProtocol", port.app_protocol.clone().map(Value::from));
        value
    });
    let mut object = app.object("v1", "Service", &app.name);
    set(&mut object["metadata"], "annotations", contour::annotations(app));
    object["spec"] = json!({"selector": app.serving(), "ports": ports.collect::<Vec<_>>()});
    Some(object)
}

/// The account, where it is to be made.
pub(super) fn service_account(app: &App) -> Option<Value> {
    let account = &app.spec.security.service_account;
    if !account.create {
        return None;
    }
    let name = account.name.as_deref().unwrap_or(&app.name);
    let mut object = app.object("v1", "ServiceAccount", name);
    // What else uses the account has to ask for its token, too.
    object["automountServiceAccountToken"] = false.into();
    let annotations = (!account.annotations.is_empty()).then(|| json!(account.annotations));
    set(&mut object["metadata"], "annotations", annotations);
    Some(object)
}
