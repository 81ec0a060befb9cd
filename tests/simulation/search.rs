//! Looking for histories that break a promise, and making those that do shorter.

use super::history::{Edit, Fault, History, Setup, Step, What};
use super::oracle::Promise;
use super::planted::Planted;
use super::run::{Ended, run};
use super::things::{Directory, Hook, Key, Kind, Tag, Thing};
use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Seeds that a plain run tries.
const SEEDS: u64 = 2200;

/// Seeds that are tried to find one bug that was put in on purpose.
const PLANTED_SEEDS: u64 = 2000;

/// Histories without faults whose every write is cut short.
const CUT_SHORT: usize = 3;

/// How long a history is made shorter.
const SHRINKING: Duration = Duration::from_secs(60);

/// What can be asked for.
pub const HELP: &str = "\
simulation [NAMES of tests] [--seeds N] [--from M] [--jobs N] [--list]
simulation --seed N | --history FILE [--json]    one history, told in full (or as it is written down)
simulation --survey [--seeds N] [--from M]       a line for each seed that fails

  --seeds N       that many seeds
  --from M        beginning with this one
  --jobs N        threads
  --two           with a second daemon that is started by mistake
  --rollouts      with rollouts in all of it
  --wide          with more in them
  --planted BUG   with a bug that is put in on purpose
  --as-is         what fails is not made shorter
";

/// What was asked for on the command line.
#[derive(Debug, Default)]
pub struct Arguments {
    /// Only list the tests.
    pub list: bool,
    /// Only tell what can be asked for.
    pub help: bool,
    /// `--seeds`.
    pub seeds: Option<u64>,
    /// `--from`.
    pub from: u64,
    seed: Option<u64>,
    file: Option<PathBuf>,
    /// `--planted`.
    pub planted: Option<Planted>,
    jobs: Option<usize>,
    quick: bool,
    json: bool,
    two: bool,
    rollouts: bool,
    wide: bool,
    /// Tell in a line each what all seeds came to.
    pub survey: bool,
    filters: Vec<String>,
}

impl Arguments {
    /// What was asked for, as [`HELP`] tells. Others are those of every test program: names are filters.
    pub fn read(words: impl Iterator<Item = String>) -> Self {
        let mut arguments = Arguments { from: 1, ..Arguments::default() };
        let mut words = words.peekable();
        let number = |text: Option<String>| text.and_then(|t| t.parse::<u64>().ok());
        while let Some(word) = words.next() {
            match word.as_str() {
                "--list" => arguments.list = true,
                "--help" | "-h" => arguments.help = true,
                "--seeds" => arguments.seeds = number(words.next()),
                "--from" => arguments.from = number(words.next()).unwrap_or(1),
                "--seed" => arguments.seed = number(words.next()),
                "--history" => arguments.file = words.next().map(PathBuf::from),
                "--jobs" => arguments.jobs = number(words.next()).map(|n| n as usize),
                "--planted" => {
                    let name = words.next().unwrap_or_default();
                    let found = Planted::every().find(|p| format!("{p:?}") == name);
                    arguments.planted = Some(found.expect("a bug of that name"));
                }
                "--two" => arguments.two = true,
                "--rollouts" => arguments.rollouts = true,
                "--wide" => arguments.wide = true,
                "--json" => arguments.json = true,
                "--survey" => arguments.survey = true,
                "--as-is" => arguments.quick = true,
                "--test-threads" | "--skip" | "--color" | "--format" | "--logfile" | "-Z" => {
                    words.next();
                }
                word if word.starts_with('-') => {}
                _ => arguments.filters.push(word),
            }
        }
        arguments
    }

    /// Whether a test is to be run.
    pub fn wants(&self, name: &str) -> bool {
        self.filters.is_empty() || self.filters.iter().any(|f| name.contains(f.as_str()) || f == "simulation")
    }

    /// The one history that is asked for.
    pub fn one(&self) -> Option<History> {
        if let Some(file) = &self.file {
            let text = fs::read_to_string(file).expect("the file with the history");
            return Some(serde_json::from_str(&text).expect("a history"));
        }
        self.seed.map(|seed| self.history(seed))
    }

