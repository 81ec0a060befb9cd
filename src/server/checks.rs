//! Whether the daemon lives and is ready: named checks, told in the form that the API server's `/livez` and `/readyz`
//! have (`?verbose`, `?exclude=NAME`, `/readyz/NAME`).

use std::time::Duration;

/// The Lease is asked for or renewed every 3 s, so an API server that was silent for so long is away.
const SILENT: Duration = Duration::from_secs(20);

/// What a replica is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// It waits for the Lease.
    Standby,
    /// It works.
    Leading,
    /// It finishes what it is writing, and ends.
    Stopping,
}

/// What the checks look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct View {
    /// What the replica is doing.
    pub stage: Stage,
    /// Whether all Deliveries and Repositories were seen.
    pub synced: bool,
    /// How long ago the API server last answered.
    pub silent_for: Duration,
}

/// A check: its name, and what it found. A word in an `Ok` is shown behind it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// Its name.
    pub name: &'static str,
    /// What it found.
    pub found: Result<&'static str, String>,
}

/// What must hold for the process to be left alive. That the API server is away is no reason to end it.
pub fn live(_: &View) -> Vec<Check> {
    vec![Check { name: "ping", found: Ok("") }]
}

/// What must hold for a replica to do its part, be it to wait.
pub fn ready(view: &View) -> Vec<Check> {
    let leadership = match view.stage {
        Stage::Standby => Ok("standby"),
        Stage::Leading => Ok("leading"),
        Stage::Stopping => Err("stopping".into()),
    };
    let watches = match (view.stage, view.synced) {
        (Stage::Standby, _) => Ok("standby"),
        (_, true) => Ok(""),
        (_, false) => Err("the first list of Deliveries and Repositories is not complete".into()),
    };
    let apiserver = if view.silent_for < SILENT {
        Ok("")
    } else {
        Err(format!("the API server has not answered for {} s", view.silent_for.as_secs()))
    };
    vec![
        Check { name: "ping", found: Ok("") },
        Check { name: "leadership", found: leadership },
        Check { name: "watches", found: watches },
        Check { name: "apiserver", found: apiserver },
    ]
}

/// Status code and text for a request to `/<endpoint>`, or to `/<endpoint>/<only>`.
pub fn answer(endpoint: &str, checks: &[Check], only: Option<&str>, query: Option<&str>) -> (u16, String) {
    let asked = |key: &str| {
        let pairs = query.unwrap_or_default().split('&');
        pairs
            .map(|p| p.split_once('=').unwrap_or((p, "")))
            .filter(|(k, _)| *k == key)
            .map(|(_, v)| v)
            .collect::<Vec<_>>()
    };
    if let Some(only) = only {
        return match checks.iter().find(|c| c.name == only) {
            Some(Check { found: Ok(_), .. }) => (200, "ok".into()),
            Some(Check { found: Err(why), .. }) => (500, format!("{only}: {why}\n")),
            None => {
                let names: Vec<_> = checks.iter().map(|c| c.name).collect();
                (404, format!("{endpoint} has no check {only}; it has: {}\n", names.join(", ")))
            }
        };
    }
    let excluded = asked("exclude");
    let mut text = String::new();
    let mut failed = false;
    for check in checks {
        let line = match &check.found {
            _ if excluded.contains(&check.name) => format!("[+]{} excluded: ok\n", check.name),
            Ok("") => format!("[+]{} ok\n", check.name),
            Ok(word) => format!("[+]{} ok: {word}\n", check.name),
            Err(why) => {
                failed = true;
                format!("[-]{} failed: {why}\n", check.name)
            }
        };
        text.push_str(&line);
    }
    match (failed, asked("verbose").is_empty()) {
        (true, _) => (500, format!("{text}{endpoint} check failed\n")),
        (false, false) => (200, format!("{text}{endpoint} check passed\n")),
        (false, true) => (200, "ok".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WELL: View = View { stage: Stage::Leading, synced: true, silent_for: Duration::from_secs(3) };

    #[test]
    fn a_leader_is_ready_when_it_sees_and_a_standby_whenever_it_waits() {
        let table = [
            (WELL, ""),
            (View { synced: false, ..WELL }, "watches"),
            (View { stage: Stage::Standby, synced: false, ..WELL }, ""),
            (View { stage: Stage::Stopping, ..WELL }, "leadership"),
            (View { silent_for: Duration::from_secs(25), ..WELL }, "apiserver"),
            (View { stage: Stage::Standby, silent_for: Duration::from_secs(25), ..WELL }, "apiserver"),
        ];
        for (view, failed) in table {
            let found: Vec<_> =
                ready(&view).into_iter().filter(|c| c.found.is_err()).map(|c| c.name).collect();
            assert_eq!(found.join(","), failed, "{view:?}");
            assert!(live(&view).iter().all(|c| c.found.is_ok()), "{view:?}");
        }
    }

    #[test]
    fn checks_are_told_as_the_api_server_tells_its_own() {
        let ask = |view: View, only: Option<&str>, query: Option<&str>| {
            answer("readyz", &ready(&view), only, query)
        };
        let unseen = View { synced: false, ..WELL };
        assert_eq!(ask(WELL, None, None), (200, "ok".into()));
        assert_eq!(
            ask(WELL, None, Some("verbose")),
            (200, "[+]ping ok\n[+]leadership ok: leading\n[+]watches ok\n[+]apiserver ok\nreadyz check passed\n".into())
        );
        let (code, text) = ask(unseen, None, None);
        assert_eq!(code, 500);
        assert!(text.contains("[-]watches failed: ") && text.ends_with("readyz check failed\n"), "{text}");
        assert_eq!(ask(unseen, None, Some("exclude=watches")).0, 200);
        assert_eq!(ask(unseen, Some("watches"), None).0, 500);
        assert_eq!(ask(unseen, Some("ping"), None), (200, "ok".into()));
        assert_eq!(ask(WELL, Some("other"), None).0, 404);
    }
}
