//! What the server makes of an object before it looks at it: what is empty goes, amounts are written in one way,
//! unknown fields are noticed.

use super::schema::{Mark, Scalar, Struct, Type};
use serde_json::{Map, Value};

/// What was wrong with an object on its way in.
#[derive(Debug, Default)]
pub struct Noticed {
    /// Paths of fields that no schema has.
    pub unknown: Vec<String>,
    /// The first value that does not fit.
    pub misfit: Option<String>,
}

/// Where in an object something stands; written out only when it has to be told.
#[derive(Clone, Copy)]
struct At<'a> {
    above: Option<&'a At<'a>>,
    name: &'a str,
    index: usize,
}

const ROOT: At<'static> = At { above: None, name: "", index: 0 };

impl<'a> At<'a> {
    fn field(&'a self, name: &'a str) -> At<'a> {
        At { above: Some(self), name, index: 0 }
    }

    fn item(&'a self, index: usize) -> At<'a> {
        At { above: Some(self), name: "", index }
    }

    fn is_root(&self) -> bool {
        self.above.is_none()
    }
}

impl std::fmt::Display for At<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Some(above) = self.above else { return Ok(()) };
        write!(f, "{above}")?;
        match self.name {
            "" => write!(f, "[{}]", self.index),
            name if above.is_root() => f.write_str(name),
            name => write!(f, ".{name}"),
        }
    }
}

/// An object of a built-in kind as it is read and written again.
pub fn built_in(of: &Type, object: Value, noticed: &mut Noticed) -> Value {
    let kept = |object: &Value, name: &str| object.get(name).cloned();
    let (version, kind) = (kept(&object, "apiVersion"), kept(&object, "kind"));
    let mut out = written(of, object, &ROOT, noticed).unwrap_or_else(|| Value::Object(Map::new()));
    if let Some(fields) = out.as_object_mut() {
        fields.extend(version.map(|v| ("apiVersion".to_string(), v)));
        fields.extend(kind.map(|k| ("kind".to_string(), k)));
    }
    out
}

fn written(of: &Type, value: Value, at: &At<'_>, noticed: &mut Noticed) -> Option<Value> {
    let mut misfit = |value: &Value| {
        noticed.misfit.get_or_insert_with(|| format!("{at}: {value} does not fit"));
    };
    match (of, value) {
        (_, Value::Null) => None,
        (Type::Untyped, value) => Some(value),
        (Type::Struct(s), Value::Object(fields)) => {
            Some(Value::Object(struct_written(s, fields, at, noticed)))
        }
        (Type::Map { of, .. }, Value::Object(fields)) => {
            let entry = |(name, value): (String, Value)| {
                let value = match written(of, value, &at.field(&name), noticed) {
                    Some(value) => value,
                    None => zero(of),
                };
                (name, value)
            };
            Some(Value::Object(fields.into_iter().map(entry).collect()))
        }
        (Type::List { of, .. }, Value::Array(items)) => {
            let items = items
                .into_iter()
                .enumerate()
                .map(|(i, item)| written(of, item, &at.item(i), noticed).unwrap_or_else(|| zero(of)));
            Some(Value::Array(items.collect()))
        }
        (Type::Scalar(scalar), value) => match (scalar, &value) {
            (Scalar::Quantity, Value::String(_) | Value::Number(_)) => {
                let text = value.as_str().map_or_else(|| value.to_string(), str::to_string);
                match quantity(&text) {
                    Some(text) => Some(text.into()),
                    None => {
                        misfit(&value);
                        Some(value)
                    }
                }
            }
            (Scalar::Bytes, Value::String(text)) => match bytes(text) {
                Some(text) => Some(text.into()),
                None => {
                    noticed.misfit.get_or_insert_with(|| "illegal base64 data at input byte 0".into());
                    Some(value)
                }
            },
            (Scalar::Text | Scalar::Time | Scalar::MicroTime, Value::String(_))
            | (Scalar::Number, Value::Number(_))
            | (Scalar::Bool, Value::Bool(_))
            | (Scalar::Any, Value::String(_) | Value::Number(_)) => Some(value),
            _ => {
                misfit(&value);
                Some(value)
            }
        },
        (_, value) => {
            misfit(&value);
            Some(value)
        }
    }
}

fn struct_written(
    s: &Struct,
    mut fields: Map<String, Value>,
    at: &At<'_>,
    noticed: &mut Noticed,
) -> Map<String, Value> {
    let mut out = Map::new();
    for (name, field) in &s.fields {
        let below = at.field(name);
        let value = fields.remove(name).and_then(|value| written(&field.of, value, &below, noticed));
        match (field.mark, value) {
            (Mark::NotEmpty, Some(value)) if is_zero(&value) => {}
            (_, Some(value)) => drop(out.insert(name.clone(), value)),
            (Mark::Always, None) => drop(out.insert(name.clone(), zero(&field.of))),
            (_, None) => {}
        }
    }
    for name in fields.keys() {
        let managed = name == "managedFields" && at.name == "metadata";
        let typed = at.is_root() && (name == "apiVersion" || name == "kind");
        if managed {
            out.insert(name.clone(), fields[name].clone());
        } else if !typed {
            noticed.unknown.push(at.field(name).to_string());
        }
    }
    out
}

fn zero(of: &Type) -> Value {
    match of {
        Type::Struct(s) => Value::Object(struct_written(s, Map::new(), &ROOT, &mut Noticed::default())),
        Type::Scalar(Scalar::Text) => "".into(),
        Type::Scalar(Scalar::Quantity) => "0".into(),
        Type::Scalar(Scalar::Number | Scalar::Any) => 0.into(),
        Type::Scalar(Scalar::Bool) => false.into(),
        _ => Value::Null,
    }
}

