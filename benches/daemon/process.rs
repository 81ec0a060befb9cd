//! The daemon as a process of the release build, and what it says about itself in `/proc`.

use super::cluster::Cluster;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// A daemon and its cache. Killed when dropped.
pub struct Process {
    child: Child,
    scratch: PathBuf,
}

impl Process {
    /// Starts it; its log and cache lie in `scratch`.
    pub fn start(cluster: &Cluster, namespace: &str, scratch: &Path) -> Self {
        let log = File::options().create(true).append(true).open(scratch.join("log")).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_windlass"));
        let child = command
            .args(["run", "--namespace", namespace, "--log-format", "json", "--cache-dir"])
            .arg(scratch.join("cache"))
            .env("KUBECONFIG", &cluster.kubeconfig)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        Process { child, scratch: scratch.to_owned() }
    }

    /// A field of `/proc/PID/status` that is given in kB (`VmRSS`, `VmHWM`), in MiB.
    pub fn memory(&self, field: &str) -> f64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|l| l.strip_prefix(field)).unwrap();
        line.trim_start_matches(':').trim().trim_end_matches(" kB").parse::<f64>().unwrap() / 1024.0
    }

    /// TCP connections that it has open.
    pub fn connections(&self) -> usize {
        let pid = self.child.id();
        let sockets: std::collections::HashSet<String> = fs::read_dir(format!("/proc/{pid}/fd"))
            .unwrap()
            .filter_map(|entry| {
                let target = fs::read_link(entry.ok()?.path()).ok()?;
                let inode = target.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?;
                Some(inode.to_owned())
            })
            .collect();
        let table = fs::read_to_string(format!("/proc/{pid}/net/tcp")).unwrap();
        table.lines().filter(|l| l.split_whitespace().nth(9).is_some_and(|i| sockets.contains(i))).count()
    }

    /// Processor time so far, in seconds.
    pub fn processor(&self) -> f64 {
        processor(self.child.id())
    }

    /// What it said.
    pub fn log(&self) -> String {
        fs::read_to_string(self.scratch.join("log")).unwrap_or_default()
    }

    /// Ends it as a person does, and waits for that: the Lease is given back.
    pub fn stop(mut self) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<&str> = log.lines().collect();
            eprintln!("--- the daemon's log\n{}", lines[lines.len().saturating_sub(40)..].join("\n"));
        }
    }
}

/// Processor time of a process, in seconds (ticks of 10 ms, as Linux counts on all common machines).
pub fn processor(pid: u32) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let after = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let field = |n: usize| after.split_whitespace().nth(n).and_then(|t| t.parse::<f64>().ok()).unwrap_or(0.0);
    (field(11) + field(12)) / 100.0
}

/// Processor time of all that ran on this machine so far, in seconds: what others take is in it, too.
pub fn of_all() -> f64 {
    let stat = fs::read_to_string("/proc/stat").unwrap();
    let ticks: Vec<f64> =
        stat.lines().next().unwrap().split_whitespace().filter_map(|t| t.parse().ok()).collect();
    // user, nice, system, then (behind idle and iowait) irq and softirq.
    (ticks[..3].iter().sum::<f64>() + ticks[5..7].iter().sum::<f64>()) / 100.0
}
