//! Commands that need no cluster, and what the others say when there is none.

use crate::support::cli::windlass_with;
use std::fs;
use std::path::Path;

const NOWHERE: &str = "/does/not/exist";

#[test]
fn a_rendered_bundle_reads_as_it_was_written() {
    let disk = tempfile::tempdir().unwrap();
    let traps = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: traps}\ndata:\n  a: \"on\"\n  b: \"0644\"\n  c: \"1e3\"\n  \
                 d: \"null\"\n  e: \"~\"\n  f: \"0x1F\"\n  g: \"y\"\n  h: \"1.0\"\n  i: \" x \"\n  j: \"a: b # c\"\n  k: \"\"\n  \
                 l: \"line\\nline\\n\"\n  m: \"- x\"\n  n: \"'\\\"\"\n  o: \"2001-01-01\"\n  p: \"\\ttab\"\n  q: \"1_000\"\n  r: \"<<\"\n  \
                 s: \"=\"\n  t: \"12:30:45\"\n  u: \"%x\"\n  v: \"é\\u0000\"\n  w: \"-.inf\"\n  \"yes\": \"no\"\n  \"1\": \"2\"\n  \
                 x: \"trailing \\n\"\n  z: |\n    #!/bin/sh\n      indented\n\n    end\n";
    fs::write(disk.path().join("traps.yaml"), traps).unwrap();
    let dir = disk.path().to_str().unwrap();
    let json = windlass_with(Path::new(NOWHERE), &["render", dir, "-n", "shop", "-o", "json"]);
    assert_eq!(json.code, 0, "{json:?}");
    let yaml = windlass_with(Path::new(NOWHERE), &["render", dir, "-n", "shop"]);
    assert_eq!(yaml.code, 0, "{yaml:?}");
    assert!(yaml.out.starts_with("---\n# traps.yaml:1\n"), "{yaml:?}");
    let again = tempfile::tempdir().unwrap();
    fs::write(again.path().join("all.yaml"), &yaml.out).unwrap();
    let second = windlass_with(Path::new(NOWHERE), &["render", again.path().to_str().unwrap(), "-o", "json"]);
    assert_eq!(second.out, json.out, "{}", yaml.out);
    assert!(json.out.contains("\"namespace\": \"shop\""), "{json:?}");
}

#[test]
fn render_obeys_windlass_yaml_and_set_and_leaves_secrets_out() {
    let disk = tempfile::tempdir().unwrap();
    let dir = disk.path().join("app");
    fs::create_dir(&dir).unwrap();
    fs::write(
        dir.join("all.yaml"),
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndata: {region: \"${REGION}\", tier: \"${TIER:-free}\"}\n---\n\
         apiVersion: v1\nkind: Secret\nmetadata: {name: a}\nstringData: {password: hunter2}\n",
    )
    .unwrap();
    fs::write(dir.join("windlass.yaml"), "substitute: {values: {REGION: eu}}\n").unwrap();
    let dir = dir.to_str().unwrap();
    let render = |more: &[&str]| windlass_with(Path::new(NOWHERE), &[&["render", dir], more].concat());
    let plain = render(&[]);
    assert_eq!(plain.code, 0, "{plain:?}");
    assert!(plain.out.contains("region: eu") && plain.out.contains("tier: free"), "{plain:?}");
    assert!(plain.out.contains("<redacted>") && !plain.out.contains("aHVudGVyMg"), "{plain:?}");
    assert!(plain.err.contains("--show-secrets"), "{plain:?}");
    let set = render(&["--set", "REGION=us", "--set", "TIER=gold", "--show-secrets"]);
    assert!(set.out.contains("region: us") && set.out.contains("tier: gold"), "{set:?}");
    assert!(set.out.contains("aHVudGVyMg=="), "{set:?}");
    fs::write(Path::new(dir).join("windlass.yaml"), "substitute: {}\n").unwrap();
    let unset = render(&[]);
    assert_eq!(unset.code, 2);
    assert!(unset.err.contains("REGION") && unset.err.contains("all.yaml:4"), "{unset:?}");
    fs::write(Path::new(dir).join("windlass.yaml"), "serviceAccountName: admin\n").unwrap();
    assert!(render(&[]).err.contains("what a tenant may do"));
}

#[test]
fn without_a_cluster_each_command_says_so_and_exits_2() {
    let table: [&[&str]; 9] = [
        &["status"],
        &["drift"],
        &["history", "a"],
        &["diff", "."],
        &["sync", "a"],
        &["suspend", "a"],
        &["rollback", "a"],
        &["release", "a"],
        &["uninstall", "--yes"],
    ];
    for arguments in table {
        let answer = windlass_with(Path::new(NOWHERE), arguments);
        assert_eq!(answer.code, 2, "{arguments:?}: {answer:?}");
        assert!(answer.err.contains("no cluster is configured"), "{arguments:?}: {answer:?}");
        assert_eq!(answer.out, "", "{arguments:?}");
    }
}

#[test]
fn completions_are_printed_for_each_shell() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let answer = windlass_with(Path::new(NOWHERE), &["completion", shell]);
        assert_eq!(answer.code, 0, "{shell}: {answer:?}");
        assert!(answer.out.contains("rollback"), "{shell}");
    }
    assert_eq!(windlass_with(Path::new(NOWHERE), &["completion", "cobol"]).code, 2);
}
