//! `windlass drift`: each field that is not as Git says, who changed it and when, and what was mended lately.

use super::age::{since, span};
use super::table::{head, lines, shortened, tame};
use super::{BAD, FAINT, GOOD, STRONG, UNSURE, paint, short_revision};
use crate::api::Delivery;
use crate::api::condition::{self, kind};
use crate::api::drift_report::{
    DriftEpisode, DriftReport, DriftedField, DriftedObject, LeftOut, RecurringField,
};
use crate::core::contest;
use crate::core::manifest::{Gvk, ObjectId};
use crate::core::rollout::{Spec, measure};
use jiff::Timestamp;
use kube::ResourceExt;
use serde::Serialize;
use std::collections::BTreeMap;

/// Episodes that are listed.
const EPISODES: usize = 20;

/// Widest value in a table that is not wide, in characters.
const VALUE: usize = 40;

/// Managers that are named in a line of a summary that is not wide.
const MANAGERS: usize = 3;

/// Why a condition says that it is not known whether something differs: it could not be compared, or is being written.
const NOT_KNOWN: [&str; 2] = ["NotCompared", "Progressing"];

/// What differs, and what was mended.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DriftList {
    /// How many objects differ now.
    pub drifted: i64,
    /// Each Delivery.
    pub deliveries: Vec<DeliveryDrift>,
    /// What was mended lately, newest first.
    pub mended: Vec<Mended>,
}

/// The drift of one Delivery.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DeliveryDrift {
    /// Namespace of the Delivery.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// The revision that the cluster is compared with.
    pub revision: Option<String>,
    /// It is not what should be running, but what is being put in place.
    #[serde(skip)]
    pub under_way: bool,
    /// The newest revision of Git, when it is held: being behind it is not drift.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub held: Option<Ahead>,
    /// Why it is not known whether something differs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unknown: Option<String>,
    /// How many objects differ.
    pub count: i64,
    /// Since when (RFC 3339).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<String>,
    /// The objects that differ.
    pub objects: Vec<DriftedObject>,
    /// What the report has no room for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub left_out: Option<LeftOut>,
    /// Fields that were written back, and how often they came back.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub recurring: Vec<RecurringField>,
}

/// A revision that Git has and the cluster does not run, because it failed.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Ahead {
    /// The revision.
    pub revision: String,
    /// The object that failed, empty when it was not one.
    pub object: String,
    /// Why, for programs.
    pub reason: String,
    /// Why, for people.
    pub message: String,
    /// Since when (RFC 3339).
    pub since: String,
}

/// A drift that was mended.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Mended {
    /// Namespace of the Delivery.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// What it was, and when it was mended.
    #[serde(flatten)]
    pub episode: DriftEpisode,
}

/// Puts together Deliveries and their reports. A Delivery without a report never drifted.
pub fn report(deliveries: &[Delivery], reports: &[DriftReport]) -> DriftList {
    let mut list = DriftList { drifted: 0, deliveries: Vec::new(), mended: Vec::new() };
    for delivery in deliveries {
        let (namespace, name) = (delivery.namespace().unwrap_or_default(), delivery.name_any());
        let found = reports.iter().find(|r| r.name_any() == name && r.namespace() == delivery.namespace());
        let spec = found.map(|r| r.spec.clone()).unwrap_or_default();
        let status = delivery.status.clone().unwrap_or_default();
        list.drifted += spec.count;
        list.mended.extend(spec.episodes.iter().map(|episode| Mended {
            namespace: namespace.clone(),
            name: name.clone(),
            episode: episode.clone(),
        }));
        let measure =
            measure(status.attempt.as_ref(), status.effective.as_ref(), &Spec::from(&delivery.spec));
        let under_way = measure.as_ref().is_some_and(|m| Some(&m.revision) != status.effective.as_ref());
        list.deliveries.push(DeliveryDrift {
            namespace,
            name,
            revision: measure.map(|m| m.revision.to_string()),
            under_way,
            held: status.held.map(|h| Ahead {
                revision: h.revision.to_string(),
                object: h.problem.object,
                reason: h.problem.reason,
                message: h.problem.message,
                since: h.since,
            }),
            unknown: condition::get(&status.conditions, kind::DRIFTED)
                .filter(|c| c.status == "Unknown" && NOT_KNOWN.contains(&c.reason.as_str()))
                .map(|c| c.message.clone()),
            count: spec.count,
            since: spec.since,
            objects: spec.objects,
            left_out: spec.left_out,
            recurring: spec.recurring,
        });
    }
    list.mended.sort_by(|a, b| b.episode.mended_at.cmp(&a.episode.mended_at));
    list.mended.truncate(EPISODES);
    list
}

