//! The table: what was asked, and what was measured.

use super::applications::Applications;
use super::cluster::Audited;
use super::config::FAILURES;
use super::detection::Delays;
use super::drift;
use super::fleet::{Fleet, Start, Tenants};
use super::neighbours::Push;
use super::proxy::Proxy;
use super::rollouts::{INTERVAL, Rollouts};
use jiff::Timestamp;
use std::collections::BTreeMap;
use std::time::Duration;

/// What one round measured.
#[derive(Default)]
pub struct Round {
    /// The load average before it.
    pub load: String,
    /// The bare limit of a first deployment.
    pub bare_cold: Duration,
    /// Processor time of the server for it, in seconds.
    pub bare_cold_server: f64,
    /// The bare limit of a change.
    pub bare_push: Duration,
    /// From the start of the process until all Deliveries are Ready.
    pub cold: Duration,
    /// Until the first one is.
    pub cold_first: Duration,
    /// Processor time of the server for it, in seconds.
    pub cold_server: f64,
    /// Processor time of the daemon for it, in seconds.
    pub cold_daemon: f64,
    /// Requests of the cold start.
    pub cold_requests: Requests,
    /// From the push until the last object was written.
    pub push_live: Duration,
    /// From the push until all Deliveries are Ready.
    pub push_ready: Duration,
    /// Requests of the push.
    pub push_requests: Requests,
    /// Requests of a reconcile that finds nothing to do.
    pub unchanged: Requests,
    /// How long was rested, the requests meanwhile, and processor time of the daemon in seconds.
    pub rest: Option<(Duration, Requests, f64)>,
    /// Most memory that was resident by the end of the cold start, in MiB.
    pub peak: f64,
    /// Resident memory after cold start and push, in MiB.
    pub settled: f64,
    /// Resident memory after a restart, in MiB.
    pub restarted: f64,
    /// The same with so many more objects.
    pub restarted_more: Option<(f64, usize)>,
}

/// Requests by what they are.
#[derive(Clone, Debug, Default)]
pub struct Requests(pub BTreeMap<(String, String), usize>);

/// What the daemon reads and writes about itself: none of it is delivered.
const OWN: [&str; 8] = [
    "(discovery)",
    "applications",
    "controllerrevisions",
    "deliveries",
    "driftreports",
    "events",
    "leases",
    "repositories",
];

impl Requests {
    /// Counts what the audit log holds.
    pub fn of(all: &[Audited]) -> Self {
        let mut counts: BTreeMap<(String, String), usize> = BTreeMap::new();
        for request in all {
            let verb = if request.uri.contains("dryRun=All") { "dry-run" } else { &request.verb };
            let resource = match (request.resource.as_str(), request.subresource.as_str()) {
                ("", _) => "(discovery)".to_owned(),
                (resource, "") => resource.to_owned(),
                (resource, part) => format!("{resource}/{part}"),
            };
            let failed = if request.code >= 400 { format!(" ({})", request.code) } else { String::new() };
            *counts.entry((format!("{verb}{failed}"), resource)).or_default() += 1;
        }
        Requests(counts)
    }

    /// How long after `begin` the last object was written.
    pub fn last_write(all: &[Audited], begin: Timestamp) -> Duration {
        let writes = all.iter().filter(|r| r.verb == "patch" && !r.is_read() && !is_own(&r.resource));
        let last = writes.filter_map(|r| r.at.parse::<Timestamp>().ok()).max();
        last.and_then(|at| Duration::try_from(at.duration_since(begin)).ok()).unwrap_or_default()
    }

    /// How many there are of which this holds.
    pub fn count(&self, which: impl Fn(&str, &str) -> bool) -> usize {
        self.0.iter().filter(|((verb, resource), _)| which(verb, resource)).map(|(_, n)| n).sum()
    }

    /// Dry-runs and writes of what is delivered.
    pub fn objects(&self) -> usize {
        self.count(|verb, resource| {
            !verb.starts_with("get") && !verb.starts_with("list") && verb != "watch" && !is_own(resource)
        })
    }

    /// Writes about Deliveries: status and events.
    pub fn about(&self) -> usize {
        self.count(|verb, resource| {
            let write = ["create", "update", "patch", "dry-run"].iter().any(|v| verb.starts_with(v));
            write && (resource == "deliveries/status" || resource == "events" || resource == "driftreports")
        })
    }

