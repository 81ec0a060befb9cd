//! The bare repository on disk that a mirror keeps: made, inspected for damage, read. Nothing here talks to a remote.

use super::commit::{CommitId, CommitInfo};
use super::git_tree::LargeTrees;
use crate::lock::lock;
use git2::{ObjectType, Oid, Repository, RepositoryInitOptions};
use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard};

/// The repository in the directory of a mirror.
const REPOSITORY: &str = "repo.git";
/// Written last when a repository is made: without it the repository is half-made. Holds what it is a mirror of.
const MARKER: &str = "windlass-mirror";
/// Changes when mirrors of older versions cannot be used any more.
const FORMAT: &str = "1";
/// Where what was last seen of a remote's ref is stored.
const TIPS: &str = "refs/windlass/tip/";
/// Where commits are kept that somebody still needs.
const KEPT: &str = "refs/windlass/keep/";
/// Where everything that a remote has is put when there is no other way to get one commit.
pub(super) const EVERYTHING: &str = "refs/windlass/all/";
/// Where a commit stays for a while after its tip has moved on, because somebody may be reading it.
const RECENT: &str = "refs/windlass/recent/";
/// For how long, in seconds.
const RECENT_SECONDS: u64 = 3600;
/// Packs above which the repository is packed anew.
const MANY_PACKS: usize = 20;
/// Commits that are looked at to find out whether one descends from another.
const MOST_ANCESTORS: usize = 20_000;
/// How wrong clocks of committers may be.
const CLOCK_SKEW_SECONDS: i64 = 24 * 3600;

/// An open repository. Reads are short, so one lock for all readers does.
pub(super) struct Store {
    path: PathBuf,
    repository: Mutex<Repository>,
    damaged: AtomicBool,
    large: Mutex<LargeTrees>,
}

/// What was found where the repository should be.
pub(super) enum Found {
    Nothing,
    Damaged(String),
    Healthy(Store),
}

/// Whether a commit can be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Presence {
    /// With everything below it.
    Complete,
    /// The commit is not here.
    Absent,
    /// The commit is here, and something below it is not or cannot be read.
    Damaged(String),
}

/// How two commits are related, as far as the mirror knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Descent {
    Descends,
    Rewritten,
    Unknown,
}

impl Store {
    /// Opens what stands in the directory of a mirror, after a look at whether it is whole: configuration, HEAD, and
    /// the root tree of every commit that a ref of ours holds.
    pub(super) fn find(directory: &Path, url: &str) -> Found {
        let path = directory.join(REPOSITORY);
        if !path.exists() {
            return Found::Nothing;
        }
        match Self::open(path, url) {
            Ok(store) => Found::Healthy(store),
            Err(damage) => Found::Damaged(damage),
        }
    }

    fn open(path: PathBuf, url: &str) -> Result<Self, String> {
        let marker = fs::read_to_string(path.join(MARKER)).map_err(|error| format!("{MARKER}: {error}"))?;
        if marker != marker_text(url) {
            return Err(format!("{MARKER} is of another repository or version"));
        }
        let head = fs::read_to_string(path.join("HEAD")).map_err(|error| format!("HEAD: {error}"))?;
        if !head.starts_with("ref: refs/") {
            return Err("HEAD: unreadable".to_owned());
        }
        if !path.join("objects").is_dir() {
            return Err("objects: no directory".to_owned());
        }
        shallow_commits(&path)?;
        if let Some(loose) = loose_object(&path) {
            // No fetch of ours leaves one, and libgit2 reads one that was cut short in an endless loop.
            return Err(format!("{loose}: no part of a pack"));
        }
        damaged_pack(&path.join("objects/pack")).map_or(Ok(()), Err)?;
        if let Some(garbled) = garbled_ref(&path.join("refs")) {
            // libgit2 passes over such a ref when it lists them.
            return Err(format!("{}: unreadable", garbled.display()));
        }
        let repository = Repository::open_bare(&path).map_err(|error| error.message().to_owned())?;
        let store = Self {
            path,
            repository: Mutex::new(repository),
            damaged: AtomicBool::new(false),
            large: Mutex::default(),
        };
        for (name, commit) in store.references("refs/windlass/").map_err(|error| format!("refs: {error}"))? {
            let whole = store
                .with(|repository| repository.find_reference(&name)?.peel_to_commit()?.tree().map(|_| ()));
            whole.map_err(|error| format!("{name} ({commit}): {}", error.message()))?;
        }
        Ok(store)
    }

