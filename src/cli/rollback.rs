//! `windlass rollback NAME`: back to a revision that was deployed before; the newest one is held.

use super::WELL;
use super::find::{DeliveryArgs, full_name};
use super::request::{WaitArgs, annotate, must_act, token, wait};
use crate::api::delivery::{DeliveryStatus, Goal, Outcome, Revision};
use crate::api::names;
use crate::core::lost;
use crate::report::short;
use anyhow::{anyhow, bail};

/// Go back to a revision that was deployed before, and hold the newest one until there is a newer one.
///
/// With --wait, exit code 0: the old revision runs and is healthy. 1: it does not, or not in time.
#[derive(clap::Args, Clone, Debug)]
pub struct RollbackArgs {
    /// The commit to go back to, its first digits are enough; of an Application also as `status.currentRevision` names it. The one
    /// that ran before when not given
    #[arg(long, value_name = "COMMIT")]
    to: Option<String>,
    #[command(flatten)]
    wait: WaitArgs,
    #[command(flatten)]
    of: DeliveryArgs,
}

/// Asks, and waits where that is wanted.
pub async fn run(args: RollbackArgs) -> anyhow::Result<i32> {
    let (connection, delivery) = args.of.find().await?;
    must_act(&delivery)?;
    let name = full_name(&delivery);
    let status = delivery.status.clone().unwrap_or_default();
    if lost::is_blank(&status) && status.effective.is_some() {
        bail!(
            "{name}: none of its objects is known any more, so what to remove cannot be told; `windlass adopt {}` first",
            args.of.name
        );
    }
    let application = delivery.spec.source.application.as_deref();
    let to = goal(&status, args.to.as_deref().map(|to| digits(application, to)))
        .map_err(|why| anyhow!("{name}: {why}; see `windlass history {}`", args.of.name))?;
    let token = token();
    let value = format!("{}/{token}", to.commit);
    annotate(&connection.client, &delivery, &token, Some((names::ROLLBACK_REQUEST, &value))).await?;
    anstream::eprintln!("{name} goes back to {} ({})", short(&to), to.subject);
    if !args.wait.wait {
        return Ok(WELL);
    }
    wait(&connection.client, &delivery, &token, args.wait.timeout, |status| {
        let there = status.effective.as_ref().is_some_and(|r| r.commit == to.commit);
        there && status.attempt.is_none() && status.failure.is_none()
    })
    .await
}

/// The digits of a revision: of an Application it may be named as its ControllerRevision is.
fn digits<'a>(application: Option<&str>, named: &'a str) -> &'a str {
    let its = application.and_then(|name| named.strip_prefix(name)?.strip_prefix('-'));
    its.unwrap_or(named)
}

/// Where a rollback leads: the revision that was named, or the last one that was deployed and is not what runs now. What is being
/// put in place counts as running: that is what somebody wants to leave who asks in the midst of it.
pub fn goal(status: &DeliveryStatus, named: Option<&str>) -> anyhow::Result<Revision> {
    let mut good = status
        .history
        .iter()
        .filter(|h| matches!(h.outcome, Outcome::Deployed | Outcome::Restored))
        .map(|h| &h.revision);
    let found = match named {
        Some(commit) => {
            if commit.len() < 4 || !commit.chars().all(|c| c.is_ascii_hexdigit()) {
                bail!("\"{commit}\" is no revision; give four digits of its commit at least");
            }
            let mut found = good.filter(|r| r.commit.starts_with(&commit.to_lowercase()));
            let first =
                found.next().ok_or_else(|| anyhow!("no revision that was deployed begins with {commit}"))?;
            if found.any(|other| other.commit != first.commit) {
                bail!("{commit} is the beginning of several commits; give more digits");
            }
            first
        }
        None => {
            if let (Some(held), Some(running)) = (&status.held, &status.effective) {
                bail!(
                    "{} is held already and {} runs; to go back further, name a commit with --to",
                    short(&held.revision),
                    short(running)
                );
            }
            let begun = status.attempt.as_ref().filter(|a| a.goal == Goal::Deploy).map(|a| &a.revision);
            let now = begun.or(status.effective.as_ref());
            good.find(|r| now.is_none_or(|now| r.inputs != now.inputs))
                .ok_or_else(|| anyhow!("nothing else was deployed before"))?
        }
    };
    Ok(found.clone())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::api::delivery::{Held, HistoryEntry, Problem};

    fn revision(commit: &str, inputs: &str) -> Revision {
        Revision {
            commit: commit.into(),
            inputs: inputs.into(),
            branch: "main".into(),
            ..Revision::default()
        }
    }

    fn status(entries: &[(&str, &str, Outcome)], now: &str) -> DeliveryStatus {
        let history: Vec<HistoryEntry> = entries
            .iter()
            .map(|(commit, inputs, outcome)| HistoryEntry {
                revision: revision(commit, inputs),
                outcome: *outcome,
                at: String::new(),
                problem: None,
                except: Vec::new(),
            })
            .collect();
        let effective = history.iter().find(|h| h.revision.commit == now).map(|h| h.revision.clone());
        DeliveryStatus { history, effective, ..DeliveryStatus::default() }
    }

    #[test]
    fn a_revision_of_an_application_is_known_by_either_name() {
        assert_eq!(digits(Some("web"), "web-1111111111"), "1111111111");
        assert_eq!(digits(Some("web"), "1111111111"), "1111111111");
        assert_eq!(digits(Some("we"), "web-1111111111"), "web-1111111111");
        assert_eq!(digits(None, "web-1111111111"), "web-1111111111");
    }

    #[test]
    fn a_rollback_leads_to_the_last_good_revision_that_does_not_run() {
        use Outcome::{Deployed, RolledBack};
        let mut status = status(
            &[
                ("ccccc", "3", Deployed),
                ("ddddd", "3", Deployed),
                ("bbbbb", "2", RolledBack),
                ("aaaaa", "1", Deployed),
                ("aabbb", "0", Deployed),
            ],
            "ccccc",
        );
        assert_eq!(goal(&status, None).unwrap().commit, "aaaaa");
        assert_eq!(goal(&status, Some("aabb")).unwrap().commit, "aabbb");
        let said = |status: &DeliveryStatus, to| goal(status, to).unwrap_err().to_string();
        assert!(said(&status, Some("bbbbb")).contains("no revision that was deployed begins with"));
        assert!(said(&status, Some("aa")).contains("four digits"));
        assert!(said(&status, Some("main")).contains("is no revision"));
        // In the midst of the next one it leads to what ran until then.
        let begun = serde_json::json!({
            "goal": "Deploy", "revision": revision("eeeee", "4"), "step": "Waiting", "startedAt": "", "deadline": "",
        });
        status.attempt = Some(serde_json::from_value(begun).unwrap());
        assert_eq!(goal(&status, None).unwrap().commit, "ccccc");
        status.attempt = None;
        status.held = Some(Held {
            revision: revision("eeeee", "4"),
            problem: Problem::default(),
            since: String::new(),
            revert: None,
        });
        assert!(said(&status, None).contains("is held already"));
        assert!(said(&DeliveryStatus::default(), None).contains("nothing else was deployed"));
    }
}
