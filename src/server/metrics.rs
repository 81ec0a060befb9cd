//! `/metrics`: what was counted, and what is read off the state at that moment. Labels are bounded by the number of
//! Deliveries and Repositories; no label holds a revision, a message or an object's name.

use crate::api::Phase;
use crate::reconcile::snapshot::Snapshot;
use prometheus::core::Collector;
use prometheus::proto::MetricFamily;
use prometheus::{IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, TextEncoder};

/// All phases, so that a phase without Deliveries shows as 0.
const PHASES: [Phase; 12] = [
    Phase::Pending,
    Phase::Applying,
    Phase::Waiting,
    Phase::RollingOut,
    Phase::Paused,
    Phase::Ready,
    Phase::RollingBack,
    Phase::Held,
    Phase::RollbackFailed,
    Phase::Failed,
    Phase::Suspended,
    Phase::Deleting,
];

/// The answer to a scrape. An error is a mistake in a name that stands here.
pub fn text(
    snapshot: &Snapshot,
    leading: bool,
    counted: Vec<MetricFamily>,
) -> Result<String, prometheus::Error> {
    let mut families = counted;
    families.extend(read_off(snapshot, leading)?);
    families.extend(process());
    families.retain(|family| !family.get_metric().is_empty());
    families.sort_by(|a, b| a.name().cmp(b.name()));
    TextEncoder::new().encode_to_string(&families)
}

fn count(n: usize) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

/// What the state says. Pure.
fn read_off(snapshot: &Snapshot, leading: bool) -> Result<Vec<MetricFamily>, prometheus::Error> {
    let mut families = Vec::new();
    let of_delivery = |name: &str, help: &str, value: &dyn Fn(usize) -> i64| {
        let gauge = IntGaugeVec::new(Opts::new(name, help), &["namespace", "name"])?;
        for (at, delivery) in snapshot.deliveries.iter().enumerate() {
            gauge.with_label_values(&[&delivery.namespace, &delivery.name]).set(value(at));
        }
        Ok::<_, prometheus::Error>(gauge.collect())
    };
    let all = &snapshot.deliveries;
    families.extend(of_delivery(
        "windlass_delivery_ready",
        "1 for a Delivery that is as its source says and healthy.",
        &|at| all[at].ready.into(),
    )?);
    families.extend(of_delivery(
        "windlass_delivery_held",
        "1 for a Delivery whose newest revision failed and is held.",
        &|at| all[at].held.into(),
    )?);
    families.extend(of_delivery(
        "windlass_delivery_drifted_objects",
        "Objects that differ from the Delivery's effective revision.",
        &|at| all[at].drift,
    )?);
    families.extend(of_delivery(
        "windlass_delivery_inventory_objects",
        "Objects that the Delivery owns.",
        &|at| count(all[at].inventory),
    )?);

    let phases =
        IntGaugeVec::new(Opts::new("windlass_deliveries", "Deliveries by what they are doing."), &["phase"])?;
    for phase in PHASES {
        let there = all.iter().filter(|d| d.phase == phase).count();
        phases.with_label_values(&[format!("{phase:?}").as_str()]).set(count(there));
    }
    families.extend(phases.collect());

    let repositories = IntGaugeVec::new(
        Opts::new("windlass_repository_ready", "1 for a Repository whose last poll went well."),
        &["namespace", "name"],
    )?;
    for (namespace, name, ready) in &snapshot.repositories {
        repositories.with_label_values(&[namespace, name]).set((*ready).into());
    }
    families.extend(repositories.collect());

    let requests = IntCounterVec::new(
        Opts::new(
            "windlass_api_requests_total",
            "Requests to the API server by verb and class of the answer.",
        ),
        &["verb", "code"],
    )?;
    for ((verb, class), n) in &snapshot.requests {
        requests.with_label_values(&[*verb, *class]).inc_by(*n);
    }
    families.extend(requests.collect());

    let dropped =
        IntCounter::new("windlass_events_dropped_total", "Kubernetes Events that could not be written.")?;
    dropped.inc_by(snapshot.events_dropped);
    families.extend(dropped.collect());

    let watches = IntGauge::new("windlass_watches", "Watches of delivered objects that are open.")?;
    watches.set(count(snapshot.watches));
    families.extend(watches.collect());

    let leader = IntGauge::new("windlass_leader", "1 for the replica that holds the Lease.")?;
    leader.set(leading.into());
    families.extend(leader.collect());

    let build =
        IntGaugeVec::new(Opts::new("windlass_build_info", "Always 1; which build runs."), &["version"])?;
    build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
    families.extend(build.collect());
    Ok(families)
}

