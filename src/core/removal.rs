//! Fields that left Git and would not vanish by applying alone, and the patch that takes them away.
//!
//! A server-side apply removes what our last apply had and this one has not, unless another manager has it too. After `kubectl
//! apply`, `create` or `edit`, Helm, or cleared `managedFields`, another manager has everything, so that nothing ever vanishes.
//! Such managers stand for the same Git repository before us, not for somebody who has an interest of his own: what
//! only they have is removed. What a controller, an autoscaler, a webhook or an unknown client has is left alone.

use super::diff::{KindOf, fold_string_data, is_allocated, is_default, is_free_map};
use super::fields::{Operation, Owner, Path, PathSet, Segment, desired_paths, is_server_metadata, owners};
use crate::api::names::FIELD_MANAGER;
use serde_json::{Value, json};
use std::cmp::Ordering;

/// The copy of the manifest that client-side apply keeps on the object. It is stale once somebody else applies.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// Fields that left Git and would still stand after an apply, to be removed by [`removal_patch`] before it.
///
/// `previous` is the manifest that we applied last; `desired` the one to be applied; `after` the answer of the forced
/// dry-run apply of `desired` (any live state in which our entry is that of `desired` will do). With `adopting` the object was
/// not ours so far: then the fields of whoever wrote it from manifests are candidates too, and the annotation of client-side
/// apply goes. A path is returned only when nothing at or below it is desired, or owned by anybody but such managers and us;
/// identity, status, what the API server allocates (a `clusterIP`, a bound volume) and known defaults never are. Taking away a
/// default that is not known has no effect: it comes back with the same request.
///
/// Not considered: whether an autoscaler needs `replicas`. Who calls leaves that path out where one targets the workload.
pub fn removals(previous: Option<&Value>, desired: &Value, after: &Value, adopting: bool) -> Vec<Path> {
    let of = KindOf::new(desired);
    let mut owners = owners(after);
    if of.is_secret() {
        // Who sent `stringData` owns that, and nobody owns the `data` that the API server made of it.
        for owner in &mut owners {
            let texts = owner.fields.detach(&[Segment::field("stringData")]);
            if !texts.is_empty() {
                owner.fields.graft(&[Segment::field("data")], &texts);
            }
        }
    }
    let known = owners.iter().fold(PathSet::default(), |set, owner| set.union(&owner.fields));
    let wanted = desired_paths(&folded(desired), &known);

    let mut former = PathSet::default();
    if let Some(previous) = previous {
        former = former.union(&desired_paths(&folded(previous), &known));
    }
    if adopting {
        let last_applied = last_applied(after);
        if let Some(manifest) = &last_applied {
            former = former.union(&desired_paths(&folded(manifest), &known));
        }
        for owner in owners.iter().filter(|o| wrote_manifests(o)) {
            let mut fields = owner.fields.clone();
            match owner.manager.as_str() {
                // The annotation says exactly what was sent; the entry has the defaults, too.
                "kubectl-client-side-apply" if last_applied.is_some() => continue,
                // Everything that was there before ownership was recorded, whoever set it.
                "before-first-apply" => fields = handwritten(&fields),
                _ => {}
            }
            former = former.union(&fields);
        }
    }

    let releases = |o: &&Owner| {
        wrote_manifests(o)
            || is_by_hand(o) && !adopting && previous.is_some()
            || (o.manager == FIELD_MANAGER && o.operation == Operation::Update)
    };
    let ours = |o: &&Owner| o.manager == FIELD_MANAGER && o.operation == Operation::Apply;
    let sum = |set: PathSet, owner: &Owner| set.union(&owner.fields);
    let released = owners.iter().filter(releases).fold(PathSet::default(), sum);
    let protected = owners.iter().filter(|o| !releases(o) && !ours(o)).fold(PathSet::default(), sum);

    let mut search = Search { of, at: Vec::new(), out: Vec::new() };
    search.below(
        &former,
        after,
        Coverage {
            wanted: Some(&wanted),
            manifest: Some(desired),
            protected: Some(&protected),
            released: Some(&released),
        },
    );
    let mut out = search.out;
    let stale = Path::fields(["metadata", "annotations", LAST_APPLIED]);
    if adopting
        && stale.get(after).is_some()
        && !wanted.contains(&stale)
        && !out.iter().any(|p| p.covers(&stale))
    {
        out.push(stale);
    }
    out.sort();
    out
}

