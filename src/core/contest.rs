//! Fields that are written back and come back: how often, and when that is a fight that nobody wins. So may an object that is
//! deleted again and again, or that our label is taken off.
//!
//! Another controller that keeps a field at its own value answers each correction with another write. After a few rounds the field
//! is left to it until a newer revision or another spec, and people are told which rule would leave it for good. An object that is
//! deleted rests for a while only: that it is not there may be an outage, and making it now and then costs nothing.

use crate::api::drift_report::{DriftedField, DriftedObject, RecurringField};
use crate::api::ignore::{IgnoreRule, IgnoreTarget};
use crate::api::names::{DELIVERY_LABEL, DRIFT};
use jiff::{SignedDuration, Timestamp};

/// Rounds after which a field is not written back any more.
pub const ROUNDS: i64 = 5;

/// A field that stays as it was written back for so long has peace: what happens to it then is another matter.
const PEACE: SignedDuration = SignedDuration::from_mins(5);

/// The path that stands for the object itself.
const ITSELF: &str = "";

/// Fields that are remembered.
const REMEMBERED: usize = 50;

/// Notes what is about to be written back.
pub fn note(known: &mut Vec<RecurringField>, object: &DriftedObject, at: &str) {
    let mut object = object.clone();
    leave_out(known, &mut object);
    for field in subjects(&object) {
        note_field(known, &object, &field, at);
    }
    known.sort_by(|a, b| (b.stopped_at.is_some(), &b.last_at).cmp(&(a.stopped_at.is_some(), &a.last_at)));
    known.truncate(REMEMBERED);
}

/// Whether it was noted of an object that differs since some time that it is about to be written back.
pub fn is_noted(known: &[RecurringField], object: &DriftedObject) -> bool {
    let noted = |field: &DriftedField| {
        known
            .iter()
            .any(|one| is(one, object, field) && one.stopped_at.is_none() && one.last_at >= object.since)
    };
    subjects(object).iter().any(noted)
}

/// What is fought over: the fields of an object, or the object itself where it is not there.
fn subjects(object: &DriftedObject) -> Vec<DriftedField> {
    match object.state.as_str() {
        "Missing" => {
            vec![DriftedField { path: ITSELF.into(), manager: "unknown".into(), ..DriftedField::default() }]
        }
        _ => object.fields.clone(),
    }
}

/// Whether without peace about this there is no peace about anything of the object: it is not there, or out of sight.
fn is_whole(one: &RecurringField) -> bool {
    one.path == ITSELF || one.path.contains(DELIVERY_LABEL)
}

fn note_field(known: &mut Vec<RecurringField>, object: &DriftedObject, field: &DriftedField, at: &str) {
    if let Some(one) = known.iter_mut().find(|one| is(one, object, field)) {
        one.in_a_row = if peaceful(&one.last_at, at) { 1 } else { one.in_a_row + 1 };
        one.times += 1;
        at.clone_into(&mut one.last_at);
        if field.operation.is_some() {
            one.manager.clone_from(&field.manager);
        }
        return;
    }
    known.push(RecurringField {
        api_version: object.api_version.clone(),
        kind: object.kind.clone(),
        namespace: object.namespace.clone(),
        name: object.name.clone(),
        path: field.path.clone(),
        pointer: field.pointer.clone(),
        manager: field.manager.clone(),
        times: 1,
        in_a_row: 1,
        first_at: at.into(),
        last_at: at.into(),
        stopped_at: None,
    });
}

fn is(one: &RecurringField, object: &DriftedObject, field: &DriftedField) -> bool {
    (&one.api_version, &one.kind, &one.namespace, &one.name, &one.path)
        == (&object.api_version, &object.kind, &object.namespace, &object.name, &field.path)
}

/// Whether more than a while lies between two times; so it is when one of them cannot be read.
fn peaceful(before: &str, after: &str) -> bool {
    match (before.parse::<Timestamp>(), after.parse::<Timestamp>()) {
        (Ok(before), Ok(after)) => after.duration_since(before) > PEACE,
        _ => true,
    }
}

