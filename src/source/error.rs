//! Everything that can go wrong between a Repository and its commit, told apart by what somebody has to do about it.

use super::commit::InvalidCommitId;
use super::credentials::CredentialsError;
use std::path::PathBuf;
use std::time::Duration;

/// Why a repository could not be read. No variant holds a password, and no URL in one does.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The URL cannot be read.
    #[error("the URL \"{url}\" cannot be used: {reason}")]
    InvalidUrl {
        /// The URL, without what stands before `@`.
        url: String,
        /// What is wrong.
        reason: String,
    },
    /// A directory is named, and directories are not allowed.
    #[error(
        "{url} is a directory of the machine that the daemon runs on; start the daemon with --allow-file-repos to allow \
         this, or use an https or ssh URL"
    )]
    FileNotAllowed {
        /// The directory.
        url: String,
    },
    /// An unprotected URL that leaves the cluster.
    #[error(
        "{url} is not encrypted, so anybody on the way could change what is deployed; use https:// or ssh://"
    )]
    PlainHttp {
        /// The URL.
        url: String,
    },
    /// The URL holds a password. It is refused, because URLs are shown to everybody.
    #[error(
        "the URL {url} holds a password, which everybody who may read it sees; put it into a Secret and name that in secretRef"
    )]
    PasswordInUrl {
        /// The URL, without the password.
        url: String,
    },
    /// The Secret with credentials cannot be used.
    #[error("the credentials for {url} cannot be used: {source}")]
    Credentials {
        /// The repository.
        url: String,
        /// What is missing or wrong.
        #[source]
        source: CredentialsError,
    },
    /// A commit is named by something that is no full id.
    #[error(transparent)]
    InvalidCommit(#[from] InvalidCommitId),
    /// `ref.semver` is no range.
    #[error("\"{range}\" is no range of versions ({reason}); examples: `1.x`, `>=1.2 <2`, `~1.4.0`, `*`")]
    InvalidRange {
        /// What stands there.
        range: String,
        /// What is wrong.
        reason: String,
    },

    /// The remote wants to know who we are, and does not take what it got.
    #[error("{url} refuses the credentials: {hint}")]
    Unauthorized {
        /// The repository.
        url: String,
        /// What was sent, and what to do.
        hint: String,
    },
    /// The remote knows who we are, and says no.
    #[error("{url} denies access (403): give the account of these credentials read access to the repository")]
    Forbidden {
        /// The repository.
        url: String,
    },
    /// `known_hosts` has no key for the host.
    #[error(
        "the ssh host key of {host} is unknown: add a line for it to `known_hosts` in the Secret (`ssh-keyscan` prints it; \
         compare it with what the host publishes)"
    )]
    HostKeyUnknown {
        /// Host and port.
        host: String,
    },
    /// The host shows another key than `known_hosts` has.
    #[error(
        "the ssh host key of {host} is not the one in `known_hosts`: either the host was set up anew, or somebody stands in \
         between; ask its owner before you replace the key in the Secret"
    )]
    HostKeyChanged {
        /// Host and port.
        host: String,
    },
    /// The certificate of the host is not trusted.
    #[error(
        "the certificate of {host} is not trusted: {detail}; put the authority that signed it under `ca.crt` in the Secret"
    )]
    CertificateUntrusted {
        /// Host and port.
        host: String,
        /// What Git said.
        detail: String,
    },

    /// The name of the host does not resolve.
    #[error("the host {host} is not found: check the URL, or the name servers of this machine")]
    HostNotFound {
        /// Host and port.
        host: String,
    },
    /// Nothing answers at the host.
    #[error("{host} cannot be reached: {detail}; it is tried again")]
    Unreachable {
        /// Host and port.
        host: String,
        /// What Git said.
        detail: String,
    },
    /// The remote took longer than it may.
    #[error("{url} did not finish {what} within {}; it is tried again", in_seconds(*limit))]
    TimedOut {
        /// The repository.
        url: String,
        /// `listing its refs`, `sending a commit`.
        what: &'static str,
        /// The limit.
        limit: Duration,
    },
    /// The remote failed by itself (HTTP 429, 5xx).
    #[error("{url} failed: {detail}; it is tried again")]
    RemoteFailed {
        /// The repository.
        url: String,
        /// What Git said.
        detail: String,
    },
    /// The remote sends us elsewhere; credentials do not follow.
    #[error("{url} has moved{}: put the new URL into the Repository (credentials are not sent to where a host points)", to.as_ref().map(|to| format!(" to {to}")).unwrap_or_default())]
    Redirected {
        /// The repository.
        url: String,
        /// Where it points, when it said so.
        to: Option<String>,
    },

    /// The remote has no such repository, or hides it from us.
    #[error("{url} is no repository, or these credentials may not see it: check the URL and the credentials")]
    RepositoryNotFound {
        /// The repository.
        url: String,
    },
    /// The repository has no commit yet.
    #[error("{url} is empty: push a first commit")]
    Empty {
        /// The repository.
        url: String,
    },
    /// The branch or tag does not exist and, as far as we know, never did.
    #[error("{url} has no {kind} \"{name}\"{}", near_text(near))]
    RefNotFound {
        /// The repository.
        url: String,
        /// `branch` or `tag`.
        kind: &'static str,
        /// Its name.
        name: String,
        /// What exists, nearest first.
        near: Vec<String>,
    },
    /// The branch or tag was there at an earlier poll.
    #[error(
        "the {kind} \"{name}\" of {url} was deleted (it was at {last}): nothing changes in the cluster until it is back or \
         the Repository names another{}",
        near_text(near)
    )]
    RefDeleted {
        /// The repository.
        url: String,
        /// `branch` or `tag`.
        kind: &'static str,
        /// Its name.
        name: String,
        /// The commit that it had.
        last: String,
        /// What exists, nearest first.
        near: Vec<String>,
    },
    /// No tag is a version within the range.
    #[error("{url} has no tag within \"{range}\"{}", near_text(near))]
    NoVersion {
        /// The repository.
        url: String,
        /// The range.
        range: String,
        /// The newest versions that exist.
        near: Vec<String>,
    },
    /// The remote does not have the commit, or does not give it away.
    #[error(
        "{url} has no commit {id}, or it is not reachable from a branch or tag any more: push it, or name another"
    )]
    CommitNotFound {
        /// The repository.
        url: String,
        /// Its id.
        id: String,
    },
    /// A tag points to something that is no commit.
    #[error("the tag \"{name}\" of {url} does not point to a commit; name another")]
    NotACommit {
        /// The repository.
        url: String,
        /// The tag.
        name: String,
    },
    /// The repository uses SHA-256 ids.
    #[error(
        "{url} uses SHA-256 object ids, which are not understood: use a repository in Git's default format"
    )]
    ObjectFormat {
        /// The repository.
        url: String,
    },

    /// The commit is not in the mirror.
    #[error("the commit {id} is not in the mirror of {url}: it has to be fetched first")]
    NotMirrored {
        /// The repository.
        url: String,
        /// Its id.
        id: String,
    },
    /// The mirror is damaged; the next poll makes it anew.
    #[error("the mirror of {url} in {} is damaged ({detail}); it is made anew at the next poll", path.display())]
    Damaged {
        /// The repository.
        url: String,
        /// Where the mirror is.
        path: PathBuf,
        /// What was seen.
        detail: String,
    },
    /// Another process works on the mirror.
    #[error("another process has been working on the mirror in {} for {}; it is tried again", path.display(), in_seconds(*waited))]
    Busy {
        /// Where the mirror is.
        path: PathBuf,
        /// How long we waited.
        waited: Duration,
    },
    /// The cache directory cannot be written.
    #[error("the cache {} cannot be written: {source}; set --cache-dir to a directory that belongs to this process", path.display())]
    CacheNotWritable {
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The disk of the cache directory is full.
    #[error("the disk of the cache {} is full: give it more room", path.display())]
    CacheFull {
        /// The directory.
        path: PathBuf,
    },

    /// No `git`, or no `ssh`.
    #[error("the program `{program}` is not found: install it (package {package}) or set PATH")]
    ProgramMissing {
        /// The program.
        program: &'static str,
        /// Its usual package.
        package: &'static str,
    },
    /// The `git` here is too old.
    #[error("git {found} is too old: {needed} or newer is needed")]
    ProgramTooOld {
        /// What `git --version` says.
        found: String,
        /// The oldest that works.
        needed: &'static str,
    },
    /// A directory cannot be watched.
    #[error("{} cannot be watched for changes ({reason}); it is polled instead", path.display())]
    Watch {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        reason: String,
    },
    /// What an Application was once is not kept any more.
    #[error(
        "{object}, which kept the revision {id}, is gone or was changed: apply the Application as it was then once more"
    )]
    RevisionGone {
        /// The object that kept it.
        object: String,
        /// The revision.
        id: String,
    },
    /// What an Application was once could not be read.
    #[error("{object} could not be read: {detail}; it is tried again")]
    RevisionUnread {
        /// The object that keeps it.
        object: String,
        /// What the API server said.
        detail: String,
    },
    /// Git failed with something that none of the above is.
    #[error("git failed {what} of {url}: {detail}")]
    Git {
        /// The repository.
        url: String,
        /// `listing the refs`, `fetching a commit`.
        what: &'static str,
        /// What Git said, without secrets.
        detail: String,
    },
}

