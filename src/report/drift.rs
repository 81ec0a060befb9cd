//! `windlass drift`: each field that is not as Git says, who changed it and when, and what was mended lately.

use super::age::since;
use super::table::{head, lines, shortened, tame};
use super::{BAD, STRONG, UNSURE, paint, short_revision};
use crate::api::Delivery;
use crate::api::drift_report::{DriftEpisode, DriftReport, DriftedField, DriftedObject};
use crate::core::manifest::{Gvk, ObjectId};
use jiff::Timestamp;
use kube::ResourceExt;
use serde::Serialize;

/// Episodes that are listed.
const EPISODES: usize = 20;

/// Widest value in a table that is not wide, in characters.
const VALUE: usize = 40;

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
    /// The newest revision of Git, when it is held: being behind it is not drift.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub held: Option<String>,
    /// How many objects differ.
    pub count: i64,
    /// Since when (RFC 3339).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<String>,
    /// The objects that differ.
    pub objects: Vec<DriftedObject>,
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
        list.deliveries.push(DeliveryDrift {
            namespace,
            name,
            revision: status.effective.as_ref().map(ToString::to_string),
            held: status.held.map(|h| h.revision.to_string()),
            count: spec.count,
            since: spec.since,
            objects: spec.objects,
        });
    }
    list.mended.sort_by(|a, b| b.episode.mended_at.cmp(&a.episode.mended_at));
    list.mended.truncate(EPISODES);
    list
}

/// The report as tables.
pub fn text(list: &DriftList, wide: bool, now: Timestamp) -> String {
    let mut out = Vec::new();
    for delivery in &list.deliveries {
        if delivery.count > 0 || list.deliveries.len() == 1 || delivery.held.is_some() {
            out.push(heading(delivery, now));
        }
        if delivery.count > 0 {
            let mut rows = vec![head(&["OBJECT", "FIELD", "DESIRED", "LIVE", "WHO", "WHEN"])];
            for object in &delivery.objects {
                rows.extend(object_rows(object, wide, now));
            }
            out.extend(lines(&rows).into_iter().map(|line| format!("  {line}")));
            let more = delivery.count - i64::try_from(delivery.objects.len()).unwrap_or(0);
            if more > 0 {
                out.push(format!("  and {more} more objects"));
            }
            out.push(String::new());
        }
    }
    if list.drifted == 0 && list.deliveries.len() != 1 {
        out.push("nothing differs from what should be running".into());
    }
    if !list.mended.is_empty() {
        if out.last().is_some_and(|l| !l.is_empty()) {
            out.push(String::new());
        }
        out.push(paint(STRONG, "mended lately"));
        let mut rows = vec![head(&["MENDED", "DELIVERY", "OBJECT", "FIELD", "DESIRED", "LIVE", "WHO"])];
        for mended in &list.mended {
            for row in object_rows(&mended.episode.object, wide, now) {
                let mut cells = vec![
                    since(&mended.episode.mended_at, now),
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
        Some(revision) => format!("{}, which is what should be running", short_revision(revision)),
        None => return format!("{name}: nothing was deployed yet"),
    };
    let revision = match &delivery.held {
        Some(held) => format!("{revision} (Git is at {}, which is held)", short_revision(held)),
        None => revision,
    };
    match delivery.count {
        0 => format!("{name}: nothing differs from {revision}"),
        n => {
            let what = if n == 1 { "1 object differs".into() } else { format!("{n} objects differ") };
            let since =
                delivery.since.as_deref().map_or_else(String::new, |t| format!(", for {}", since(t, now)));
            format!("{name}: {} from {revision}{since}", paint(UNSURE, &what))
        }
    }
}

fn id(object: &DriftedObject) -> String {
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
        "Foreign" => Some("belongs to another Delivery"),
        "Unlabelled" if object.fields.is_empty() => Some("has lost its label"),
        _ if object.fields.is_empty() => Some("differs"),
        _ => None,
    };
    if let Some(words) = whole {
        let dash = || "-".to_owned();
        let who = if object.state == "Missing" { "unknown".to_owned() } else { dash() };
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
        (Some(operation), true) => format!("{} ({operation})", field.manager),
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
