//! What something of an object has ever been: seen by a watch that begins before anything happens, for what lasts a moment is over
//! when one looks.

use super::daemon::World;
use futures::{StreamExt, TryStreamExt};
use kube::api::{DynamicObject, WatchEvent, WatchParams};
use kube::core::ApiResource;
use kube::{Api, ResourceExt};
use serde_json::Value;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Values in order, each once where it stayed the same.
pub type Values<T> = Arc<Mutex<Vec<T>>>;

/// Follows something of an object of this namespace from a version on, until the test ends.
pub fn follow<T: PartialEq + Send + 'static>(
    world: &World,
    (api_version, plural, name): (&str, &str, &str),
    since: &str,
    of: impl Fn(&Value) -> T + Send + 'static,
) -> Values<T> {
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    let kind = ApiResource {
        group: group.into(),
        version: version.into(),
        api_version: api_version.into(),
        kind: String::new(),
        plural: plural.into(),
    };
    let client = world.space.connection.client.clone();
    let api: Api<DynamicObject> = Api::namespaced_with(client, &world.space.name, &kind);
    let one = WatchParams::default().fields(&format!("metadata.name={name}"));
    let (seen, mut from) = (Values::default(), since.to_owned());
    let all = Arc::clone(&seen);
    // A watch that ends goes on from where it was.
    tokio::spawn(async move {
        loop {
            let Ok(events) = api.watch(&one, &from).await else {
                // The server is away for a moment.
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            };
            let mut events = events.into_stream().boxed();
            while let Some(Ok(event)) = events.next().await {
                let object = match event {
                    WatchEvent::Added(object) | WatchEvent::Modified(object) => object,
                    WatchEvent::Bookmark(mark) => {
                        from = mark.metadata.resource_version;
                        continue;
                    }
                    WatchEvent::Deleted(_) => continue,
                    WatchEvent::Error(error) => panic!("what was before that is not known: {error}"),
                };
                from = object.resource_version().unwrap();
                let value = of(&serde_json::to_value(&object).unwrap());
                let mut seen = all.lock().unwrap();
                if seen.last() != Some(&value) {
                    seen.push(value);
                }
            }
        }
    });
    seen
}
