//! YAML text as `kubectl` reads it: JSON values, one for each document, with the lines they stand on.
//!
//! The parser under `serde-saphyr` gives the events, and this module composes the values, since what is needed here
//! is lost above the events: whether a scalar is quoted, its tag, its line. What a scalar means is in [`scalar`].
//!
//! Some things are read on purpose unlike `sigs.k8s.io/yaml` reads them:
//! - A key that overrides one that came by a merge (`<<`) is accepted, which is what merges are for. A merge
//!   *below* such a key is refused, since readers disagree about which of the two wins.
//! - Keys that become equal as JSON (`1` and `"1"`) are duplicates; Go keeps one of them by chance.
//! - `!!binary` of what is no UTF-8 text is refused; Go would change the data.
//! - The characters U+0085, U+2028 and U+2029 are refused outside of escapes: line breaks for some, text for others.
//! - A key over several lines is refused, after a `?` too.
//! - The second line of a quoted text must be indented more than its key.
//! - Accepted, though Go's reader knows them not: `\/` and surrogate pairs as escapes in double quotes (JSON has both), and
//!   `%YAML 1.2`.
//!
//! Errors never quote the text: it can hold secrets.

mod scalar;

use granit_parser::{Event, Parser, ScalarStyle, Span, StructureStyle};
use scalar::{Scalar, ScalarError};
use serde_json::{Map, Value};
use std::collections::{BTreeMap, HashMap, HashSet};

/// Bounds of what one text may expand to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Levels of mappings and lists within each other, those behind aliases included.
    pub depth: usize,
    /// Values that may come from aliases in one document.
    pub alias_values: usize,
    /// Bytes of text that may come from aliases in one document.
    pub alias_bytes: usize,
}

impl Default for Limits {
    /// 200 levels, 400,000 values (what Go's reader allows), 16 MiB.
    fn default() -> Self {
        Limits { depth: 200, alias_values: 400_000, alias_bytes: 16 << 20 }
    }
}

/// One document of a text.
#[derive(Clone, Debug, PartialEq)]
pub struct Document {
    /// Its value; `null` for an empty document.
    pub value: Value,
    /// Line of its first value in the text, from 1.
    pub line: usize,
    /// How the strings are written that were asked for: see [`Keep`].
    pub strings: Marks,
    /// Lines of the elements of a top-level `items`, for lists of objects.
    pub item_lines: Vec<usize>,
}

/// How a string is written in the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StringMark {
    /// Its line, from 1.
    pub line: usize,
    /// Whether it is written without quotes and tag, so that its text decides its type.
    pub plain: bool,
}

/// How strings of a value are written: a tree beside the value's own, with the branches that lead to such a string.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Marks {
    own: Option<StringMark>,
    below: BTreeMap<String, Marks>,
}

impl Marks {
    /// The mark of the value itself.
    pub fn own(&self) -> Option<StringMark> {
        self.own
    }

    /// The marks below a key of a mapping, or below an index of a list written as a decimal number.
    pub fn below(&self, segment: &str) -> Option<&Marks> {
        self.below.get(segment)
    }

    /// The marks below each key or index.
    pub fn branches(&self) -> impl Iterator<Item = (&str, &Marks)> {
        self.below.iter().map(|(segment, marks)| (segment.as_str(), marks))
    }

    /// The marks below each key or index, to be changed.
    pub fn branches_mut(&mut self) -> impl Iterator<Item = (&str, &mut Marks)> {
        self.below.iter_mut().map(|(segment, marks)| (segment.as_str(), marks))
    }

    /// Sets the mark of the value itself, where it has one.
    pub fn set(&mut self, mark: StringMark) {
        if self.own.is_some() {
            self.own = Some(mark);
        }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.own.is_none() && self.below.is_empty()
    }

    /// Takes the marks below a key or index out.
    pub fn take(&mut self, segment: &str) -> Marks {
        self.below.remove(segment).unwrap_or_default()
    }

    fn put(&mut self, segment: String, marks: Marks) {
        if !marks.is_empty() {
            self.below.insert(segment, marks);
        }
    }
}

/// Which strings are noted in [`Document::strings`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// Those that hold `${`.
    Variables,
    /// All.
    All,
}

