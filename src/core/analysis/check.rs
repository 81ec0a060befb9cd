//! What is wrong with a policy before anything is measured: expressions, variables, names, and what has no meaning in this very
//! rollout. Schemas cannot say it, and what is measured in vain is waited for in vain.

use super::endpoints::Served;
use super::{StepKind, builtin, judge, template};
use crate::api::analysis::{AnalysisPolicy, HttpMetric, Metric};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use std::collections::BTreeSet;

/// Whom the metrics of a rollout may be about.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Subjects {
    /// The workloads that `spec.rollout` names, by their names in Git.
    pub named: Vec<String>,
    /// Those that have a candidate, in the order in which one is taken that a metric does not name.
    pub rolled: Vec<Subject>,
}

/// A workload that has a candidate.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Subject {
    /// Its name in Git.
    pub workload: String,
    /// Its Service, where the candidate has one of its own.
    pub service: Option<Served>,
}

/// What is wrong with the policy of a step, a sentence each.
pub fn problems(policy: &AnalysisPolicy, kind: StepKind, subjects: &Subjects) -> Vec<String> {
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
        of_metric(metric, subjects, &mut say);
    }
    found
}

fn of_metric(metric: &Metric, subjects: &Subjects, say: &mut impl FnMut(String)) {
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
    let about = metric.workload.as_ref();
    if let Some(name) = about.filter(|name| !subjects.named.contains(name)) {
        say(format!("spec.rollout rolls out no workload {name}, but {}", subjects.named.join(", ")));
    }
    // One that this revision does not change is not looked at: there is nothing to be wrong about.
    let subject = subjects.rolled.iter().find(|s| about.is_none_or(|name| *name == s.workload));
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
            (None, Some(_)) => {
                if let Some(subject) = subject {
                    asked(http, subject, say);
                }
            }
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
            Ok(names) if names.contains(&"service") => {
                if let Some(subject) = subject.filter(|subject| subject.service.is_none()) {
                    say(format!(
                        "the {field} asks for {{{{ service }}}}, and {}; ask for {{{{ variant }}}}, the workload, instead",
                        alone(subject)
                    ));
                }
            }
            Ok(_) => {}
        }
    }
}

/// Whether the endpoints of a Service can be asked.
fn asked(http: &HttpMetric, subject: &Subject, say: &mut impl FnMut(String)) {
    let Some(service) = &subject.service else {
        return say(format!(
            "http.path asks the endpoints of a Service, and {}; write http.url",
            alone(subject)
        ));
    };
    match &http.port {
        Some(IntOrString::Int(number)) if u16::try_from(*number).is_ok_and(|number| number > 0) => {}
        Some(IntOrString::String(name)) if service.has(name) => {}
        Some(IntOrString::Int(number)) => say(format!("http.port {number} is none: there are 1 to 65535")),
        Some(IntOrString::String(name)) => say(format!(
            "Service {} has no port {name}, but {}; correct http.port, or write the number of a port of the pods",
            service.name,
            service.listed()
        )),
        None => service.port().err().into_iter().for_each(say),
    }
}

/// Why a workload's candidate has no Service to be asked for.
fn alone(subject: &Subject) -> String {
    format!(
        "the candidate of {} has none of its own: no Service selects its pods alone (with router.replicas one Service has the \
         pods of both)",
        subject.workload
    )
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn of(metrics: Value) -> Vec<String> {
        let subjects = Subjects { named: vec!["web".into(), "api".into()], rolled: vec![web(true)] };
        problems(&serde_json::from_value(json!({"metrics": metrics})).unwrap(), StepKind::Analysis, &subjects)
    }

    fn web(served: bool) -> Subject {
        let service = json!({"metadata": {"name": "web"}, "spec": {"ports":
            [{"name": "http", "port": 80}, {"name": "metrics", "port": 9090}]}});
        let service = served.then(|| Served::new(&service, Some([80].into())));
        Subject { workload: "web".into(), service }
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
            {"name": "f", "http": {"path": "/healthz", "port": "metrics"}},
            {"name": "g", "http": {"path": "/healthz", "port": 8080}, "workload": "web"},
            {"name": "h", "http": {"path": "/healthz", "port": "grpc"}, "workload": "api"},
        ]);
        assert_eq!(of(right), Vec::<String>::new());
    }

    #[test]
    fn what_is_wrong_is_said_with_the_metric() {
        let prometheus = |query: &str| json!({"address": "http://p", "query": query});
        let nobody = Subjects::default();
        assert_eq!(problems(&AnalysisPolicy::default(), StepKind::Other, &nobody), Vec::<String>::new());
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
                json!([{"name": "a", "http": {"path": "/"}, "workload": "db"}]),
                "metric a: spec.rollout rolls out no workload db, but web, api",
            ),
            (
                json!([{"name": "a", "http": {"path": "/", "port": "grpc"}}]),
                "metric a: Service web has no port grpc, but http (80), metrics (9090); correct http.port",
            ),
            (
                json!([{"name": "a", "http": {"path": "/", "port": 70000}}]),
                "metric a: http.port 70000 is none",
            ),
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

    #[test]
    fn what_nobody_could_ever_answer_is_refused() {
        let subjects = |subject: Subject| Subjects { named: vec!["web".into()], rolled: vec![subject] };
        let said = |metric: Value, subject: Subject| {
            let policy = serde_json::from_value(json!({"metrics": [metric]})).unwrap();
            problems(&policy, StepKind::Other, &subjects(subject)).join("; ")
        };
        let path = json!({"name": "a", "http": {"path": "/healthz"}});
        let builtin =
            json!({"name": "a", "prometheus": {"address": "http://p", "builtin": "request-duration"}});
        let own = json!({"name": "a", "prometheus": {"address": "http://p", "query": "up{pod=~'{{ variant }}-.*'}"},
                         "success": "result > 0"});
        let hook = json!({"name": "a", "webhook": {"url": "http://gate/{{ service }}"}});
        // No Service has the candidate's pods alone.
        let without = |metric: &Value| said(metric.clone(), web(false));
        assert_eq!(
            without(&path),
            "metric a: http.path asks the endpoints of a Service, and the candidate of web has none of its own: no Service \
             selects its pods alone (with router.replicas one Service has the pods of both); write http.url"
        );
        for (metric, field) in [(builtin, "query"), (hook, "url")] {
            let told = without(&metric);
            let begins = format!(
                "metric a: the {field} asks for {{{{ service }}}}, and the candidate of web has none"
            );
            assert!(
                told.starts_with(&begins) && told.ends_with("ask for {{ variant }}, the workload, instead"),
                "{told}"
            );
            assert_eq!(said(metric, web(true)), "");
        }
        assert_eq!(without(&own), "");
        // Several ports, and the route does not say which.
        let mut several = web(true);
        several.service.as_mut().unwrap().used.clear();
        let told = said(path.clone(), several);
        assert!(
            told.starts_with("metric a: Service web has the ports http (80), metrics (9090), and the route"),
            "{told}"
        );
        assert_eq!(said(path, web(true)), "");
    }
}
