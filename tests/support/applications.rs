//! Applications of a test: made and changed as people do, and waited for.
#![allow(dead_code)]

use super::cluster::wait_until;
use super::daemon::World;
use serde_json::{Value, json};
use windlass::api::Application;
use windlass::api::application::{ApplicationPhase, ApplicationStatus};
use windlass::api::{condition, names};

const API: &str = "windlass.dev/v1alpha1";

impl World {
    /// Makes an Application, or changes it, as `kubectl apply` would: its image's tag says how its pods behave.
    pub async fn application(&self, name: &str, tag: &str, more: Value) {
        let mut spec = json!({
            "image": format!("registry.example.com/{name}:{tag}"), "port": 8080, "replicas": 2,
        });
        for (field, value) in more.as_object().unwrap() {
            spec[field] = value.clone();
        }
        self.apply("Application", name, json!({"spec": spec})).await;
    }

    /// Makes a revision of an Application that nothing needs, `NAME-stale`.
    pub async fn stale_revision_of(&self, name: &str) {
        let metadata = json!({"name": format!("{name}-stale"), "labels": {names::APPLICATION_LABEL: name}});
        let stale = json!({"metadata": metadata, "revision": 1, "data": {}});
        self.space.send("POST", &self.space.path("apps/v1", "controllerrevisions"), &stale).await;
    }

    /// Waits until that one is gone.
    pub async fn wait_stale_revision_gone(&self, name: &str) {
        wait_until("what nothing needs is gone", self.limit, || async {
            let left = self.revisions_of(name).await;
            if left.contains(&format!("{name}-stale")) { Err(format!("{left:?}")) } else { Ok(()) }
        })
        .await;
    }

    /// The Applications of this namespace.
    pub fn applications(&self) -> kube::Api<Application> {
        kube::Api::namespaced(self.space.connection.client.clone(), &self.space.name)
    }

    /// Waits until what is said of an Application is about its spec as it is now, and as wanted.
    pub async fn wait_application(
        &self,
        name: &str,
        what: &str,
        is: impl Fn(&ApplicationStatus) -> bool,
    ) -> ApplicationStatus {
        wait_until(&format!("Application {name}: {what}"), self.limit, || async {
            let found = self.applications().get_opt(name).await.map_err(|e| e.to_string())?;
            let found = found.ok_or("is not there")?;
            let status = found.status.unwrap_or_default();
            match status.observed_generation == found.metadata.generation && is(&status) {
                true => Ok(status),
                false => Err(format!("generation {:?}, {status:#?}", found.metadata.generation)),
            }
        })
        .await
    }

    /// Waits until an Application is in a phase.
    pub async fn wait_application_phase(&self, name: &str, phase: ApplicationPhase) -> ApplicationStatus {
        self.wait_application(name, &format!("{phase:?}"), |s| s.phase == phase).await
    }

    /// Waits until an Application runs with an image of this tag.
    pub async fn wait_application_runs(&self, name: &str, tag: &str) -> ApplicationStatus {
        let status = self.wait_application_phase(name, ApplicationPhase::Running).await;
        assert_eq!(self.image_of(name).await, format!("registry.example.com/{name}:{tag}"));
        status
    }

    /// Waits until an Event with this reason is there about an Application: they are written beside statuses, not before them.
    pub async fn wait_application_event(&self, name: &str, reason: &str) -> String {
        wait_until(&format!("an Event {reason} about Application {name}"), self.limit, || async {
            let events = self.events_about("Application", name).await;
            let found = events.iter().find(|(r, _)| r == reason).map(|(_, text)| text.clone());
            found.ok_or_else(|| format!("{events:?}"))
        })
        .await
    }

    /// The image of an Application's Deployment.
    pub async fn image_of(&self, name: &str) -> String {
        let deployment = self.get("apps/v1", "deployments", name).await;
        let image = deployment["spec"]["template"]["spec"]["containers"][0]["image"].as_str();
        image.unwrap_or_default().to_owned()
    }

    /// Deletes an Application, as `kubectl delete` does.
    pub async fn delete_application(&self, name: &str) {
        self.delete(API, "applications", name).await;
    }

    /// Names of the ControllerRevisions of an Application.
    pub async fn revisions_of(&self, name: &str) -> Vec<String> {
        let mut names = self.names("apps/v1", "controllerrevisions").await;
        names.retain(|revision| revision.starts_with(&format!("{name}-")));
        names
    }
}

/// A condition: status, reason and message.
pub fn condition_of(status: &ApplicationStatus, kind: &str) -> (String, String, String) {
    let found = condition::get(&status.conditions, kind).cloned();
    let found = found.unwrap_or_else(|| panic!("no condition {kind}: {status:#?}"));
    (found.status, found.reason, found.message)
}
