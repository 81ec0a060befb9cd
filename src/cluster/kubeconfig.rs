//! Finds the kubeconfig, its context and the proxy, as kubectl does.

use super::connect::{ConnectError, ConnectOptions};
use kube::config::{KubeConfigOptions, Kubeconfig};
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;

/// What the environment says; handed in, so that a test can say something else.
pub(super) struct Environment {
    kubeconfig: Option<std::ffi::OsString>,
    home: Option<PathBuf>,
    https_proxy: Option<String>,
    no_proxy: String,
}

impl Environment {
    pub(super) fn read() -> Self {
        let either = |upper: &str, lower: &str| std::env::var(upper).or_else(|_| std::env::var(lower)).ok();
        Environment {
            kubeconfig: std::env::var_os("KUBECONFIG"),
            home: std::env::home_dir(),
            https_proxy: either("HTTPS_PROXY", "https_proxy").filter(|p| !p.is_empty()),
            no_proxy: either("NO_PROXY", "no_proxy").unwrap_or_default(),
        }
    }

    fn kubeconfigs(&self) -> Vec<PathBuf> {
        let listed = self.kubeconfig.iter().flat_map(std::env::split_paths);
        let listed: Vec<PathBuf> = listed.filter(|p| !p.as_os_str().is_empty()).collect();
        if !listed.is_empty() {
            return listed;
        }
        self.home.iter().map(|home| home.join(".kube").join("config")).collect()
    }

    /// The proxy for a server, by the rules of Go's `ProxyFromEnvironment`: never for loopback, nor for what
    /// `NO_PROXY` lists as host, domain or network.
    fn proxy_for(&self, server: &http::Uri) -> Option<http::Uri> {
        let host = server.host()?.trim_start_matches('[').trim_end_matches(']');
        let ip: Option<IpAddr> = host.parse().ok();
        let loopback = host == "localhost" || ip.is_some_and(|ip| ip.is_loopback());
        if loopback || self.no_proxy.split(',').any(|rule| exempt(rule.trim(), host, ip)) {
            return None;
        }
        self.https_proxy.as_ref()?.parse().ok()
    }
}

/// Whether a rule of `NO_PROXY` holds for a host.
fn exempt(rule: &str, host: &str, ip: Option<IpAddr>) -> bool {
    if rule == "*" {
        return true;
    }
    let rule = rule.rsplit_once(':').filter(|(_, port)| port.parse::<u16>().is_ok()).map_or(rule, |(r, _)| r);
    if let (Some((net, bits)), Some(IpAddr::V4(ip))) = (rule.split_once('/'), ip) {
        let (Ok(net), Ok(bits)) = (net.parse::<Ipv4Addr>(), bits.parse::<u32>()) else { return false };
        let mask = u32::MAX.checked_shl(32 - bits.min(32)).unwrap_or(0);
        return u32::from(ip) & mask == u32::from(net) & mask;
    }
    let domain = rule.trim_start_matches("*.").trim_start_matches('.');
    !domain.is_empty()
        && (host.eq_ignore_ascii_case(domain)
            || host.to_ascii_lowercase().ends_with(&format!(".{}", domain.to_ascii_lowercase())))
}

