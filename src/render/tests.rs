#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
use super::*;
use crate::core::tree::memory::{MemTree, Node};

fn tree(files: &[(&str, &str)]) -> MemTree {
    MemTree::new(files.iter().map(|(p, c)| (*p, *c)))
}

fn map(name: &str) -> String {
    format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: \"{name}\"}}\n")
}

fn run(tree: MemTree, path: &str, options: &Options) -> Result<Rendered, RenderError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(render(Arc::new(tree), path, options, &builtin_scopes()))
}

fn plain() -> Options {
    Options { target_namespace: Some("shop".into()), ..Options::default() }
}

fn places(rendered: &Rendered) -> Vec<String> {
    rendered.objects.iter().map(|o| format!("{} {}", o.id(), o.origin)).collect()
}

fn error(files: &[(&str, &str)]) -> String {
    run(tree(files), "app", &plain()).unwrap_err().to_string()
}

#[test]
fn a_directory_is_read_recursively_and_lists_are_taken_apart() {
    let list = "apiVersion: v1\nkind: List\nitems:\n- apiVersion: v1\n  kind: Namespace\n  metadata: {name: l}\n- apiVersion: v1\n  kind: ConfigMapList\n  items:\n  - apiVersion: v1\n    kind: ConfigMap\n    metadata: {name: m}\n";
    let two = format!("# comment\n---\n{}---\n---\n{}", map("a"), map("b"));
    let rendered = run(
        tree(&[
            ("app/two.yaml", &two),
            ("app/sub/list.yml", list),
            ("app/sub/j.json", r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"j"}}"#),
            ("app/.hidden/x.yaml", "{"),
            ("app/.x.yaml", "{"),
            ("app/README.md", "{"),
            ("app/windlass.yaml", "spec: {}"),
            ("app/values.yaml", "image: x"),
            ("app/values-prod.yaml", "image: x"),
            ("app/component.yaml", "apiVersion: kustomize.config.k8s.io/v1alpha1\nkind: Component\n"),
            ("app/docker-compose.yaml", "services: {}"),
            ("app/empty.yaml", "# nothing\n"),
            ("other/x.yaml", "{"),
        ]),
        "app",
        &plain(),
    )
    .unwrap();
    assert_eq!(
        places(&rendered),
        [
            "ConfigMap shop/j app/sub/j.json:1",
            "Namespace l app/sub/list.yml:4",
            "ConfigMap shop/m app/sub/list.yml:7",
            "ConfigMap shop/a app/two.yaml:3",
            "ConfigMap shop/b app/two.yaml:8",
        ]
    );
}

#[test]
fn what_should_be_a_manifest_and_is_none_is_an_error_with_file_and_line() {
    let large = "x".repeat(9 << 20);
    let generated = "apiVersion: v1\nkind: Pod\nmetadata: {generateName: x-}\n";
    let bomb = {
        let mut text = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x]\n");
        for level in 1..=10 {
            let row = vec![format!("*a{}", level - 1); 9].join(", ");
            text.push_str(&format!("a{level}: &a{level} [{row}]\n"));
        }
        text
    };
    for (content, want) in [
        ("a: 1\n", "app/x.yaml:1: has neither apiVersion nor kind"),
        ("\n\nkind: Pod\nmetadata: {name: x}\n", "app/x.yaml:3: apiVersion is missing or not a string"),
        ("apiVersion: v1\nmetadata: {name: x}\n", "app/x.yaml:1: kind is missing"),
        ("apiVersion: v1\nkind: Pod\n", "app/x.yaml:1: metadata.name is missing"),
        ("apiVersion: v1\nkind: Pod\nmetadata: {name: 5}\n", "app/x.yaml:1: metadata.name is missing or not"),
        (generated, "app/x.yaml:1: metadata.generateName makes"),
        ("- a\n", "app/x.yaml:1: a manifest is a mapping"),
        ("apiVersion: v1\nkind: List\nitems:\n- 1\n", "app/x.yaml:4: a manifest is a mapping"),
        ("a: 1\nb: [\n", "app/x.yaml:2:4:"),
        ("a: 1\na: 2\n", "app/x.yaml:2:1: the key \"a\" stands here a second time; the first is in line 1"),
        (
            "version https://git-lfs.github.com/spec/v1\noid sha256:0\n",
            "app/x.yaml:1: is a pointer of Git LFS",
        ),
        (&large, "app/x.yaml: 9437184 bytes is above the limit of 8388608"),
        (&bomb, "app/x.yaml:6:30: aliases expand to too much"),
    ] {
        let error = error(&[("app/x.yaml", content)]);
        assert!(error.starts_with(want), "{want}\n{error}");
    }
    let error = run(MemTree::new([("app/x.yaml", b"a: 1\nb: \xff".to_vec())]), "app", &plain()).unwrap_err();
    assert_eq!(error.to_string(), "app/x.yaml:2: is not UTF-8 text; save the file as UTF-8");
}