/// Leaves to others what came back too often. Answers the fields that are so from now on.
pub fn stop(known: &mut [RecurringField], object: &DriftedObject, now: &str) -> Vec<RecurringField> {
    let mut stopped = Vec::new();
    for field in &subjects(object) {
        let Some(one) = known.iter_mut().find(|one| is(one, object, field)) else { continue };
        if one.stopped_at.is_none() && one.in_a_row >= ROUNDS && !peaceful(&one.last_at, now) {
            one.stopped_at = Some(now.into());
            if field.operation.is_some() {
                one.manager.clone_from(&field.manager);
            }
            stopped.push(one.clone());
        }
    }
    stopped
}

/// Until when an object that was deleted again and again is not made. Answers `None` where it is not left alone.
pub fn rests_until(known: &[RecurringField], object: &DriftedObject) -> Option<Timestamp> {
    let gone = stopped(known, object).find(|one| one.path == ITSELF)?;
    // A time that cannot be read is long ago.
    let since = gone.stopped_at.as_ref()?.parse::<Timestamp>().unwrap_or(Timestamp::UNIX_EPOCH);
    Some(since + PEACE)
}

/// Begins anew with an object that was deleted again and again, when it has rested. Answers whether it is so.
pub fn rested(known: &mut [RecurringField], object: &DriftedObject, now: Timestamp) -> bool {
    if rests_until(known, object).is_none_or(|until| until > now) {
        return false;
    }
    let subjects = subjects(object);
    for one in known.iter_mut().filter(|one| subjects.iter().any(|field| is(one, object, field))) {
        one.stopped_at = None;
        one.in_a_row = 0;
    }
    true
}

/// The fields of an object that are left to others.
pub fn stopped<'a>(
    known: &'a [RecurringField],
    object: &'a DriftedObject,
) -> impl Iterator<Item = &'a RecurringField> {
    let subjects = subjects(object);
    known
        .iter()
        .filter(move |one| one.stopped_at.is_some() && subjects.iter().any(|field| is(one, object, field)))
}

/// Whether something of an object is not left to others, and so is to be written back.
pub fn is_correctable(known: &[RecurringField], object: &DriftedObject) -> bool {
    if stopped(known, object).any(is_whole) {
        return false;
    }
    let left =
        |field: &DriftedField| known.iter().any(|one| one.stopped_at.is_some() && is(one, object, field));
    object.fields.is_empty() || object.fields_left_out > 0 || !object.fields.iter().all(left)
}

/// Takes out of an object that was written back what was not.
pub fn leave_out(known: &[RecurringField], object: &mut DriftedObject) {
    let left: Vec<String> = stopped(known, object).map(|one| one.path.clone()).collect();
    object.fields.retain(|field| !left.contains(&field.path));
}

/// Begins anew, for another revision or spec.
pub fn end(known: &mut [RecurringField]) {
    for one in known {
        one.stopped_at = None;
        one.in_a_row = 0;
    }
}

/// What people are told: who, what, and the rule that leaves it for good. Never a value.
pub fn sentence(one: &RecurringField) -> String {
    if is_whole(one) {
        return sentence_about_all(one);
    }
    format!(
        "{} keeps writing {} of {} {}: after {} rounds it is not written back any more, until a newer revision or another spec. To \
         leave it for good, set spec.drift.ignore: {}",
        who(one),
        one.path,
        one.kind,
        place(one),
        one.in_a_row,
        rule(one)
    )
}

/// The same about an object as a whole: no rule leaves that to another.
fn sentence_about_all(one: &RecurringField) -> String {
    let (kind, place, rounds) = (&one.kind, place(one), one.in_a_row);
    let leave = format!("take it out of its source, or set the annotation {DRIFT}: ignore there");
    if one.path == ITSELF {
        return format!(
            "{kind} {place} is deleted again and again: after {rounds} rounds it is made again only after five minutes. Kubernetes does not \
             record who deletes; the API server's audit log does. To leave it so, {leave}"
        );
    }
    format!(
        "{} keeps taking the label {DELIVERY_LABEL} off {kind} {place}: after {rounds} rounds it is not written back any more, until a newer revision or \
         another spec. Without it nothing of the object is. To leave it so, {leave}",
        who(one)
    )
}