    /// The history of a seed.
    fn history(&self, seed: u64) -> History {
        match self.two {
            _ if self.wide => super::rollouts::wide::history(seed),
            _ if self.rollouts => super::rollouts::history(seed),
            true => History::with_two(seed),
            false => History::new(seed),
        }
    }

    fn threads(&self) -> usize {
        self.jobs.unwrap_or_else(|| std::thread::available_parallelism().map_or(2, |n| n.get()))
    }
}

/// Runs one history and tells all of it. Answers whether it ended well.
pub fn show(history: &History, arguments: &Arguments) -> bool {
    let mut history = history.clone();
    if arguments.json {
        println!("{}", serde_json::to_string_pretty(&history).unwrap());
        return true;
    }
    let found = run(&history, arguments.planted, false).violation;
    if let Some(found) = &found
        && !arguments.quick
    {
        history = shorter(history, arguments.planted, found.promise).0;
    }
    let ended = run(&history, arguments.planted, true);
    println!("{}", told(&history, &ended));
    ended.violation.is_none()
}

fn told(history: &History, ended: &Ended) -> String {
    let mut text = format!("history of seed {}\n{history}", history.seed);
    text.push_str("\nwhat happened (A and B are the daemons, the number is their life):\n");
    for line in &ended.trace {
        text.push_str(line);
        text.push('\n');
    }
    match &ended.violation {
        Some(v) => text.push_str(&format!("\n{}: {}", v.promise, v.what)),
        None => text.push_str(&format!("\nended well after {} requests", ended.requests)),
    }
    text
}

fn regressions_directory() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("regressions")
}

/// Histories in which a promise was broken once.
pub fn regressions(arguments: &Arguments) -> Result<String, String> {
    let mut files: Vec<PathBuf> = fs::read_dir(regressions_directory())
        .map(|all| {
            all.flatten().map(|e| e.path()).filter(|p| p.extension().is_some_and(|e| e == "json")).collect()
        })
        .unwrap_or_default();
    files.sort();
    let histories: Vec<(PathBuf, History)> = files
        .into_iter()
        .map(|path| {
            let text = fs::read_to_string(&path).unwrap();
            let history = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
            (path, history)
        })
        .collect();
    let count = histories.len();
    let failed = each(arguments, 0..count as u64, |n| {
        let (path, history) = &histories[n as usize];
        let ended = run(history, None, false);
        ended.violation.map(|_| (path.clone(), history.clone()))
    });
    match failed {
        None => Ok(format!("{count} histories")),
        Some((path, history)) => {
            let ended = run(&history, None, true);
            Err(format!("{}\n\n{}", path.display(), told(&history, &ended)))
        }
    }
}

/// Equal seeds, equal histories.
pub fn determinism(arguments: &Arguments) -> Result<String, String> {
    const TRIED: u64 = 20;
    let failed = each(arguments, 1..1 + TRIED, |seed| {
        let history = History::new(seed);
        (run(&history, None, false).digest != run(&history, None, false).digest).then_some(history)
    });
    let Some(history) = failed else { return Ok(format!("{TRIED} seeds twice")) };
    let (one, other) = (run(&history, None, true), run(&history, None, true));
    let at = one.trace.iter().zip(&other.trace).position(|(a, b)| a != b).unwrap_or(0);
    let some = |e: &Ended| {
        e.trace.iter().skip(at.saturating_sub(5)).take(10).cloned().collect::<Vec<_>>().join("\n")
    };
    Err(format!("seed {}: once\n{}\nand again\n{}", history.seed, some(&one), some(&other)))
}

/// Seeds, as many as there is time for.
pub fn seeds(arguments: &Arguments) -> Result<String, String> {
    tried(arguments, SEEDS, |seed| arguments.history(seed))
}

