//! A person's own checkout: which commit a revision of it is.

use super::commit::CommitId;
use std::path::Path;

/// The commit that a revision (`HEAD~1`, a branch, the beginning of an id) names in a checkout. The error is a sentence.
pub fn resolve(root: &Path, revision: &str) -> Result<CommitId, String> {
    let shown = root.display();
    let open = git2::Repository::open(root)
        .map_err(|e| format!("{shown} cannot be read as a Git repository: {}", e.message()))?;
    let object = open
        .revparse_single(revision)
        .map_err(|e| format!("{shown} has no revision \"{revision}\": {}", e.message()))?;
    let commit =
        object.peel_to_commit().map_err(|e| format!("\"{revision}\" is no commit: {}", e.message()))?;
    Ok(commit.id().into())
}
