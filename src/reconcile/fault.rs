//! Faults that a test asks for: the daemon ends itself at a chosen place as a power cut would end it, and its clock is
//! off. In test builds only; of all this a release build has nothing.

use jiff::Timestamp;

/// Names a file; the daemon kills itself at the place whose name stands in it.
#[cfg(debug_assertions)]
const STOP_AT: &str = "WINDLASS_STOP_AT";

/// Names a file with the seconds by which the machine's clock is off.
#[cfg(debug_assertions)]
const CLOCK_OFFSET: &str = "WINDLASS_CLOCK_OFFSET";

#[cfg(debug_assertions)]
fn asked(variable: &str) -> Option<String> {
    std::fs::read_to_string(std::env::var_os(variable)?).ok().map(|text| text.trim().to_owned())
}

/// A place at which the daemon may be told to end. Nothing runs after it: no destructor, no other task.
#[cfg(debug_assertions)]
pub fn place(name: impl FnOnce() -> String) {
    use rustix::process::{Signal, getpid, kill_process};
    if std::env::var_os(STOP_AT).is_some() && asked(STOP_AT) == Some(name()) {
        let _ = kill_process(getpid(), Signal::KILL);
    }
}

/// A place at which the daemon may be told to end: never in a release build.
#[cfg(not(debug_assertions))]
#[inline(always)]
pub fn place(_: impl FnOnce() -> String) {}

/// A place that has several names.
#[cfg(debug_assertions)]
pub fn places(names: impl FnOnce() -> Vec<String>) {
    if std::env::var_os(STOP_AT).is_some() {
        for name in names() {
            place(|| name);
        }
    }
}

/// A place that has several names: none in a release build.
#[cfg(not(debug_assertions))]
#[inline(always)]
pub fn places(_: impl FnOnce() -> Vec<String>) {}

/// What the machine's clock shows.
#[cfg(debug_assertions)]
pub fn machine_clock() -> Timestamp {
    let off = asked(CLOCK_OFFSET).and_then(|text| text.parse().ok()).unwrap_or(0);
    Timestamp::now() + jiff::SignedDuration::from_secs(off)
}

/// What the machine's clock shows.
#[cfg(not(debug_assertions))]
#[inline(always)]
pub fn machine_clock() -> Timestamp {
    Timestamp::now()
}
