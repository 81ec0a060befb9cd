//! The mirror outlives restarts, mends itself when it is damaged, keeps what is needed and drops the rest.

use crate::support::cluster::wait_until;
use crate::support::daemon::LIMIT;
use crate::support::git::Repo;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use windlass::core::tree::{EntryKind, Tree};
use windlass::source::{CommitId, Credentials, Limits, Mirror, Poll, Reference, RemoteUrl, SourceError};

fn open(cache: &Path, repo: &Repo) -> Mirror {
    Mirror::open(cache, RemoteUrl::parse(&repo.path().to_string_lossy(), true).unwrap()).unwrap()
}

async fn poll(mirror: &Mirror, old: Option<&CommitId>) -> Result<Poll, SourceError> {
    let limits = Limits { listing: LIMIT, ..Limits::default() };
    mirror.poll(&Reference::Branch("main".to_owned()), old, &Credentials::default(), &limits).await
}

/// The repository of the only mirror in a cache.
fn store(cache: &Path) -> PathBuf {
    fs::read_dir(cache).unwrap().next().unwrap().unwrap().path().join("repo.git")
}

/// Every file below a directory.
fn files(directory: &Path) -> Vec<PathBuf> {
    let mut out = Vec::new();
    for entry in fs::read_dir(directory).unwrap().flatten() {
        match entry.file_type().unwrap().is_dir() {
            true => out.extend(files(&entry.path())),
            false => out.push(entry.path()),
        }
    }
    out
}

fn overwrite(path: &Path, content: &[u8]) {
    fs::set_permissions(path, fs::Permissions::from_mode(0o644)).unwrap();
    fs::write(path, content).unwrap();
}

fn packs(store: &Path, extension: &str) -> Vec<PathBuf> {
    let mut found = files(&store.join("objects/pack"));
    found.retain(|path| path.extension().is_some_and(|found| found == extension));
    assert!(!found.is_empty(), "every fetch leaves a pack");
    found
}

fn cut(path: &Path) {
    let content = fs::read(path).unwrap();
    overwrite(path, &content[..content.len() / 2]);
}

/// Reads every file of a commit.
fn read_all(tree: &dyn Tree, dir: &str) -> usize {
    let mut count = 0;
    for entry in tree.entries(dir).unwrap() {
        let path = windlass::core::tree::join(dir, &entry.name);
        count += match entry.kind {
            EntryKind::Directory => read_all(tree, &path),
            _ => tree.read(&path, 1 << 20).map(|_| 1).unwrap(),
        };
    }
    count
}

#[tokio::test]
async fn a_restart_fetches_nothing_and_can_read_before_it_polls() {
    let repo = Repo::new();
    let cache = tempfile::tempdir().unwrap();
    let commit = poll(&open(cache.path(), &repo), None).await.unwrap().commit;
    let restarted = open(cache.path(), &repo);
    assert_eq!(read_all(&restarted.tree(&commit).unwrap(), ""), 1);
    assert!(!poll(&restarted, Some(&commit)).await.unwrap().fetched);
}

#[tokio::test]
async fn every_kind_of_damage_is_mended_by_a_poll() {
    type Damage = fn(&Path);
    let kinds: [(&str, Damage); 15] = [
        ("HEAD is garbage", |store| fs::write(store.join("HEAD"), b"\0\0garbage").unwrap()),
        ("HEAD is gone", |store| fs::remove_file(store.join("HEAD")).unwrap()),
        ("the configuration is garbage", |store| fs::write(store.join("config"), b"[[[").unwrap()),
        ("the marker is gone", |store| fs::remove_file(store.join("windlass-mirror")).unwrap()),
        ("objects are gone", |store| fs::remove_dir_all(store.join("objects")).unwrap()),
        ("everything in it is gone", |store| {
            fs::remove_dir_all(store).unwrap();
            fs::create_dir(store).unwrap();
        }),
        ("the mirror is gone", |store| fs::remove_dir_all(store).unwrap()),
        ("each pack is empty", |store| packs(store, "pack").iter().for_each(|path| overwrite(path, b""))),
        ("each pack is cut", |store| packs(store, "pack").iter().for_each(|path| cut(path))),
        ("each index is cut", |store| packs(store, "idx").iter().for_each(|path| cut(path))),
        ("each pack is missing", |store| {
            packs(store, "pack").iter().for_each(|path| fs::remove_file(path).unwrap())
        }),
        ("an object was cut short outside of a pack", |store| {
            let root = crate::support::git::git(store, &["rev-parse", "--glob=refs/windlass/*"]);
            fs::create_dir_all(store.join("objects").join(&root[..2])).unwrap();
            fs::write(store.join("objects").join(&root[..2]).join(&root[2..]), [0x78, 0x01, 0x4b]).unwrap();
        }),
        ("a ref is garbage", |store| {
            files(&store.join("refs")).iter().for_each(|path| fs::write(path, b"garbage").unwrap());
        }),
        ("a ref points to nothing", |store| {
            let id = "1".repeat(40) + "\n";
            files(&store.join("refs")).iter().for_each(|path| fs::write(path, &id).unwrap());
        }),
        ("the list of cut commits is garbage", |store| fs::write(store.join("shallow"), b"garbage").unwrap()),
    ];
    for (name, damage) in kinds {
        // Without a new commit at the remote, and with one.
        for moved in [false, true] {
            let repo = Repo::new();
            repo.commit(&[("apps/web/web.yaml", "kind: Service\n"), ("infra/db.yaml", "kind: Secret\n")]);
            let cache = tempfile::tempdir().unwrap();
            let commit = poll(&open(cache.path(), &repo), None).await.unwrap().commit;
            damage(&store(cache.path()));
            if moved {
                repo.commit(&[("new.yaml", name)]);
            }
            let mirror = open(cache.path(), &repo);
            let found = poll(&mirror, Some(&commit)).await.unwrap_or_else(|error| panic!("{name}: {error}"));
            assert_eq!(found.commit.as_str(), repo.head(), "{name}");
            assert_eq!(read_all(&mirror.tree(&found.commit).unwrap(), ""), 3 + usize::from(moved), "{name}");
        }
    }
}