/// Why a text is not read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}, column {column}: {problem}")]
pub struct YamlError {
    /// Line in the text, from 1.
    pub line: usize,
    /// Column, from 1.
    pub column: usize,
    /// What is wrong there.
    pub problem: Problem,
}

/// What is wrong with a text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// The text is no YAML.
    #[error("{0}")]
    Syntax(String),
    /// A mapping has a key twice.
    #[error("the key \"{key}\" stands here a second time; the first is in line {first}")]
    DuplicateKey {
        /// The key.
        key: String,
        /// Line of the first.
        first: usize,
    },
    /// A `<<` below a key that it holds too.
    #[error("this merge holds the key \"{key}\", which line {first} has set already; put `<<` above it")]
    MergeBelow {
        /// The key.
        key: String,
        /// Line of the key or of the other merge.
        first: usize,
    },
    /// `<<` with something else than a mapping or a list of mappings.
    #[error("`<<` takes a mapping or a list of mappings")]
    MergeValue,
    /// A mapping or list as a key.
    #[error("a key must be a scalar")]
    KeyNotScalar,
    /// A scalar as a key that goes over several lines.
    #[error("a key must stand on one line")]
    KeyLines,
    /// A tab before the first thing in a line.
    #[error("the line is indented with a tab; indent with spaces")]
    Tab,
    /// A character that is a line break for some readers and text for others.
    #[error(
        "this character (U+0085, U+2028 or U+2029) is a line break for some readers of YAML; write it as an escape in double quotes"
    )]
    LineBreak,
    /// `---` with text right behind it.
    #[error("`---` must stand alone in its line, or with a blank behind it")]
    Separator,
    /// An anchor with a name that readers take differently.
    #[error("an anchor's name has letters, digits, `-` and `_` only")]
    Anchor,
    /// `null`, or an integer above 63 bits, as a key.
    #[error("this key has a type that no key can have; put it in quotes")]
    KeyType,
    /// A tag names a type that the text is not of.
    #[error("the value is not of the type that its tag names")]
    Tag,
    /// `!!binary` with something else than text as base64.
    #[error(
        "!!binary takes base64 of UTF-8 text; for other data use a Secret's data or a ConfigMap's binaryData"
    )]
    Binary,
    /// `.nan` or `.inf`.
    #[error("JSON has no infinity and no not-a-number")]
    NotANumber,
    /// An anchor within itself.
    #[error("the alias stands within its own anchor")]
    SelfAlias,
    /// More levels than [`Limits::depth`].
    #[error("more than {0} levels of nesting")]
    TooDeep(usize),
    /// More than [`Limits`] lets aliases make.
    #[error("aliases expand to too much; write fewer of them")]
    TooManyAliases,
}

/// Next line, line separator, paragraph separator: line breaks for readers of YAML 1.1 (`kubectl`), text for those of 1.2.
const LINE_BREAKS_OF_YAML_1_1: [char; 3] = ['\u{85}', '\u{2028}', '\u{2029}'];

/// Reads all documents of a text.
pub fn parse(text: &str, keep: Keep, limits: &Limits) -> Result<Vec<Document>, YamlError> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut options = granit_parser::Options::default();
    options.flow_nesting_limit = limits.depth;
    options.block_nesting_limit = limits.depth;
    options.set_emit_comments(false);
    options.emit_anchor_events = true;
    if let Some(at) = text.find(LINE_BREAKS_OF_YAML_1_1) {
        let line_start = text[..at].rfind('\n').map_or(0, |newline| newline + 1);
        return Err(YamlError {
            line: 1 + text[..at].matches('\n').count(),
            column: 1 + text[line_start..at].chars().count(),
            problem: Problem::LineBreak,
        });
    }
    let mut documents = Vec::new();
    let mut composer = Composer::new(text, keep, limits);
    for event in Parser::new_from_str_with_options(text, options) {
        let (event, span) = event.map_err(|error| YamlError {
            line: error.marker().line().max(1),
            column: error.marker().col() + 1,
            problem: Problem::Syntax(error.kind().to_string()),
        })?;
        if let Some(document) = composer.event(event, &span)? {
            documents.push(document);
        }
    }
    Ok(documents)
}

/// Reads a text as a scalar without quotes, as if it stood in a manifest. A float that JSON does not have stays text.
pub fn plain_scalar(text: &str) -> Value {
    scalar::plain(text).into_value().unwrap_or_else(|_| Value::String(text.to_owned()))
}