/// Managers that write whole manifests.
fn wrote_manifests(owner: &Owner) -> bool {
    let manager = owner.manager.as_str();
    let known = match owner.operation {
        Operation::Update => matches!(
            manager,
            "kubectl-client-side-apply"
                | "kubectl-create"
                | "kubectl-replace"
                | "kubectl-edit"
                | "kubectl-expose"
                | "kubectl-run"
                | "kubectl-autoscale"
                | "kubectl"
                | "helm"
                | "Helm"
                | "before-first-apply"
        ),
        Operation::Apply => matches!(manager, "kubectl" | "helm" | "before-first-apply"),
    };
    known && owner.subresource.is_empty()
}

/// Commands that people change single fields with. What they set beside Git stays; a field that stood in Git goes when Git drops it.
fn is_by_hand(owner: &Owner) -> bool {
    owner.operation == Operation::Update
        && owner.subresource.is_empty()
        && matches!(
            owner.manager.as_str(),
            "kubectl-patch" | "kubectl-set" | "kubectl-label" | "kubectl-annotate"
        )
}

fn folded(manifest: &Value) -> Value {
    let mut manifest = manifest.clone();
    if let Value::Object(object) = &mut manifest {
        fold_string_data(object);
    }
    manifest
}

fn last_applied(object: &Value) -> Option<Value> {
    let text = object.pointer("/metadata/annotations")?.get(LAST_APPLIED)?.as_str()?;
    serde_json::from_str(text).ok().filter(Value::is_object)
}

/// Of an entry that holds everything, defaults and the doings of controllers included: the parts that no controller writes.
fn handwritten(fields: &PathSet) -> PathSet {
    let mut out = PathSet::default();
    for path in [
        &["data"][..],
        &["binaryData"],
        &["stringData"],
        &["spec", "template"],
        &["spec", "jobTemplate", "spec", "template"],
    ] {
        let path: Vec<Segment> = path.iter().map(|name| Segment::field(*name)).collect();
        if let Some(part) = fields.at(&path) {
            out.graft(&path, part);
        }
    }
    out
}

/// What may not be taken away, at one place of the object.
#[derive(Clone, Copy)]
struct Coverage<'a> {
    wanted: Option<&'a PathSet>,
    manifest: Option<&'a Value>,
    protected: Option<&'a PathSet>,
    released: Option<&'a PathSet>,
}

impl<'a> Coverage<'a> {
    fn step(self, segment: &Segment) -> Self {
        Coverage {
            wanted: self.wanted.and_then(|s| s.child(segment)),
            manifest: self.manifest.and_then(|v| segment.step(v)),
            protected: self.protected.and_then(|s| s.child(segment)),
            released: self.released.and_then(|s| s.child(segment)),
        }
    }

    /// Whether the value here counts as one and is desired or somebody else's.
    fn is_closed(self) -> bool {
        let leaf = |set: Option<&PathSet>| set.is_some_and(PathSet::is_leaf);
        // `{}` in Git asks for a map and says nothing about what is in it.
        let open = self.manifest.and_then(Value::as_object).is_some_and(serde_json::Map::is_empty);
        (leaf(self.wanted) && !open) || leaf(self.protected)
    }

    fn is_touched(self) -> bool {
        let any = |set: Option<&PathSet>| set.is_some_and(|s| !s.is_empty());
        any(self.wanted) || any(self.protected)
    }
}

struct Search<'a> {
    of: KindOf<'a>,
    at: Vec<Segment>,
    out: Vec<Path>,
}

