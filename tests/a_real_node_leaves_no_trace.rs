//! The tests' own promise to whoever runs them as root: a cluster with a real node changes nothing of the machine while it
//! runs beside another, and leaves nothing behind, also when the test or what cleans up after it is killed.

use crate::support::cluster::wait_until;
use crate::support::daemon::LIMIT;
use crate::support::plane::{self, Plane};
use serde_json::Value;
use std::fs::{self, File, TryLockError};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command};
use std::time::{Duration, Instant};

/// What a kubelet changes on a machine of its own.
const SETTINGS: [&str; 6] = [
    "vm/overcommit_memory",
    "vm/panic_on_oom",
    "kernel/panic",
    "kernel/panic_on_oops",
    "kernel/keys/root_maxkeys",
    "kernel/keys/root_maxbytes",
];

fn settings() -> Vec<String> {
    SETTINGS.map(|name| fs::read_to_string(Path::new("/proc/sys").join(name)).unwrap()).to_vec()
}

/// A cluster that runs, and what the machine has of it.
struct Another {
    run: Child,
    // Kept open: whoever writes to a pipe that nobody reads is ended.
    _out: BufReader<ChildStdout>,
    keep: String,
    init: String,
    dir: PathBuf,
    /// Files that stand for the network link and the control groups, with what tells them from later ones of that name.
    traces: Vec<(PathBuf, String)>,
}

impl Another {
    fn start(plane: &Plane, verb: &str, dir: &Path) -> Another {
        let mut run = plane.another(verb, dir).spawn().unwrap();
        let mut said = String::new();
        let mut out = BufReader::new(run.stdout.take().unwrap());
        out.read_line(&mut said).unwrap();
        let log = || fs::read_to_string(dir.join("real.log")).unwrap_or_default();
        assert!(said.starts_with("ready "), "{said}{}", log());
        let facts: Value = serde_json::from_str(&fs::read_to_string(dir.join("real.json")).unwrap()).unwrap();
        let name = format!("windlass{}", facts["slot"]);
        let mut traces = vec![PathBuf::from("/sys/class/net").join(&name)];
        for hierarchy in fs::read_dir("/sys/fs/cgroup").unwrap() {
            traces.push(hierarchy.unwrap().path().join(&name));
        }
        let mut found: Vec<_> = traces.into_iter().filter_map(|t| identity(&t).map(|i| (t, i))).collect();
        assert!(found.len() > 5, "{found:?}");
        found.sort();
        Another {
            run,
            _out: out,
            keep: fs::read_to_string(dir.join("real.lock")).unwrap(),
            init: facts["init"].to_string(),
            dir: dir.to_owned(),
            traces: found,
        }
    }

    /// What is left of it on the machine.
    fn left(&self) -> Vec<String> {
        let mut left: Vec<String> = self
            .traces
            .iter()
            .filter(|(path, was)| identity(path).is_some_and(|is| is == *was))
            .map(|(path, _)| path.display().to_string())
            .collect();
        if Path::new("/proc").join(&self.init).exists() {
            left.push(format!("process {}", self.init));
        }
        let mounts = fs::read_to_string("/proc/mounts").unwrap();
        left.extend(mounts.lines().filter(|m| m.contains(self.dir.to_str().unwrap())).map(str::to_owned));
        // The one that cleans up holds it until it has.
        let lock = File::open(self.dir.join("real.lock")).unwrap();
        if let Err(TryLockError::WouldBlock) = lock.try_lock() {
            left.push("the lock".into());
        }
        left
    }

    async fn gone(&self, how: &str) {
        wait_until(&format!("nothing is left after {how}"), LIMIT, || async {
            let left = self.left();
            if left.is_empty() { Ok(()) } else { Err(left.join(", ")) }
        })
        .await;
    }
}

impl Drop for Another {
    fn drop(&mut self) {
        if self.dir.exists() && self.left().contains(&"the lock".to_owned()) {
            let _ = Command::new("kill").arg(&self.keep).status();
        }
    }
}

/// Tells a file from another that has its name later.
fn identity(path: &Path) -> Option<String> {
    let index = fs::read_to_string(path.join("ifindex")).ok();
    index.or_else(|| fs::metadata(path).ok().map(|m| m.ino().to_string()))
}

fn kill(pid: &str) {
    assert!(Command::new("kill").args(["-KILL", pid]).status().unwrap().success());
}

#[tokio::test]
async fn nothing_is_changed_and_nothing_is_left_however_it_ends() {
    let before = settings();
    let Some(plane) = plane::shared("a_real_node_leaves_no_trace") else { return };
    let scratch = tempfile::tempdir().unwrap();

    // As when the test is killed.
    let mut first = Another::start(plane, "run", &scratch.path().join("first"));
    assert_eq!(settings(), before);
    kill(&first.run.id().to_string());
    first.run.wait().unwrap();
    first.gone("its test was killed").await;

    // What was left running stays when its starter has ended.
    let mut second = Another::start(plane, "up", &scratch.path().join("second"));
    assert!(second.run.wait().unwrap().success());
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_secs(1) {
        assert!(second.left().contains(&"the lock".to_owned()), "{:?}", second.left());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }

    // The last resort: all that can be killed of it. The groups then go with the next cluster that starts or stops.
    kill(&second.keep);
    let init = Path::new("/proc").join(&second.init);
    wait_until("everything in it has ended", LIMIT, || async {
        if init.exists() { Err("not yet".into()) } else { Ok(()) }
    })
    .await;
    let down = plane.down(&second.dir).output().unwrap();
    assert!(down.status.success(), "{down:?}");
    assert!(!second.dir.exists());
    let groups = |(path, _): &&(PathBuf, String)| path.starts_with("/sys/fs/cgroup");
    for (path, was) in second.traces.iter().filter(groups) {
        assert_ne!(identity(path).as_ref(), Some(was), "{}", path.display());
    }

    assert_eq!(settings(), before);
    // The one beside them has not noticed.
    wait_until("it is still watched", LIMIT, || async {
        let up = plane.value("sum(up)").await?;
        if up >= 1.0 { Ok(()) } else { Err(up.to_string()) }
    })
    .await;
}