pub(super) async fn load(
    options: &ConnectOptions,
    environment: &Environment,
) -> Result<(kube::Config, Option<String>), ConnectError> {
    let (files, given) = match &options.kubeconfig {
        Some(file) => (vec![file.clone()], true),
        None => (environment.kubeconfigs(), false),
    };
    let shown = files.iter().map(|f| f.display().to_string()).collect::<Vec<_>>().join(", ");
    let wrap = |source| ConnectError::Kubeconfig { file: shown.clone(), source: Box::new(source) };
    let mut merged = Kubeconfig::default();
    for file in &files {
        // As kubectl does: a file of the list that is not there is passed over, one that was asked for is not.
        if !given && !file.exists() {
            continue;
        }
        merged = Kubeconfig::read_from(file).and_then(|next| merged.merge(next)).map_err(wrap)?;
    }
    if merged.contexts.is_empty() && !given {
        if let Some(context) = &options.context {
            return Err(ConnectError::ContextWithoutKubeconfig { context: context.clone() });
        }
        return match kube::Config::incluster() {
            Ok(config) => Ok((config, None)),
            Err(_) => Err(ConnectError::NotConfigured { looked: shown }),
        };
    }
    let name = options.context.clone().or_else(|| merged.current_context.clone());
    let context = merged.contexts.iter().find(|c| Some(&c.name) == name.as_ref());
    if let (Some(name), None) = (&name, context) {
        let known = merged.contexts.iter().map(|c| c.name.as_str()).collect::<Vec<_>>().join(", ");
        return Err(ConnectError::NoSuchContext { file: shown, context: name.clone(), known });
    }
    let cluster = context.and_then(|c| c.context.as_ref()).map(|c| &c.cluster);
    let cluster = merged.clusters.iter().find(|c| Some(&c.name) == cluster).and_then(|c| c.cluster.as_ref());
    let own_proxy = cluster.and_then(|c| c.proxy_url.as_ref()).is_some_and(|p| !p.is_empty());
    let select = KubeConfigOptions { context: name.clone(), ..KubeConfigOptions::default() };
    let mut config = kube::Config::from_custom_kubeconfig(merged, &select).await.map_err(wrap)?;
    if !own_proxy {
        // kube holds NO_PROXY against the proxy's address instead of the server's.
        config.proxy_url = environment.proxy_for(&config.cluster_url);
    }
    Ok((config, name))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use super::*;
    use std::fs;

    fn environment() -> Environment {
        Environment { kubeconfig: None, home: None, https_proxy: None, no_proxy: String::new() }
    }

    fn kubeconfig(name: &str, more: &str) -> String {
        format!(
            "apiVersion: v1\nkind: Config\nclusters: [{{name: {name}, cluster: {{server: 'https://{name}.example.com', \
             insecure-skip-tls-verify: true}}}}]\nusers: [{{name: {name}, user: {{token: t}}}}]\n\
             contexts: [{{name: {name}, context: {{cluster: {name}, user: {name}, namespace: in-{name}}}}}]\n{more}"
        )
    }

    #[tokio::test]
    async fn kubeconfigs_are_found_and_merged_as_kubectl_does() {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str, more: &str| {
            let path = dir.path().join(name);
            fs::write(&path, kubeconfig(name, more)).unwrap();
            path
        };
        let (one, two) = (file("one", "current-context: one"), file("two", "current-context: two"));
        let missing = dir.path().join("missing");
        let listed = Environment {
            kubeconfig: Some(std::env::join_paths([&missing, &two, &one]).unwrap()),
            ..environment()
        };
        let ask = |kubeconfig: Option<&PathBuf>, context: Option<&str>| ConnectOptions {
            kubeconfig: kubeconfig.cloned(),
            context: context.map(String::from),
            ..ConnectOptions::default()
        };
        let (config, context) = load(&ask(None, None), &listed).await.unwrap();
        assert_eq!(config.cluster_url.host(), Some("two.example.com"), "the first that says so wins");
        assert_eq!((context.as_deref(), config.default_namespace.as_str()), (Some("two"), "in-two"));
        let (config, _) = load(&ask(None, Some("one")), &listed).await.unwrap();
        assert_eq!(config.cluster_url.host(), Some("one.example.com"));
        let (config, _) = load(&ask(Some(&one), None), &listed).await.unwrap();
        assert_eq!(config.cluster_url.host(), Some("one.example.com"), "--kubeconfig wins over KUBECONFIG");

        let error = load(&ask(Some(&one), Some("two")), &listed).await.unwrap_err().to_string();
        assert!(error.contains("no context \"two\"") && error.contains("it has: one"), "{error}");
        let error = load(&ask(Some(&missing), None), &listed).await.unwrap_err().to_string();
        assert!(error.contains("missing"), "{error}");
        let home = Environment { home: Some(dir.path().into()), ..environment() };
        let error = load(&ask(None, None), &home).await.unwrap_err().to_string();
        assert!(error.contains(".kube/config") && error.contains("--kubeconfig"), "{error}");
        let error = load(&ask(None, Some("one")), &home).await.unwrap_err();
        assert!(matches!(error, ConnectError::ContextWithoutKubeconfig { .. }), "{error}");
        fs::create_dir(dir.path().join(".kube")).unwrap();
        fs::write(dir.path().join(".kube/config"), kubeconfig("home", "current-context: home")).unwrap();
        let (config, _) = load(&ask(None, None), &home).await.unwrap();
        assert_eq!(config.cluster_url.host(), Some("home.example.com"));
    }

    #[test]
    fn the_proxy_of_the_environment_is_obeyed_as_go_does() {
        let environment = Environment {
            https_proxy: Some("http://proxy.example.com:3128".into()),
            no_proxy: "10.0.0.0/8, .internal.example.com,bare.example.org:6443,*.star.example".into(),
            ..environment()
        };
        let table = [
            ("https://api.example.com:6443", true),
            ("https://127.0.0.1:6443", false),
            ("https://localhost:6443", false),
            ("https://[::1]:6443", false),
            ("https://10.96.0.1", false),
            ("https://11.96.0.1", true),
            ("https://api.internal.example.com", false),
            ("https://notinternal.example.com", true),
            ("https://bare.example.org:6443", false),
            ("https://a.star.example", false),
        ];
        for (server, proxied) in table {
            assert_eq!(environment.proxy_for(&server.parse().unwrap()).is_some(), proxied, "{server}");
        }
    }
}