impl Search<'_> {
    fn below(&mut self, former: &PathSet, live: &Value, covered: Coverage) {
        for (segment, below) in former.children() {
            let Some(value) = segment.step(live) else { continue };
            self.at.push(segment.clone());
            self.one(below, value, covered.step(segment));
            self.at.pop();
        }
    }

    fn one(&mut self, former: &PathSet, live: &Value, covered: Coverage) {
        let status = matches!(self.at.first(), Some(Segment::Field(top)) if top == "status");
        if status || is_server_metadata(&self.at) || is_allocated(self.of, &self.at) || covered.is_closed() {
            return;
        }
        if covered.is_touched() || !self.goes_whole(former) {
            self.below(former, live, covered);
            return;
        }
        // A manifest that only asked for a map says nothing about what others put into it.
        let granular = covered.released.is_some_and(|set| set.children().next().is_some());
        if former.is_leaf() && granular && live.as_object().is_some_and(|map| !map.is_empty()) {
            return;
        }
        let released = covered.released.is_some_and(|set| !set.is_empty());
        if released && self.says_something(former, live) {
            self.out.push(Path(self.at.clone()));
        }
    }

    /// Whether everything below goes with this field: a struct that makes no sense without what is taken out of it (a probe without
    /// its handler). Maps with free keys, `metadata` and the top are taken apart, since what nobody owns there may be somebody's.
    fn goes_whole(&self, former: &PathSet) -> bool {
        former.is_leaf() || !(is_free_map(&self.at) || self.at.len() < 2)
    }

    /// Whether a member at or below has a value that did not come from the API server by itself.
    fn says_something(&mut self, former: &PathSet, live: &Value) -> bool {
        if is_default(self.of, &self.at, live) {
            return false;
        }
        // An item of a list is there since somebody put it there.
        if former.is_member()
            && !matches!(self.at.last(), Some(Segment::Field(_)) if former.children().next().is_some())
        {
            return true;
        }
        former.children().any(|(segment, below)| {
            let Some(value) = segment.step(live) else { return false };
            self.at.push(segment.clone());
            let said = self.says_something(below, value);
            self.at.pop();
            said
        })
    }
}

/// A JSON patch (RFC 6902) that removes `paths` from `live`, or nothing if the object is another one or has changed meanwhile:
/// the `uid` is tested (a mismatch answers 422), the `resourceVersion` is set to the one of `live` (a mismatch answers 409
/// Conflict). Positions of list items are those in `live`; operations are ordered so that they stay right while items go.
/// Paths that are not there are left out; empty when none is.
pub fn removal_patch(live: &Value, paths: &[Path]) -> Vec<Value> {
    let mut places: Vec<Vec<Place>> = paths.iter().filter_map(|path| resolve(live, path)).collect();
    places.sort();
    places.dedup();
    let mut kept: Vec<Vec<Place>> = Vec::with_capacity(places.len());
    for place in places {
        // Sorted, so that whatever stands above comes before.
        if !kept.iter().any(|above| place.starts_with(above)) {
            kept.push(place);
        }
    }
    if kept.is_empty() {
        return Vec::new();
    }
    let meta =
        |field: &str| live.pointer("/metadata").and_then(|m| m.get(field)).cloned().unwrap_or_default();
    let mut patch = vec![
        json!({"op": "test", "path": "/metadata/uid", "value": meta("uid")}),
        json!({"op": "replace", "path": "/metadata/resourceVersion", "value": meta("resourceVersion")}),
    ];
    patch.extend(kept.iter().rev().map(|place| {
        let pointer: String = place.iter().map(|p| format!("/{}", p.token())).collect();
        json!({"op": "remove", "path": pointer})
    }));
    patch
}

