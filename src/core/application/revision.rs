//! What an Application's spec becomes, as a revision: an id that its content gives it, and a tree of files that is rendered like a
//! directory of a repository.

use super::Expansion;
use crate::core::digest::{hex, write_canonical};
use crate::core::tree::memory::MemTree;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// The file of the tree. Errors about an object name it.
const FILE: &str = "application.json";

/// Digits of the id in the name of the object that keeps a revision: enough to tell those of one Application apart.
const SHORT: usize = 10;

/// What an Application's spec becomes.
#[derive(Clone, Debug, PartialEq)]
pub struct Revision {
    /// 40 hexadecimal digits: a digest of the objects, so that the same objects are the same revision, whatever daemon or spec
    /// made them.
    pub id: String,
    objects: Value,
}

/// The revision that an expansion is.
pub fn revision(expansion: &Expansion) -> Revision {
    Revision::of(expansion.objects.iter().map(|object| object.to_value()).collect())
}

/// The name of the object that keeps a revision of an Application.
pub fn revision_name(application: &str, id: &str) -> String {
    format!("{application}-{}", id.get(..SHORT).unwrap_or(id))
}

impl Revision {
    fn of(objects: Value) -> Self {
        let mut bytes = Vec::new();
        write_canonical(&objects, &mut bytes);
        Revision { id: hex(&Sha256::digest(&bytes)[..20]), objects }
    }

    /// What is kept of it: the objects, and the spec that they came from, for people.
    pub fn data(&self, spec: &Value) -> Value {
        json!({"spec": spec, "objects": self.objects})
    }

    /// Reads it from what was kept. `None` where there are no objects.
    pub fn read(data: &Value) -> Option<Self> {
        data["objects"].is_array().then(|| Revision::of(data["objects"].clone()))
    }

    /// Its objects as files.
    pub fn tree(&self) -> MemTree {
        let mut text = Vec::new();
        write_canonical(&json!({"apiVersion": "v1", "kind": "List", "items": self.objects}), &mut text);
        MemTree::new([(FILE, text)])
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::core::tree::Tree;

    #[test]
    fn a_revision_is_its_content_and_is_read_as_it_was_kept() {
        let objects = json!([{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"k": "${V}"}}]);
        let one = Revision::of(objects);
        assert_eq!(one.id.len(), 40);
        let kept = one.data(&json!({"image": "a:1"}));
        assert_eq!(Revision::read(&kept), Some(one.clone()));
        // Keys in another order, as an API server may answer them.
        let text = r#"{"objects":[{"data":{"k":"${V}"},"kind":"ConfigMap","metadata":{"name":"a"},"apiVersion":"v1"}]}"#;
        let again = Revision::read(&serde_json::from_str(text).unwrap()).unwrap();
        assert_eq!(again.id, one.id);
        let id = |revision: &Revision| revision.tree().entry("").unwrap().unwrap().id;
        assert_eq!(id(&again), id(&one), "so are the inputs of what is rendered from it");
        assert_eq!(Revision::read(&json!({"spec": {}})), None);
        assert_eq!(revision_name("web", &one.id), format!("web-{}", &one.id[..10]));
    }
}
