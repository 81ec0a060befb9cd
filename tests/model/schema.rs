//! Types of objects: what server-side apply must know of them, and what is written of them.

use serde_json::Value;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, OnceLock};

/// A type.
#[derive(Clone, Debug)]
pub enum Type {
    /// One value without parts.
    Scalar(Scalar),
    /// Fields that are known by name.
    Struct(Struct),
    /// Any keys, values of one type.
    Map {
        /// Of what.
        of: Arc<Type>,
        /// The whole counts as one value.
        atomic: bool,
    },
    /// Items of one type.
    List {
        /// Of what.
        of: Arc<Type>,
        /// What tells one item from another.
        kind: ListKind,
    },
    /// No schema: a map is a map, a list counts as one value.
    Untyped,
}

/// Fields that are known by name.
#[derive(Clone, Debug, Default)]
pub struct Struct {
    /// The fields.
    pub fields: BTreeMap<String, Field>,
    /// The whole counts as one value.
    pub atomic: bool,
    /// Other fields are taken too, without a schema.
    pub open: bool,
}

/// A field of a struct.
#[derive(Clone, Debug)]
pub struct Field {
    /// Its type.
    pub of: Arc<Type>,
    /// When it is written.
    pub mark: Mark,
    /// Its default; of built-in kinds only that of a key of a list.
    pub default: Option<Value>,
    /// A `null` stays (custom resources).
    pub nullable: bool,
}

/// When a field is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    /// If it is not empty, zero or false.
    NotEmpty,
    /// If it was given.
    Given,
    /// Always.
    Always,
}

/// Kinds of scalars.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scalar {
    /// A string.
    Text,
    /// A number.
    Number,
    /// True or false.
    Bool,
    /// A number or a string.
    Any,
    /// An amount such as `500m`.
    Quantity,
    /// Base64.
    Bytes,
    /// A time in seconds.
    Time,
    /// A time in microseconds.
    MicroTime,
}

/// What tells items of a list apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListKind {
    /// Nothing: the list counts as one value.
    Atomic,
    /// Their value.
    Set,
    /// The values of these fields.
    Keyed(Vec<String>),
}

impl Type {
    /// The type of a field or key, if it may be there.
    pub fn field(&self, name: &str) -> Option<&Type> {
        match self {
            Type::Struct(s) => match s.fields.get(name) {
                Some(field) => Some(&field.of),
                None if s.open => Some(&Type::Untyped),
                None => None,
            },
            Type::Map { of, .. } => Some(of),
            Type::Untyped => Some(&Type::Untyped),
            _ => None,
        }
    }

    /// Whether this is a field of a struct by its schema.
    pub fn has_named(&self, name: &str) -> bool {
        matches!(self, Type::Struct(s) if s.fields.contains_key(name))
    }

    /// The type of items, and what tells them apart.
    pub fn items(&self) -> Option<(&Type, &ListKind)> {
        match self {
            Type::List { of, kind } => Some((of, kind)),
            _ => None,
        }
    }

    /// The same, counting as one value.
    fn atomic(&self) -> Type {
        match self {
            Type::Struct(s) => Type::Struct(Struct { atomic: true, ..s.clone() }),
            Type::Map { of, .. } => Type::Map { of: of.clone(), atomic: true },
            other => other.clone(),
        }
    }
}

/// A type of the table by its name.
pub fn built_in(name: &str) -> Arc<Type> {
    static TABLE: OnceLock<HashMap<String, Arc<Type>>> = OnceLock::new();
    let table = TABLE.get_or_init(|| {
        let (_, types) = include_str!("types.txt").split_once("\n\n").unwrap();
        Reader::read(&types.split_whitespace().collect::<Vec<_>>().join(" "))
    });
    table.get(name).unwrap_or_else(|| panic!("no type {name}")).clone()
}

/// Reads the table.
struct Reader<'a> {
    texts: HashMap<&'a str, &'a str>,
    done: HashMap<String, Arc<Type>>,
}

impl<'a> Reader<'a> {
    fn read(text: &'a str) -> HashMap<String, Arc<Type>> {
        let mut reader = Reader { texts: HashMap::new(), done: HashMap::new() };
        let mut rest = text;
        while let Some((name, after)) = rest.split_once(" { ") {
            let end = after.find(" }").unwrap();
            reader.texts.insert(name.trim(), &after[..end]);
            rest = after[end + 2..].trim_start();
        }
        let names: Vec<&str> = reader.texts.keys().copied().collect();
        for name in names {
            reader.named(name);
        }
        reader.done
    }

