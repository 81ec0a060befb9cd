//! A bare mirror of one remote repository: polled, kept over restarts, made anew when it is damaged.
//!
//! How much history it holds: a first fetch brings one commit, later ones the last fifty, so that the cost of a
//! repository is that of its files and not of its age. What a branch moved away from stays for an hour. Commits that
//! somebody needs for longer (to roll back to) are held by refs of ours ([`Mirror::keep`]), whatever happens to the branch; a commit that was lost with the cache is
//! fetched again by its id ([`Mirror::fetch_commit`]).

use super::commit::{CommitId, CommitInfo};
use super::credentials::Credentials;
use super::error::SourceError;
use super::git_tree::GitTree;
use super::reference::{Advertised, Reference, Wanted};
use super::store::{Descent, EVERYTHING, Found, Presence, Store, tip_name};
use super::transport::{Depth, FetchFailure, Limits, Listed, Remote, refspec_of};
use super::url::RemoteUrl;
use crate::lock::lock;
use std::collections::{HashMap, HashSet};
use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// How many commits a fetch asks for when the mirror followed the ref before: enough to see whether the new one
/// descends from the old one.
pub(super) const HISTORY: u32 = 50;
/// For how long the name of a remote's default branch is believed, and that it let somebody in. A listing that
/// includes HEAD makes the remote list everything.
const BELIEVED: Duration = Duration::from_secs(5 * 60);

/// A bare mirror of one remote repository. Clones share it. Two that are opened for one URL and cache, in one process
/// or in several, take turns.
#[derive(Clone)]
pub struct Mirror {
    inner: Arc<Inner>,
}

struct Inner {
    url: RemoteUrl,
    directory: PathBuf,
    turn: tokio::sync::Mutex<Memory>,
    store: Mutex<Option<Arc<Store>>>,
}

/// What is known as long as the process lives. Losing it costs time only.
struct Memory {
    /// Set while a git process may write; still set at the next turn, that process was killed.
    untidy: bool,
    /// Commits that were looked through.
    complete: HashSet<CommitId>,
    /// Refs that were polled: their tips stay.
    followed: HashSet<String>,
    default_branch: Option<(String, Instant)>,
    /// Credentials (as keyed digests) that the remote let in, and when.
    admitted: HashMap<String, Instant>,
    digest_key: [u8; 16],
}

/// A turn with the mirror: nobody else, in this process or another, has one at the same time.
pub(super) struct Turn<'a> {
    memory: tokio::sync::MutexGuard<'a, Memory>,
    /// Shared with work that goes on after its caller went away: the turn ends with the last of them.
    lock: Arc<File>,
}

/// What a poll found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Poll {
    /// What people call the ref: `main`, `v1.2.0`, `HEAD` when that is detached, or the id of a commit.
    pub ref_name: String,
    /// The commit, which is in the mirror with all its files.
    pub commit: CommitId,
    /// True when it had to be fetched.
    pub fetched: bool,
    /// How it is related to the commit before.
    pub history: History,
}

impl Poll {
    /// `main@sha1:<commit>`.
    pub fn revision(&self) -> String {
        format!("{}@sha1:{}", self.ref_name, self.commit)
    }

    /// True when the commit before is certainly no ancestor: the branch was reset, or its history rewritten.
    pub fn rewritten(&self) -> bool {
        self.history == History::Rewritten
    }
}

/// How a commit is related to the one before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum History {
    /// There was none before.
    First,
    /// It is the same.
    Same,
    /// It descends from the one before.
    Descends,
    /// The one before is not among its ancestors.
    Rewritten,
    /// More lies between them than the mirror holds, or the one before is not in the mirror any more.
    Unknown,
}

impl Mirror {
    /// The mirror of a URL below a cache directory, which is made if it does not exist. Asks no remote.
    pub fn open(cache_dir: &Path, url: RemoteUrl) -> Result<Self, SourceError> {
        let directory = cache_dir.join(url.key());
        let unwritable = |source| SourceError::CacheNotWritable { path: directory.clone(), source };
        fs::create_dir_all(&directory).map_err(unwritable)?;
        let directory = directory.canonicalize().map_err(unwritable)?;
        lock_file(&directory)?;
        let memory = Memory {
            untidy: true,
            complete: HashSet::new(),
            followed: HashSet::new(),
            default_branch: None,
            admitted: HashMap::new(),
            digest_key: fastrand::u128(..).to_ne_bytes(),
        };
        Ok(Self {
            inner: Arc::new(Inner {
                url,
                directory,
                turn: tokio::sync::Mutex::new(memory),
                store: Mutex::new(None),
            }),
        })
    }

