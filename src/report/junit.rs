//! `windlass drift -o junit`: a test suite for each Delivery, and a failed test for each object that differs, as CI systems show
//! them. The format has no standard; this is what Jenkins, GitLab and GitHub's actions read alike.

use super::drift::{DeliveryDrift, DriftList, id};
use crate::api::drift_report::{DriftedField, DriftedObject};

/// The drift as a JUnit report.
pub fn drift(list: &DriftList) -> String {
    let suites: Vec<(String, usize, usize)> = list.deliveries.iter().map(suite).collect();
    let tests: usize = suites.iter().map(|(_, tests, _)| tests).sum();
    let failures: usize = suites.iter().map(|(_, _, failures)| failures).sum();
    let all: String = suites.into_iter().map(|(text, ..)| text).collect();
    format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites name=\"drift\" tests=\"{tests}\" failures=\"{failures}\">\n{all}</testsuites>\n"
    )
}

fn suite(delivery: &DeliveryDrift) -> (String, usize, usize) {
    let name = escaped(&format!("{}/{}", delivery.namespace, delivery.name));
    let case = |what: &str, inside: String| match inside.is_empty() {
        true => format!("    <testcase classname=\"{name}\" name=\"{}\"/>\n", escaped(what)),
        false => format!(
            "    <testcase classname=\"{name}\" name=\"{}\">\n{inside}    </testcase>\n",
            escaped(what)
        ),
    };
    let mut cases: Vec<String> =
        delivery.objects.iter().map(|object| case(&id(object), failure(object))).collect();
    if let Some(left_out) = delivery.left_out.filter(|l| l.objects > 0) {
        let text = format!("{} more objects differ and are not in the report", left_out.objects);
        cases.push(case("other objects", failed("LeftOut", &text, "")));
    }
    if let Some(why) = &delivery.unknown {
        cases.push(case("comparison", failed("NotCompared", why, "")));
    }
    let failures = cases.len();
    if cases.is_empty() {
        cases.push(case("nothing differs", String::new()));
    }
    let tests = cases.len();
    let text = format!(
        "  <testsuite name=\"{name}\" tests=\"{tests}\" failures=\"{failures}\">\n{}  </testsuite>\n",
        cases.concat()
    );
    (text, tests, failures)
}

fn failure(object: &DriftedObject) -> String {
    let message = match (object.state.as_str(), object.fields.len()) {
        ("Missing", _) => "is not there".to_owned(),
        ("Foreign", _) => "carries the Delivery's label and is in no bundle".to_owned(),
        ("Unlabelled", _) => "has lost its label".to_owned(),
        (_, 1) => "1 field differs".to_owned(),
        (_, n) => format!("{} fields differ", i64::try_from(n).unwrap_or(i64::MAX) + object.fields_left_out),
    };
    let fields: Vec<String> = object.fields.iter().map(line).collect();
    failed(&object.state, &message, &fields.join("\n"))
}

fn line(field: &DriftedField) -> String {
    let value = |v: &Option<String>| v.clone().unwrap_or_else(|| "nothing".into());
    let when = field.at.as_ref().map_or_else(String::new, |at| format!(" at {at}"));
    format!(
        "{}: {} instead of {}, by {}{when}",
        field.path,
        value(&field.live),
        value(&field.desired),
        field.manager
    )
}

fn failed(kind: &str, message: &str, text: &str) -> String {
    format!(
        "      <failure type=\"{}\" message=\"{}\">{}</failure>\n",
        escaped(kind),
        escaped(message),
        escaped(text)
    )
}

/// Text for an attribute or an element; what XML 1.0 cannot hold becomes a replacement character.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\n' | '\t' => out.push(c),
            c if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_from_outside_breaks_the_document() {
        assert_eq!(escaped("a<b & \"c\"\u{1b}[2J\u{0}"), "a&lt;b &amp; &quot;c&quot;\u{fffd}[2J\u{fffd}");
    }
}
