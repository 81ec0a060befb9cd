//! `windlass tree`: what a Delivery or an Application has, what that owns, and how it is.

use super::age::since;
use super::table::{head, lines, shortened, tame};
use super::{BAD, FAINT, GOOD, STRONG, UNSURE, paint};
use crate::api::names;
use crate::core::health::Status;
use crate::core::resource_tree::{Happened, Node, Tree};
use anstyle::Style;
use jiff::Timestamp;

/// Characters of a message that are shown where the table is not to be wide.
const MESSAGE: usize = 80;

fn style(status: Status) -> Style {
    match status {
        Status::Healthy | Status::Suspended => GOOD,
        Status::Degraded | Status::Missing => BAD,
        Status::Progressing | Status::Unknown => UNSURE,
    }
}

/// `Pod web-1`, with the namespace where it is another than that of what it stands below.
fn name(node: &Node, namespace: &str) -> String {
    let mut id = node.id();
    if id.namespace == namespace {
        id.namespace.clear();
    }
    // Whoever asks Windlass for a tree knows whose Delivery is meant; the same kind of another group has that with it.
    if id.group == names::GROUP {
        id.group.clear();
    }
    let candidate = if node.candidate { " (candidate)" } else { "" };
    tame(&format!("{id}{candidate}"))
}

/// The tree as a table.
pub fn text(tree: &Tree, wide: bool, now: Timestamp) -> String {
    let mut rows = vec![head(match wide {
        true => &["OBJECT", "APIVERSION", "STATUS", "AGE", "MESSAGE"],
        false => &["OBJECT", "STATUS", "AGE", "MESSAGE"],
    })];
    let mut hidden = 0;
    row(&tree.root, "", "", wide, now, &mut rows);
    below(&tree.root, "", wide, now, &mut rows, &mut hidden);
    let mut out = lines(&rows);
    if hidden > 0 {
        let what = if hidden == 1 { "1 ReplicaSet" } else { &format!("{hidden} ReplicaSets") };
        out.push(paint(FAINT, &format!("{what} of earlier revisions, without pods: -o wide shows them")));
    }
    out.extend(tree.unseen.iter().map(|why| paint(UNSURE, &format!("not shown: {}", tame(why)))));
    out.join("\n") + "\n"
}

fn below(
    node: &Node,
    indent: &str,
    wide: bool,
    now: Timestamp,
    rows: &mut Vec<Vec<String>>,
    hidden: &mut usize,
) {
    let shown: Vec<&Node> = node.children.iter().filter(|child| wide || !child.empty).collect();
    *hidden += node.children.len() - shown.len();
    for (at, child) in shown.iter().enumerate() {
        let last = at + 1 == shown.len();
        let (branch, further) = if last { ("└─ ", "   ") } else { ("├─ ", "│  ") };
        row(child, &node.namespace, &format!("{indent}{branch}"), wide, now, rows);
        below(child, &format!("{indent}{further}"), wide, now, rows, hidden);
    }
}

fn row(node: &Node, above: &str, indent: &str, wide: bool, now: Timestamp, rows: &mut Vec<Vec<String>>) {
    let object = match indent {
        "" => paint(STRONG, &name(node, "")),
        _ => format!("{}{}", paint(FAINT, indent), name(node, above)),
    };
    let age = node.created.as_ref().map_or_else(|| "-".to_owned(), |created| since(created, now));
    let status = paint(style(node.status), &node.status.to_string());
    rows.push(match wide {
        true => vec![object, node.api_version.clone(), status, age, tame(&node.message)],
        false => vec![object, status, age, shortened(&tame(&node.message), MESSAGE)],
    });
}