#[test]
fn directories_that_cannot_be_rendered_say_why() {
    assert_eq!(error(&[("b/x.yaml", "")]), "app: no such directory in the repository");
    assert_eq!(error(&[("app", "")]), "app: is a file; give the directory that it stands in");
    assert_eq!(
        error(&[("app/README.md", "")]),
        "app: holds no manifest (files that end in .yaml, .yml or .json)"
    );
    assert_eq!(error(&[("app/values.yaml", "a: 1")]), "app: holds no manifest; left out: app/values.yaml");
    assert!(error(&[("app/c/Chart.yaml", "name: c")]).starts_with("app/c: is a Helm chart"));
    let with = tree(&[("app/x.yaml", &map("x"))]).with("app/m", Node::Submodule("c0ffee".into()));
    assert!(run(with, "app", &plain()).unwrap_err().to_string().starts_with("app/m: is a Git submodule"));
    let out = run(tree(&[("app/x.yaml", "")]), "app/../..", &plain()).unwrap_err();
    assert_eq!(out.to_string(), "app/../..: leads out of the repository");
    let asked = Options { kustomize: Some(true), ..plain() };
    let error = run(tree(&[("app/x.yaml", &map("x"))]), "app", &asked).unwrap_err();
    assert_eq!(error, RenderError::NoKustomization("app".into()));
}

#[test]
fn links_are_followed_inside_and_refused_outside() {
    let link = |target: &str| {
        tree(&[("app/x.yaml", &map("x")), ("shared/y.yaml", &map("y"))])
            .with("app/link", Node::Symlink(target.into()))
    };
    let rendered = run(link("../shared"), "app", &plain()).unwrap();
    assert_eq!(places(&rendered), ["ConfigMap shop/y app/link/y.yaml:1", "ConfigMap shop/x app/x.yaml:1"]);
    let file = link("../shared").with("app/z.yaml", Node::Symlink("link/y.yaml".into()));
    assert_eq!(run(file, "app", &plain()).unwrap().objects.len(), 3);
    for (target, want) in [
        ("/etc", "app/link: the link to \"/etc\" leads out of the repository"),
        ("../../x", "app/link: the link to \"../../x\" leads out of the repository"),
        ("nothing", "app/link: the link to \"nothing\" points to nothing"),
        ("link", "app/link: the link to \"link\" goes round in circles"),
        ("../app", "app/link: the link to \"app\" goes round in circles"),
        ("..", "app/link/app: the link to \"app\" goes round in circles"),
    ] {
        assert_eq!(run(link(target), "app", &plain()).unwrap_err().to_string(), want, "{target}");
    }
}

#[test]
fn limits_hold_over_all_files() {
    let files: Vec<_> = (0..20).map(|i| (format!("app/{i}.yaml"), map(&format!("m{i}")))).collect();
    let with = |limits: Limits| {
        let options = Options { limits, ..plain() };
        run(MemTree::new(files.clone()), "app", &options).map(|r| r.objects.len()).map_err(|e| e.to_string())
    };
    let limits = Limits::default();
    assert_eq!(with(limits.clone()), Ok(20));
    let error = with(Limits { objects: 19, ..limits.clone() }).unwrap_err();
    assert!(error.contains("objects above the limit of 19"), "{error}");
    let error = with(Limits { files: 19, ..limits.clone() }).unwrap_err();
    assert!(error.contains("files above the limit of 19"), "{error}");
    let error = with(Limits { total_bytes: 500, ..limits }).unwrap_err();
    assert!(error.contains("bytes of files above the limit of 500"), "{error}");
}

