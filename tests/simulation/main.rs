//! The simulation: the real reconcile code against a modelled API server and a history of commits in memory, with a
//! virtual clock and everything that can go wrong, from a seed. See docs/development.md.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

extern crate windlass_optimised as windlass;

#[path = "../model/mod.rs"]
mod model;

mod attempts;
mod daemon;
mod extras;
mod gate;
mod git;
mod history;
mod mirror;
mod oracle;
mod planted;
mod rollouts;
mod run;
mod search;
mod things;
mod wire;
mod world;

use search::Arguments;
use std::process::ExitCode;
use std::time::Instant;

/// A test: its name, and what it found wrong.
type Test = (&'static str, fn(&Arguments) -> Result<String, String>);

const TESTS: [Test; 11] = [
    ("histories_that_went_wrong_once_do_not_again", search::regressions),
    ("a_seed_is_one_history", search::determinism),
    ("every_bug_put_in_on_purpose_is_found", search::planted_bugs),
    ("what_breaks_a_promise_is_made_shorter_and_kept", search::shrinking),
    ("a_crash_before_or_after_any_write_breaks_nothing", search::every_write),
    ("no_history_breaks_a_promise", search::seeds),
    ("every_bug_put_into_rollouts_is_found", rollouts::search::planted_bugs),
    ("a_crash_before_or_after_any_write_of_a_rollout_breaks_nothing", rollouts::search::every_write),
    ("no_rollout_breaks_a_promise", rollouts::search::seeds),
    ("every_bug_put_into_wider_rollouts_is_found", rollouts::wide::planted_bugs),
    ("no_wider_rollout_breaks_a_promise", rollouts::wide::seeds),
];

fn main() -> ExitCode {
    let arguments = Arguments::read(std::env::args().skip(1));
    if arguments.help {
        print!("{}", search::HELP);
        return ExitCode::SUCCESS;
    }
    if arguments.list {
        for (name, _) in TESTS {
            println!("{name}: test");
        }
        return ExitCode::SUCCESS;
    }
    if let Some(one) = arguments.one() {
        return if search::show(&one, &arguments) { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
    if arguments.survey {
        search::survey(&arguments);
        return ExitCode::SUCCESS;
    }
    let mut failed = false;
    for (name, test) in TESTS {
        if !arguments.wants(name) {
            continue;
        }
        let begin = Instant::now();
        match test(&arguments) {
            Ok(said) => println!("test {name} ... ok ({said}, {:.1} s)", begin.elapsed().as_secs_f64()),
            Err(said) => {
                failed = true;
                println!("test {name} ... FAILED\n\n{said}\n");
            }
        }
    }
    if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}