#[tokio::test]
async fn damage_that_shows_only_while_reading_is_mended_by_the_next_poll() {
    let repo = Repo::new();
    // Large and incompressible enough for a byte in the middle to be content.
    let content: String = (0..20_000u32).map(|n| format!("{:x}", n.wrapping_mul(2_654_435_761))).collect();
    repo.commit(&[("large.yaml", &content)]);
    let cache = tempfile::tempdir().unwrap();
    let mirror = open(cache.path(), &repo);
    let commit = poll(&mirror, None).await.unwrap().commit;
    for path in files(&store(cache.path()).join("objects")) {
        let mut bytes = fs::read(&path).unwrap();
        if bytes.len() > 10_000 {
            let middle = bytes.len() / 2;
            bytes[middle] ^= 0xff;
            overwrite(&path, &bytes);
        }
    }
    let tree = mirror.tree(&commit).unwrap();
    let error = tree.read("large.yaml", 1 << 30).unwrap_err();
    assert!(error.to_string().contains("made anew at the next poll"), "{error}");
    let found = poll(&mirror, Some(&commit)).await.unwrap();
    assert!(found.fetched);
    assert_eq!(mirror.tree(&commit).unwrap().read("large.yaml", 1 << 30).unwrap(), content.as_bytes());
}

#[tokio::test]
async fn what_killed_processes_left_is_cleared_away() {
    let repo = Repo::new();
    let cache = tempfile::tempdir().unwrap();
    let commit = poll(&open(cache.path(), &repo), None).await.unwrap().commit;
    let store = store(cache.path());
    let tip = files(&store.join("refs")).into_iter().next().unwrap();
    let left = [
        store.join("objects/pack/pack-x.keep"),
        store.join("shallow.lock"),
        store.join("packed-refs.lock"),
        tip.with_extension("lock"),
        store.join("objects/pack/tmp_pack_x"),
        store.with_file_name("private").join("git-x/identity"),
        store.with_file_name("new-x").join("HEAD"),
    ];
    for path in &left {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, b"left").unwrap();
    }
    repo.commit(&[("a", "2")]);
    assert!(poll(&open(cache.path(), &repo), Some(&commit)).await.unwrap().fetched);
    for path in left {
        assert!(!path.exists(), "{}", path.display());
    }
}

#[tokio::test]
async fn kept_commits_survive_rewritten_history_and_garbage_collection_and_others_do_not() {
    let repo = Repo::new();
    let cache = tempfile::tempdir().unwrap();
    let mirror = open(cache.path(), &repo);
    repo.commit(&[("good", "1")]);
    let good = poll(&mirror, None).await.unwrap().commit;
    mirror.keep("shop/web: stable", &good).unwrap();
    repo.rewrite(&[("bad", "1")]);
    let bad = poll(&mirror, Some(&good)).await.unwrap().commit;
    repo.rewrite(&[("ugly", "1")]);
    poll(&mirror, Some(&bad)).await.unwrap();
    assert!(mirror.tree(&bad).is_ok(), "nothing is dropped before it is worth it");

    // It is not recent any more, and there is enough to pack.
    let store = store(cache.path());
    for path in files(&store.join("refs/windlass/recent")) {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        fs::rename(&path, path.with_file_name(format!("1-{}", name.split_once('-').unwrap().1))).unwrap();
    }
    let mut last = bad.clone();
    for n in 0..20 {
        repo.commit(&[("good", &n.to_string())]);
        last = poll(&mirror, Some(&last)).await.unwrap().commit;
    }
    assert!(packs(&store, "pack").len() >= 20);
    let unchanged = poll(&mirror, Some(&last)).await.unwrap();
    assert!(!unchanged.fetched);
    assert_eq!(packs(&store, "pack").len(), 1);

    assert_eq!(read_all(&mirror.tree(&good).unwrap(), ""), 2);
    assert!(matches!(mirror.tree(&bad), Err(SourceError::NotMirrored { .. })));
    assert_eq!(mirror.kept().unwrap(), [("shop/web: stable".to_owned(), good.clone())]);
    mirror.forget("shop/web: stable").unwrap();
    mirror.forget("never kept").unwrap();
    assert_eq!(mirror.kept().unwrap(), []);
    assert!(matches!(
        mirror.keep("x", &"0".repeat(40).parse().unwrap()),
        Err(SourceError::NotMirrored { .. })
    ));
}

