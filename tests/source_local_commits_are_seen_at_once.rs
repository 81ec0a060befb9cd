//! A commit in a local repository is seen at once, whatever kind of repository it is; edits of files are not commits.

use crate::support::git::{Repo, git};
use std::path::Path;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;
use windlass::source::{
    Credentials, Limits, Mirror, Reference, RemoteUrl, SourceError, Watcher, watch_local,
};

/// Longer than anything here takes on a busy machine.
const BUSY: Duration = Duration::from_secs(180);

fn watch(path: &Path) -> (Watcher, Receiver<()>) {
    let (sender, receiver) = channel();
    let watcher = watch_local(path, move || {
        let _ = sender.send(());
    })
    .unwrap();
    (watcher, receiver)
}

/// Waits for one change, and then until there are no more.
fn changed(receiver: &Receiver<()>) -> bool {
    let first = receiver.recv_timeout(BUSY).is_ok();
    while receiver.recv_timeout(Duration::from_millis(400)).is_ok() {}
    first
}

async fn head(path: &Path) -> String {
    let cache = tempfile::tempdir().unwrap();
    let mirror =
        Mirror::open(cache.path(), RemoteUrl::parse(&path.to_string_lossy(), true).unwrap()).unwrap();
    let limits = Limits { listing: BUSY, ..Limits::default() };
    let poll = mirror.poll(&Reference::Default, None, &Credentials::default(), &limits).await;
    poll.unwrap().commit.to_string()
}

#[tokio::test]
async fn in_a_working_directory() {
    let repo = Repo::new();
    let (_watcher, receiver) = watch(&repo.path());
    let commit = repo.commit(&[("a", "1")]);
    assert!(changed(&receiver));
    assert_eq!(head(&repo.path()).await, commit);

    // Neither edits, nor the index, nor our own reading are changes. A new watcher has nothing left to tell of the commit.
    let (_watcher, receiver) = watch(&repo.path());
    std::fs::write(repo.path().join("a"), "2").unwrap();
    repo.git(&["add", "--all"]);
    repo.git(&["status"]);
    assert_eq!(head(&repo.path()).await, commit);
    assert!(receiver.recv_timeout(Duration::from_millis(500)).is_err());

    repo.git(&["checkout", "--quiet", "-b", "new/branch"]);
    assert!(changed(&receiver));
    repo.commit(&[("a", "3")]);
    assert!(changed(&receiver), "a directory below refs that is new is watched too");
    repo.git(&["pack-refs", "--all"]);
    assert!(changed(&receiver));
}

#[tokio::test]
async fn in_a_bare_repository_that_others_push_to() {
    let repo = Repo::new();
    let bare = repo.bare_copy("bare.git");
    let (_watcher, receiver) = watch(&bare);
    let commit = repo.commit(&[("a", "1")]);
    repo.git(&["push", "--quiet", &bare.to_string_lossy(), "main"]);
    assert!(changed(&receiver));
    assert_eq!(head(&bare).await, commit);
}

#[tokio::test]
async fn in_a_linked_worktree() {
    let repo = Repo::new();
    let linked = repo.root().join("linked");
    repo.git(&["worktree", "add", "--quiet", "-b", "side", &linked.to_string_lossy()]);
    let (_watcher, receiver) = watch(&linked);
    git(&linked, &["commit", "--quiet", "--allow-empty", "--message", "in the worktree"]);
    assert!(changed(&receiver));
    assert_eq!(head(&linked).await, git(&linked, &["rev-parse", "HEAD"]));
    git(&linked, &["checkout", "--quiet", "--detach"]);
    assert!(changed(&receiver));
}

#[test]
fn what_is_no_repository_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    for path in [dir.path().to_owned(), dir.path().join("none")] {
        let error = watch_local(&path, || {}).err().unwrap();
        assert!(matches!(error, SourceError::Watch { .. }), "{error:?}");
    }
}
