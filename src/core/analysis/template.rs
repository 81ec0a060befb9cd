//! `{{ candidate }}` and the like, in queries and addresses. What is put in is escaped for where it stands.

use super::endpoints::Endpoint;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use std::collections::BTreeSet;
use std::net::SocketAddr;

/// Names that may stand between `{{` and `}}`.
pub const KNOWN: [&str; 7] =
    ["candidate", "stable", "variant", "service", "namespace", "revision", "delivery"];

/// One variant of a workload, as it stands in the cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Variant {
    /// Name of the workload.
    pub workload: String,
    /// Name of its Service; empty where there is none.
    pub service: String,
    /// The port of that Service that is asked where a metric names none, by its name.
    pub port: String,
    /// The ready endpoints of that Service, sorted.
    pub endpoints: Vec<Endpoint>,
    /// Why they are not known; empty where they are.
    pub unseen: String,
}

impl Variant {
    /// Where its endpoints are asked, at the port that a metric names.
    pub fn addresses(&self, port: Option<&IntOrString>) -> BTreeSet<SocketAddr> {
        let default = IntOrString::String(self.port.clone());
        self.endpoints.iter().filter_map(|endpoint| endpoint.at(port.unwrap_or(&default))).collect()
    }
}

/// The two variants of a workload.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pair {
    /// What was there before; its workload has the name that stands in Git.
    pub stable: Variant,
    /// What is tried.
    pub candidate: Variant,
}

/// Which rollout is measured.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Variables {
    /// Namespace of the workloads.
    pub namespace: String,
    /// The revision that is rolled out: `main@sha1:…`.
    pub revision: String,
    /// Name of the Delivery.
    pub delivery: String,
    /// The step, from 0.
    pub step: u32,
    /// The workloads that are rolled out, as `workload` and `workloads` name them.
    pub pairs: Vec<Pair>,
}

/// Which of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// What was there before.
    Stable,
    /// What is tried.
    Candidate,
}

/// Where a text is put in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Within the quotes of a label's value in PromQL.
    PromQl,
    /// In an address.
    Url,
}

/// A text that cannot be filled in.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// It names something that is not there.
    #[error("{{{{ {0} }}}} is not known; there are {known}", known = KNOWN.join(", "))]
    Unknown(String),
    /// `{{` without `}}`.
    #[error("{{{{ has no }}}} after it")]
    Open,
    /// It names a workload that is not rolled out.
    #[error("workload {0} is none of those that are rolled out")]
    NoWorkload(String),
    /// The variant that is asked about has no Service.
    #[error("{{{{ service }}}} stands for nothing: {0} has no Service")]
    NoService(String),
}

impl Variables {
    /// The variants of a workload by its name in Git; the first ones by default.
    pub fn pair(&self, workload: Option<&str>) -> Result<&Pair, TemplateError> {
        let wanted = |pair: &&Pair| workload.is_none_or(|name| pair.stable.workload == name);
        self.pairs
            .iter()
            .find(wanted)
            .ok_or_else(|| TemplateError::NoWorkload(workload.unwrap_or_default().to_owned()))
    }
}

impl Pair {
    /// One of them.
    pub fn side(&self, side: Side) -> &Variant {
        match side {
            Side::Stable => &self.stable,
            Side::Candidate => &self.candidate,
        }
    }
}

/// The names that a text holds, or why it cannot be read.
pub fn names(text: &str) -> Result<Vec<&str>, TemplateError> {
    let mut found = Vec::new();
    parts(text, |part| {
        if let Part::Name(name) = part {
            found.push(name);
        }
        Ok(())
    })?;
    Ok(found)
}

/// Whether a text is about one variant, so that it can be asked about either.
pub fn is_about_a_variant(text: &str) -> bool {
    names(text).is_ok_and(|names| names.iter().any(|n| matches!(*n, "variant" | "service")))
}

/// A text with everything put in.
pub fn fill(
    text: &str,
    variables: &Variables,
    pair: &Pair,
    side: Side,
    place: Place,
) -> Result<String, TemplateError> {
    let variant = pair.side(side);
    let mut filled = String::with_capacity(text.len() + 64);
    parts(text, |part| {
        let value = match part {
            Part::Text(text) => {
                filled.push_str(text);
                return Ok(());
            }
            Part::Name("candidate") => &pair.candidate.workload,
            Part::Name("stable") => &pair.stable.workload,
            Part::Name("variant") => &variant.workload,
            Part::Name("service") if variant.service.is_empty() => {
                return Err(TemplateError::NoService(variant.workload.clone()));
            }
            Part::Name("service") => &variant.service,
            Part::Name("namespace") => &variables.namespace,
            Part::Name("revision") => &variables.revision,
            Part::Name("delivery") => &variables.delivery,
            Part::Name(other) => return Err(TemplateError::Unknown(other.to_owned())),
        };
        match place {
            Place::PromQl => quoted(value, &mut filled),
            Place::Url => percent(value, &mut filled),
        }
        Ok(())
    })?;
    Ok(filled)
}

