//! A remote that hangs costs its own repository a time-out and nobody else anything.

use crate::support::git::Repo;
use crate::support::git_https::{Access, GitServer, Mood};
use std::io::{Read, Write};
use std::net::TcpListener;
use std::time::{Duration, Instant};
use windlass::source::{Credentials, Limits, Mirror, Reference, RemoteUrl, SourceError};

/// A listener that never answers, or a byte a second. Its threads end with the test's process.
fn silent(drips: bool) -> String {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            std::thread::spawn(move || {
                let _ = stream.read(&mut [0; 4096]);
                for byte in
                    b"HTTP/1.1 200 OK\r\nContent-Type: application/x-git-upload-pack-advertisement\r\n\r\n"
                {
                    if drips && stream.write_all(&[*byte]).is_err() {
                        return;
                    }
                    std::thread::sleep(Duration::from_secs(1));
                }
            });
        }
    });
    address.to_string()
}

/// A time-out of a second or two, on a busy machine.
const BUSY: Duration = Duration::from_secs(70);

const SHORT: Duration = Duration::from_millis(1500);

fn short() -> Limits {
    Limits { listing: SHORT, fetch: SHORT, ..Limits::default() }
}

/// For what is to end well, or to be given up by others.
fn patient() -> Limits {
    let long = Duration::from_secs(600);
    Limits { listing: long, fetch: long, ..Limits::default() }
}

#[tokio::test]
async fn ends_with_a_time_out_whether_it_is_silent_or_drips() {
    for drips in [false, true] {
        let cache = tempfile::tempdir().unwrap();
        let url = format!("http://{}/config", silent(drips));
        let mirror = Mirror::open(cache.path(), RemoteUrl::parse(&url, false).unwrap()).unwrap();
        let started = Instant::now();
        let error =
            mirror.poll(&Reference::Default, None, &Credentials::default(), &short()).await.unwrap_err();
        assert!(matches!(error, SourceError::TimedOut { .. }) && error.is_transient(), "{error:?}");
        assert!(error.to_string().contains("within 1.5 s"), "{error}");
        assert!(started.elapsed() < BUSY, "{:?}", started.elapsed());
    }
}

#[tokio::test]
async fn an_ssh_host_that_is_silent_ends_with_a_time_out() {
    let cache = tempfile::tempdir().unwrap();
    let key = "-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXktdjEAAAAABG5vbmUAAAAEbm9uZQAAAAAAAAAB\n";
    let credentials = Credentials {
        ssh_identity: Some(key.to_owned()),
        known_hosts: Some("h ssh-rsa AAAA".to_owned()),
        ..Credentials::default()
    };
    let url = RemoteUrl::parse(&format!("ssh://git@{}/config", silent(false)), false).unwrap();
    let mirror = Mirror::open(cache.path(), url).unwrap();
    let started = Instant::now();
    let error = mirror.poll(&Reference::Default, None, &credentials, &short()).await.unwrap_err();
    assert!(error.is_transient(), "{error:?}");
    assert!(started.elapsed() < BUSY, "{:?}", started.elapsed());
}

#[tokio::test]
async fn holds_up_no_other_repository() {
    let repo = Repo::new();
    let cache = tempfile::tempdir().unwrap();
    let open = |url: &str| Mirror::open(cache.path(), RemoteUrl::parse(url, true).unwrap()).unwrap();
    let (hanging, well) =
        (open(&format!("http://{}/config", silent(false))), open(&repo.path().to_string_lossy()));
    let limits = patient();
    let credentials = Credentials::default();
    tokio::select! {
        result = hanging.poll(&Reference::Default, None, &credentials, &limits) => panic!("{result:?}"),
        result = well.poll(&Reference::Default, None, &credentials, &limits) => {
            assert_eq!(result.unwrap().commit.as_str(), repo.head());
        }
    }
}

#[tokio::test]
async fn a_fetch_that_hangs_or_is_given_up_leaves_a_mirror_that_works() {
    let repo = Repo::new();
    let server = GitServer::start(repo.root(), Access::Anyone);
    let credentials = Credentials { ca_certificate: Some(server.ca()), ..Credentials::default() };
    let cache = tempfile::tempdir().unwrap();
    let mirror =
        Mirror::open(cache.path(), RemoteUrl::parse(&server.url(Repo::NAME), false).unwrap()).unwrap();
    let limits = patient();
    let first = mirror.poll(&Reference::Default, None, &credentials, &limits).await.unwrap().commit;
    let second = repo.commit(&[("apps/shop/web.yaml", "kind: Secret\n")]);

    server.set_mood(Mood::NeverSends);
    let hurried = Limits { fetch: SHORT, ..patient() };
    let error = mirror.poll(&Reference::Default, Some(&first), &credentials, &hurried).await.unwrap_err();
    assert!(error.to_string().contains("did not finish sending a commit within 1.5 s"), "{error}");
    // A caller that goes away in the middle.
    let poll = mirror.poll(&Reference::Default, Some(&first), &credentials, &limits);
    assert!(tokio::time::timeout(Duration::from_secs(1), poll).await.is_err());
    assert!(mirror.commit(&first).is_ok(), "what was there can be read meanwhile");

    server.set_mood(Mood::Well);
    let found = mirror.poll(&Reference::Default, Some(&first), &credentials, &limits).await.unwrap();
    assert_eq!((found.commit.as_str(), found.fetched, found.rewritten()), (second.as_str(), true, false));
}

#[tokio::test]
async fn no_secret_stands_on_a_command_line() {
    let repo = Repo::new();
    let server = GitServer::start(repo.root(), Access::Basic("ada", "pa55-of-ada"));
    server.set_mood(Mood::NeverSends);
    let credentials = Credentials {
        username: Some("ada".to_owned()),
        password: Some("pa55-of-ada".to_owned()),
        ca_certificate: Some(server.ca()),
        ..Credentials::default()
    };
    let cache = tempfile::tempdir().unwrap();
    let url = server.url(Repo::NAME);
    let mirror = Mirror::open(cache.path(), RemoteUrl::parse(&url, false).unwrap()).unwrap();
    let limits = patient();
    let look = async {
        // Two listing requests, and the one that is never answered.
        while server.requests().len() < 5 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let lines: Vec<String> = std::fs::read_dir("/proc")
            .unwrap()
            .flatten()
            .filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok())
            .map(|line| String::from_utf8_lossy(&line).replace('\0', " "))
            .filter(|line| line.contains(&url))
            .collect();
        assert!(lines.iter().any(|line| line.contains("fetch")), "{lines:?}");
        for line in lines {
            assert!(!line.contains("pa55-of-ada") && !line.contains("YWRhOnBhNTUtb2YtYWRh"), "{line}");
        }
    };
    tokio::select! {
        result = mirror.poll(&Reference::Default, None, &credentials, &limits) => panic!("{result:?}"),
        result = tokio::time::timeout(BUSY, look) => result.unwrap(),
    }
}