/// A composed value with what limits need to know about it.
#[derive(Clone, Debug)]
struct Node {
    value: Value,
    /// The value as a key, for scalars: `0x1` is the value 1 and the key "1".
    key: Option<Result<String, ScalarError>>,
    size: Size,
    is_merge: bool,
    marks: Marks,
}

/// What a node weighs once it is copied.
#[derive(Clone, Copy, Debug, Default)]
struct Size {
    values: usize,
    bytes: usize,
    levels: usize,
}

enum Frame {
    List {
        items: Vec<Value>,
    },
    Mapping {
        fields: Map<String, Value>,
        origin: HashMap<String, (usize, FieldFrom)>,
        key: Option<(Node, usize, usize)>,
    },
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum FieldFrom {
    Here,
    Merge(usize),
}

struct Level {
    frame: Frame,
    /// Whether it is written with brackets, where indentation means nothing.
    flow: bool,
    anchor: usize,
    size: Size,
    marks: Marks,
    line: usize,
    column: usize,
}

struct Composer<'l> {
    text: &'l str,
    keep: Keep,
    limits: &'l Limits,
    levels: Vec<Level>,
    anchors: HashMap<usize, Node>,
    open_anchors: HashSet<usize>,
    alias_values: usize,
    alias_bytes: usize,
    root: Option<(Node, usize)>,
    document_line: usize,
    item_lines: Vec<usize>,
}

impl<'l> Composer<'l> {
    fn new(text: &'l str, keep: Keep, limits: &'l Limits) -> Self {
        Composer {
            text,
            keep,
            limits,
            levels: Vec::new(),
            anchors: HashMap::new(),
            open_anchors: HashSet::new(),
            alias_values: 0,
            alias_bytes: 0,
            root: None,
            document_line: 1,
            item_lines: Vec::new(),
        }
    }

    fn event(&mut self, event: Event<'_>, span: &Span) -> Result<Option<Document>, YamlError> {
        let (line, column) = (span.start.line().max(1), span.start.col() + 1);
        let fail = |problem| YamlError { line, column, problem };
        match event {
            Event::Scalar(..) | Event::SequenceStart(..) | Event::MappingStart(..)
                if self.is_after_tab(span) =>
            {
                return Err(fail(Problem::Tab));
            }
            Event::Scalar(..) if self.expects_key() && span.end.line() != span.start.line() => {
                return Err(fail(Problem::KeyLines));
            }
            // `&a:` is the anchor "a:" in YAML 1.2, and the anchor "a" of an empty key in YAML 1.1.
            Event::Anchor(_, name)
                if !name.chars().all(|c| c.is_ascii_alphanumeric() || "_-".contains(c)) =>
            {
                return Err(fail(Problem::Anchor));
            }
            // `---b: 2` is the key "---b" for YAML, and a mistake for people and for `kubectl`.
            Event::Scalar(text, ScalarStyle::Plain, ..) if column == 1 && text.starts_with("---") => {
                return Err(fail(Problem::Separator));
            }
            Event::DocumentStart(..) => self.document_line = line,
            Event::DocumentEnd => return Ok(Some(self.finish())),
            Event::Scalar(text, style, anchor, tag) => {
                let quoted = style != ScalarStyle::Plain;
                let tag = tag.map(|t| format!("{}{}", t.handle(), t.suffix()));
                let node = self.scalar(&text, quoted, tag.as_deref(), line).map_err(|e| fail(e.into()))?;
                self.note_item(line);
                self.add(node, anchor, line, column)?;
            }
            Event::SequenceStart(style, anchor, _) => {
                self.open(Frame::List { items: Vec::new() }, style, anchor, line, column)?;
            }
            Event::MappingStart(style, anchor, _) => {
                let frame = Frame::Mapping { fields: Map::new(), origin: HashMap::new(), key: None };
                self.open(frame, style, anchor, line, column)?;
            }
            Event::SequenceEnd | Event::MappingEnd => self.close()?,
            Event::Alias(id) => {
                if self.open_anchors.contains(&id) {
                    return Err(fail(Problem::SelfAlias));
                }
                self.note_item(line);
                let node = self.alias(id).ok_or_else(|| fail(Problem::TooManyAliases))?;
                if self.levels.len() + node.size.levels > self.limits.depth {
                    return Err(fail(Problem::TooDeep(self.limits.depth)));
                }
                self.add(node, 0, line, column)?;
            }
            _ => {}
        }
        Ok(None)
    }

