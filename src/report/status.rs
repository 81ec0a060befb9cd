//! `windlass status`: Repositories and Deliveries, and below each that is not ready what is wrong with it.

use super::age::since;
use super::table::{head, lines, tame};
use super::{BAD, FAINT, GOOD, STRONG, UNSURE, paint, short, short_revision, short_word};
use crate::api::condition::{self, Condition, kind};
use crate::api::delivery::{Delivery, DeliveryStatus, Exception, Phase, Revert, Revision};
use crate::api::{Application, Repository};
use jiff::Timestamp;
use kube::ResourceExt;
use serde::Serialize;

/// What is known of Repositories and Deliveries.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct StatusReport {
    /// Whether all of them are ready.
    pub ready: bool,
    /// The Repositories.
    pub repositories: Vec<RepositoryRow>,
    /// The Deliveries.
    pub deliveries: Vec<DeliveryRow>,
}

/// One Repository.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RepositoryRow {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Where it is.
    pub url: String,
    /// What was fetched last.
    pub revision: Option<String>,
    /// `True`, `False` or `Unknown`.
    pub ready: String,
    /// Why, for programs.
    pub reason: String,
    /// Why, for people.
    pub message: String,
    /// It is not polled.
    pub suspended: bool,
    /// When it was made (RFC 3339).
    pub created: String,
}

/// One Delivery.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DeliveryRow {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// What it delivers from: the Repository's name, or `Application NAME`.
    pub repository: String,
    /// The Application whose own it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub application: Option<String>,
    /// The directory in it.
    pub path: String,
    /// Where its objects go.
    pub target_namespace: Option<String>,
    /// What was last tried.
    pub revision: Option<String>,
    /// What the cluster should be running.
    pub effective: Option<Revision>,
    /// `True`, `False` or `Unknown`.
    pub ready: String,
    /// What it is doing.
    pub phase: Phase,
    /// How many objects differ from the effective revision.
    pub drift: Option<i64>,
    /// How many objects it owns.
    pub objects: usize,
    /// Why it is ready or not, for programs.
    pub reason: String,
    /// Why, for people.
    pub message: String,
    /// The newest revision of Git is held: it failed, and is not tried again. This is not drift.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub held: Option<HeldRow>,
    /// Why what is wanted could not be begun.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refused: Option<RefusedRow>,
    /// The revision being put in place.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attempt: Option<Revision>,
    /// Until when what runs is watched on, to be rolled back should it lose its health (RFC 3339).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub watched_until: Option<String>,
    /// What the last rollback did not undo.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub rolled_back_except: Vec<Exception>,
    /// When it was made (RFC 3339).
    pub created: String,
}

/// Why what is wanted could not be begun; nothing was touched for it.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RefusedRow {
    /// The revision, when it is known.
    pub revision: Option<Revision>,
    /// The object that was refused, empty when it was not one.
    pub object: String,
    /// Why, for programs.
    pub reason: String,
    /// Why, for people.
    pub message: String,
}

/// A revision that is held.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct HeldRow {
    /// The commit.
    pub commit: String,
    /// Its author.
    pub author: String,
    /// The first line of its message.
    pub subject: String,
    /// The object that failed, empty when it was not one.
    pub object: String,
    /// Why, for programs.
    pub reason: String,
    /// Why, for people.
    pub message: String,
    /// Since when (RFC 3339).
    pub since: String,
    /// What became of taking it back in Git.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revert: Option<Revert>,
}

/// Puts together what is known.
pub fn report(repositories: &[Repository], deliveries: &[Delivery]) -> StatusReport {
    let repositories: Vec<RepositoryRow> = repositories.iter().map(repository).collect();
    let deliveries: Vec<DeliveryRow> = deliveries.iter().map(delivery).collect();
    let ready =
        repositories.iter().all(|r| r.ready == "True") && deliveries.iter().all(|d| d.ready == "True");
    StatusReport { ready, repositories, deliveries }
}

/// What Applications say of their pods, said in their Deliveries: at rest those do not speak of it themselves.
pub fn tell_of_pods(deliveries: &mut [Delivery], applications: &[Application]) {
    for delivery in deliveries {
        let Some(name) = &delivery.spec.source.application else { continue };
        let its =
            applications.iter().find(|a| a.name_any() == *name && a.namespace() == delivery.namespace());
        let said = its.and_then(|a| condition::get(&a.status.as_ref()?.conditions, kind::READY)).cloned();
        let mut own = delivery.status.iter_mut().flat_map(|s| &mut s.conditions);
        let own = own.find(|c| c.type_ == kind::READY && c.status == "True");
        if let (Some(own), Some(said)) = (own, said.filter(|c| c.status != "True")) {
            *own = said;
        }
    }
}

fn created(meta: &kube::core::ObjectMeta) -> String {
    meta.creation_timestamp.as_ref().map_or_else(String::new, |t| t.0.to_string())
}