enum Part<'t> {
    Text(&'t str),
    Name(&'t str),
}

fn parts<'t>(
    text: &'t str,
    mut take: impl FnMut(Part<'t>) -> Result<(), TemplateError>,
) -> Result<(), TemplateError> {
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("{{") {
        let (name, after) = after.split_once("}}").ok_or(TemplateError::Open)?;
        let name = name.trim();
        if !KNOWN.contains(&name) {
            return Err(TemplateError::Unknown(name.chars().take(63).collect()));
        }
        take(Part::Text(before))?;
        take(Part::Name(name))?;
        rest = after;
    }
    take(Part::Text(rest))
}

/// In PromQL a quote may stand within quotes of the other kind only unescaped, and within its own only escaped; by its number
/// it may stand in both.
fn quoted(value: &str, into: &mut String) {
    for c in value.chars() {
        match c {
            '\\' => into.push_str("\\\\"),
            '"' | '\'' | '`' => into.push_str(&format!("\\x{:02x}", u32::from(c))),
            c if c.is_control() => into.push_str(&format!("\\U{:08x}", u32::from(c))),
            c => into.push(c),
        }
    }
}

fn percent(value: &str, into: &mut String) {
    for byte in value.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                into.push(char::from(byte))
            }
            other => into.push_str(&format!("%{other:02X}")),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn variables() -> Variables {
        let variant = |workload: &str, service: &str| Variant {
            workload: workload.into(),
            service: service.into(),
            ..Variant::default()
        };
        let pair = |name: &str| Pair {
            stable: variant(name, &format!("{name}-svc")),
            candidate: variant(&format!("{name}-canary"), &format!("{name}-svc-canary")),
        };
        Variables {
            namespace: "shop".into(),
            revision: "fix/\"a\"\\b@sha1:abc".into(),
            delivery: "web".into(),
            step: 1,
            pairs: vec![pair("web"), pair("api")],
        }
    }

    fn filled(text: &str, side: Side, place: Place) -> Result<String, TemplateError> {
        let variables = variables();
        fill(text, &variables, variables.pair(None)?, side, place)
    }

    #[test]
    fn everything_known_is_put_in() {
        let text = "{{candidate}} {{ stable }} {{ variant }} {{ service }} {{ namespace }} {{ delivery }}";
        let at = |side| filled(text, side, Place::PromQl).unwrap();
        assert_eq!(at(Side::Candidate), "web-canary web web-canary web-svc-canary shop web");
        assert_eq!(at(Side::Stable), "web-canary web web web-svc shop web");
        assert_eq!(variables().pair(Some("api")).unwrap().candidate.workload, "api-canary");
    }

    #[test]
    fn a_value_stays_within_its_quotes() {
        let promql = filled("x{r=\"{{ revision }}\"}", Side::Stable, Place::PromQl).unwrap();
        assert_eq!(promql, r#"x{r="fix/\x22a\x22\\b@sha1:abc"}"#);
        let url = filled("http://a/{{ revision }}", Side::Stable, Place::Url).unwrap();
        assert_eq!(url, "http://a/fix%2F%22a%22%5Cb%40sha1%3Aabc");
    }

    #[test]
    fn what_is_not_known_is_an_error() {
        let said = |text: &str| filled(text, Side::Stable, Place::Url).unwrap_err().to_string();
        assert!(said("{{ canary }}").starts_with("{{ canary }} is not known; there are candidate, stable,"));
        assert_eq!(said("{{ candidate"), "{{ has no }} after it");
        assert_eq!(
            variables().pair(Some("db")).unwrap_err().to_string(),
            "workload db is none of those that are rolled out"
        );
        let mut without = variables();
        without.pairs[0].candidate.service.clear();
        let error =
            fill("{{ service }}", &without, &without.pairs[0], Side::Candidate, Place::Url).unwrap_err();
        assert_eq!(error.to_string(), "{{ service }} stands for nothing: web-canary has no Service");
    }

    #[test]
    fn what_is_about_a_variant_is_known() {
        assert!(is_about_a_variant("a{b='{{ variant }}'}") && is_about_a_variant("{{service}}"));
        assert!(!is_about_a_variant("{{ candidate }} {{ stable }}") && !is_about_a_variant("up"));
    }
}
