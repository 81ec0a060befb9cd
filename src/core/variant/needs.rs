//! What a candidate cannot be without before the rest of the revision comes: kinds, namespaces, accounts, rights, volumes.
//!
//! Only what is new comes as it is. Rights that change come as copies that add them, since the objects that stand in Git
//! stay as they are until promotion. An account is never copied: bindings, cloud identities and mesh principals hang on
//! its name.

use super::build::{Candidate, Of, Twin, copy};
use super::names::Names;
use super::{at, at_mut, is, items, problem};
use crate::api::delivery::Problem;
use crate::core::manifest::{Manifest, ObjectId};
use serde_json::{Value, json};
use std::collections::BTreeSet;

const RBAC: &str = "rbac.authorization.k8s.io";

/// What a pod's `spec` names besides configuration: fields, group, kind, whether it has a namespace.
const NAMED: [(&[&str], &str, &str, bool); 7] = [
    (&["serviceAccountName"], "", "ServiceAccount", true),
    (&["priorityClassName"], "scheduling.k8s.io", "PriorityClass", false),
    (&["runtimeClassName"], "node.k8s.io", "RuntimeClass", false),
    (&["volumes", "persistentVolumeClaim", "claimName"], "", "PersistentVolumeClaim", true),
    (
        &["volumes", "csi", "volumeAttributes", "secretProviderClass"],
        "secrets-store.csi.x-k8s.io",
        "SecretProviderClass",
        true,
    ),
    (&["resourceClaims", "resourceClaimTemplateName"], "resource.k8s.io", "ResourceClaimTemplate", true),
    (&["resourceClaims", "resourceClaimName"], "resource.k8s.io", "ResourceClaim", true),
];

/// The texts at a path, through lists.
fn texts<'a>(value: &'a Value, path: &[&str], out: &mut Vec<&'a str>) {
    match (value, path.split_first()) {
        (Value::Array(all), _) => all.iter().for_each(|item| texts(item, path, out)),
        (Value::String(text), None) => out.push(text),
        (_, Some((name, rest))) => texts(&value[*name], rest, out),
        _ => {}
    }
}

/// The account that a workload's pods run as.
fn account<'a>(twin: &'a Twin) -> &'a str {
    let spec = at(twin.new, &["spec", "template", "spec"]);
    spec["serviceAccountName"].as_str().or_else(|| spec["serviceAccount"].as_str()).unwrap_or("default")
}

/// How an object of the target stands to the last good bundle.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// It is not in the target: somebody else's.
    Foreign,
    New,
    Same,
    Changed,
}

fn standing(of: &Of, id: &ObjectId, says: &[&str]) -> Standing {
    match (of.stable.get(id), of.target.get(id)) {
        (_, None) => Standing::Foreign,
        (None, Some(_)) => Standing::New,
        (Some(old), Some(new)) if says.iter().all(|field| at(old, &[field]) == at(new, &[field])) => {
            Standing::Same
        }
        _ => Standing::Changed,
    }
}

/// The rights that the accounts of the candidates get with the target: new bindings and roles as they are, changed ones as copies
/// for those accounts alone.
pub(super) fn roles(of: &Of, names: &mut Names, made: &mut Candidate) {
    let accounts: BTreeSet<(&str, &str)> =
        of.twins.iter().map(|twin| (twin.namespace(), account(twin))).collect();
    let mut copied: Vec<(ObjectId, String)> = Vec::new();
    for binding in of.target.objects() {
        let id = binding.id();
        if id.group != RBAC || !["RoleBinding", "ClusterRoleBinding"].contains(&id.kind.as_str()) {
            continue;
        }
        let ours: Vec<Value> = items(at(binding, &["subjects"]))
            .filter(|subject| {
                let text = |field: &str| subject[field].as_str();
                let namespace = text("namespace").unwrap_or(&id.namespace);
                text("kind") == Some("ServiceAccount")
                    && accounts.contains(&(namespace, text("name").unwrap_or_default()))
            })
            .cloned()
            .collect();
        if ours.is_empty() {
            continue;
        }
        let kind = at(binding, &["roleRef", "kind"]).as_str().unwrap_or_default();
        let role = ObjectId {
            group: RBAC.into(),
            kind: kind.into(),
            namespace: if kind == "Role" { id.namespace.clone() } else { String::new() },
            name: at(binding, &["roleRef", "name"]).as_str().unwrap_or_default().into(),
        };
        let role_stands = standing(of, &role, &["rules", "aggregationRule"]);
        let stands = standing(of, &id, &["subjects", "roleRef"]);
        let mut role_name = role.name.clone();
        match (role_stands, of.target.get(&role)) {
            (Standing::New, Some(new)) => made.needs.push(new.clone()),
            (Standing::Changed, Some(new)) => {
                role_name = match copied.iter().find(|(id, _)| *id == role) {
                    Some((_, name)) => name.clone(),
                    None => {
                        let name = names.fresh(&role);
                        made.objects.push(without_aggregation(copy(new, &name)));
                        copied.push((role.clone(), name.clone()));
                        name
                    }
                };
            }
            _ => {}
        }
        if role_stands == Standing::Changed || stands == Standing::Changed {
            let mut beside = copy(binding, &names.fresh(&id));
            beside.fields_mut().insert("subjects".into(), Value::Array(ours));
            if let Some(reference) = at_mut(&mut beside, &["roleRef"]) {
                reference["name"] = json!(role_name);
            }
            made.objects.push(beside);
        } else if stands == Standing::New {
            made.needs.push(binding.clone());
        }
    }
}

