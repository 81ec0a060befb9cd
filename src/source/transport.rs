//! What is asked of a remote: its refs, and commits. Each question is one run of `git` in an environment that holds
//! nothing but what this question needs.

use super::commit::CommitId;
use super::credentials::Credentials;
use super::error::SourceError;
use super::failure::{self, Attempt};
use super::process::{self, Finished, Unfinished};
use super::reference::{Advertised, parse_listing};
use super::url::{RemoteUrl, Scheme};
use std::ffi::OsString;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tempfile::TempDir;

/// How long a remote may take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// To connect and to list its refs. Default 20 s.
    pub listing: Duration,
    /// To send a commit. Default 5 min.
    pub fetch: Duration,
    /// To tidy the mirror up (no remote takes part in that). Default 10 min.
    pub maintenance: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            listing: Duration::from_secs(20),
            fetch: Duration::from_secs(5 * 60),
            maintenance: Duration::from_secs(10 * 60),
        }
    }
}

/// Which refs are listed. Servers with a hundred thousand refs for pull requests then send only these.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Listed {
    Head,
    Branches,
    Tags,
}

/// How much history comes along with a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Depth {
    Last(u32),
    Everything,
}

/// Why a fetch brought nothing.
#[derive(Debug)]
pub(super) enum FetchFailure {
    /// The ref is gone since it was listed.
    RefGone,
    /// The remote has no such object.
    NoSuchObject,
    /// The remote gives away only what a ref points to.
    IdsRefused,
    /// The remote cannot cut history.
    DepthRefused,
    /// Our own mirror is damaged.
    Damage(String),
    /// Anything else.
    Other(SourceError),
}

/// What became of a push.
#[derive(Debug)]
pub(super) enum PushOutcome {
    /// The remote has it.
    Done,
    /// The branch is not what it was any more, or is there already.
    Moved,
    /// The server says no to this branch, in these words: it is protected.
    Refused(String),
    /// The server says no to any push of ours.
    Forbidden(String),
}

/// A remote, and who we are to it.
pub(super) struct Remote<'a> {
    pub(super) url: &'a RemoteUrl,
    pub(super) credentials: &'a Credentials,
    pub(super) limits: &'a Limits,
    /// The directory of the mirror: ours alone while the caller holds its lock.
    pub(super) directory: &'a Path,
}