    /// Makes an empty repository. It appears at once or not at all.
    pub(super) fn create(directory: &Path, url: &str) -> io::Result<Self> {
        let failed = |error: git2::Error| io::Error::other(error.message().to_owned());
        let fresh = tempfile::Builder::new().prefix("new-").tempdir_in(directory)?;
        let mut options = RepositoryInitOptions::new();
        options.bare(true).external_template(false).initial_head("windlass");
        Repository::init_opts(fresh.path(), &options).map_err(failed)?;
        fs::write(fresh.path().join(MARKER), marker_text(url))?;
        let path = directory.join(REPOSITORY);
        fs::rename(fresh.keep(), &path)?;
        let repository = Repository::open_bare(&path).map_err(failed)?;
        Ok(Self {
            path,
            repository: Mutex::new(repository),
            damaged: AtomicBool::new(false),
            large: Mutex::default(),
        })
    }

    /// Takes a repository out of the way. Those who read in it go on as far as its files are already open.
    pub(super) fn discard(directory: &Path) -> io::Result<()> {
        let grave = tempfile::Builder::new().prefix("old-").tempdir_in(directory)?;
        fs::rename(directory.join(REPOSITORY), grave.path().join(REPOSITORY))?;
        grave.close()
    }

    /// Removes what killed processes left: lock files that would block the next one, half-written packs, private
    /// directories. Only for who holds the mirror's lock.
    pub(super) fn tidy(directory: &Path) {
        let path = directory.join(REPOSITORY);
        remove_in(&directory.join(super::transport::PRIVATE), |_| true);
        remove_in(directory, |name| name.starts_with("new-") || name.starts_with("old-"));
        remove_in(&path, |name| name.ends_with(".lock") || name == "gc.pid" || name.starts_with("shallow_"));
        remove_locks_below(&path.join("refs"));
        remove_in(&path.join("objects/pack"), |name| {
            // A fetch marks its pack with `.keep` until the refs are written; a killed one leaves it unpackable.
            name.starts_with("tmp_") || name.starts_with(".tmp-") || name.ends_with(".keep")
        });
        remove_in(&path.join("objects/info"), |name| name.ends_with(".lock"));
        remove_in(&path.join("objects"), |name| name.starts_with("tmp_") || name.starts_with("incoming-"));
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Remembers that something here could not be read, so that the next poll makes the mirror anew.
    pub(super) fn mark_damaged(&self) {
        self.damaged.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_damaged(&self) -> bool {
        self.damaged.load(Ordering::Relaxed)
    }

    pub(super) fn with<T>(&self, read: impl FnOnce(&Repository) -> T) -> T {
        read(&self.lock())
    }

    /// The entries of large directories that were read lately.
    pub(super) fn large_trees(&self) -> MutexGuard<'_, LargeTrees> {
        lock(&self.large)
    }

    fn lock(&self) -> MutexGuard<'_, Repository> {
        // A reader that panicked has changed nothing.
        lock(&self.repository)
    }

    /// Looks at every tree below a commit, and for every blob whether it is there.
    pub(super) fn presence(&self, commit: &CommitId) -> Presence {
        // Opened for this alone: readers do not wait, and the trees do not stay in libgit2's cache.
        let repository = match Repository::open_bare(&self.path) {
            Ok(repository) => repository,
            Err(error) => return Presence::Damaged(error.message().to_owned()),
        };
        let odb = match repository.odb() {
            Ok(odb) => odb,
            Err(error) => return Presence::Damaged(error.message().to_owned()),
        };
        match odb.read_header(commit.oid()) {
            Ok((_, ObjectType::Commit)) => {}
            // A tag may point to a blob. That is here, and no commit.
            Ok(_) => return Presence::Absent,
            Err(error) if error.code() == git2::ErrorCode::NotFound => return Presence::Absent,
            Err(error) => return Presence::Damaged(format!("{commit}: {}", error.message())),
        }
        let damaged = |what: &dyn std::fmt::Display| Presence::Damaged(format!("{what} of {commit}"));
        let root = match repository.find_commit(commit.oid()) {
            Ok(found) => found.tree_id(),
            Err(error) => return damaged(&error.message()),
        };
        let mut seen = HashSet::from([root]);
        let mut trees = vec![root];
        while let Some(id) = trees.pop() {
            let tree = match repository.find_tree(id) {
                Ok(tree) => tree,
                Err(error) => return damaged(&format_args!("tree {id}: {}", error.message())),
            };
            for entry in tree.iter() {
                match entry.kind() {
                    _ if !seen.insert(entry.id()) => {}
                    Some(ObjectType::Tree) => trees.push(entry.id()),
                    Some(ObjectType::Blob) if odb.read_header(entry.id()).is_err() => {
                        return damaged(&format_args!("blob {}", entry.id()));
                    }
                    // A submodule's commit is not ours to have.
                    _ => {}
                }
            }
        }
        Presence::Complete
    }

