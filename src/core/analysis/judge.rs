//! One measurement: what was read, and what it comes to.

use super::builtin;
use crate::api::analysis::{Metric, Outcome};
use crate::core::expression::{Expression, ExpressionError};
use serde_json::Value;

/// The longest message that is kept, in characters.
const LONGEST: usize = 300;

/// What was read of one variant, or of one of its endpoints.
#[derive(Clone, Debug, PartialEq)]
pub enum Reading {
    /// A number, as it came: it may be none.
    Number(f64),
    /// The JSON of an answer that came as it should.
    Json(Value),
    /// An answer that came as it should and says nothing else: `answers 200`.
    Well(String),
    /// What is measured answered, and not as it should.
    Bad(String),
    /// There is nothing to read.
    NoData(String),
    /// It could not be read.
    Error(String),
}

/// What was read for one measurement of a metric.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Measurement {
    /// Of the candidate, each with where it comes from (an endpoint; empty where there is but one).
    pub candidate: Vec<(String, Reading)>,
    /// Of stable, where it was asked.
    pub stable: Option<Reading>,
}

impl Measurement {
    /// Of the candidate alone.
    pub fn of(reading: Reading) -> Self {
        Measurement { candidate: vec![(String::new(), reading)], stable: None }
    }
}

/// What a measurement came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judged {
    /// It.
    pub outcome: Outcome,
    /// The value, where there is a number.
    pub value: Option<String>,
    /// Why it is no success; empty where it is.
    pub message: String,
}

impl Judged {
    fn new(outcome: Outcome, message: impl Into<String>) -> Self {
        let message: String = message.into();
        let message = match message.char_indices().nth(LONGEST) {
            Some((at, _)) => format!("{}…", &message[..at]),
            None => message,
        };
        Judged { outcome, value: None, message }
    }

    fn success() -> Self {
        Judged::new(Outcome::Success, "")
    }
}

/// The rules of a metric, as they stand or as a ready-made query has them.
pub(super) fn rules(metric: &Metric) -> (Option<&str>, Option<&str>) {
    let (success, failure) = (metric.success.as_deref(), metric.failure.as_deref());
    let builtin = metric.prometheus.as_ref().and_then(|p| p.builtin);
    match (success, failure, builtin) {
        (None, None, Some(builtin)) => (Some(builtin::success(builtin)), None),
        _ => (success, failure),
    }
}

/// Reads a rule of a metric.
pub(super) fn read(metric: &Metric, text: &str) -> Result<Expression, ExpressionError> {
    let expression = Expression::parse_over(text, &["result", "stable", "candidate"])?.measurable()?;
    // Numbers of a JSON answer keep their type: an index is a whole one.
    Ok(if metric.prometheus.is_some() { expression.decimals() } else { expression })
}

/// Whether a rule of the metric names `stable`, so that stable has to be asked too.
pub fn names_stable(metric: &Metric) -> bool {
    let (success, failure) = rules(metric);
    [success, failure].into_iter().flatten().any(|text| read(metric, text).is_ok_and(|e| e.names("stable")))
}

/// What a measurement comes to. With several readings of the candidate all have to be well, and the worst decides.
pub fn judge(metric: &Metric, measurement: &Measurement) -> Judged {
    let each = measurement.candidate.iter().map(|(of, reading)| {
        let mut judged = judge_one(metric, reading, measurement.stable.as_ref());
        if !of.is_empty() && !judged.message.is_empty() {
            judged = Judged { message: format!("{of}: {}", judged.message), ..judged };
        }
        judged
    });
    // The first of the worst: the order of endpoints is stable, and so is the message.
    let worst = each.reduce(|worst, next| if next.outcome > worst.outcome { next } else { worst });
    let mut judged = worst.unwrap_or_else(|| Judged::new(Outcome::NoData, "there is nothing to measure"));
    judged.value = value(measurement);
    judged
}

