//! Prometheus' instant queries: `POST <address>/api/v1/query`, as its HTTP API describes them and others speak it.
//!
//! A value counts only when it is the one number that was asked for. More than one series, a histogram, a range or a text is an
//! error of the query; a warning means that something is missing (a store that did not answer, a bad read), so that the value
//! may be anything.

use super::Asking;
use super::client::Answer;
use crate::api::analysis::PrometheusMetric;
use crate::core::analysis::Reading;
use crate::core::analysis::builtin;
use crate::core::analysis::template::{Place, Side};
use serde::Deserialize;

/// The most that is told of an error in Prometheus' words, in characters.
const TOLD: usize = 200;

/// What begins a warning that is a remark on the query's form, for versions that have no `infos` of their own.
const REMARK: &str = "PromQL info:";

#[derive(Deserialize)]
struct Told {
    status: String,
    #[serde(default)]
    data: Option<Data>,
    #[serde(default, rename = "errorType")]
    kind: String,
    #[serde(default)]
    error: String,
    #[serde(default)]
    warnings: Vec<String>,
}

#[derive(Deserialize)]
struct Data {
    #[serde(rename = "resultType")]
    kind: String,
    result: serde_json::Value,
}

/// What a query comes to for one variant.
pub(super) async fn read(asking: &Asking<'_>, of: &PrometheusMetric, side: Side) -> Reading {
    let Some(query) = builtin::query(of) else {
        return Reading::Error("prometheus takes one of query and builtin".into());
    };
    let query = match asking.fill(&query, side, Place::PromQl) {
        Ok(query) => query,
        Err(error) => return Reading::Error(error.to_string()),
    };
    let url = format!("{}/api/v1/query", of.address.trim_end_matches('/'));
    let mut ask = asking.ask(&url, &of.headers);
    // `partial_response` is Thanos': rather no answer than a part of one.
    let form = url::form_urlencoded::Serializer::new(String::new())
        .append_pair("query", &query)
        .append_pair("timeout", &format!("{}ms", asking.limit.as_millis()))
        .append_pair("partial_response", "false")
        .finish();
    ask.body = Some(("application/x-www-form-urlencoded", form.into_bytes()));
    let reading = match asking.clients.ask(ask).await {
        Ok(answer) => of_answer(&answer),
        Err(error) => Reading::Error(format!("Prometheus at {}: {error}", of.address)),
    };
    match (reading, of.builtin) {
        (Reading::NoData(told), Some(builtin)) => {
            Reading::NoData(format!("{}: {told}", builtin::no_value(builtin)))
        }
        (reading, _) => reading,
    }
}

fn of_answer(answer: &Answer) -> Reading {
    let error = |text: String| Reading::Error(format!("Prometheus: {text}"));
    if matches!(answer.status.as_u16(), 401 | 403) {
        return error(format!("{}: it does not take the credentials of secretRef", answer.told()));
    }
    let Ok(told) = serde_json::from_slice::<Told>(&answer.body) else {
        return error(match answer.status.is_success() {
            true => format!("{}; is the address right?", answer.no_json()),
            false => answer.told(),
        });
    };
    if told.status != "success" || !answer.status.is_success() {
        let text: String = told.error.chars().take(TOLD).collect();
        return error(match text.is_empty() {
            true => answer.told(),
            false => {
                format!("{} ({}): {text}", answer.told(), told.kind.chars().take(63).collect::<String>())
            }
        });
    }
    if let Some(warning) = told.warnings.iter().find(|w| !w.starts_with(REMARK)) {
        let text: String = warning.chars().take(TOLD).collect();
        return error(format!("the value may be incomplete: {text}"));
    }
    let Some(data) = told.data else { return error("it answers without data".into()) };
    match (data.kind.as_str(), &data.result) {
        ("scalar", result) => number(Some(result)),
        ("vector", serde_json::Value::Array(series)) => match series.as_slice() {
            [] => Reading::NoData("the query finds no series".into()),
            [one] => number(one.get("value")),
            several => error(format!(
                "the query finds {} series where one value is needed; put sum() or another aggregation around it",
                several.len()
            )),
        },
        (kind @ ("matrix" | "string"), _) => {
            error(format!("the query comes to a {kind} and not to one number"))
        }
        _ => error("it answers with a result of an unknown form".into()),
    }
}

/// `[time, "value"]`.
fn number(sample: Option<&serde_json::Value>) -> Reading {
    let Some(sample) = sample else {
        return Reading::Error(
            "Prometheus: the series is a histogram; use histogram_quantile() or the like".into(),
        );
    };
    let text = sample.get(1).and_then(serde_json::Value::as_str);
    match text.and_then(|text| text.parse().ok()) {
        Some(number) => Reading::Number(number),
        None => Reading::Error("Prometheus: the value is no number".into()),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use http::StatusCode;
    use serde_json::{Value, json};

    fn said(status: u16, body: &str) -> Reading {
        of_answer(&Answer {
            status: StatusCode::from_u16(status).unwrap(),
            kind: "application/json".into(),
            body: body.as_bytes().to_vec(),
        })
    }

    fn result(kind: &str, result: Value) -> Reading {
        said(200, &json!({"status": "success", "data": {"resultType": kind, "result": result}}).to_string())
    }

    #[test]
    fn one_number_is_a_value() {
        let one = json!([{"metric": {}, "value": [1.5, "0.5"]}]);
        assert_eq!(result("vector", one), Reading::Number(0.5));
        assert_eq!(result("scalar", json!([1.5, "2"])), Reading::Number(2.0));
        assert_eq!(result("vector", json!([])), Reading::NoData("the query finds no series".into()));
        let no_number = result("vector", json!([{"metric": {}, "value": [1.5, "+Inf"]}]));
        assert_eq!(no_number, Reading::Number(f64::INFINITY), "judged as no data");
    }

    #[test]
    fn everything_else_is_an_error() {
        let two = json!([{"metric": {}, "value": [1, "1"]}, {"metric": {}, "value": [1, "1"]}]);
        let readings = [
            result("vector", two),
            result("vector", json!([{"metric": {}, "histogram": [1, {}]}])),
            result("vector", json!([{"metric": {}, "value": [1, "one"]}])),
            result("vector", json!([{"metric": {}, "value": [1, 1]}])),
            result("vector", json!({})),
            result("matrix", json!([{"metric": {}, "values": [[1, "1"]]}])),
            result("string", json!([1, "1"])),
            result("scalar", json!(1)),
            result("other", json!([1, "1"])),
            said(200, "{\"status\":\"success\"}"),
            said(200, "{}"),
            said(200, "<html>Log in</html>"),
            said(302, ""),
            said(401, "{\"status\":\"success\",\"data\":{\"resultType\":\"scalar\",\"result\":[1,\"1\"]}}"),
            said(503, "{\"status\":\"success\",\"data\":{\"resultType\":\"scalar\",\"result\":[1,\"1\"]}}"),
            said(400, "{\"status\":\"error\",\"errorType\":\"bad_data\",\"error\":\"parse error\"}"),
            said(
                200,
                "{\"status\":\"success\",\"warnings\":[\"store down\"],\"data\":{\"resultType\":\"scalar\",\"result\":[1,\"1\"]}}",
            ),
        ];
        for reading in readings {
            assert!(matches!(reading, Reading::Error(_)), "{reading:?}");
        }
        let remark = "{\"status\":\"success\",\"warnings\":[\"PromQL info: x\"],\"infos\":[\"y\"],\"data\":{\"resultType\":\"scalar\",\"result\":[1,\"1\"]}}";
        assert_eq!(said(200, remark), Reading::Number(1.0));
    }
}
