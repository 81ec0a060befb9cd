//! Git over https and ssh: the right credentials get in, and every kind of wrong one is told apart.

use crate::support::daemon::LIMIT;
use crate::support::git::Repo;
use crate::support::git_https::{Access, GitServer, Mood};
use crate::support::sshd::Sshd;
use std::time::Instant;
use windlass::core::tree::Tree;
use windlass::source::{Credentials, Limits, Mirror, Poll, Reference, RemoteUrl, SourceError};

/// Longer than anything takes on a busy machine.
fn limits() -> Limits {
    Limits { listing: LIMIT, ..Limits::default() }
}

async fn poll(url: &str, credentials: &Credentials) -> Result<Poll, SourceError> {
    let cache = tempfile::tempdir().unwrap();
    let mirror = Mirror::open(cache.path(), RemoteUrl::parse(url, false)?)?;
    let result = mirror.poll(&Reference::Default, None, credentials, &limits()).await;
    if let Ok(poll) = &result {
        assert_eq!(
            mirror.tree(&poll.commit).unwrap().read("apps/shop/web.yaml", 100).unwrap(),
            b"kind: ConfigMap\n"
        );
    }
    let private =
        std::fs::read_dir(cache.path().read_dir().unwrap().next().unwrap().unwrap().path().join("private"));
    assert_eq!(private.map_or(0, Iterator::count), 0, "no key or configuration is left behind");
    result
}

fn basic(server: &GitServer, user: &str, password: &str) -> Credentials {
    Credentials {
        username: Some(user.to_owned()),
        password: Some(password.to_owned()),
        ca_certificate: Some(server.ca()),
        ..Credentials::default()
    }
}

fn bearer(server: &GitServer, token: &str) -> Credentials {
    Credentials {
        bearer_token: Some(token.to_owned()),
        ca_certificate: Some(server.ca()),
        ..Credentials::default()
    }
}

#[tokio::test]
async fn user_and_password_get_in() {
    let repo = Repo::new();
    let server = GitServer::start(repo.root(), Access::Basic("ada", "s3cret+/="));
    let found = poll(&server.url(Repo::NAME), &basic(&server, "ada", "s3cret+/=")).await.unwrap();
    assert_eq!(found.revision(), format!("main@sha1:{}", repo.head()));
}

#[tokio::test]
async fn a_bearer_token_gets_in() {
    let repo = Repo::new();
    let server = GitServer::start(repo.root(), Access::Bearer("t0ken"));
    let found = poll(&server.url(Repo::NAME), &bearer(&server, "t0ken")).await.unwrap();
    assert_eq!(found.commit.as_str(), repo.head());
}

#[tokio::test]
async fn wrong_credentials_are_told_apart_and_never_shown() {
    let repo = Repo::new();
    let server = GitServer::start(repo.root(), Access::Basic("ada", "right"));
    let url = server.url(Repo::NAME);
    let none = Credentials { ca_certificate: Some(server.ca()), ..Credentials::default() };
    for (credentials, hint) in [
        (basic(&server, "ada", "hunter2"), "`username` or `password` is wrong"),
        (bearer(&server, "hunter2"), "`bearerToken` is wrong"),
        (none, "name a Secret in secretRef"),
    ] {
        let error = poll(&url, &credentials).await.unwrap_err();
        assert!(matches!(error, SourceError::Unauthorized { .. }), "{error:?}");
        assert!(error.to_string().contains(hint), "{error}");
        assert!(!format!("{error} {error:?}").contains("hunter2"));
        assert!(!error.is_transient());
    }
}

#[tokio::test]
async fn a_password_in_the_url_is_refused_and_not_shown() {
    let error = poll("https://ada:hunter2@127.0.0.1:1/config", &Credentials::default()).await.unwrap_err();
    assert!(matches!(error, SourceError::PasswordInUrl { .. }));
    assert!(!format!("{error} {error:?}").contains("hunter2"));
}

#[tokio::test]
async fn a_certificate_of_an_unknown_authority_is_refused() {
    let repo = Repo::new();
    let server = GitServer::start(repo.root(), Access::Anyone);
    let stranger = GitServer::start(repo.root(), Access::Anyone);
    for credentials in [
        Credentials::default(),
        Credentials { ca_certificate: Some(stranger.ca()), ..Credentials::default() },
    ] {
        let error = poll(&server.url(Repo::NAME), &credentials).await.unwrap_err();
        assert!(matches!(error, SourceError::CertificateUntrusted { .. }), "{error:?}");
    }
    assert_eq!(server.requests(), Vec::<String>::new());
}

#[tokio::test]
async fn answers_of_a_server_are_told_apart() {
    let repo = Repo::new();
    let server = GitServer::start(repo.root(), Access::Anyone);
    let credentials = basic(&server, "ada", "right");
    let url = server.url(Repo::NAME);
    for (status, reason, transient) in [
        (403, "Forbidden", false),
        (404, "RepositoryNotFound", false),
        (429, "RemoteFailed", true),
        (500, "RemoteFailed", true),
        (503, "RemoteFailed", true),
    ] {
        server.set_mood(Mood::Status(status));
        let error = poll(&url, &credentials).await.unwrap_err();
        assert_eq!((error.reason(), error.is_transient()), (reason, transient), "{status}: {error}");
    }
    server.set_mood(Mood::Well);
    let error = poll(&server.url("none"), &credentials).await.unwrap_err();
    assert!(matches!(error, SourceError::RepositoryNotFound { .. }), "{error:?}");
}