/// A cluster on one screen: a line for each Delivery that differs, and how many do not.
pub fn summary(list: &DriftList, wide: bool, now: Timestamp) -> String {
    let mut rows = vec![head(&[
        "NAMESPACE",
        "DELIVERY",
        "RUNNING",
        "MODIFIED",
        "MISSING",
        "UNLABELLED",
        "FOREIGN",
        "SINCE",
        "WHO",
    ])];
    let (mut same, mut ahead, mut unknown) = (0, 0, 0);
    for delivery in &list.deliveries {
        ahead += usize::from(delivery.held.is_some());
        unknown += usize::from(delivery.unknown.is_some());
        if delivery.count == 0 {
            same += usize::from(delivery.unknown.is_none());
            continue;
        }
        let of = |state: &str| match delivery.objects.iter().filter(|o| o.state == state).count() {
            0 => "-".to_owned(),
            n => n.to_string(),
        };
        rows.push(vec![
            delivery.namespace.clone(),
            delivery.name.clone(),
            delivery.revision.as_deref().map_or_else(|| "-".into(), short_revision),
            of("Modified"),
            of("Missing"),
            of("Unlabelled"),
            of("Foreign"),
            delivery.since.as_deref().map_or_else(|| "-".into(), |t| since(t, now)),
            managers(delivery, if wide { usize::MAX } else { MANAGERS }),
        ]);
    }
    let mut out = if rows.len() > 1 { lines(&rows) } else { Vec::new() };
    let deliveries = |n: usize| if n == 1 { "1 Delivery".to_owned() } else { format!("{n} Deliveries") };
    let unlisted: i64 = list.deliveries.iter().filter_map(|d| d.left_out).map(|l| l.objects).sum();
    let mut told = Vec::new();
    if list.drifted > 0 {
        let more =
            if unlisted > 0 { format!(" ({unlisted} of them not told apart here)") } else { String::new() };
        let what = if list.drifted == 1 {
            "1 object differs".into()
        } else {
            format!("{} objects differ", list.drifted)
        };
        told.push(paint(UNSURE, &format!("{what} in {}{more}", deliveries(rows.len() - 1))));
    }
    told.push(paint(GOOD, &format!("nothing differs in {}", deliveries(same))));
    if unknown > 0 {
        told.push(paint(BAD, &format!("not known of {}", deliveries(unknown))));
    }
    if ahead > 0 {
        told.push(paint(
            FAINT,
            &format!("a newer revision of {} is held, which is not drift", deliveries(ahead)),
        ));
    }
    if !out.is_empty() {
        out.push(String::new());
    }
    out.push(told.join("; "));
    out.push(String::new());
    out.join("\n")
}

/// Who changed most, and how many more there are.
fn managers(delivery: &DeliveryDrift, most: usize) -> String {
    let mut count: BTreeMap<&str, usize> = BTreeMap::new();
    for object in &delivery.objects {
        if object.fields.is_empty() {
            *count.entry("unknown").or_default() += 1;
        }
        for field in &object.fields {
            *count.entry(field.manager.as_str()).or_default() += 1;
        }
    }
    let mut all: Vec<_> = count.into_iter().collect();
    all.sort_by_key(|(_, n)| std::cmp::Reverse(*n));
    let shown: Vec<String> = all.iter().take(most).map(|(manager, _)| tame(manager)).collect();
    match all.len() - shown.len() {
        0 => shown.join(", "),
        more => format!("{}, +{more}", shown.join(", ")),
    }
}