impl Remote<'_> {
    /// Lists refs.
    pub(super) async fn list(&self, listed: Listed) -> Result<Advertised, SourceError> {
        let what = "listing its refs";
        let mut arguments: Vec<OsString> = vec!["ls-remote".into(), "--quiet".into()];
        match listed {
            Listed::Head => arguments.push("--symref".into()),
            Listed::Branches => arguments.push("--heads".into()),
            Listed::Tags => arguments.push("--tags".into()),
        }
        arguments.extend(["--".into(), self.url.for_git().into()]);
        if listed == Listed::Head {
            arguments.push("HEAD".into());
        }
        let finished = self.run(&arguments, None, self.limits.listing, what).await?;
        if !finished.success {
            return Err(self.classify(&finished.stderr, "listing the refs").await);
        }
        parse_listing(&finished.stdout, self.url)
    }

    /// Fetches what `refspecs` name into the bare repository `store`.
    pub(super) async fn fetch(
        &self,
        store: &Path,
        refspecs: &[String],
        depth: Depth,
    ) -> Result<(), FetchFailure> {
        let mut arguments: Vec<OsString> = [
            "fetch",
            "--quiet",
            "--force",
            "--no-tags",
            "--no-recurse-submodules",
            "--no-write-fetch-head",
            "--no-auto-maintenance",
            "--no-show-forced-updates",
            "--refmap=",
        ]
        .map(OsString::from)
        .to_vec();
        match depth {
            Depth::Last(commits) => arguments.push(format!("--depth={commits}").into()),
            Depth::Everything if store.join("shallow").exists() => arguments.push("--unshallow".into()),
            Depth::Everything => {}
        }
        arguments.extend(["--".into(), self.url.for_git().into()]);
        arguments.extend(refspecs.iter().map(OsString::from));
        let finished = self
            .run(&arguments, Some(store), self.limits.fetch, "sending a commit")
            .await
            .map_err(FetchFailure::Other)?;
        let stderr = &finished.stderr;
        Err(match () {
            () if finished.success => return Ok(()),
            () if failure::lacks_ref(stderr) => FetchFailure::RefGone,
            () if failure::lacks_object(stderr) => FetchFailure::NoSuchObject,
            () if failure::refuses_ids(stderr) => FetchFailure::IdsRefused,
            () if failure::refuses_depth(stderr) => FetchFailure::DepthRefused,
            () if failure::is_damage(stderr) => FetchFailure::Damage(failure::clean(stderr, &[])),
            () => FetchFailure::Other(self.classify(stderr, "fetching a commit").await),
        })
    }

    /// Pushes a commit of the repository `store` to a branch, never by force. A push is small, so it gets the time of a
    /// listing.
    pub(super) async fn push(
        &self,
        store: &Path,
        commit: &str,
        branch: &str,
    ) -> Result<PushOutcome, SourceError> {
        let mut arguments: Vec<OsString> =
            ["push", "--porcelain", "--no-verify", "--no-follow-tags", "--recurse-submodules=no", "--"]
                .map(OsString::from)
                .to_vec();
        arguments.push(self.url.for_git().into());
        arguments.push(format!("{commit}:refs/heads/{branch}").into());
        let finished = self.run(&arguments, Some(store), self.limits.listing, "taking a push").await?;
        if finished.success {
            return Ok(PushOutcome::Done);
        }
        let stderr = &finished.stderr;
        let secrets = self.credentials.secrets(self.url);
        let words = || failure::clean(stderr, &secrets);
        match rejection(&finished.stdout) {
            Some(Rejection::Moved) => return Ok(PushOutcome::Moved),
            Some(Rejection::Refused(summary)) => {
                let said: Vec<&str> = stderr
                    .lines()
                    .filter_map(|line| line.strip_prefix("remote: "))
                    .map(str::trim)
                    .filter(|line| !line.is_empty())
                    .take(3)
                    .collect();
                let said = if said.is_empty() { summary } else { format!("{summary}: {}", said.join(" ")) };
                return Ok(PushOutcome::Refused(failure::clean(&said, &secrets)));
            }
            None => {}
        }
        if failure::forbids_push(stderr) {
            return Ok(PushOutcome::Forbidden(words()));
        }
        match self.classify(stderr, "pushing a commit").await {
            SourceError::Forbidden { .. } | SourceError::Unauthorized { .. } => {
                Ok(PushOutcome::Forbidden(words()))
            }
            error => Err(error),
        }
    }

    /// Packs the mirror into one pack and drops what no ref holds.
    pub(super) async fn collect_garbage(&self, store: &Path) -> Result<(), SourceError> {
        // A later date than now would leave unreachable objects behind as loose ones.
        let arguments = ["gc", "--quiet", "--prune=now"].map(OsString::from);
        let finished =
            self.run(&arguments, Some(store), self.limits.maintenance, "tidying its mirror up").await?;
        if finished.success {
            Ok(())
        } else {
            Err(self.classify(&finished.stderr, "tidying the mirror up").await)
        }
    }

    async fn run(
        &self,
        arguments: &[OsString],
        store: Option<&Path>,
        limit: Duration,
        what: &'static str,
    ) -> Result<Finished, SourceError> {
        // Lives as long as the process: holds its key and its configuration, and is removed with it.
        let private = Private::new(self)?;
        let environment = private.environment(self, store, limit);
        let directory = store.unwrap_or(private.directory.path());
        process::run_git(directory, arguments, &environment, limit).await.map_err(|error| match error {
            Unfinished::NotStarted(source) if !directory.exists() => {
                SourceError::CacheNotWritable { path: directory.to_owned(), source }
            }
            Unfinished::NotStarted(_) => SourceError::ProgramMissing { program: "git", package: "git" },
            Unfinished::TimedOut => SourceError::TimedOut { url: self.url.to_string(), what, limit },
            Unfinished::TooMuchOutput => SourceError::Git {
                url: self.url.to_string(),
                what: "listing the refs",
                detail: "it has more refs than can be read".to_owned(),
            },
            Unfinished::Io(error) => SourceError::Git {
                url: self.url.to_string(),
                what: "reading what it says",
                detail: error.to_string(),
            },
        })
    }

    /// Says what a failed run means. A redirection is asked once more where it leads.
    async fn classify(&self, stderr: &str, what: &'static str) -> SourceError {
        let attempt = Attempt { url: self.url, credentials: self.credentials, cache: self.directory, what };
        match failure::classify(stderr, &attempt) {
            SourceError::Redirected { url, to: None } => {
                SourceError::Redirected { url, to: self.destination().await }
            }
            other => other,
        }
    }

    /// Where the remote points to, from a traced listing (Git redacts credentials in the trace).
    async fn destination(&self) -> Option<String> {
        let private = Private::new(self).ok()?;
        let mut environment = private.environment(self, None, self.limits.listing);
        environment.push(("GIT_TRACE_CURL".into(), "1".into()));
        environment.push(("GIT_TRACE_CURL_NO_DATA".into(), "1".into()));
        let arguments = ["ls-remote".into(), "--".into(), self.url.for_git().into()];
        let finished =
            process::run_git(private.directory.path(), &arguments, &environment, self.limits.listing)
                .await
                .ok()?;
        let location = finished.stderr.lines().find_map(|line| {
            let at = line.to_ascii_lowercase().find("recv header: location: ")?;
            line.get(at + "recv header: location: ".len()..)
        })?;
        let url = location.trim().split("/info/refs").next()?;
        RemoteUrl::parse(url, false).ok().map(|url| url.to_string())
    }
}

