//! Why a call failed, told so that somebody knows what to do. What makes a [`Cause`] of an answer is `refusal`.

use crate::core::manifest::ObjectId;
use std::time::Duration;

/// A call about one object failed.
#[derive(Debug, thiserror::Error)]
#[error("{object}: {cause}")]
pub struct ApplyError {
    /// The object, as in `Deployment shop/web`.
    pub object: Box<ObjectId>,
    /// What happened and what to do.
    #[source]
    pub cause: Cause,
}

impl ApplyError {
    /// A call about this object failed for this reason.
    pub fn new(object: ObjectId, cause: Cause) -> Self {
        ApplyError { object: Box::new(object), cause }
    }

    /// Whether the same call may succeed later though nobody changed anything.
    pub fn is_transient(&self) -> bool {
        self.cause.is_transient()
    }
}

/// One field that the API server objects to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldProblem {
    /// The field's path as the server names it, such as `spec.template`; empty if it names none.
    pub field: String,
    /// What is wrong with it.
    pub problem: String,
}

/// Why a call failed. The text says what to do where that is not plain.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Cause {
    /// The object that was planned against is gone, or another stands in its place.
    #[error("was deleted or made anew since it was looked at; it will be planned again")]
    UidChanged,
    /// Somebody changed the object since it was looked at, or a new object overlaps one that appeared meanwhile.
    #[error("was changed by somebody else meanwhile; it will be planned again")]
    Conflict,
    /// Fields that cannot be changed were changed.
    #[error(
        "{} cannot be changed on an existing object; restore the old value, rename the object, or set the \
         annotation windlass.dev/recreate: enabled to have it deleted and created again", .fields.join(", ")
    )]
    Immutable {
        /// The fields, such as `spec.selector`.
        fields: Vec<String>,
        /// What the server said about each field, others than the immutable included.
        problems: Vec<FieldProblem>,
    },
    /// Values that the API server does not accept.
    #[error("is invalid: {}", list(.problems))]
    Invalid {
        /// The fields and what is wrong with them.
        problems: Vec<FieldProblem>,
    },
    /// A field that the kind does not have, a value of the wrong type, or a key that stands twice.
    #[error("{problem}; check the spelling against `kubectl explain`")]
    UnknownField {
        /// The path of the field and what is wrong with it.
        problem: String,
    },
    /// RBAC does not allow it.
    #[error(
        "{user} may not {verb} {resource}{}; grant it with a Role or ClusterRole{}",
        scope(.namespace), granting(.user, .verb, .resource, .namespace)
    )]
    Forbidden {
        /// Who asked.
        user: String,
        /// The verb, such as `patch`.
        verb: String,
        /// The resource with its group, such as `deployments.apps`.
        resource: String,
        /// In which namespace, `""` for the cluster.
        namespace: String,
    },
    /// RBAC lets nobody grant rights that he does not have, unless he may `escalate` roles or `bind` them.
    #[error(
        "{user} may not grant what it does not have itself: {}; give it these rights, or the verb {verb} on {resource}",
        .rights.join("; ")
    )]
    Escalates {
        /// Who asked.
        user: String,
        /// The rights that it lacks, such as `get, list pods`.
        rights: Vec<String>,
        /// The verb that would do instead: `escalate` for a role, `bind` for a binding.
        verb: &'static str,
        /// On which resource.
        resource: String,
    },
    /// A binding names a role that does not exist. Who may `bind` roles may bind that, too.
    #[error("names {role}, which does not exist; deliver it too, or create it")]
    RoleMissing {
        /// The role, such as `Role shop/reader`.
        role: String,
    },
    /// An admission webhook, policy or plugin refused it.
    #[error("was refused by {by}: {message}")]
    AdmissionDenied {
        /// Which webhook or policy.
        by: String,
        /// Its words.
        message: String,
    },
    /// A webhook cannot be asked without consequences, so a dry-run is not possible.
    #[error("cannot be tried beforehand: the admission webhook {webhook} does not support dry-run")]
    WebhookNoDryRun {
        /// Which webhook.
        webhook: String,
    },
    /// A webhook could not be reached or did not answer.
    #[error("the admission webhook {webhook} could not be asked: {message}")]
    WebhookUnavailable {
        /// Which webhook.
        webhook: String,
        /// What the server said.
        message: String,
    },
    /// The namespace does not exist.
    #[error("namespace {namespace} does not exist; create it, deliver it too or set createNamespace: true")]
    NamespaceMissing {
        /// Its name.
        namespace: String,
    },
    /// The namespace is being deleted: nothing new can be made in it.
    #[error("namespace {namespace} is being deleted; it will be tried again when it is gone and back")]
    NamespaceTerminating {
        /// Its name.
        namespace: String,
    },
    /// The API server does not know the kind in this version.
    #[error("the cluster does not know {kind}; is its CustomResourceDefinition installed?")]
    KindUnknown {
        /// `apiVersion kind`.
        kind: String,
    },
    /// The object is not there.
    #[error("is not there")]
    NotFound,
    /// The object is larger than the API server or etcd take.
    #[error("is too large: {message}")]
    TooLarge {
        /// What the server said about the limit.
        message: String,
    },
    /// A ResourceQuota is used up.
    #[error("{message}; raise the quota or ask for less")]
    QuotaExceeded {
        /// Which quota, what was asked for, what is used and allowed.
        message: String,
    },
    /// What a ResourceQuota counts changes faster than this object could be counted in it; the request was not carried out.
    #[error("ResourceQuota {quota} changes faster than this could be counted in it")]
    QuotaBusy {
        /// Its name.
        quota: String,
    },
    /// The API server asks for patience; the request was not carried out.
    #[error("the API server asks to slow down and try again in {}s", .retry_after.as_secs())]
    Throttled {
        /// How long it wants to be left alone.
        retry_after: Duration,
    },
    /// No answer in time. Whether the request was carried out is not known.
    #[error("the API server did not answer within {}s", .limit.as_secs())]
    Timeout {
        /// The limit of the call.
        limit: Duration,
    },
    /// The API server cannot be reached or cannot do its work. Whether the request was carried out is not known.
    #[error("the API server is not available: {message}")]
    Unavailable {
        /// What happened.
        message: String,
    },
    /// The credentials are not accepted, or not any more.
    #[error("the API server does not accept our credentials; they may have expired")]
    Unauthorized,
    /// Something that the API server refuses for good, in its own words.
    #[error("the API server answered {code}: {message}")]
    Refused {
        /// The HTTP status.
        code: u16,
        /// Its words.
        message: String,
    },
}

