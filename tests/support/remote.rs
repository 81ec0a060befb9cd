//! A daemon that delivers from a server: Repositories by URL, their Secrets, and waiting for what they say.
#![allow(dead_code)]

use super::cluster::wait_until;
use super::daemon::{LIMIT, World};
use serde_json::{Value, json};
use windlass::api::condition::{self, kind};

impl World {
    /// A Repository with this URL. It is asked only every ten minutes unless `spec` says otherwise, so that what is
    /// noticed before was noticed by other means.
    pub async fn remote(&self, name: &str, url: &str, secret: Option<&str>, spec: Value) {
        let mut all = json!({"url": url, "interval": "10m"});
        if let Some(secret) = secret {
            all["secretRef"] = json!({"name": secret});
        }
        for (field, value) in spec.as_object().unwrap() {
            all[field] = value.clone();
        }
        self.apply("Repository", name, json!({"spec": all})).await;
    }

    /// A Delivery of a directory of a Repository, named after the directory, into this namespace.
    pub async fn delivery(&self, repository: &str, path: &str, template: Value) {
        let name = path.rsplit('/').next().unwrap();
        let mut spec = json!({
            "source": {"repository": repository, "path": path},
            "targetNamespace": self.space.name, "timeout": "3m", "retryInterval": "2s",
        });
        for (field, value) in template.as_object().unwrap() {
            spec[field] = value.clone();
        }
        self.apply("Delivery", name, json!({"spec": spec})).await;
    }

    /// Makes or replaces a Secret, or a ConfigMap with the same texts.
    pub async fn texts(&self, kind: &str, name: &str, texts: Value) {
        let (plural, field) =
            if kind == "Secret" { ("secrets", "stringData") } else { ("configmaps", "data") };
        let collection = self.space.path("v1", plural);
        let mut body = json!({"metadata": {"name": name}, field: texts});
        let there = self.get("v1", plural, name).await;
        if there.is_null() {
            self.space.send("POST", &collection, &body).await;
        } else {
            body["metadata"]["resourceVersion"] = there["metadata"]["resourceVersion"].clone();
            self.space.send("PUT", &format!("{collection}/{name}"), &body).await;
        }
    }

    /// Waits until a Repository's `Ready` has this reason. Answers its message.
    pub async fn wait_remote(&self, repository: &str, reason: &str) -> String {
        wait_until(&format!("Repository {repository} says {reason}"), LIMIT, || async {
            let found = self.repositories().get(repository).await.map_err(|e| e.to_string())?;
            let conditions = found.status.unwrap_or_default().conditions;
            let ready = condition::get(&conditions, kind::READY);
            match ready.filter(|c| c.reason == reason) {
                Some(ready) => Ok(ready.message.clone()),
                None => Err(format!("{ready:?}")),
            }
        })
        .await
    }

    /// The value of a ConfigMap's `key`.
    pub async fn value(&self, config_map: &str) -> String {
        let found = self.get("v1", "configmaps", config_map).await;
        found["data"]["key"].as_str().unwrap_or_default().to_owned()
    }

    /// Waits until a ConfigMap's `key` has this value.
    pub async fn wait_value(&self, config_map: &str, value: &str) {
        wait_until(&format!("ConfigMap {config_map} holds {value}"), LIMIT, || async {
            let found = self.value(config_map).await;
            if found == value { Ok(()) } else { Err(found) }
        })
        .await;
    }
}
