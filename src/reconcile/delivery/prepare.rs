//! Preparing a revision: what is to be done with each object, tried by a dry-run before the first write.

use super::leave::{self, without_others};
use super::work::{Act, Planned, Work};
use crate::api::delivery::{Adopt, EntryOrigin, Goal, InventoryEntry, Problem, Revision};
use crate::api::names;
use crate::cluster::apply::{Guard, dry_run, get, list, list_labelled};
use crate::cluster::discovery::DiscoveryError;
use crate::cluster::{Access, ApplyError, Cause, Discovery, Resource};
use crate::core::adoption;
use crate::core::autoscale;
use crate::core::bundle::Bundle;
use crate::core::closest::closest;
use crate::core::ignore::{Left, RuleError, Rules};
use crate::core::lost;
use crate::core::manifest::{Gvk, Manifest, ObjectId};
use crate::core::plan::{self, Brings, Known, Live};
use crate::core::removal::removals;
use crate::core::rightful;
use crate::core::rollout::{Refusal, Staging};
use crate::core::router;
use crate::reconcile::live::digest;
use futures::{StreamExt, TryStreamExt, stream};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Objects of one Delivery that are tried at once. What the cluster takes at once is bounded elsewhere, for all.
const AT_ONCE: usize = 32;

/// What planning needs to know about a Delivery and its cluster.
pub struct Planner<'a> {
    /// The account that acts.
    pub access: &'a Access,
    /// What kinds the cluster knows.
    pub discovery: &'a Discovery,
    /// The key for digests of Secrets.
    pub key: &'a [u8],
    /// The value of our label.
    pub label: &'a str,
    /// What a watch knows of an object.
    pub live: &'a (dyn Fn(&Manifest) -> Option<Live> + Sync),
    /// The time.
    pub now: jiff::Timestamp,
    /// The bundle that was applied before, to tell which fields left Git.
    pub previous: Option<Arc<Bundle>>,
    /// Which Delivery (`namespace/name`) a value of our label stands for, if one that is known here.
    pub owner: &'a (dyn Fn(&str) -> Option<String> + Sync),
    /// What the Delivery's status knows.
    pub knows: Knows<'a>,
    /// What is left to others, or why that cannot be told.
    pub rules: Result<Arc<Rules>, RuleError>,
    /// What may become of the pods of a workload that is adopted.
    pub adopt: Adopt,
}

/// What a Delivery's status knows of its objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Knows<'a> {
    /// All of them.
    All,
    /// Nothing: the Delivery (its name is here) is new, or its status was lost.
    Nothing(&'a str),
    /// Nothing, and a person said that what carries our label is the Delivery's.
    Adopting,
}

/// What a rollback does not bring back with an object that is gone and that it makes anew.
fn made_anew(gvk: &Gvk, goal: Goal) -> Option<String> {
    if goal != Goal::Rollback {
        return None;
    }
    if (gvk.group.as_str(), gvk.kind.as_str()) == ("batch", "Job") {
        return Some("was gone and is made anew, so that it runs; if it ran before, it runs again".into());
    }
    let kept = match gvk.kind.as_str() {
        "PersistentVolumeClaim" => "the data",
        "CustomResourceDefinition" => "the objects of its kind",
        _ => "what is not in Git",
    };
    let words = format!("was gone and is made anew, without {kept} that it had");
    plan::is_precious(&gvk.group, &gvk.kind).then_some(words)
}

/// A refusal about an object of the bundle: says where in Git it stands.
pub fn refused(manifest: &Manifest, error: &ApplyError) -> Refusal {
    let place = manifest.origin.to_string();
    let message =
        if place.is_empty() { error.cause.to_string() } else { format!("{} ({place})", error.cause) };
    // A plan that is out of date is made anew, and a namespace is often made by somebody else a little later.
    let passes = error.cause.needs_new_plan() || matches!(error.cause, Cause::NamespaceMissing { .. });
    Refusal {
        problem: Problem { reason: error.cause.reason().into(), object: manifest.id().to_string(), message },
        transient: error.is_transient() || passes,
    }
}