    /// Reads that are no watches.
    pub fn reads(&self) -> usize {
        self.count(|verb, resource| {
            (verb.starts_with("get") || verb.starts_with("list")) && resource != "leases"
        })
    }

    /// All but watches and the Lease.
    pub fn all(&self) -> usize {
        self.count(|verb, resource| verb != "watch" && resource != "leases")
    }

    fn print(&self, title: &str) {
        println!("\n{title}");
        for ((verb, resource), count) in &self.0 {
            println!("  {count:>5}  {verb:<14} {resource}");
        }
    }
}

/// Of a resource or a part of one, such as `deliveries/status`.
fn is_own(resource: &str) -> bool {
    OWN.contains(&resource.split('/').next().unwrap_or_default())
}

/// The middle one, or what lies between the two in the middle.
fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    let at = |n: usize| values.get(n).copied().unwrap_or(f64::NAN);
    (at(values.len().saturating_sub(1) / 2) + at(values.len() / 2)) / 2.0
}

/// Prints everything.
pub fn print(all: &[Round], deliveries: usize) {
    let Some(last) = all.last() else { return };
    println!("\nEach round: seconds, and ratios to the bare limit of the same round.");
    println!(
        "  load   bare  cold start (first)  ratio |   bare  push live  ratio  all Ready | server s  (bare)  daemon s"
    );
    for r in all {
        println!(
            "  {:<5} {:>5.2} {:>11.2} {:>7.2} {:>6.2} | {:>6.2} {:>10.2} {:>6.2} {:>10.2} | {:>8.2} {:>7.2} {:>9.2}",
            r.load,
            r.bare_cold.as_secs_f64(),
            r.cold.as_secs_f64(),
            r.cold_first.as_secs_f64(),
            ratio(r.cold, r.bare_cold),
            r.bare_push.as_secs_f64(),
            r.push_live.as_secs_f64(),
            ratio(r.push_live, r.bare_push),
            r.push_ready.as_secs_f64(),
            r.cold_server,
            r.bare_cold_server,
            r.cold_daemon,
        );
    }
    last.cold_requests.print("Requests of the cold start");
    last.push_requests.print("Requests of the push");
    last.unchanged.print("Requests of one reconcile that finds nothing");
    if let Some((time, requests, _)) = &last.rest {
        requests.print(&format!("Requests of {} s at rest", time.as_secs()));
    }
    let (objects, changed) = (deliveries * 4, deliveries * 3);
    let per = |n: usize, by: usize| n as f64 / by as f64;
    println!("\n{:<58} {:>9}  {:>9}", "", "asked", "measured");
    let line = |what: &str, asked: &str, measured: String| println!("{what:<58} {asked:>9}  {measured:>9}");
    let number = |n: f64| format!("{n:.2}");
    line(
        "cold start, all Ready / bare limit (median)",
        "<= 2",
        number(median(all.iter().map(|r| ratio(r.cold, r.bare_cold)))),
    );
    line(
        "push, all live / bare limit (median)",
        "<= 2",
        number(median(all.iter().map(|r| ratio(r.push_live, r.bare_push)))),
    );
    line("requests for each new object", "<= 2", number(per(last.cold_requests.objects(), objects)));
    line("requests for each changed object", "<= 2", number(per(last.push_requests.objects(), changed)));
    line(
        "our writes for each Delivery, cold start",
        "<= 3",
        number(per(last.cold_requests.about(), deliveries)),
    );
    line("our writes for each Delivery, push", "<= 3", number(per(last.push_requests.about(), deliveries)));
    line("an unchanged reconcile: writes of objects", "0", last.unchanged.objects().to_string());
    line("an unchanged reconcile: reads", "constant", last.unchanged.reads().to_string());
    if let Some((time, requests, processor)) = &last.rest {
        let minutes = time.as_secs_f64() / 60.0;
        line("at rest: requests a minute", "0", number(requests.all() as f64 / minutes));
        line("at rest: processor time a minute, ms", "", format!("{:.0}", processor * 1000.0 / minutes));
    }
    line(
        "resident memory after cold start and push, MiB",
        "< 60",
        number(median(all.iter().map(|r| r.settled))),
    );
    line("most during the cold start, MiB", "", number(median(all.iter().map(|r| r.peak))));
    if let Some((more, objects)) = last.restarted_more {
        line("resident memory after a restart, MiB", "< 60", number(last.restarted));
        line(&format!("the same with {objects} more objects, MiB"), "", number(more));
        let bytes = (more - last.restarted) * 1024.0 * 1024.0 / objects as f64;
        line("bytes for each of these objects", "", format!("{bytes:.0}"));
    }
}