#[test]
fn variables_are_left_alone_until_asked_for() {
    let text = format!("{}data: {{a: '${{X}}'}}\n", map("${NAME:-x}"));
    let text = text.replace("{name: \"${NAME:-x}\"}", "\n  name: ${NAME:-x}");
    let files = tree(&[("app/x.yaml", &text)]);
    assert_eq!(run(files.clone(), "app", &plain()).unwrap().objects[0].name(), "${NAME:-x}");
    let values = [("X".to_owned(), "7".to_owned())].into();
    let options = Options { substitute: Some(Substitutions { values }), ..plain() };
    let object = run(files.clone(), "app", &options).unwrap().objects.remove(0);
    assert_eq!((object.name(), &object.fields()["data"]["a"]), ("x", &Value::from("7")));
    let none = Options { substitute: Some(Substitutions::default()), ..plain() };
    let error = run(files, "app", &none).unwrap_err().to_string();
    assert!(
        error.starts_with("app/x.yaml:5: ConfigMap ${NAME:-x}: data.a names ${X}, which has no value"),
        "{error}"
    );
}

/// A Delivery's task moves between threads.
#[test]
fn rendering_can_move_between_threads() {
    fn is_send<T: Send>(_: &T) {}
    let (options, scopes) = (plain(), builtin_scopes());
    is_send(&render(Arc::new(MemTree::default()), "", &options, &scopes));
}

mod identity {
    use super::*;

    fn paths(tree: &MemTree, path: &str) -> Vec<String> {
        inputs(tree, path).unwrap().into_iter().map(|(path, _)| path).collect()
    }

    #[test]
    fn inputs_are_the_directory_and_what_it_names() {
        let files = tree(&[
            ("app/x.yaml", "a"),
            ("app/sub/kustomization.yaml", "resources: [../../base]"),
            (
                "over/kustomization.yaml",
                "resources: [../base]\ncomponents: [../parts/c]\npatches: [{path: p.yaml}]",
            ),
            ("over/p.yaml", "p"),
            ("base/kustomization.yml", "resources: [d.yaml, inner]"),
            ("base/d.yaml", "d"),
            ("base/inner/Kustomization", ""),
            ("parts/c/kustomization.yaml", "kind: Component"),
            ("base/unnamed/kustomization.yaml", "resources: [../../missing]"),
            ("lone/x.yaml", "x"),
            ("odd/kustomization.yaml", "resources: [../missing]"),
            ("broken/kustomization.yaml", "{"),
        ])
        .with("linked/l", Node::Symlink("../lone/x.yaml".into()))
        .with("linked/d", Node::Symlink("../over".into()))
        .with("out/l", Node::Symlink("/etc".into()));
        assert_eq!(paths(&files, "lone"), ["lone"]);
        assert_eq!(paths(&files, "app"), ["app", "base"]);
        assert_eq!(paths(&files, "over"), ["base", "over", "parts/c"]);
        assert_eq!(paths(&files, "linked"), ["base", "linked", "lone/x.yaml", "over", "parts/c"]);
        for whole in ["odd", "broken", "out", ""] {
            assert_eq!(paths(&files, whole), [""], "{whole}");
        }
        assert_eq!(inputs(&files, "nothing"), Err(RenderError::NoSuchDirectory("nothing".into())));
        assert_eq!(inputs(&files, "lone/x.yaml"), Err(RenderError::NotADirectory("lone/x.yaml".into())));

        let before = inputs(&files, "over").unwrap();
        let unrelated = files.clone().with("lone/x.yaml", Node::File(b"other".to_vec()));
        assert_eq!(inputs(&unrelated, "over").unwrap(), before);
        let related = files.with("base/d.yaml", Node::File(b"other".to_vec()));
        assert_ne!(inputs(&related, "over").unwrap(), before);
    }
}

mod references {
    use super::*;

