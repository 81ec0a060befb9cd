//! What comes closest to a good manifest where Kubernetes does not take a change back: a claim that grew, a definition of
//! which objects are stored in a version that the manifest does not have. Only for going back, where the choice is
//! between this and leaving the object as the failed revision made it.

use super::diff::is_less;
use serde_json::{Value, json};

/// The manifest with what cannot be taken back left as it is in `live`, and what that is. `None` for a kind, or a
/// difference, of which nothing is known to be in the way.
pub fn closest(desired: &Value, live: &Value) -> Option<(Value, String)> {
    match (desired["apiVersion"].as_str()?, desired["kind"].as_str()?) {
        ("v1", "PersistentVolumeClaim") => claim(desired, live),
        ("apiextensions.k8s.io/v1", "CustomResourceDefinition") => definition(desired, live),
        _ => None,
    }
}

/// A claim does not shrink below what its volume has.
fn claim(desired: &Value, live: &Value) -> Option<(Value, String)> {
    const SIZE: &str = "/spec/resources/requests/storage";
    let (wanted, has) = (desired.pointer(SIZE)?, live.pointer(SIZE)?);
    if !is_less(wanted, has)? {
        return None;
    }
    let plain = |size: &Value| size.as_str().map_or_else(|| size.to_string(), str::to_owned);
    let told = format!("stays at {}: a claim cannot shrink back to {}", plain(has), plain(wanted));
    let mut value = desired.clone();
    *value.pointer_mut(SIZE)? = has.clone();
    Some((value, told))
}

/// A version in which objects are stored (`status.storedVersions`) cannot be dropped.
fn definition(desired: &Value, live: &Value) -> Option<(Value, String)> {
    let name = |version: &Value| version["name"].as_str().unwrap_or_default().to_owned();
    let wanted: Vec<String> = desired["spec"]["versions"].as_array()?.iter().map(name).collect();
    let stored = live["status"]["storedVersions"].as_array()?;
    let kept: Vec<Value> = live["spec"]["versions"]
        .as_array()?
        .iter()
        .filter(|v| stored.contains(&v["name"]) && !wanted.contains(&name(v)))
        .cloned()
        .collect();
    if kept.is_empty() {
        return None;
    }
    let names = kept.iter().map(name).collect::<Vec<_>>().join(", ");
    let mut value = desired.clone();
    let versions = value.pointer_mut("/spec/versions")?.as_array_mut()?;
    versions.extend(kept.into_iter().map(|mut version| {
        version["storage"] = json!(false);
        version
    }));
    Some((value, format!("keeps version {names}, in which objects may be stored (status.storedVersions)")))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_claim_that_grew_keeps_its_size_and_gets_the_rest() {
        let claim = |size: &str, label: &str| {
            json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"labels": {"a": label}},
                "spec": {"resources": {"requests": {"storage": size}}}})
        };
        let (value, told) = closest(&claim("1Gi", "good"), &claim("1536Mi", "bad")).unwrap();
        assert_eq!(value, claim("1536Mi", "good"));
        assert!(told.contains("1536Mi") && told.contains("1Gi"), "{told}");
        assert!(closest(&claim("1Gi", "good"), &claim("1024Mi", "bad")).is_none(), "as large");
        assert!(closest(&claim("2Gi", "good"), &claim("1Gi", "bad")).is_none(), "may grow");
    }

    #[test]
    fn a_definition_keeps_the_version_that_is_stored() {
        let definition = |versions: Value, stored: Value| {
            json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
                "spec": {"versions": versions}, "status": {"storedVersions": stored}})
        };
        let good = definition(json!([{"name": "v1", "served": true, "storage": true}]), Value::Null);
        let bad = json!([{"name": "v1", "served": true, "storage": false}, {"name": "v2", "served": true, "storage": true},
            {"name": "v3", "served": true, "storage": false}]);
        let (value, told) = closest(&good, &definition(bad.clone(), json!(["v1", "v2"]))).unwrap();
        assert_eq!(
            value["spec"]["versions"],
            json!([{"name": "v1", "served": true, "storage": true}, {"name": "v2", "served": true, "storage": false}])
        );
        assert!(told.contains("v2") && !told.contains("v3"), "{told}");
        assert!(closest(&good, &definition(bad, json!(["v1"]))).is_none());
    }
}