/// Why one ref was not taken.
#[derive(Debug, PartialEq, Eq)]
enum Rejection {
    Moved,
    Refused(String),
}

/// Reads what `git push --porcelain` prints of one ref: `!`, the refspec and a summary, between tabs.
fn rejection(stdout: &[u8]) -> Option<Rejection> {
    let stdout = String::from_utf8_lossy(stdout);
    let summary =
        stdout.lines().find_map(|line| line.strip_prefix("!\t")?.split_once('\t').map(|(_, s)| s))?;
    // The server lost a race with somebody else's push.
    let raced = ["failed to update ref", "cannot lock ref", "incorrect old value", "fetch first"];
    Some(match summary.strip_prefix("[remote rejected]") {
        Some(why) if !raced.iter().any(|part| why.contains(part)) => {
            Rejection::Refused(why.trim().trim_matches(['(', ')']).to_owned())
        }
        _ if summary.starts_with("[remote failure]") => Rejection::Refused("the server failed".to_owned()),
        _ => Rejection::Moved,
    })
}

/// The directory of one process: its empty HOME, its configuration, its key. Only we may read it.
struct Private {
    directory: TempDir,
    ca: Option<PathBuf>,
    ssh: Option<OsString>,
}

/// Where private directories stand in the directory of a mirror. What is left there by a process that was killed is
/// removed by the next one that holds the mirror's lock.
pub(super) const PRIVATE: &str = "private";

