//! What leads traffic to pods: Service, EndpointSlice, Ingress, Contour's HTTPProxy.

use super::Verdict;
use super::live::{Live, MESSAGE_LIMIT, counted, first_line};

/// The finalizer of Kubernetes' service controller, which every cloud provider's load balancers go through.
const LOAD_BALANCER_CLEANUP: &str = "service.kubernetes.io/load-balancer-cleanup";

/// The addresses that a load balancer published.
fn addresses(live: &Live<'_>) -> Vec<String> {
    live.items("/status/loadBalancer/ingress")
        .map(|entry| match (entry.text("/ip"), entry.text("/hostname")) {
            ("", "") => "unnamed address".to_owned(),
            ("", name) => name.to_owned(),
            (ip, _) => ip.to_owned(),
        })
        .collect()
}

/// A Service. Only a load balancer has to be waited for; whether pods stand behind it, their workload says.
pub(super) fn service(live: &Live<'_>) -> Verdict {
    match live.text("/spec/type") {
        "LoadBalancer" => {
            let addresses = addresses(live);
            if !addresses.is_empty() {
                return Verdict::healthy(format!("its load balancer answers at {}", addresses.join(", ")));
            }
            // Set by hand where a network device outside the cluster does the balancing; nobody fills the
            // status then.
            if live.items("/spec/externalIPs").count() > 0 {
                return Verdict::healthy("is reached at its externalIPs");
            }
            let class = live.text("/spec/loadBalancerClass");
            let waits = Verdict::progressing(match class {
                "" => "waits for the cluster's load balancer to give it an address".to_owned(),
                class => format!("waits for the load balancer class {class} to give it an address"),
            });
            // Who makes load balancers puts a finalizer first. Without it there may be nobody who does, as in most
            // clusters on one's own machine; that is not the commit's fault.
            let taken_on = live
                .items("/metadata/finalizers")
                .any(|finalizer| finalizer.text("") == LOAD_BALANCER_CLEANUP);
            if taken_on { waits } else { waits.without_blocking() }
        }
        "ExternalName" => Verdict::healthy(format!("is a name for {}", live.text("/spec/externalName"))),
        "NodePort" => Verdict::healthy("answers at its node port"),
        _ if live.text("/spec/clusterIP") == "None" => Verdict::healthy("is headless"),
        _ => Verdict::healthy("answers at its cluster IP"),
    }
}

/// An Ingress is healthy by being there. Many controllers never write an address (those behind a node port,
/// merged ingresses, several clusters behind one balancer), so waiting for one would hold good commits for
/// ever.
pub(super) fn ingress(live: &Live<'_>) -> Verdict {
    let addresses = addresses(live);
    Verdict::healthy(if addresses.is_empty() {
        "no address is published, which not every ingress controller does".to_owned()
    } else {
        format!("answers at {}", addresses.join(", "))
    })
}

/// An EndpointSlice is healthy by being there: whether its pods are ready, their workload says.
pub(super) fn endpoint_slice(live: &Live<'_>) -> Verdict {
    let all = live.items("/endpoints").count();
    // One that says nothing of itself is ready.
    let ready = live.items("/endpoints").filter(|endpoint| {
        endpoint.get("/conditions/ready").and_then(serde_json::Value::as_bool).unwrap_or(true)
    });
    Verdict::healthy(format!("{} of {} ready", ready.count(), counted(all as i64, "endpoint")))
}

/// Contour's HTTPProxy: Contour says whether it is valid, for each generation anew. What is missing (a Service, a Secret) may come
/// a moment later, so one that is not valid has time.
pub(super) fn http_proxy(live: &Live<'_>) -> Verdict {
    let generation = live.generation();
    let valid =
        live.condition("Valid").filter(|c| c.observed_generation.is_none_or(|seen| seen >= generation));
    let Some(valid) = valid else {
        return Verdict::progressing(format!("waits for Contour to look at generation {generation}"));
    };
    if valid.is_true() {
        return Verdict::healthy("is valid, says Contour");
    }
    let errors = live.items("/status/conditions").filter(|c| c.text("/type") == "Valid");
    let errors: Vec<String> = errors
        .flat_map(|c| c.items("/errors"))
        .map(|error| first_line(error.text("/message"), MESSAGE_LIMIT))
        .filter(|message| !message.is_empty())
        .collect();
    let why = if errors.is_empty() { valid.why() } else { errors.join("; ") };
    Verdict::degraded(format!("is not valid, says Contour: {why}"))
}