/// Memory, processor time, descriptors and start of this process.
#[cfg(target_os = "linux")]
fn process() -> Vec<MetricFamily> {
    prometheus::process_collector::ProcessCollector::for_self().collect()
}

/// Only Linux tells them.
#[cfg(not(target_os = "linux"))]
fn process() -> Vec<MetricFamily> {
    Vec::new()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::reconcile::metrics::Metrics;
    use crate::reconcile::snapshot::DeliveryNumbers;
    use std::time::Duration;

    #[test]
    fn the_state_is_read_off_at_the_scrape() {
        let delivery = |name: &str, phase: Phase, held: bool, drift: i64| DeliveryNumbers {
            namespace: "team".into(),
            name: name.into(),
            phase,
            ready: !held,
            held,
            drift,
            inventory: 4,
        };
        let snapshot = Snapshot {
            deliveries: vec![
                delivery("shop", Phase::Held, true, 0),
                delivery("blog", Phase::Ready, false, 2),
            ],
            repositories: vec![("team".into(), "config".into(), true)],
            requests: [(("get", "2xx"), 7), (("patch", "4xx"), 1)].into(),
            watches: 3,
            events_dropped: 2,
        };
        let metrics = Metrics::new().unwrap();
        metrics.reconciled("Delivery", true, Duration::from_millis(30));
        metrics.fetched(false, Duration::from_secs(3));
        metrics.deployed(Duration::from_secs(8));
        let text = text(&snapshot, true, metrics.gather()).unwrap();
        for line in [
            "windlass_delivery_held{name=\"shop\",namespace=\"team\"} 1",
            "windlass_delivery_held{name=\"blog\",namespace=\"team\"} 0",
            "windlass_delivery_ready{name=\"blog\",namespace=\"team\"} 1",
            "windlass_delivery_drifted_objects{name=\"blog\",namespace=\"team\"} 2",
            "windlass_delivery_inventory_objects{name=\"shop\",namespace=\"team\"} 4",
            "windlass_deliveries{phase=\"Held\"} 1",
            "windlass_deliveries{phase=\"Failed\"} 0",
            "windlass_repository_ready{name=\"config\",namespace=\"team\"} 1",
            "windlass_api_requests_total{code=\"2xx\",verb=\"get\"} 7",
            "windlass_api_requests_total{code=\"4xx\",verb=\"patch\"} 1",
            "windlass_events_dropped_total 2",
            "windlass_watches 3",
            "windlass_leader 1",
            "windlass_reconciles_total{kind=\"Delivery\",result=\"success\"} 1",
            "windlass_reconcile_duration_seconds_bucket{kind=\"Delivery\",result=\"success\",le=\"0.05\"} 1",
            "windlass_fetches_total{result=\"error\"} 1",
            "windlass_fetch_duration_seconds_count{result=\"error\"} 1",
            "windlass_commit_to_healthy_seconds_bucket{le=\"10\"} 1",
            "windlass_commit_to_healthy_seconds_bucket{le=\"5\"} 0",
        ] {
            assert!(text.lines().any(|l| l == line), "no {line} in\n{text}");
        }
        assert!(
            text.contains("windlass_build_info{version=\"") && text.contains("process_start_time_seconds")
        );
        let mut names: Vec<_> = text.lines().filter_map(|l| l.strip_prefix("# TYPE ")).collect();
        let all = names.len();
        names.dedup();
        assert_eq!(names.len(), all, "a family stands twice");
    }
}