impl Private {
    fn new(remote: &Remote<'_>) -> Result<Self, SourceError> {
        let parent = remote.directory.join(PRIVATE);
        let unwritable = |source| SourceError::CacheNotWritable { path: parent.clone(), source };
        fs::create_dir_all(&parent).map_err(unwritable)?;
        // Mode 0700, as a private key wants it.
        let directory = tempfile::Builder::new().prefix("git-").tempdir_in(&parent).map_err(unwritable)?;
        let write = |name: &str, content: &str| -> io::Result<PathBuf> {
            let path = directory.path().join(name);
            let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
            file.write_all(content.as_bytes())?;
            // ssh refuses a key without a newline at its end.
            file.write_all(b"\n")?;
            Ok(path)
        };
        // `safe.directory` counts only from a file: Git hides other configuration from the `git-upload-pack` that it
        // starts for a local repository, which may belong to another user.
        write("gitconfig", "[safe]\n\tdirectory = *").map_err(unwritable)?;
        let credentials = remote.credentials;
        let (mut ca, mut ssh) = (None, None);
        match remote.url.scheme() {
            Scheme::Https | Scheme::Http => {
                if let Some(pem) = &credentials.ca_certificate {
                    ca = Some(write("ca.crt", pem).map_err(unwritable)?);
                }
            }
            Scheme::Ssh => {
                let identity = credentials.ssh_identity.as_deref().unwrap_or_default().replace("\r\n", "\n");
                let identity = write("identity", &identity).map_err(unwritable)?;
                let hosts = credentials.known_hosts.as_deref().unwrap_or_default();
                let hosts = write("known_hosts", hosts).map_err(unwritable)?;
                ssh = Some(ssh_command(&identity, &hosts, remote.limits.listing));
            }
            Scheme::File => {}
        }
        Ok(Self { directory, ca, ssh })
    }

    fn environment(
        &self,
        remote: &Remote<'_>,
        store: Option<&Path>,
        limit: Duration,
    ) -> Vec<(OsString, OsString)> {
        let home = self.directory.path();
        let mut environment: Vec<(OsString, OsString)> = vec![
            (
                "PATH".into(),
                std::env::var_os("PATH").unwrap_or_else(|| "/usr/local/bin:/usr/bin:/bin".into()),
            ),
            ("HOME".into(), home.into()),
            ("LC_ALL".into(), "C".into()),
            ("GIT_CONFIG_NOSYSTEM".into(), "1".into()),
            ("GIT_CONFIG_GLOBAL".into(), home.join("gitconfig").into()),
            ("GIT_ATTR_NOSYSTEM".into(), "1".into()),
            ("GIT_TERMINAL_PROMPT".into(), "0".into()),
            ("GIT_ASKPASS".into(), "".into()),
            ("SSH_ASKPASS".into(), "".into()),
            ("GIT_ALLOW_PROTOCOL".into(), remote.url.scheme().name().into()),
            // A local repository that is itself a partial clone must not make us ask its remote.
            ("GIT_NO_LAZY_FETCH".into(), "1".into()),
        ];
        if let Some(store) = store {
            environment.push(("GIT_DIR".into(), store.into()));
        }
        if let Some(ca) = &self.ca {
            environment.push(("GIT_SSL_CAINFO".into(), ca.into()));
        }
        if let Some(ssh) = &self.ssh {
            environment.push(("GIT_SSH_COMMAND".into(), ssh.clone()));
            environment.push(("GIT_SSH_VARIANT".into(), "ssh".into()));
        }
        if !remote.url.is_loopback() {
            // Outside of this machine the way may lead over a proxy, which only the environment knows.
            for name in
                ["https_proxy", "HTTPS_PROXY", "http_proxy", "all_proxy", "ALL_PROXY", "no_proxy", "NO_PROXY"]
            {
                if let Some(value) = std::env::var_os(name) {
                    environment.push((name.into(), value));
                }
            }
        }
        let header = remote
            .credentials
            .authorization(remote.url)
            .filter(|_| matches!(remote.url.scheme(), Scheme::Https | Scheme::Http));
        let seconds = (limit.as_secs() + 5).to_string();
        let mut configuration: Vec<(&str, &str)> = vec![
            ("core.hooksPath", "/dev/null"),
            ("credential.helper", ""),
            ("protocol.version", "2"),
            // A daemon that was killed cannot kill its git; curl then gives up by itself.
            ("http.lowSpeedLimit", "1"),
            ("http.lowSpeedTime", &seconds),
            // Git sends the header to wherever it was pointed, so with a header it goes nowhere else.
            ("http.followRedirects", if header.is_some() { "false" } else { "initial" }),
            ("pack.threads", "1"),
            // Packs only: libgit2 reads a loose object that was cut short in an endless loop.
            ("fetch.unpackLimit", "1"),
            // Only what has a checksum that is looked at before libgit2 reads it.
            ("core.commitGraph", "false"),
            ("gc.writeCommitGraph", "false"),
            ("repack.writeBitmaps", "false"),
            ("pack.writeReverseIndex", "false"),
        ];
        if let Some(header) = &header {
            configuration.push(("http.extraHeader", header));
        }
        environment.push(("GIT_CONFIG_COUNT".into(), configuration.len().to_string().into()));
        for (at, (key, value)) in configuration.into_iter().enumerate() {
            environment.push((format!("GIT_CONFIG_KEY_{at}").into(), key.into()));
            environment.push((format!("GIT_CONFIG_VALUE_{at}").into(), value.into()));
        }
        environment
    }
}