fn is_zero(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::String(text) => text.is_empty(),
        Value::Number(n) => n.as_f64() == Some(0.0),
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        Value::Bool(true) => false,
    }
}

/// A custom resource as it is read: `null` goes, defaults come, what no schema has goes. Metadata is as everywhere.
pub fn custom(of: &Type, mut object: Value, read: bool, noticed: &mut Noticed) -> Value {
    if let Type::Struct(s) = of
        && let Some(meta) = object.get_mut("metadata").map(Value::take)
    {
        let meta = written(&s.fields["metadata"].of, meta, &ROOT.field("metadata"), noticed);
        object["metadata"] = meta.unwrap_or_else(|| Value::Object(Map::new()));
    }
    structural(of, &mut object, &ROOT, read, noticed);
    object
}

fn structural(of: &Type, value: &mut Value, at: &At<'_>, read: bool, noticed: &mut Noticed) {
    match (of, value) {
        (Type::Struct(s), Value::Object(fields)) => {
            fields.retain(|name, value| {
                let known = s.fields.get(name);
                let declared = known.is_some() || s.open;
                if !declared {
                    noticed.unknown.push(at.field(name).to_string());
                }
                declared
                    && (!value.is_null() || !read || known.is_none_or(|f| f.nullable || f.default.is_some()))
            });
            for (name, field) in &s.fields {
                if at.is_root() && name == "metadata" {
                    continue;
                }
                if let Some(default) = &field.default
                    && fields.get(name).is_none_or(|v| v.is_null() && !field.nullable)
                {
                    fields.insert(name.clone(), default.clone());
                }
                if let Some(value) = fields.get_mut(name) {
                    structural(&field.of, value, &at.field(name), read, noticed);
                }
            }
        }
        (Type::Map { of, .. }, Value::Object(fields)) => {
            fields.retain(|_, value| !read || !value.is_null());
            for (name, value) in fields.iter_mut() {
                structural(of, value, &at.field(name), read, noticed);
            }
        }
        (Type::List { of, .. }, Value::Array(items)) => {
            for (i, item) in items.iter_mut().enumerate() {
                structural(of, item, &at.item(i), read, noticed);
            }
        }
        _ => {}
    }
}

fn bytes(text: &str) -> Option<String> {
    use base64::Engine;
    let plain: String = text.chars().filter(|c| !matches!(c, '\n' | '\r')).collect();
    let engine = &base64::engine::general_purpose::STANDARD;
    Some(engine.encode(engine.decode(plain).ok()?))
}

/// Powers of ten and of 1024, the largest first.
const DECIMAL: [(&str, i32); 10] =
    [("E", 18), ("P", 15), ("T", 12), ("G", 9), ("M", 6), ("k", 3), ("", 0), ("m", -3), ("u", -6), ("n", -9)];
const BINARY: [(&str, u32); 6] = [("Ei", 60), ("Pi", 50), ("Ti", 40), ("Gi", 30), ("Mi", 20), ("Ki", 10)];

/// An amount in the one way that the server writes it; `None` if it is none.
pub fn quantity(text: &str) -> Option<String> {
    let end = text.find(|c: char| !c.is_ascii_digit() && !matches!(c, '.' | '+' | '-')).unwrap_or(text.len());
    let (number, suffix) = text.split_at(end);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let negative = whole.starts_with('-');
    let digits = whole.trim_start_matches(['+', '-']);
    if digits.is_empty() && fraction.is_empty() || fraction.len() > 9 {
        return None;
    }
    let parse = |text: &str| if text.is_empty() { Some(0) } else { text.parse::<i128>().ok() };
    // In units of 10^-9.
    let mut nano = parse(digits)?.checked_mul(1_000_000_000)?;
    nano += parse(fraction)?.checked_mul(10_i128.pow(9 - fraction.len() as u32))?;
    let mut binary = false;
    if let Some((_, power)) = BINARY.iter().find(|(name, _)| *name == suffix) {
        nano = nano.checked_mul(1_i128 << power)?;
        binary = true;
    } else if let Some((_, power)) = DECIMAL.iter().find(|(name, _)| *name == suffix) {
        nano = match power {
            0.. => nano.checked_mul(10_i128.pow(*power as u32))?,
            _ => nano / 10_i128.pow(power.unsigned_abs()),
        };
    } else if let Some(power) = suffix.strip_prefix(['e', 'E']).and_then(|p| p.parse::<i32>().ok()) {
        nano = match power {
            0.. => nano.checked_mul(10_i128.checked_pow(power as u32)?)?,
            _ => nano / 10_i128.checked_pow(power.unsigned_abs())?,
        };
    } else {
        return None;
    }
    let sign = if negative && nano != 0 { "-" } else { "" };
    if nano == 0 {
        return Some("0".into());
    }
    if binary && nano % 1_000_000_000 == 0 && nano / 1_000_000_000 >= 1024 {
        let whole = nano / 1_000_000_000;
        for (name, power) in BINARY {
            if whole % (1_i128 << power) == 0 {
                return Some(format!("{sign}{}{name}", whole >> power));
            }
        }
        return Some(format!("{sign}{whole}"));
    }
    for (name, power) in DECIMAL {
        let unit = 10_i128.pow((power + 9) as u32);
        if nano % unit == 0 {
            return Some(format!("{sign}{}{name}", nano / unit));
        }
    }
    None
}
