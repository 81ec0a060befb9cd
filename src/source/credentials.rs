//! Who we are to a remote: the contents of the Secret that a Repository names.

use super::url::{RemoteUrl, Scheme};
use crate::core::digest;
use std::collections::BTreeMap;
use std::fmt;

/// What a remote is told about us, and what we trust about it. All of it is optional; the default is to say nothing.
#[derive(Default, Clone, PartialEq, Eq)]
pub struct Credentials {
    /// For https: the user. With a token most hosts take any user; `git` where none is given.
    pub username: Option<String>,
    /// For https: the password or token, sent as basic authentication.
    pub password: Option<String>,
    /// For https: a token, sent as `Authorization: Bearer`.
    pub bearer_token: Option<String>,
    /// For ssh: the private key, in OpenSSH's or PEM form, without a passphrase.
    pub ssh_identity: Option<String>,
    /// For ssh: the host keys we trust, as `ssh-keyscan` prints them.
    pub known_hosts: Option<String>,
    /// For https: the certificate authority (PEM) that we trust instead of the system's.
    pub ca_certificate: Option<String>,
}

/// A Secret that cannot be used, or not for this URL. Names keys, never values.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CredentialsError {
    /// None of its keys is one of ours.
    #[error(
        "it has none of the keys username, password, bearerToken, identity, known_hosts, ca.crt (it has: {found}); \
         for https set username and password or bearerToken, for ssh identity and known_hosts"
    )]
    Nothing {
        /// The keys that it has.
        found: String,
    },
    /// A key is needed and not there.
    #[error("the key `{key}` is missing: {why}")]
    Missing {
        /// The key.
        key: &'static str,
        /// What it is needed for, and how to make it.
        why: &'static str,
    },
    /// Two keys exclude each other, or a key does not go with the URL.
    #[error("the key `{key}` does not go with {with}: remove one")]
    Conflict {
        /// The key.
        key: &'static str,
        /// The other key, or the kind of URL.
        with: &'static str,
    },
    /// A value cannot be right.
    #[error("the value of `{key}` {problem}")]
    Unusable {
        /// The key.
        key: &'static str,
        /// What is wrong with it, and what to do.
        problem: &'static str,
    },
}

/// Where a key goes, and the names that it has in Secrets made for this purpose, for Flux, or for
/// `kubernetes.io/ssh-auth`.
const KEYS: [(&str, &[&str]); 6] = [
    ("username", &["username"]),
    ("password", &["password"]),
    ("bearerToken", &["bearerToken"]),
    ("identity", &["identity", "ssh-privatekey"]),
    ("known_hosts", &["known_hosts"]),
    ("ca.crt", &["ca.crt", "caFile"]),
];

impl Credentials {
    /// Reads the data of a Secret. Other keys (`identity.pub`) are left alone, unless there are only others.
    pub fn from_secret(data: &BTreeMap<String, Vec<u8>>) -> Result<Self, CredentialsError> {
        let mut found: [Option<String>; KEYS.len()] = Default::default();
        for (slot, (key, names)) in found.iter_mut().zip(KEYS) {
            let Some(bytes) = names.iter().find_map(|name| data.get(*name)) else { continue };
            let text = std::str::from_utf8(bytes)
                .map_err(|_| CredentialsError::Unusable { key, problem: "is not text (UTF-8)" })?;
            // A newline at the end is what `echo TOKEN | base64` leaves; it is never part of the value.
            let text = text.trim_end_matches(['\r', '\n']);
            if text.trim().is_empty() {
                return Err(CredentialsError::Unusable { key, problem: "is empty" });
            }
            *slot = Some(text.to_owned());
        }
        if found.iter().all(Option::is_none) {
            let found = data.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
            let found = if found.is_empty() { "no keys".to_owned() } else { found };
            return Err(CredentialsError::Nothing { found });
        }
        let [username, password, bearer_token, ssh_identity, known_hosts, ca_certificate] = found;
        let credentials =
            Self { username, password, bearer_token, ssh_identity, known_hosts, ca_certificate };
        credentials.check_values()?;
        Ok(credentials)
    }

