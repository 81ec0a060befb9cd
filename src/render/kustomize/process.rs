//! The process of the binary: where it is found, what it may see, and how it is stopped.

use crate::render::Options;
use crate::render::error::RenderError;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use tokio::io::{AsyncRead, AsyncReadExt};

/// Bytes of its error output that are kept.
const MAX_STDERR: u64 = 64 << 10;

/// Characters of its message that are told.
const MAX_MESSAGE: usize = 1500;

/// Environment variable that names the binary.
pub const BINARY_ENV: &str = "WINDLASS_KUSTOMIZE";

/// The binary: the one that a flag names, else the one of `WINDLASS_KUSTOMIZE`, else `kustomize` of the search path.
/// When there is none it is named as it would be looked for, and rendering that needs it says so.
pub fn find_binary(flag: Option<&Path>) -> PathBuf {
    if let Some(path) = flag {
        return path.to_owned();
    }
    if let Some(path) = std::env::var_os(BINARY_ENV).filter(|p| !p.is_empty()) {
        return path.into();
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .map(|dir| dir.join("kustomize"))
        .find(|candidate| candidate.is_file())
        .unwrap_or_else(|| "kustomize".into())
}

/// Where the files of the repository stand in a workspace.
pub(super) fn repository(root: &Path) -> PathBuf {
    root.join("repository")
}

/// The home directory that the process gets.
pub(super) fn home(root: &Path) -> PathBuf {
    root.join("home")
}

/// Runs `kustomize build` on a directory of a workspace and returns what it prints.
pub(super) async fn run(
    root: &Path,
    dir: &str,
    file: &str,
    options: &Options,
) -> Result<Vec<u8>, RenderError> {
    let missing = |error: std::io::Error| RenderError::KustomizeMissing {
        path: dir.into(),
        binary: options.kustomize_binary.display().to_string(),
        message: error.to_string(),
    };
    // Relative names are looked for from here, not from the workspace that the process runs in.
    let binary = std::path::absolute(&options.kustomize_binary).map_err(missing)?;
    let mut command = tokio::process::Command::new(binary);
    command
        .arg("build")
        .arg(super::below(root, dir))
        .args(["--load-restrictor", "LoadRestrictionsRootOnly"])
        .current_dir(repository(root))
        .env_clear()
        // No git and no helm can be found, and what speaks HTTP by itself speaks to a closed port.
        .env("PATH", "")
        .env("HOME", home(root))
        .env("TMPDIR", home(root))
        .env("XDG_CONFIG_HOME", home(root))
        .env("HTTP_PROXY", "http://127.0.0.1:1")
        .env("HTTPS_PROXY", "http://127.0.0.1:1")
        .env("GOMEMLIMIT", "512MiB")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true);
    let mut child = command.spawn().map_err(missing)?;
    limit_memory(&child);
    let group = Group(child.id());
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let limit = options.limits.total_bytes;
    let work = async {
        let (stdout, stderr) = tokio::join!(read_up_to(stdout, limit + 1), read_up_to(stderr, MAX_STDERR));
        let stdout = stdout?;
        if stdout.len() as u64 > limit {
            return Ok(None);
        }
        let (stderr, status) = (stderr?, child.wait().await?);
        group.ended();
        Ok::<_, std::io::Error>(Some((stdout, stderr, status)))
    };
    let refused = |message: String| RenderError::Kustomize { path: file.into(), message };
    match tokio::time::timeout(options.timeout, work).await {
        Err(_) => {
            Err(RenderError::KustomizeTimeout { path: file.into(), seconds: options.timeout.as_secs() })
        }
        Ok(Err(error)) => Err(refused(error.to_string())),
        Ok(Ok(None)) => Err(RenderError::TooMuch { path: file.into(), what: "bytes of output", limit }),
        Ok(Ok(Some((stdout, _, status)))) if status.success() => Ok(stdout),
        Ok(Ok(Some((_, stderr, status)))) => {
            let message = message(&String::from_utf8_lossy(&stderr), root);
            Err(refused(if message.is_empty() { format!("ended with {status}") } else { message }))
        }
    }
}

/// The process and all that it started, which is nothing unless the binary is another than expected. Killed when
/// dropped, so also when the caller goes away.
struct Group(Option<u32>);

impl Group {
    /// The process was collected: its number may be another's from now on.
    fn ended(mut self) {
        self.0 = None;
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(pid) = self.0.and_then(|id| rustix::process::Pid::from_raw(id.cast_signed())) {
            // It fails only when nothing of the group is left.
            let _ = rustix::process::kill_process_group(pid, rustix::process::Signal::KILL);
        }
    }
}

/// Address space that the process may take; the Go runtime reserves a good gigabyte before it does anything.
#[cfg(target_os = "linux")]
const ADDRESS_SPACE: u64 = 4 << 30;

/// Sets the limit right after the start, before the process has read anything worth mentioning. Where the system refuses,
/// the limits of time and output remain.
#[cfg(target_os = "linux")]
fn limit_memory(child: &tokio::process::Child) {
    use rustix::process::{Pid, Resource, Rlimit, prlimit};
    let Some(pid) = child.id().and_then(|id| Pid::from_raw(id.cast_signed())) else { return };
    let limit = Rlimit { current: Some(ADDRESS_SPACE), maximum: Some(ADDRESS_SPACE) };
    if let Err(error) = prlimit(Some(pid), Resource::As, limit) {
        tracing::debug!(%error, "kustomize runs without a limit of memory");
    }
}

#[cfg(not(target_os = "linux"))]
fn limit_memory(_: &tokio::process::Child) {}

async fn read_up_to(stream: Option<impl AsyncRead + Unpin>, limit: u64) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    if let Some(stream) = stream {
        stream.take(limit).read_to_end(&mut bytes).await?;
    }
    Ok(bytes)
}

/// What the process complained of, with paths as they stand in the repository.
fn message(stderr: &str, root: &Path) -> String {
    let repository = repository(root).display().to_string();
    let text = stderr.replace(&format!("{repository}/"), "").replace(&repository, "the repository's root");
    let lines: Vec<&str> =
        text.lines().map(str::trim).filter(|l| !l.is_empty() && !l.starts_with("# Warning")).collect();
    let text = lines.join(" ");
    let text = text.strip_prefix("Error: ").unwrap_or(&text);
    text.chars().take(MAX_MESSAGE).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_have_the_paths_of_the_repository() {
        let root = Path::new("/tmp/windlass-render-x");
        let text = "# Warning: 'vars' is deprecated\nError: accumulating resources from '/tmp/windlass-render-x/repository/apps/a': no 'x' in '/tmp/windlass-render-x/repository'\n";
        assert_eq!(
            message(text, root),
            "accumulating resources from 'apps/a': no 'x' in 'the repository's root'"
        );
    }
}