/// Runs the histories of as many seeds as were asked for, else of the usual number.
pub fn tried(
    arguments: &Arguments,
    usual: u64,
    history: impl Fn(u64) -> History + Sync,
) -> Result<String, String> {
    let count = arguments.seeds.unwrap_or(usual);
    let requests = AtomicU64::new(0);
    let failed = each(arguments, arguments.from..arguments.from + count, |seed| {
        let history = history(seed);
        let ended = run(&history, arguments.planted, false);
        requests.fetch_add(ended.requests.into(), Ordering::Relaxed);
        ended.violation.map(|violation| (history, violation))
    });
    match failed {
        None => Ok(format!("{count} seeds, {} requests", requests.into_inner())),
        Some((history, violation)) => Err(kept(history, &violation, arguments)),
    }
}

/// A line for each seed that breaks a promise.
pub fn survey(arguments: &Arguments) {
    let count = arguments.seeds.unwrap_or(SEEDS);
    let failed = AtomicU64::new(0);
    each(arguments, arguments.from..arguments.from + count, |seed| {
        let ended = run(&arguments.history(seed), arguments.planted, false);
        if let Some(violation) = ended.violation {
            failed.fetch_add(1, Ordering::Relaxed);
            println!("{seed:>6} {:>5} requests  {}: {}", ended.requests, violation.promise, violation.what);
        }
        None::<()>
    });
    println!("{} of {count} seeds failed", failed.into_inner());
}

/// A history that failed, as short as it could be made, written down so that it is tried again.
pub fn kept(history: History, violation: &super::oracle::Violation, arguments: &Arguments) -> String {
    let mut text = format!("seed {}: {}: {}\n", history.seed, violation.promise, violation.what);
    let (history, tried) =
        if arguments.quick { (history, 0) } else { shorter(history, arguments.planted, violation.promise) };
    let ended = run(&history, arguments.planted, true);
    text.push_str(&format!("the shortest of {tried} that still does it:\n\n{}\n", told(&history, &ended)));
    if arguments.planted.is_none() {
        let path = regressions_directory().join(format!("seed-{}.json", history.seed));
        let json = serde_json::to_string_pretty(&history).unwrap();
        if fs::create_dir_all(regressions_directory()).and_then(|()| fs::write(&path, json + "\n")).is_ok() {
            text.push_str(&format!("\nkept in {}", path.display()));
        }
    }
    text
}

/// Every write of some histories without faults, cut short before, after, and carried out late.
pub fn every_write(arguments: &Arguments) -> Result<String, String> {
    let mut cases = Vec::new();
    for base in cut_short() {
        let ended = run(&base, None, false);
        if let Some(violation) = ended.violation {
            return Err(kept(base, &violation, arguments));
        }
        for number in ended.writes {
            for fault in [Fault::CrashBefore, Fault::CrashAfter, Fault::CrashLate(3_000)] {
                cases.push(History { faults: BTreeMap::from([(number, fault)]), ..base.clone() });
            }
        }
    }
    let count = cases.len();
    let failed = each(arguments, 0..count as u64, |n| {
        let history = &cases[n as usize];
        run(history, None, false).violation.map(|violation| (history.clone(), violation))
    });
    match failed {
        None => Ok(format!("{count} crashes")),
        Some((history, violation)) => Err(kept(history, &violation, arguments)),
    }
}

/// Histories with a lot in them and no faults: commits alone, commits with what people do besides, and what goes back.
fn cut_short() -> Vec<History> {
    let plain = || {
        (1..).map(|seed| {
            let mut history = History::with_one(seed);
            history.faults.clear();
            history.lags.clear();
            history
        })
    };
    let commits = |h: &History| h.steps.iter().filter(|s| matches!(s.what, What::Commit(_))).count();
    let alone = plain()
        .map(|mut history| {
            history.steps.retain(|s| matches!(s.what, What::Commit(_)));
            history
        })
        .filter(|h| (2..4).contains(&commits(h)) && h.deliveries.len() == 1);
    let by_people = |h: &History| {
        let kinds = h.steps.iter().filter(|s| {
            matches!(
                s.what,
                What::Edited(_)
                    | What::Deleted(_)
                    | What::DeliveryDeleted(_)
                    | What::Suspend(..)
                    | What::Settings(..)
                    | What::Unlabelled(_)
                    | What::Rollback(_)
                    | What::Release(_)
                    | What::CacheLost
            )
        });
        kinds.map(|s| std::mem::discriminant(&s.what)).collect::<HashSet<_>>().len()
    };
    let crowded = plain().filter(|h| commits(h) > 0 && by_people(h) > 1);
    alone.take(CUT_SHORT).chain(crowded.take(CUT_SHORT)).chain(that_go_back()).collect()
}