/// The report as tables.
pub fn text(list: &DriftList, wide: bool, now: Timestamp) -> String {
    let mut out = Vec::new();
    for delivery in &list.deliveries {
        let told = delivery.held.is_some() || delivery.unknown.is_some();
        if delivery.count > 0 || list.deliveries.len() == 1 || told {
            out.push(heading(delivery, now));
            out.extend(asides(delivery, now));
        }
        if delivery.count > 0 {
            let mut rows = vec![head(&["OBJECT", "FIELD", "DESIRED", "LIVE", "WHO", "WHEN"])];
            for object in &delivery.objects {
                rows.extend(object_rows(object, wide, now));
            }
            out.extend(lines(&rows).into_iter().map(|line| format!("  {line}")));
            if let Some(left_out) = &delivery.left_out {
                let objects = match left_out.objects {
                    0 => String::new(),
                    1 => "1 more object and ".into(),
                    n => format!("{n} more objects and "),
                };
                out.push(format!(
                    "  {objects}{} more fields differ, and are not in the report",
                    left_out.fields
                ));
            }
            out.push(String::new());
        }
    }
    let known = list.deliveries.iter().all(|d| d.unknown.is_none());
    if list.drifted == 0 && known && list.deliveries.len() != 1 {
        out.push("nothing differs from what should be running".into());
    }
    if !list.mended.is_empty() {
        if out.last().is_some_and(|l| !l.is_empty()) {
            out.push(String::new());
        }
        out.push(paint(STRONG, "mended lately"));
        let mut rows = vec![head(&[
            "MENDED", "BY", "LASTED", "TIMES", "DELIVERY", "OBJECT", "FIELD", "DESIRED", "LIVE", "WHO",
        ])];
        for mended in &list.mended {
            let object = &mended.episode.object;
            let of =
                list.deliveries.iter().find(|d| d.namespace == mended.namespace && d.name == mended.name);
            let recurring = of.map(|d| d.recurring.as_slice()).unwrap_or_default();
            for (nth, row) in object_rows(object, wide, now).into_iter().enumerate() {
                let mut cells = vec![
                    since(&mended.episode.mended_at, now),
                    mended.episode.mended_by.clone().unwrap_or_else(|| "others".into()),
                    lasted(&mended.episode),
                    times(recurring, object, object.fields.get(nth).map_or("", |f| &f.path)),
                    format!("{}/{}", mended.namespace, mended.name),
                ];
                cells.extend(row.into_iter().take(5));
                rows.push(cells);
            }
        }
        out.extend(lines(&rows).into_iter().map(|line| format!("  {line}")));
    }
    while out.last().is_some_and(String::is_empty) {
        out.pop();
    }
    out.push(String::new());
    out.join("\n")
}

fn heading(delivery: &DeliveryDrift, now: Timestamp) -> String {
    let name = paint(STRONG, &format!("{}/{}", delivery.namespace, delivery.name));
    let revision = match &delivery.revision {
        Some(revision) if delivery.under_way => {
            format!("{}, which is being put in place", short_revision(revision))
        }
        Some(revision) => format!("{}, which is what should be running", short_revision(revision)),
        None => return format!("{name}: nothing was deployed yet"),
    };
    match delivery.count {
        0 if delivery.unknown.is_some() => format!("{name}: it is not known what differs from {revision}"),
        0 => format!("{name}: nothing differs from {revision}"),
        n => {
            let what = if n == 1 { "1 object differs".into() } else { format!("{n} objects differ") };
            let since =
                delivery.since.as_deref().map_or_else(String::new, |t| format!(", for {}", since(t, now)));
            format!("{name}: {} from {revision}{since}", paint(UNSURE, &what))
        }
    }
}

