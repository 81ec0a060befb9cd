//! `windlass health -f FILE`: the verdict about objects as they stand in a file, without a cluster.

use crate::core::health::{Status, Verdict, verdict};
use crate::core::manifest::ObjectId;
use anyhow::{Context, Result, bail};
use serde::Serialize;
use serde_json::Value;
use std::io::{Read, Write};
use std::path::PathBuf;

/// Say how healthy an object is, from its YAML or JSON as `kubectl get -o yaml` prints it.
///
/// Exit code 0: all are Healthy or Suspended. 1: at least one is not. 2: the input could not be read.
#[derive(Clone, Debug, clap::Args)]
pub struct HealthArgs {
    /// File with the objects: YAML or JSON, several documents or a List; - is standard input
    #[arg(short = 'f', long = "filename", value_name = "FILE")]
    pub filename: PathBuf,
    /// How to print: a table without it, with one column more, or for programs
    #[arg(short = 'o', long = "output", value_enum)]
    pub output: Option<HealthOutput>,
}

/// How `windlass health` prints.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum HealthOutput {
    /// One object: `{"status","message"}`. Several: a list of these with `object` in front.
    Json,
    /// As json, in YAML.
    Yaml,
    /// The table, with the reason of what is beyond doubt broken.
    Wide,
}

/// Prints the verdict about each object; the answer is the exit code, 0 or 1. An error means exit code 2.
pub fn run(args: &HealthArgs, stdin: &mut dyn Read, stdout: &mut dyn Write) -> Result<i32> {
    let name = if args.filename.as_os_str() == "-" {
        "standard input".to_owned()
    } else {
        args.filename.display().to_string()
    };
    let mut text = String::new();
    if args.filename.as_os_str() == "-" {
        stdin.read_to_string(&mut text).with_context(|| format!("cannot read {name}"))?;
    } else {
        text = std::fs::read_to_string(&args.filename).with_context(|| format!("cannot read {name}"))?;
    }
    let mut objects = Vec::new();
    for document in read_documents(&text).with_context(|| format!("{name} is not YAML or JSON"))? {
        flatten(document, &mut objects);
    }
    for (number, object) in objects.iter().enumerate() {
        if object.get("kind").and_then(Value::as_str).is_none_or(str::is_empty) {
            bail!(
                "{name}: object {} of {} has no kind; is it a Kubernetes object?",
                number + 1,
                objects.len()
            );
        }
    }
    if objects.is_empty() {
        bail!("{name} holds no object");
    }
    let verdicts: Vec<(String, Verdict)> =
        objects.iter().map(|o| (ObjectId::of(o).to_string(), verdict(o))).collect();
    print(&verdicts, args.output, stdout).context("cannot write to standard output")?;
    let well = verdicts.iter().all(|(_, v)| matches!(v.status, Status::Healthy | Status::Suspended));
    Ok(i32::from(!well))
}

/// The documents of a text, empty ones left out.
fn read_documents(text: &str) -> Result<Vec<Value>> {
    // JSON first: it is YAML too, but only JSON's own reader takes tabs as they come.
    if text.trim_start().starts_with(['{', '[']) {
        let values: Result<Vec<Value>, _> = serde_json::Deserializer::from_str(text).into_iter().collect();
        if let Ok(values) = values {
            return Ok(values);
        }
    }
    Ok(serde_saphyr::from_multiple::<Value>(text)?)
}

/// Takes Lists (`kubectl get -o json`) and JSON arrays apart.
fn flatten(document: Value, objects: &mut Vec<Value>) {
    match document {
        Value::Null => {}
        Value::Array(items) => items.into_iter().for_each(|item| flatten(item, objects)),
        Value::Object(mut map)
            if map.get("items").is_some_and(Value::is_array)
                && map.get("kind").and_then(Value::as_str).is_some_and(|kind| kind.ends_with("List")) =>
        {
            if let Some(items) = map.remove("items") {
                flatten(items, objects);
            }
        }
        object => objects.push(object),
    }
}

