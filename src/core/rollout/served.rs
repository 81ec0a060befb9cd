//! Whether traffic would find somebody: the Services of a variant have endpoints a moment after its pods are ready, and a proxy that
//! is told to send requests there before answers with 503.

use super::{Health, NOT_OBSERVED, Variants};
use crate::api::delivery::Problem;
use crate::api::rollout::Stage;

/// One of a rollout's two variants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// What stands under the names of Git.
    Named,
    /// What is there for the rollout only.
    Candidate,
}

/// The variant to which traffic goes next from a stage; `None` where it has gone already.
pub fn next_to(stage: Stage) -> Option<Side> {
    match stage {
        Stage::Starting | Stage::Stepping | Stage::Switching => Some(Side::Candidate),
        Stage::Promoting | Stage::Restoring => Some(Side::Named),
        Stage::Draining | Stage::Returning => None,
    }
}

/// What is seen of the endpoints of a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoints {
    /// The Service, as in `Service shop/web`.
    pub service: String,
    /// How many are ready; `None` until all of them are seen.
    pub ready: Option<usize>,
}

/// Why requests to a variant would find nobody, by what is seen of its Services.
pub fn nobody(services: &[Endpoints]) -> Option<Problem> {
    let told = |of: &Endpoints, reason: &str, message: &str| Problem {
        reason: reason.into(),
        object: of.service.clone(),
        message: message.into(),
    };
    let empty = services.iter().find(|s| s.ready == Some(0));
    let unseen = services.iter().find(|s| s.ready.is_none());
    empty
        .map(|of| told(of, "Progressing", "has no ready endpoint"))
        .or_else(|| unseen.map(|of| told(of, NOT_OBSERVED, "its endpoints were not seen yet")))
}

/// The health, where requests would find nobody: what is well but for that gets no traffic.
pub fn with(health: Health, nobody: Option<&Problem>) -> Health {
    match (health, nobody) {
        (Health::Healthy, Some(problem)) => Health::Progressing(problem.clone()),
        (health, _) => health,
    }
}

/// The same for the variant that is asked about.
pub fn with_side(variants: Variants, nobody: Option<&(Side, Problem)>) -> Variants {
    match nobody {
        Some((Side::Named, problem)) => Variants { named: with(variants.named, Some(problem)), ..variants },
        Some((Side::Candidate, problem)) => {
            Variants { candidate: with(variants.candidate, Some(problem)), ..variants }
        }
        None => variants,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::progress_tests::{ask, canary};
    use super::super::tests::World;
    use super::*;
    use crate::api::delivery::Phase;

    fn of(ready: &[Option<usize>]) -> Option<(String, String)> {
        let name = |(at, ready): (usize, &Option<usize>)| Endpoints {
            service: format!("Service shop/{at}"),
            ready: *ready,
        };
        let all: Vec<Endpoints> = ready.iter().enumerate().map(name).collect();
        nobody(&all).map(|problem| (problem.object, problem.reason))
    }

    #[test]
    fn every_service_has_to_have_a_ready_endpoint() {
        let is = |at: usize, reason: &str| Some((format!("Service shop/{at}"), reason.to_owned()));
        assert_eq!(of(&[]), None, "pods that are reached by no Service of their own");
        assert_eq!(of(&[Some(1), Some(3)]), None);
        assert_eq!(of(&[Some(1), Some(0)]), is(1, "Progressing"));
        assert_eq!(of(&[Some(1), None]), is(1, NOT_OBSERVED));
        assert_eq!(of(&[None, Some(0)]), is(1, "Progressing"), "what is known is told first");
    }

    #[test]
    fn what_is_ill_stays_as_ill_as_it_is() {
        let ill =
            Problem { reason: "CrashLoopBackOff".into(), object: String::new(), message: String::new() };
        let nobody = nobody(&[Endpoints { service: "Service shop/web".into(), ready: Some(0) }]).unwrap();
        assert_eq!(with(Health::Broken(ill.clone()), Some(&nobody)), Health::Broken(ill));
        assert_eq!(with(Health::Unknown, Some(&nobody)), Health::Unknown);
        assert_eq!(with(Health::Healthy, None), Health::Healthy);
        assert_eq!(with(Health::Healthy, Some(&nobody)), Health::Progressing(nobody));
    }

    /// As long as the Service of this side has no endpoint.
    fn without_endpoints(world: &mut World, side: Side) {
        world.unserved = Some((
            side,
            nobody(&[Endpoints { service: "Service shop/web".into(), ready: Some(0) }]).unwrap(),
        ));
    }

    #[test]
    fn a_candidate_without_endpoints_gets_no_traffic_and_is_given_up_in_its_time() {
        for late in [false, true] {
            let mut world = canary();
            without_endpoints(&mut world, Side::Candidate);
            world.push("b", &["web"]);
            world.settle();
            world.pass(200);
            assert!(world.weights.is_empty(), "{:?}", world.weights);
            assert_eq!(world.phase(), Phase::RollingOut);
            if late {
                world.unserved = None;
                world.settle();
                world.pass(10);
                assert_eq!(world.weights, [10]);
                continue;
            }
            world.pass(200);
            assert!(world.weights.is_empty(), "{:?}", world.weights);
            assert_eq!(world.phase(), Phase::Held);
            let problem = &world.state.held.as_ref().unwrap().problem;
            assert!(problem.message.contains("has no ready endpoint"), "{problem:?}");
        }
    }

    #[test]
    fn traffic_returns_to_the_names_of_git_when_they_have_endpoints() {
        let mut world = canary();
        world.push("b", &["web"]);
        world.settle();
        world.pass(100);
        without_endpoints(&mut world, Side::Named);
        ask(&mut world, "promote", "b0");
        world.pass(100);
        assert_eq!(world.weights.last(), Some(&100), "it stays with the candidate: {:?}", world.weights);
        world.unserved = None;
        world.settle();
        world.pass(100);
        assert_eq!((world.weights.last(), world.phase()), (Some(&0), Phase::Ready));
    }
}
