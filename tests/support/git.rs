//! Repositories made with the git binary, in directories that vanish with them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

/// Runs git in a directory, without any configuration of the machine or its user. Returns what it prints.
pub fn git(directory: &Path, arguments: &[&str]) -> String {
    let output = Command::new("git")
        .args(["-c", "init.defaultBranch=main", "-c", "protocol.file.allow=always", "-c", "gc.auto=0"])
        .args(arguments)
        .current_dir(directory)
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap())
        .env("HOME", "/nonexistent")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_AUTHOR_NAME", "Ada")
        .env("GIT_AUTHOR_EMAIL", "ada@example.com")
        .env("GIT_COMMITTER_NAME", "Ada")
        .env("GIT_COMMITTER_EMAIL", "ada@example.com")
        .output()
        .expect("git is installed (package git)");
    assert!(output.status.success(), "git {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// A repository with a working directory, on branch `main`.
pub struct Repo {
    root: TempDir,
}

impl Repo {
    /// Its name below the directory that a server serves.
    pub const NAME: &str = "config";

    /// Without any commit.
    pub fn empty() -> Self {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join(Self::NAME)).unwrap();
        let repo = Self { root };
        repo.git(&["init", "--quiet"]);
        repo
    }

    /// With a first commit of one file.
    pub fn new() -> Self {
        let repo = Self::empty();
        repo.commit(&[("apps/shop/web.yaml", "kind: ConfigMap\n")]);
        repo
    }

    /// The directory to serve: it holds the repository as [`Repo::NAME`].
    pub fn root(&self) -> &Path {
        self.root.path()
    }

    /// Its working directory.
    pub fn path(&self) -> PathBuf {
        self.root.path().join(Self::NAME)
    }

    /// Runs git in it.
    pub fn git(&self, arguments: &[&str]) -> String {
        git(&self.path(), arguments)
    }

    /// Writes files and commits everything. Returns the commit's id.
    pub fn commit(&self, files: &[(&str, &str)]) -> String {
        for (path, content) in files {
            let path = self.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        self.git(&["add", "--all"]);
        self.git(&["commit", "--quiet", "--allow-empty", "--message", "A change\n\nWith a reason."]);
        self.head()
    }

    /// Replaces the last commit by another one: what a force-push does.
    pub fn rewrite(&self, files: &[(&str, &str)]) -> String {
        self.git(&["reset", "--quiet", "--hard", "HEAD^"]);
        self.commit(files)
    }

    /// The id of the current commit.
    pub fn head(&self) -> String {
        self.git(&["rev-parse", "HEAD"])
    }

    /// A bare copy next to it. Returns its directory.
    pub fn bare_copy(&self, name: &str) -> PathBuf {
        let path = self.root.path().join(name);
        git(
            self.root.path(),
            &["clone", "--quiet", "--bare", &self.path().to_string_lossy(), &path.to_string_lossy()],
        );
        path
    }
}
