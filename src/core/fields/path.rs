//! A path to one field of an object, in the words of `FieldsV1`.

use serde_json::Value;
use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fmt;

/// One step of a [`Path`].
#[derive(Clone, Debug)]
pub enum Segment {
    /// A field of a map or struct (`f:name`).
    Field(String),
    /// The item of an associative list with these keys (`k:{"name":"web"}`).
    Key(BTreeMap<String, Value>),
    /// The item of a set (`v:"value"`).
    Value(Value),
    /// The item at a position (`i:0`). Kubernetes has not written it so far; our own comparisons do where a list has no keys.
    Index(usize),
}

impl Segment {
    /// A field by its name.
    pub fn field(name: impl Into<String>) -> Self {
        Segment::Field(name.into())
    }

    /// From a key of `FieldsV1`; `None` for `.` (the field itself) and for a form that is not known.
    pub fn decode(text: &str) -> Option<Self> {
        let (kind, rest) = text.split_once(':')?;
        match kind {
            "f" => Some(Segment::Field(rest.into())),
            "k" => serde_json::from_str(rest).ok().map(Segment::Key),
            "v" => serde_json::from_str(rest).ok().map(Segment::Value),
            "i" => rest.parse().ok().map(Segment::Index),
            _ => None,
        }
    }

    /// The key of `FieldsV1`.
    pub fn encode(&self) -> String {
        match self {
            Segment::Field(name) => format!("f:{name}"),
            Segment::Key(keys) => format!("k:{}", serde_json::json!(keys)),
            Segment::Value(value) => format!("v:{value}"),
            Segment::Index(index) => format!("i:{index}"),
        }
    }

    /// Whether this names the item `item`, which stands at `index` of a list.
    pub fn matches(&self, index: usize, item: &Value) -> bool {
        match self {
            Segment::Field(_) => false,
            Segment::Key(keys) => keys.iter().all(|(key, value)| match item.get(key) {
                Some(other) => same_scalar(value, other),
                None => value.is_null(),
            }),
            Segment::Value(value) => same_scalar(value, item),
            Segment::Index(i) => *i == index,
        }
    }

    /// The value that this step leads to.
    pub fn step<'a>(&self, value: &'a Value) -> Option<&'a Value> {
        match self {
            Segment::Field(name) => value.get(name),
            Segment::Index(index) => value.get(index),
            _ => self.position(value).and_then(|index| value.get(index)),
        }
    }

    /// The position of the item that this step names in a list.
    pub fn position(&self, list: &Value) -> Option<usize> {
        list.as_array()?.iter().enumerate().position(|(index, item)| self.matches(index, item))
    }

    fn rank(&self) -> u8 {
        match self {
            Segment::Field(_) => 0,
            Segment::Key(_) => 1,
            Segment::Value(_) => 2,
            Segment::Index(_) => 3,
        }
    }
}

/// Equality of scalars as Kubernetes sees it: `1` and `1.0` are one number.
pub(crate) fn same_scalar(a: &Value, b: &Value) -> bool {
    a == b || matches!((a.as_f64(), b.as_f64()), (Some(a), Some(b)) if a == b)
}

fn compare_values(a: &Value, b: &Value) -> Ordering {
    match (a, b) {
        (Value::String(a), Value::String(b)) => a.cmp(b),
        (Value::Number(_), Value::Number(_)) => {
            a.as_f64().partial_cmp(&b.as_f64()).unwrap_or(Ordering::Equal)
        }
        (Value::Bool(a), Value::Bool(b)) => a.cmp(b),
        // Keys are scalars; anything else is ordered by its text, which is stable since maps are sorted.
        _ => kind_rank(a).cmp(&kind_rank(b)).then_with(|| a.to_string().cmp(&b.to_string())),
    }
}

fn kind_rank(value: &Value) -> u8 {
    match value {
        Value::Null => 0,
        Value::Bool(_) => 1,
        Value::Number(_) => 2,
        Value::String(_) => 3,
        Value::Array(_) => 4,
        Value::Object(_) => 5,
    }
}

impl Ord for Segment {
    fn cmp(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Segment::Field(a), Segment::Field(b)) => a.cmp(b),
            (Segment::Index(a), Segment::Index(b)) => a.cmp(b),
            (Segment::Value(a), Segment::Value(b)) => compare_values(a, b),
            (Segment::Key(a), Segment::Key(b)) => {
                for ((name_a, value_a), (name_b, value_b)) in a.iter().zip(b) {
                    let order = name_a.cmp(name_b).then_with(|| compare_values(value_a, value_b));
                    if order != Ordering::Equal {
                        return order;
                    }
                }
                a.len().cmp(&b.len())
            }
            _ => self.rank().cmp(&other.rank()),
        }
    }
}

impl PartialOrd for Segment {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Segment {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Segment {}

/// Where a field stands in an object; the empty path is the object itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Path(pub Vec<Segment>);

impl Path {
    /// A path of field names.
    pub fn fields<I: IntoIterator<Item = S>, S: Into<String>>(names: I) -> Self {
        Path(names.into_iter().map(Segment::field).collect())
    }