    /// Removes the mirrors below a cache directory that belong to none of these URLs, unless another process works on
    /// them. Returns how many were removed.
    pub fn remove_unused(cache_dir: &Path, in_use: &[RemoteUrl]) -> Result<usize, SourceError> {
        let unwritable = |source| SourceError::CacheNotWritable { path: cache_dir.to_owned(), source };
        let in_use: HashSet<String> = in_use.iter().map(RemoteUrl::key).collect();
        let mut removed = 0;
        for entry in fs::read_dir(cache_dir).map_err(unwritable)?.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let is_mirror = name.len() == 32 && name.bytes().all(|byte| byte.is_ascii_hexdigit());
            if !is_mirror || in_use.contains(&name) || !entry.path().join("lock").is_file() {
                continue;
            }
            let lock = lock_file(&entry.path())?;
            if lock.try_lock().is_ok() {
                fs::remove_dir_all(entry.path()).map_err(unwritable)?;
                removed += 1;
            }
        }
        Ok(removed)
    }

    /// The URL that this mirrors.
    pub fn url(&self) -> &RemoteUrl {
        &self.inner.url
    }

    /// Asks the remote what `reference` points to, and fetches that if it is not here. `old` is the commit that the
    /// caller knows, to tell whether history was rewritten.
    ///
    /// One process when nothing changed. A remote is asked with these credentials even if the mirror has the commit,
    /// so that nobody reads through a mirror what the remote would not show them.
    pub async fn poll(
        &self,
        reference: &Reference,
        old: Option<&CommitId>,
        credentials: &Credentials,
        limits: &Limits,
    ) -> Result<Poll, SourceError> {
        let remote = self.remote(credentials, limits)?;
        let mut turn = self.turn(limits).await?;
        let store = self.usable_store(&mut turn).await?;
        let wanted = self.resolve(&mut turn, &remote, &store, reference).await?;
        let depth = if old.is_some() { Depth::Last(HISTORY) } else { Depth::Last(1) };
        let (store, commit, fetched) = self.obtain(&mut turn, &remote, store, &wanted, depth).await?;
        turn.memory.followed.insert(wanted.remote_ref.clone());

        let history = match old {
            None => History::First,
            Some(old) if *old == commit => History::Same,
            Some(old) => {
                let (store, old, new) = (store.clone(), old.clone(), commit.clone());
                match blocking(move || store.descent(&old, &new)).await {
                    Some(Descent::Descends) => History::Descends,
                    Some(Descent::Rewritten) => History::Rewritten,
                    Some(Descent::Unknown) | None => History::Unknown,
                }
            }
        };
        // Packing takes a while: a new commit is not kept waiting for it unless it is long overdue.
        let clutter = store.clutter();
        if clutter > 1 || clutter == 1 && !fetched {
            self.collect_garbage(&mut turn, &remote, &store).await;
        }
        Ok(Poll { ref_name: wanted.name, commit, fetched, history })
    }

    /// Makes sure that a commit is in the mirror with all its files. True when it had to be fetched: after a lost
    /// cache, the commit to roll back to.
    pub async fn fetch_commit(
        &self,
        id: &CommitId,
        credentials: &Credentials,
        limits: &Limits,
    ) -> Result<bool, SourceError> {
        let remote = self.remote(credentials, limits)?;
        let mut turn = self.turn(limits).await?;
        let store = self.usable_store(&mut turn).await?;
        let wanted = self.resolve(&mut turn, &remote, &store, &Reference::Commit(id.to_string())).await?;
        let (_, _, fetched) = self.obtain(&mut turn, &remote, store, &wanted, Depth::Last(1)).await?;
        turn.memory.followed.insert(wanted.remote_ref);
        Ok(fetched)
    }

    /// Keeps a commit under a name of the caller's, whatever happens to the branch that it came from. A name that is
    /// kept already moves.
    pub fn keep(&self, name: &str, commit: &CommitId) -> Result<(), SourceError> {
        let store = self.store()?;
        store.info(commit).map_err(|error| self.read_error(&store, commit, &error))?;
        store.keep(name, commit).map_err(|error| self.write_error(&error))
    }

    /// Keeps what stands under a name no longer. A name that is not kept is no error.
    pub fn forget(&self, name: &str) -> Result<(), SourceError> {
        self.store()?.forget(name).map_err(|error| self.write_error(&error))
    }

    /// What is kept, by name.
    pub fn kept(&self) -> Result<Vec<(String, CommitId)>, SourceError> {
        self.store()?.kept().map_err(|error| self.write_error(&error))
    }

    /// What people are told about a commit. Blocks for a moment; the first read of a process goes through the whole
    /// mirror once, unless a poll did that before.
    pub fn commit(&self, id: &CommitId) -> Result<CommitInfo, SourceError> {
        let store = self.store()?;
        store.info(id).map_err(|error| self.read_error(&store, id, &error))
    }

    /// The files of a commit. Blocks as [`Mirror::commit`] does, and so do its reads.
    pub fn tree(&self, id: &CommitId) -> Result<GitTree, SourceError> {
        let store = self.store()?;
        GitTree::new(store.clone(), id).map_err(|error| self.read_error(&store, id, &error))
    }

    pub(super) fn remote<'a>(
        &'a self,
        credentials: &'a Credentials,
        limits: &'a Limits,
    ) -> Result<Remote<'a>, SourceError> {
        let url = &self.inner.url;
        credentials.check(url).map_err(|source| SourceError::Credentials { url: url.to_string(), source })?;
        Ok(Remote { url, credentials, limits, directory: &self.inner.directory })
    }

    /// Waits for our turn: first in this process, then among processes.
    pub(super) async fn turn(&self, limits: &Limits) -> Result<Turn<'_>, SourceError> {
        let mut memory = self.inner.turn.lock().await;
        let file = lock_file(&self.inner.directory)?;
        let started = Instant::now();
        let longest = limits.listing + limits.fetch + limits.maintenance;
        loop {
            match file.try_lock() {
                Ok(()) => break,
                Err(TryLockError::Error(source)) => {
                    return Err(SourceError::CacheNotWritable { path: self.inner.directory.clone(), source });
                }
                Err(TryLockError::WouldBlock) if started.elapsed() > longest => {
                    return Err(SourceError::Busy {
                        path: self.inner.directory.clone(),
                        waited: started.elapsed(),
                    });
                }
                Err(TryLockError::WouldBlock) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
        let lock = Arc::new(file);
        if memory.untidy {
            let directory = self.inner.directory.clone();
            let held = lock.clone();
            blocking(move || {
                Store::tidy(&directory);
                drop(held);
            })
            .await;
            memory.untidy = false;
        }
        Ok(Turn { memory, lock })
    }

    /// The repository, made or made anew where needed.
    pub(super) async fn usable_store(&self, turn: &mut Turn<'_>) -> Result<Arc<Store>, SourceError> {
        let known = self.opened();
        match known {
            Some(store) if store.is_damaged() => {
                return self.remake(turn, "an object could not be read").await;
            }
            // Somebody may have emptied the cache below us.
            Some(store) if store.path().join("objects").is_dir() => return Ok(store),
            _ => {}
        }
        let (directory, url) = (self.inner.directory.clone(), self.inner.url.to_string());
        match blocking(move || Store::find(&directory, &url)).await {
            Some(Found::Healthy(store)) => Ok(self.set_opened(store)),
            Some(Found::Damaged(detail)) => self.remake(turn, &detail).await,
            Some(Found::Nothing) | None => self.make(turn).await,
        }
    }

    async fn make(&self, turn: &mut Turn<'_>) -> Result<Arc<Store>, SourceError> {
        turn.memory.complete.clear();
        let (directory, url) = (self.inner.directory.clone(), self.inner.url.to_string());
        let held = turn.lock.clone();
        let made = blocking(move || {
            let made = Store::create(&directory, &url);
            drop(held);
            made
        })
        .await;
        match made.unwrap_or_else(|| Err(std::io::Error::other("interrupted"))) {
            Ok(store) => Ok(self.set_opened(store)),
            Err(source) => Err(SourceError::CacheNotWritable { path: self.inner.directory.clone(), source }),
        }
    }

    /// Makes the mirror anew. What was kept is fetched again by who needs it: the remote still has what matters.
    async fn remake(&self, turn: &mut Turn<'_>, detail: &str) -> Result<Arc<Store>, SourceError> {
        tracing::warn!(url = %self.inner.url, detail, "the mirror is damaged and is made anew");
        *self.slot() = None;
        let directory = self.inner.directory.clone();
        let held = turn.lock.clone();
        let discarded = blocking(move || {
            let discarded = Store::discard(&directory);
            drop(held);
            discarded
        });
        if let Some(Err(source)) = discarded.await {
            return Err(SourceError::CacheNotWritable { path: self.inner.directory.clone(), source });
        }
        self.make(turn).await
    }

    /// What `reference` points to at the remote.
    async fn resolve(
        &self,
        turn: &mut Turn<'_>,
        remote: &Remote<'_>,
        store: &Arc<Store>,
        reference: &Reference,
    ) -> Result<Wanted, SourceError> {
        let url = &self.inner.url;
        let wanted = match reference {
            Reference::Default => self.resolve_default(turn, remote).await?,
            Reference::Branch(name) => {
                let listed = remote.list(Listed::Branches).await?;
                named(&listed, "branch", name, url, store)?
            }
            Reference::Tag(name) => {
                let listed = remote.list(Listed::Tags).await?;
                named(&listed, "tag", name, url, store)?
            }
            Reference::Semver(range) => remote.list(Listed::Tags).await?.highest(range, url)?,
            Reference::Commit(id) => {
                let commit: CommitId = id.parse()?;
                if !turn.memory.admits(remote.credentials) {
                    remote.list(Listed::Head).await?;
                }
                Wanted { name: commit.to_string(), remote_ref: commit.to_string(), commit }
            }
        };
        turn.memory.admit(remote.credentials);
        Ok(wanted)
    }

    async fn resolve_default(&self, turn: &mut Turn<'_>, remote: &Remote<'_>) -> Result<Wanted, SourceError> {
        // A local listing is cheap, and there a switch of branches should show at once.
        if self.inner.url.is_local().is_none()
            && let Some((branch, asked)) = &turn.memory.default_branch
            && asked.elapsed() < BELIEVED
            && let Some(wanted) = remote.list(Listed::Branches).await?.named("refs/heads/", branch)
        {
            return Ok(wanted);
        }
        let wanted = remote.list(Listed::Head).await?.default_branch(&self.inner.url)?;
        turn.memory.default_branch =
            wanted.remote_ref.starts_with("refs/heads/").then(|| (wanted.name.clone(), Instant::now()));
        Ok(wanted)
    }

    /// Gets a commit into the mirror, with a new mirror where the old one turns out to be damaged. Returns the commit
    /// that came: a branch may have moved on since it was listed.
    pub(super) async fn obtain(
        &self,
        turn: &mut Turn<'_>,
        remote: &Remote<'_>,
        mut store: Arc<Store>,
        wanted: &Wanted,
        depth: Depth,
    ) -> Result<(Arc<Store>, CommitId, bool), SourceError> {
        match self.look_through(turn, &store, &wanted.commit).await {
            Presence::Complete => match store.set_tip(&wanted.remote_ref, &wanted.commit) {
                Ok(()) => return Ok((store, wanted.commit.clone(), false)),
                Err(error) => store = self.remake(turn, error.message()).await?,
            },
            Presence::Absent => {}
            Presence::Damaged(detail) => store = self.remake(turn, &detail).await?,
        }
        let mut damage = match self.fetch(turn, remote, &store, wanted, depth).await? {
            Ok(commit) => return Ok((store, commit, true)),
            Err(damage) => damage,
        };
        store = self.remake(turn, &damage).await?;
        damage = match self.fetch(turn, remote, &store, wanted, depth).await? {
            Ok(commit) => return Ok((store, commit, true)),
            Err(damage) => damage,
        };
        store.mark_damaged();
        Err(SourceError::Damaged {
            url: self.inner.url.to_string(),
            path: self.inner.directory.clone(),
            detail: damage,
        })
    }

    /// Fetches more of the history of a branch that is in the mirror. Returns its tip, which may have moved.
    pub(super) async fn deepen(
        &self,
        turn: &mut Turn<'_>,
        remote: &Remote<'_>,
        store: &Arc<Store>,
        remote_ref: &str,
        depth: Depth,
    ) -> Result<CommitId, SourceError> {
        turn.memory.untidy = true;
        let refspec = format!("+{remote_ref}:{}", tip_name(remote_ref));
        let url = self.inner.url.to_string();
        let failed =
            |detail: String| SourceError::Git { url: url.clone(), what: "fetching its history", detail };
        match remote.fetch(store.path(), &[refspec], depth).await {
            Ok(()) => {}
            Err(FetchFailure::Other(error)) => return Err(error),
            Err(FetchFailure::Damage(detail)) => return Err(failed(detail)),
            Err(_) => return Err(failed(format!("it does not send more of {remote_ref}"))),
        }
        turn.memory.untidy = false;
        match store.tip(remote_ref) {
            Ok(Some(commit)) => Ok(commit),
            Ok(None) => Err(failed("a fetched ref is not there".to_owned())),
            Err(error) => Err(failed(error.message().to_owned())),
        }
    }

    /// Where the mirror stands.
    pub(super) fn directory(&self) -> &Path {
        &self.inner.directory
    }

    /// One fetch. The inner error is damage that a new mirror may mend.
    async fn fetch(
        &self,
        turn: &mut Turn<'_>,
        remote: &Remote<'_>,
        store: &Arc<Store>,
        wanted: &Wanted,
        depth: Depth,
    ) -> Result<Result<CommitId, String>, SourceError> {
        turn.memory.untidy = true;
        if let Err(error) = store.hold_recent(&wanted.remote_ref) {
            return Ok(Err(error.message().to_owned()));
        }
        let by_id = wanted.remote_ref == wanted.commit.as_str();
        let tip = tip_name(&wanted.remote_ref);
        let refspec =
            if by_id { refspec_of(&wanted.commit, &tip) } else { format!("+{}:{tip}", wanted.remote_ref) };
        let mut result = remote.fetch(store.path(), &[refspec], depth).await;
        if let Err(FetchFailure::DepthRefused) = result {
            let refspec = format!("+{}:{tip}", wanted.remote_ref);
            result = remote.fetch(store.path(), &[refspec], Depth::Everything).await;
        }
        if let Err(FetchFailure::IdsRefused) = result {
            let all = ["heads", "tags"].map(|kind| format!("+refs/{kind}/*:{EVERYTHING}{kind}/*"));
            result = remote.fetch(store.path(), &all, Depth::Everything).await;
            if result.is_ok() && store.presence(&wanted.commit) == Presence::Absent {
                result = Err(FetchFailure::NoSuchObject);
            }
            if result.is_ok() {
                store
                    .set_tip(&wanted.remote_ref, &wanted.commit)
                    .map_err(|error| self.write_error(&error))?;
            }
        }
        let url = self.inner.url.to_string();
        match result {
            Ok(()) => {}
            Err(FetchFailure::Damage(detail)) => return Ok(Err(detail)),
            Err(FetchFailure::Other(error)) => return Err(error),
            Err(FetchFailure::RefGone) => {
                let last =
                    store.tip(&wanted.remote_ref).ok().flatten().unwrap_or_else(|| wanted.commit.clone());
                let kind = if wanted.remote_ref.starts_with("refs/tags/") { "tag" } else { "branch" };
                let last = last.short().to_owned();
                return Err(SourceError::RefDeleted {
                    url,
                    kind,
                    name: wanted.name.clone(),
                    last,
                    near: Vec::new(),
                });
            }
            Err(FetchFailure::NoSuchObject | FetchFailure::IdsRefused | FetchFailure::DepthRefused) => {
                return Err(SourceError::CommitNotFound { url, id: wanted.commit.to_string() });
            }
        }
        turn.memory.untidy = false;
        let commit = match store.tip(&wanted.remote_ref) {
            Ok(Some(commit)) => commit,
            Err(error) if matches!(error.code(), git2::ErrorCode::Peel | git2::ErrorCode::InvalidSpec) => {
                store.forget_tip(&wanted.remote_ref).map_err(|error| self.write_error(&error))?;
                return Err(SourceError::NotACommit { url, name: wanted.name.clone() });
            }
            Ok(None) => return Ok(Err("a fetched ref is not there".to_owned())),
            Err(error) => return Ok(Err(error.message().to_owned())),
        };
        match self.look_through(turn, store, &commit).await {
            Presence::Complete => Ok(Ok(commit)),
            Presence::Absent => Ok(Err(format!("{commit} was fetched and is not there"))),
            Presence::Damaged(detail) => Ok(Err(detail)),
        }
    }

    /// Whether a commit is here with everything below it. Looked at once for each commit and process; what breaks
    /// later shows when it is read.
    async fn look_through(&self, turn: &mut Turn<'_>, store: &Arc<Store>, commit: &CommitId) -> Presence {
        if turn.memory.complete.contains(commit) {
            return Presence::Complete;
        }
        let (reader, id) = (store.clone(), commit.clone());
        let presence = blocking(move || reader.presence(&id)).await.unwrap_or(Presence::Absent);
        if presence == Presence::Complete {
            turn.memory.complete.insert(commit.clone());
        }
        presence
    }

    /// Packs the mirror. A failure costs disk space only, and is tried again at a later poll.
    async fn collect_garbage(&self, turn: &mut Turn<'_>, remote: &Remote<'_>, store: &Arc<Store>) {
        turn.memory.untidy = true;
        let _ = store.forget_all_but(&turn.memory.followed);
        match remote.collect_garbage(store.path()).await {
            Ok(()) => turn.memory.untidy = false,
            Err(error) => tracing::warn!(url = %self.inner.url, %error, "the mirror could not be tidied up"),
        }
        // Objects that nobody held may be gone, and packs were replaced.
        turn.memory.complete.clear();
        *self.slot() = None;
        let _ = self.usable_store(turn).await;
    }

    /// The repository for reading. Opens what is there; a damaged or missing one is left to the next poll.
    fn store(&self) -> Result<Arc<Store>, SourceError> {
        if let Some(store) = self.opened() {
            return Ok(store);
        }
        match Store::find(&self.inner.directory, &self.inner.url.to_string()) {
            Found::Healthy(store) => Ok(self.set_opened(store)),
            Found::Damaged(detail) => Err(SourceError::Damaged {
                url: self.inner.url.to_string(),
                path: self.inner.directory.clone(),
                detail,
            }),
            Found::Nothing => Err(SourceError::Damaged {
                url: self.inner.url.to_string(),
                path: self.inner.directory.clone(),
                detail: "nothing was fetched yet".to_owned(),
            }),
        }
    }

    fn slot(&self) -> std::sync::MutexGuard<'_, Option<Arc<Store>>> {
        lock(&self.inner.store)
    }

    fn opened(&self) -> Option<Arc<Store>> {
        self.slot().clone()
    }

    fn set_opened(&self, store: Store) -> Arc<Store> {
        self.slot().insert(Arc::new(store)).clone()
    }

    fn read_error(&self, store: &Store, commit: &CommitId, error: &git2::Error) -> SourceError {
        let url = self.inner.url.to_string();
        if error.code() == git2::ErrorCode::NotFound && store.presence(commit) == Presence::Absent {
            return SourceError::NotMirrored { url, id: commit.to_string() };
        }
        store.mark_damaged();
        SourceError::Damaged { url, path: self.inner.directory.clone(), detail: error.message().to_owned() }
    }

    fn write_error(&self, error: &git2::Error) -> SourceError {
        SourceError::CacheNotWritable {
            path: self.inner.directory.clone(),
            source: std::io::Error::other(error.message().to_owned()),
        }
    }
}