impl Cause {
    /// Whether the same call may succeed later though neither Git nor a person changed anything. Conflicts are
    /// not: they ask for a new plan.
    pub fn is_transient(&self) -> bool {
        matches!(
            self,
            Cause::WebhookUnavailable { .. }
                | Cause::NamespaceTerminating { .. }
                | Cause::QuotaBusy { .. }
                | Cause::Throttled { .. }
                | Cause::Timeout { .. }
                | Cause::Unavailable { .. }
                | Cause::Unauthorized
        )
    }

    /// Whether the state that was planned against is not the state of the cluster any more.
    pub fn needs_new_plan(&self) -> bool {
        matches!(self, Cause::UidChanged | Cause::Conflict)
    }

    /// A short CamelCase word for conditions and events.
    pub fn reason(&self) -> &'static str {
        match self {
            Cause::UidChanged => "Replaced",
            Cause::Conflict => "ChangedMeanwhile",
            Cause::Immutable { .. } => "ImmutableField",
            Cause::Invalid { .. } => "Invalid",
            Cause::UnknownField { .. } => "UnknownField",
            Cause::Forbidden { .. } => "Forbidden",
            Cause::Escalates { .. } => "Escalates",
            Cause::RoleMissing { .. } => "RoleMissing",
            Cause::AdmissionDenied { .. } => "AdmissionDenied",
            Cause::WebhookNoDryRun { .. } => "WebhookNoDryRun",
            Cause::WebhookUnavailable { .. } => "WebhookUnavailable",
            Cause::NamespaceMissing { .. } => "NamespaceMissing",
            Cause::NamespaceTerminating { .. } => "NamespaceTerminating",
            Cause::KindUnknown { .. } => "KindUnknown",
            Cause::NotFound => "NotFound",
            Cause::TooLarge { .. } => "TooLarge",
            Cause::QuotaExceeded { .. } => "QuotaExceeded",
            Cause::QuotaBusy { .. } => "QuotaBusy",
            Cause::Throttled { .. } => "Throttled",
            Cause::Timeout { .. } => "Timeout",
            Cause::Unavailable { .. } => "Unavailable",
            Cause::Unauthorized => "Unauthorized",
            Cause::Refused { .. } => "Refused",
        }
    }
}

fn list(problems: &[FieldProblem]) -> String {
    let one = |p: &FieldProblem| match p.field.as_str() {
        "" | "[]" | "<nil>" => p.problem.clone(),
        field => format!("{field}: {}", p.problem),
    };
    problems.iter().map(one).collect::<Vec<_>>().join("; ")
}

/// How a service account gets the rights that most need in a namespace, for who has never done so: for what is delivered, and what the
/// ClusterRole `edit` has. Nothing that the daemon does in its own name is among these.
fn granting(user: &str, verb: &str, resource: &str, namespace: &str) -> String {
    let (plural, group) = resource.split_once('.').unwrap_or((resource, ""));
    let covered = match group {
        "" => ["configmaps", "services", "pods", "persistentvolumeclaims"].contains(&plural),
        "apps" => plural != "controllerrevisions",
        "batch" | "autoscaling" | "networking.k8s.io" | "policy" => true,
        _ => false,
    };
    match user.strip_prefix("service account ").and_then(|account| account.split_once('/')) {
        Some((of, name)) if covered && verb != "impersonate" && !namespace.is_empty() => format!(
            ", such as by: kubectl create rolebinding {name} -n {namespace} --clusterrole=edit --serviceaccount={of}:{name}"
        ),
        _ => String::new(),
    }
}

fn scope(namespace: &str) -> String {
    if namespace.is_empty() { String::new() } else { format!(" in namespace {namespace}") }
}
