//! A branch, a tag, a range of versions or a commit is followed, and what happens to history is noticed.

use crate::support::daemon::LIMIT;
use crate::support::git::Repo;
use crate::support::git_https::{Access, GitServer};
use windlass::source::{
    CommitId, Credentials, History, Limits, Mirror, Poll, Reference, RemoteUrl, SourceError,
};

/// A listing may take as long as anything else on a busy machine.
fn limits() -> Limits {
    Limits { listing: LIMIT, ..Limits::default() }
}

struct Followed {
    repo: Repo,
    mirror: Mirror,
    _cache: tempfile::TempDir,
}

impl Followed {
    fn new(repo: Repo) -> Self {
        let cache = tempfile::tempdir().unwrap();
        let url = RemoteUrl::parse(&repo.path().to_string_lossy(), true).unwrap();
        Self { mirror: Mirror::open(cache.path(), url).unwrap(), repo, _cache: cache }
    }

    async fn poll(&self, reference: Reference, old: Option<&CommitId>) -> Result<Poll, SourceError> {
        self.mirror.poll(&reference, old, &Credentials::default(), &limits()).await
    }

    async fn branch(&self, name: &str) -> Result<Poll, SourceError> {
        self.poll(Reference::Branch(name.to_owned()), None).await
    }
}

#[tokio::test]
async fn each_kind_of_reference_is_found() {
    let it = Followed::new(Repo::new());
    let first = it.repo.head();
    it.repo.git(&["tag", "v1.2.0"]);
    let second = it.repo.commit(&[("a", "2")]);
    it.repo.git(&["tag", "-a", "v1.10.0", "-m", "annotated"]);
    it.repo.git(&["branch", "feature/x"]);
    let third = it.repo.commit(&[("a", "3")]);
    it.repo.git(&["tag", "v2.0.0"]);
    let text = |text: &str| text.to_owned();
    for (reference, name, commit) in [
        (Reference::Default, "main", &third),
        (Reference::Branch(text("main")), "main", &third),
        (Reference::Branch(text("feature/x")), "feature/x", &second),
        (Reference::Tag(text("v1.2.0")), "v1.2.0", &first),
        (Reference::Tag(text("v1.10.0")), "v1.10.0", &second),
        (Reference::Semver(text("1.x")), "v1.10.0", &second),
        (Reference::Semver(text(">=1.2 <1.10")), "v1.2.0", &first),
        (Reference::Commit(first.clone()), first.as_str(), &first),
    ] {
        let found = it.poll(reference.clone(), None).await.unwrap();
        assert_eq!((found.ref_name.as_str(), found.commit.as_str()), (name, commit.as_str()), "{reference}");
        assert_eq!(found.history, History::First);
    }
    let again = it.poll(Reference::Default, Some(&third.parse().unwrap())).await.unwrap();
    assert_eq!((again.fetched, again.history), (false, History::Same));
}

#[tokio::test]
async fn a_detached_or_switched_head_is_followed() {
    let it = Followed::new(Repo::new());
    it.repo.git(&["checkout", "--quiet", "-b", "other"]);
    assert_eq!(it.poll(Reference::Default, None).await.unwrap().ref_name, "other");
    it.repo.git(&["checkout", "--quiet", "--detach"]);
    let found = it.poll(Reference::Default, None).await.unwrap();
    assert_eq!(found.revision(), format!("HEAD@sha1:{}", it.repo.head()));
}

#[tokio::test]
async fn what_does_not_exist_is_named_with_what_does() {
    let it = Followed::new(Repo::new());
    it.repo.git(&["branch", "production"]);
    it.repo.git(&["tag", "v1.0.0"]);
    let error = it.branch("prodution").await.unwrap_err();
    assert!(matches!(error, SourceError::RefNotFound { .. }));
    assert!(error.to_string().ends_with("has no branch \"prodution\"; it has production, main"), "{error}");
    let error = it.poll(Reference::Tag("v1".to_owned()), None).await.unwrap_err();
    assert!(error.to_string().ends_with("has no tag \"v1\"; it has v1.0.0"), "{error}");
    let error = it.poll(Reference::Semver("2.x".to_owned()), None).await.unwrap_err();
    assert!(matches!(error, SourceError::NoVersion { .. }), "{error:?}");
    let error = it.poll(Reference::Commit("0".repeat(40)), None).await.unwrap_err();
    assert!(matches!(error, SourceError::CommitNotFound { .. }), "{error:?}");
    let error = it.poll(Reference::Commit("abc123".to_owned()), None).await.unwrap_err();
    assert!(matches!(error, SourceError::InvalidCommit(_)), "{error:?}");
}

#[tokio::test]
async fn an_empty_or_missing_repository_is_told_apart() {
    let it = Followed::new(Repo::empty());
    let error = it.poll(Reference::Default, None).await.unwrap_err();
    assert!(matches!(error, SourceError::Empty { .. }), "{error:?}");
    std::fs::remove_dir_all(it.repo.path()).unwrap();
    let error = it.poll(Reference::Default, None).await.unwrap_err();
    assert!(matches!(error, SourceError::RepositoryNotFound { .. }), "{error:?}");
}

#[tokio::test]
async fn a_repository_with_other_ids_is_refused() {
    let repo = Repo::empty();
    std::fs::remove_dir_all(repo.path().join(".git")).unwrap();
    repo.git(&["init", "--quiet", "--object-format=sha256"]);
    repo.commit(&[("a", "1")]);
    let error = Followed::new(repo).poll(Reference::Default, None).await.unwrap_err();
    assert!(matches!(error, SourceError::ObjectFormat { .. }), "{error:?}");
}

