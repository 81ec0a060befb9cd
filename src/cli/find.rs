//! Finding Deliveries by the names that people give: `NAME`, or `NAMESPACE/NAME`.

use super::connect::ClusterArgs;
use crate::api::Delivery;
use crate::cluster::Connection;
use anyhow::{anyhow, bail};
use kube::api::ListParams;
use kube::{Api, ResourceExt};

/// In which namespaces is looked.
#[derive(clap::Args, Clone, Debug, Default)]
pub struct ScopeArgs {
    /// Look in this namespace only
    #[arg(short = 'n', long, value_name = "NAME")]
    pub namespace: Option<String>,
    /// Look in all namespaces, which is the default
    #[arg(short = 'A', long, conflicts_with = "namespace")]
    pub all_namespaces: bool,
}

/// Which Delivery is meant.
#[derive(clap::Args, Clone, Debug)]
pub struct DeliveryArgs {
    /// Name of the Delivery, as NAME or NAMESPACE/NAME
    pub name: String,
    /// Where it is looked for.
    #[command(flatten)]
    pub scope: ScopeArgs,
    /// In which cluster.
    #[command(flatten)]
    pub cluster: ClusterArgs,
}

impl DeliveryArgs {
    /// Connects, and finds it.
    pub async fn find(&self) -> anyhow::Result<(Connection, Delivery)> {
        let connection = self.cluster.connect().await?;
        let delivery = delivery(&connection.client, &self.scope, &self.name).await?;
        Ok((connection, delivery))
    }
}

/// Lists resources of ours.
pub async fn list<K>(client: &kube::Client, scope: &ScopeArgs) -> anyhow::Result<Vec<K>>
where
    K: kube::Resource<Scope = kube::core::NamespaceResourceScope>
        + Clone
        + std::fmt::Debug
        + serde::de::DeserializeOwned,
    K::DynamicType: Default,
{
    let api: Api<K> = match &scope.namespace {
        Some(namespace) => Api::namespaced(client.clone(), namespace),
        None => Api::all(client.clone()),
    };
    let mut all = patiently(async || api.list(&ListParams::default()).await).await.map_err(explained)?.items;
    all.sort_by_key(|object| (object.namespace(), object.name_any()));
    Ok(all)
}

/// How often a list is asked for that the API server is not ready to answer, and how long is waited in between.
const PATIENCE: (u32, std::time::Duration) = (20, std::time::Duration::from_millis(500));

/// Asks again while the API server answers 429: the storage of a definition that is new or was changed takes a moment.
pub async fn patiently<T>(ask: impl AsyncFn() -> kube::Result<T>) -> kube::Result<T> {
    let (attempts, pause) = PATIENCE;
    for _ in 1..attempts {
        match ask().await {
            Err(kube::Error::Api(status)) if status.code == 429 => tokio::time::sleep(pause).await,
            answer => return answer,
        }
    }
    ask().await
}

/// What a refusal means, and what to do.
pub fn explained(error: kube::Error) -> anyhow::Error {
    match &error {
        kube::Error::Api(status) if status.code == 404 => anyhow!(
            "Windlass is not installed in this cluster; `windlass run --repo URL|DIR` delivers a repository, and \
             `windlass install` prepares a cluster"
        ),
        kube::Error::Api(status) if status.code == 403 => {
            anyhow!("{}; a Role for one namespace is enough with -n NAME", status.message)
        }
        kube::Error::Api(status) => anyhow!("the API server answered {}: {}", status.code, status.message),
        other => {
            let mut inner: &dyn std::error::Error = other;
            while let Some(source) = inner.source() {
                inner = source;
            }
            anyhow!("the API server is not available: {inner}")
        }
    }
}

/// Whether a Delivery is meant by a name.
fn is(delivery: &Delivery, name: &str) -> bool {
    match name.split_once('/') {
        Some((namespace, name)) => {
            delivery.namespace().as_deref() == Some(namespace) && delivery.name_any() == name
        }
        None => delivery.name_any() == name,
    }
}

/// Whether a Delivery is that of the Application that is meant by a name.
fn is_of_application(delivery: &Delivery, name: &str) -> bool {
    let (namespace, name) =
        name.split_once('/').map_or((None, name), |(namespace, name)| (Some(namespace), name));
    delivery.spec.source.application.as_deref() == Some(name)
        && namespace.is_none_or(|namespace| delivery.namespace().as_deref() == Some(namespace))
}