impl SourceError {
    /// True when trying again may help without anybody doing anything.
    pub fn is_transient(&self) -> bool {
        matches!(
            self,
            Self::HostNotFound { .. }
                | Self::Unreachable { .. }
                | Self::TimedOut { .. }
                | Self::RemoteFailed { .. }
                | Self::NotMirrored { .. }
                | Self::Damaged { .. }
                | Self::Busy { .. }
                | Self::CacheFull { .. }
                | Self::RevisionUnread { .. }
                | Self::Git { .. }
        )
    }

    /// A word for a condition or a metric.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::InvalidUrl { .. } | Self::PasswordInUrl { .. } => "InvalidURL",
            Self::FileNotAllowed { .. } => "FileNotAllowed",
            Self::PlainHttp { .. } => "NotEncrypted",
            Self::Credentials { .. } => "InvalidCredentials",
            Self::InvalidCommit(_) | Self::InvalidRange { .. } => "InvalidReference",
            Self::Unauthorized { .. } => "Unauthorized",
            Self::Forbidden { .. } => "Forbidden",
            Self::HostKeyUnknown { .. } => "HostKeyUnknown",
            Self::HostKeyChanged { .. } => "HostKeyChanged",
            Self::CertificateUntrusted { .. } => "CertificateUntrusted",
            Self::HostNotFound { .. } | Self::Unreachable { .. } => "Unreachable",
            Self::TimedOut { .. } => "TimedOut",
            Self::RemoteFailed { .. } => "RemoteFailed",
            Self::Redirected { .. } => "Redirected",
            Self::RepositoryNotFound { .. } => "RepositoryNotFound",
            Self::Empty { .. } => "EmptyRepository",
            Self::RefNotFound { .. } | Self::NoVersion { .. } | Self::NotACommit { .. } => {
                "ReferenceNotFound"
            }
            Self::RefDeleted { .. } => "ReferenceDeleted",
            Self::CommitNotFound { .. } | Self::NotMirrored { .. } => "CommitNotFound",
            Self::RevisionGone { .. } => "RevisionGone",
            Self::RevisionUnread { .. } => "RevisionUnreadable",
            Self::ObjectFormat { .. } => "UnsupportedFormat",
            Self::Damaged { .. } => "MirrorDamaged",
            Self::Busy { .. } => "MirrorBusy",
            Self::CacheNotWritable { .. } | Self::CacheFull { .. } => "CacheUnusable",
            Self::ProgramMissing { .. } | Self::ProgramTooOld { .. } => "ProgramMissing",
            Self::Watch { .. } => "WatchFailed",
            Self::Git { .. } => "GitFailed",
        }
    }
}

fn near_text(near: &[String]) -> String {
    match near {
        [] => "; it has none at all".to_owned(),
        names => format!("; it has {}", names.join(", ")),
    }
}

fn in_seconds(duration: Duration) -> String {
    let seconds = duration.as_secs_f64();
    if seconds < 10.0 { format!("{seconds:.1} s") } else { format!("{seconds:.0} s") }
}