    /// The end of a document; what was gathered for it is dropped.
    fn finish(&mut self) -> Document {
        self.anchors.clear();
        self.open_anchors.clear();
        self.levels.clear();
        self.alias_values = 0;
        self.alias_bytes = 0;
        let item_lines = std::mem::take(&mut self.item_lines);
        match self.root.take() {
            Some((node, line)) => Document { value: node.value, line, strings: node.marks, item_lines },
            None => Document {
                value: Value::Null,
                line: self.document_line,
                strings: Marks::default(),
                item_lines,
            },
        }
    }

    fn scalar(&self, text: &str, quoted: bool, tag: Option<&str>, line: usize) -> Result<Node, ScalarError> {
        let scalar = match tag {
            // A key or value that only its quotes or its lack of a tag make a merge.
            Some(tag) => scalar::tagged(tag, text)?,
            None if quoted => Scalar::Text(text.to_owned()),
            None => scalar::plain(text),
        };
        let is_merge = text == "<<" && ((!quoted && tag.is_none()) || tag == Some("tag:yaml.org,2002:merge"));
        let key = Some(scalar.clone().into_key());
        let marks = match &scalar {
            Scalar::Text(text) if self.keep == Keep::All || text.contains("${") => {
                Marks { own: Some(StringMark { line, plain: !quoted && tag.is_none() }), ..Marks::default() }
            }
            _ => Marks::default(),
        };
        let bytes = text.len();
        let value = match scalar.into_value() {
            Ok(value) => value,
            // A key may be infinite, a value may not: refused where it turns out to be a value.
            Err(ScalarError::NotANumber) if self.expects_key() => Value::Null,
            Err(error) => return Err(error),
        };
        Ok(Node { value, key, size: Size { values: 1, bytes, levels: 0 }, is_merge, marks })
    }

    /// Whether a node is the first in its line and has a tab before it, which `kubectl` refuses outside of brackets.
    fn is_after_tab(&self, span: &Span) -> bool {
        if self.levels.last().is_some_and(|level| level.flow) {
            return false;
        }
        let before = span.start.byte_offset().and_then(|at| self.text.get(..at)).unwrap_or_default();
        let blanks = before.len() - before.trim_end_matches([' ', '\t']).len();
        let (rest, blanks) = before.split_at(before.len() - blanks);
        blanks.contains('\t') && (rest.is_empty() || rest.ends_with(['\n', '\r']))
    }

    fn expects_key(&self) -> bool {
        matches!(self.levels.last(), Some(Level { frame: Frame::Mapping { key: None, .. }, .. }))
    }

    /// A copy of what an anchor names, or `None` above the limits.
    fn alias(&mut self, id: usize) -> Option<Node> {
        let node = self.anchors.get(&id)?;
        self.alias_values = self.alias_values.saturating_add(node.size.values);
        self.alias_bytes = self.alias_bytes.saturating_add(node.size.bytes);
        let within =
            self.alias_values <= self.limits.alias_values && self.alias_bytes <= self.limits.alias_bytes;
        within.then(|| Node { is_merge: false, ..node.clone() })
    }

    fn open(
        &mut self,
        frame: Frame,
        style: StructureStyle,
        anchor: usize,
        line: usize,
        column: usize,
    ) -> Result<(), YamlError> {
        if self.levels.len() >= self.limits.depth {
            return Err(YamlError { line, column, problem: Problem::TooDeep(self.limits.depth) });
        }
        if self.expects_key() {
            return Err(YamlError { line, column, problem: Problem::KeyNotScalar });
        }
        self.note_item(line);
        if anchor != 0 {
            self.open_anchors.insert(anchor);
        }
        let size = Size { values: 1, bytes: 0, levels: 1 };
        let flow = style == StructureStyle::Flow;
        self.levels.push(Level { frame, flow, anchor, size, marks: Marks::default(), line, column });
        Ok(())
    }