/// What is printed about one object for programs.
#[derive(Serialize)]
struct Answer<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    object: Option<&'a str>,
    status: Status,
    message: &'a str,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Said<'a> {
    One(Answer<'a>),
    Several(Vec<Answer<'a>>),
}

fn print(verdicts: &[(String, Verdict)], output: Option<HealthOutput>, stdout: &mut dyn Write) -> Result<()> {
    let wide = output == Some(HealthOutput::Wide);
    let said = match verdicts {
        [(_, v)] => Said::One(Answer { object: None, status: v.status, message: &v.message }),
        several => Said::Several(
            several
                .iter()
                .map(|(id, v)| Answer { object: Some(id), status: v.status, message: &v.message })
                .collect(),
        ),
    };
    match output {
        Some(HealthOutput::Json) => writeln!(stdout, "{}", serde_json::to_string(&said)?)?,
        Some(HealthOutput::Yaml) => write!(stdout, "{}", with_line_end(serde_saphyr::to_string(&said)?))?,
        Some(HealthOutput::Wide) | None => {
            let mut table = tabwriter::TabWriter::new(&mut *stdout).padding(3);
            let header = if wide { "OBJECT\tSTATUS\tBROKEN\tMESSAGE" } else { "OBJECT\tSTATUS\tMESSAGE" };
            writeln!(table, "{header}")?;
            for (id, verdict) in verdicts {
                let broken = verdict.broken.as_ref().map_or("-", |broken| broken.reason);
                match wide {
                    true => writeln!(table, "{id}\t{}\t{broken}\t{}", verdict.status, verdict.message)?,
                    false => writeln!(table, "{id}\t{}\t{}", verdict.status, verdict.message)?,
                }
            }
            table.flush()?;
        }
    }
    Ok(())
}

fn with_line_end(mut text: String) -> String {
    if !text.ends_with('\n') {
        text.push('\n');
    }
    text
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn health(input: &str, output: Option<HealthOutput>) -> (String, Result<i32>) {
        let args = HealthArgs { filename: "-".into(), output };
        let mut out = Vec::new();
        let code = run(&args, &mut input.as_bytes(), &mut out);
        (String::from_utf8(out).unwrap(), code)
    }

    const DEPLOYMENT: &str = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web, namespace: shop, generation: 1}\nspec: {replicas: 1}\n";

    #[test]
    fn one_object_is_one_json_object_with_status_and_message_only() {
        let (out, code) =
            health("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n", Some(HealthOutput::Json));
        assert_eq!(out, "{\"status\":\"Healthy\",\"message\":\"a ConfigMap is healthy by being there\"}\n");
        assert_eq!(code.unwrap(), 0);
    }

    #[test]
    fn several_objects_are_a_list_with_names_and_one_that_is_not_healthy_exits_1() {
        let input =
            format!("---\n{DEPLOYMENT}---\n---\napiVersion: v1\nkind: ConfigMap\nmetadata: {{name: a}}\n");
        let (out, code) = health(&input, Some(HealthOutput::Json));
        let value: Value = serde_json::from_str(&out).unwrap();
        assert_eq!(value[0]["object"], "Deployment shop/web");
        assert_eq!(value[0]["status"], "Progressing");
        assert_eq!(value[1]["object"], "ConfigMap a");
        assert_eq!(value.as_array().unwrap().len(), 2);
        assert_eq!(code.unwrap(), 1);
    }

    #[test]
    fn a_list_is_taken_apart_and_json_is_read() {
        let input = r#"{"apiVersion":"v1","kind":"List","items":[{"apiVersion":"v1","kind":"Namespace","metadata":{"name":"a"},"status":{"phase":"Active"}}]}"#;
        let (out, code) = health(input, None);
        assert_eq!(out, "OBJECT        STATUS    MESSAGE\nNamespace a   Healthy   is active\n");
        assert_eq!(code.unwrap(), 0);
    }

    #[test]
    fn what_cannot_be_read_is_an_error() {
        for input in ["", "---\n", "a: [", "just text", "apiVersion: v1\nmetadata: {name: a}\n"] {
            let (out, code) = health(input, None);
            assert!(code.is_err(), "{input:?} gave {out}");
        }
        let args = HealthArgs { filename: "/does/not/exist.yaml".into(), output: None };
        assert!(run(&args, &mut std::io::empty(), &mut Vec::new()).is_err());
    }

    #[test]
    fn yaml_and_wide_say_the_same() {
        let (out, _) = health(DEPLOYMENT, Some(HealthOutput::Yaml));
        assert!(out.contains("status: Progressing"), "{out}");
        let (out, _) = health(DEPLOYMENT, Some(HealthOutput::Wide));
        assert!(out.starts_with("OBJECT                STATUS        BROKEN   MESSAGE\n"), "{out}");
    }
}