fn ratio(of: Duration, to: Duration) -> f64 {
    of.as_secs_f64() / to.as_secs_f64()
}

/// Prints how soon rollbacks began, by way to fail.
pub fn print_delays(delays: &Delays) {
    println!("\nFrom the event that shows a failure to the start of the rollback, in milliseconds");
    let mut all = Vec::new();
    let mut lines = Vec::new();
    for (way, what) in FAILURES {
        let values = delays.get(way).map(Vec::as_slice).unwrap_or_default();
        lines.push((what, values));
        all.extend_from_slice(values);
    }
    lines.push(("all (asked: median < 200)", &all));
    print_milliseconds(&lines);
}

fn print_milliseconds(lines: &[(&str, &[Duration])]) {
    println!("{:<50} {:>6} {:>8} {:>8} {:>8}", "", "number", "median", "p90", "most");
    for (what, values) in lines {
        let mut sorted: Vec<f64> = values.iter().map(|d| d.as_secs_f64() * 1000.0).collect();
        sorted.sort_by(f64::total_cmp);
        let last = sorted.len().saturating_sub(1);
        let at = |part: usize| sorted.get((sorted.len() * part / 100).min(last)).copied().unwrap_or(f64::NAN);
        println!("{what:<50} {:>6} {:>8.0} {:>8.0} {:>8.0}", sorted.len(), at(50), at(90), at(100));
    }
}

/// Prints how soon drift is told of and mended.
pub fn print_drift(delays: &drift::Delays) {
    println!("\nFrom the answer to somebody's write, in milliseconds");
    print_milliseconds(&[
        ("an edit is in the status (asked: median < 100)", &delays.told),
        ("a deleted Deployment is back (median < 80)", &delays.back),
        ("ten deleted at once are all back (< 300)", &delays.all_back),
    ]);
}

/// Prints what a large installation costs.
pub fn print_fleet(fleet: &Fleet) {
    println!("\n{} Deliveries, {} objects, one account", fleet.size.0, fleet.size.1);
    println!(
        "  resident memory when all are Ready: {:.0} MiB (asked: < 200), most until then {:.0}",
        fleet.settled, fleet.peak
    );
    println!(
        "  resident memory after a restart: {:.0} MiB, most until then {:.0}",
        fleet.restarted, fleet.restarted_peak
    );
    println!("  processor time at rest: {:.2} % of a core (asked: < 1)", fleet.rest);
    println!("  {} restarts, each after a bare list:", fleet.starts.len());
    print_starts("all is listed (asked: < 2)", &fleet.starts, |start| start.seen);
    print_starts("each status tells what was lost", &fleet.starts, |start| start.known);
    let loads: Vec<&str> = fleet.starts.iter().map(|start| start.load.as_str()).collect();
    println!("    load average before each: {}", loads.join(", "));
}

/// Prints how long after its start a daemon was so far, against the bare list: the median, the lowest and the highest.
fn print_starts(what: &str, starts: &[Start], time: impl Fn(&Start) -> Duration) {
    let sorted = |value: &dyn Fn(&Start) -> f64| {
        let mut all: Vec<f64> = starts.iter().map(value).collect();
        all.sort_by(f64::total_cmp);
        all
    };
    let ratios = sorted(&|start| ratio(time(start), start.listed));
    let (times, lists) =
        (sorted(&|start| time(start).as_secs_f64()), sorted(&|start| start.listed.as_secs_f64()));
    let middle = starts.len() / 2;
    println!(
        "    until {what}: {:.2} s, list {:.2} s, ratio {:.2} ({:.2} to {:.2})",
        times[middle],
        lists[middle],
        ratios[middle],
        ratios[0],
        ratios[ratios.len() - 1],
    );
}