#[tokio::test]
async fn many_at_once_take_turns() {
    let repo = Repo::new();
    let cache = tempfile::tempdir().unwrap();
    let shared = open(cache.path(), &repo);
    let cache = Arc::new(cache);
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..12 {
        // Half of them as another process would: with a mirror of their own on the same directory.
        let mirror = if n % 2 == 0 { shared.clone() } else { open(cache.path(), &repo) };
        let cache = cache.clone();
        tasks.spawn(async move {
            let commit = poll(&mirror, None).await.unwrap().commit;
            mirror.keep(&format!("task-{n}"), &commit).unwrap();
            drop(cache);
            read_all(&mirror.tree(&commit).unwrap(), "")
        });
    }
    assert_eq!(tasks.join_all().await, [1; 12]);
    assert_eq!(shared.kept().unwrap().len(), 12);
}

#[tokio::test]
async fn a_cache_that_is_emptied_meanwhile_is_filled_again() {
    let repo = Repo::new();
    let cache = tempfile::tempdir().unwrap();
    let mirror = open(cache.path(), &repo);
    let commit = poll(&mirror, None).await.unwrap().commit;
    fs::remove_dir_all(cache.path()).unwrap();
    assert!(poll(&mirror, Some(&commit)).await.unwrap().fetched);
    assert_eq!(read_all(&mirror.tree(&commit).unwrap(), ""), 1);
}

#[tokio::test]
async fn mirrors_that_nobody_uses_are_removed_and_nothing_else_is() {
    let (used, unused) = (Repo::new(), Repo::new());
    let cache = tempfile::tempdir().unwrap();
    fs::write(cache.path().join("notes.txt"), "mine").unwrap();
    let mirror = open(cache.path(), &used);
    let commit = poll(&mirror, None).await.unwrap().commit;
    poll(&open(cache.path(), &unused), None).await.unwrap();
    // A process that another test is just starting holds our lock on it, too, for a moment.
    let removed = wait_until("the other one is removed", LIMIT, async || {
        match Mirror::remove_unused(cache.path(), &[mirror.url().clone()]).unwrap() {
            0 => Err("it is locked".into()),
            removed => Ok(removed),
        }
    })
    .await;
    assert_eq!(removed, 1);
    assert!(open(cache.path(), &used).tree(&commit).is_ok());
    assert_eq!(fs::read_dir(cache.path()).unwrap().count(), 2);
}

#[tokio::test]
async fn a_cache_that_cannot_be_written_is_named() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let url = RemoteUrl::parse("https://h.example/a", false).unwrap();
    let error = Mirror::open(file.path(), url).err().unwrap();
    assert!(matches!(error, SourceError::CacheNotWritable { .. }), "{error:?}");
    assert!(error.to_string().contains(&*file.path().to_string_lossy()), "{error}");
}

#[tokio::test]
async fn a_flipped_bit_anywhere_is_noticed_or_harmless_and_never_hangs() {
    let repo = Repo::new();
    repo.commit(&[
        ("apps/web/web.yaml", "kind: Service\nmetadata: {name: web}\n"),
        ("infra/db.yaml", "kind: Secret\n"),
    ]);
    let pristine = tempfile::tempdir().unwrap();
    poll(&open(pristine.path(), &repo), None).await.unwrap();
    let contents: Vec<_> = ["pack", "idx"]
        .into_iter()
        .flat_map(|extension| packs(&store(pristine.path()), extension))
        .map(|path| (fs::read(&path).unwrap(), path))
        .collect();
    let step: usize = std::env::var("FUZZ_STEP").map_or(97, |text| text.parse().unwrap());
    for (content, path) in &contents {
        for at in (0..content.len()).step_by(step) {
            let mut changed = content.clone();
            changed[at] ^= 1 << (at % 8);
            overwrite(path, &changed);
            let mirror = open(pristine.path(), &repo);
            let work = async {
                let found = poll(&mirror, None).await.unwrap();
                // What the look through could not see shows when a file is read, and the next poll mends it.
                let tree = mirror.tree(&found.commit).unwrap();
                for file in ["apps/web/web.yaml", "infra/db.yaml", "apps/shop/web.yaml"] {
                    match tree.read(file, 1 << 20) {
                        Ok(content) => assert!(content.starts_with(b"kind: "), "{file} at {at}"),
                        Err(_) => assert!(poll(&mirror, None).await.unwrap().fetched, "{file} at {at}"),
                    }
                }
            };
            assert!(tokio::time::timeout(LIMIT, work).await.is_ok(), "hangs: {} at {at}", path.display());
            // A mended mirror has a pack of its own; the next round begins with the first one again.
            let objects = path.parent().unwrap();
            fs::remove_dir_all(objects).unwrap();
            fs::create_dir(objects).unwrap();
            contents.iter().for_each(|(content, path)| fs::write(path, content).unwrap());
        }
    }
}