fn judge_one(metric: &Metric, reading: &Reading, stable: Option<&Reading>) -> Judged {
    let (success, failure) = rules(metric);
    let value = match reading {
        Reading::Bad(message) => return Judged::new(Outcome::Failure, message.as_str()),
        Reading::NoData(message) => return Judged::new(Outcome::NoData, message.as_str()),
        Reading::Error(message) => return Judged::new(Outcome::Error, message.as_str()),
        Reading::Well(_) if success.is_none() && failure.is_none() => return Judged::success(),
        Reading::Well(_) => {
            return Judged::new(
                Outcome::Error,
                "the answer holds nothing that success or failure could look at",
            );
        }
        Reading::Number(n) if !n.is_finite() => return Judged::new(Outcome::NoData, no_number(metric, *n)),
        Reading::Number(n) => Value::from(*n),
        Reading::Json(value) => value.clone(),
    };
    let holds = |text: &str| holds(metric, text, &value, stable);
    match (failure.map(holds), success.map(holds)) {
        (Some(Ok(true)), _) => {
            Judged::new(Outcome::Failure, format!("{} holds", failure.unwrap_or_default()))
        }
        (None, Some(Ok(false))) => {
            Judged::new(Outcome::Failure, format!("{} does not hold", success.unwrap_or_default()))
        }
        (Some(Err(unknown)), _) | (_, Some(Err(unknown))) => unknown,
        (None, Some(Ok(true))) | (Some(Ok(false)), None | Some(Ok(true))) => Judged::success(),
        (Some(Ok(false)), Some(Ok(false))) => Judged::new(
            Outcome::Inconclusive,
            format!("neither {} nor {} holds", success.unwrap_or_default(), failure.unwrap_or_default()),
        ),
        (None, None) => Judged::new(Outcome::Error, "neither success nor failure is given"),
    }
}

/// Whether a rule holds, or what its not being known comes to.
fn holds(metric: &Metric, text: &str, value: &Value, stable: Option<&Reading>) -> Result<bool, Judged> {
    let error = |e: ExpressionError| match e {
        // 0/0: there is nothing to compare with.
        ExpressionError::NoNumber(_) => Judged::new(Outcome::NoData, format!("{text}: {e}")),
        e => Judged::new(Outcome::Error, format!("{text}: {e}")),
    };
    let expression = read(metric, text).map_err(error)?;
    let mut values = vec![("result", value), ("candidate", value)];
    let beside;
    if expression.names("stable") {
        beside = match stable {
            Some(Reading::Number(n)) if n.is_finite() => Value::from(*n),
            Some(Reading::Number(n)) => {
                return Err(Judged::new(Outcome::NoData, format!("stable: {}", no_number(metric, *n))));
            }
            Some(Reading::Json(value)) => value.clone(),
            Some(Reading::NoData(message)) => {
                return Err(Judged::new(Outcome::NoData, format!("stable: {message}")));
            }
            Some(Reading::Bad(message) | Reading::Error(message) | Reading::Well(message)) => {
                return Err(Judged::new(Outcome::Error, format!("stable: {message}")));
            }
            None => return Err(Judged::new(Outcome::Error, "stable was not asked")),
        };
        values.push(("stable", &beside));
    }
    expression.holds_of(&values).map_err(error)
}

fn no_number(metric: &Metric, n: f64) -> String {
    let what = if n.is_nan() { "NaN" } else { "infinite" };
    match metric.prometheus.as_ref().and_then(|p| p.builtin) {
        Some(builtin) => format!("{} (the value is {what})", builtin::no_value(builtin)),
        None => format!("the value is {what}, such as of a division by zero where there are no requests"),
    }
}

/// The numbers of a measurement, for people.
fn value(measurement: &Measurement) -> Option<String> {
    let number = |reading: &Reading| match reading {
        Reading::Number(n) => Some(plain(*n)),
        _ => None,
    };
    let of = measurement.candidate.first().and_then(|(_, reading)| number(reading));
    match (of, measurement.stable.as_ref().and_then(number)) {
        (Some(of), Some(stable)) => Some(format!("{of} (stable {stable})")),
        (of, _) => of,
    }
}

