//! A file that should be a manifest and is none is an error with file and line, and quotes nothing that could be secret.

use crate::support::rendering::{options, run};
use windlass::core::bundle::Bundle;
use windlass::core::tree::memory::{MemTree, Node};

fn refusal(tree: MemTree) -> String {
    match run(tree, "app", &options()) {
        Err(error) => error.to_string(),
        Ok(rendered) => Bundle::new(rendered.objects).unwrap_err().to_string(),
    }
}

#[test]
fn each_mistake_names_its_file_and_line() {
    let bomb = (1..=10).fold(
        "a0: &a0 [s3cret, s3cret, s3cret, s3cret, s3cret, s3cret, s3cret, s3cret]\n".to_owned(),
        |text, n| {
            let row = vec![format!("*a{}", n - 1); 8].join(", ");
            format!("{text}a{n}: &a{n} [{row}]\n")
        },
    );
    let object = "apiVersion: v1\nkind: Secret\nmetadata: {name: a}\n";
    let huge = "x".repeat(16 << 20);
    for (content, want) in [
        (format!("{object}stringData:\n  password: \"s3cret\n"), "app/x.yaml:"),
        (format!("{object}stringData:\n  a: s3cret: s3cret\n"), "app/x.yaml:5:"),
        (format!("{object}stringData:\n  a: 1\n  a: s3cret\n"), "app/x.yaml:6:3: the key \"a\""),
        (
            format!("{object}---\n{object}"),
            "Secret shop/a is defined twice: in app/x.yaml:1 and in app/x.yaml:5",
        ),
        (
            format!("{object}---\nkind: Secret\nmetadata: {{name: b}}\n"),
            "app/x.yaml:5: apiVersion is missing",
        ),
        (format!("{object}---\npassword: s3cret\n"), "app/x.yaml:5: has neither apiVersion nor kind"),
        (bomb, "app/x.yaml:7:"),
        (huge, "app/x.yaml: 16777216 bytes is above the limit of 8388608"),
        ("{{ if .Values.x }}\na: s3cret\n".into(), "app/x.yaml:1:"),
    ] {
        let error = refusal(MemTree::new([("app/x.yaml", content)]));
        assert!(error.starts_with(want), "{want}\n{error}");
        assert!(!error.contains("s3cret"), "{error}");
    }
}

#[test]
fn what_is_not_in_the_repository_is_named() {
    let tree = || MemTree::new([("app/README.md", "")]);
    for (node, want) in [
        (
            Node::Symlink("../../etc/passwd".into()),
            "app/x.yaml: the link to \"../../etc/passwd\" leads out of the repository",
        ),
        (Node::Submodule("c0ffee".into()), "app/x.yaml: is a Git submodule"),
        (
            Node::File(b"version https://git-lfs.github.com/spec/v1\n".to_vec()),
            "app/x.yaml:1: is a pointer of Git LFS",
        ),
        (Node::File(b"a: \xff\n".to_vec()), "app/x.yaml:1: is not UTF-8 text"),
    ] {
        let error = refusal(tree().with("app/x.yaml", node));
        assert!(error.starts_with(want), "{want}\n{error}");
    }
}
