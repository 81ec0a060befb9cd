//! The DriftReport as it grows: what differs now, since when, and what was mended lately, in a bounded size.

use crate::api::drift_report::{DriftEpisode, DriftReportSpec, DriftedObject, LeftOut, RecurringField};
use crate::api::names;
use crate::core::contest;
use crate::core::rollout::stamp;
use jiff::Timestamp;

/// Fields of one object that are listed where there is room.
pub const FIELDS: usize = 50;

/// Episodes that are kept.
const EPISODES: usize = 20;

/// Bytes of the objects in a report, as JSON. etcd takes 1.5 MiB for all of an object, and every watcher gets all of it each time.
const OBJECTS_BYTES: usize = 192 * 1024;

/// Bytes of the episodes, as JSON.
const EPISODES_BYTES: usize = 64 * 1024;

/// What is found now.
#[derive(Clone, Copy, Debug)]
pub struct Found<'a> {
    /// The effective revision that was compared with.
    pub revision: &'a str,
    /// Generation of the Delivery's spec.
    pub generation: i64,
    /// What differs, in the order in which it is listed.
    pub objects: &'a [DriftedObject],
    /// What was mended since the last report, newest first.
    pub mended: &'a [DriftEpisode],
    /// Fields that were written back, where that is known; what the report has otherwise.
    pub recurring: Option<&'a [RecurringField]>,
    /// The time.
    pub now: Timestamp,
}

/// The report that follows `old`.
pub fn grown(old: DriftReportSpec, found: Found<'_>) -> DriftReportSpec {
    let since = match (old.since, found.objects.is_empty()) {
        (_, true) => None,
        (Some(since), false) => Some(since),
        (None, false) => Some(stamp(found.now)),
    };
    let mut all = found.objects.to_vec();
    // A daemon that was restarted sees anew what was seen before.
    for object in &mut all {
        let before = old.objects.iter().find(|o| same_object(o, object) && o.state == object.state);
        if let Some(before) = before.filter(|b| !b.since.is_empty() && b.since < object.since) {
            object.since.clone_from(&before.since);
        }
    }
    let (objects, left_out) = fitting(all);
    let mut episodes = found.mended.to_vec();
    episodes.extend(old.episodes);
    episodes.truncate(EPISODES);
    let mut room = EPISODES_BYTES;
    let fit = episodes.iter().take_while(|episode| {
        let size = size(episode);
        room.checked_sub(size).map(|left| room = left).is_some()
    });
    let fit = fit.count();
    episodes.truncate(fit);
    DriftReportSpec {
        revision: found.revision.to_owned(),
        generation: found.generation,
        count: i64::try_from(found.objects.len()).unwrap_or(i64::MAX),
        since,
        objects,
        left_out,
        episodes,
        recurring: found.recurring.map_or(old.recurring, <[_]>::to_vec),
    }
}

/// What `old` tells of and differs no more, as far as that is not in `mended` already: somebody undid it, or an earlier life of the
/// daemon was about to write it back and did not come to tell. Not what ended because something else is wanted now.
/// `applied`: objects were applied since, for the same revision.
pub fn ended(old: &DriftReportSpec, found: Found<'_>, restarted: bool, applied: bool) -> Vec<DriftEpisode> {
    let same = old.revision == found.revision && old.generation == found.generation && !applied;
    let differs = |object: &DriftedObject| found.objects.iter().any(|o| same_object(o, object));
    let told = |object: &DriftedObject| found.mended.iter().any(|e| same_object(&e.object, object));
    let over = old.objects.iter().filter(|object| !differs(object) && !told(object));
    over.filter_map(|object| {
        let noted = restarted && contest::is_noted(&old.recurring, object);
        (noted || same).then(|| DriftEpisode {
            started_at: object.since.clone(),
            mended_at: stamp(found.now),
            mended_by: noted.then(|| names::FIELD_MANAGER.to_owned()),
            object: object.clone(),
        })
    })
    .collect()
}

/// Whether two entries speak of one object.
pub fn same_object(a: &DriftedObject, b: &DriftedObject) -> bool {
    (&a.api_version, &a.kind, &a.namespace, &a.name) == (&b.api_version, &b.kind, &b.namespace, &b.name)
}

/// As many objects as fit, each with as many of its fields as let all objects be named.
fn fitting(all: Vec<DriftedObject>) -> (Vec<DriftedObject>, Option<LeftOut>) {
    let mut shown = all;
    for most in [FIELDS, 10, 3, 1] {
        for object in &mut shown {
            let gone = object.fields.len().saturating_sub(most);
            object.fields.truncate(most);
            object.fields_left_out += i64::try_from(gone).unwrap_or(i64::MAX);
        }
        if shown.iter().map(size).sum::<usize>() <= OBJECTS_BYTES {
            break;
        }
    }
    let (mut room, mut fit) = (OBJECTS_BYTES, 0);
    for object in &shown {
        let Some(left) = room.checked_sub(size(object)) else { break };
        (room, fit) = (left, fit + 1);
    }
    let rest = shown.split_off(fit);
    let of_rest = |o: &DriftedObject| o.fields_left_out + i64::try_from(o.fields.len()).unwrap_or(i64::MAX);
    let left_out = LeftOut {
        objects: i64::try_from(rest.len()).unwrap_or(i64::MAX),
        fields: shown.iter().map(|o| o.fields_left_out).sum::<i64>() + rest.iter().map(of_rest).sum::<i64>(),
    };
    (shown, (left_out != LeftOut::default()).then_some(left_out))
}