    /// Tells whether these credentials can be used for a URL, before any remote is asked.
    pub fn check(&self, url: &RemoteUrl) -> Result<(), CredentialsError> {
        self.check_values()?;
        let missing = |key, why| Err(CredentialsError::Missing { key, why });
        let conflict = |key, with| Err(CredentialsError::Conflict { key, with });
        match url.scheme() {
            Scheme::Ssh => {
                if self.ssh_identity.is_none() {
                    return missing(
                        "identity",
                        "an ssh URL needs a private key; `ssh-keygen -t ed25519` makes one",
                    );
                }
                if self.known_hosts.is_none() {
                    return missing(
                        "known_hosts",
                        "no host is trusted by itself; `ssh-keyscan HOST` prints the keys, compare them with what the \
                         host publishes",
                    );
                }
                if self.bearer_token.is_some() {
                    return conflict("bearerToken", "an ssh URL");
                }
            }
            Scheme::Https | Scheme::Http => {
                if self.ssh_identity.is_some() && self.password.is_none() && self.bearer_token.is_none() {
                    return conflict("identity", "an https URL");
                }
                if self.bearer_token.is_some() && self.password.is_some() {
                    return conflict("bearerToken", "`password`");
                }
                if self.username.is_some() && self.password.is_none() && self.bearer_token.is_none() {
                    return missing("password", "`username` alone proves nothing");
                }
            }
            Scheme::File => {}
        }
        Ok(())
    }

