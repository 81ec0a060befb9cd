//! Git: where desired state comes from.
//!
//! A [`Mirror`] is a bare copy of a remote repository that [`Mirror::poll`] keeps up to date; a commit in it is read
//! as a [`GitTree`], without a checkout. What talks to a remote is the `git` binary (and through it `ssh`), one
//! process a call with a deadline and an environment of its own; what reads objects is libgit2.

mod backoff;
mod checkout;
mod commit;
mod credentials;
mod directory;
mod error;
mod failure;
mod git_tree;
mod mirror;
mod pattern;
mod process;
mod reference;
mod revert;
mod store;
mod transport;
mod url;
mod watch;

pub use backoff::{backoff, jittered};
pub use checkout::resolve;
pub use commit::{CommitId, CommitInfo, InvalidCommitId};
pub use credentials::{Credentials, CredentialsError};
pub use directory::DirTree;
pub use error::SourceError;
pub use git_tree::GitTree;
pub use mirror::{History, Mirror, Poll};
pub use pattern::{PatternError, matching_directories};
pub use process::{GitVersion, git_version};
pub use reference::Reference;
pub use revert::{RevertError, RevertOrder, RevertedAt};
pub use transport::Limits;
pub use url::RemoteUrl;
pub use watch::{Watcher, watch_local};
