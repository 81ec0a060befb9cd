//! The URL of a remote repository: which are understood, which are refused, and how they are shown.

use super::SourceError;
use crate::core::digest;
use std::fmt;
use std::path::{Path, PathBuf};

/// The URL of a remote repository. Holds no password, and is shown without the user of an https URL, because
/// some people write a token there.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RemoteUrl {
    scheme: Scheme,
    user: Option<String>,
    host: String,
    port: Option<u16>,
    path: String,
}

/// How the remote is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Scheme {
    Https,
    Http,
    Ssh,
    File,
}

impl Scheme {
    /// The name that Git's `GIT_ALLOW_PROTOCOL` knows it by.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Https => "https",
            Self::Http => "http",
            Self::Ssh => "ssh",
            Self::File => "file",
        }
    }
}

impl RemoteUrl {
    /// Reads `https://host/path`, `ssh://user@host:port/path`, `user@host:path`, `file:///dir` or `/dir`.
    ///
    /// `http://` is read only for loopback and for Services of the cluster (`*.svc`, `*.svc.cluster.local`): on any
    /// other way, who can change a packet can change what is deployed. Directories are refused without `allow_file`.
    pub fn parse(text: &str, allow_file: bool) -> Result<Self, SourceError> {
        let text = text.trim();
        let invalid =
            |reason: &str| SourceError::InvalidUrl { url: without_userinfo(text), reason: reason.to_owned() };
        if text.is_empty() {
            return Err(invalid("it is empty"));
        }
        if text.chars().any(|c| c.is_control() || c == ' ' && text.contains("://")) {
            return Err(invalid("it holds blanks or control characters"));
        }
        if text.starts_with('/') {
            return Self::local(Path::new(text), text, allow_file);
        }
        if !text.contains("://") {
            return Self::scp(text).ok_or_else(|| {
                invalid(
                    "write https://host/path, ssh://git@host/path, git@host:path or an absolute directory",
                )
            });
        }
        let parsed = url::Url::parse(text).map_err(|error| invalid(&error.to_string()))?;
        let scheme = match parsed.scheme() {
            "https" => Scheme::Https,
            "http" => Scheme::Http,
            "ssh" | "git+ssh" | "ssh+git" => Scheme::Ssh,
            "file" => {
                let path =
                    parsed.to_file_path().map_err(|()| invalid("a file:// URL names no other host"))?;
                return Self::local(&path, text, allow_file);
            }
            other => {
                return Err(invalid(&format!(
                    "{other}:// is not understood; use https://, ssh:// or file://"
                )));
            }
        };
        if parsed.password().is_some() {
            return Err(SourceError::PasswordInUrl { url: without_userinfo(text) });
        }
        if parsed.query().is_some() || parsed.fragment().is_some() {
            return Err(invalid("it has a `?` or `#` part, which repositories do not have"));
        }
        let host = parsed.host_str().unwrap_or_default().to_ascii_lowercase();
        if host.is_empty() || host.starts_with('-') {
            return Err(invalid("it names no host"));
        }
        let user = match parsed.username() {
            "" => None,
            user if user.starts_with('-') => return Err(invalid("the user must not begin with `-`")),
            user => Some(user.to_owned()),
        };
        let path = parsed.path().trim_end_matches('/').to_owned();
        if path.is_empty() {
            return Err(invalid("it names no repository, only a host"));
        }
        let url = Self { scheme, user, host, port: parsed.port(), path };
        if scheme == Scheme::Http && !url.stays_near() {
            return Err(SourceError::PlainHttp { url: url.to_string() });
        }
        Ok(url)
    }

    /// `user@host:path`, as `git clone` takes it. The path is relative to the user's home there.
    fn scp(text: &str) -> Option<Self> {
        let (left, path) = text.split_once(':')?;
        let (user, host) = match left.rsplit_once('@') {
            Some((user, host)) => (Some(user), host),
            None => (None, left),
        };
        let plain =
            |part: &str| !part.is_empty() && !part.starts_with('-') && !part.contains(['/', '@', ':']);
        if !plain(host) || !user.is_none_or(plain) || path.is_empty() || path.starts_with(':') {
            return None;
        }
        Some(Self {
            scheme: Scheme::Ssh,
            user: user.map(str::to_owned),
            host: host.to_ascii_lowercase(),
            port: None,
            path: path.trim_end_matches('/').to_owned(),
        })
    }

    fn local(path: &Path, text: &str, allow_file: bool) -> Result<Self, SourceError> {
        let invalid =
            |reason: &str| SourceError::InvalidUrl { url: text.to_owned(), reason: reason.to_owned() };
        if !allow_file {
            return Err(SourceError::FileNotAllowed { url: text.to_owned() });
        }
        if path.components().any(|part| part == std::path::Component::ParentDir) {
            return Err(invalid("the directory must not contain `..`"));
        }
        // Components drop doubled and trailing slashes, so that one directory has one mirror.
        let path: PathBuf = path.components().collect();
        let path = path.to_str().ok_or_else(|| invalid("the directory is not UTF-8"))?.to_owned();
        Ok(Self { scheme: Scheme::File, user: None, host: String::new(), port: None, path })
    }

    /// The directory of a local repository.
    pub fn is_local(&self) -> Option<&Path> {
        (self.scheme == Scheme::File).then(|| Path::new(&self.path))
    }