/// A number with four digits after the point, or as many as tell it from zero.
fn plain(n: f64) -> String {
    let size = n.abs();
    if n == 0.0 || !n.is_finite() {
        return n.to_string();
    }
    if !(1e-3..1e9).contains(&size) {
        return format!("{n:.3e}");
    }
    let text = format!("{n:.4}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::api::analysis::{Builtin, HttpMetric, PrometheusMetric};
    use serde_json::json;

    fn metric(success: Option<&str>, failure: Option<&str>) -> Metric {
        Metric {
            name: "m".into(),
            prometheus: Some(PrometheusMetric::default()),
            success: success.map(Into::into),
            failure: failure.map(Into::into),
            ..Metric::default()
        }
    }

    fn number(metric: &Metric, n: f64, stable: Option<f64>) -> Judged {
        let stable = stable.map(Reading::Number);
        judge(metric, &Measurement { stable, ..Measurement::of(Reading::Number(n)) })
    }

    #[test]
    fn numbers_are_judged_by_the_rules() {
        use Outcome::*;
        let (rate, errors) = ("result >= 0.99", "result > 0.5");
        let table = [
            (Some(rate), None, 0.995, Success),
            (Some(rate), None, 0.98, Failure),
            (None, Some(errors), 0.1, Success),
            (None, Some(errors), 0.6, Failure),
            (Some("result < 0.1"), Some(errors), 0.05, Success),
            (Some("result < 0.1"), Some(errors), 0.3, Inconclusive),
            (Some("result < 0.1"), Some(errors), 0.6, Failure),
            (Some("result > 0"), Some(errors), 0.6, Failure),
            (None, None, 1.0, Error),
            (Some("result >="), None, 1.0, Error),
            (Some("result"), None, 1.0, Error),
            (Some("other > 1"), None, 1.0, Error),
        ];
        for (success, failure, n, outcome) in table {
            assert_eq!(
                number(&metric(success, failure), n, None).outcome,
                outcome,
                "{success:?} {failure:?} {n}"
            );
        }
    }

    #[test]
    fn a_threshold_can_be_relative() {
        let relative = metric(Some("candidate <= stable * 1.2"), None);
        assert!(names_stable(&relative) && !names_stable(&metric(Some("result > 1"), None)));
        let judged = number(&relative, 0.11, Some(0.1));
        assert_eq!((judged.outcome, judged.value.as_deref()), (Outcome::Success, Some("0.11 (stable 0.1)")));
        let judged = number(&relative, 0.13, Some(0.1));
        assert_eq!(judged.outcome, Outcome::Failure);
        assert_eq!(judged.message, "candidate <= stable * 1.2 does not hold");
        for (stable, outcome) in [(Some(f64::NAN), Outcome::NoData), (None, Outcome::Error)] {
            assert_eq!(number(&relative, 0.1, stable).outcome, outcome);
        }
        let ratio = metric(None, Some("candidate / stable > 1.2"));
        assert_eq!(number(&ratio, 0.0, Some(0.0)).outcome, Outcome::NoData);
        // What fails by itself fails, whatever is known of stable.
        let both = metric(Some("candidate <= stable * 1.2"), Some("candidate > 1"));
        assert_eq!(number(&both, 2.0, Some(f64::NAN)).outcome, Outcome::Failure);
        assert_eq!(number(&both, 0.5, Some(f64::NAN)).outcome, Outcome::NoData);
    }

    #[test]
    fn ready_made_queries_have_rules_and_words_of_their_own() {
        let mut of = metric(None, None);
        of.prometheus =
            Some(PrometheusMetric { builtin: Some(Builtin::RequestSuccessRate), ..Default::default() });
        assert_eq!(number(&of, 0.995, None).outcome, Outcome::Success);
        assert_eq!(number(&of, 0.9, None).message, "result >= 0.99 does not hold");
        let nothing = number(&of, f64::NAN, None);
        assert_eq!(nothing.message, "no requests were counted in the window (the value is NaN)");
        of.success = Some("result > 0.5".into());
        assert_eq!(number(&of, 0.9, None).outcome, Outcome::Success);
    }

    #[test]
    fn every_endpoint_has_to_be_well() {
        let check = Metric {
            http: Some(HttpMetric::default()),
            success: Some("result.ok && result.queue < 10".into()),
            ..Metric::default()
        };
        let of = |readings: Vec<Reading>| {
            let candidate =
                readings.into_iter().enumerate().map(|(i, r)| (format!("10.0.0.{i}:80"), r)).collect();
            let judged = judge(&check, &Measurement { candidate, stable: None });
            (judged.outcome, judged.message)
        };
        let well = || Reading::Json(json!({"ok": true, "queue": 3}));
        assert_eq!(of(vec![well(), well()]), (Outcome::Success, String::new()));
        let full = Reading::Json(json!({"ok": true, "queue": 11}));
        let said = "10.0.0.1:80: result.ok && result.queue < 10 does not hold".to_owned();
        assert_eq!(of(vec![well(), full.clone(), well()]), (Outcome::Failure, said.clone()));
        assert_eq!(of(vec![well(), full, Reading::Error("x".into())]), (Outcome::Failure, said));
        assert_eq!(of(vec![well(), Reading::Json(json!({"ok": true}))]).0, Outcome::Error);
        assert_eq!(of(vec![well(), Reading::Json(json!("login"))]).0, Outcome::Error);
        assert_eq!(of(vec![]).0, Outcome::NoData);
        assert_eq!(of(vec![Reading::Well("answers 200".into())]).0, Outcome::Error);
    }

    #[test]
    fn numbers_read_well() {
        let table = [
            (0.98765, "0.9877"),
            (12.0, "12"),
            (0.0, "0"),
            (2.5e-5, "2.500e-5"),
            (1e12, "1.000e12"),
            (f64::NAN, "NaN"),
        ];
        for (n, text) in table {
            assert_eq!(plain(n), text);
        }
    }
}
