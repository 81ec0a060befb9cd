//! Names that Windlass writes onto objects: its API group, labels, annotations, finalizer, field manager.

use kube::ResourceExt;

/// The API group of our resources.
pub const GROUP: &str = "windlass.dev";

/// The field manager of every server-side apply.
pub const FIELD_MANAGER: &str = "windlass";

/// Label on every object of a Delivery. Its value is a hash of installation, namespace and name of the
/// Delivery ([`delivery_label`]), since `namespace/name` is no label value. The watches filter by it.
pub const DELIVERY_LABEL: &str = "windlass.dev/delivery";

/// Finalizer on a Delivery: its objects are pruned (or orphaned) before it goes.
pub const FINALIZER: &str = "windlass.dev/finalizer";

/// Annotation on an object in Git: `enabled`, `disabled` or `before` (pruned before the new objects are applied,
/// for objects that hold an exclusive resource such as a node port).
pub const PRUNE: &str = "windlass.dev/prune";

/// Annotation on an object in Git: a whole number; objects are applied in rising waves.
pub const WAVE: &str = "windlass.dev/wave";

/// Annotation on an object in Git: `enabled` lets Windlass delete and create the object again when an
/// immutable field changed.
pub const RECREATE: &str = "windlass.dev/recreate";

/// Annotation on an object in Git: `correct`, `report` or `ignore`: what is done about its drift, whatever the Delivery's
/// `spec.drift.mode` says.
pub const DRIFT: &str = "windlass.dev/drift";

/// Annotation on a Job in Git: the points at which it runs as a hook, such as `before-apply`. Label on the Jobs that are
/// made of it: the point.
pub const HOOK: &str = "windlass.dev/hook";

/// Annotation on a hook: when its Jobs are deleted.
pub const HOOK_DELETE_POLICY: &str = "windlass.dev/hook-delete-policy";

/// Annotation on an object in Git: `disabled` leaves `${NAME}` in it alone.
pub const SUBSTITUTE: &str = "windlass.dev/substitute";

/// Annotation on a Delivery or Repository: any new value asks for a reconcile now.
pub const RECONCILE_REQUEST: &str = "windlass.dev/reconcile-requested-at";

/// Annotation on a Delivery: names the commit of a held revision that may be tried again.
pub const RELEASE_REQUEST: &str = "windlass.dev/release";

/// Annotation on a Delivery: a person asks to go back to the commit that it names.
pub const ROLLBACK_REQUEST: &str = "windlass.dev/rollback-to";

/// Annotation on a Delivery: what a person wants of the rollout that is under way, as
/// `<verb>:<commit>:<time>:<user>`. The verb is `promote`, `promote-full`, `pause`, `resume`, `abort` or `retry`; the commit
/// (or the beginning of one) is the one meant; the time tells two requests apart; the user is who asks.
pub const ROLLOUT_REQUEST: &str = "windlass.dev/rollout";

/// Annotation on a Delivery whose status was lost: a person says that the objects with its label are its own again. The
/// value is the Delivery's uid, so that one from a backup, of a Delivery that is no more, says nothing.
pub const ADOPT: &str = "windlass.dev/adopt";

/// Annotation on a Repository: a person confirms that most of its directories are gone; the value is the commit.
pub const CONFIRM_REMOVAL: &str = "windlass.dev/confirm-removal";

/// Annotation on a CustomResourceDefinition that takes long to go: a change of it has the API server look again.
pub const REMOVAL: &str = "windlass.dev/removal";

/// Annotation on a pod template: a digest, under a key, of the ConfigMaps and Secrets that the pods read, so that they restart
/// when these change. First written when the configuration first changes.
pub const CONFIG: &str = "windlass.dev/config";

/// Label on a Delivery that a Repository's `deliveries` made: the name of the Repository.
pub const REPOSITORY_LABEL: &str = "windlass.dev/repository";

/// Label on the Delivery and the ControllerRevisions of an Application: the name of the Application.
pub const APPLICATION_LABEL: &str = "windlass.dev/application";

/// The name of the Delivery that is made of an Application. No directory of a Repository makes one of that name unless it is named
/// so itself.
pub fn application_delivery(application: &str) -> String {
    format!("{application}.application")
}

/// Value of [`DELIVERY_LABEL`] for a Delivery: 32 hexadecimal digits.
pub fn delivery_label(installation: &str, namespace: &str, name: &str) -> String {
    use sha2::{Digest, Sha256};
    let mut hash = Sha256::new();
    for part in [installation, namespace, name] {
        hash.update(part.as_bytes());
        hash.update([0]);
    }
    hash.finalize()[..16].iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The Delivery (`namespace/name`), among these, that a value of [`DELIVERY_LABEL`] stands for.
pub fn owner<'a>(
    installation: &str,
    deliveries: impl IntoIterator<Item = &'a super::Delivery>,
    label: &str,
) -> Option<String> {
    deliveries.into_iter().find_map(|delivery| {
        let (namespace, name) = (delivery.namespace().unwrap_or_default(), delivery.name_any());
        (delivery_label(installation, &namespace, &name) == label).then(|| format!("{namespace}/{name}"))
    })
}

#[cfg(test)]
mod tests {
    use super::delivery_label;

    #[test]
    fn label_values_are_valid_and_tell_apart() {
        let a = delivery_label("default", "ab", "c");
        assert_eq!(a.len(), 32);
        assert!(a.chars().all(|c| c.is_ascii_hexdigit()));
        assert_ne!(a, delivery_label("default", "a", "bc"));
        assert_ne!(a, delivery_label("other", "ab", "c"));
    }
}