    pub(super) fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// The user that an https URL names (Azure DevOps puts the organisation there).
    pub(super) fn user(&self) -> Option<&str> {
        self.user.as_deref()
    }

    /// Host and port for messages; the directory of a local repository.
    pub(super) fn host(&self) -> String {
        match (self.scheme, self.port) {
            (Scheme::File, _) => self.path.clone(),
            (_, Some(port)) => format!("{}:{port}", self.host),
            (_, None) => self.host.clone(),
        }
    }

    /// What `git` is given: no password, and a user only where ssh needs one.
    pub(super) fn for_git(&self) -> String {
        let port = self.port.map(|port| format!(":{port}")).unwrap_or_default();
        match self.scheme {
            Scheme::File => self.path.clone(),
            Scheme::Ssh => {
                let user = self.user.as_ref().map(|user| format!("{user}@")).unwrap_or_default();
                // `host:dir` is relative to where the host puts us; no ssh:// URL says the same to every host.
                match self.path.strip_prefix('/') {
                    Some(_) => format!("ssh://{user}{}{port}{}", self.host, self.path),
                    None => format!("{user}{}:{}", self.host, self.path),
                }
            }
            scheme => format!("{}://{}{port}{}", scheme.name(), self.host, self.path),
        }
    }

    /// A short name for the mirror of this URL.
    pub(super) fn key(&self) -> String {
        digest::of_bytes(self.for_git().as_bytes())
    }

    /// True for the machine itself.
    pub(super) fn is_loopback(&self) -> bool {
        let host = self.host.trim_start_matches('[').trim_end_matches(']');
        host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
    }

    fn stays_near(&self) -> bool {
        self.is_loopback() || self.host.ends_with(".svc") || self.host.ends_with(".svc.cluster.local")
    }
}

impl fmt::Display for RemoteUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.for_git())
    }
}

/// A URL of any form without what stands before `@`, for errors about text that could not be read as a URL.
pub(super) fn without_userinfo(text: &str) -> String {
    let Some((scheme, rest)) = text.split_once("://") else {
        return text.to_owned();
    };
    let (authority, path) = match rest.find(['/', '?', '#']) {
        Some(at) => rest.split_at(at),
        None => (rest, ""),
    };
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let path = path.split(['?', '#']).next().unwrap_or_default();
    format!("{scheme}://{host}{path}")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_people_write() {
        for (text, shown) in [
            ("https://git.example.com/acme/config.git", "https://git.example.com/acme/config.git"),
            ("https://Git.Example.com:8443/acme/config/", "https://git.example.com:8443/acme/config"),
            ("https://acme@dev.azure.com/acme/p/_git/c", "https://dev.azure.com/acme/p/_git/c"),
            ("ssh://git@git.example.com:2222/acme/c.git", "ssh://git@git.example.com:2222/acme/c.git"),
            ("git@github.com:acme/config.git", "git@github.com:acme/config.git"),
            ("github.com:/srv/config.git", "ssh://github.com/srv/config.git"),
            ("http://127.0.0.1:3000/a/b", "http://127.0.0.1:3000/a/b"),
            ("http://[::1]:3000/a/b", "http://[::1]:3000/a/b"),
            ("http://gitea.git.svc:3000/a/b", "http://gitea.git.svc:3000/a/b"),
            ("/srv/git//config/", "/srv/git/config"),
            ("file:///srv/git/my%20config", "/srv/git/my config"),
        ] {
            assert_eq!(RemoteUrl::parse(text, true).unwrap().to_string(), shown, "{text}");
        }
    }

    #[test]
    fn one_repository_has_one_key() {
        let key = |text: &str| RemoteUrl::parse(text, true).unwrap().key();
        assert_eq!(key("https://h.example/a"), key("https://H.example/a/"));
        assert_eq!(key("/srv/a"), key("file:///srv/a/"));
        assert_ne!(key("https://h.example/a"), key("ssh://h.example/a"));
    }

    #[test]
    fn refuses_with_a_reason_and_never_shows_a_password() {
        for text in [
            "",
            "main",
            "relative/dir",
            "ext::sh -c id",
            "ftp://h.example/a",
            "https://h.example",
            "https://h.example/a?token=hunter2",
            "https://h.example/a b",
            "ssh://-oProxyCommand=x/a",
            "-oProxyCommand=x:a",
            "https://u:hunter2@h.example/a",
            "https://u:hunter2@h.example:port/a",
            "ssh://u:hunter2@h.example/a",
            "http://h.example/a",
            "file://other.example/a",
            "/srv/../etc",
        ] {
            let error = RemoteUrl::parse(text, true).unwrap_err();
            assert!(!error.to_string().contains("hunter2"), "{error}");
            assert!(!error.is_transient(), "{error}");
        }
        assert!(matches!(
            RemoteUrl::parse("https://u:p@h.example/a", true),
            Err(SourceError::PasswordInUrl { .. })
        ));
        assert!(matches!(RemoteUrl::parse("/srv/a", false), Err(SourceError::FileNotAllowed { .. })));
        assert!(matches!(RemoteUrl::parse("file:///srv/a", false), Err(SourceError::FileNotAllowed { .. })));
    }
}