    /// The steps.
    pub fn segments(&self) -> &[Segment] {
        &self.0
    }

    /// This path and one more step.
    pub fn join(&self, segment: Segment) -> Self {
        let mut steps = self.0.clone();
        steps.push(segment);
        Path(steps)
    }

    /// Whether `other` is this path or stands below it.
    pub fn covers(&self, other: &Path) -> bool {
        other.0.starts_with(&self.0)
    }

    /// Whether the path begins with these field names.
    pub fn begins_with(&self, names: &[&str]) -> bool {
        self.0.len() >= names.len()
            && self.0.iter().zip(names).all(|(step, name)| matches!(step, Segment::Field(f) if f == name))
    }

    /// The names of its fields, without the items of lists: `spec containers image`.
    pub fn field_names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter_map(|step| match step {
            Segment::Field(name) => Some(name.as_str()),
            _ => None,
        })
    }

    /// The value at this path.
    pub fn get<'a>(&self, object: &'a Value) -> Option<&'a Value> {
        self.0.iter().try_fold(object, |value, step| step.step(value))
    }

    /// The JSON pointer (RFC 6901) of this path in `object`, where list items have positions; `None` when it is not there.
    pub fn to_json_pointer(&self, object: &Value) -> Option<String> {
        let mut pointer = String::new();
        let mut value = object;
        for step in &self.0 {
            pointer.push('/');
            match step {
                Segment::Field(name) => pointer.push_str(&name.replace('~', "~0").replace('/', "~1")),
                _ => pointer.push_str(&step.position(value)?.to_string()),
            }
            value = step.step(value)?;
        }
        Some(pointer)
    }
}

fn plain(name: &str) -> bool {
    !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-' || c == '$')
}

fn scalar_text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

impl fmt::Display for Path {
    /// `spec.template.spec.containers[name=web].image`, `metadata.labels["app.kubernetes.io/name"]`,
    /// `metadata.finalizers[="a/b"]`, `spec.rules[0]`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, step) in self.0.iter().enumerate() {
            match step {
                Segment::Field(name) if plain(name) => {
                    if i > 0 {
                        f.write_str(".")?;
                    }
                    f.write_str(name)?;
                }
                Segment::Field(name) => write!(f, "[{name:?}]")?,
                Segment::Key(keys) => {
                    let keys: Vec<_> = keys.iter().map(|(k, v)| format!("{k}={}", scalar_text(v))).collect();
                    write!(f, "[{}]", keys.join(","))?;
                }
                Segment::Value(value) => write!(f, "[={value}]")?,
                Segment::Index(index) => write!(f, "[{index}]")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use serde_json::json;

    fn path(keys: &[&str]) -> Path {
        Path(keys.iter().map(|k| Segment::decode(k).unwrap()).collect())
    }

    #[test]
    fn paths_read_well_and_resolve() {
        let object = json!({"spec": {"containers": [{"name": "log"}, {"name": "web", "ports": [{"containerPort": 80, "protocol": "TCP"}]}]},
            "metadata": {"labels": {"a/b~c": "x"}, "finalizers": ["p/q"]}});
        let table = [
            (
                path(&[
                    "f:spec",
                    "f:containers",
                    r#"k:{"name":"web"}"#,
                    "f:ports",
                    r#"k:{"protocol":"TCP","containerPort":80}"#,
                ]),
                "spec.containers[name=web].ports[containerPort=80,protocol=TCP]",
                Some("/spec/containers/1/ports/0"),
            ),
            (
                path(&["f:metadata", "f:labels", "f:a/b~c"]),
                r#"metadata.labels["a/b~c"]"#,
                Some("/metadata/labels/a~1b~0c"),
            ),
            (
                path(&["f:metadata", "f:finalizers", r#"v:"p/q""#]),
                r#"metadata.finalizers[="p/q"]"#,
                Some("/metadata/finalizers/0"),
            ),
            (
                path(&["f:spec", "f:containers", "i:0", "f:name"]),
                "spec.containers[0].name",
                Some("/spec/containers/0/name"),
            ),
            (path(&["f:spec", "f:containers", r#"k:{"name":"gone"}"#]), "spec.containers[name=gone]", None),
        ];
        for (path, text, pointer) in table {
            assert_eq!(path.to_string(), text);
            assert_eq!(path.to_json_pointer(&object).as_deref(), pointer);
            assert_eq!(pointer.and_then(|p| object.pointer(p)), path.get(&object));
        }
    }

    #[test]
    fn segments_survive_encoding() {
        for text in ["f:a.b/c", r#"k:{"containerPort":80,"protocol":"TCP"}"#, r#"v:"x""#, "v:1", "i:3"] {
            assert_eq!(Segment::decode(text).unwrap().encode(), text);
        }
        assert_eq!(Segment::decode("."), None);
        assert_eq!(Segment::decode("x:y"), None);
    }
}