    fn named(&mut self, name: &str) -> Arc<Type> {
        if let Some(known) = self.done.get(name) {
            return known.clone();
        }
        let text = *self.texts.get(name).unwrap_or_else(|| panic!("types.txt: no {name}"));
        let mut fields = BTreeMap::new();
        for field in text.split(',') {
            let (name, of) = field.trim().split_once(": ").unwrap_or_else(|| panic!("types.txt: {field}"));
            let (of, default) = match of.split_once('=') {
                Some((of, default)) => (of, Some(serde_json::from_str(default).unwrap())),
                None => (of, None),
            };
            let (name, mark) = match (name.strip_suffix('*'), name.strip_suffix('!')) {
                (Some(name), _) => (name, Mark::Given),
                (_, Some(name)) => (name, Mark::Always),
                _ => (name, Mark::NotEmpty),
            };
            let of = self.expression(of);
            fields.insert(name.to_string(), Field { of, mark, default, nullable: false });
        }
        let of = Arc::new(Type::Struct(Struct { fields, ..Struct::default() }));
        self.done.insert(name.to_string(), of.clone());
        of
    }

    fn expression(&mut self, text: &str) -> Arc<Type> {
        let text = text.trim();
        if let Some(inner) = text.strip_prefix('~') {
            return Arc::new(self.expression(inner).atomic());
        }
        if let Some(inner) = text.strip_prefix('{') {
            return Arc::new(Type::Map {
                of: self.expression(inner.strip_suffix('}').unwrap()),
                atomic: false,
            });
        }
        if let Some(inner) = text.strip_prefix('[') {
            let inner = inner.strip_suffix(']').unwrap();
            let (of, kind) = match (inner.strip_suffix(" set"), inner.split_once(" by ")) {
                (Some(of), _) => (of, ListKind::Set),
                (_, Some((of, keys))) => (of, ListKind::Keyed(keys.split('+').map(str::to_string).collect())),
                _ => (inner, ListKind::Atomic),
            };
            return Arc::new(Type::List { of: self.expression(of), kind });
        }
        let scalar = match text {
            "text" => Scalar::Text,
            "int" => Scalar::Number,
            "bool" => Scalar::Bool,
            "any" => Scalar::Any,
            "quantity" => Scalar::Quantity,
            "bytes" => Scalar::Bytes,
            "time" => Scalar::Time,
            "microtime" => Scalar::MicroTime,
            "raw" => return Arc::new(Type::Untyped),
            name => return self.named(name),
        };
        Arc::new(Type::Scalar(scalar))
    }
}

/// The type of a custom resource, from the OpenAPI schema of its definition.
pub fn of_definition(schema: &Value) -> Arc<Type> {
    let mut of = from_open_api(schema);
    if let Type::Struct(s) = &mut of {
        let meta = Field { of: built_in("ObjectMeta"), mark: Mark::Given, default: None, nullable: false };
        s.fields.insert("metadata".into(), meta);
        for name in ["apiVersion", "kind"] {
            let of = Arc::new(Type::Scalar(Scalar::Text));
            s.fields.insert(name.into(), Field { of, mark: Mark::Given, default: None, nullable: false });
        }
    }
    Arc::new(of)
}

fn from_open_api(schema: &Value) -> Type {
    let flag = |name: &str| schema[name] == true;
    let text = |name: &str| schema[name].as_str().unwrap_or_default();
    if flag("x-kubernetes-int-or-string") {
        return Type::Scalar(Scalar::Any);
    }
    let atomic = text("x-kubernetes-map-type") == "atomic";
    match text("type") {
        "string" => Type::Scalar(Scalar::Text),
        "integer" | "number" => Type::Scalar(Scalar::Number),
        "boolean" => Type::Scalar(Scalar::Bool),
        "array" => {
            let kind = match text("x-kubernetes-list-type") {
                "set" => ListKind::Set,
                "map" => {
                    let keys = schema["x-kubernetes-list-map-keys"].as_array().into_iter().flatten();
                    ListKind::Keyed(keys.filter_map(Value::as_str).map(str::to_string).collect())
                }
                _ => ListKind::Atomic,
            };
            Type::List { of: Arc::new(from_open_api(&schema["items"])), kind }
        }
        "object" if schema["additionalProperties"].is_object() => {
            Type::Map { of: Arc::new(from_open_api(&schema["additionalProperties"])), atomic }
        }
        "object" => {
            let open = flag("x-kubernetes-preserve-unknown-fields");
            let Some(properties) = schema["properties"].as_object() else {
                return if open {
                    Type::Untyped
                } else {
                    Type::Struct(Struct { atomic, ..Struct::default() })
                };
            };
            let fields = properties.iter().map(|(name, of)| {
                let default = of.get("default").cloned();
                let nullable = of["nullable"] == true;
                let of = Arc::new(from_open_api(of));
                (name.clone(), Field { of, mark: Mark::Given, default, nullable })
            });
            Type::Struct(Struct { fields: fields.collect(), atomic, open })
        }
        _ => Type::Untyped,
    }
}