    /// Notes the line of an element of the document's own `items`.
    fn note_item(&mut self, line: usize) {
        let [
            Level { frame: Frame::Mapping { key: Some((key, ..)), .. }, .. },
            Level { frame: Frame::List { .. }, .. },
        ] = self.levels.as_slice()
        else {
            return;
        };
        if key.value == "items" {
            self.item_lines.push(line);
        }
    }

    fn close(&mut self) -> Result<(), YamlError> {
        let Some(level) = self.levels.pop() else { return Ok(()) };
        let value = match level.frame {
            Frame::List { items } => Value::Array(items),
            Frame::Mapping { fields, .. } => Value::Object(fields),
        };
        self.open_anchors.remove(&level.anchor);
        let node = Node { value, key: None, size: level.size, is_merge: false, marks: level.marks };
        self.add(node, level.anchor, level.line, level.column)
    }

    /// Puts a complete node into what is open, or makes it the document.
    fn add(&mut self, node: Node, anchor: usize, line: usize, column: usize) -> Result<(), YamlError> {
        if anchor != 0 {
            self.anchors.insert(anchor, Node { is_merge: false, ..node.clone() });
        }
        let Some(level) = self.levels.last_mut() else {
            self.root = Some((node, line));
            return Ok(());
        };
        let fail = |problem| YamlError { line, column, problem };
        level.size.values += node.size.values;
        level.size.bytes += node.size.bytes;
        level.size.levels = level.size.levels.max(node.size.levels + 1);
        match &mut level.frame {
            Frame::List { items } => {
                level.marks.put(items.len().to_string(), node.marks);
                items.push(node.value);
            }
            Frame::Mapping { key: pending @ None, .. } => {
                if node.key.is_none() {
                    return Err(fail(Problem::KeyNotScalar));
                }
                *pending = Some((node, line, column));
            }
            Frame::Mapping { fields, origin, key: pending } => {
                let Some((key, key_line, key_column)) = pending.take() else { return Ok(()) };
                let at_key = |problem| YamlError { line: key_line, column: key_column, problem };
                if key.is_merge {
                    return merge(fields, origin, &mut level.marks, node, key_line).map_err(at_key);
                }
                let name = match key.key {
                    Some(Ok(name)) => name,
                    _ => return Err(at_key(Problem::KeyType)),
                };
                if let Some(&(first, FieldFrom::Here)) = origin.get(&name) {
                    return Err(at_key(Problem::DuplicateKey { key: name, first }));
                }
                origin.insert(name.clone(), (key_line, FieldFrom::Here));
                level.marks.take(&name);
                level.marks.put(name.clone(), node.marks);
                fields.insert(name, node.value);
            }
        }
        Ok(())
    }
}

/// Takes over what `<<` brings: keys that stand here already win, and of a list the first mapping wins.
fn merge(
    fields: &mut Map<String, Value>,
    origin: &mut HashMap<String, (usize, FieldFrom)>,
    marks: &mut Marks,
    mut node: Node,
    line: usize,
) -> Result<(), Problem> {
    let sources: Vec<(Map<String, Value>, Marks)> = match node.value {
        Value::Object(map) => vec![(map, node.marks)],
        Value::Array(items) => items
            .into_iter()
            .enumerate()
            .map(|(i, item)| match item {
                Value::Object(map) => Ok((map, node.marks.take(&i.to_string()))),
                _ => Err(Problem::MergeValue),
            })
            .collect::<Result<_, _>>()?,
        _ => return Err(Problem::MergeValue),
    };
    for (map, mut of_map) in sources {
        for (key, value) in map {
            match origin.get(&key) {
                Some(&(_, FieldFrom::Merge(of))) if of == line => continue,
                Some(&(first, _)) => return Err(Problem::MergeBelow { key, first }),
                None => {}
            }
            marks.put(key.clone(), of_map.take(&key));
            origin.insert(key.clone(), (line, FieldFrom::Merge(line)));
            fields.insert(key, value);
        }
    }
    Ok(())
}

impl From<ScalarError> for Problem {
    fn from(error: ScalarError) -> Self {
        match error {
            ScalarError::Tag => Problem::Tag,
            ScalarError::Binary => Problem::Binary,
            ScalarError::NotANumber => Problem::NotANumber,
            ScalarError::Key => Problem::KeyType,
        }
    }
}

#[cfg(test)]
mod tests;
