//! The label by which the two variants of a workload are told apart.
//!
//! It is one that the workload selects its pods by: a selector cannot be changed, so a label that is added could not keep the
//! workload from seeing the candidate's pods. Tried in this order: `app`, `app.kubernetes.io/name`, then the others by name;
//! taken is the first by which every Service and budget tells the variants apart. With the replicas router one Service has
//! to reach both, so there it is the first label that no Service selects by.

use super::problem;
use super::selects::{Form, Labels, Rewrite, labels, matches};
use crate::api::delivery::Problem;
use crate::core::bundle::Bundle;
use crate::core::manifest::Manifest;
use serde_json::Value;
use std::collections::BTreeSet;

/// Which variants' pods a Service may see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reach {
    /// Those of one.
    One,
    /// Those of both: their counts are the weights.
    Both,
}

/// Labels that could be rewritten, with their values, the preferred ones first.
pub(super) fn keys(stable: &Manifest, target: &Manifest) -> Result<Vec<(String, String)>, Problem> {
    let selector = super::at(target, &["spec", "selector"]);
    let by_map = selector["matchLabels"].as_object().into_iter().flatten().map(|(key, _)| key.as_str());
    let by_list = super::items(&selector["matchExpressions"]).filter(|e| e["operator"] == "In");
    let all: BTreeSet<&str> = by_map.chain(by_list.filter_map(|e| e["key"].as_str())).collect();
    let (old, new) = (labels(&super::template(stable)), labels(&super::template(target)));
    let mut keys: Vec<(String, String)> = all
        .into_iter()
        .filter_map(|key| {
            let value = new.get(key)?;
            // What is told apart by it later has to hold for the pods of both revisions.
            (old.get(key) == Some(value)).then(|| (key.to_owned(), value.clone()))
        })
        .collect();
    keys.sort_by_key(|(key, _)| match key.as_str() {
        "app" => 0,
        "app.kubernetes.io/name" => 1,
        _ => 2,
    });
    if keys.is_empty() {
        let text = "selects its pods by no label that could be rewritten for a candidate; spec.selector needs one in matchLabels \
                    that the labels of its pod template have";
        return Err(problem("NoVariantLabel", target, text));
    }
    Ok(keys)
}

/// The label that tells the variants apart: its key, and its value on the workload's pods.
pub(super) fn choose(
    bundles: [&Bundle; 2],
    stable: &Manifest,
    target: &Manifest,
    candidate: &str,
    reach: Reach,
) -> Result<(String, String), Problem> {
    let mut first = None;
    for (key, value) in keys(stable, target)? {
        let rewrite = Rewrite { key: &key, from: &value, to: candidate };
        match conflict(bundles, stable, target, &rewrite, reach) {
            None => return Ok((key, value)),
            Some(problem) => first = first.or(Some(problem)),
        }
    }
    Err(first.unwrap_or_else(|| problem("NoVariantLabel", target, "has no label that could be rewritten")))
}

/// What keeps a label from telling the variants apart.
fn conflict(
    bundles: [&Bundle; 2],
    stable: &Manifest,
    target: &Manifest,
    rewrite: &Rewrite,
    reach: Reach,
) -> Option<Problem> {
    let mut theirs: Labels = labels(&super::template(target));
    theirs.insert(rewrite.key.into(), rewrite.to.into());
    let of = |object: &Manifest, workload: &Manifest| {
        let ours = labels(&super::template(workload));
        one_conflict(object, workload, (&ours, &theirs), rewrite, reach)
    };
    let both = bundles.into_iter().zip([stable, target]);
    let (object, problem) = both
        .flat_map(|(bundle, workload)| bundle.objects().iter().map(move |object| (object, workload)))
        .filter(|(object, _)| object.namespace() == target.namespace())
        .find_map(|(object, workload)| Some((object, of(object, workload)?)))?;
    // Who has done what was asked, together with what is to be rolled out, would be asked for it again.
    let [old, new] = bundles.map(|bundle| bundle.get(&object.id()));
    let mends =
        old.is_some_and(|old| std::ptr::eq(old, object)) && new.is_none_or(|new| of(new, target).is_none());
    Some(match mends {
        true => Problem { message: format!("{} {MENDED_LATER}", problem.message), ..problem },
        false => problem,
    })
}

