//! `windlass diff -o markdown`: what would change as a comment on a pull request, short enough to be posted.

use super::diff::{Act, DiffReport, ObjectDiff, acts, hooks_to_run, lines};
use super::table::tame;

/// Longest comment, in bytes. GitHub takes 65,536 characters, GitLab more.
pub const LONGEST: usize = 60_000;

/// Longest difference of one object, in bytes: one that is made anew by a generator must not push out all others.
const LONGEST_OBJECT: usize = 12_000;

/// Objects that are listed by name.
const LISTED: usize = 200;

/// The report as Markdown. It begins with a comment that no reader sees, by which a job finds and replaces what it posted
/// before.
pub fn markdown(report: &DiffReport) -> String {
    let name = report.delivery.as_deref().unwrap_or("a directory");
    let mut out = format!("<!-- windlass-diff {} -->\n### Windlass: {}\n\n", escaped(name), escaped(name));
    out.push_str(&format!("{}\n", summary(report)));
    let paragraph = |out: &mut String, title: &str, lines: &[String]| {
        if !lines.is_empty() {
            out.push_str(&format!("\n**{title}**\n\n"));
            lines.iter().take(LISTED).for_each(|line| out.push_str(&format!("- {line}\n")));
            if lines.len() > LISTED {
                out.push_str(&format!("- and {} more\n", lines.len() - LISTED));
            }
        }
    };
    let problems: Vec<String> = report.problems.iter().map(problem).collect();
    paragraph(&mut out, "Could not be found out", &problems);
    let unchecked: Vec<String> = report.unchecked.iter().map(problem).collect();
    paragraph(&mut out, "Not checked", &unchecked);
    let rollout: Vec<String> = report.rollout.iter().map(|line| escaped(line)).collect();
    paragraph(&mut out, "Rollout", &rollout);
    let hooks = report.hooks.iter().map(|h| format!("{} {}: {}", code(&h.object), h.point, h.told()));
    paragraph(&mut out, "Hooks", &hooks.collect::<Vec<_>>());

    let mut left_out = 0;
    for object in &report.objects {
        let details = details(object);
        // Room for the sentence about what is left out.
        if out.len() + details.len() + 300 > LONGEST {
            left_out += 1;
            continue;
        }
        out.push_str(&details);
    }
    if left_out > 0 {
        let what = if left_out == 1 { "1 object is" } else { &format!("{left_out} objects are") };
        out.push_str(&format!("\n{what} left out, since a comment has an end; `windlass diff` shows all.\n"));
    }
    if out.len() > LONGEST {
        let end = (0..=LONGEST - 4).rev().find(|at| out.is_char_boundary(*at)).unwrap_or(0);
        out.truncate(end);
        out.push_str("…\n");
    }
    out
}

fn problem(problem: &super::diff::DiffProblem) -> String {
    let file = if problem.file.is_empty() { String::new() } else { format!(" ({})", code(&problem.file)) };
    let object =
        if problem.object.is_empty() { String::new() } else { format!("{}{file}: ", code(&problem.object)) };
    format!("{object}{}", escaped(&problem.message))
}

fn summary(report: &DiffReport) -> String {
    let parts: Vec<String> = acts(report)
        .into_iter()
        .chain([hooks_to_run(report)])
        .filter(|(n, _)| *n > 0)
        .map(|(n, what)| format!("**{n}** {what}"))
        .collect();
    let unchanged = format!("{} unchanged", report.unchanged);
    if parts.is_empty() {
        format!("Nothing would change; {unchanged}.")
    } else {
        format!("{}; {unchanged}.", parts.join(", "))
    }
}

/// One object, closed until somebody opens it.
fn details(object: &ObjectDiff) -> String {
    let (mark, what) = match object.act {
        Act::Create => ("🟢", "create"),
        Act::Change => ("🟡", "change"),
        Act::Adopt => ("🟡", "adopt"),
        Act::Recreate => ("🔴", "delete and create again"),
        Act::Delete => ("🔴", "delete"),
        Act::Release => ("⚪", "release: it stays, and is not ours any more"),
    };
    let wave =
        object.wave.filter(|wave| *wave != 0).map_or_else(String::new, |wave| format!(", wave {wave}"));
    let file =
        if object.file.is_empty() { String::new() } else { format!(" <sub>{}</sub>", html(&object.file)) };
    let head = format!("{mark} {what}{wave}: <code>{}</code>{file}", html(&object.object));
    let mut text = match object.act {
        Act::Delete | Act::Release => String::new(),
        _ => lines(object),
    };
    if text.is_empty() {
        return format!("\n{head}\n");
    }
    if text.len() > LONGEST_OBJECT {
        let end = (0..=LONGEST_OBJECT).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        let end = text[..end].rfind('\n').map_or(end, |at| at + 1);
        let more = text[end..].lines().count();
        text.truncate(end);
        text.push_str(&format!("  … {more} lines more\n"));
    }
    // A fence that nothing in the text closes.
    let longest = text.split(|c| c != '`').map(str::len).max().unwrap_or(0);
    let fence = "`".repeat(longest.max(2) + 1);
    format!("\n<details><summary>{head}</summary>\n\n{fence}diff\n{text}{fence}\n\n</details>\n")
}

/// Text that Markdown and HTML take as it is.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    // Code that our own sentences hold stays code.
    for letter in tame(text).chars() {
        match letter {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '*' | '_' | '[' | ']' | '\\' | '#' | '|' | '@' => out.extend(['\\', letter]),
            _ => out.push(letter),
        }
    }
    out
}

fn html(text: &str) -> String {
    tame(text).replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

fn code(text: &str) -> String {
    format!("<code>{}</code>", html(text))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn map(name: &str, data: &str) -> Value {
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"key": data}})
    }

    fn changed(name: &str, before: &str, after: &str) -> ObjectDiff {
        let object = format!("ConfigMap shop/{name}");
        ObjectDiff::new(&object, "shop/it.yaml:1", Act::Change, &map(name, before), &map(name, after))
            .unwrap()
    }

    #[test]
    fn a_comment_has_an_end_and_is_closed_properly_before_it() {
        let long = "x".repeat(500);
        let many: String = (0..2000).map(|n| format!("{n} {long}\n")).collect();
        let mut objects = vec![changed("large", "", &many)];
        objects.extend((0..500).map(|n| changed(&format!("it-{n}"), &long, &"y".repeat(500))));
        let report = DiffReport { objects, rollout: vec!["a".into(); 900], ..DiffReport::default() };
        let text = markdown(&report);
        assert!(text.len() <= LONGEST, "{}", text.len());
        assert!(text.contains("lines more") && text.contains("objects are left out"));
        assert_eq!(text.matches("<details>").count(), text.matches("</details>").count());
        assert_eq!(text.matches("```").count() % 2, 0);
    }

    #[test]
    fn what_stands_in_an_object_breaks_out_of_nothing() {
        let report = DiffReport {
            delivery: Some("shop/<b>".into()),
            objects: vec![changed("a", "before", "```\n</details>\n# loud\n````")],
            rollout: vec!["@everyone <img> [x](y)".into()],
            ..DiffReport::default()
        };
        let text = markdown(&report);
        assert!(text.contains("`````diff\n"), "{text}");
        assert!(!text.contains("<img>") && !text.contains("<b>") && text.contains("\\@everyone"), "{text}");
    }

    #[test]
    fn nothing_is_told_as_nothing() {
        assert!(
            markdown(&DiffReport { unchanged: 3, ..DiffReport::default() })
                .contains("Nothing would change; 3 unchanged.")
        );
    }
}
