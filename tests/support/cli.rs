//! Running our command line and kubectl as a person would.

use super::cluster::Space;
use super::daemon::{LIMIT, World};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;
use tokio::io::AsyncBufReadExt;

/// What a command answered.
#[derive(Debug)]
pub struct Answer {
    /// Exit code.
    pub code: i32,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

fn run(mut command: Command, kubeconfig: &Path) -> Answer {
    let output = command.env("KUBECONFIG", kubeconfig).env_remove("WINDLASS_NAMESPACE").output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Answer { code: output.status.code().unwrap_or(-1), out: text(&output.stdout), err: text(&output.stderr) }
}

/// `windlass` against the cluster of a test.
pub fn windlass(space: &Space, arguments: &[&str]) -> Answer {
    windlass_with(&space.cluster.kubeconfig, arguments)
}

/// `windlass` with a kubeconfig.
pub fn windlass_with(kubeconfig: &Path, arguments: &[&str]) -> Answer {
    let mut command = Command::new(env!("CARGO_BIN_EXE_windlass"));
    command.args(arguments);
    run(command, kubeconfig)
}

/// `kubectl` against the cluster of a test.
pub fn kubectl(space: &Space, arguments: &[&str]) -> Answer {
    kubectl_with(&space.cluster.kubeconfig, arguments)
}

/// `kubectl` with a kubeconfig.
pub fn kubectl_with(kubeconfig: &Path, arguments: &[&str]) -> Answer {
    let mut command = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("target/cluster/testcluster"));
    command.arg("kubectl").args(arguments);
    run(command, kubeconfig)
}

/// A screen after which nothing comes for so long is whole.
const SILENCE: Duration = Duration::from_millis(300);

/// `windlass` in a form that prints until it is interrupted.
pub struct Watching {
    child: tokio::process::Child,
    lines: tokio::io::Lines<tokio::io::BufReader<tokio::process::ChildStdout>>,
    /// The first line of a screen that came after the one that was as wanted.
    begun: Option<String>,
}

impl Watching {
    /// Begins.
    pub fn of(world: &World, arguments: &[&str]) -> Self {
        let mut child = tokio::process::Command::new(env!("CARGO_BIN_EXE_windlass"))
            .args(arguments)
            .env("KUBECONFIG", &world.space.cluster.kubeconfig)
            .env_remove("WINDLASS_NAMESPACE")
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let lines = tokio::io::BufReader::new(child.stdout.take().unwrap()).lines();
        Watching { child, lines, begun: None }
    }

    /// Waits until a line is printed that has this in it.
    pub async fn wait(&mut self, part: &str) {
        let read =
            async { while !self.lines.next_line().await.unwrap().expect("it ended").contains(part) {} };
        tokio::time::timeout(LIMIT, read).await.unwrap_or_else(|_| panic!("{part} was not printed"));
    }

    /// Waits until a line is printed that is as wanted, or is the last of those that are.
    pub async fn until(&mut self, what: &str, mut is: impl FnMut(&str) -> bool) {
        let mut lines = Vec::new();
        let read = async {
            loop {
                let line = self.lines.next_line().await.unwrap().expect("it ended");
                let done = is(&line);
                lines.push(line);
                if done {
                    return;
                }
            }
        };
        let read = tokio::time::timeout(LIMIT, read).await;
        assert!(read.is_ok(), "{what} was not shown, but\n{}", lines.join("\n"));
    }

    /// Waits until what was printed from a line that begins like this, until the next one does or nothing more comes, is as wanted.
    /// Answers it.
    pub async fn screen(&mut self, first: &str, what: &str, is: impl Fn(&str) -> bool) -> String {
        let mut screen = self.begun.take().unwrap_or_default();
        let read = async {
            loop {
                let line = tokio::time::timeout(SILENCE, self.lines.next_line()).await;
                let line = line.ok().map(|line| line.unwrap().expect("it ended") + "\n");
                let next = line.as_ref().is_some_and(|line| line.starts_with(first));
                if (next || line.is_none()) && !screen.is_empty() && is(&screen) {
                    self.begun = line;
                    return;
                }
                if next {
                    screen.clear();
                }
                screen.extend(line);
            }
        };
        let read = tokio::time::timeout(LIMIT, read).await;
        assert!(read.is_ok(), "{what} was not shown, but\n{screen}");
        screen
    }

    /// Ends it as Ctrl-C does. Answers its exit code.
    pub async fn interrupt(mut self) -> Option<i32> {
        let pid = self.child.id().unwrap().to_string();
        assert!(Command::new("kill").args(["-s", "INT", &pid]).status().unwrap().success());
        let ended = tokio::time::timeout(LIMIT, self.child.wait()).await;
        ended.expect("it did not end").unwrap().code()
    }
}