/// What is said where the new revision does not have the conflict any more.
pub const MENDED_LATER: &str = "(That is so in what runs, which stays until promotion; the new revision is different. Bring that \
                            difference in a change of its own before.)";

fn one_conflict(
    object: &Manifest,
    workload: &Manifest,
    (ours, theirs): (&Labels, &Labels),
    rewrite: &Rewrite,
    reach: Reach,
) -> Option<Problem> {
    let id = object.id();
    let sees = |form: Form, path: &[&str], labels: &Labels| matches(form, super::at(object, path), labels);
    let named = workload.id();
    let selects_both = |what: &str| {
        format!(
            "selects the pods of {named} by none of the labels that {named} itself selects by, so it would {what}; add {}: {} to \
             its selector",
            rewrite.key, rewrite.from
        )
    };
    let other = format!(
        "does not select the pods of {named}, and would select those of its candidate, whose labels are the new ones with {}: {}; \
         change it, or the labels, in a change of its own before",
        rewrite.key, rewrite.to
    );
    match (id.group.as_str(), id.kind.as_str()) {
        ("", "Service") => {
            let path = ["spec", "selector"];
            let (stable, candidate) = (sees(Form::Map, &path, ours)?, sees(Form::Map, &path, theirs)?);
            match (reach, stable, candidate) {
                (Reach::One, true, true) => {
                    let text = selects_both("give the candidate a share of traffic that nobody asked for");
                    Some(problem("ServiceSeesBothVariants", object, &text))
                }
                (Reach::Both, true, false) => {
                    let text = format!(
                        "selects by every label that {named} selects its pods by, so that one Service cannot reach both variants, \
                         which the replicas router needs. Let the Service select by fewer labels; where it has but one, give {named} one \
                         more label in its pods and its selector, which Kubernetes allows for a workload with a new name alone"
                    );
                    Some(problem("ServiceSeesOneVariant", object, &text))
                }
                (_, false, true) => Some(problem("SelectsCandidate", object, &other)),
                _ => None,
            }
        }
        ("policy", "PodDisruptionBudget") => {
            let path = ["spec", "selector"];
            let stable = sees(Form::Selector, &path, ours);
            match (reach, stable, sees(Form::Selector, &path, theirs)) {
                (_, None, _) | (_, _, None) => Some(problem("SelectorNotUnderstood", object, UNKNOWN)),
                (Reach::One, Some(true), Some(true)) => {
                    let text = selects_both("count the candidate's pods as the workload's own");
                    Some(problem("BudgetSeesBothVariants", object, &text))
                }
                (_, Some(false), Some(true)) => Some(problem("SelectsCandidate", object, &other)),
                _ => None,
            }
        }
        _ => {
            super::template_path(&id)?;
            let other = labels(&super::template(object));
            if other.get(rewrite.key).map(String::as_str) == Some(rewrite.to) {
                return Some(problem("LabelTaken", object, &taken(rewrite)));
            }
            let form = if id.group.is_empty() { Form::Map } else { Form::Selector };
            let sees = if id.kind == "Pod" { Some(false) } else { sees(form, &["spec", "selector"], theirs) };
            match sees {
                Some(false) => None,
                Some(true) => Some(problem(
                    "LabelTaken",
                    object,
                    &selects_both("take the candidate's pods for its own"),
                )),
                None => Some(problem("SelectorNotUnderstood", object, UNKNOWN)),
            }
        }
    }
}

/// What is said of a selector that is not understood.
pub(super) const UNKNOWN: &str = "has a selector with an operator other than In, NotIn, Exists and DoesNotExist, so that nobody can \
                                  tell whether it means the candidate's pods";

fn taken(rewrite: &Rewrite) -> String {
    format!(
        "uses the label {}: {}, which the candidate's pods would have; use another value",
        rewrite.key, rewrite.to
    )
}

/// The labels of the pods of a workload with one of them rewritten.
pub(super) fn rewritten(template: &Value, rewrite: &Rewrite) -> Labels {
    let mut all = labels(template);
    all.insert(rewrite.key.into(), rewrite.to.into());
    all
}
