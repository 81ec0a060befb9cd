//! The end of a Job's log, for people who are told that it failed.

use super::access::Access;
use super::apply::list_where;
use super::discovery::Discovery;
use super::error::ApplyError;
use crate::core::manifest::Gvk;
use serde_json::Value;
use std::time::Duration;

/// Bytes that are read of a log.
const BYTES: u32 = 4096;

/// Lines that are read of a log.
const LINES: u32 = 10;

/// How long a log may take: what comes after a failure waits for it.
const LIMIT: Duration = Duration::from_secs(3);

/// Why there is no log to show.
#[derive(Debug, thiserror::Error)]
pub enum NoLog {
    /// The API server did not answer in time.
    #[error("it could not be read within {} s", LIMIT.as_secs())]
    Timeout,
    /// It refused, or the node does not have it.
    #[error("it could not be read: {0}")]
    Refused(#[from] ApplyError),
    /// The Job has no pod any more.
    #[error("its pod is gone")]
    NoPod,
}

/// The last lines that the last pod of a Job wrote, read as the account of `access`: the container that failed, else the
/// first.
pub async fn tail(
    access: &Access,
    discovery: &Discovery,
    namespace: &str,
    job: &str,
) -> Result<String, NoLog> {
    tokio::time::timeout(LIMIT, read(access, discovery, namespace, job)).await.map_err(|_| NoLog::Timeout)?
}

async fn read(access: &Access, discovery: &Discovery, namespace: &str, job: &str) -> Result<String, NoLog> {
    let pods = discovery.resource(&Gvk::new("v1", "Pod")).ok_or(NoLog::NoPod)?;
    let selector = format!("batch.kubernetes.io/job-name={job}");
    let all = list_where(access, &pods, namespace, &selector).await?;
    let created = |pod: &&Value| pod["metadata"]["creationTimestamp"].as_str().unwrap_or_default().to_owned();
    let pod = all.iter().max_by_key(created).ok_or(NoLog::NoPod)?;
    let name = pod["metadata"]["name"].as_str().unwrap_or_default();
    let query = format!("container={}&tailLines={LINES}&limitBytes={BYTES}", container(pod));
    let text = super::apply::read_text(access, &pods, namespace, name, "log", &query).await?;
    Ok(text)
}

/// The container that failed; the first one where none did.
fn container(pod: &Value) -> &str {
    let statuses = ["initContainerStatuses", "containerStatuses"].into_iter();
    let failed = statuses
        .filter_map(|field| pod["status"][field].as_array())
        .flatten()
        .find(|status| status["state"]["terminated"]["exitCode"].as_i64().is_some_and(|code| code != 0));
    let name = failed.map_or(&pod["spec"]["containers"][0]["name"], |status| &status["name"]);
    name.as_str().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_container_that_failed_is_the_one_whose_log_is_shown() {
        let ended =
            |name: &str, code: i64| json!({"name": name, "state": {"terminated": {"exitCode": code}}});
        let pod = |statuses: Value| json!({"spec": {"containers": [{"name": "a"}, {"name": "b"}]}, "status": statuses});
        assert_eq!(container(&pod(json!({}))), "a");
        assert_eq!(container(&pod(json!({"containerStatuses": [ended("a", 0), ended("b", 1)]}))), "b");
        let init = json!({"initContainerStatuses": [ended("init", 2)], "containerStatuses": [ended("a", 0)]});
        assert_eq!(container(&pod(init)), "init");
    }
}