/// The ssh that Git starts: our key and our hosts only, no questions, nothing of the user's configuration or agent.
fn ssh_command(identity: &Path, known_hosts: &Path, connect: Duration) -> OsString {
    let seconds = connect.as_secs().max(1);
    let options = [
        format!("UserKnownHostsFile={}", ssh_path(known_hosts)),
        "GlobalKnownHostsFile=/dev/null".to_owned(),
        "StrictHostKeyChecking=yes".to_owned(),
        "UpdateHostKeys=no".to_owned(),
        "IdentitiesOnly=yes".to_owned(),
        "IdentityAgent=none".to_owned(),
        "PreferredAuthentications=publickey".to_owned(),
        "BatchMode=yes".to_owned(),
        format!("ConnectTimeout={seconds}"),
        "ServerAliveInterval=10".to_owned(),
        "ServerAliveCountMax=3".to_owned(),
        "ClearAllForwardings=yes".to_owned(),
        "ControlPath=none".to_owned(),
        "LogLevel=ERROR".to_owned(),
    ];
    let mut command = format!("ssh -F /dev/null -i {}", shell_quoted(&ssh_path_plain(identity)));
    for option in options {
        command.push_str(" -o ");
        command.push_str(&shell_quoted(&option));
    }
    command.into()
}

/// A path as a value in ssh's configuration: quoted, since it is split at blanks, and with its `%` doubled.
fn ssh_path(path: &Path) -> String {
    format!("\"{}\"", ssh_path_plain(path))
}

fn ssh_path_plain(path: &Path) -> String {
    path.to_string_lossy().replace('%', "%%")
}

fn shell_quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}

/// The refspec that stores one commit under a name of ours.
pub(super) fn refspec_of(commit: &CommitId, name: &str) -> String {
    format!("+{commit}:{name}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_branch_that_moved_is_told_from_one_that_is_protected() {
        let said = |summary: &str| format!("To /srv/x\n!\tabc:refs/heads/main\t{summary}\nDone\n");
        let refused = |why: &str| Some(Rejection::Refused(why.into()));
        for (summary, expected) in [
            ("[rejected] (fetch first)", Some(Rejection::Moved)),
            ("[rejected] (non-fast-forward)", Some(Rejection::Moved)),
            ("[remote rejected] (failed to update ref)", Some(Rejection::Moved)),
            ("[remote rejected] (pre-receive hook declined)", refused("pre-receive hook declined")),
            ("[remote rejected] (protected branch hook declined)", refused("protected branch hook declined")),
            (
                "[remote rejected] (branch is currently checked out)",
                refused("branch is currently checked out"),
            ),
        ] {
            assert_eq!(rejection(said(summary).as_bytes()), expected, "{summary}");
        }
        assert_eq!(rejection(b"To /srv/x\n \tabc:refs/heads/main\tabc..def\nDone\n"), None);
    }
}
