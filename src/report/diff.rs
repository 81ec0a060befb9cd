//! `windlass diff`: what would change, object by object, as lines of YAML or field by field.

use super::table::tame;
use super::{BAD, FAINT, GOOD, STRONG, UNSURE, paint};
use crate::core::diff::{FieldChange, changes_between, hide_secrets};
use crate::core::fields::{Segment, is_server_metadata};
use crate::core::hook_outlook::{Fate, Outlook};
use crate::core::outlook;
use serde::Serialize;
use serde_json::Value;
use similar::{ChangeTag, TextDiff};
use std::collections::BTreeSet;

/// What would become of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Act {
    /// It would be made.
    Create,
    /// It would be changed.
    Change,
    /// It is there and nobody's: it would become the Delivery's, and may change besides.
    Adopt,
    /// It would be deleted and made again, since it cannot be changed.
    Recreate,
    /// It left the directory and would be deleted.
    Delete,
    /// It left the directory and would stay, without our label.
    Release,
}

/// What would change.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DiffReport {
    /// The Delivery that the directory was compared as, `namespace/name`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delivery: Option<String>,
    /// The objects that would change.
    pub objects: Vec<ObjectDiff>,
    /// How many would not.
    pub unchanged: usize,
    /// What delivering it would set going, in sentences.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub rollout: Vec<String>,
    /// What was compared by reading alone, and so not checked.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub unchecked: Vec<DiffProblem>,
    /// What would become of its hooks.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub hooks: Vec<Outlook>,
    /// What could not be found out.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<DiffProblem>,
}

/// An object that could not be compared.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct DiffProblem {
    /// The object.
    pub object: String,
    /// Where it stands on disk.
    pub file: String,
    /// Why, and what to do.
    pub message: String,
}

/// What would change about one object.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ObjectDiff {
    /// The object, such as `Deployment shop/web`.
    pub object: String,
    /// What would become of it.
    pub act: Act,
    /// Where it stands on disk; empty for one that does not.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub file: String,
    /// The number of its wave; absent for an object that does not stand on disk.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wave: Option<i32>,
    /// What would become of its pods.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pods: Option<String>,
    /// The fields that would change. Empty for an object that would go.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub changes: Vec<FieldDiff>,
    #[serde(skip)]
    before: Value,
    #[serde(skip)]
    after: Value,
}

/// One field that would change.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct FieldDiff {
    /// Where.
    pub path: String,
    /// What stands there; absent when nothing does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub before: Option<Value>,
    /// What would stand there; absent when nothing would.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<Value>,
}

impl DiffReport {
    /// What would change, as it stands (`Null` where it does not) and as it would.
    pub fn changed(&self) -> impl Iterator<Item = (&Value, &Value)> {
        self.objects.iter().map(|o| (&o.before, &o.after))
    }

    /// Whether delivering the directory would do something.
    pub fn does_something(&self) -> bool {
        !self.objects.is_empty() || self.hooks.iter().any(|hook| hook.fate == Fate::Runs)
    }
}

impl ObjectDiff {
    /// Compares an object as it stands (`Null` when it does not) with what it would be (`Null` when it would not).
    /// No value of a Secret is kept. `None` when it would be the same; adopting and recreating are a change by
    /// themselves.
    pub fn new(object: &str, file: &str, act: Act, before: &Value, after: &Value) -> Option<Self> {
        let pods = outlook::pods(before, after);
        let (mut before, mut after) = (before.clone(), after.clone());
        hide_secrets(&mut before, &mut after);
        let gone = after.is_null();
        let changes: Vec<FieldChange> = if gone { Vec::new() } else { changes_between(&before, &after) };
        if act == Act::Change && changes.is_empty() {
            return None;
        }
        Some(ObjectDiff {
            object: object.into(),
            act,
            file: file.into(),
            wave: None,
            pods,
            changes: changes
                .into_iter()
                .map(|c| FieldDiff { path: c.path.to_string(), before: c.live, after: c.desired })
                .collect(),
            before: shown(before),
            after: shown(after),
        })
    }
}

/// An object without what the API server keeps for itself.
fn shown(mut object: Value) -> Value {
    if let Some(fields) = object.as_object_mut() {
        fields.remove("status");
        if let Some(metadata) = fields.get_mut("metadata").and_then(Value::as_object_mut) {
            metadata.retain(|name, _| {
                let at = [Segment::field("metadata"), Segment::field(name.as_str())];
                matches!(name.as_str(), "name" | "namespace") || !is_server_metadata(&at)
            });
        }
    }
    object
}

