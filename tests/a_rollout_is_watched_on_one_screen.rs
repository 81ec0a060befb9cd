//! `windlass rollout NAME --watch` shows a rollout from its start to its end as one screen: steps, shares, pods, what was measured,
//! and the time that is left. Its exit code is that of what was shown last.

use crate::a_rollout_goes_step_by_step::{deployed, web};
use crate::an_unclear_analysis_asks_a_person::Gauge;
use crate::support::cli::{Watching, windlass};
use crate::support::daemon::World;
use serde_json::json;
use windlass::api::delivery::Phase;

fn ask(world: &World, arguments: &[&str]) {
    let answer = windlass(&world.space, &[arguments, &["shop", "-n", &world.space.name]].concat());
    assert_eq!(answer.code, 0, "{answer:?}");
}

fn watching(world: &World) -> Watching {
    Watching::of(world, &["rollout", "shop", "-n", &world.space.name, "--watch"])
}

#[tokio::test]
async fn from_its_start_to_its_end() {
    let gauge = Gauge::new().await;
    gauge.answer(&[0.95]);
    let rollout = json!({
        "strategy": "Canary", "workload": {"name": "web"}, "router": {"replicas": {}}, "settle": "300ms",
        "stepWeight": 20, "maxWeight": 50, "interval": "2h",
        "analysis": {"interval": "10s", "initialDelay": "1s", "metrics": [gauge.metric()]},
    });
    let (world, _) = deployed("screen", "app: web", rollout).await;
    let mut screens = watching(&world);
    let first = format!("{}/shop  ", world.space.name);
    let still = |screen: &str| screen.contains("Ready") && screen.contains("nothing is rolled out");
    screens.screen(&first, "nothing is rolled out", still).await;

    let next = world.commit("Second", &[("shop/web.yaml", &web("ok2", 2))]);
    let pods = format!("pods: Deployment {0}/web 2/2 ready, Deployment {0}/web-canary ", world.space.name);
    let is = |share: &'static str, now: &'static str, left: [&'static str; 2]| {
        let pods = pods.clone();
        move |screen: &str| {
            let line = |part: &str| screen.lines().find(|line| line.contains(part)).unwrap_or_default();
            screen.contains("RollingOut")
                && line("candidate ").ends_with(share)
                && line("stable ").contains("First version")
                && line("▶").contains(now)
                && line("pods: ").starts_with(&pods)
                && line("in effect since").contains(", goes on in 1")
                && left.iter().any(|left| line("promotion in ").contains(left))
                && line("gauge: ").contains("Success")
        }
    };
    let twenty = is(" 20%", "20% of traffic (20% of all pods) for 2h", ["in 6h ", "in 5h"]);
    screens.screen(&first, "a fifth, for two hours", twenty).await;
    ask(&world, &["promote"]);
    let forty = is(" 40%", "40% of traffic (40% of all pods) for 2h", ["in 4h ", "in 3h"]);
    let shown = screens.screen(&first, "two fifths", forty).await;
    assert!(shown.contains("✓ 20% of traffic (20% of all pods) for 2h"), "{shown}");
    assert!(shown.contains("    50% of traffic (50% of all pods) for 2h"), "{shown}");
    ask(&world, &["pause"]);
    let paused = |screen: &str| screen.contains("Paused") && screen.contains("paused: ");
    screens.screen(&first, "that a person stopped it", paused).await;
    ask(&world, &["promote", "--full"]);
    let second = |screen: &str| still(screen) && screen.contains("Second");
    screens.screen(&first, "its end", second).await;
    assert_eq!(screens.interrupt().await, Some(0), "nothing waits for anybody");
    world.wait_for("shop", Phase::Ready, &next).await;

    // One that is taken back.
    let mut screens = watching(&world);
    screens.screen(&first, "nothing is rolled out", second).await;
    let bad = world.commit("Third", &[("shop/web.yaml", &web("ok3", 2))]);
    let begun = |screen: &str| screen.contains("▶ 20% of traffic (20% of all pods) for 2h");
    screens.screen(&first, "its first share", begun).await;
    ask(&world, &["abort"]);
    let held = |screen: &str| screen.contains("Held") && screen.contains("aborted its rollout");
    screens.screen(&first, "that it was taken back", held).await;
    assert_eq!(screens.interrupt().await, Some(1), "a revision is held");
    world.wait_for("shop", Phase::Held, &bad).await;
}
