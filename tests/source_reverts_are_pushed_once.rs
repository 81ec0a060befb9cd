//! A revert is pushed once, on top of what the branch has become, and aside where that does not fit.

use crate::support::daemon::LIMIT;
use crate::support::git::{Repo, git};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use windlass::source::{Credentials, Limits, Mirror, RemoteUrl, RevertError, RevertOrder};

struct Served {
    repo: Repo,
    bare: PathBuf,
    caches: Vec<tempfile::TempDir>,
}

impl Served {
    fn new(repo: Repo) -> Self {
        let bare = repo.bare_copy("served.git");
        Served { repo, bare, caches: Vec::new() }
    }

    fn push(&self) {
        self.repo.git(&["push", "--quiet", "--force", &self.bare.to_string_lossy(), "HEAD:refs/heads/main"]);
    }

    /// A daemon's mirror, with a cache of its own.
    fn mirror(&mut self) -> Mirror {
        let cache = tempfile::tempdir().unwrap();
        let url = RemoteUrl::parse(&self.bare.to_string_lossy(), true).unwrap();
        let mirror = Mirror::open(cache.path(), url).unwrap();
        self.caches.push(cache);
        mirror
    }
}

fn order(good: &str, bad: &str, time: i64) -> RevertOrder {
    RevertOrder {
        branch: "main".into(),
        good: good.parse().unwrap(),
        bad: bad.parse().unwrap(),
        side_branch: format!("windlass/revert-shop-{}", &bad[..12]),
        message: "Revert it\n\nBecause.\n\nWindlass-Delivery: a/shop\n".into(),
        name: "Windlass".into(),
        email: "windlass@example.com".into(),
        time,
        matters: Arc::new(|_, _| true),
    }
}

async fn revert(mirror: &Mirror, order: &RevertOrder) -> Result<(String, String), RevertError> {
    // Longer than anything takes on a busy machine.
    let limits = Limits { listing: LIMIT, ..Limits::default() };
    let done = mirror.revert(order, &Credentials::default(), &limits).await?;
    Ok((done.branch, done.commit.to_string()))
}

fn count(bare: &Path, branch: &str) -> usize {
    git(bare, &["rev-list", "--count", branch]).parse().unwrap()
}

#[tokio::test]
async fn two_daemons_at_once_make_one() {
    let repo = Repo::new();
    let good = repo.head();
    let bad = repo.commit(&[("apps/shop/web.yaml", "kind: Secret\n")]);
    let mut served = Served::new(repo);
    let (one, other) = (served.mirror(), served.mirror());
    // Not even their clocks agree.
    let orders = (order(&good, &bad, 1_700_000_000), order(&good, &bad, 1_700_000_007));
    let (a, b) = tokio::join!(revert(&one, &orders.0), revert(&other, &orders.1));
    assert_eq!(a.unwrap(), b.unwrap());
    assert_eq!(count(&served.bare, "main"), 3);
    assert_eq!(git(&served.bare, &["show", "main:apps/shop/web.yaml"]), "kind: ConfigMap");
    // Nor does a third that comes later, with an empty cache.
    let third = served.mirror();
    assert_eq!(revert(&third, &orders.0).await.unwrap().0, "main");
    assert_eq!(count(&served.bare, "main"), 3);
    assert_eq!(git(&served.bare, &["branch", "--list", "windlass/*"]), "");
}

#[tokio::test]
async fn what_came_on_top_stays_and_what_does_not_fit_goes_aside() {
    let repo = Repo::new();
    let good = repo.head();
    let bad = repo.commit(&[("apps/shop/web.yaml", "kind: Secret\n")]);
    repo.commit(&[("other/file", "1\n")]);
    let mut served = Served::new(repo);
    let mirror = served.mirror();
    let (branch, _) = revert(&mirror, &order(&good, &bad, 1_700_000_000)).await.unwrap();
    assert_eq!(branch, "main");
    assert_eq!(git(&served.bare, &["show", "main:other/file"]), "1");
    assert_eq!(git(&served.bare, &["show", "main:apps/shop/web.yaml"]), "kind: ConfigMap");

    served.repo.git(&["reset", "--quiet", "--hard", &bad]);
    served.repo.commit(&[("apps/shop/web.yaml", "kind: Service\n")]);
    served.push();
    let (branch, commit) = revert(&mirror, &order(&good, &bad, 1_700_000_000)).await.unwrap();
    assert_eq!(branch, format!("windlass/revert-shop-{}", &bad[..12]));
    assert_eq!(git(&served.bare, &["rev-parse", &format!("{commit}^")]), bad);
    assert_eq!(git(&served.bare, &["show", "main:apps/shop/web.yaml"]), "kind: Service");
}

#[tokio::test]
async fn a_merge_is_taken_back_as_a_whole_and_history_longer_than_the_mirror_is_fetched() {
    let repo = Repo::new();
    let good = repo.head();
    repo.git(&["checkout", "--quiet", "-b", "feature"]);
    repo.commit(&[("apps/shop/web.yaml", "kind: Secret\n")]);
    repo.commit(&[("apps/shop/more.yaml", "kind: Pod\n")]);
    repo.git(&["checkout", "--quiet", "main"]);
    repo.git(&["merge", "--quiet", "--no-ff", "-m", "Merge feature", "feature"]);
    let bad = repo.head();
    for at in 0..60 {
        repo.commit(&[("other/file", &format!("{at}\n"))]);
    }
    let mut served = Served::new(repo);
    let mirror = served.mirror();
    let (branch, _) = revert(&mirror, &order(&good, &bad, 1_700_000_000)).await.unwrap();
    assert_eq!(branch, "main");
    let files = git(&served.bare, &["ls-tree", "-r", "--name-only", "main"]);
    assert_eq!(files, "apps/shop/web.yaml\nother/file");
    assert_eq!(git(&served.bare, &["show", "main:apps/shop/web.yaml"]), "kind: ConfigMap");
}

#[tokio::test]
async fn what_is_not_on_a_branch_is_not_reverted() {
    let repo = Repo::new();
    let good = repo.head();
    let bad = repo.commit(&[("apps/shop/web.yaml", "kind: Secret\n")]);
    let mut served = Served::new(repo);
    let mirror = served.mirror();
    let tag = RevertOrder { branch: "v1".into(), ..order(&good, &bad, 1) };
    assert!(matches!(revert(&mirror, &tag).await, Err(RevertError::NoBranch { .. })));
    served.repo.git(&["reset", "--quiet", "--hard", &good]);
    served.repo.commit(&[("other/file", "1\n")]);
    served.push();
    assert!(matches!(revert(&mirror, &order(&good, &bad, 1)).await, Err(RevertError::NotThere { .. })));
    assert_eq!(count(&served.bare, "main"), 2);
}