#[tokio::test]
async fn a_remote_that_is_gone_is_told_apart() {
    let repo = Repo::new();
    let server = GitServer::start(repo.root(), Access::Anyone);
    let url = server.url(Repo::NAME);
    drop(server);
    let error = poll(&url, &Credentials::default()).await.unwrap_err();
    assert!(matches!(error, SourceError::Unreachable { .. }) && error.is_transient(), "{error:?}");
    let error = poll("https://host.invalid/config", &Credentials::default()).await.unwrap_err();
    assert!(matches!(error, SourceError::HostNotFound { .. }) && error.is_transient(), "{error:?}");
}

#[tokio::test]
async fn credentials_do_not_follow_a_redirection() {
    let repo = Repo::new();
    let thief = GitServer::start(repo.root(), Access::Anyone);
    let server = GitServer::start(repo.root(), Access::Anyone);
    server.set_mood(Mood::RedirectTo(thief.url("").trim_end_matches('/').to_owned()));
    let mut credentials = basic(&server, "ada", "right");
    credentials.ca_certificate = Some(server.ca() + &thief.ca());
    let error = poll(&server.url(Repo::NAME), &credentials).await.unwrap_err();
    assert!(error.to_string().contains(&format!("has moved to {}", thief.url(Repo::NAME))), "{error}");
    assert_eq!(thief.requests(), Vec::<String>::new());

    // Without credentials there is nothing to lose.
    credentials = Credentials { ca_certificate: credentials.ca_certificate, ..Credentials::default() };
    assert_eq!(poll(&server.url(Repo::NAME), &credentials).await.unwrap().commit.as_str(), repo.head());
}

#[tokio::test]
async fn nobody_reads_through_a_mirror_what_the_remote_would_not_show() {
    let repo = Repo::new();
    let server = GitServer::start(repo.root(), Access::Basic("ada", "right"));
    let cache = tempfile::tempdir().unwrap();
    let mirror =
        Mirror::open(cache.path(), RemoteUrl::parse(&server.url(Repo::NAME), false).unwrap()).unwrap();
    let reference = Reference::Commit(repo.head());
    let limits = limits();
    mirror.poll(&reference, None, &basic(&server, "ada", "right"), &limits).await.unwrap();
    let error = mirror.poll(&reference, None, &basic(&server, "eve", "wrong"), &limits).await.unwrap_err();
    assert!(matches!(error, SourceError::Unauthorized { .. }), "{error:?}");

    // Who was let in and follows a commit needs no remote any more.
    let before = server.requests().len();
    mirror.poll(&reference, None, &basic(&server, "ada", "right"), &limits).await.unwrap();
    assert_eq!(server.requests().len(), before);
}

#[tokio::test]
async fn an_ssh_key_gets_in() {
    let repo = Repo::new();
    let sshd = Sshd::start();
    let credentials = Credentials {
        ssh_identity: Some(sshd.identity().trim_end().replace('\n', "\r\n")),
        known_hosts: Some(sshd.known_hosts().trim_end().to_owned()),
        ..Credentials::default()
    };
    let started = Instant::now();
    let found = poll(&sshd.url(&repo.path()), &credentials).await.unwrap();
    assert_eq!(found.commit.as_str(), repo.head());
    assert!(started.elapsed() < LIMIT);
}

#[tokio::test]
async fn ssh_hosts_and_keys_are_checked_strictly() {
    let repo = Repo::new();
    let sshd = Sshd::start();
    let good = Credentials {
        ssh_identity: Some(sshd.identity()),
        known_hosts: Some(sshd.known_hosts()),
        ..Credentials::default()
    };
    let url = sshd.url(&repo.path());
    let unknown = Credentials { known_hosts: Some("other.example ssh-rsa AAAA".to_owned()), ..good.clone() };
    let changed = Credentials { known_hosts: Some(sshd.known_hosts_of_another()), ..good.clone() };
    let stranger = Credentials { ssh_identity: Some(sshd.identity_of_another()), ..good.clone() };
    let unreadable = Credentials {
        ssh_identity: Some("-----BEGIN PRIVATE KEY-----\nhunter2\n-----END PRIVATE KEY-----".to_owned()),
        ..good.clone()
    };
    let nothing = Credentials::default();
    for (credentials, reason) in [
        (&unknown, "HostKeyUnknown"),
        (&changed, "HostKeyChanged"),
        (&stranger, "Unauthorized"),
        (&unreadable, "Unauthorized"),
        (&nothing, "InvalidCredentials"),
    ] {
        let error = poll(&url, credentials).await.unwrap_err();
        assert_eq!(error.reason(), reason, "{error}");
        assert!(!error.is_transient() && !format!("{error:?}").contains("hunter2"));
    }
    let error = poll(&sshd.url(&repo.root().join("none")), &good).await.unwrap_err();
    assert!(matches!(error, SourceError::RepositoryNotFound { .. }), "{error:?}");
}