/// What happened to one object, as a line.
pub fn change(happened: Happened, node: &Node) -> String {
    let (word, style_of) = match happened {
        Happened::Added => ("ADDED", GOOD),
        Happened::Modified => ("MODIFIED", UNSURE),
        Happened::Deleted => ("DELETED", BAD),
    };
    let status = match happened {
        Happened::Deleted => String::new(),
        _ => format!("   {}   {}", paint(style(node.status), &node.status.to_string()), tame(&node.message)),
    };
    format!("{}   {}{status}\n", paint(style_of, &format!("{word:<8}")), name(node, ""))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn node(kind: &str, name: &str, status: Status, message: &str, children: Vec<Node>) -> Node {
        Node {
            api_version: "v1".into(),
            kind: kind.into(),
            namespace: "shop".into(),
            name: name.into(),
            status,
            message: message.into(),
            created: Some("2026-01-01T00:00:00Z".into()),
            candidate: name.ends_with("-canary"),
            empty: name == "web-old",
            children,
        }
    }

    fn plain(text: &str) -> String {
        anstream::adapter::strip_str(text).to_string()
    }

    #[test]
    fn a_tree_reads_as_one() {
        let pods = vec![node("Pod", "web-1-x", Status::Degraded, "crashes\u{1b}[2J", vec![])];
        let sets = vec![
            node("ReplicaSet", "web-1", Status::Progressing, "0 of 1 pod available", pods),
            node("ReplicaSet", "web-old", Status::Healthy, "is scaled to zero", vec![]),
        ];
        let mut claim = node("PersistentVolume", "data", Status::Missing, "is not in the cluster", vec![]);
        (claim.namespace, claim.created) = (String::new(), None);
        let mut foreign = node("Delivery", "parcel", Status::Healthy, "is there", vec![]);
        foreign.api_version = "post.example.com/v1".into();
        let children = vec![
            node("Deployment", "web", Status::Progressing, &"x".repeat(100), sets),
            node("Deployment", "web-canary", Status::Healthy, "1 of 1", vec![]),
            claim,
            foreign,
        ];
        let mut root = node("Delivery", "shop", Status::Suspended, "is suspended", children);
        (root.namespace, root.api_version) = ("team".into(), "windlass.dev/v1alpha1".into());
        let unseen = vec!["EndpointSlice in namespace shop: Ada may not list endpointslices".to_owned()];
        let tree = Tree { root, unseen };
        let now = "2026-01-01T00:01:05Z".parse().unwrap();
        insta::assert_snapshot!(plain(&text(&tree, false, now)), @r"
        OBJECT                                      STATUS        AGE   MESSAGE
        Delivery team/shop                          Suspended     65s   is suspended
        ├─ Deployment shop/web                      Progressing   65s   xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx…
        │  └─ ReplicaSet web-1                      Progressing   65s   0 of 1 pod available
        │     └─ Pod web-1-x                        Degraded      65s   crashes [2J
        ├─ Deployment shop/web-canary (candidate)   Healthy       65s   1 of 1
        ├─ PersistentVolume data                    Missing       -     is not in the cluster
        └─ Delivery.post.example.com shop/parcel    Healthy       65s   is there
        1 ReplicaSet of earlier revisions, without pods: -o wide shows them
        not shown: EndpointSlice in namespace shop: Ada may not list endpointslices
        ");
        let wide = plain(&text(&tree, true, now));
        assert!(wide.contains("ReplicaSet web-old") && wide.contains(&"x".repeat(100)), "{wide}");
        assert!(wide.contains("APIVERSION") && !wide.contains("-o wide shows"), "{wide}");
        let pod = &tree.root.children[0].children[0].children[0];
        assert_eq!(
            plain(&change(Happened::Modified, pod)),
            "MODIFIED   Pod shop/web-1-x   Degraded   crashes [2J\n"
        );
        assert_eq!(plain(&change(Happened::Deleted, pod)), "DELETED    Pod shop/web-1-x\n");
        assert_eq!(
            plain(&change(Happened::Modified, &tree.root)),
            "MODIFIED   Delivery team/shop   Suspended   is suspended\n"
        );
    }
}