    /// Whether `new` has `old` among its ancestors. History may be cut, and clocks may be wrong: what cannot be known
    /// is said to be unknown.
    pub(super) fn descent(&self, old: &CommitId, new: &CommitId) -> Descent {
        let cut = shallow_commits(&self.path).unwrap_or_default();
        let repository = self.lock();
        let Ok(floor) =
            repository.find_commit(old.oid()).map(|old| old.time().seconds() - CLOCK_SKEW_SECONDS)
        else {
            return Descent::Unknown;
        };
        let mut seen = HashSet::from([new.oid()]);
        let mut next = vec![new.oid()];
        let mut unknown = false;
        while let Some(id) = next.pop() {
            if id == old.oid() {
                return Descent::Descends;
            }
            let Ok(commit) = repository.find_commit(id) else {
                unknown = true;
                continue;
            };
            // What is much older than `old` cannot descend from it.
            if commit.time().seconds() < floor {
                continue;
            }
            if cut.contains(&id) || seen.len() > MOST_ANCESTORS {
                unknown = true;
                continue;
            }
            next.extend(commit.parent_ids().filter(|parent| seen.insert(*parent)));
        }
        if unknown { Descent::Unknown } else { Descent::Rewritten }
    }

    pub(super) fn info(&self, commit: &CommitId) -> Result<CommitInfo, git2::Error> {
        let repository = self.lock();
        let found = repository.find_commit(commit.oid())?;
        let author = found.author();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
        Ok(CommitInfo {
            id: commit.clone(),
            author_name: text(author.name_bytes()),
            author_email: text(author.email_bytes()),
            subject: text(found.summary_bytes().unwrap_or_default()),
            // A time beyond what can be written counts as the epoch; it is only shown.
            time: jiff::Timestamp::from_second(found.time().seconds()).unwrap_or(jiff::Timestamp::UNIX_EPOCH),
        })
    }

