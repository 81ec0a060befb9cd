//! The layout holds: imports between the modules point one way, the documentation's links lead somewhere, and no file
//! speaks of the machine that it was written on.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path, PathBuf};

/// A module may use those of lower levels, and itself.
const LEVELS: &[(&str, u8)] = &[
    ("api", 0),
    ("lock", 0),
    ("core", 1),
    ("telemetry", 1),
    ("source", 2),
    ("render", 2),
    ("cluster", 2),
    ("analysis", 2),
    ("installation", 2),
    ("report", 2),
    ("reconcile", 3),
    ("server", 4),
    ("cli", 5),
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The files that Git tracks or would track.
fn tracked() -> Vec<PathBuf> {
    let listed = std::process::Command::new("git")
        .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .current_dir(root())
        .output()
        .expect("git runs");
    let text = String::from_utf8(listed.stdout).expect("names are UTF-8");
    let files: Vec<PathBuf> = text
        .split('\0')
        .filter(|f| !f.is_empty())
        .map(PathBuf::from)
        .filter(|f| root().join(f).is_file())
        .collect();
    // Without a repository (an unpacked archive) there is nothing to look at, and nothing is wrong.
    assert!(files.len() > 100 || !root().join(".git").exists(), "only {} files", files.len());
    files
}

fn read(file: &Path) -> Option<String> {
    String::from_utf8(std::fs::read(root().join(file)).ok()?).ok()
}

/// The paths `crate::module::rest` of a source text, comments left out, each with its line.
fn uses(text: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (at, line) in text.lines().enumerate() {
        let code = line.split("//").next().unwrap_or_default();
        for (start, _) in code.match_indices("crate::") {
            // `$crate::` of a macro and names that end in `crate` are others.
            if code[..start].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == '$') {
                continue;
            }
            let path: String = code[start..]
                .chars()
                .take_while(|c| c.is_alphanumeric() || matches!(c, ':' | '_' | '{'))
                .collect();
            found.push((at + 1, path));
        }
    }
    found
}

/// The modules that a path of `uses` names: one, or several of `crate::{a, b}`.
fn modules(path: &str) -> Vec<&str> {
    let rest = path.trim_start_matches("crate::");
    match rest.strip_prefix('{') {
        Some(rest) => vec![rest],
        None => vec![rest.split([':', '{']).next().unwrap_or_default()],
    }
}

#[test]
fn no_import_points_back() {
    let levels: BTreeMap<&str, u8> = LEVELS.iter().copied().collect();
    let mut problems = Vec::new();
    let mut looked = 0;
    for file in tracked() {
        let Ok(inside) = file.strip_prefix("src") else { continue };
        let Some(Component::Normal(first)) = inside.components().next() else { continue };
        let module = first.to_string_lossy();
        let module = module.trim_end_matches(".rs");
        if inside.extension().is_none_or(|e| e != "rs") || ["lib", "main"].contains(&module) {
            continue;
        }
        let Some(level) = levels.get(module) else {
            problems.push(format!("src/{module} has no level here; say what it may use"));
            continue;
        };
        looked += 1;
        for (line, path) in uses(&read(&file).unwrap_or_default()) {
            for of in modules(&path) {
                let fits = of == module || levels.get(of).is_some_and(|l| l < level);
                if !fits {
                    problems.push(format!("{}:{line}: {module} uses {path}", file.display()));
                }
            }
        }
    }
    assert!(looked > 50 || !root().join(".git").exists(), "only {looked} files");
    assert!(problems.is_empty(), "imports that point back:\n{}", problems.join("\n"));
}

/// Anchors of a page's headings, as GitHub makes them.
fn anchors(text: &str) -> BTreeSet<String> {
    let mut code = false;
    let mut found = BTreeSet::new();
    for line in text.lines() {
        code ^= line.trim_start().starts_with("```");
        let heading = line.trim_start_matches('#');
        if code || heading.len() == line.len() || !heading.starts_with(' ') {
            continue;
        }
        let anchor: String = heading
            .trim()
            .to_lowercase()
            .chars()
            .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'))
            .map(|c| if c == ' ' { '-' } else { c })
            .collect();
        found.insert(anchor);
    }
    found
}

/// The targets of a page's links `[text](target)`, code left out.
fn links(text: &str) -> Vec<String> {
    let mut code = false;
    let mut found = Vec::new();
    for line in text.lines() {
        code ^= line.trim_start().starts_with("```");
        if code {
            continue;
        }
        let outside: String = line.split('`').step_by(2).collect();
        for part in outside.split("](").skip(1) {
            if let Some((target, _)) = part.split_once(')') {
                found.push(target.to_owned());
            }
        }
    }
    found
}

#[test]
fn links_between_pages_lead_somewhere() {
    let mut problems = Vec::new();
    for page in tracked().iter().filter(|f| f.extension().is_some_and(|e| e == "md")) {
        let text = read(page).unwrap_or_default();
        for link in links(&text) {
            if link.contains("://") || link.starts_with("mailto:") {
                continue;
            }
            let (path, anchor) = link.split_once('#').unwrap_or((&link, ""));
            let target = match path {
                "" => page.clone(),
                path => page.parent().unwrap_or(Path::new("")).join(path),
            };
            if !root().join(&target).exists() {
                problems.push(format!("{}: {link} does not exist", page.display()));
            } else if !anchor.is_empty() && !read(&target).is_some_and(|text| anchors(&text).contains(anchor))
            {
                problems.push(format!("{}: {link} names no heading", page.display()));
            }
        }
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

/// Hosts that packages come from. A lock file names its index; no other file has a reason to.
const HOSTS: &[&[&str]] = &[
    &["crates", ".io"],
    &["proxy.golang", ".org"],
    &["sum.golang", ".org"],
    &["registry.npmjs", ".org"],
    &["pypi", ".org"],
    &["pythonhosted", ".org"],
];

/// Directories of one machine. A home directory in general is no such place: an image has one.
const PLACES: &[&[&str]] = &[&["/wo", "rk/"], &["/ro", "ot/"], &["/tmp", "/wt"], &["/home", "/user"]];

#[test]
fn no_file_speaks_of_one_machine() {
    let mut problems = Vec::new();
    for file in tracked() {
        let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        // What tools write, and the configuration of what checks it.
        if ["Cargo.lock", "go.sum", "deny.toml"].contains(&name.as_str()) {
            continue;
        }
        let Some(text) = read(&file) else { continue };
        for (at, line) in text.lines().enumerate() {
            for parts in PLACES.iter().chain(HOSTS) {
                let what = parts.concat();
                let Some(start) = line.find(&what) else { continue };
                // A manifest's path that holds such a segment further in is another path than one that begins so.
                let inside = line[..start].ends_with(|c: char| c.is_alphanumeric() || "._-}/".contains(c));
                if !(inside && what.starts_with('/')) {
                    problems.push(format!("{}:{}: {what}", file.display(), at + 1));
                }
            }
        }
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

#[test]
fn what_the_looks_stand_on_holds() {
    let text = "use crate::core::x; // crate::cli\nlet y = crate::{api, cli};\n$crate::z";
    assert_eq!(uses(text), [(1, "crate::core::x".to_owned()), (2, "crate::{api".to_owned())]);
    assert_eq!(modules("crate::core::x"), ["core"]);
    assert_eq!(modules("crate::{api"), ["api"]);
    let page = "# A b, `c`\n```\n# no\n[x](no)\n```\n[x](a.md#b) `[y](no)` [z](c)";
    assert_eq!(anchors(page), BTreeSet::from(["a-b-c".to_owned()]));
    assert_eq!(links(page), ["a.md#b", "c"]);
}
