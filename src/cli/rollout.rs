//! `windlass rollout NAME`, and what a person may ask of a rollout: `promote`, `pause`, `abort`, `retry` (and `resume`, which
//! shares its name with the end of a suspension).

use super::find::{self, DeliveryArgs, explained, full_name};
use super::output::{OutputArgs, form, show_each};
use super::request::{WaitArgs, annotate, is_ready, must_act, token, wait};
use super::{NOT_WELL, WELL};
use crate::api::delivery::Revision;
use crate::api::{Delivery, names};
use crate::report::rollout::{Pods, report, text, workloads};
use crate::report::short;
use anyhow::{Context, bail};
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};
use k8s_openapi::api::authentication::v1::SelfSubjectReview;
use kube::Api;
use kube::api::PostParams;
use kube::core::NamespaceResourceScope;
use std::time::Duration;

/// On a terminal pods are counted, and times move on, this often.
const TICK: Duration = Duration::from_secs(2);

/// Show how far a rollout is: its steps, weights, pods, measurements and what it waits for.
///
/// Exit code 0: nothing is under way and nothing is held, or it goes on. 1: it is paused, or the last one failed.
#[derive(clap::Args, Clone, Debug)]
pub struct RolloutArgs {
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    of: DeliveryArgs,
}

/// Let a rollout go on: what its step waits for is not waited for.
#[derive(clap::Args, Clone, Debug)]
pub struct PromoteArgs {
    /// Skip all remaining steps, and promote
    #[arg(long)]
    full: bool,
    #[command(flatten)]
    wait: WaitArgs,
    #[command(flatten)]
    of: DeliveryArgs,
}

/// Ask something of a rollout.
#[derive(clap::Args, Clone, Debug)]
pub struct AskArgs {
    #[command(flatten)]
    wait: WaitArgs,
    #[command(flatten)]
    of: DeliveryArgs,
}

/// Prints how far it is.
pub async fn run(args: RolloutArgs) -> anyhow::Result<i32> {
    show_each(TICK, &args.output, &args.of.cluster, &args.of.scope, async |connection| {
        let delivery = find::delivery(&connection.client, &args.of.scope, &args.of.name).await?;
        let mut report = report(&delivery);
        if report.progress.is_some() {
            report.pods = pods(&connection.client, &delivery).await;
        }
        let code = if report.well { WELL } else { NOT_WELL };
        Ok((form(args.output.output, &report, |wide| text(&report, wide, Timestamp::now()))?, code))
    })
    .await
}

/// The pods of the workloads that are rolled out. What may not be read, or is not there, is left out.
async fn pods(client: &kube::Client, delivery: &Delivery) -> Vec<Pods> {
    let mut found = Vec::new();
    for id in workloads(delivery) {
        let (namespace, name) = (&id.namespace, &id.name);
        let counted = match id.kind.as_str() {
            "StatefulSet" => counts::<StatefulSet>(client, namespace, name).await.map(|set| {
                let wanted = set.spec.and_then(|s| s.replicas);
                (set.status.and_then(|s| s.ready_replicas), wanted)
            }),
            _ => counts::<Deployment>(client, namespace, name).await.map(|deployment| {
                let wanted = deployment.spec.and_then(|s| s.replicas);
                (deployment.status.and_then(|s| s.ready_replicas), wanted)
            }),
        };
        if let Some((ready, wanted)) = counted {
            let (ready, wanted) = (ready.unwrap_or(0), wanted.unwrap_or(1));
            found.push(Pods { workload: id.to_string(), ready, wanted });
        }
    }
    found
}

async fn counts<K>(client: &kube::Client, namespace: &str, name: &str) -> Option<K>
where
    K: kube::Resource<Scope = NamespaceResourceScope, DynamicType = ()>
        + Clone
        + std::fmt::Debug
        + serde::de::DeserializeOwned,
{
    Api::<K>::namespaced(client.clone(), namespace).get_opt(name).await.ok().flatten()
}

/// `windlass promote`.
pub async fn promote(args: PromoteArgs) -> anyhow::Result<i32> {
    let (verb, told) = match args.full {
        true => ("promote-full", "is promoted"),
        false => ("promote", "goes on"),
    };
    ask(&args.of, args.wait, verb, told).await
}

/// `windlass pause`.
pub async fn pause(args: AskArgs) -> anyhow::Result<i32> {
    ask(&args.of, args.wait, "pause", "stays where it is until `windlass resume`").await
}

/// `windlass abort`.
pub async fn abort(args: AskArgs) -> anyhow::Result<i32> {
    ask(&args.of, args.wait, "abort", "is aborted: traffic goes back, and it is held").await
}

/// `windlass retry`.
pub async fn retry(args: AskArgs) -> anyhow::Result<i32> {
    ask(&args.of, args.wait, "retry", "is tried again").await
}

/// The revision that is rolled out now.
pub fn rolled_out(delivery: &Delivery) -> Option<&Revision> {
    let attempt = delivery.status.as_ref()?.attempt.as_ref()?;
    attempt.rollout.as_ref().map(|_| &attempt.revision)
}

async fn ask(of: &DeliveryArgs, waits: WaitArgs, verb: &str, told: &str) -> anyhow::Result<i32> {
    let (connection, delivery) = of.find().await?;
    ask_of(&connection.client, &delivery, waits, verb, told).await
}

/// Writes what is asked for, with the name of who asks: the API server makes sure that it is his own.
pub async fn ask_of(
    client: &kube::Client,
    delivery: &Delivery,
    waits: WaitArgs,
    verb: &str,
    told: &str,
) -> anyhow::Result<i32> {
    must_act(delivery)?;
    let name = full_name(delivery);
    let meant = match verb {
        "retry" => delivery.status.as_ref().and_then(|s| s.held.as_ref()).map(|held| &held.revision),
        _ => rolled_out(delivery),
    };
    let Some(revision) = meant else {
        match verb {
            "retry" => bail!("{name} holds no revision"),
            _ => bail!("nothing is rolled out in {name}; `windlass status` shows what it does"),
        }
    };
    let token = token();
    // Colons part the value, and the time has some.
    let value = format!("{verb}:{}:{}:{}", revision.commit, token.replace(':', ""), whoami(client).await?);
    annotate(client, delivery, &token, Some((names::ROLLOUT_REQUEST, &value))).await?;
    anstream::eprintln!("{name}: {} ({}) {told}", short(revision), revision.subject);
    match waits.wait {
        true => wait(client, delivery, &token, waits.timeout, is_ready).await,
        false => Ok(WELL),
    }
}

/// The name under which the API server knows who asks.
async fn whoami(client: &kube::Client) -> anyhow::Result<String> {
    let api: Api<SelfSubjectReview> = Api::all(client.clone());
    let answer =
        api.create(&PostParams::default(), &SelfSubjectReview::default()).await.map_err(explained)?;
    let user = answer.status.and_then(|s| s.user_info).and_then(|u| u.username);
    user.context("the API server does not say who asks")
}
