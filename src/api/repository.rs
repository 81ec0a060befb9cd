//! `Repository`: a Git repository to poll.

use super::{Condition, Duration};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A Git repository to poll, and the directories in it that become Deliveries.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "windlass.dev",
    version = "v1alpha1",
    kind = "Repository",
    plural = "repositories",
    shortname = "repo",
    category = "windlass",
    namespaced,
    status = "RepositoryStatus",
    doc = "A Git repository to poll, and the directories in it that become Deliveries.",
    printcolumn = r#"{"name":"URL","type":"string","jsonPath":".spec.url"}"#,
    printcolumn = r#"{"name":"Revision","type":"string","jsonPath":".status.revision"}"#,
    printcolumn = r#"{"name":"Ready","type":"string","jsonPath":".status.conditions[?(@.type==\"Ready\")].status"}"#,
    printcolumn = r#"{"name":"Reason","type":"string","jsonPath":".status.conditions[?(@.type==\"Ready\")].reason","priority":1}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
#[serde(rename_all = "camelCase")]
pub struct RepositorySpec {
    /// Where the repository is: `https://…`, `ssh://…`, `git@host:path`, or `file://…` where the daemon allows it.
    /// Credentials do not belong here but into the Secret that `secretRef` names.
    #[x_kube(
        validation = Rule::new("self.matches('^(https://|http://|ssh://|file://|/|[^@/ ]+@[^:/ ]+:).+')").message("url must begin with https://, ssh://, file:// or be of the form git@host:path"),
        validation = Rule::new("!self.matches('^[a-z]+://[^/@]*:[^/@]*@')").message("url holds a password; put it into a Secret and name that in spec.secretRef")
    )]
    #[schemars(length(min = 1, max = 2048))]
    pub url: String,
    /// What to follow: a branch, tag, semver range or commit. Without it: the remote's default branch.
    #[serde(rename = "ref", default, skip_serializing_if = "Option::is_none")]
    pub reference: Option<RepositoryRef>,
    /// How often the remote is asked, 1m by default. A local directory is watched besides.
    #[serde(default = "default_interval")]
    pub interval: Duration,
    /// Limit for one call to the remote, 1m by default.
    #[serde(default = "default_timeout")]
    pub timeout: Duration,
    /// A Secret in this namespace with `username` and `password`, or `bearerToken`, or `identity` and
    /// `known_hosts`; and `ca.crt` where the server's certificate is not publicly trusted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<LocalRef>,
    /// Makes one Delivery for each directory that matches.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub deliveries: Vec<DeliverySet>,
    /// Stops polling; what was fetched stays in use.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub suspend: bool,
}

fn default_interval() -> Duration {
    Duration::from_secs(60)
}

fn default_timeout() -> Duration {
    Duration::from_secs(60)
}

/// The name of an object in the same namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LocalRef {
    /// Its name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

/// What to follow in a repository; exactly one field is set.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[x_kube(
    validation = Rule::new("(has(self.branch)?1:0)+(has(self.tag)?1:0)+(has(self.semver)?1:0)+(has(self.commit)?1:0) == 1").message("ref needs exactly one of branch, tag, semver and commit")
)]
pub struct RepositoryRef {
    /// A branch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub branch: Option<String>,
    /// A tag.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tag: Option<String>,
    /// The highest tag within a range, such as `>=1.2.0 <2.0.0` or `~1.4`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub semver: Option<String>,
    /// A commit, by its full id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("self.matches('^[0-9a-f]{40}$')").message("commit must be a full id of 40 hexadecimal digits"))]
    pub commit: Option<String>,
}

/// Directories that become Deliveries.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct DeliverySet {
    /// A pattern for directories, such as `apps/*`; `*` does not cross `/`.
    #[schemars(length(min = 1, max = 1024))]
    pub path: String,
    /// Fields of the Deliveries. `{{ directory }}` stands for the last segment of the path, `{{ path }}` for all of it.
    #[serde(default)]
    pub template: super::delivery::DeliveryTemplate,
}

/// What is known of a Repository.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RepositoryStatus {
    /// The generation of the spec that this status is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// What was fetched last: `branch@sha1:<commit>`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<String>,
    /// The value of the reconcile annotation that was acted on: the remote was asked since.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub handled_request: Option<String>,
    /// How many Deliveries `spec.deliveries` has made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deliveries: Option<i64>,
    /// Ready, Stalled.
    #[serde(default)]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}
