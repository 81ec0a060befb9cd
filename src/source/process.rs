//! One run of `git`: with a deadline, in a process group of its own that is killed when the deadline passes or the
//! caller goes away, and with bounded output.

use super::SourceError;
use rustix::process::{Pid, Signal, kill_process_group};
use std::ffi::OsString;
use std::io;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::{Child, Command};

/// Above this many bytes a listing is no listing any more: two million refs.
const MOST_OUTPUT: usize = 128 << 20;
/// What is kept of an error text.
const MOST_ERROR_TEXT: usize = 64 << 10;
/// The oldest Git that takes its configuration by environment.
const OLDEST_GIT: (u32, u32) = (2, 31);

/// What a finished process left.
pub(super) struct Finished {
    pub(super) success: bool,
    pub(super) stdout: Vec<u8>,
    pub(super) stderr: String,
}

/// Why there is nothing finished.
#[derive(Debug)]
pub(super) enum Unfinished {
    /// The program could not be started.
    NotStarted(io::Error),
    /// The deadline passed; every process of the group was killed.
    TimedOut,
    /// It wrote more than anybody can want to read.
    TooMuchOutput,
    /// The system failed.
    Io(io::Error),
}

/// Runs `git` with these arguments and exactly this environment.
pub(super) async fn run_git(
    directory: &Path,
    arguments: &[OsString],
    environment: &[(OsString, OsString)],
    limit: Duration,
) -> Result<Finished, Unfinished> {
    let mut command = Command::new("git");
    command
        .args(arguments)
        .current_dir(directory)
        .env_clear()
        .envs(environment.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        // Helpers of git (remote-https, ssh, index-pack) are in the same group, so that none outlives it.
        .process_group(0)
        .kill_on_drop(true);
    let mut child = command.spawn().map_err(Unfinished::NotStarted)?;
    let group = Group::of(&child);
    let result = match tokio::time::timeout(limit, finish(&mut child)).await {
        Ok(Ok(finished)) => {
            group.ended();
            return Ok(finished);
        }
        Ok(Err(unfinished)) => Err(unfinished),
        Err(_) => Err(Unfinished::TimedOut),
    };
    drop(group);
    // Collects the killed process; a process that SIGKILL does not end (stuck in the kernel) is left to the runtime.
    let _ = tokio::time::timeout(Duration::from_secs(1), child.wait()).await;
    result
}

async fn finish(child: &mut Child) -> Result<Finished, Unfinished> {
    let stdout = child.stdout.take();
    let stderr = child.stderr.take();
    // Both pipes are read to their end before the process is collected, so its id cannot be taken by another while
    // anything of the group still runs.
    let (stdout, stderr) = tokio::try_join!(collect(stdout), collect_start(stderr))?;
    let status = child.wait().await.map_err(Unfinished::Io)?;
    Ok(Finished { success: status.success(), stdout, stderr: String::from_utf8_lossy(&stderr).into_owned() })
}

async fn collect(pipe: Option<impl AsyncRead + Unpin>) -> Result<Vec<u8>, Unfinished> {
    let mut out = Vec::new();
    if let Some(pipe) = pipe {
        pipe.take(MOST_OUTPUT as u64 + 1).read_to_end(&mut out).await.map_err(Unfinished::Io)?;
    }
    if out.len() > MOST_OUTPUT { Err(Unfinished::TooMuchOutput) } else { Ok(out) }
}

/// Keeps the start and reads the rest away, so that the process is not blocked.
async fn collect_start(pipe: Option<impl AsyncRead + Unpin>) -> Result<Vec<u8>, Unfinished> {
    let Some(mut pipe) = pipe else { return Ok(Vec::new()) };
    let mut out = Vec::new();
    let mut part = [0; 4096];
    loop {
        let read = pipe.read(&mut part).await.map_err(Unfinished::Io)?;
        if read == 0 {
            return Ok(out);
        }
        let room = MOST_ERROR_TEXT.saturating_sub(out.len()).min(read);
        out.extend_from_slice(&part[..room]);
    }
}

/// A process group that is killed when this is dropped, unless it ended by itself.
struct Group(Option<Pid>);

impl Group {
    fn of(child: &Child) -> Self {
        Self(child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw))
    }

    fn ended(mut self) {
        self.0 = None;
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(group) = self.0 {
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}

/// The version of the `git` that is used.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct GitVersion {
    /// The first number.
    pub major: u32,
    /// The second number.
    pub minor: u32,
    /// What `git --version` says.
    pub text: String,
}

/// Asks `git` for its version, so that a missing or too old one is known at the start and not at the first poll.
pub async fn git_version() -> Result<GitVersion, SourceError> {
    let missing = || SourceError::ProgramMissing { program: "git", package: "git" };
    let path = ("PATH".into(), std::env::var_os("PATH").unwrap_or_default());
    let finished = run_git(Path::new("/"), &["--version".into()], &[path], Duration::from_secs(10))
        .await
        .map_err(|_| missing())?;
    let text = String::from_utf8_lossy(&finished.stdout).trim().trim_start_matches("git version ").to_owned();
    let version = parse_version(&text).ok_or_else(missing)?;
    if (version.major, version.minor) < OLDEST_GIT {
        return Err(SourceError::ProgramTooOld { found: text, needed: "2.31" });
    }
    Ok(version)
}

fn parse_version(text: &str) -> Option<GitVersion> {
    let mut numbers = text.split(['.', '-', ' ']).map(str::parse::<u32>);
    let major = numbers.next()?.ok()?;
    let minor = numbers.next()?.ok()?;
    Some(GitVersion { major, minor, text: text.to_owned() })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;
    use std::time::Instant;

    fn environment() -> Vec<(OsString, OsString)> {
        vec![("PATH".into(), std::env::var_os("PATH").unwrap())]
    }

    /// `git` runs a shell for us through an alias: a process with a child, as with ssh.
    fn shell(script: &str) -> Vec<OsString> {
        ["-c", &format!("alias.x=!{script}"), "x"].iter().map(OsString::from).collect()
    }

    #[tokio::test]
    async fn a_deadline_ends_the_whole_group() {
        let dir = tempfile::tempdir().unwrap();
        let pid_file = dir.path().join("pid");
        let script = format!("echo $$ > {}; sleep 600; true", pid_file.display());
        let started = Instant::now();
        let result = run_git(dir.path(), &shell(&script), &environment(), Duration::from_millis(500)).await;
        assert!(matches!(result, Err(Unfinished::TimedOut)));
        assert!(started.elapsed() < Duration::from_secs(5));
        gone(&std::fs::read_to_string(pid_file).unwrap()).await;
    }

    #[tokio::test]
    async fn a_caller_that_goes_away_ends_the_whole_group() {
        let dir = tempfile::tempdir().unwrap();
        let pid_file = dir.path().join("pid");
        let script = format!("echo $$ > {}; sleep 600; true", pid_file.display());
        let (path, arguments) = (dir.path().to_owned(), shell(&script));
        let task = tokio::spawn(async move {
            run_git(&path, &arguments, &environment(), Duration::from_secs(600)).await.map(|_| ())
        });
        let pid = loop {
            if let Ok(pid) = std::fs::read_to_string(&pid_file)
                && pid.ends_with('\n')
            {
                break pid;
            }
            tokio::task::yield_now().await;
        };
        task.abort();
        gone(&pid).await;
    }

    /// Waits until a process is gone, or dead and not yet collected by its parent.
    async fn gone(pid: &str) {
        let stat = format!("/proc/{}/stat", pid.trim());
        let limit = Instant::now() + Duration::from_secs(10);
        while std::fs::read_to_string(&stat).is_ok_and(|stat| !stat.contains(") Z ")) {
            assert!(Instant::now() < limit, "process {pid} still runs");
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn nothing_of_our_environment_reaches_git() {
        let finished = run_git(Path::new("/"), &shell("env"), &environment(), Duration::from_secs(10)).await;
        let text = String::from_utf8(finished.map_err(|_| ()).unwrap().stdout).unwrap();
        assert!(!text.contains("CARGO"), "{text}");
    }

    #[tokio::test]
    async fn versions_are_compared_as_numbers() {
        assert!(git_version().await.is_ok());
        let version = parse_version("2.39.5 (Apple Git-154)").unwrap();
        assert_eq!((version.major, version.minor), (2, 39));
        assert!(parse_version("2.9.1").unwrap() < parse_version("2.31.0").unwrap());
        assert!(parse_version("nonsense").is_none());
    }
}
