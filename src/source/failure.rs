//! What Git's error text means. Git says the same with one exit code for everything, so the text has to tell.

use super::credentials::Credentials;
use super::error::SourceError;
use super::url::{RemoteUrl, Scheme};
use std::path::Path;

/// What was being done when Git failed.
pub(super) struct Attempt<'a> {
    pub(super) url: &'a RemoteUrl,
    pub(super) credentials: &'a Credentials,
    pub(super) cache: &'a Path,
    pub(super) what: &'static str,
}

/// The parts of Git's, curl's and ssh's messages (in the C locale) that tell failures apart. The first that occurs
/// decides, so what is specific stands before what also appears in other failures.
const SIGNS: &[(Sign, &[&str])] = &[
    (
        Sign::HostKeyChanged,
        &["REMOTE HOST IDENTIFICATION HAS CHANGED", "has changed and you have requested strict"],
    ),
    (Sign::HostKeyUnknown, &["Host key verification failed", "host key is known for"]),
    (Sign::KeyUnreadable, &["error in libcrypto", "incorrect passphrase supplied", "invalid format"]),
    (
        Sign::CertificateUntrusted,
        &[
            "certificate verification failed",
            "SSL certificate problem",
            "certificate subject name",
            "no alternative certificate",
            "error setting certificate",
            "does not match target host name",
        ],
    ),
    (
        Sign::Unauthorized,
        &[
            "Authentication failed",
            "could not read Username",
            "could not read Password",
            "terminal prompts disabled",
            "returned error: 401",
            "Permission denied (publickey",
            "Permission denied (password",
            "Permission denied (keyboard",
            "Too many authentication failures",
            "HTTP Basic: Access denied",
        ],
    ),
    (Sign::Forbidden, &["returned error: 403"]),
    (
        Sign::Redirected,
        &[
            "returned error: 301",
            "returned error: 302",
            "returned error: 303",
            "returned error: 307",
            "returned error: 308",
            "unable to update url base from redirection",
        ],
    ),
    (Sign::RemoteFailed, &["returned error: 429", "returned error: 5", "internal server error"]),
    (
        Sign::HostNotFound,
        &["Could not resolve host", "Name or service not known", "Temporary failure in name resolution"],
    ),
    (
        Sign::Unreachable,
        &[
            "Connection refused",
            "Failed to connect",
            "Couldn't connect",
            "No route to host",
            "Network is unreachable",
            "Connection timed out",
            "Operation timed out",
            "Connection reset",
            "Connection closed by",
            "Empty reply from server",
            "The TLS connection was non-properly terminated",
            "SSL connection timeout",
            "kex_exchange_identification",
            "Operation too slow",
        ],
    ),
    (Sign::CacheFull, &["No space left on device", "Disk quota exceeded"]),
    (
        Sign::CacheNotWritable,
        &[
            "Read-only file system",
            "insufficient permission for adding an object",
            "Unable to create temporary file",
        ],
    ),
    (Sign::SshMissing, &["cannot run ssh", "ssh: not found", "ssh: command not found"]),
    (Sign::HttpsMissing, &["Unable to find remote helper", "is not a git command"]),
    (Sign::ShaFormat, &["mismatched algorithms", "unknown object format", "unsupported object format"]),
    (
        Sign::RepositoryNotFound,
        &[
            "does not appear to be a git repository",
            "epository not found",
            "returned error: 404",
            "' not found",
            "could not be found",
            "No such file or directory",
            "not exported",
        ],
    ),
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sign {
    HostKeyChanged,
    HostKeyUnknown,
    KeyUnreadable,
    CertificateUntrusted,
    Unauthorized,
    Forbidden,
    Redirected,
    RemoteFailed,
    HostNotFound,
    Unreachable,
    CacheFull,
    CacheNotWritable,
    SshMissing,
    HttpsMissing,
    ShaFormat,
    RepositoryNotFound,
}

fn sign(text: &str) -> Option<Sign> {
    SIGNS.iter().find(|(_, parts)| parts.iter().any(|part| text.contains(part))).map(|(sign, _)| *sign)
}

/// Turns the error text of a failed run into what happened.
pub(super) fn classify(stderr: &str, attempt: &Attempt<'_>) -> SourceError {
    let url = attempt.url.to_string();
    let host = attempt.url.host();
    let detail = clean(stderr, &attempt.credentials.secrets(attempt.url));
    match sign(stderr) {
        Some(Sign::HostKeyChanged) => SourceError::HostKeyChanged { host },
        Some(Sign::HostKeyUnknown) => SourceError::HostKeyUnknown { host },
        Some(Sign::KeyUnreadable) => SourceError::Unauthorized {
            url,
            hint:
                "the key under `identity` cannot be read by ssh; make a new one with `ssh-keygen -t ed25519`"
                    .to_owned(),
        },
        Some(Sign::CertificateUntrusted) => SourceError::CertificateUntrusted { host, detail },
        Some(Sign::Unauthorized) => SourceError::Unauthorized { hint: unauthorized_hint(attempt), url },
        Some(Sign::Forbidden) => SourceError::Forbidden { url },
        Some(Sign::Redirected) => SourceError::Redirected { url, to: None },
        Some(Sign::RemoteFailed) => SourceError::RemoteFailed { url, detail },
        Some(Sign::HostNotFound) => SourceError::HostNotFound { host },
        Some(Sign::Unreachable) => SourceError::Unreachable { host, detail },
        Some(Sign::CacheFull) => SourceError::CacheFull { path: attempt.cache.to_owned() },
        Some(Sign::CacheNotWritable) => SourceError::CacheNotWritable {
            path: attempt.cache.to_owned(),
            source: std::io::Error::other(detail),
        },
        Some(Sign::SshMissing) => SourceError::ProgramMissing { program: "ssh", package: "openssh-client" },
        Some(Sign::HttpsMissing) => {
            SourceError::ProgramMissing { program: "git-remote-https", package: "git" }
        }
        Some(Sign::ShaFormat) => SourceError::ObjectFormat { url },
        Some(Sign::RepositoryNotFound) => SourceError::RepositoryNotFound { url },
        None => SourceError::Git { url, what: attempt.what, detail },
    }
}

fn unauthorized_hint(attempt: &Attempt<'_>) -> String {
    let given = attempt.credentials.any_for(attempt.url);
    match (attempt.url.scheme(), given) {
        (Scheme::Ssh, _) => "it does not accept the key under `identity`; add the public key to the repository's deploy keys",
        (_, true) if attempt.credentials.bearer_token.is_some() => {
            "the token under `bearerToken` is wrong or has expired (GitHub, GitLab and Gitea want it as `password`)"
        }
        (_, true) => "`username` or `password` is wrong, or the token has expired",
        (_, false) => "it wants some and none are given; name a Secret in secretRef",
    }
    .to_owned()
}

/// True when the error text says that these credentials may read and not push.
pub(super) fn forbids_push(stderr: &str) -> bool {
    let text = stderr.to_ascii_lowercase();
    [
        "returned error: 403",
        "read only",
        "read-only",
        "not granted",
        "not allowed to push",
        "service not enabled",
    ]
    .iter()
    .any(|part| text.contains(part))
}

/// True when the error text speaks of damage to our own mirror, which a new one mends.
pub(super) fn is_damage(stderr: &str) -> bool {
    // What a remote says about itself is passed on with `remote: ` in front.
    stderr.lines().filter(|line| !line.starts_with("remote:")).any(|line| {
        [
            "not a git repository",
            "bad object",
            "is corrupt",
            "unable to read",
            "does not point to a valid object",
            "did not send all necessary objects",
            "missing necessary objects",
            "Could not read ",
            "Failed to traverse parents",
            "revision walk setup failed",
            "packfile ",
            "bad config",
            "bad shallow line",
            "invalid shallow line",
            "bad signature",
            "loose object",
            "inflate:",
            "unresolved deltas",
            "missing blob",
            "missing tree",
            "missing commit",
            "broken links",
            "hash mismatch",
        ]
        .iter()
        .any(|part| line.contains(part))
            && !line.contains("from remote repository")
    })
}

/// True when a remote of an older protocol gives away only what a ref points to.
pub(super) fn refuses_ids(stderr: &str) -> bool {
    stderr.contains("does not allow request for unadvertised object")
}

/// True when the remote says that it has no such object.
pub(super) fn lacks_object(stderr: &str) -> bool {
    stderr.contains("not our ref") || stderr.contains("not valid")
}

/// True when a ref was there at the listing and is not any more.
pub(super) fn lacks_ref(stderr: &str) -> bool {
    stderr.contains("couldn't find remote ref")
}

/// True when the remote cannot send a part of the history (Git's plain-file HTTP).
pub(super) fn refuses_depth(stderr: &str) -> bool {
    stderr.contains("does not support shallow") || stderr.contains("does not support --depth")
}

/// An error text for people: on one line, without secrets, control characters and passwords in URLs, not too long.
pub(super) fn clean(text: &str, secrets: &[String]) -> String {
    let mut text = text.to_owned();
    for secret in secrets {
        text = text.replace(secret.as_str(), "***");
    }
    let lines: Vec<String> = text
        .lines()
        .map(|line| line.chars().map(|c| if c.is_control() { ' ' } else { c }).collect::<String>())
        .map(|line| without_passwords(line.trim()))
        .filter(|line| !line.is_empty() && !line.chars().all(|c| c == '@'))
        .collect();
    let joined = lines.join("; ");
    match joined.char_indices().nth(600) {
        Some((end, _)) => format!("{}…", &joined[..end]),
        None if joined.is_empty() => "it said nothing".to_owned(),
        None => joined,
    }
}

/// Takes `user:password@` out of every URL in a line.
fn without_passwords(line: &str) -> String {
    let mut out = String::with_capacity(line.len());
    let mut rest = line;
    while let Some(at) = rest.find("://") {
        let (before, after) = rest.split_at(at + 3);
        out.push_str(before);
        let end = after.find(['/', ' ', '\'', '"']).unwrap_or(after.len());
        let authority = &after[..end];
        out.push_str(authority.rsplit_once('@').map_or(authority, |(_, host)| host));
        rest = &after[end..];
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn what_git_says_is_told_apart() {
        for (text, expected) in [
            (
                "fatal: unable to access 'https://h/a/': server certificate verification failed. CAfile: none CRLfile: none",
                "CertificateUntrusted",
            ),
            (
                "fatal: unable to access 'https://h/a/': SSL certificate problem: self-signed certificate",
                "CertificateUntrusted",
            ),
            ("fatal: could not read Username for 'https://h': terminal prompts disabled", "Unauthorized"),
            ("fatal: Authentication failed for 'https://h/a/'", "Unauthorized"),
            (
                "git@h: Permission denied (publickey).\r\nfatal: Could not read from remote repository.",
                "Unauthorized",
            ),
            ("fatal: unable to access 'https://h/a/': The requested URL returned error: 403", "Forbidden"),
            ("fatal: unable to access 'https://h/a/': The requested URL returned error: 503", "RemoteFailed"),
            ("fatal: unable to access 'https://h/a/': The requested URL returned error: 429", "RemoteFailed"),
            ("fatal: repository 'https://h/a/' not found", "RepositoryNotFound"),
            (
                "remote: Repository not found.\nfatal: repository 'https://h/a/' not found",
                "RepositoryNotFound",
            ),
            ("fatal: '/srv/x' does not appear to be a git repository", "RepositoryNotFound"),
            ("fatal: unable to access 'https://h/a/': Could not resolve host: h", "Unreachable"),
            (
                "ssh: Could not resolve hostname h: Name or service not known\r\nfatal: Could not read from remote repository.",
                "Unreachable",
            ),
            (
                "ssh: connect to host h port 22: Connection refused\r\nfatal: Could not read from remote",
                "Unreachable",
            ),
            (
                "fatal: unable to access 'http://127.0.0.1:1/': Failed to connect to 127.0.0.1 port 1: Connection refused",
                "Unreachable",
            ),
            (
                "No ED25519 host key is known for [127.0.0.1]:2222 and you have requested strict checking.\r\nHost key verification failed.",
                "HostKeyUnknown",
            ),
            (
                "@@@@@\n@ WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED! @\n@@@@\nHost key verification failed.",
                "HostKeyChanged",
            ),
            ("error: cannot run ssh: No such file or directory\nfatal: unable to fork", "ProgramMissing"),
            ("fatal: write error: No space left on device", "CacheUnusable"),
            ("fatal: unable to access 'https://h/a/': The requested URL returned error: 301", "Redirected"),
            ("fatal: mismatched algorithms: client sha1; server sha256", "UnsupportedFormat"),
            ("fatal: something new", "GitFailed"),
        ] {
            let url = RemoteUrl::parse("https://h/a", true).unwrap();
            let credentials = Credentials::default();
            let attempt = Attempt {
                url: &url,
                credentials: &credentials,
                cache: Path::new("/cache"),
                what: "listing the refs",
            };
            assert_eq!(classify(text, &attempt).reason(), expected, "{text}");
        }
    }

    #[test]
    fn nothing_secret_and_no_escape_sequence_is_passed_on() {
        let text = "remote: \u{1b}[31mbad token hunter2\nfatal: 'https://u:pass@h/a' and ssh://x@h:1/b\n";
        let text = clean(text, &["hunter2".to_owned()]);
        assert_eq!(text, "remote:  [31mbad token ***; fatal: 'https://h/a' and ssh://h:1/b");
        assert!(clean(&"x".repeat(10_000), &[]).len() < 700);
    }

    #[test]
    fn damage_of_the_remote_is_not_damage_of_the_mirror() {
        assert!(is_damage(
            "error: object file ./objects/ab/cd is empty\nfatal: loose object abcd is corrupt"
        ));
        assert!(is_damage("fatal: not a git repository: '/cache/x'"));
        assert!(!is_damage("remote: fatal: packfile x is corrupt\nfatal: the remote end hung up"));
        assert!(!is_damage("fatal: Could not read from remote repository."));
    }
}