/// A copy of a ClusterRole that is not added to others by its labels.
fn without_aggregation(mut role: Manifest) -> Manifest {
    if let Some(Value::Object(labels)) = at_mut(&mut role, &["metadata", "labels"]) {
        labels.retain(|key, _| !key.starts_with("rbac.authorization.k8s.io/aggregate-to-"));
    }
    role
}

/// Refuses a candidate whose pods could not start beside the workload's: a claim of the bundle that only one pod may have.
pub(super) fn shareable(of: &Of, twin: &Twin) -> Result<(), Problem> {
    let mut names = Vec::new();
    texts(
        at(twin.new, &["spec", "template", "spec"]),
        &["volumes", "persistentVolumeClaim", "claimName"],
        &mut names,
    );
    for name in names {
        let id = ObjectId {
            group: String::new(),
            kind: "PersistentVolumeClaim".into(),
            namespace: twin.namespace().into(),
            name: name.into(),
        };
        let claim = of.stable.get(&id).and(of.target.get(&id));
        if let Some(claim) = claim
            && *at(claim, &["spec", "accessModes"]) == json!(["ReadWriteOncePod"])
        {
            let text = format!(
                "can be used by one pod alone (ReadWriteOncePod), and {} uses it: its candidate could not start beside it. Use \
                 strategy Rolling, or another access mode",
                twin.new.id()
            );
            return Err(problem("ClaimOfOnePod", claim, &text));
        }
    }
    Ok(())
}

/// Adds what pods of the candidates name and the last good bundle does not have, every new kind, and the new namespaces of all that.
pub(super) fn close(of: &Of, made: &mut Candidate) {
    let mut wanted: BTreeSet<ObjectId> = BTreeSet::new();
    for twin in &of.twins {
        let spec = at(twin.new, &["spec", "template", "spec"]);
        for (path, group, kind, namespaced) in NAMED {
            let mut found = Vec::new();
            texts(spec, path, &mut found);
            wanted.extend(found.into_iter().map(|name| ObjectId {
                group: group.into(),
                kind: kind.into(),
                namespace: if namespaced { twin.namespace().into() } else { String::new() },
                name: name.into(),
            }));
        }
    }
    let is_new = |object: &&Manifest| of.stable.get(&object.id()).is_none();
    let kinds = of
        .target
        .objects()
        .iter()
        .filter(|o| is(&o.id(), "apiextensions.k8s.io", "CustomResourceDefinition"));
    made.needs.extend(kinds.filter(is_new).cloned());
    made.needs.extend(wanted.iter().filter_map(|id| of.target.get(id)).filter(is_new).cloned());
    let inside: BTreeSet<String> =
        made.needs.iter().chain(&made.objects).map(|object| object.namespace().to_owned()).collect();
    let namespaces =
        of.target.objects().iter().filter(|o| is(&o.id(), "", "Namespace") && inside.contains(o.name()));
    made.needs.extend(namespaces.filter(is_new).cloned());
    let mut seen = BTreeSet::new();
    made.needs.retain(|object| seen.insert(object.id()));
}