    /// What is wrong with a kustomization is known before the binary is asked, so none is needed here.
    fn refusal(kustomization: &str) -> String {
        let files = tree(&[
            ("app/kustomization.yaml", kustomization),
            ("app/d.yaml", &map("d")),
            ("app/broken.yaml", "a: 1\n b: 2"),
            ("app/lfs.bin", "version https://git-lfs.github.com/spec/v1\n"),
            ("app/gen.yaml", "apiVersion: builtin\nkind: ConfigMapGenerator\nmetadata: {name: g}\nfiles:\n- https://example.com/x\n"),
            ("app/helm.yaml", "kind: HelmChartInflationGenerator\n"),
            ("other/p.yaml", &map("p")),
            ("empty/x.yaml", ""),
        ])
        .with("app/out.yaml", Node::Symlink("../../x.yaml".into()))
        .with("app/module", Node::Submodule("c0ffee".into()));
        let options = Options { kustomize_binary: "/nowhere/kustomize".into(), ..plain() };
        run(files, "app", &options).unwrap_err().to_string()
    }

    #[test]
    fn a_reference_that_cannot_be_says_where_it_stands() {
        let at = |line: usize| format!("app/kustomization.yaml:{line}: ");
        for (text, line, want) in [
            (
                "resources:\n- d.yaml\n- https://example.com/x.yaml",
                3,
                "resources names \"https://example.com/x.yaml\", which is remote",
            ),
            ("resources: [github.com/acme/base?ref=v1]", 1, "which is remote"),
            ("resources: ['git@example.com:acme/base.git']", 1, "which is remote"),
            ("resources: ['git::ssh://example.com/x']", 1, "which is remote"),
            ("bases:\n- HTTPS://example.com/x", 2, "which is remote"),
            ("components: [../../x]", 1, "leads out of the repository"),
            ("resources:\n- /etc/passwd", 2, "leads out of the repository"),
            ("resources: [none.yaml]", 1, "which does not exist"),
            ("resources: [../empty]", 1, "a directory without a kustomization.yaml"),
            ("resources: [../other/p.yaml]", 1, "a file outside of the kustomization's directory"),
            ("patches:\n- path: ../other/p.yaml", 2, "path names \"../other/p.yaml\", a file outside"),
            (
                "configMapGenerator:\n- name: x\n  files:\n  - a=../../../etc/passwd",
                4,
                "leads out of the repository",
            ),
            ("configMapGenerator:\n- name: x\n  envs: [http://example.com/x]", 3, "which is remote"),
            ("secretGenerator:\n- {name: x, env: /etc/passwd}", 2, "leads out of the repository"),
            ("crds:\n- https://example.com/x", 2, "which is remote"),
            ("openapi:\n  path: https://example.com/x", 2, "which is remote"),
            ("replacements:\n- path: https://example.com/x", 2, "which is remote"),
            ("helmCharts:\n- name: x", 2, "helmCharts is not supported"),
            (
                "generators:\n- |\n  kind: SecretGenerator\n  files: [https://example.com/x]",
                2,
                "which is remote",
            ),
        ] {
            let error = refusal(text);
            let error = error.strip_prefix(&at(line)).unwrap_or_else(|| panic!("{text}\n{error}"));
            assert!(error.contains(want), "{text}\n{error}");
        }
        for (text, want) in [
            (
                "generators: [gen.yaml]",
                "app/gen.yaml:5: files names \"https://example.com/x\", which is remote",
            ),
            ("generators: [helm.yaml]", "app/helm.yaml:1: HelmChartInflationGenerator is not supported"),
            ("resources: [broken.yaml]", "app/broken.yaml:2:"),
            (
                "resources: [out.yaml]",
                "app/out.yaml: the link to \"../../x.yaml\" leads out of the repository",
            ),
            ("resources: [module]", "app/module: is a Git submodule"),
            ("configMapGenerator:\n- name: x\n  files: [lfs.bin]", "app/lfs.bin:1: is a pointer of Git LFS"),
            ("resources: [d.yaml", "app/kustomization.yaml:"),
            ("resources: [d.yaml]", "app: needs kustomize, and \"/nowhere/kustomize\" does not start"),
        ] {
            let error = refusal(text);
            assert!(error.starts_with(want), "{text}\n{error}");
        }
    }
}
