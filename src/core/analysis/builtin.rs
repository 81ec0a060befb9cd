//! Ready-made queries: the share of requests that succeed, and how long they take.
//!
//! Envoy counts by cluster, and Contour names clusters `<namespace>_<service>_<port>`; no port is named here, since a Service's
//! ports all lead to the same pods. Failed requests are taken from one instead of dividing the good ones, since where there was
//! never a good one there is no series of them either, and no data would stand for what is 0.
//!
//! A gRPC call that fails is answered with 200, and its status stands in the trailers. Envoy counts each status under a name of
//! its own.

use crate::api::analysis::{Builtin, Metric, PrometheusMetric, Provider};

/// Statuses of gRPC that stand for a 5xx: UNKNOWN, DEADLINE_EXCEEDED, UNIMPLEMENTED, INTERNAL, UNAVAILABLE and DATA_LOSS. The
/// others are mistakes of the caller, or answers like any other (NOT_FOUND).
const FAILURES: [u8; 6] = [2, 4, 12, 13, 14, 15];

/// What is asked of gRPC calls where nothing else is said: by HTTP's statuses each of them would succeed.
pub fn of_calls(metrics: &mut [Metric]) {
    for metric in metrics.iter_mut().filter_map(|m| m.prometheus.as_mut()).filter(|p| p.builtin.is_some()) {
        metric.provider.get_or_insert(Provider::EnvoyGrpc);
    }
}

/// The query of a Prometheus metric: its own, or the ready-made one.
pub fn query(metric: &PrometheusMetric) -> Option<String> {
    let Some(builtin) = metric.builtin else { return metric.query.clone() };
    let window =
        metric.window.map_or_else(|| "1m".to_owned(), |w| format!("{}ms", w.0.as_millis().max(1000)));
    let envoy = "envoy_cluster_name=~\"{{ namespace }}_{{ service }}_[0-9]+\"";
    let scraped = "namespace=\"{{ namespace }}\",service=\"{{ service }}\"";
    let sum = |counter: &str, of: &str| format!("sum(rate({counter}{{{of}}}[{window}]))");
    let failed = |counter: &str, of: &str| format!("({} or vector(0))", sum(counter, of));
    let (all, failed, time, of, scale) = match metric.provider.unwrap_or_default() {
        Provider::Envoy => (
            sum("envoy_cluster_upstream_rq_xx", envoy),
            failed("envoy_cluster_upstream_rq_xx", &format!("{envoy},envoy_response_code_class=\"5\"")),
            "envoy_cluster_upstream_rq_time_bucket",
            envoy,
            " / 1000",
        ),
        Provider::EnvoyGrpc => {
            let each = FAILURES.map(|status| failed(&format!("envoy_cluster_grpc_{status}"), envoy));
            (
                sum("envoy_cluster_grpc_total", envoy),
                format!("({})", each.join(" + ")),
                "envoy_cluster_upstream_rq_time_bucket",
                envoy,
                " / 1000",
            )
        }
        Provider::Http => (
            sum("http_requests_total", scraped),
            failed("http_requests_total", &format!("{scraped},code=~\"5..\"")),
            "http_request_duration_seconds_bucket",
            scraped,
            "",
        ),
    };
    Some(match builtin {
        Builtin::RequestSuccessRate => format!("1 - {failed} / {all}"),
        Builtin::RequestDuration => format!(
            "histogram_quantile(0.{:02}, sum by (le) (rate({time}{{{of}}}[{window}]))){scale}",
            metric.percentile.unwrap_or(99).clamp(1, 99)
        ),
    })
}

/// What a ready-made query has to come to when nothing else is said.
pub fn success(builtin: Builtin) -> &'static str {
    match builtin {
        Builtin::RequestSuccessRate => "result >= 0.99",
        Builtin::RequestDuration => "result <= 0.5",
    }
}

/// Why a ready-made query has no value.
pub fn no_value(builtin: Builtin) -> &'static str {
    match builtin {
        Builtin::RequestSuccessRate => "no requests were counted in the window",
        Builtin::RequestDuration => "no requests were timed in the window",
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::api::Duration;

    #[test]
    fn queries_are_about_one_service() {
        let of = |builtin, provider, window, percentile| {
            let metric = PrometheusMetric {
                builtin: Some(builtin),
                provider,
                window,
                percentile,
                ..PrometheusMetric::default()
            };
            query(&metric).unwrap()
        };
        assert_eq!(
            of(Builtin::RequestSuccessRate, None, None, None),
            "1 - (sum(rate(envoy_cluster_upstream_rq_xx{envoy_cluster_name=~\"{{ namespace }}_{{ service }}_[0-9]+\",\
             envoy_response_code_class=\"5\"}[1m])) or vector(0)) / sum(rate(envoy_cluster_upstream_rq_xx{\
             envoy_cluster_name=~\"{{ namespace }}_{{ service }}_[0-9]+\"}[1m]))"
        );
        assert_eq!(
            of(Builtin::RequestDuration, Some(Provider::Http), Some(Duration::from_secs(90)), Some(5)),
            "histogram_quantile(0.05, sum by (le) (rate(http_request_duration_seconds_bucket{namespace=\"{{ namespace }}\",\
             service=\"{{ service }}\"}[90000ms])))"
        );
        let calls = of(Builtin::RequestSuccessRate, Some(Provider::EnvoyGrpc), None, None);
        let cluster = "{envoy_cluster_name=~\"{{ namespace }}_{{ service }}_[0-9]+\"}[1m])";
        let first = format!("1 - ((sum(rate(envoy_cluster_grpc_2{cluster}) or vector(0)) + (");
        let last = format!(" or vector(0))) / sum(rate(envoy_cluster_grpc_total{cluster})");
        assert!(calls.starts_with(&first) && calls.ends_with(&last), "{calls}");
        let envoy = of(Builtin::RequestDuration, Some(Provider::Envoy), None, None);
        assert!(envoy.starts_with("histogram_quantile(0.99,") && envoy.ends_with(" / 1000"), "{envoy}");
    }
}
