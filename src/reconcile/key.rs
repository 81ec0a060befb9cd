//! The key for digests of Secrets: random, kept in a Secret of the installation's namespace, so that a digest in status
//! tells nobody what a Secret holds.

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{Namespace, Secret};
use kube::Api;
use kube::api::{ObjectMeta, PostParams};
use std::collections::BTreeMap;

const FIELD: &str = "key";

/// Reads the key of an installation, or makes one.
pub async fn ensure(
    client: &kube::Client,
    namespace: &str,
    installation: &str,
) -> Result<Vec<u8>, kube::Error> {
    let api: Api<Secret> = Api::namespaced(client.clone(), namespace);
    let name = format!("windlass-{installation}-key");
    let read =
        |secret: Secret| secret.data.and_then(|mut d| d.remove(FIELD)).map(|k| k.0).filter(|k| k.len() >= 16);
    if let Some(key) = api.get_opt(&name).await?.and_then(read) {
        return Ok(key);
    }
    let mut key = vec![0; 32];
    getrandom::fill(&mut key).map_err(|e| kube::Error::Service(Box::new(e)))?;
    let secret = Secret {
        metadata: ObjectMeta { name: Some(name.clone()), ..ObjectMeta::default() },
        data: Some(BTreeMap::from([(FIELD.to_owned(), ByteString(key.clone()))])),
        ..Secret::default()
    };
    let made = match api.create(&PostParams::default(), &secret).await {
        // On a desk nobody has made the namespace yet. Who may not make one is told so.
        Err(kube::Error::Api(e)) if e.code == 404 => {
            let spaces: Api<Namespace> = Api::all(client.clone());
            let space = Namespace {
                metadata: ObjectMeta { name: Some(namespace.into()), ..ObjectMeta::default() },
                ..Namespace::default()
            };
            match spaces.create(&PostParams::default(), &space).await {
                Ok(_) => {}
                Err(kube::Error::Api(e)) if e.code == 409 => {}
                Err(error) => return Err(error),
            }
            api.create(&PostParams::default(), &secret).await
        }
        made => made,
    };
    match made {
        Ok(_) => Ok(key),
        // Another replica was faster.
        Err(kube::Error::Api(e)) if e.reason == "AlreadyExists" => {
            Ok(api.get(&name).await.map(read)?.unwrap_or(key))
        }
        Err(error) => Err(error),
    }
}