/// Prints what Applications cost.
pub fn print_applications(found: &Applications) {
    let (count, objects) = found.count;
    println!("\n{count} Applications at once, {objects} objects, load average {}", found.load);
    let whole = found.bare + found.bare_made;
    let line = |what: &str, time: Duration| {
        println!(
            "  {what:<66} {:>6.2} s  {:>5.2} of the bare limit  {:>5.2} of it with the Applications  {:>5.2} of applies alone",
            time.as_secs_f64(),
            ratio(time, found.bare),
            ratio(time, whole),
            ratio(time, found.bare_applies)
        );
    };
    line("the bare limit of the objects, each tried and applied", found.bare);
    line("making the Applications, where no daemon runs", found.bare_made);
    line("each object applied only", found.bare_applies);
    line("until the last Application was made", found.made);
    line("until all objects are there (asked: < 2 of the bare limit)", found.there);
    line("until the daemon had said all about them", found.told);
    let [bare, used] = found.processor;
    println!(
        "  processor time of the machine: {bare:.1} s for the bare limit, {used:.1} s until all objects are there, {:.2} of it",
        used / bare
    );
    let [empty, settled, restarted] = found.memory;
    let each = |with: f64| (with - empty) * 1024.0 / count as f64;
    println!(
        "  resident memory: {empty:.0} MiB without, {settled:.0} MiB with them ({:.1} KiB each), {restarted:.0} MiB after a restart ({:.1} KiB each)",
        each(settled),
        each(restarted)
    );
    let asked = found.status_requests.all();
    println!(
        "  requests for {} statuses of Deployments that changed: {asked}, {:.2} each (asked: at most 1)",
        found.statuses,
        asked as f64 / found.statuses.max(1) as f64
    );
    found.requests.print("Requests from nothing to all");
    found.status_requests.print("Requests for the statuses");
}

/// Prints what rollouts cost.
pub fn print_rollouts(rollouts: &Rollouts) {
    println!("\nFrom the answer to a request to abort, in milliseconds");
    print_milliseconds(&[("the router leads to stable (median < 100)", &rollouts.aborts)]);
    let (count, minutes) = (rollouts.canaries, rollouts.watched.as_secs_f64() / 60.0);
    let per = |n: f64| n / (count as f64 * minutes);
    println!(
        "\n{count} canaries at once, each measured every {INTERVAL} s, for {} s",
        rollouts.watched.as_secs()
    );
    println!("  from the push until all wait in their step: {:.1} s", rollouts.begun.as_secs_f64());
    println!(
        "  processor time: {:.1} ms a rollout-minute, {:.1} % of a core",
        per(rollouts.processor * 1000.0),
        rollouts.processor / rollouts.watched.as_secs_f64() * 100.0
    );
    println!("  API requests: {:.3} a rollout-minute", per(rollouts.requests.all() as f64));
    println!(
        "  measurements: {:.1} a rollout-minute (asked: {:.1})",
        per(rollouts.asked as f64),
        60.0 / f64::from(INTERVAL)
    );
    println!("  resident memory: {:.0} MiB", rollouts.memory);
    for (what, count) in &rollouts.told {
        println!("  Event, {count} times: {what}");
    }
    rollouts.requests.print("Requests meanwhile");
}

/// Prints how soon requests follow an abort.
pub fn print_proxy(proxy: &Proxy) {
    println!("\nAborts behind Envoy, in milliseconds");
    print_milliseconds(&[
        ("the route leads to stable, from the answer", &proxy.written),
        ("the last answer of the candidate, from then", &proxy.followed),
    ]);
    println!("  requests around these aborts: {}, without a good answer: {}", proxy.sent, proxy.failed);
}

/// Prints what many accounts cost.
pub fn print_tenants(tenants: &Tenants) {
    println!("\n{} accounts of {} kinds each", tenants.size.0, tenants.size.1);
    println!("  resident memory after a restart: {:.0} MiB", tenants.restarted);
    println!("  connections: {}", tenants.connections);
}

/// Prints what neighbours that fail cost.
pub fn print_pushes(pushes: &[Push], healthy: usize, failing: usize) {
    println!("\nA push to {healthy} Deliveries beside {failing} that fail for ever, seconds");
    println!("{:<28} {:>8} {:>8}", "", "without", "with");
    let of = |with: bool, time: fn(&Push) -> Duration| {
        median(pushes.iter().filter(|p| p.with == with).map(|p| time(p).as_secs_f64()))
    };
    let half = |with| of(with, |p| p.half);
    let all = |with| of(with, |p| p.all);
    println!("{:<28} {:>8.2} {:>8.2}", "half Ready (median)", half(false), half(true));
    println!("{:<28} {:>8.2} {:>8.2}", "all Ready (median)", all(false), all(true));
    println!("{:<28} {:>8} {:>8.2}", "ratio, half Ready", "", half(true) / half(false));
    println!("{:<28} {:>8} {:>8.2}", "ratio, all (asked: < 1.1)", "", all(true) / all(false));
}