/// What is told beside drift, and is none.
fn asides(delivery: &DeliveryDrift, now: Timestamp) -> Vec<String> {
    let held = delivery.held.as_ref().map(|held| {
        let about = match held.object.is_empty() || held.message.contains(&held.object) {
            true => String::new(),
            false => format!("{}: ", held.object),
        };
        let text = format!(
            "the newer {} is held for {} because {about}{} ({}); this is not drift",
            short_revision(&held.revision),
            since(&held.since, now),
            held.message,
            held.reason
        );
        format!("  {}", paint(FAINT, &tame(&text)))
    });
    let unknown = delivery.unknown.as_ref().map(|why| format!("  {}", paint(BAD, &tame(why))));
    let contested = delivery.recurring.iter().filter(|one| one.stopped_at.is_some());
    let contested = contested.map(|one| format!("  {}", paint(BAD, &tame(&contest::sentence(one)))));
    held.into_iter().chain(unknown).chain(contested).collect()
}

/// How long an object differed.
fn lasted(episode: &DriftEpisode) -> String {
    match (episode.started_at.parse::<Timestamp>(), episode.mended_at.parse::<Timestamp>()) {
        (Ok(began), Ok(ended)) => span(ended.duration_since(began)),
        _ => "-".into(),
    }
}

/// How often a field was written back, or, without a path, the object itself.
fn times(recurring: &[RecurringField], object: &DriftedObject, path: &str) -> String {
    let is = |r: &&RecurringField| {
        (&r.kind, &r.namespace, &r.name, r.path.as_str())
            == (&object.kind, &object.namespace, &object.name, path)
    };
    recurring.iter().find(is).map_or_else(|| "-".into(), |r| r.times.to_string())
}

/// An object as people read it, such as `Deployment shop/web`.
pub(super) fn id(object: &DriftedObject) -> String {
    let gvk = Gvk::new(&object.api_version, &object.kind);
    ObjectId {
        group: gvk.group,
        kind: gvk.kind,
        namespace: object.namespace.clone(),
        name: object.name.clone(),
    }
    .to_string()
}

/// The cells of an object's fields: object, field, desired, live, who, when.
fn object_rows(object: &DriftedObject, wide: bool, now: Timestamp) -> Vec<Vec<String>> {
    let whole = match object.state.as_str() {
        "Missing" => Some("is not there"),
        "Foreign" => Some("is in no bundle"),
        "Unlabelled" if object.fields.is_empty() => Some("has lost its label"),
        _ if object.fields.is_empty() => Some("differs"),
        _ => None,
    };
    if let Some(words) = whole {
        let dash = || "-".to_owned();
        let who = match object.fields.first() {
            Some(field) => tame(&field.manager),
            None if object.state == "Missing" => "unknown".into(),
            None => dash(),
        };
        let seen = format!("seen {}", since(&object.since, now));
        return vec![vec![id(object), paint(BAD, words), dash(), dash(), who, seen]];
    }
    object.fields.iter().map(|field| field_row(object, field, wide, now)).collect()
}

fn field_row(object: &DriftedObject, field: &DriftedField, wide: bool, now: Timestamp) -> Vec<String> {
    let value = |value: &Option<String>| match value {
        Some(text) if wide => tame(text),
        Some(text) => shortened(&tame(text), VALUE),
        None => "-".to_owned(),
    };
    let who = match (&field.operation, wide) {
        (Some(operation), true) if field.subresource.is_empty() => format!("{} ({operation})", field.manager),
        (Some(operation), true) => format!("{} ({operation} {})", field.manager, field.subresource),
        _ => field.manager.clone(),
    };
    vec![
        id(object),
        tame(&field.path),
        value(&field.desired),
        value(&field.live),
        tame(&who),
        match &field.at {
            Some(at) => since(at, now),
            // Kubernetes does not record when something was scaled or removed: since then at least.
            None => format!("seen {}", since(&object.since, now)),
        },
    ]
}