    /// The commit at a tip, if there is one. A tag object is followed.
    pub(super) fn tip(&self, remote_ref: &str) -> Result<Option<CommitId>, git2::Error> {
        let repository = self.lock();
        match repository.find_reference(&tip_name(remote_ref)) {
            Ok(reference) => reference.peel_to_commit().map(|commit| Some(commit.id().into())),
            Err(error) if error.code() == git2::ErrorCode::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Holds what a tip points to for a while longer. To be called before the tip moves.
    pub(super) fn hold_recent(&self, remote_ref: &str) -> Result<(), git2::Error> {
        if let Some(commit) = self.tip(remote_ref)? {
            let name = format!("{RECENT}{}-{commit}", seconds_since_epoch());
            self.lock().reference(&name, commit.oid(), true, "windlass")?;
        }
        Ok(())
    }

    pub(super) fn set_tip(&self, remote_ref: &str, commit: &CommitId) -> Result<(), git2::Error> {
        if self.tip(remote_ref)?.as_ref() == Some(commit) {
            return Ok(());
        }
        self.hold_recent(remote_ref)?;
        self.lock().reference(&tip_name(remote_ref), commit.oid(), true, "windlass").map(|_| ())
    }

    pub(super) fn forget_tip(&self, remote_ref: &str) -> Result<(), git2::Error> {
        self.delete(&tip_name(remote_ref))
    }

    pub(super) fn keep(&self, name: &str, commit: &CommitId) -> Result<(), git2::Error> {
        self.lock().reference(&kept_name(name), commit.oid(), true, "windlass").map(|_| ())
    }

    pub(super) fn forget(&self, name: &str) -> Result<(), git2::Error> {
        self.delete(&kept_name(name))
    }

    pub(super) fn kept(&self) -> Result<Vec<(String, CommitId)>, git2::Error> {
        let kept = self.references(KEPT)?;
        Ok(kept
            .into_iter()
            .filter_map(|(name, commit)| Some((decoded(name.strip_prefix(KEPT)?)?, commit)))
            .collect())
    }

    /// Removes the refs that nobody needs any more: tips of refs that are not followed (their commits are recent for
    /// a while), what is recent no longer, and what a complete fetch left.
    pub(super) fn forget_all_but(&self, followed: &HashSet<String>) -> Result<(), git2::Error> {
        let now = seconds_since_epoch();
        for (name, _) in self.references(RECENT)? {
            let since = name[RECENT.len()..].split('-').next().and_then(|text| text.parse::<u64>().ok());
            if since.is_none_or(|since| since + RECENT_SECONDS < now || since > now + RECENT_SECONDS) {
                self.delete(&name)?;
            }
        }
        let followed: HashSet<String> = followed.iter().map(|name| tip_name(name)).collect();
        for (name, commit) in self.references(TIPS)?.into_iter().filter(|(name, _)| !followed.contains(name))
        {
            self.lock().reference(&format!("{RECENT}{now}-{commit}"), commit.oid(), true, "windlass")?;
            self.delete(&name)?;
        }
        for (name, _) in self.references(EVERYTHING)? {
            self.delete(&name)?;
        }
        Ok(())
    }

    fn delete(&self, name: &str) -> Result<(), git2::Error> {
        match self.lock().find_reference(name) {
            Ok(mut reference) => reference.delete(),
            Err(error) if error.code() == git2::ErrorCode::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn references(&self, prefix: &str) -> Result<Vec<(String, CommitId)>, git2::Error> {
        let repository = self.lock();
        let mut out = Vec::new();
        for reference in repository.references_glob(&format!("{prefix}*"))? {
            let reference = reference?;
            let name = String::from_utf8_lossy(reference.name_bytes()).into_owned();
            let target: Oid = reference.target().unwrap_or(Oid::ZERO_SHA1);
            out.push((name, target.into()));
        }
        Ok(out)
    }

    /// How far the repository is above what is worth packing anew: 0 below, 1 above, 2 far above.
    pub(super) fn clutter(&self) -> usize {
        let Ok(entries) = fs::read_dir(self.path.join("objects/pack")) else { return 0 };
        let is_pack =
            |entry: &fs::DirEntry| entry.path().extension().is_some_and(|extension| extension == "pack");
        (entries.flatten().filter(is_pack).count() / MANY_PACKS).min(2)
    }
}

/// The first ref of which the file holds no id. Lock files are not refs.
fn garbled_ref(directory: &Path) -> Option<PathBuf> {
    fs::read_dir(directory).ok()?.flatten().map(|entry| entry.path()).find_map(|path| {
        if path.is_dir() {
            return garbled_ref(&path);
        }
        let is_id =
            || fs::read_to_string(&path).is_ok_and(|text| text.trim_end().parse::<CommitId>().is_ok());
        (path.extension().is_none_or(|extension| extension != "lock") && !is_id()).then_some(path)
    })
}

/// Reads every pack and its index through, and compares them with the checksum at their end. libgit2 believes what
/// stands in them, and a damaged one can crash the process or occupy it for ever.
fn damaged_pack(directory: &Path) -> Option<String> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) => return Some(format!("{}: {error}", directory.display())),
    };
    entries.flatten().map(|entry| entry.path()).find_map(|path| {
        if path.file_name().is_some_and(|name| name == "multi-pack-index") {
            return Some(format!("{}: not made by us", path.display()));
        }
        let other = match path.extension()?.to_str()? {
            "pack" => path.with_extension("idx"),
            "idx" => path.with_extension("pack"),
            _ => return None,
        };
        if !other.is_file() {
            return Some(format!("{}: missing", other.display()));
        }
        match has_its_checksum(&path) {
            Ok(true) => None,
            Ok(false) => Some(format!("{}: not what its checksum says", path.display())),
            Err(error) => Some(format!("{}: {error}", path.display())),
        }
    })
}

/// Whether a file ends with the SHA-1 of what comes before.
fn has_its_checksum(path: &Path) -> io::Result<bool> {
    use sha1::{Digest, Sha1};
    use std::io::Read;
    const CHECKSUM: u64 = 20;
    let mut file = fs::File::open(path)?;
    let Some(length) = file.metadata()?.len().checked_sub(CHECKSUM) else { return Ok(false) };
    let mut hash = Sha1::new();
    let mut part = vec![0; 128 << 10];
    let mut content = (&mut file).take(length);
    loop {
        match content.read(&mut part)? {
            0 => break,
            read => hash.update(&part[..read]),
        }
    }
    let mut expected = Vec::new();
    file.read_to_end(&mut expected)?;
    Ok(hash.finalize()[..] == expected[..])
}

/// The first object that stands in a file of its own.
fn loose_object(path: &Path) -> Option<String> {
    let directories = fs::read_dir(path.join("objects")).ok()?.flatten();
    directories.filter(|directory| directory.file_name().len() == 2).find_map(|directory| {
        let file = fs::read_dir(directory.path()).ok()?.flatten().next()?;
        Some(format!("objects/{}/{}", directory.file_name().display(), file.file_name().display()))
    })
}

fn seconds_since_epoch() -> u64 {
    let now = std::time::SystemTime::now();
    now.duration_since(std::time::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

fn marker_text(url: &str) -> String {
    format!("format {FORMAT}\nurl {url}\n")
}

/// The name under which a ref of the remote is stored. A digest, because names may nest (`a` and `a/b`) over time.
pub(super) fn tip_name(remote_ref: &str) -> String {
    format!("{TIPS}{}", crate::core::digest::of_bytes(remote_ref.as_bytes()))
}

/// Names of kept commits may hold anything; those of refs may not, and must not nest.
fn kept_name(name: &str) -> String {
    use std::fmt::Write;
    let mut out = KEPT.to_owned();
    for byte in name.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' => out.push(char::from(byte)),
            b'/' => out.push('+'),
            _ => {
                let _ = write!(out, "%{byte:02x}");
            }
        }
    }
    out
}

fn decoded(name: &str) -> Option<String> {
    let mut out = Vec::with_capacity(name.len());
    let mut bytes = name.bytes();
    while let Some(byte) = bytes.next() {
        out.push(match byte {
            b'+' => b'/',
            b'%' => {
                let digits = [bytes.next()?, bytes.next()?];
                u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?
            }
            other => other,
        });
    }
    String::from_utf8(out).ok()
}

/// The commits at which history is cut.
fn shallow_commits(path: &Path) -> Result<HashSet<Oid>, String> {
    match fs::read_to_string(path.join("shallow")) {
        Ok(text) => text
            .lines()
            .map(|line| Oid::from_str(line.trim()).map_err(|_| "shallow: unreadable".to_owned()))
            .collect(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(HashSet::new()),
        Err(error) => Err(format!("shallow: {error}")),
    }
}

fn remove_in(directory: &Path, matches: impl Fn(&str) -> bool) {
    let Ok(entries) = fs::read_dir(directory) else { return };
    for entry in entries.flatten() {
        if matches(&entry.file_name().to_string_lossy()) {
            // What cannot be removed shows in the next run of git, with a better message.
            let _ = match entry.file_type() {
                Ok(kind) if kind.is_dir() => fs::remove_dir_all(entry.path()),
                _ => fs::remove_file(entry.path()),
            };
        }
    }
}

fn remove_locks_below(directory: &Path) {
    remove_in(directory, |name| name.ends_with(".lock"));
    let Ok(entries) = fs::read_dir(directory) else { return };
    for entry in entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
        remove_locks_below(&entry.path());
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_name_can_be_kept_and_is_found_again(name in any::<String>().prop_filter("not empty", |name| !name.is_empty())) {
            let reference = kept_name(&name);
            prop_assert!(git2::Reference::is_valid_name(&reference), "{}", reference);
            prop_assert_eq!(decoded(reference.strip_prefix(KEPT).unwrap()).unwrap(), name);
        }
    }

    #[test]
    fn a_repository_without_its_marker_is_damaged() {
        let dir = tempfile::tempdir().unwrap();
        assert!(matches!(Store::find(dir.path(), "u"), Found::Nothing));
        drop(Store::create(dir.path(), "u").unwrap());
        assert!(matches!(Store::find(dir.path(), "u"), Found::Healthy(_)));
        assert!(matches!(Store::find(dir.path(), "other"), Found::Damaged(_)));
        fs::remove_file(dir.path().join(REPOSITORY).join(MARKER)).unwrap();
        assert!(matches!(Store::find(dir.path(), "u"), Found::Damaged(_)));
        Store::discard(dir.path()).unwrap();
        assert!(matches!(Store::find(dir.path(), "u"), Found::Nothing));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