/// The object without `paths`, as [`removal_patch`] leaves it.
pub fn without(object: &Value, paths: &[Path]) -> Value {
    let mut left = object.clone();
    let mut places: Vec<Vec<Place>> = paths.iter().filter_map(|path| resolve(object, path)).collect();
    places.sort();
    places.dedup();
    // From behind, so that positions stay right; what stands below another one goes before it.
    for place in places.iter().rev() {
        let Some((last, above)) = place.split_last() else { continue };
        let pointer: String = above.iter().map(|p| format!("/{}", p.token())).collect();
        match (left.pointer_mut(&pointer), last) {
            (Some(Value::Object(fields)), Place::Name(name)) => drop(fields.remove(name)),
            (Some(Value::Array(items)), Place::Item(at)) if *at < items.len() => drop(items.remove(*at)),
            _ => {}
        }
    }
    left
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Place {
    Name(String),
    Item(usize),
}

impl Place {
    fn token(&self) -> String {
        match self {
            Place::Name(name) => name.replace('~', "~0").replace('/', "~1"),
            Place::Item(index) => index.to_string(),
        }
    }
}

impl Ord for Place {
    fn cmp(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Place::Name(a), Place::Name(b)) => a.cmp(b),
            (Place::Item(a), Place::Item(b)) => a.cmp(b),
            (Place::Name(_), Place::Item(_)) => Ordering::Less,
            (Place::Item(_), Place::Name(_)) => Ordering::Greater,
        }
    }
}

impl PartialOrd for Place {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

fn resolve(live: &Value, path: &Path) -> Option<Vec<Place>> {
    let mut value = live;
    let mut out = Vec::with_capacity(path.segments().len());
    for segment in path.segments() {
        out.push(match segment {
            Segment::Field(name) => Place::Name(name.clone()),
            _ => Place::Item(segment.position(value)?),
        });
        value = segment.step(value)?;
    }
    Some(out)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn path(keys: &[&str]) -> Path {
        Path(keys.iter().map(|k| Segment::decode(k).unwrap()).collect())
    }

    #[test]
    fn the_patch_removes_exactly_the_paths() {
        let live = json!({"metadata": {"uid": "u", "resourceVersion": "7", "annotations": {"a/b": "x", "c": "y"}},
            "spec": {"env": [{"name": "A"}, {"name": "B", "value": "1"}, {"name": "C"}, {"name": "D", "value": "2"}]}});
        let patch = removal_patch(
            &live,
            &[
                path(&["f:spec", "f:env", r#"k:{"name":"A"}"#]),
                path(&["f:spec", "f:env", r#"k:{"name":"D"}"#, "f:value"]),
                path(&["f:spec", "f:env", r#"k:{"name":"B"}"#]),
                path(&["f:spec", "f:env", r#"k:{"name":"B"}"#, "f:value"]),
                path(&["f:spec", "f:env", r#"k:{"name":"gone"}"#]),
                path(&["f:metadata", "f:annotations", "f:a/b"]),
            ],
        );
        let mut object = live.clone();
        json_patch_apply(&mut object, &patch);
        assert_eq!(
            object,
            json!({"metadata": {"uid": "u", "resourceVersion": "7", "annotations": {"c": "y"}},
            "spec": {"env": [{"name": "C"}, {"name": "D"}]}})
        );
        assert!(removal_patch(&live, &[path(&["f:none"])]).is_empty());
        let paths = [
            path(&["f:spec", "f:env", r#"k:{"name":"A"}"#]),
            path(&["f:spec", "f:env", r#"k:{"name":"D"}"#, "f:value"]),
            path(&["f:spec", "f:env", r#"k:{"name":"B"}"#]),
            path(&["f:spec", "f:env", r#"k:{"name":"B"}"#, "f:value"]),
            path(&["f:spec", "f:env", r#"k:{"name":"gone"}"#]),
            path(&["f:metadata", "f:annotations", "f:a/b"]),
        ];
        assert_eq!(without(&live, &paths), object);
    }

    /// Performs the removals of a patch; the API server does the whole in the control-plane tests.
    fn json_patch_apply(object: &mut Value, patch: &[Value]) {
        for operation in patch.iter().filter(|op| op["op"] == "remove") {
            let (parent, token) = operation["path"].as_str().unwrap().rsplit_once('/').unwrap();
            match object.pointer_mut(parent).unwrap() {
                Value::Array(items) => drop(items.remove(token.parse().unwrap())),
                Value::Object(fields) => {
                    fields.remove(&token.replace("~1", "/").replace("~0", "~")).unwrap();
                }
                _ => unreachable!(),
            }
        }
    }
}