/// The report as text: a line for each object, and the lines of its YAML that would change.
pub fn text(report: &DiffReport) -> String {
    let mut out = String::new();
    let numbers: BTreeSet<i32> = report.objects.iter().filter_map(|o| o.wave).collect();
    let mut last = None;
    for object in &report.objects {
        if numbers.len() > 1 && object.wave.is_some() && object.wave != last {
            let begins = if last.is_some() { ", which begins when what is before it is healthy" } else { "" };
            out.push_str(&format!("wave {}{begins}\n\n", object.wave.unwrap_or_default()));
            last = object.wave;
        }
        let (words, style) = match object.act {
            Act::Create => ("would be created", GOOD),
            Act::Change => ("would be changed", UNSURE),
            Act::Adopt => ("would be adopted", UNSURE),
            Act::Recreate => ("would be deleted and created again", BAD),
            Act::Delete => ("would be deleted", BAD),
            Act::Release => ("would stay, and not be ours any more", UNSURE),
        };
        let file = if object.file.is_empty() { String::new() } else { format!("  {}", tame(&object.file)) };
        out.push_str(&format!(
            "{} {}{}\n",
            paint(STRONG, &object.object),
            paint(style, words),
            paint(FAINT, &file)
        ));
        if let Some(pods) = &object.pods {
            out.push_str(&format!("  {}\n", paint(FAINT, &format!("({pods})"))));
        }
        if object.act != Act::Delete && object.act != Act::Release {
            lines_of(&yaml(&object.before), &yaml(&object.after), true, &mut out);
        }
        out.push('\n');
    }
    for line in &report.rollout {
        out.push_str(&format!("rollout: {}\n", tame(line)));
    }
    if !report.rollout.is_empty() {
        out.push('\n');
    }
    for hook in &report.hooks {
        let style = if hook.fate == Fate::Runs { UNSURE } else { FAINT };
        let file = if hook.file.is_empty() { String::new() } else { format!("  {}", tame(&hook.file)) };
        out.push_str(&format!(
            "{} hook {} {}{}\n",
            paint(STRONG, &hook.object),
            hook.point,
            paint(style, hook.told()),
            paint(FAINT, &file)
        ));
    }
    if !report.hooks.is_empty() {
        out.push('\n');
    }
    let parts: Vec<String> = acts(report)
        .into_iter()
        .chain([(report.unchanged, "unchanged"), hooks_to_run(report)])
        .filter(|(n, _)| *n > 0)
        .map(|(n, what)| format!("{n} {what}"))
        .collect();
    let of = report.delivery.as_ref().map_or_else(String::new, |d| format!("Delivery {d}: "));
    out.push_str(&format!("{of}{}\n", if parts.is_empty() { "no objects".into() } else { parts.join(", ") }));
    out
}

/// How many objects there are of each act.
pub(super) fn acts(report: &DiffReport) -> [(usize, &'static str); 6] {
    let count = |act: Act| report.objects.iter().filter(|o| o.act == act).count();
    [
        (count(Act::Create), "to create"),
        (count(Act::Change), "to change"),
        (count(Act::Adopt), "to adopt"),
        (count(Act::Recreate), "to recreate"),
        (count(Act::Delete), "to delete"),
        (count(Act::Release), "to release"),
    ]
}

/// How many hooks would run.
pub(super) fn hooks_to_run(report: &DiffReport) -> (usize, &'static str) {
    (report.hooks.iter().filter(|hook| hook.fate == Fate::Runs).count(), "hooks to run")
}

/// Two states of one object side by side as lines of YAML. No value of a Secret is shown.
pub fn object_lines(before: &Value, after: &Value) -> String {
    let (mut before, mut after) = (before.clone(), after.clone());
    hide_secrets(&mut before, &mut after);
    let mut out = String::new();
    lines_of(&yaml(&shown(before)), &yaml(&shown(after)), true, &mut out);
    out
}

fn yaml(value: &Value) -> String {
    if value.is_null() {
        return String::new();
    }
    serde_saphyr::to_string(value).unwrap_or_else(|_| format!("{value:#}"))
}

/// The lines of an object's YAML that would change, without colours.
pub(super) fn lines(object: &ObjectDiff) -> String {
    let mut out = String::new();
    lines_of(&yaml(&object.before), &yaml(&object.after), false, &mut out);
    out
}

/// The lines that differ with three lines around them, as `diff -u` shows them.
fn lines_of(before: &str, after: &str, colours: bool, out: &mut String) {
    let painted = |style, text: &str| if colours { paint(style, text) } else { text.to_owned() };
    let diff = TextDiff::from_lines(before, after);
    for (number, group) in diff.grouped_ops(3).iter().enumerate() {
        if number > 0 {
            out.push_str(&painted(FAINT, "  ···"));
            out.push('\n');
        }
        for change in group.iter().flat_map(|op| diff.iter_changes(op)) {
            let text = tame(change.value().trim_end_matches('\n'));
            out.push_str(&match change.tag() {
                ChangeTag::Delete => painted(BAD, &format!("- {text}")),
                ChangeTag::Insert => painted(GOOD, &format!("+ {text}")),
                ChangeTag::Equal => format!("  {text}"),
            });
            out.push('\n');
        }
    }
}
