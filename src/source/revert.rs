//! Taking a commit back in Git: a commit on top of the branch that undoes it, pushed without force. The push is the only
//! thing that the `git` binary does; the commit is made in a repository of its own beside the mirror, which borrows the
//! mirror's objects and is removed afterwards, for the mirror holds nothing but what the remote sent.
//!
//! Never twice: the branch's history is looked through for our trailer first, and the remote's branches for the one that
//! we would make. Two that do this at the same time both build on the same commit, and the remote takes one of them.

use super::commit::CommitId;
use super::credentials::Credentials;
use super::error::SourceError;
use super::git_tree::GitTree;
use super::mirror::{HISTORY, Mirror};
use super::transport::{Depth, Limits, Listed, PushOutcome};
use git2::{Commit, Oid, Repository, RepositoryInitOptions, Signature, Sort};
use std::path::Path;
use std::sync::Arc;

/// The trailer that says which commit a revert takes back.
pub const TRAILER: &str = "Windlass-Revert";
/// How often a branch that moved meanwhile is built upon anew.
const TRIES: usize = 3;
/// Commits that are looked through for the trailer.
const MOST_COMMITS: usize = 10_000;

/// Whether a commit matters, from its tree and its parent's.
pub type Matters = Arc<dyn Fn(&GitTree, &GitTree) -> bool + Send + Sync>;

/// What is to be taken back.
#[derive(Clone)]
pub struct RevertOrder {
    /// The branch that is followed.
    pub branch: String,
    /// The commit that was good: what came after it is to blame.
    pub good: CommitId,
    /// The commit that failed.
    pub bad: CommitId,
    /// Where the revert goes when it cannot go to the branch.
    pub side_branch: String,
    /// What the commit says, without the trailer that names the commit.
    pub message: String,
    /// Who makes it.
    pub name: String,
    /// An address of theirs.
    pub email: String,
    /// When it is made, in seconds since 1970.
    pub time: i64,
    /// Which commits between the two are to blame; the last one where none is.
    pub matters: Matters,
}

/// Where a commit is taken back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RevertedAt {
    /// The branch.
    pub branch: String,
    /// The commit there.
    pub commit: CommitId,
}

/// Why a commit is not taken back.
#[derive(Debug, thiserror::Error)]
pub enum RevertError {
    /// The remote could not be asked, or said no before it came to pushing.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// What is followed is no branch.
    #[error(
        "{name} is no branch of {url}, so there is nothing to push a revert to; revert the commit by hand"
    )]
    NoBranch {
        /// The repository.
        url: String,
        /// What is followed.
        name: String,
    },
    /// The branch does not hold the commit any more.
    #[error("branch {branch} does not hold {commit} any more; there is nothing to revert")]
    NotThere {
        /// The branch.
        branch: String,
        /// The commit.
        commit: String,
    },
    /// No right to push.
    #[error(
        "{url} does not let these credentials push: {said}; give them write access, or revert the commit by hand"
    )]
    Forbidden {
        /// The repository.
        url: String,
        /// What the server said.
        said: String,
    },
    /// The server takes the revert neither on the branch nor on one of its own.
    #[error("the server refuses a push to {branch}: {said}; revert the commit by hand")]
    Refused {
        /// The branch that was tried last.
        branch: String,
        /// What the server said.
        said: String,
    },
    /// The branch moved on each time.
    #[error("branch {branch} moved on while the revert was made; it is made again")]
    Moved {
        /// The branch.
        branch: String,
    },
    /// The commit could not be made.
    #[error("the revert could not be made: {0}")]
    Made(String),
}

impl RevertError {
    /// For programs.
    pub fn reason(&self) -> &'static str {
        match self {
            RevertError::Forbidden { .. } => "RevertForbidden",
            RevertError::Refused { .. } => "RevertRefused",
            RevertError::NoBranch { .. } | RevertError::NotThere { .. } => "RevertNotPossible",
            RevertError::Source(_) | RevertError::Moved { .. } | RevertError::Made(_) => "RevertFailed",
        }
    }

    /// Whether it may work soon without anybody doing anything.
    pub fn is_transient(&self) -> bool {
        matches!(self, RevertError::Source(_) | RevertError::Moved { .. })
    }
}

/// What is to be done after a look at the branch.
enum Plan {
    Done(RevertedAt),
    /// On top of the branch.
    OnTip(Oid),
    /// The branch moved on in a way that the revert does not fit to: for people to merge.
    Aside(Oid),
}

