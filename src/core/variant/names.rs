//! Names of candidate objects: valid, and nobody else's.

use crate::core::bundle::Bundle;
use crate::core::digest;
use crate::core::manifest::ObjectId;
use std::collections::BTreeSet;

/// Longest label value, and longest name of a Service.
const LABEL: usize = 63;

/// How many digits of a digest keep a name apart that had to be cut.
const DIGITS: usize = 8;

/// The longest name of a kind. A Deployment's could be longer, but it is the value of a label too. The pods of a
/// StatefulSet carry its name with `-` and ten digits as the value of a label.
fn limit(kind: &str) -> usize {
    match kind {
        "StatefulSet" => LABEL - 11,
        "Deployment" | "Service" => LABEL,
        _ => 253,
    }
}

/// A name with a suffix. What is too long is cut, and a digest of the whole takes its place, so that names that differ only
/// in their ends stay apart.
fn suffixed(name: &str, suffix: &str, salt: Option<usize>, limit: usize) -> String {
    if salt.is_none() && name.len() + suffix.len() <= limit {
        return format!("{name}{suffix}");
    }
    let whole = digest::of_bytes(format!("{name}/{}", salt.unwrap_or_default()).as_bytes());
    let room = limit.saturating_sub(suffix.len() + DIGITS + 1);
    // Names are ASCII; others are refused by the API server, and are cut between letters here.
    let head: String = name.chars().take(room).filter(char::is_ascii).collect();
    format!("{}-{}{suffix}", head.trim_end_matches(['-', '.']), &whole[..DIGITS])
}

/// Gives out names that neither bundle has.
pub(super) struct Names {
    suffix: &'static str,
    taken: BTreeSet<ObjectId>,
}

impl Names {
    /// Where these bundles have taken theirs.
    pub(super) fn new(suffix: &'static str, bundles: [&Bundle; 2]) -> Self {
        let taken = bundles.iter().flat_map(|bundle| bundle.objects()).map(|object| object.id()).collect();
        Names { suffix, taken }
    }

    /// The name of the candidate's copy of an object.
    pub(super) fn fresh(&mut self, id: &ObjectId) -> String {
        self.named(id, "")
    }

    /// The name of one more copy of an object.
    pub(super) fn named(&mut self, id: &ObjectId, infix: &str) -> String {
        let suffix = format!("{infix}{}", self.suffix);
        let mut salt = None;
        loop {
            let name = suffixed(&id.name, &suffix, salt, limit(&id.kind));
            let copy = ObjectId { name: name.clone(), ..id.clone() };
            if self.taken.insert(copy) {
                return name;
            }
            salt = Some(salt.map_or(1, |n| n + 1));
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn id(kind: &str, name: &str) -> ObjectId {
        ObjectId { group: String::new(), kind: kind.into(), namespace: "shop".into(), name: name.into() }
    }

    fn names() -> Names {
        Names { suffix: "-canary", taken: BTreeSet::new() }
    }

    #[test]
    fn a_name_that_is_taken_is_given_to_nobody_else() {
        let mut names = names();
        assert_eq!(names.fresh(&id("Service", "web")), "web-canary");
        let second = names.fresh(&id("Service", "web"));
        assert_ne!(second, "web-canary");
        assert!(second.starts_with("web-") && second.ends_with("-canary"), "{second}");
        assert_eq!(names.fresh(&id("ConfigMap", "web")), "web-canary");
        assert_eq!(names.named(&id("ConfigMap", "web"), "-peers"), "web-peers-canary");
    }

    proptest! {
        #[test]
        fn names_are_valid_and_apart(
            a in "[a-z]([-a-z0-9]{0,61}[a-z0-9])?",
            b in "[a-z]([-a-z0-9]{0,61}[a-z0-9])?",
        ) {
            for kind in ["Deployment", "StatefulSet", "Service", "ConfigMap"] {
                let mut names = names();
                let (one, two) = (names.fresh(&id(kind, &a)), names.fresh(&id(kind, &b)));
                prop_assert_ne!(&one, &two);
                for name in [one, two] {
                    prop_assert!(name.len() <= limit(kind), "{}", name);
                    prop_assert!(name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-'));
                    prop_assert!(name.starts_with(|c: char| c.is_ascii_lowercase()));
                    prop_assert!(name.ends_with("-canary"));
                }
            }
        }
    }
}
