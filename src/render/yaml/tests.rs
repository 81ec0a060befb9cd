#![allow(clippy::unwrap_used)]
use super::*;
use serde_json::json;

fn read(text: &str) -> Result<Vec<Document>, YamlError> {
    parse(text, Keep::Variables, &Limits::default())
}

fn one(text: &str) -> Value {
    let mut documents = read(text).unwrap();
    assert_eq!(documents.len(), 1, "{text}");
    documents.remove(0).value
}

#[test]
fn scalars_mean_what_kubectl_takes_them_for() {
    for (text, want) in [
        ("0644", json!(420)),
        ("0o644", json!(420)),
        ("0x1F", json!(31)),
        ("0b11", json!(3)),
        ("089", json!(89)),
        ("1_000", json!(1000)),
        ("-0x10", json!(-16)),
        ("+5", json!(5)),
        ("1e3", json!(1000)),
        ("1.0", json!(1)),
        (".5", json!(0.5)),
        ("1e400", json!("1e400")),
        ("1e-7", json!(1e-7)),
        ("18446744073709551615", json!(u64::MAX)),
        ("-9223372036854775808", json!(i64::MIN)),
        ("123456789012345678901", json!(123456789012345678901f64)),
        ("on", json!(true)),
        ("Yes", json!(true)),
        ("n", json!(false)),
        ("oN", json!("oN")),
        ("~", json!(null)),
        ("NULL", json!(null)),
        ("2024-01-02", json!("2024-01-02")),
        ("12:30", json!("12:30")),
        ("1.2.3", json!("1.2.3")),
        ("0x", json!("0x")),
        ("1e", json!("1e")),
        ("-", json!("-")),
        ("<<", json!("<<")),
        ("\"on\"", json!("on")),
        ("'0644'", json!("0644")),
        ("!!str 12", json!("12")),
        ("!!int \"12\"", json!(12)),
        ("!!float 3", json!(3)),
        ("!custom 12", json!("12")),
        ("! 12", json!("12")),
        ("!!binary aGk=", json!("hi")),
        ("!!bool yes", json!(true)),
        ("!!timestamp 2001-01-01", json!("2001-01-01")),
    ] {
        let text = if text == "-" { "'-'" } else { text };
        assert_eq!(one(&format!("a: {text}")), json!({"a": want}), "{text}");
    }
}

#[test]
fn keys_become_text_as_go_writes_them() {
    let text = "on: 1\n0x1: 1\n1.5: 1\n1e6: 1\n1e-5: 1\n123456789.5: 1\n010: 1\n.inf: 1\n!!str 7: 1\n";
    let keys = ["true", "1", "1.5", "1e+06", "1e-05", "1.2345679e+08", "8", ".inf", "7"];
    let want: Map<String, Value> = keys.iter().map(|k| ((*k).to_owned(), json!(1))).collect();
    assert_eq!(one(text), Value::Object(want));
}

#[test]
fn what_is_refused_says_where_and_quotes_nothing() {
    for (text, line, problem) in [
        ("a: 1\nb: 2\na: 3", 3, "the key \"a\" stands here a second time; the first is in line 1"),
        ("1: a\n'1': b", 2, "the key \"1\" stands here a second time; the first is in line 1"),
        ("b:\n  k: 2\n  <<: {k: 1}", 3, "this merge holds the key \"k\""),
        ("b:\n  <<: {k: 1}\n  <<: {k: 2}", 3, "this merge holds the key \"k\""),
        ("a: 1\n<<: 5", 2, "`<<` takes a mapping"),
        ("? [a]\n: 1", 1, "a key must be a scalar"),
        ("x: 1\n~: 1", 2, "put it in quotes"),
        ("18446744073709551615: 1", 1, "put it in quotes"),
        ("a: 1\nb: !!int s3cret", 2, "not of the type"),
        ("a: !!binary '//79'", 1, "!!binary"),
        ("a: .nan", 1, "no infinity"),
        ("a: &a [*a]", 1, "within its own anchor"),
        ("a: *s3cret", 1, "anchor"),
        ("a: b\n c: s3cret: x", 2, ""),
        ("a: \"s3cret", 1, ""),
        ("a: [s3cret\nb: 1", 2, ""),
        ("a: 1\n---\nb: 1\nb: 2\n", 4, "second time"),
        ("a:\n\tb: s3cret", 2, ""),
        ("a:\n  &b: s3cret", 2, "an anchor's name"),
        ("a: 1\n---b: s3cret", 2, "must stand alone"),
        ("a:\n  \tb: s3cret", 2, "indented with a tab"),
        ("{\"a\nb\": s3cret}", 1, "a key must stand on one line"),
        ("a: s3cret\nb: x\u{2028}y", 2, "line break for some readers"),
    ] {
        let error = read(text).unwrap_err();
        assert_eq!(error.line, line, "{text}: {error}");
        assert!(error.to_string().contains(problem), "{text}: {error}");
        assert!(!error.to_string().contains("s3cret"), "{text}: {error}");
    }
}

