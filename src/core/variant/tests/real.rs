//! Candidates of applications that others wrote: a shop of eleven services with its NetworkPolicies, and a small web service with
//! an autoscaler.

use super::laws::variants_are_apart;
use super::*;
use std::path::{Path, PathBuf};

fn manifests(directories: &[&str]) -> Option<String> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data/repos");
    let root = std::env::var_os("WINDLASS_TEST_REPOS").map_or(beside, PathBuf::from);
    let mut documents = Vec::new();
    for directory in directories {
        let Ok(found) = std::fs::read_dir(root.join(directory)) else {
            eprintln!("SKIPPED: {} is not there", root.join(directory).display());
            return None;
        };
        let mut files: Vec<PathBuf> = found.map(|entry| entry.unwrap().path()).collect();
        files.sort();
        for file in files.iter().filter(|file| !file.ends_with("kustomization.yaml")) {
            let text = std::fs::read_to_string(file).unwrap();
            documents.extend(text.split("\n---").map(str::to_owned));
        }
    }
    documents.retain(|text| text.contains("\nkind:") || text.starts_with("kind:"));
    Some(documents.join("\n---"))
}

fn workloads(bundle: &Bundle) -> Vec<String> {
    let all = bundle.objects().iter().filter(|object| object.gvk().kind == "Deployment");
    all.map(|object| object.name().to_owned()).collect()
}

#[test]
fn each_service_of_a_shop_gets_a_candidate_that_is_let_in_where_the_service_is() {
    let Some(yaml) = manifests(&[
        "microservices-demo/kubernetes-manifests",
        "microservices-demo/kustomize/components/network-policies",
    ]) else {
        return;
    };
    let stable = bundle(&yaml);
    let mut callers = 0;
    for name in workloads(&stable) {
        let target = changed(&stable, &name);
        let policy = RolloutPolicy { workload: Some(workload(&name)), ..policy() };
        let stage = stage(&stable, &target, &policy, &full(), &[]).unwrap();
        variants_are_apart(&stage, [&stable, &target], false);
        assert_eq!(stage.variants[0].label.key, "app", "{name}");
        let own = |kind: &str| {
            let all = stable.objects().iter().filter(|object| object.gvk().kind == kind);
            all.filter(|object| {
                object.to_value().pointer("/spec/selector/app") == Some(&name.as_str().into())
                    || object.to_value().pointer("/spec/podSelector/matchLabels/app")
                        == Some(&name.as_str().into())
            })
            .count()
        };
        let made = |kind: &str| {
            let copy = |object: &&Manifest| object.gvk().kind == kind && object.name().ends_with("-canary");
            stage
                .objects
                .iter()
                .filter(copy)
                .filter(|object| !object.name().ends_with("-peers-canary"))
                .count()
        };
        for kind in ["Service", "NetworkPolicy"] {
            assert_eq!(made(kind), own(kind), "{kind} of {name}");
        }
        assert_eq!(stage.services.len(), own("Service"), "{name}");
        callers += stage.ids().iter().filter(|id| id.ends_with("-peers-canary")).count();
        let counts = RolloutPolicy { router: by_counts().router, ..policy };
        // A selector of one label leaves none to tell the variants apart by; without a Service there is nothing to share.
        let refused = super::stage(&stable, &target, &counts, &full(), &[]);
        assert_eq!(refused.is_err(), own("Service") > 0, "{name}");
    }
    assert!(callers > 10, "only {callers} policies name a workload as a peer");
}

#[test]
fn a_small_web_service_is_held_at_its_size() {
    let Some(yaml) = manifests(&["podinfo/kustomize"]) else { return };
    let stable = bundle(&yaml);
    let target = changed(&stable, "podinfo");
    let policy =
        RolloutPolicy { strategy: Strategy::BlueGreen, workload: Some(workload("podinfo")), ..policy() };
    let sizes = [WorkloadSize { workload: workload("podinfo"), replicas: 3, now: None }];
    let stage = stage(&stable, &target, &policy, &full(), &sizes).unwrap();
    for name in ["podinfo", "podinfo-preview"] {
        let autoscaler = stage.object("autoscaling", "HorizontalPodAutoscaler", name);
        assert_eq!(autoscaler["spec"]["minReplicas"], 3, "{name}");
        assert_eq!(autoscaler["spec"]["scaleTargetRef"]["name"], name);
    }
    variants_are_apart(&stage, [&stable, &target], false);
}

/// The bundle with another image of a workload.
fn changed(stable: &Bundle, name: &str) -> Bundle {
    let mut objects = stable.objects().to_vec();
    for object in
        objects.iter_mut().filter(|object| object.gvk().kind == "Deployment" && object.name() == name)
    {
        let containers = super::super::at_mut(object, &["spec", "template", "spec", "containers"]).unwrap();
        containers[0]["image"] = "another:1".into();
    }
    Bundle::new(objects).unwrap()
}
