//! A commit is read from Git's object store as it is: links, submodules, odd names and large files included.

use crate::support::daemon::LIMIT;
use crate::support::git::{Repo, git};
use std::fs;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::process::{Command, Stdio};
use windlass::core::tree::{EntryKind, Tree, TreeError};
use windlass::source::{Credentials, GitTree, Limits, Mirror, Reference, RemoteUrl, matching_directories};

async fn tree_of(repo: &Repo) -> (GitTree, tempfile::TempDir) {
    let cache = tempfile::tempdir().unwrap();
    let url = RemoteUrl::parse(&repo.path().to_string_lossy(), true).unwrap();
    let mirror = Mirror::open(cache.path(), url).unwrap();
    let limits = Limits { listing: LIMIT, ..Limits::default() };
    let poll = mirror.poll(&Reference::Default, None, &Credentials::default(), &limits).await.unwrap();
    (mirror.tree(&poll.commit).unwrap(), cache)
}

#[tokio::test]
async fn shows_what_was_committed_and_never_what_was_not() {
    let repo = Repo::new();
    repo.commit(&[("apps/web/a.yaml", "a"), ("apps/web.yaml", "b"), (".github/x", "c")]);
    symlink("../../etc/passwd", repo.path().join("apps/link")).unwrap();
    repo.git(&["update-index", "--add", "--cacheinfo", &format!("160000,{},vendor/sub", repo.head())]);
    repo.git(&["add", "apps/link"]);
    repo.git(&["commit", "--quiet", "--message", "odd things"]);
    fs::write(repo.path().join("apps/web.yaml"), "uncommitted").unwrap();
    fs::write(repo.path().join("apps/untracked.yaml"), "x").unwrap();

    let (tree, _cache) = tree_of(&repo).await;
    let shown: Vec<_> =
        tree.entries("apps").unwrap().into_iter().map(|entry| (entry.name, entry.kind)).collect();
    let expected = [
        ("link", EntryKind::Symlink),
        ("shop", EntryKind::Directory),
        ("web", EntryKind::Directory),
        ("web.yaml", EntryKind::File),
    ];
    assert_eq!(shown, expected.map(|(name, kind)| (name.to_owned(), kind)));
    assert_eq!(tree.read("apps/web.yaml", 1).unwrap(), b"b");
    assert_eq!(tree.read("apps/link", 100).unwrap(), b"../../etc/passwd");
    assert_eq!(tree.entry("vendor/sub").unwrap().unwrap().kind, EntryKind::Submodule);
    assert_eq!(tree.entry("apps/link/passwd").unwrap(), None);
    assert_eq!(tree.entry("").unwrap().unwrap().id, repo.git(&["rev-parse", "HEAD^{tree}"]));
    assert_eq!(tree.entry("apps/web").unwrap().unwrap().id, repo.git(&["rev-parse", "HEAD:apps/web"]));
    for path in ["none", "apps/none/x", "apps/web.yaml/x", "..", "../x", "apps//web", "/apps"] {
        assert_eq!(tree.entry(path).unwrap(), None, "{path}");
        assert_eq!(tree.read(path, 1), Err(TreeError::NotFound(path.to_owned())));
    }
    assert!(matches!(tree.read("apps", 1), Err(TreeError::WrongKind { .. })));
    assert!(matches!(tree.read("vendor/sub", 1), Err(TreeError::WrongKind { .. })));
    assert!(matches!(tree.entries("apps/web.yaml"), Err(TreeError::WrongKind { .. })));
    assert_eq!(matching_directories(&tree, "apps/*").unwrap(), ["apps/shop", "apps/web"]);
    assert_eq!(matching_directories(&tree, "*").unwrap(), ["apps", "vendor"]);
}

#[tokio::test]
async fn an_id_changes_only_with_the_content() {
    let repo = Repo::new();
    repo.commit(&[("apps/web/a.yaml", "a"), ("docs/x", "1")]);
    let (before, _one) = tree_of(&repo).await;
    repo.commit(&[("docs/x", "2")]);
    let (after, _two) = tree_of(&repo).await;
    assert_ne!(before.commit(), after.commit());
    assert_eq!(before.entry("apps").unwrap(), after.entry("apps").unwrap());
    assert_ne!(before.entry("docs").unwrap(), after.entry("docs").unwrap());
}

#[tokio::test]
async fn a_name_that_is_not_utf8_is_an_error_that_names_it() {
    let repo = Repo::new();
    let name = std::ffi::OsStr::from_bytes(b"caf\xe9.yaml");
    fs::write(repo.path().join("apps").join(name), "x").unwrap();
    repo.commit(&[]);
    let (tree, _cache) = tree_of(&repo).await;
    let error = tree.entries("apps").unwrap_err();
    assert_eq!(error, TreeError::NotUtf8 { dir: "apps".to_owned(), name: "caf\u{fffd}.yaml".to_owned() });
    // Other directories are not affected.
    assert_eq!(tree.entries("apps/shop").unwrap().len(), 1);
}

#[tokio::test]
async fn a_file_above_the_limit_is_refused_before_it_is_read() {
    let repo = Repo::new();
    let file = fs::File::create(repo.path().join("huge.yaml")).unwrap();
    file.set_len(100 << 20).unwrap();
    repo.commit(&[]);
    let (tree, _cache) = tree_of(&repo).await;
    let error = tree.read("huge.yaml", 10 << 20).unwrap_err();
    assert_eq!(error, TreeError::TooLarge { path: "huge.yaml".to_owned(), size: 100 << 20, limit: 10 << 20 });
    assert_eq!(tree.entries("").unwrap().len(), 2);
}

#[tokio::test]
async fn a_tree_made_by_hand_leads_nowhere() {
    for name in ["..", ".git", "a/b"] {
        let repo = Repo::new();
        let blob = repo.git(&["rev-parse", "HEAD:apps/shop/web.yaml"]);
        let mut raw = format!("100644 {name}\0").into_bytes();
        raw.extend((0..40).step_by(2).map(|at| u8::from_str_radix(&blob[at..at + 2], 16).unwrap()));
        let mut child = Command::new("git")
            .args(["hash-object", "-w", "-t", "tree", "--literally", "--stdin"])
            .current_dir(repo.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(&raw).unwrap();
        let id = String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap();
        let commit = repo.git(&["commit-tree", "-m", "by hand", id.trim()]);
        git(&repo.path(), &["update-ref", "refs/heads/main", &commit]);
        let (tree, _cache) = tree_of(&repo).await;
        assert!(matches!(tree.entries(""), Err(TreeError::Broken { .. })), "{name}");
    }
}
