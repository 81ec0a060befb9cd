//! Sees commits in a local repository at once, instead of at the next poll.

use super::error::SourceError;
use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

/// A commit changes several files; this long nothing has to happen before it counts as one change.
const QUIET: Duration = Duration::from_millis(30);
/// And this long it is waited for quiet at most.
const LONGEST: Duration = Duration::from_millis(300);

/// Watches until it is dropped.
#[derive(Debug)]
pub struct Watcher {
    // Dropping it closes the channel, which ends the thread.
    _events: RecommendedWatcher,
}

/// Calls `on_change` soon after a ref of a local repository changed: a bare one, one with a working directory, or a
/// linked worktree. A working directory's files are not looked at. May call once too often; never blocks the caller.
///
/// Polling stays necessary: file events get lost (network file systems, a directory that is moved away).
pub fn watch_local(path: &Path, on_change: impl Fn() + Send + 'static) -> Result<Watcher, SourceError> {
    let failed = |reason: String| SourceError::Watch { path: path.to_owned(), reason };
    let places = places(path).map_err(|error| failed(error.to_string()))?;
    let (sender, receiver) = mpsc::channel();
    let own = places.clone();
    let mut events = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        let matters = match event {
            Ok(event) => {
                event.need_rescan()
                    || !matches!(event.kind, EventKind::Access(_))
                        && event.paths.iter().any(|path| is_ref(path, &own))
            }
            Err(_) => true,
        };
        if matters {
            let _ = sender.send(());
        }
    })
    .map_err(|error| failed(error.to_string()))?;
    for directory in [&places.private, &places.common] {
        // HEAD and packed-refs are replaced by renaming, so the directory is watched and not the file.
        events.watch(directory, RecursiveMode::NonRecursive).map_err(|error| failed(error.to_string()))?;
    }
    for (name, mode) in [("refs", RecursiveMode::Recursive), ("reftable", RecursiveMode::NonRecursive)] {
        let directory = places.common.join(name);
        if directory.is_dir() {
            events.watch(&directory, mode).map_err(|error| failed(error.to_string()))?;
        }
    }
    std::thread::Builder::new()
        .name("watch-git".to_owned())
        .spawn(move || {
            while receiver.recv().is_ok() {
                let started = Instant::now();
                while started.elapsed() < LONGEST {
                    match receiver.recv_timeout(QUIET) {
                        Ok(()) => {}
                        Err(RecvTimeoutError::Timeout) => break,
                        Err(RecvTimeoutError::Disconnected) => return,
                    }
                }
                on_change();
            }
        })
        .map_err(|error| failed(error.to_string()))?;
    Ok(Watcher { _events: events })
}

/// Where a repository keeps what points to commits.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Places {
    /// HEAD of this working directory.
    private: PathBuf,
    /// What all working directories of the repository share.
    common: PathBuf,
}

fn places(path: &Path) -> std::io::Result<Places> {
    let path = path.canonicalize()?;
    let inside = path.join(".git");
    let private = if inside.is_dir() {
        inside
    } else if let Ok(text) = fs::read_to_string(&inside) {
        // A linked worktree or a submodule: a file that says where its directory is.
        let target = text.trim().strip_prefix("gitdir:").unwrap_or_default().trim();
        path.join(target).canonicalize()?
    } else {
        path
    };
    if !private.join("HEAD").is_file() {
        return Err(std::io::Error::new(std::io::ErrorKind::NotFound, "it is no Git repository"));
    }
    let common = match fs::read_to_string(private.join("commondir")) {
        Ok(text) => private.join(text.trim()).canonicalize()?,
        Err(_) => private.clone(),
    };
    Ok(Places { private, common })
}

/// `index`, `FETCH_HEAD`, logs and lock files change without any ref changing.
fn is_ref(path: &Path, places: &Places) -> bool {
    if path.extension().is_some_and(|extension| extension == "lock") {
        return false;
    }
    let is_head = |name: &Path| name == Path::new("HEAD");
    match (path.strip_prefix(&places.private), path.strip_prefix(&places.common)) {
        (Ok(name), _) if is_head(name) => true,
        (_, Ok(name)) => {
            is_head(name)
                || name == Path::new("packed-refs")
                || name.starts_with("refs")
                || name.starts_with("reftable")
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_refs_matter() {
        let places = Places { private: "/r/.git/worktrees/w".into(), common: "/r/.git".into() };
        for (path, expected) in [
            ("/r/.git/HEAD", true),
            ("/r/.git/worktrees/w/HEAD", true),
            ("/r/.git/packed-refs", true),
            ("/r/.git/refs/heads/main", true),
            ("/r/.git/refs/heads/main.lock", false),
            ("/r/.git/reftable/tables.list", true),
            ("/r/.git/index", false),
            ("/r/.git/worktrees/w/index", false),
            ("/r/.git/FETCH_HEAD", false),
            ("/elsewhere", false),
        ] {
            assert_eq!(is_ref(Path::new(path), &places), expected, "{path}");
        }
    }
}