fn size(value: &impl serde::Serialize) -> usize {
    // What cannot be written takes no room either.
    serde_json::to_vec(value).map_or(0, |text| text.len() + 1)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::api::drift_report::DriftedField;

    fn object(name: &str, fields: usize) -> DriftedObject {
        DriftedObject {
            api_version: "v1".into(),
            kind: "ConfigMap".into(),
            name: name.into(),
            state: "Modified".into(),
            since: "2026-01-02T00:00:00Z".into(),
            fields: (0..fields)
                .map(|n| DriftedField {
                    path: format!("data.{n}"),
                    live: Some("x".repeat(256)),
                    manager: "hand".into(),
                    ..DriftedField::default()
                })
                .collect(),
            ..DriftedObject::default()
        }
    }

    fn found<'a>(objects: &'a [DriftedObject], mended: &'a [DriftEpisode]) -> Found<'a> {
        Found {
            revision: "main@sha1:a",
            generation: 1,
            objects,
            mended,
            recurring: None,
            now: "2026-01-03T00:00:00Z".parse().unwrap(),
        }
    }

    #[test]
    fn what_does_not_fit_is_counted() {
        let few = [object("a", 60), object("b", 1)];
        let report = grown(DriftReportSpec::default(), found(&few, &[]));
        assert_eq!((report.objects[0].fields.len(), report.objects[0].fields_left_out), (50, 10));
        assert_eq!(report.left_out, Some(LeftOut { objects: 0, fields: 10 }));
        let many: Vec<_> = (0..200).map(|n| object(&format!("{n:03}"), 50)).collect();
        let report = grown(DriftReportSpec::default(), found(&many, &[]));
        assert_eq!(
            (report.count, report.objects.len()),
            (200, 200),
            "each is named before one is told in full"
        );
        assert!(serde_json::to_vec(&report).unwrap().len() < 256 * 1024);
        let shown: usize = report.objects.iter().map(|o| o.fields.len()).sum();
        assert_eq!(report.left_out.unwrap().fields, 200 * 50 - i64::try_from(shown).unwrap());
        let very_many: Vec<_> = (0..5000).map(|n| object(&format!("{n:04}"), 2)).collect();
        let report = grown(DriftReportSpec::default(), found(&very_many, &[]));
        assert!(serde_json::to_vec(&report).unwrap().len() < 256 * 1024);
        let left_out = report.left_out.unwrap();
        assert_eq!(left_out.objects, 5000 - i64::try_from(report.objects.len()).unwrap());
        assert_eq!(left_out.fields, 10_000 - i64::try_from(report.objects.len()).unwrap());
        assert!(grown(DriftReportSpec::default(), found(&few[1..], &[])).left_out.is_none());
    }

    #[test]
    fn since_when_survives_a_restart_and_ends_with_the_drift() {
        let first = grown(DriftReportSpec::default(), found(&[object("a", 1)], &[]));
        let mut again = object("a", 1);
        again.since = "2026-01-05T00:00:00Z".into();
        let second = grown(first.clone(), found(&[again.clone()], &[]));
        assert_eq!(second.objects[0].since, "2026-01-02T00:00:00Z");
        assert_eq!(second.since, first.since);
        again.state = "Missing".into();
        assert_eq!(grown(first, found(&[again], &[])).objects[0].since, "2026-01-05T00:00:00Z");
        assert_eq!(grown(second, found(&[], &[])).since, None);
    }

    #[test]
    fn what_somebody_undid_is_an_episode_and_what_another_revision_ended_is_none() {
        let told = [object("a", 1), object("b", 1), object("c", 1)];
        let old = grown(DriftReportSpec::default(), found(&told, &[]));
        let mended = DriftEpisode { object: object("b", 1), ..DriftEpisode::default() };
        let now = found(&told[2..], std::slice::from_ref(&mended));
        let over = ended(&old, now, false, false);
        assert_eq!(over.len(), 1, "c differs on, and b is told already: {over:?}");
        assert_eq!((over[0].object.name.as_str(), &over[0].mended_by), ("a", &None));
        assert_eq!(
            (over[0].started_at.as_str(), over[0].mended_at.as_str()),
            ("2026-01-02T00:00:00Z", "2026-01-03T00:00:00.000Z")
        );
        assert!(ended(&old, now, false, true).is_empty(), "it was applied again");
        assert!(ended(&old, Found { revision: "main@sha1:b", ..now }, false, false).is_empty());
        assert!(ended(&old, Found { generation: 2, ..now }, false, false).is_empty());
        // What was about to be written back when the daemon died.
        let mut dying = old.clone();
        contest::note(&mut dying.recurring, &told[0], "2026-01-02T00:00:00Z");
        let over = ended(&dying, Found { revision: "main@sha1:b", ..now }, true, false);
        assert_eq!(over[0].mended_by.as_deref(), Some("windlass"));
    }

    #[test]
    fn old_episodes_go_first() {
        let episode = |name: &str, fields| DriftEpisode {
            started_at: String::new(),
            mended_at: "2026-01-02T00:00:00Z".into(),
            mended_by: None,
            object: object(name, fields),
        };
        let old = DriftReportSpec {
            episodes: (0..20).map(|n| episode(&format!("old-{n}"), 1)).collect(),
            ..DriftReportSpec::default()
        };
        let report = grown(old.clone(), found(&[], &[episode("new", 1)]));
        assert_eq!((report.episodes.len(), report.episodes[0].object.name.as_str()), (20, "new"));
        let large: Vec<_> = (0..5).map(|n| episode(&format!("new-{n}"), 50)).collect();
        let report = grown(old, found(&[], &large));
        assert!(report.episodes.len() < 20 && report.episodes[0].object.name == "new-0");
        assert!(serde_json::to_vec(&report).unwrap().len() < 256 * 1024);
    }
}
