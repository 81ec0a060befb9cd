//! Finding Deliveries and Applications by the names that people give: `NAME`, or `NAMESPACE/NAME`.

use super::connect::ClusterArgs;
use crate::api::{Application, Delivery, names};
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

/// Which Delivery or Application is meant, as kubectl names objects.
#[derive(clap::Args, Clone, Debug)]
pub struct Meant {
    /// Name of a Delivery or an Application (NAME or NAMESPACE/NAME), or a kind (delivery, application) before it
    #[arg(value_name = "KIND|NAME")]
    first: String,
    /// The name, after a kind
    #[arg(value_name = "NAME")]
    second: Option<String>,
}

/// A kind that has objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum OwnerKind {
    Delivery,
    Application,
}

impl OwnerKind {
    /// By the names that kubectl takes: singular, plural, short.
    fn of(word: &str) -> Option<Self> {
        let word = word.to_ascii_lowercase();
        match word.strip_suffix(&format!(".{}", names::GROUP)).unwrap_or(&word) {
            "delivery" | "deliveries" | "dlv" => Some(OwnerKind::Delivery),
            "application" | "applications" | "wapp" => Some(OwnerKind::Application),
            _ => None,
        }
    }
}

impl Meant {
    /// The kind, where one is given, and the name.
    fn read(&self) -> anyhow::Result<(Option<OwnerKind>, &str)> {
        if let Some(name) = &self.second {
            let kind = OwnerKind::of(&self.first);
            let kind = kind.ok_or_else(|| {
                anyhow!(
                    "{} is not delivery or application; write `{name}` alone, or a kind before it",
                    self.first
                )
            })?;
            return Ok((Some(kind), name));
        }
        let typed = self.first.split_once('/').and_then(|(kind, name)| Some((OwnerKind::of(kind)?, name)));
        Ok(typed.map_or((None, self.first.as_str()), |(kind, name)| (Some(kind), name)))
    }
}

/// What has objects: a Delivery of a directory, or an Application with the Delivery that is made of it.
#[derive(Clone, Debug)]
pub struct Owner {
    /// The Application.
    pub application: Option<Application>,
    /// The Delivery. An Application that nobody has looked at yet has none.
    pub delivery: Option<Delivery>,
}

/// Finds what is meant. The name of an Application is enough, unless a Delivery has that name, too.
pub async fn owner(client: &kube::Client, scope: &ScopeArgs, meant: &Meant) -> anyhow::Result<Owner> {
    let (kind, name) = meant.read()?;
    let deliveries: Vec<Delivery> = list(client, scope).await?;
    if kind == Some(OwnerKind::Delivery) || (kind.is_none() && deliveries.iter().any(|d| is(d, name))) {
        let exactly: Vec<Delivery> = deliveries.iter().filter(|d| is(d, name)).cloned().collect();
        if exactly.is_empty() {
            bail!("{}", missing(&deliveries, name));
        }
        return Ok(Owner { application: None, delivery: Some(one(exactly, name)?) });
    }
    let applications: Vec<Application> = list_if_served(client, scope).await?;
    let mut found: Vec<Application> =
        applications.iter().filter(|application| is_named(*application, name)).cloned().collect();
    if found.len() > 1 {
        let all: Vec<String> = found.iter().map(full_name).collect();
        bail!("{name} may mean {}; give the namespace: -n NAME, or NAMESPACE/NAME", all.join(" or "));
    }
    let Some(application) = found.pop() else {
        let near = |all: Vec<String>| closest(all, name);
        let mut all: Vec<String> = applications.iter().map(full_name).collect();
        let what = match kind {
            Some(_) => "Application",
            None => {
                all.extend(deliveries.iter().map(full_name));
                "Delivery or Application"
            }
        };
        bail!("there is no {what} {name}{}", near(all));
    };
    let own = names::application_delivery(&application.name_any());
    let delivery =
        deliveries.into_iter().find(|d| d.name_any() == own && d.namespace() == application.namespace());
    Ok(Owner { application: Some(application), delivery })
}