impl Mirror {
    /// Sees to it that the remote has a commit that takes another one back.
    pub async fn revert(
        &self,
        order: &RevertOrder,
        credentials: &Credentials,
        limits: &Limits,
    ) -> Result<RevertedAt, RevertError> {
        for _ in 0..TRIES {
            if let Some(done) = self.try_revert(order, credentials, limits).await? {
                return Ok(done);
            }
        }
        Err(RevertError::Moved { branch: order.branch.clone() })
    }

    /// One look and one push. `None` when the branch moved meanwhile.
    async fn try_revert(
        &self,
        order: &RevertOrder,
        credentials: &Credentials,
        limits: &Limits,
    ) -> Result<Option<RevertedAt>, RevertError> {
        let remote = self.remote(credentials, limits)?;
        let mut turn = self.turn(limits).await?;
        let mut store = self.usable_store(&mut turn).await?;
        let listed = remote.list(Listed::Branches).await?;
        if let Some(side) = listed.named("refs/heads/", &order.side_branch) {
            return Ok(Some(RevertedAt { branch: side.name, commit: side.commit }));
        }
        let Some(wanted) = listed.named("refs/heads/", &order.branch) else {
            return Err(RevertError::NoBranch { url: self.url().to_string(), name: order.branch.clone() });
        };
        (store, _, _) = self.obtain(&mut turn, &remote, store, &wanted, Depth::Last(HISTORY)).await?;
        let mut tip = wanted.commit.clone();
        for depth in [Depth::Last(HISTORY), Depth::Everything] {
            let (path, from, to) = (store.path().to_owned(), order.good.clone(), tip.clone());
            if blocking(move || reaches(&path, &from, &to)).await? {
                break;
            }
            // It was fetched with less history than that.
            tip = self.deepen(&mut turn, &remote, &store, &wanted.remote_ref, depth).await?;
        }
        let scratch = tempfile::Builder::new()
            .prefix("new-")
            .tempdir_in(self.directory())
            .map_err(|error| RevertError::Made(error.to_string()))?;
        let repository = scratch.path().join("revert.git");
        let (order_, mirror, objects, at, on) =
            (order.clone(), self.clone(), store.path().to_owned(), repository.clone(), tip.clone());
        let plan = blocking(move || plan(&mirror, &order_, &objects, &at, &on)).await??;
        let (mut branch, commit) = match plan {
            Plan::Done(done) => return Ok(Some(done)),
            Plan::OnTip(commit) => (&order.branch, commit),
            Plan::Aside(commit) => (&order.side_branch, commit),
        };
        loop {
            match remote.push(&repository, &commit.to_string(), branch).await? {
                PushOutcome::Done => {
                    return Ok(Some(RevertedAt { branch: branch.clone(), commit: commit.into() }));
                }
                PushOutcome::Moved => return Ok(None),
                PushOutcome::Refused(_) if branch != &order.side_branch => branch = &order.side_branch,
                PushOutcome::Refused(said) => {
                    return Err(RevertError::Refused { branch: branch.clone(), said });
                }
                PushOutcome::Forbidden(said) => {
                    return Err(RevertError::Forbidden { url: self.url().to_string(), said });
                }
            }
        }
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, RevertError> {
    tokio::task::spawn_blocking(work).await.map_err(|error| RevertError::Made(error.to_string()))
}

/// Whether the mirror holds the history between two commits.
fn reaches(path: &Path, old: &CommitId, new: &CommitId) -> bool {
    let Ok(repository) = Repository::open_bare(path) else { return false };
    old == new || repository.graph_descendant_of(new.oid(), old.oid()).unwrap_or(false)
}

/// Makes the commit, in a repository at `at` that borrows the mirror's objects.
fn plan(
    mirror: &Mirror,
    order: &RevertOrder,
    objects: &Path,
    at: &Path,
    tip: &CommitId,
) -> Result<Plan, RevertError> {
    let made = |error: git2::Error| RevertError::Made(error.message().to_owned());
    let io = |error: std::io::Error| RevertError::Made(error.to_string());
    let mut options = RepositoryInitOptions::new();
    options.bare(true).external_template(false).initial_head("windlass");
    Repository::init_opts(at, &options).map_err(made)?;
    let list = format!("{}\n", objects.join("objects").display());
    std::fs::create_dir_all(at.join("objects/info")).map_err(io)?;
    std::fs::write(at.join("objects/info/alternates"), list).map_err(io)?;
    // Where history is cut, it is cut for us, too.
    match std::fs::copy(objects.join("shallow"), at.join("shallow")) {
        Ok(_) => {}
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(io(error)),
    }
    let repository = Repository::open_bare(at).map_err(made)?;

    let mut walk = repository.revwalk().map_err(made)?;
    walk.set_sorting(Sort::TOPOLOGICAL).map_err(made)?;
    walk.push(tip.oid()).map_err(made)?;
    let good_is_known = repository.find_commit(order.good.oid()).is_ok();
    if good_is_known {
        walk.hide(order.good.oid()).map_err(made)?;
    }
    let mut holds_bad = false;
    for id in walk.take(MOST_COMMITS) {
        // Beyond what the mirror has.
        let Ok(commit) = id.and_then(|id| repository.find_commit(id)) else { break };
        holds_bad |= commit.id() == order.bad.oid();
        if takes_back(&commit, &order.bad) {
            let commit = commit.id().into();
            return Ok(Plan::Done(RevertedAt { branch: order.branch.clone(), commit }));
        }
    }
    if !holds_bad {
        return Err(RevertError::NotThere { branch: order.branch.clone(), commit: order.bad.to_string() });
    }
    let to_blame = to_blame(mirror, &repository, order, good_is_known).map_err(made)?;
    let tip = repository.find_commit(tip.oid()).map_err(made)?;
    if let Some(commit) = commit_on(&repository, &tip, &to_blame, order).map_err(made)? {
        // Somebody took it back already: there is nothing left to do.
        return Ok(match commit {
            Some(commit) => Plan::OnTip(commit),
            None => Plan::Done(RevertedAt { branch: order.branch.clone(), commit: tip.id().into() }),
        });
    }
    let bad = repository.find_commit(order.bad.oid()).map_err(made)?;
    match commit_on(&repository, &bad, &to_blame, order).map_err(made)? {
        Some(Some(commit)) => Ok(Plan::Aside(commit)),
        _ => Err(RevertError::Made(format!("{} does not come out of the history that followed", order.bad))),
    }
}

/// Whether a commit says that it takes another one back.
fn takes_back(commit: &Commit<'_>, bad: &CommitId) -> bool {
    let text = String::from_utf8_lossy(commit.message_raw_bytes()).into_owned();
    let trailer = format!("{TRAILER}: {bad}");
    text.lines().any(|line| line.trim() == trailer)
}

/// The commits of the main line after the good one that matter, the newest first.
fn to_blame<'r>(
    mirror: &Mirror,
    repository: &'r Repository,
    order: &RevertOrder,
    good_is_known: bool,
) -> Result<Vec<Commit<'r>>, git2::Error> {
    let bad = repository.find_commit(order.bad.oid())?;
    let mut walk = repository.revwalk()?;
    walk.simplify_first_parent()?;
    walk.set_sorting(Sort::TOPOLOGICAL)?;
    walk.push(bad.id())?;
    if good_is_known {
        walk.hide(order.good.oid())?;
    }
    let mut all = Vec::new();
    if good_is_known {
        for id in walk.take(MOST_COMMITS) {
            let commit = repository.find_commit(id?)?;
            let Ok(parent) = commit.parent(0) else { break };
            let trees = (mirror.tree(&commit.id().into()), mirror.tree(&parent.id().into()));
            if let (Ok(new), Ok(old)) = trees
                && (order.matters)(&new, &old)
            {
                all.push(commit);
            }
        }
    }
    if all.is_empty() {
        all.push(bad);
    }
    Ok(all)
}

/// The commit on top of `tip` that undoes the others, the newest first. The outer `None`: they do not come out cleanly;
/// the inner: nothing is left of them.
#[allow(clippy::option_option)]
fn commit_on(
    repository: &Repository,
    tip: &Commit<'_>,
    to_blame: &[Commit<'_>],
    order: &RevertOrder,
) -> Result<Option<Option<Oid>>, git2::Error> {
    let mut tree = tip.tree()?;
    for commit in to_blame {
        let mut index = repository.merge_trees(&commit.tree()?, &tree, &commit.parent(0)?.tree()?, None)?;
        if index.has_conflicts() {
            return Ok(None);
        }
        let id = index.write_tree_to(repository)?;
        tree = repository.find_tree(id)?;
    }
    if tree.id() == tip.tree_id() {
        return Ok(Some(None));
    }
    let who = Signature::new(&order.name, &order.email, &git2::Time::new(order.time, 0))?;
    let message = format!("{}\n{TRAILER}: {}\n", order.message.trim_end(), order.bad);
    repository.commit(None, &who, &who, &message, &tree, &[tip]).map(|id| Some(Some(id)))
}
