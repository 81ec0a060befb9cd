//! The steps of a rollout in a few words, as the policy has them.

use super::steps::given;
use crate::api::rollout::{Pause, RolloutPolicy, RolloutStep, Strategy};

/// Steps that are told; of more, the first ones and how many there are.
const MOST: usize = 12;

/// The steps, such as `weight 10%, pause 5m, promotion`.
pub fn steps(policy: &RolloutPolicy) -> String {
    let mut told: Vec<String> = given(policy).iter().map(step).collect();
    if told.len() > MOST {
        let all = told.len();
        told.truncate(MOST - 1);
        told.push(format!("… {all} steps in all"));
    }
    if policy.strategy == Strategy::BlueGreen {
        told.push("all traffic".into());
    }
    told.push("promotion".into());
    told.join(", ")
}

fn step(step: &RolloutStep) -> String {
    if let Some(weight) = step.weight {
        return format!("weight {weight}%");
    }
    if let Some(pause) = &step.pause {
        return match Pause::time(pause) {
            Ok(Some(time)) => format!("pause {time}"),
            Ok(None) => "pause until a person says go".into(),
            Err(_) => "pause".into(),
        };
    }
    if let Some(header) = &step.header {
        return format!("header {}: {}", header.name, header.value);
    }
    if let Some(cookie) = &step.cookie {
        return format!("cookie {}={}", cookie.name, cookie.value);
    }
    if let Some(mirror) = &step.mirror {
        return format!("mirror {}%", mirror.percent.unwrap_or(100));
    }
    if let Some(scale) = &step.scale {
        return match scale.replicas {
            Some(1) => "scale to 1 pod".into(),
            Some(replicas) => format!("scale to {replicas} pods"),
            None => format!("scale to {}%", scale.percent.unwrap_or(100)),
        };
    }
    match &step.job {
        Some(job) => format!("Job {}", job.name),
        None => "analysis".into(),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn told(mut policy: Value, more: Value) -> String {
        policy["workload"] = json!({"name": "web"});
        for (field, value) in more.as_object().unwrap() {
            policy[field] = value.clone();
        }
        steps(&serde_json::from_value(policy).unwrap())
    }

    #[test]
    fn each_step_is_told_as_it_is_written() {
        let canary = json!({"strategy": "Canary", "router": {"gatewayAPI": {"route": "web"}}});
        let all = json!({"steps": [
            {"scale": {"replicas": 1}}, {"weight": 10}, {"pause": "5m"}, {"pause": {}}, {"mirror": {"percent": 20}},
            {"header": {"name": "x-beta", "value": "1"}}, {"analysis": {"count": 3}}, {"job": {"name": "smoke"}},
        ]});
        assert_eq!(
            told(canary.clone(), all),
            "scale to 1 pod, weight 10%, pause 5m, pause until a person says go, mirror 20%, header x-beta: 1, analysis, Job \
             smoke, promotion"
        );
        let by = json!({"stepWeight": 25, "interval": "30s"});
        assert_eq!(told(canary.clone(), by), "weight 25%, pause 30s, weight 50%, pause 30s, promotion");
        let many = told(canary, json!({"stepWeight": 2, "interval": "30s"}));
        assert!(many.contains("… 50 steps in all, promotion"), "{many}");
        let green = json!({"strategy": "BlueGreen", "router": {"service": {"name": "web"}}, "steps": [{"pause": {}}]});
        assert_eq!(told(green, json!({})), "pause until a person says go, all traffic, promotion");
        let test = json!({"strategy": "AB", "router": {"istio": {"virtualService": "web"}}});
        let cookie = json!({"ab": {"cookie": {"name": "beta", "value": "1"}, "duration": "1h"}});
        assert_eq!(told(test, cookie), "cookie beta=1, pause 1h, promotion");
    }
}