/// What chance may leave out: hooks of a good revision and of one that goes back, one that is lost while it is watched on, and one
/// that is taken back in Git.
fn that_go_back() -> Vec<History> {
    let with = |tag: Tag, change: &dyn Fn(&mut Setup)| {
        let mut history = killed_after_a_hook(0);
        history.steps.truncate(1);
        if let What::Commit(edits) = &mut history.steps[0].what
            && let Some(Edit::Put(_, _, thing)) = edits.first_mut()
        {
            thing.tag = tag;
        }
        change(&mut history.deliveries[0]);
        history
    };
    vec![
        with(Tag::Ok, &|_| {}),
        with(Tag::Crash, &|_| {}),
        with(Tag::Flaky, &|setup| setup.bake = Some(30)),
        with(Tag::Crash, &|setup| setup.revert = true),
    ]
}

/// A history that broke a promise is made shorter, still breaks it, and still does when it was written down and read.
pub fn shrinking(arguments: &Arguments) -> Result<String, String> {
    let bug = Planted::PruneSkipped;
    let broken = each(arguments, 1..1 + PLANTED_SEEDS, |seed| {
        let history = History::with_one(seed);
        let promise = run(&history, Some(bug), false).violation?.promise;
        Some((history, promise))
    });
    let Some((history, promise)) = broken else { return Err(format!("{bug:?} was not found")) };
    let size = |h: &History| h.steps.len() + h.faults.len() + h.lags.len() + h.deliveries.len();
    let (short, tried) = shorter(history.clone(), Some(bug), promise);
    if size(&short) >= size(&history) {
        return Err(format!("{} parts of seed {} stayed {}", size(&history), history.seed, size(&short)));
    }
    let written = serde_json::to_string(&short).unwrap();
    let read: History = serde_json::from_str(&written).map_err(|e| e.to_string())?;
    let again = run(&read, Some(bug), false).violation.map(|v| v.promise);
    if read != short || again != Some(promise) {
        return Err(format!("{promise} was broken, and {again:?} when it was read: {written}"));
    }
    Ok(format!("{} parts became {}, {tried} tried", size(&history), size(&short)))
}

/// Each bug is found, and by a promise that it breaks.
pub fn planted_bugs(arguments: &Arguments) -> Result<String, String> {
    let mut said = Vec::new();
    for (bug, promises) in Planted::ALL {
        said.push(found_by(arguments, bug, promises, PLANTED_SEEDS, |seed| {
            Some(match bug {
                Planted::GuardsDropped => overtaken(seed),
                Planted::HooksForgotten => killed_after_a_hook(seed),
                Planted::LeaseIgnored => History::with_two(seed),
                Planted::NodesUnseen => without_room(seed),
                _ => History::with_one(seed),
            })
        })?);
    }
    Ok(said.join(", "))
}

/// By which seed a bug that was put in is found, through one of these promises. A seed without a history does not concern the bug.
pub fn found_by(
    arguments: &Arguments,
    bug: Planted,
    promises: &[Promise],
    seeds: u64,
    history: impl Fn(u64) -> Option<History> + Sync,
) -> Result<String, String> {
    let found = each(arguments, 1..1 + seeds, |seed| {
        let violation = run(&history(seed)?, Some(bug), false).violation?;
        promises.contains(&violation.promise).then_some(seed)
    });
    match found {
        Some(seed) => Ok(format!("{bug:?} by seed {seed}")),
        None => Err(format!("{bug:?} was put in, and {seeds} seeds did not find it")),
    }
}