/// The Deliveries with these names, all of them when none is given. The name of an Application means the Delivery that is made of
/// it, unless another one has that name. A name that none has is an error.
pub fn select(all: Vec<Delivery>, names: &[String]) -> anyhow::Result<Vec<Delivery>> {
    let mut meant: Vec<(&String, bool)> = Vec::new();
    for name in names {
        let exactly = all.iter().any(|d| is(d, name));
        if !exactly && !all.iter().any(|d| is_of_application(d, name)) {
            bail!("{}", missing(&all, name));
        }
        meant.push((name, exactly));
    }
    let is_meant = |d: &Delivery| {
        meant.iter().any(|(name, exactly)| if *exactly { is(d, name) } else { is_of_application(d, name) })
    };
    Ok(all.into_iter().filter(|d| meant.is_empty() || is_meant(d)).collect())
}

/// The one Delivery with a name.
pub fn one(all: Vec<Delivery>, name: &str) -> anyhow::Result<Delivery> {
    let mut found = select(all, &[name.to_owned()])?;
    if found.len() > 1 {
        let names: Vec<String> = found.iter().map(full_name).collect();
        bail!("{name} may mean {}; give the namespace: -n NAME, or NAMESPACE/NAME", names.join(" or "));
    }
    found.pop().ok_or_else(|| anyhow!("there is no Delivery {name}"))
}

/// Finds the one Delivery with a name.
pub async fn delivery(client: &kube::Client, scope: &ScopeArgs, name: &str) -> anyhow::Result<Delivery> {
    one(list(client, scope).await?, name)
}

/// `namespace/name`.
pub fn full_name(delivery: &Delivery) -> String {
    format!("{}/{}", delivery.namespace().unwrap_or_default(), delivery.name_any())
}

fn missing(all: &[Delivery], name: &str) -> String {
    let bare = name.rsplit('/').next().unwrap_or(name);
    let mut near: Vec<&Delivery> = all.iter().collect();
    near.sort_by_key(|d| strsim::levenshtein(bare, &d.name_any()));
    let names: Vec<String> = near.iter().take(8).map(|d| full_name(d)).collect();
    match names.is_empty() {
        true => format!("there is no Delivery {name}, nor any other"),
        false => format!("there is no Delivery {name}; there are: {}", names.join(", ")),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use serde_json::json;

    fn all() -> Vec<Delivery> {
        [("a", "shop"), ("b", "shop"), ("b", "blog")]
            .map(|(namespace, name)| {
                serde_json::from_value(json!({
                    "apiVersion": "windlass.dev/v1alpha1", "kind": "Delivery",
                    "metadata": {"namespace": namespace, "name": name},
                    "spec": {"source": {"repository": "r", "path": name}},
                }))
                .unwrap()
            })
            .to_vec()
    }

    #[test]
    fn a_name_finds_one_delivery_or_says_what_else_there_is() {
        assert_eq!(full_name(&one(all(), "blog").unwrap()), "b/blog");
        assert_eq!(full_name(&one(all(), "a/shop").unwrap()), "a/shop");
        let said = |name: &str| one(all(), name).unwrap_err().to_string();
        assert_eq!(
            said("shop"),
            "shop may mean a/shop or b/shop; give the namespace: -n NAME, or NAMESPACE/NAME"
        );
        assert_eq!(said("blgo"), "there is no Delivery blgo; there are: b/blog, a/shop, b/shop");
        assert!(said("c/shop").contains("there is no Delivery c/shop"));
        assert_eq!(select(all(), &[]).unwrap().len(), 3);
        let of_application: Delivery = serde_json::from_value(json!({
            "apiVersion": "windlass.dev/v1alpha1", "kind": "Delivery",
            "metadata": {"namespace": "b", "name": "web.application"},
            "spec": {"source": {"application": "web"}},
        }))
        .unwrap();
        let with = || all().into_iter().chain([of_application.clone()]).collect::<Vec<_>>();
        for name in ["web", "b/web", "web.application"] {
            assert_eq!(full_name(&one(with(), name).unwrap()), "b/web.application", "{name}");
        }
        assert!(one(with(), "a/web").is_err());
        assert_eq!(select(all(), &["shop".into()]).unwrap().len(), 2);
    }
}