/// Status, reason and message of the Ready condition.
fn ready(conditions: &[Condition]) -> (String, String, String) {
    match condition::get(conditions, kind::READY) {
        Some(c) => (c.status.clone(), c.reason.clone(), c.message.clone()),
        None => ("Unknown".into(), "Pending".into(), "the daemon has not looked at it yet".into()),
    }
}

fn repository(repository: &Repository) -> RepositoryRow {
    let status = repository.status.clone().unwrap_or_default();
    let (ready, reason, message) = ready(&status.conditions);
    RepositoryRow {
        namespace: repository.namespace().unwrap_or_default(),
        name: repository.name_any(),
        url: repository.spec.url.clone(),
        revision: status.revision,
        ready,
        reason,
        message,
        suspended: repository.spec.suspend,
        created: created(&repository.metadata),
    }
}

fn delivery(delivery: &Delivery) -> DeliveryRow {
    let empty = DeliveryStatus::default();
    let status = delivery.status.as_ref().unwrap_or(&empty);
    let (ready, reason, message) = ready(&status.conditions);
    DeliveryRow {
        namespace: delivery.namespace().unwrap_or_default(),
        name: delivery.name_any(),
        repository: delivery.spec.source.name(),
        application: delivery.spec.source.application.clone(),
        path: delivery.spec.source.path.clone(),
        target_namespace: delivery.spec.template.target_namespace.clone(),
        revision: status.revision.clone(),
        effective: status.effective.clone(),
        ready,
        phase: status.phase,
        drift: status.drift,
        objects: status.inventory.len(),
        reason,
        message,
        held: status.held.as_ref().map(|held| HeldRow {
            commit: held.revision.commit.clone(),
            author: held.revision.author.clone(),
            subject: held.revision.subject.clone(),
            object: held.problem.object.clone(),
            reason: held.problem.reason.clone(),
            message: held.problem.message.clone(),
            since: held.since.clone(),
            revert: held.revert.clone(),
        }),
        refused: status.failure.as_ref().map(|failure| RefusedRow {
            revision: failure.revision.clone(),
            object: failure.problem.object.clone(),
            reason: failure.problem.reason.clone(),
            message: failure.problem.message.clone(),
        }),
        attempt: status.attempt.as_ref().map(|a| a.revision.clone()),
        watched_until: status.bake.as_ref().map(|b| b.until.clone()),
        rolled_back_except: status.rolled_back_except.clone(),
        created: created(&delivery.metadata),
    }
}

/// The report as tables.
pub fn text(report: &StatusReport, wide: bool, now: Timestamp) -> String {
    let mut out = Vec::new();
    if !report.repositories.is_empty() {
        out.extend(repositories(&report.repositories, wide, now));
    }
    if !report.deliveries.is_empty() {
        if !out.is_empty() {
            out.push(String::new());
        }
        out.extend(deliveries(&report.deliveries, wide, now));
    }
    out.push(String::new());
    out.join("\n")
}

fn coloured(ready: &str) -> String {
    let style = match ready {
        "True" => GOOD,
        "False" => BAD,
        _ => UNSURE,
    };
    paint(style, ready)
}

fn phase(phase: Phase) -> String {
    let style = match phase {
        Phase::Ready => GOOD,
        Phase::Held | Phase::RollbackFailed | Phase::Failed => BAD,
        _ => UNSURE,
    };
    paint(style, &format!("{phase:?}"))
}

fn repositories(rows: &[RepositoryRow], wide: bool, now: Timestamp) -> Vec<String> {
    let mut names = vec!["NAMESPACE", "REPOSITORY", "REVISION", "READY", "AGE", "URL"];
    if wide {
        names.extend(["REASON", "MESSAGE"]);
    }
    let mut cells = vec![head(&names)];
    for row in rows {
        let mut line = vec![
            row.namespace.clone(),
            row.name.clone(),
            row.revision.as_deref().map_or_else(|| "-".into(), short_revision),
            coloured(&row.ready),
            since(&row.created, now),
            tame(&row.url),
        ];
        if wide {
            line.extend([row.reason.clone(), tame(&row.message)]);
        }
        cells.push(line);
    }
    let details = rows.iter().map(|row| {
        let mut lines = Vec::new();
        if row.suspended {
            lines.push(detail("suspended", "spec.suspend is set: it is not polled"));
        }
        if row.ready != "True" {
            lines.push(detail("because", &because(&row.reason, &row.message)));
        }
        lines
    });
    interleaved(&cells, details)
}