/// An object is made anew, and the request of that number is carried out long after the daemon died.
fn overtaken(number: u64) -> History {
    let key = Key(Kind::Deployment, "db".into());
    let thing = |value| Thing {
        value,
        tag: Tag::Ok,
        replicas: 1,
        prune: None,
        wave: None,
        recreate: true,
        more: false,
        invalid: false,
        ttl: None,
        setting: false,
        reads: None,
        scaled: false,
    };
    let things = BTreeMap::from([(key.clone(), thing(1))]);
    let first = Directory { things, ..Directory::default() };
    History {
        seed: 1,
        jitter: true,
        by_id: true,
        both: false,
        lease: false,
        deliveries: vec![Setup { prune: true, first, ..Setup::default() }],
        protected: false,
        before: Vec::new(),
        steps: vec![Step { at: 6_000, what: What::Commit(vec![Edit::Put(0, key, thing(2))]) }],
        faults: BTreeMap::from([(u32::try_from(number).unwrap(), Fault::CrashLate(15_000))]),
        lags: BTreeMap::new(),
    }
}

/// A revision with a hook, whose Job is deleted when it is done, is on its way when the daemon dies: the later, the higher
/// the number.
fn killed_after_a_hook(number: u64) -> History {
    let mut history = overtaken(0);
    history.faults.clear();
    let put = |value, tag| {
        let What::Commit(edits) = &history.steps[0].what else { return Vec::new() };
        let mut edits = edits.clone();
        if let Some(Edit::Put(_, _, thing)) = edits.first_mut() {
            (thing.value, thing.tag) = (value, tag);
        }
        let delete = Some("hook-succeeded".to_owned());
        let hook = Hook { value, tag: Tag::Ok, point: "before-apply".into(), delete };
        edits.push(Edit::Hook(0, "prepare".into(), Some(hook)));
        edits
    };
    let what = What::Commit(put(2, Tag::Slow));
    history.steps = vec![Step { at: 6_000, what }, Step { at: 6_000 + 200 * number, what: What::Killed(0) }];
    history
}

/// A good revision is watched on, and for a while there is no room for its pods: the later, the higher the number.
fn without_room(number: u64) -> History {
    let mut history = overtaken(0);
    history.faults.clear();
    history.deliveries[0].bake = Some(60);
    let room = |at, there| Step { at, what: What::Room(there) };
    history.steps.extend([room(12_000 + 1_000 * number, false), room(162_000 + 1_000 * number, true)]);
    history
}

/// A history that breaks the same promise and is as short as it gets, and how many were tried.
fn shorter(
    mut history: History,
    planted: Option<Planted>,
    promise: super::oracle::Promise,
) -> (History, usize) {
    let begin = Instant::now();
    let mut tried = 0;
    'again: loop {
        for simpler in history.simpler() {
            if begin.elapsed() > SHRINKING {
                return (history, tried);
            }
            tried += 1;
            if run(&simpler, planted, false).violation.is_some_and(|v| v.promise == promise) {
                history = simpler;
                continue 'again;
            }
        }
        return (history, tried);
    }
}

/// Tries all numbers on all processors, and answers what the lowest came to that came to something.
pub fn each<T: Send>(
    arguments: &Arguments,
    numbers: std::ops::Range<u64>,
    attempt: impl Fn(u64) -> Option<T> + Sync,
) -> Option<T> {
    let next = AtomicU64::new(numbers.start);
    let found: Mutex<Option<(u64, T)>> = Mutex::new(None);
    std::thread::scope(|scope| {
        for _ in 0..arguments.threads() {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    let done = found.lock().unwrap().as_ref().is_some_and(|(at, _)| *at < number);
                    if number >= numbers.end || done {
                        return;
                    }
                    if let Some(result) = attempt(number) {
                        let mut found = found.lock().unwrap();
                        if found.as_ref().is_none_or(|(at, _)| number < *at) {
                            *found = Some((number, result));
                        }
                    }
                }
            });
        }
    });
    found.into_inner().unwrap().map(|(_, result)| result)
}
