//! Requests at a constant rate through the gateway of a real node, and what became of them.
#![allow(dead_code)]

use super::cluster::wait_until;
use super::daemon::LIMIT;
use super::plane::Plane;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

/// What became of the requests of one second, or of all.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Counts {
    /// Whether these are all requests.
    #[serde(default)]
    pub total: bool,
    /// How many were sent.
    pub requests: u64,
    /// How many had no answer, a status of 500 or more, or a gRPC status other than 0.
    pub failed: u64,
    /// How many had each status and version: `200 v1`, `grpc 0 v1`, `503`, `error ...`.
    pub counts: BTreeMap<String, u64>,
    /// The median of the times until the answer, in seconds.
    pub p50: f64,
    /// The time that one in a hundred took longer than, in seconds.
    pub p99: f64,
}

impl Counts {
    /// How many answers came from a version, good ones or not.
    pub fn of(&self, version: &str) -> u64 {
        let of = |key: &str| key.rsplit_once(' ').is_some_and(|(_, v)| v == version);
        self.counts.iter().filter(|(key, _)| of(key)).map(|(_, count)| count).sum()
    }

    /// Whether the application answered every request, and well: a gateway that has no route for one answers with 404, which it
    /// does not count as failed.
    pub fn are_good(&self) -> bool {
        let good = |key: &String| ["200 ", "grpc 0 "].iter().any(|begins| key.starts_with(begins));
        !self.counts.is_empty() && self.counts.keys().all(good)
    }

    fn add(&mut self, other: &Counts) {
        self.requests += other.requests;
        self.failed += other.failed;
        self.p50 = self.p50.max(other.p50);
        self.p99 = self.p99.max(other.p99);
        for (key, count) in &other.counts {
            *self.counts.entry(key.clone()).or_default() += count;
        }
    }
}

#[test]
fn only_good_answers_of_the_application_are_good() {
    assert!(!Counts::default().are_good(), "nobody answered");
    let counts =
        |key: &str| Counts { counts: [("200 v1".into(), 9), (key.into(), 1)].into(), ..Counts::default() };
    for (key, good) in
        [("200 v2", true), ("grpc 0 v2", true), ("404", false), ("200", false), ("grpc 14", false)]
    {
        assert_eq!(counts(key).are_good(), good, "{key}");
    }
}

/// A load generator that runs. It ends when it is dropped; what it counted is printed when the test fails.
pub struct Load {
    child: Child,
    seconds: Arc<Mutex<Vec<Counts>>>,
    reader: Option<JoinHandle<()>>,
}

impl Load {
    /// Sends so many requests a second to a host of the gateway. `more` are further arguments, such as `--grpc`.
    pub fn start(plane: &Plane, host: &str, rate: u32, more: &[&str]) -> Self {
        let mut child = Command::new(plane.program("load"))
            .args(["--url", &plane.gateway, "--host", host, "--rate", &rate.to_string()])
            .args(more)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        let seconds: Arc<Mutex<Vec<Counts>>> = Arc::default();
        let read = Arc::clone(&seconds);
        let reader = std::thread::spawn(move || {
            for line in out.lines().map_while(Result::ok) {
                read.lock().unwrap().push(serde_json::from_str(&line).unwrap());
            }
        });
        Load { child, seconds, reader: Some(reader) }
    }

    /// What was counted so far, summed up; of the times, the longest.
    pub fn so_far(&self) -> Counts {
        let mut sum = Counts::default();
        for second in self.seconds.lock().unwrap().iter().filter(|s| !s.total) {
            sum.add(second);
        }
        sum
    }

    /// Waits until the counts so far are as wanted.
    pub async fn wait(&self, what: &str, is: impl Fn(&Counts) -> bool) -> Counts {
        wait_until(what, LIMIT, || async {
            let counts = self.so_far();
            if is(&counts) { Ok(counts) } else { Err(format!("{counts:?}")) }
        })
        .await
    }

    /// Ends it. Answers what became of all requests.
    pub fn stop(mut self) -> Counts {
        self.end();
        let seconds = self.seconds.lock().unwrap();
        let total = seconds.iter().find(|s| s.total).cloned();
        total.unwrap_or_else(|| panic!("it did not say how it ended: {seconds:?}"))
    }

    fn end(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.wait();
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.end();
        if std::thread::panicking()
            && let Ok(seconds) = self.seconds.lock()
        {
            eprintln!("--- requests, second by second");
            seconds.iter().for_each(|s| eprintln!("{:?}{}", s.counts, if s.total { " in all" } else { "" }));
        }
    }
}