#[test]
fn a_merge_gives_what_is_not_there() {
    let text = "base: &b {k: 1, l: 1}\nother: &o {k: 3, m: 3}\nx:\n  <<: [*b, *o]\n  l: 2\n";
    assert_eq!(one(text)["x"], json!({"k": 1, "l": 2, "m": 3}));
    assert_eq!(one("'<<': {a: 1}"), json!({"<<": {"a": 1}}));
}

#[test]
fn documents_know_their_lines() {
    let text = "# first\na: 1\n---\n# second\n\nb: 1\n---\n--- # empty before\nc: 1\n...\n";
    let documents = read(text).unwrap();
    let lines: Vec<_> = documents.iter().map(|d| (d.line, d.value.is_null())).collect();
    assert_eq!(lines, [(2, false), (6, false), (7, true), (9, false)]);
    assert_eq!(read("").unwrap(), []);
    assert!(read("# nothing\n").unwrap().iter().all(|d| d.value.is_null()));
}

#[test]
fn a_mark_and_windows_line_ends_are_no_matter() {
    assert_eq!(one("\u{feff}a: 1\r\nb: |\r\n  x\r\n  y\r\n"), json!({"a": 1, "b": "x\ny\n"}));
    assert_eq!(one("{\n\t\"a\": [1,\n\t\t2]\n}"), json!({"a": [1, 2]}));
}

#[test]
fn variables_are_noted_with_line_and_style() {
    let text = "a: ${A}\nb:\n- \"${B}\"\n- x\n- &v ${C}\n- *v\nm:\n  <<: {d: '${D}'}\n";
    let document = read(text).unwrap().remove(0);
    let mark =
        |path: &[&str]| path.iter().try_fold(&document.strings, |m, s| m.below(s)).and_then(Marks::own);
    assert_eq!(mark(&["a"]), Some(StringMark { line: 1, plain: true }));
    assert_eq!(mark(&["b", "0"]), Some(StringMark { line: 3, plain: false }));
    assert_eq!(mark(&["b", "1"]), None);
    assert_eq!(mark(&["b", "3"]), Some(StringMark { line: 5, plain: true }));
    assert_eq!(mark(&["m", "d"]), Some(StringMark { line: 8, plain: false }));
}

#[test]
fn items_know_their_lines() {
    let text = "kind: List\nitems:\n- a: 1\n-\n  b: [1]\n- {}\nother:\n- x\n";
    assert_eq!(read(text).unwrap()[0].item_lines, [3, 5, 6]);
}

#[test]
fn bombs_are_refused_with_a_line() {
    let mut aliases = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for level in 1..=10 {
        let before = format!("*a{}", level - 1);
        let row = vec![before; 10].join(", ");
        aliases.push_str(&format!("a{level}: &a{level} [{row}]\n"));
    }
    let error = read(&aliases).unwrap_err();
    assert_eq!((error.problem, error.line), (Problem::TooManyAliases, 6));

    let long = format!("a: &a {}\nb: [{}]", "x".repeat(1 << 20), vec!["*a"; 100].join(","));
    assert_eq!(read(&long).unwrap_err().problem, Problem::TooManyAliases);

    let chain: String = (1..2000).fold("a0: &a0 [x]\n".to_owned(), |mut all, level| {
        all.push_str(&format!("a{level}: &a{level} [[[*a{}]]]\n", level - 1));
        all
    });
    assert_eq!(read(&chain).unwrap_err().problem, Problem::TooDeep(200));
    for deep in ["[".repeat(100_000), "- ".repeat(100_000), "{a: ".repeat(100_000), "? ".repeat(10_000)] {
        read(&deep).unwrap_err();
    }
}

mod laws {
    use super::*;
    use proptest::prelude::*;

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            // But for the line breaks of some readers, which are refused.
            "\\PC{0,12}".prop_map(|text| Value::from(text.replace(['\u{85}', '\u{2028}', '\u{2029}'], ""))),
            "[0-9a-z.+~<_:#-]{0,8}".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 40, 6, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
                prop::collection::btree_map("[a-zA-Z0-9./ ]{0,8}", inner, 0..5)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn json_is_yaml(value in any_json()) {
            for text in [value.to_string(), serde_json::to_string_pretty(&value).unwrap()] {
                prop_assert_eq!(&one(&text), &value, "{}", text);
            }
        }

        #[test]
        fn nothing_makes_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = read(&String::from_utf8_lossy(&bytes));
        }

        #[test]
        fn nothing_that_looks_like_yaml_makes_it_panic(text in "[-?:,\\[\\]{}#&*!|>'\"%@` \n\tab1<~]{0,60}") {
            let _ = read(&text);
        }
    }
}
