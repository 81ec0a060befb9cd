//! What is wrong with a policy before anything is measured: expressions, variables, names. Schemas cannot say it.

use super::{StepKind, builtin, judge, template};
use crate::api::analysis::{AnalysisPolicy, Metric};
use std::collections::BTreeSet;

/// What is wrong with the policy of a step, a sentence each.
pub fn problems(policy: &AnalysisPolicy, kind: StepKind) -> Vec<String> {
    let mut found = Vec::new();
    if kind == StepKind::Analysis && policy.metrics.is_empty() {
        // It would pass without anything having been measured.
        found.push(
            "an analysis step has no metrics, and spec.rollout.analysis has none that it could take".into(),
        );
    }
    let mut names = BTreeSet::new();
    for metric in &policy.metrics {
        let mut say = |what: String| found.push(format!("metric {}: {what}", metric.name));
        if !names.insert(&metric.name) {
            say("another metric of the analysis has the same name".into());
        }
        of_metric(metric, &mut say);
    }
    found
}

fn of_metric(metric: &Metric, say: &mut impl FnMut(String)) {
    let given =
        [metric.prometheus.is_some(), metric.http.is_some(), metric.webhook.is_some(), metric.job.is_some()];
    if given.iter().filter(|given| **given).count() != 1 {
        return say("it takes one of prometheus, http, webhook and job".into());
    }
    if metric.job.is_some() {
        return;
    }
    let (success, failure) = judge::rules(metric);
    for (field, text) in [("success", success), ("failure", failure)] {
        if let Some(Err(error)) = text.map(|text| judge::read(metric, text)) {
            say(format!("{field}: {error}"));
        }
    }
    let mut texts: Vec<(&str, String)> = Vec::new();
    if let Some(prometheus) = &metric.prometheus {
        if success.is_none() && failure.is_none() {
            say("a query of its own needs success or failure, such as success: \"result >= 0.99\"".into());
        }
        match builtin::query(prometheus) {
            Some(query) if prometheus.query.is_none() || prometheus.builtin.is_none() => {
                texts.push(("query", query))
            }
            _ => say("prometheus takes one of query and builtin".into()),
        }
    }
    if let Some(http) = &metric.http {
        match (&http.url, &http.path) {
            (Some(url), None) => texts.push(("url", url.clone())),
            (None, Some(_)) => {}
            _ => say("http takes one of url and path".into()),
        }
    }
    if let Some(webhook) = &metric.webhook {
        texts.push(("url", webhook.url.clone()));
    }
    for (field, text) in texts {
        match template::names(&text) {
            Err(error) => say(format!("{field}: {error}")),
            Ok(_) if judge::names_stable(metric) && !template::is_about_a_variant(&text) => say(format!(
                "an expression names stable, and the {field} asks for no variant; write {{{{ variant }}}} or \
                 {{{{ service }}}} in it, which stand for either"
            )),
            Ok(_) => {}
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn of(metrics: Value) -> Vec<String> {
        problems(&serde_json::from_value(json!({"metrics": metrics})).unwrap(), StepKind::Analysis)
    }

    #[test]
    fn what_is_right_is_not_refused() {
        let right = json!([
            {"name": "a", "prometheus": {"address": "http://p", "builtin": "request-success-rate"}},
            {"name": "b", "prometheus": {"address": "http://p", "builtin": "request-duration", "provider": "http"},
             "success": "candidate <= stable * 1.2 + 0.01"},
            {"name": "c", "prometheus": {"address": "http://p", "query": "x{app='{{ candidate }}'}"}, "failure": "result > 1"},
            {"name": "d", "http": {"path": "/healthz"}, "success": "result.queue <= stable.queue"},
            {"name": "e", "webhook": {"url": "https://gate.example.com/{{ delivery }}"}},
        ]);
        assert_eq!(of(right), Vec::<String>::new());
    }

    #[test]
    fn what_is_wrong_is_said_with_the_metric() {
        let prometheus = |query: &str| json!({"address": "http://p", "query": query});
        assert_eq!(problems(&AnalysisPolicy::default(), StepKind::Other), Vec::<String>::new());
        let table = [
            (json!([]), "an analysis step has no metrics,"),
            (json!([{"name": "a"}]), "metric a: it takes one of prometheus, http, webhook and job"),
            (
                json!([{"name": "a", "prometheus": prometheus("up")}]),
                "metric a: a query of its own needs success or failure",
            ),
            (
                json!([{"name": "a", "prometheus": prometheus("up{a='{{ pod }}'}"), "success": "result > 0"}]),
                "metric a: query: {{ pod }} is not known; there are candidate, stable,",
            ),
            (
                json!([{"name": "a", "prometheus": prometheus("up"), "success": "result > stable"}]),
                "metric a: an expression names stable, and the query asks for no variant",
            ),
            (
                json!([{"name": "a", "prometheus": prometheus("up"), "success": "value > 0"}]),
                "metric a: success: the expression names \"value\", and only `result`, `stable`, `candidate` is known",
            ),
            (
                json!([{"name": "a", "webhook": {"url": "http://x"}}, {"name": "a", "webhook": {"url": "http://x"}}]),
                "metric a: another metric of the analysis has the same name",
            ),
            (json!([{"name": "a", "http": {}}]), "metric a: http takes one of url and path"),
            (
                json!([{"name": "a", "http": {"path": "/"}, "failure": "result.all(i, 1 / i > 2)"}]),
                "metric a: failure: the expression divides,",
            ),
        ];
        for (metrics, said) in table {
            let problems = of(metrics);
            assert!(problems.iter().any(|p| p.starts_with(said)), "{said}: {problems:?}");
        }
    }
}