/// A kind of ours.
pub trait Ours:
    kube::Resource<Scope = kube::core::NamespaceResourceScope, DynamicType: Default>
    + Clone
    + std::fmt::Debug
    + serde::de::DeserializeOwned
{
}

impl<K> Ours for K where
    K: kube::Resource<Scope = kube::core::NamespaceResourceScope, DynamicType: Default>
        + Clone
        + std::fmt::Debug
        + serde::de::DeserializeOwned
{
}

/// Lists resources of ours; none where the cluster does not know the kind.
pub async fn list_if_served<K: Ours>(client: &kube::Client, scope: &ScopeArgs) -> anyhow::Result<Vec<K>> {
    list_if_allowed(client, scope).await?
}

/// The same, for what can be done without: the inner error says why they may not be listed, and what to do.
pub async fn list_if_allowed<K: Ours>(
    client: &kube::Client,
    scope: &ScopeArgs,
) -> anyhow::Result<Result<Vec<K>, anyhow::Error>> {
    match listed(client, scope).await {
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(Ok(Vec::new())),
        Err(kube::Error::Api(status)) if status.code == 403 => Ok(Err(explained(kube::Error::Api(status)))),
        answer => answer.map(Ok).map_err(explained),
    }
}

/// Lists resources of ours.
pub async fn list<K: Ours>(client: &kube::Client, scope: &ScopeArgs) -> anyhow::Result<Vec<K>> {
    listed(client, scope).await.map_err(explained)
}

async fn listed<K: Ours>(client: &kube::Client, scope: &ScopeArgs) -> kube::Result<Vec<K>> {
    let api: Api<K> = match &scope.namespace {
        Some(namespace) => Api::namespaced(client.clone(), namespace),
        None => Api::all(client.clone()),
    };
    let mut all = patiently(async || api.list(&ListParams::default()).await).await?.items;
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
    is_named(delivery, name)
}

fn is_named(object: &impl ResourceExt, name: &str) -> bool {
    match name.split_once('/') {
        Some((namespace, name)) => {
            object.namespace().as_deref() == Some(namespace) && object.name_any() == name
        }
        None => object.name_any() == name,
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
pub fn full_name(object: &impl ResourceExt) -> String {
    format!("{}/{}", object.namespace().unwrap_or_default(), object.name_any())
}

fn missing(all: &[Delivery], name: &str) -> String {
    format!("there is no Delivery {name}{}", closest(all.iter().map(full_name).collect(), name))
}

/// What else there is, the most alike first.
fn closest(mut all: Vec<String>, name: &str) -> String {
    let bare = |name: &str| name.rsplit('/').next().unwrap_or(name).to_owned();
    all.sort_by_cached_key(|other| strsim::levenshtein(&bare(name), &bare(other)));
    all.truncate(8);
    match all.is_empty() {
        true => ", nor any other".to_owned(),
        false => format!("; there are: {}", all.join(", ")),
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

    #[test]
    fn a_kind_may_stand_before_a_name_as_in_kubectl() {
        let read = |words: &[&str]| {
            let meant = Meant { first: words[0].into(), second: words.get(1).map(|s| (*s).to_owned()) };
            meant.read().map(|(kind, name)| (kind, name.to_owned())).map_err(|e| e.to_string())
        };
        let (delivery, application) = (Some(OwnerKind::Delivery), Some(OwnerKind::Application));
        for (words, kind, name) in [
            (&["shop"][..], None, "shop"),
            (&["team/shop"], None, "team/shop"),
            (&["application", "web"], application, "web"),
            (&["wapp/web"], application, "web"),
            (&["Application/shop/web"], application, "shop/web"),
            (&["dlv", "team/shop"], delivery, "team/shop"),
            (&["deliveries.windlass.dev/shop"], delivery, "shop"),
        ] {
            assert_eq!(read(words), Ok((kind, name.to_owned())), "{words:?}");
        }
        assert!(read(&["deployment", "web"]).unwrap_err().contains("is not delivery or application"));
    }
}