fn deliveries(rows: &[DeliveryRow], wide: bool, now: Timestamp) -> Vec<String> {
    let mut names = vec!["NAMESPACE", "DELIVERY", "REVISION", "READY", "PHASE", "DRIFT", "AGE"];
    if wide {
        names.extend(["RUNNING", "OBJECTS", "REPOSITORY", "PATH", "TARGET"]);
    }
    let mut cells = vec![head(&names)];
    for row in rows {
        let drift = match row.drift {
            Some(0) => "0".to_owned(),
            Some(n) => paint(UNSURE, &n.to_string()),
            None => "-".to_owned(),
        };
        let mut line = vec![
            row.namespace.clone(),
            row.name.clone(),
            row.revision.as_deref().map_or_else(|| "-".into(), short_revision),
            coloured(&row.ready),
            phase(row.phase),
            drift,
            since(&row.created, now),
        ];
        if wide {
            line.extend([
                row.effective.as_ref().map_or_else(|| "-".into(), short),
                row.objects.to_string(),
                row.repository.clone(),
                tame(&row.path),
                row.target_namespace.clone().unwrap_or_else(|| "-".into()),
            ]);
        }
        cells.push(line);
    }
    interleaved(&cells, rows.iter().map(|row| details(row, now)))
}

/// What is to be said about a Delivery besides its line.
fn details(row: &DeliveryRow, now: Timestamp) -> Vec<String> {
    let mut lines = Vec::new();
    let by = |revision: &Revision| {
        format!("{} by {}: {}", short(revision), tame(&revision.author), tame(&revision.subject))
    };
    if let Some(held) = &row.held {
        let commit = held.commit.get(..7).unwrap_or(&held.commit);
        lines.push(detail(
            "held",
            &format!(
                "{} by {}: {} ({} ago)",
                paint(STRONG, commit),
                tame(&held.author),
                tame(&held.subject),
                since(&held.since, now)
            ),
        ));
        let what = match held.object.is_empty() || held.message.contains(&held.object) {
            true => held.message.clone(),
            false => format!("{}: {}", held.object, held.message),
        };
        lines.push(detail("because", &because(&held.reason, &what)));
        if let Some(revert) = &held.revert {
            let text = match &revert.problem {
                Some(problem) => format!("not taken back: {}", because(&problem.reason, &problem.message)),
                None => format!(
                    "taken back on branch {} by {}",
                    tame(&revert.branch),
                    revert.commit.get(..7).unwrap_or(&revert.commit)
                ),
            };
            lines.push(detail("in git", &text));
        }
        if row.phase == Phase::Held {
            let running = row.effective.as_ref().map_or_else(|| "nothing".to_owned(), by);
            lines.push(detail(
                "running",
                &format!("{running}; the newest revision is held, which is not drift"),
            ));
            if let Some(refused) = &row.refused {
                let what = refused.revision.as_ref().map_or_else(|| "what is wanted now".to_owned(), by);
                lines.push(detail("refused", &what));
                let why = match refused.object.is_empty() || refused.message.contains(&refused.object) {
                    true => refused.message.clone(),
                    false => format!("{}: {}", refused.object, refused.message),
                };
                lines.push(detail("because", &because(&refused.reason, &why)));
            }
            let newer = if row.application.is_some() { "spec" } else { "commit" };
            let next = format!("a new {newer} replaces it; `windlass release {}` tries it again", row.name);
            lines.push(detail("next", &next));
        } else {
            lines.push(match row.phase {
                Phase::Suspended => suspended(row),
                _ => detail("now", &brief(&row.message)),
            });
        }
    } else if row.ready != "True" {
        if let Some(attempt) = &row.attempt {
            lines.push(detail("trying", &by(attempt)));
        }
        if row.phase == Phase::Suspended {
            lines.push(suspended(row));
        } else {
            lines.push(detail("because", &because(&row.reason, &row.message)));
        }
        if let (Some(effective), Phase::Failed) = (&row.effective, row.phase) {
            lines.push(detail("running", &by(effective)));
        }
    }
    for exception in &row.rolled_back_except {
        lines.push(detail("left", &format!("{} {}", tame(&exception.object), tame(&exception.message))));
    }
    if row.drift.is_some_and(|n| n > 0) {
        let command = format!("`windlass drift {}`", row.name);
        let what = if row.drift == Some(1) { "object differs" } else { "objects differ" };
        lines.push(detail(
            "drift",
            &format!("{} {what} from what should be running; see {command}", row.drift.unwrap_or(0)),
        ));
    }
    lines
}

fn suspended(row: &DeliveryRow) -> String {
    detail("suspended", &format!("nothing is changed; `windlass resume {}` goes on", row.name))
}

fn because(reason: &str, message: &str) -> String {
    if message.is_empty() { reason.to_owned() } else { format!("{} ({reason})", brief(message)) }
}

/// A message for a terminal, with its commits shortened.
fn brief(message: &str) -> String {
    tame(message).split(' ').map(short_word).collect::<Vec<_>>().join(" ")
}

fn detail(what: &str, text: &str) -> String {
    format!("  {}  {text}", paint(FAINT, &format!("{what:<9}")))
}

/// The lines of a table with more lines below each of its rows.
fn interleaved(cells: &[Vec<String>], details: impl Iterator<Item = Vec<String>>) -> Vec<String> {
    let mut table = lines(cells).into_iter();
    let mut out: Vec<String> = table.next().into_iter().collect();
    for (row, more) in table.zip(details) {
        out.push(row);
        out.extend(more);
    }
    out
}