#[tokio::test]
async fn a_repository_of_another_user_is_read() {
    let it = Followed::new(Repo::new());
    // Only root can give a directory away; for others there is nothing to try.
    let chown = std::process::Command::new("chown").args(["-R", "12345:12345"]).arg(it.repo.path()).output();
    if chown.is_ok_and(|output| output.status.success()) {
        assert!(it.poll(Reference::Default, None).await.unwrap().fetched);
    }
}

#[tokio::test]
async fn a_tag_that_points_to_no_commit_is_an_error_and_does_no_harm() {
    let it = Followed::new(Repo::new());
    let blob = it.repo.git(&["rev-parse", "HEAD:apps/shop/web.yaml"]);
    it.repo.git(&["tag", "content", &blob]);
    for _ in 0..2 {
        let error = it.poll(Reference::Tag("content".to_owned()), None).await.unwrap_err();
        assert!(matches!(error, SourceError::NotACommit { .. }), "{error:?}");
    }
    assert!(it.poll(Reference::Default, None).await.is_ok());
}

#[tokio::test]
async fn a_deleted_branch_is_reported_as_deleted_and_its_commit_stays() {
    let it = Followed::new(Repo::new());
    it.repo.git(&["branch", "live"]);
    let commit = it.branch("live").await.unwrap().commit;
    it.repo.git(&["branch", "--quiet", "-D", "live"]);
    let error = it.branch("live").await.unwrap_err();
    assert!(matches!(error, SourceError::RefDeleted { .. }), "{error:?}");
    assert!(error.to_string().contains(commit.short()), "{error}");
    assert!(it.mirror.tree(&commit).is_ok());
}

#[tokio::test]
async fn rewritten_history_is_noticed_and_ordinary_history_is_not() {
    let it = Followed::new(Repo::new());
    it.repo.commit(&[("a", "1")]);
    let first = it.branch("main").await.unwrap().commit;

    for n in 0..3 {
        it.repo.commit(&[("b", &n.to_string())]);
    }
    let main = || Reference::Branch("main".to_owned());
    let next = it.poll(main(), Some(&first)).await.unwrap();
    assert_eq!((next.history, next.rewritten()), (History::Descends, false));

    it.repo.rewrite(&[("b", "other")]);
    let forced = it.poll(main(), Some(&next.commit)).await.unwrap();
    assert_eq!((forced.history, forced.rewritten()), (History::Rewritten, true));

    // Back to an earlier commit, which the mirror has.
    it.repo.git(&["reset", "--quiet", "--hard", first.as_str()]);
    let back = it.poll(main(), Some(&forced.commit)).await.unwrap();
    assert_eq!((back.commit, back.fetched, back.history), (first.clone(), false, History::Rewritten));

    // More commits than are fetched: nothing certain can be said, and nothing false is.
    for n in 0..60 {
        it.repo.commit(&[("c", &n.to_string())]);
    }
    let far = it.poll(main(), Some(&first)).await.unwrap();
    assert_eq!(far.history, History::Unknown);
}

#[tokio::test]
async fn a_merge_of_an_old_branch_descends() {
    let it = Followed::new(Repo::new());
    it.repo.git(&["checkout", "--quiet", "-b", "side"]);
    it.repo.commit(&[("side", "1")]);
    it.repo.git(&["checkout", "--quiet", "main"]);
    it.repo.commit(&[("main", "1")]);
    let first = it.branch("main").await.unwrap().commit;
    it.repo.git(&["merge", "--quiet", "--no-ff", "--no-edit", "side"]);
    let merged = it.poll(Reference::Branch("main".to_owned()), Some(&first)).await.unwrap();
    assert_eq!(merged.history, History::Descends);
    let info = it.mirror.commit(&merged.commit).unwrap();
    assert_eq!((info.author_name.as_str(), info.author_email.as_str()), ("Ada", "ada@example.com"));
    assert!(info.subject.starts_with("Merge branch"), "{}", info.subject);
    assert!((jiff::Timestamp::now() - info.time).get_seconds() < 600);
}

#[tokio::test]
async fn a_first_fetch_costs_one_commit_and_an_unchanged_poll_one_listing() {
    let repo = Repo::new();
    for n in 0..5 {
        repo.commit(&[("a", &n.to_string())]);
    }
    let server = GitServer::start(repo.root(), Access::Anyone);
    let cache = tempfile::tempdir().unwrap();
    let credentials = Credentials { ca_certificate: Some(server.ca()), ..Credentials::default() };
    let mirror =
        Mirror::open(cache.path(), RemoteUrl::parse(&server.url(Repo::NAME), false).unwrap()).unwrap();
    let limits = limits();
    let first = mirror.poll(&Reference::Default, None, &credentials, &limits).await.unwrap();
    let parent = repo.git(&["rev-parse", "HEAD^"]).parse().unwrap();
    assert!(matches!(mirror.commit(&parent), Err(SourceError::NotMirrored { .. })));

    let before = server.requests().len();
    let again = mirror.poll(&Reference::Default, Some(&first.commit), &credentials, &limits).await.unwrap();
    assert!(!again.fetched);
    assert_eq!(server.requests()[before..], ["GET /config/info/refs", "POST /config/git-upload-pack"]);

    assert!(mirror.fetch_commit(&parent, &credentials, &limits).await.unwrap());
    assert!(!mirror.fetch_commit(&parent, &credentials, &limits).await.unwrap());
    assert!(mirror.tree(&parent).is_ok());
}