/// A refusal about an object of whose kind nothing can be told for now.
pub fn unknown(id: &ObjectId, error: &DiscoveryError) -> Refusal {
    let problem =
        Problem { reason: "DiscoveryFailed".into(), object: id.to_string(), message: error.to_string() };
    Refusal { problem, transient: true }
}

/// What is known of an object without asking.
struct Looked {
    digest: String,
    live: Option<Live>,
    known: Known,
}

impl Planner<'_> {
    /// The plan of a bundle.
    pub async fn plan(
        &self,
        revision: &Revision,
        goal: Goal,
        bundle: Arc<Bundle>,
        inventory: &[InventoryEntry],
    ) -> Result<Work, Refusal> {
        let entries: BTreeMap<ObjectId, &InventoryEntry> = inventory.iter().map(|e| (e.id(), e)).collect();
        // What stands there just as we left it brings nothing new.
        let looked: Vec<(&Manifest, Option<&InventoryEntry>, Looked)> = bundle
            .objects()
            .iter()
            .map(|manifest| {
                let entry = entries.get(&manifest.id()).copied();
                (manifest, entry, self.look(manifest, entry))
            })
            .collect();
        let mut brings = plan::brings(
            looked
                .iter()
                .filter(|(_, _, looked)| looked.known != Known::Unchanged)
                .map(|(manifest, _, _)| *manifest),
        );
        // One that stands may have been made a moment ago, by the try before this one: then not all know its kind yet.
        brings.defined = plan::defined(bundle.objects());
        // What is about to be removed first may be what is in the way.
        let clears =
            inventory.iter().any(|e| e.prune.as_deref() == Some("before") && bundle.get(&e.id()).is_none());
        // Collected first: a closure over borrowed objects is not general enough for a future that is sent to a thread.
        let mut asked = Vec::with_capacity(bundle.objects().len());
        for (manifest, entry, looked) in looked {
            let brings = &brings;
            asked.push(async move {
                let planned = self.plan_looked(manifest, entry, looked, brings, clears, goal).await?;
                Ok::<_, Refusal>((manifest.id(), planned))
            });
        }
        let planned: Vec<(ObjectId, Planned)> =
            stream::iter(asked).buffer_unordered(AT_ONCE).try_collect().await?;
        let plan: BTreeMap<ObjectId, Planned> = planned.into_iter().collect();
        let lost: Vec<ObjectId> = plan.iter().filter(|(_, p)| p.lost).map(|(id, _)| id.clone()).collect();
        let let_go = self.lost(&bundle, &lost).await?;
        let origins = plan.iter().filter_map(|(id, p)| Some((id.clone(), p.origin?))).collect();
        let mut inventory = plan::inventory_for(&bundle, inventory, &origins);
        inventory.extend(let_go);
        Ok(Work {
            revision: revision.clone(),
            goal,
            staging: Staging::Whole,
            begin: None,
            bundle,
            route: None,
            plan,
            inventory,
            written: BTreeMap::new(),
            shown: BTreeSet::new(),
            done: BTreeSet::new(),
            at: self.now,
            end: None,
        })
    }

    /// What a lost status leads to: a refusal that names the objects, or the entries of those that are not in Git once a person
    /// said that all are the Delivery's. Nothing is asked where nothing was lost.
    async fn lost(&self, bundle: &Bundle, lost: &[ObjectId]) -> Result<Vec<InventoryEntry>, Refusal> {
        match self.knows {
            Knows::All => Ok(Vec::new()),
            Knows::Nothing(_) if lost.is_empty() => Ok(Vec::new()),
            Knows::Nothing(delivery) => {
                // What cannot be listed is not named; that something was lost is known without.
                let others = self.labelled_besides(bundle).await.unwrap_or_default();
                let others: Vec<ObjectId> = others.iter().map(InventoryEntry::id).collect();
                Err(Refusal { problem: lost::problem(delivery, lost, &others), transient: false })
            }
            Knows::Adopting => self.labelled_besides(bundle).await,
        }
    }

    /// Objects of the kinds that a bundle names, where it names them, that carry our label and are not in it.
    async fn labelled_besides(&self, bundle: &Bundle) -> Result<Vec<InventoryEntry>, Refusal> {
        let mut kinds: BTreeMap<(Gvk, String), &Manifest> = BTreeMap::new();
        for manifest in bundle.objects() {
            kinds.entry((manifest.gvk(), manifest.namespace().to_owned())).or_insert(manifest);
        }
        let mut found = Vec::new();
        for ((gvk, namespace), manifest) in kinds {
            let Some(resource) = self.discovery.resource(&gvk) else { continue };
            let all = list_labelled(self.access, &resource, &namespace, self.label)
                .await
                .map_err(|e| refused(manifest, &e))?;
            let entries =
                all.iter().filter(|o| !lost::is_made_by_controller(o)).map(|o| lost::entry(&gvk, o));
            found.extend(entries.filter(|e| bundle.get(&e.id()).is_none()));
        }
        Ok(found)
    }

    /// What is to be done with an object.
    pub async fn plan_object(
        &self,
        manifest: &Manifest,
        entry: Option<&InventoryEntry>,
        brings: &Brings,
        clears: bool,
        goal: Goal,
    ) -> Result<Planned, Refusal> {
        self.plan_looked(manifest, entry, self.look(manifest, entry), brings, clears, goal).await
    }

    /// What is known of an object without asking.
    fn look(&self, manifest: &Manifest, entry: Option<&InventoryEntry>) -> Looked {
        let digest = plan::manifest_digest(manifest, self.key);
        let live = (self.live)(manifest);
        let known = plan::known(manifest, &digest, entry, live.as_ref());
        Looked { digest, live, known }
    }

    async fn plan_looked(
        &self,
        manifest: &Manifest,
        entry: Option<&InventoryEntry>,
        looked: Looked,
        brings: &Brings,
        clears: bool,
        goal: Goal,
    ) -> Result<Planned, Refusal> {
        let Looked { digest, live, known } = looked;
        if known == Known::Unchanged {
            let replicas = entry.and_then(|e| e.replicas);
            return Ok(Planned::by_manifest(Act::Unchanged, digest, None, replicas));
        }
        self.ask(manifest, digest, entry, live, brings, clears, goal).await
    }

    #[allow(clippy::too_many_arguments)]
    async fn ask(
        &self,
        manifest: &Manifest,
        digest_: String,
        entry: Option<&InventoryEntry>,
        live: Option<Live>,
        brings: &Brings,
        clears: bool,
        goal: Goal,
    ) -> Result<Planned, Refusal> {
        let gvk = manifest.gvk();
        let refuse = |error: &ApplyError| refused(manifest, error);
        let mut replicas = None;
        let act = |act| Ok(Planned::by_manifest(act, digest_.clone(), None, None));
        let unknown_kind = || ApplyError::new(manifest.id(), Cause::KindUnknown { kind: gvk.to_string() });
        let comes_later = brings.kinds.contains(&(gvk.group.clone(), gvk.kind.clone()));
        let defined = comes_later || brings.defined.contains(&gvk);
        let found = match self.discovery.find(&gvk).await {
            Err(DiscoveryError::Silent { .. }) if defined => None,
            found => found.map_err(|e| unknown(&manifest.id(), &e))?,
        };
        let Some(resource) = found else {
            return if defined { act(Act::Later) } else { Err(refuse(&unknown_kind())) };
        };
        let mut value = manifest.to_value();
        let before = self.previous.as_ref().and_then(|b| b.get(&manifest.id()));
        if autoscale::may_drop_replicas(manifest, before, entry) && self.is_scaled(manifest, brings).await? {
            let there = get(self.access, &resource, manifest.namespace(), manifest.name())
                .await
                .map_err(|e| refuse(&e))?;
            replicas = there.as_ref().and_then(autoscale::replicas_to_keep);
            value = autoscale::with_replicas(value, replicas);
        }
        let rules = self.rules(goal)?;
        // One that the watch does not show is missing, or has lost our label and perhaps more.
        let as_left = |e: &InventoryEntry| live.as_ref().is_some_and(|l| l.digest == e.digest);
        let touched = entry.is_some_and(|e| e.uid.is_some() && !as_left(e));
        let reads = rules.concern(&value) || rightful::concerns(&value, touched);
        let mut left: Option<Left> = None;
        if reads {
            let there = get(self.access, &resource, manifest.namespace(), manifest.name())
                .await
                .map_err(|e| refuse(&e))?;
            if let Some(there) = there {
                let found = without_others(self.access, self.discovery, &rules, &value, &there)
                    .await
                    .map_err(|e| refuse(&e))?;
                value.clone_from(&found.desired);
                left = Some(found);
            }
        }
        let guard = live.as_ref().map_or(Guard::Any, |l| Guard::Uid(&l.uid));
        let mut answer = dry_run(self.access, &resource, &value, guard).await;
        if matches!(&answer, Err(ApplyError { cause: Cause::UidChanged, .. })) {
            answer = dry_run(self.access, &resource, &value, Guard::Any).await;
        }
        let applied = match answer {
            Ok(applied) => applied,
            Err(error) => {
                if goal == Goal::Rollback
                    && let Some(planned) =
                        self.as_close_as_it_goes(&resource, manifest, &digest_, &error).await?
                {
                    return Ok(planned);
                }
                return match &error.cause {
                    Cause::NamespaceMissing { namespace } if brings.namespaces.contains(namespace) => {
                        act(Act::Later)
                    }
                    Cause::KindUnknown { .. } if defined => act(Act::Later),
                    Cause::Immutable { .. } => {
                        let there = get(self.access, &resource, manifest.namespace(), manifest.name())
                            .await
                            .map_err(|e| refuse(&e))?;
                        let Some(there) = there else { return act(Act::Create) };
                        let label = there["metadata"]["labels"][names::DELIVERY_LABEL].as_str();
                        if let Some(label) = label.filter(|l| *l != self.label) {
                            return Err(self.conflict(manifest, label));
                        }
                        // Also where what stands there said so: a rollback gets back the way that the failed commit
                        // came.
                        let said_so = there["metadata"]["annotations"][names::RECREATE] == "enabled";
                        let keeps = label.is_none() && self.keeps_pods(goal) && adoption::is_workload(&there);
                        if keeps || !may_recreate(manifest) && !said_so {
                            return Err(refuse(&error));
                        }
                        let lost = label.is_some() && self.knows != Knows::All;
                        let origin = (label.is_none() || lost).then_some(EntryOrigin::Adopted);
                        let unlabelled = label.is_none();
                        let act = Act::Recreate { uid: text(&there, "uid") };
                        let mut planned = Planned::by_manifest(act, digest_, origin, replicas);
                        planned.found = unlabelled.then(|| Arc::new(there));
                        planned.lost = lost;
                        if goal == Goal::Rollback && manifest.gvk().kind == "Job" {
                            planned.except = Some(
                                "is run again as the last good revision has it; what it did in the failed one, if it ran, \
                                 is not undone"
                                    .into(),
                            );
                        }
                        Ok(planned)
                    }
                    // It may be what the new definition in the same bundle allows.
                    Cause::Invalid { .. } | Cause::UnknownField { .. } if comes_later => {
                        self.later(manifest, &resource, act(Act::Later)?).await
                    }
                    Cause::RoleMissing { .. } | Cause::Escalates { .. } if brings.role_of(manifest) => {
                        self.later(manifest, &resource, act(Act::Later)?).await
                    }
                    // It cannot be tried; whatever is wrong with it shows while applying.
                    Cause::WebhookNoDryRun { .. } => self.later(manifest, &resource, act(Act::Later)?).await,
                    Cause::Invalid { .. } | Cause::QuotaExceeded { .. } if clears => {
                        self.later(manifest, &resource, act(Act::Later)?).await
                    }
                    _ => Err(refuse(&error)),
                };
            }
        };
        if applied.created {
            let origin = Some(EntryOrigin::Created);
            let planned = Planned::by_manifest(Act::Create, digest_, origin, replicas);
            return Ok(Planned { except: made_anew(&gvk, goal), ..planned });
        }
        let uid = text(&applied.object, "uid");
        // Two that name an object at once both find nothing there: it is the one's whose label it carries.
        let taken = live.as_ref().is_some_and(|l| l.uid == uid && plan::is_anothers(&l.label, self.label));
        let ours = !taken
            && (live.as_ref().is_some_and(|l| l.uid == uid && l.label == self.label)
                || entry.is_some_and(|e| e.uid.as_deref() == Some(&uid)));
        let (mut origin, mut found) = (None, None);
        if !ours {
            let there = get(self.access, &resource, manifest.namespace(), manifest.name())
                .await
                .map_err(|e| refuse(&e))?;
            // Gone since it was tried: there is nothing to adopt.
            let Some(there) = there else {
                let origin = Some(EntryOrigin::Created);
                let planned = Planned::by_manifest(Act::Create, digest_, origin, replicas);
                return Ok(Planned { except: made_anew(&gvk, goal), ..planned });
            };
            origin = Some(match there["metadata"]["labels"][names::DELIVERY_LABEL].as_str() {
                Some(label) if label == self.label => EntryOrigin::Created,
                Some(label) => return Err(self.conflict(manifest, label)),
                None => EntryOrigin::Adopted,
            });
            found = (origin == Some(EntryOrigin::Adopted)).then(|| Arc::new(there));
        }
        let adopting = origin == Some(EntryOrigin::Adopted);
        let lost = !adopting && self.knows != Knows::All;
        if lost {
            origin = Some(EntryOrigin::Adopted);
        }
        let previous = before.map(Manifest::to_value);
        let mut release = removals(previous.as_ref(), &value, &applied.object, adopting);
        if let Some(left) = &left {
            release.retain(|path| !left.covers(path) && !left.touches(path));
        }
        if adopting
            && self.keeps_pods(goal)
            && let Some(there) = &found
            && let Some(differs) = adoption::restarts(there, &applied.object, &release)
        {
            return Err(pods_would_restart(manifest, &differs));
        }
        let after = digest(&applied.object, self.key);
        // A watch that lags may show what stood there before somebody changed it: the answer tells what was tried on.
        let tried_on = text(&applied.object, "resourceVersion");
        let same = ours
            && release.is_empty()
            && live
                .as_ref()
                .is_some_and(|l| !l.digest.is_empty() && l.digest == after && l.version == tried_on);
        let act = if same { Act::Record { uid, digest: after } } else { Act::Update { uid, release } };
        let changed = left.is_some_and(|left| left.changed);
        Ok(Planned {
            found,
            lost,
            reads,
            left: changed,
            version: router::steers(&gvk).then_some(tried_on),
            ..Planned::by_manifest(act, digest_, origin, replicas)
        })
    }

    /// Going back, an object that holds data is neither deleted nor in the way of all others when it cannot be changed
    /// back: what Kubernetes takes is applied, and the rest is listed.
    async fn as_close_as_it_goes(
        &self,
        resource: &Resource,
        manifest: &Manifest,
        digest_: &str,
        error: &ApplyError,
    ) -> Result<Option<Planned>, Refusal> {
        let refuses = matches!(error.cause, Cause::Invalid { .. } | Cause::Immutable { .. })
            || matches!(error.cause, Cause::Refused { code: 422 | 403, .. });
        let gvk = manifest.gvk();
        if !refuses || !plan::is_precious(&gvk.group, &gvk.kind) {
            return Ok(None);
        }
        let there = get(self.access, resource, manifest.namespace(), manifest.name())
            .await
            .map_err(|e| refused(manifest, &e))?;
        // One that is another Delivery's, or nobody's, is refused like any other.
        let Some(there) =
            there.filter(|o| o["metadata"]["labels"][names::DELIVERY_LABEL].as_str() == Some(self.label))
        else {
            return Ok(None);
        };
        let uid = text(&there, "uid");
        if let Some((value, except)) = closest(&manifest.to_value(), &there)
            && let Ok(answer) = dry_run(self.access, resource, &value, Guard::Uid(&uid)).await
        {
            let after = digest(&answer.object, self.key);
            let act = match after == digest(&there, self.key) {
                true => Act::Record { uid, digest: after },
                false => Act::Update { uid, release: Vec::new() },
            };
            let mut planned = Planned::by_manifest(act, digest_.to_owned(), None, None);
            planned.instead = Some(Arc::new(value));
            planned.except = Some(except);
            return Ok(Some(planned));
        }
        let mut planned = Planned::by_manifest(Act::Unchanged, digest_.to_owned(), None, None);
        planned.except = Some(format!("stays as the failed revision made it: {}", error.cause));
        Ok(Some(planned))
    }

    /// An object that cannot be tried yet. Where the status knows of nothing it is looked at all the same: it may be one that was
    /// lost.
    async fn later(
        &self,
        manifest: &Manifest,
        resource: &Resource,
        planned: Planned,
    ) -> Result<Planned, Refusal> {
        if self.knows == Knows::All {
            return Ok(planned);
        }
        let there = get(self.access, resource, manifest.namespace(), manifest.name())
            .await
            .map_err(|e| refused(manifest, &e))?;
        let label = there.as_ref().and_then(|o| o["metadata"]["labels"][names::DELIVERY_LABEL].as_str());
        let lost = label == Some(self.label);
        Ok(Planned { lost, origin: lost.then_some(EntryOrigin::Adopted), ..planned })
    }

    /// Another Delivery has the object.
    pub(super) fn conflict(&self, manifest: &Manifest, label: &str) -> Refusal {
        let whose = plan::whose(label, (self.owner)(label).as_deref());
        Refusal {
            problem: Problem {
                reason: "Conflict".into(),
                object: manifest.id().to_string(),
                message: format!("{whose} ({})", manifest.origin),
            },
            transient: false,
        }
    }

    /// Whether a workload is adopted only if its pods stay. Going back, the last good revision comes first.
    fn keeps_pods(&self, goal: Goal) -> bool {
        self.adopt == Adopt::KeepPods && goal != Goal::Rollback
    }

    /// What is left to others. Going back, a rule that cannot be read keeps nothing from being brought back.
    fn rules(&self, goal: Goal) -> Result<Arc<Rules>, Refusal> {
        match &self.rules {
            Ok(rules) => Ok(rules.clone()),
            Err(_) if goal == Goal::Rollback => Ok(Arc::default()),
            Err(error) => Err(leave::refusal(error)),
        }
    }

    /// Whether an autoscaler scales a workload: one of the bundle's, or one that is in its namespace.
    async fn is_scaled(&self, manifest: &Manifest, brings: &Brings) -> Result<bool, Refusal> {
        let id = manifest.id();
        if brings.scaled.contains(&id) {
            return Ok(true);
        }
        for (api_version, kind) in autoscale::AUTOSCALERS {
            let Some(resource) = self.discovery.resource(&Gvk::new(api_version, kind)) else { continue };
            let found = list(self.access, &resource, manifest.namespace())
                .await
                .map_err(|e| refused(manifest, &e))?;
            if found.iter().any(|scaler| autoscale::target(scaler).as_ref() == Some(&id)) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// The pods of a workload that is there already would be replaced, and are not to be.
fn pods_would_restart(manifest: &Manifest, differs: &str) -> Refusal {
    Refusal {
        problem: Problem {
            reason: "PodsWouldRestart".into(),
            object: manifest.id().to_string(),
            message: format!(
                "is there already, and adopting it would replace its pods: {differs}; make these equal, or set adopt: Restart"
            ),
        },
        transient: false,
    }
}

/// Whether an object may be deleted and created again when it cannot be changed: a Job always, since its template
/// never can be; another where it says so.
pub fn may_recreate(manifest: &Manifest) -> bool {
    let gvk = manifest.gvk();
    (gvk.group == "batch" && gvk.kind == "Job") || manifest.annotation(names::RECREATE) == Some("enabled")
}

fn text(object: &serde_json::Value, field: &str) -> String {
    object["metadata"][field].as_str().unwrap_or_default().to_owned()
}