fn place(one: &RecurringField) -> String {
    if one.namespace.is_empty() { one.name.clone() } else { format!("{}/{}", one.namespace, one.name) }
}

fn who(one: &RecurringField) -> &str {
    if one.manager == "unknown" { "Something that Kubernetes does not record" } else { &one.manager }
}

/// The same as a rule; `None` where it is about the object as a whole.
pub fn as_rule(one: &RecurringField) -> Option<IgnoreRule> {
    if is_whole(one) {
        return None;
    }
    let group = one.api_version.split_once('/').map_or("", |(group, _)| group);
    Some(IgnoreRule {
        target: Some(IgnoreTarget {
            group: Some(group.into()),
            kind: Some(one.kind.clone()),
            name: Some(one.name.clone()),
            namespace: Some(one.namespace.clone()),
            label_selector: None,
        }),
        paths: vec![one.pointer.clone()],
        ..IgnoreRule::default()
    })
}

/// The rule to paste, as one line of YAML.
pub fn rule(one: &RecurringField) -> String {
    // JSON is YAML, and quotes what has to be quoted.
    let plain = |text: &str| match text.chars().all(|c| c.is_ascii_alphanumeric() || "/-._=".contains(c)) {
        true => text.to_owned(),
        false => serde_json::Value::from(text).to_string(),
    };
    format!(
        "[{{target: {{kind: {}, name: {}}}, paths: [{}]}}]",
        plain(&one.kind),
        plain(&one.name),
        plain(&one.pointer)
    )
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn object(path: &str) -> DriftedObject {
        DriftedObject {
            api_version: "apps/v1".into(),
            kind: "Deployment".into(),
            namespace: "shop".into(),
            name: "web".into(),
            state: "Modified".into(),
            fields: vec![DriftedField {
                path: path.into(),
                pointer: format!("/{}", path.replace('.', "/")),
                manager: "scaler".into(),
                operation: Some("Update".into()),
                ..DriftedField::default()
            }],
            ..DriftedObject::default()
        }
    }

    #[test]
    fn a_fight_is_given_up_after_some_rounds_and_taken_up_for_something_newer() {
        let mut known = Vec::new();
        let it = object("spec.replicas");
        for round in 1..=ROUNDS {
            assert!(stop(&mut known, &it, &format!("2026-01-01T00:0{round}:00Z")).is_empty(), "{round}");
            assert!(is_correctable(&known, &it));
            note(&mut known, &it, &format!("2026-01-01T00:0{round}:01Z"));
        }
        let stopped_now = stop(&mut known, &it, "2026-01-01T00:06:00Z");
        assert_eq!(stopped_now.len(), 1);
        assert!(stop(&mut known, &it, "2026-01-01T00:06:00Z").is_empty(), "told once");
        assert!(!is_correctable(&known, &it) && stopped(&known, &it).count() == 1);
        let mut more = it.clone();
        more.fields.extend(object("spec.paused").fields);
        assert!(is_correctable(&known, &more), "another field is written back all the same");
        leave_out(&known, &mut more);
        assert_eq!(more.fields.len(), 1, "and only that is told to be");
        let told = sentence(&stopped_now[0]);
        for word in [
            "scaler",
            "spec.replicas",
            "Deployment shop/web",
            "[{target: {kind: Deployment, name: web}, paths: [/spec/replicas]}]",
        ] {
            assert!(told.contains(word), "{word}: {told}");
        }
        end(&mut known);
        assert!(is_correctable(&known, &it) && known[0].times == ROUNDS);
    }

    #[test]
    fn what_has_peace_in_between_is_no_fight() {
        let mut known = Vec::new();
        for hour in 0..10 {
            let time = format!("2026-01-01T0{hour}:00:00Z");
            note(&mut known, &object("spec.replicas"), &time);
            assert!(stop(&mut known, &object("spec.replicas"), &time).is_empty());
        }
        assert_eq!((known[0].times, known[0].in_a_row), (10, 1));
        assert_eq!(
            (known[0].first_at.as_str(), known[0].last_at.as_str()),
            ("2026-01-01T00:00:00Z", "2026-01-01T09:00:00Z")
        );
    }

    #[test]
    fn without_peace_about_the_object_or_our_label_nothing_of_it_is_written_back() {
        let missing = DriftedObject { state: "Missing".into(), fields: Vec::new(), ..object("") };
        let mut unlabelled = object(&format!("metadata.labels[{DELIVERY_LABEL}]"));
        unlabelled.fields.extend(object("spec.replicas").fields);
        for (it, says) in [(missing, "deleted again and again"), (unlabelled, "taking the label")] {
            let mut known = Vec::new();
            for _ in 1..=ROUNDS {
                let at = "2026-01-01T00:00:00Z";
                assert!(stop(&mut known, &it, at).is_empty() && is_correctable(&known, &it));
                note(&mut known, &it, at);
            }
            let first = stop(&mut known, &it, "2026-01-01T00:00:01Z").remove(0);
            assert!(!is_correctable(&known, &it) && as_rule(&first).is_none());
            let told = sentence(&first);
            assert!(
                told.contains(says) && told.contains("Deployment shop/web") && told.contains(DRIFT),
                "{told}"
            );
            end(&mut known);
            assert!(is_correctable(&known, &it));
        }
    }

    #[test]
    fn what_is_deleted_again_and_again_rests_and_is_made_again() {
        let missing = DriftedObject { state: "Missing".into(), fields: Vec::new(), ..object("") };
        let mut known = Vec::new();
        for series in 0..2 {
            let at = |second: i64| {
                let begin: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
                begin + SignedDuration::from_mins(10 * series) + SignedDuration::from_secs(second)
            };
            for round in 0..ROUNDS {
                assert!(!rested(&mut known, &missing, at(round)) || round == 0);
                assert!(stop(&mut known, &missing, &at(round).to_string()).is_empty());
                assert!(is_correctable(&known, &missing), "{series}/{round}");
                note(&mut known, &missing, &at(round).to_string());
            }
            assert_eq!(stop(&mut known, &missing, &at(10).to_string()).len(), 1, "told once in each series");
            assert!(!rested(&mut known, &missing, at(11)) && !is_correctable(&known, &missing));
            assert_eq!(rests_until(&known, &missing), Some(at(10) + PEACE));
        }
        // A field is left to whoever writes it for as long as that one does.
        let it = object("spec.replicas");
        let mut known = Vec::new();
        for _ in 0..ROUNDS {
            note(&mut known, &it, "2026-01-01T00:00:00Z");
        }
        stop(&mut known, &it, "2026-01-01T00:00:01Z");
        assert_eq!(rests_until(&known, &it), None);
        assert!(!rested(&mut known, &it, "2026-01-02T00:00:00Z".parse().unwrap()));
    }

    #[test]
    fn what_was_noted_of_a_drift_is_told_from_an_older_one() {
        let mut it = DriftedObject { since: "2026-01-01T00:00:02Z".into(), ..object("spec.replicas") };
        let mut known = Vec::new();
        assert!(!is_noted(&known, &it));
        note(&mut known, &it, "2026-01-01T00:00:01Z");
        assert!(!is_noted(&known, &it), "that was before");
        note(&mut known, &it, "2026-01-01T00:00:02Z");
        assert!(is_noted(&known, &it));
        it.fields = object("spec.paused").fields;
        assert!(!is_noted(&known, &it));
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut known = Vec::new();
        for n in 0..100 {
            note(&mut known, &object(&format!("data.{n}")), "2026-01-01T00:00:00Z");
        }
        assert_eq!(known.len(), 50);
    }
}