impl Memory {
    fn admits(&self, credentials: &Credentials) -> bool {
        let admitted = self.admitted.get(&credentials.fingerprint(&self.digest_key));
        admitted.is_some_and(|when| when.elapsed() < BELIEVED)
    }

    fn admit(&mut self, credentials: &Credentials) {
        self.admitted.retain(|_, when| when.elapsed() < BELIEVED);
        self.admitted.insert(credentials.fingerprint(&self.digest_key), Instant::now());
    }
}

/// A branch or tag in a listing. One that is not there and was there before was deleted.
fn named(
    listed: &Advertised,
    kind: &'static str,
    name: &str,
    url: &RemoteUrl,
    store: &Store,
) -> Result<Wanted, SourceError> {
    let prefix = if kind == "tag" { "refs/tags/" } else { "refs/heads/" };
    if let Some(wanted) = listed.named(prefix, name) {
        return Ok(wanted);
    }
    let (url, name, near) = (url.to_string(), name.to_owned(), listed.near(prefix, name));
    Err(match store.tip(&format!("{prefix}{name}")) {
        Ok(Some(last)) => SourceError::RefDeleted { url, kind, name, last: last.short().to_owned(), near },
        _ => SourceError::RefNotFound { url, kind, name, near },
    })
}

/// The lock file of a mirror. Somebody may have emptied the cache since the mirror was opened.
fn lock_file(directory: &Path) -> Result<File, SourceError> {
    let path = directory.join("lock");
    fs::create_dir_all(directory)
        .map_err(|source| SourceError::CacheNotWritable { path: directory.to_owned(), source })?;
    File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .map_err(|source| SourceError::CacheNotWritable { path, source })
}

/// Runs what blocks where blocking is allowed. `None` only while the runtime shuts down.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    tokio::task::spawn_blocking(work).await.ok()
}