    fn check_values(&self) -> Result<(), CredentialsError> {
        let one_line: [(&'static str, &Option<String>); 3] =
            [("username", &self.username), ("password", &self.password), ("bearerToken", &self.bearer_token)];
        for (key, value) in one_line {
            if value.as_ref().is_some_and(|value| value.chars().any(char::is_control)) {
                return Err(CredentialsError::Unusable { key, problem: "has more than one line" });
            }
        }
        if let Some(identity) = &self.ssh_identity {
            let problem = match identity.trim_start() {
                text if !text.starts_with("-----BEGIN ") => {
                    Some("is no private key: it must begin with `-----BEGIN`")
                }
                text if needs_passphrase(text) => {
                    Some("is protected by a passphrase; use a key without (`ssh-keygen -p -N '' -f KEY`)")
                }
                _ => None,
            };
            if let Some(problem) = problem {
                return Err(CredentialsError::Unusable { key: "identity", problem });
            }
        }
        if self.ca_certificate.as_ref().is_some_and(|pem| !pem.contains("-----BEGIN CERTIFICATE-----")) {
            return Err(CredentialsError::Unusable {
                key: "ca.crt",
                problem: "is no certificate: it must hold `-----BEGIN CERTIFICATE-----`",
            });
        }
        Ok(())
    }

    /// The `Authorization` header for http remotes.
    pub(super) fn authorization(&self, url: &RemoteUrl) -> Option<String> {
        use base64::Engine;
        if let Some(token) = &self.bearer_token {
            return Some(format!("Authorization: Bearer {token}"));
        }
        let password = self.password.as_ref()?;
        let user = self.username.as_deref().or(url.user()).unwrap_or("git");
        let pair = base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"));
        Some(format!("Authorization: Basic {pair}"))
    }

    /// True when the remote is told who we are.
    pub(super) fn any_for(&self, url: &RemoteUrl) -> bool {
        match url.scheme() {
            Scheme::Ssh => self.ssh_identity.is_some(),
            Scheme::Https | Scheme::Http => self.password.is_some() || self.bearer_token.is_some(),
            Scheme::File => false,
        }
    }

    /// Names these credentials without telling them, to remember within this process that a remote let them in.
    pub(super) fn fingerprint(&self, key: &[u8]) -> String {
        let fields = [
            &self.username,
            &self.password,
            &self.bearer_token,
            &self.ssh_identity,
            &self.known_hosts,
            &self.ca_certificate,
        ];
        digest::of_value_keyed(&serde_json::json!(fields), key)
    }

    /// Every text that must not appear in a message.
    pub(super) fn secrets(&self, url: &RemoteUrl) -> Vec<String> {
        let header = self.authorization(url);
        let sent = header.as_deref().and_then(|header| header.rsplit(' ').next()).map(str::to_owned);
        [self.password.clone(), self.bearer_token.clone(), self.ssh_identity.clone(), sent]
            .into_iter()
            .flatten()
            .filter(|secret| !secret.is_empty())
            .collect()
    }
}

/// PEM keys say so in their text; OpenSSH's form names its cipher at the start of the encoded part.
fn needs_passphrase(pem: &str) -> bool {
    use base64::Engine;
    if pem.contains("ENCRYPTED") {
        return true;
    }
    if !pem.starts_with("-----BEGIN OPENSSH PRIVATE KEY-----") {
        return false;
    }
    let body: String = pem.lines().filter(|line| !line.starts_with("-----")).map(str::trim).collect();
    let Some(Ok(start)) = body.get(..40).map(|part| base64::engine::general_purpose::STANDARD.decode(part))
    else {
        return false;
    };
    // "openssh-key-v1\0", then the cipher's name with its length in four bytes.
    start.get(15..19) != Some(&[0, 0, 0, 4]) || start.get(19..23) != Some(b"none")
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |value: &Option<String>| if value.is_some() { "***" } else { "-" };
        f.debug_struct("Credentials")
            .field("username", &shown(&self.username))
            .field("password", &shown(&self.password))
            .field("bearer_token", &shown(&self.bearer_token))
            .field("ssh_identity", &shown(&self.ssh_identity))
            .field("known_hosts", &shown(&self.known_hosts))
            .field("ca_certificate", &shown(&self.ca_certificate))
            .finish()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn secret(pairs: &[(&str, &str)]) -> BTreeMap<String, Vec<u8>> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), value.as_bytes().to_vec())).collect()
    }

    fn check(pairs: &[(&str, &str)], url: &str) -> Result<(), String> {
        let url = RemoteUrl::parse(url, true).unwrap();
        Credentials::from_secret(&secret(pairs))
            .and_then(|credentials| credentials.check(&url))
            .map_err(|error| error.to_string())
    }

    const KEY: &str = "-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n-----END PRIVATE KEY-----\n";

    #[test]
    fn errors_name_the_key_and_never_a_value() {
        let (https, ssh) = ("https://h.example/a", "git@h.example:a");
        for (pairs, url, expected) in [
            (&[][..], https, "no keys"),
            (&[("token", "hunter2")], https, "it has: token"),
            (&[("username", "hunter2")], https, "`password` is missing"),
            (
                &[("password", "hunter2"), ("bearerToken", "x")],
                https,
                "`bearerToken` does not go with `password`",
            ),
            (&[("password", "hun\nter2")], https, "`password` has more than one line"),
            (&[("password", "\n")], https, "`password` is empty"),
            (&[("identity", KEY)], https, "`identity` does not go with an https URL"),
            (&[("ca.crt", "hunter2")], https, "`ca.crt` is no certificate"),
            (&[("known_hosts", "h.example ssh-rsa A")], ssh, "`identity` is missing"),
            (&[("identity", KEY)], ssh, "`known_hosts` is missing"),
            (&[("identity", "hunter2"), ("known_hosts", "x")], ssh, "`identity` is no private key"),
            (
                &[
                    ("identity", "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n"),
                    ("known_hosts", "x"),
                ],
                ssh,
                "passphrase",
            ),
            (
                &[
                    (
                        "identity",
                        "-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXktdjEAAAAACmFlczI1Ni1jdHIAAAAGYmNyeXB0\n",
                    ),
                    ("known_hosts", "x"),
                ],
                ssh,
                "passphrase",
            ),
        ] {
            let error = check(pairs, url).unwrap_err();
            assert!(error.contains(expected), "{error}: should say {expected}");
            assert!(!error.contains("hunter2"), "{error}");
        }
        let bytes = BTreeMap::from([("password".to_owned(), vec![0xff, 0xfe])]);
        assert!(Credentials::from_secret(&bytes).is_err());
    }

    #[test]
    fn takes_the_usual_secrets() {
        let (https, ssh) = ("https://h.example/a", "git@h.example:a");
        assert_eq!(check(&[("username", "u"), ("password", "p\n")], https), Ok(()));
        assert_eq!(check(&[("bearerToken", "t")], https), Ok(()));
        assert_eq!(
            check(&[("ssh-privatekey", KEY), ("known_hosts", "k"), ("identity.pub", "x")], ssh),
            Ok(())
        );
        assert_eq!(check(&[("caFile", "-----BEGIN CERTIFICATE-----\n")], https), Ok(()));
        let openssh =
            "-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXktdjEAAAAABG5vbmUAAAAEbm9uZQAAAAAAAAAB\n";
        assert_eq!(check(&[("identity", openssh), ("known_hosts", "k")], ssh), Ok(()));
    }

    #[test]
    fn a_newline_at_the_end_is_not_part_of_a_token() {
        let url = RemoteUrl::parse("https://h.example/a", false).unwrap();
        let credentials = Credentials::from_secret(&secret(&[("bearerToken", "t0\r\n")])).unwrap();
        assert_eq!(credentials.authorization(&url).unwrap(), "Authorization: Bearer t0");
        let basic = Credentials { password: Some("p".to_owned()), ..Credentials::default() };
        assert_eq!(basic.authorization(&url).unwrap(), "Authorization: Basic Z2l0OnA=");
        assert!(basic.secrets(&url).contains(&"Z2l0OnA=".to_owned()));
    }

    #[test]
    fn debug_shows_no_value() {
        let credentials = Credentials {
            username: Some("hunter1".to_owned()),
            password: Some("hunter2".to_owned()),
            ..Credentials::default()
        };
        assert!(!format!("{credentials:?}").contains("hunter"));
    }
}
