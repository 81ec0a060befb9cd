//! Rules in CEL, over one object or a few values, bounded in length, depth and work.
//!
//! They come from whoever may write a Delivery, so none of them may hold up or bring down the daemon. An expression is
//! short, its tree is shallow, and the work that loops in it can cause is bounded by the size of the values, since
//! evaluation cannot be broken off.

mod numbers;

use cel::common::ast::{EntryExpr, Expr, IdedExpr};
use cel::objects::{Key, Map};
use cel::parser::PrattParser;
use cel::{Context, Value as Cel};
use serde_json::Value;
use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

/// Longest expression, in bytes.
pub const LONGEST: usize = 512;

/// Deepest tree of an expression: `a.b.c` has three levels.
const DEEPEST: usize = 40;

/// The variable of a rule over one object.
const OBJECT: &str = "object";

/// The work that an expression may cause: nodes of the values to the power of the loops within each other, and one more
/// for lists that are compared.
const WORK: f64 = 1e9;

/// Why an expression cannot be used, or says nothing about an object.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExpressionError {
    /// It is too long.
    #[error("the expression has {0} bytes, and may have {LONGEST}")]
    TooLong(usize),
    /// It nests too deeply.
    #[error("the expression nests more than {DEEPEST} levels deep; make it simpler")]
    TooDeep,
    /// It is no CEL.
    #[error("the expression is not valid CEL: {0}")]
    Syntax(String),
    /// It names something that is not there.
    #[error("the expression names \"{name}\", and only {known} is known")]
    Unknown {
        /// What it names.
        name: String,
        /// What there is, in words.
        known: String,
    },
    /// The values are too large for the loops in it.
    #[error("the object is too large for the loops in the expression; make it simpler")]
    TooMuchWork,
    /// It cannot be evaluated for this object, such as a field that is not there (yet).
    #[error("the expression has no value: {0}")]
    NoValue(String),
    /// Its value is something else.
    #[error("the expression is neither true nor false but {0}")]
    NotBoolean(&'static str),
    /// A part of it came to NaN or to infinity, of which every comparison says something, and nothing true.
    #[error("a part of the expression is {0}, which is no number")]
    NoNumber(&'static str),
    /// Where its parts cannot be looked at one by one, NaN would not be seen.
    #[error(
        "the expression divides, multiplies, subtracts or converts to double within a loop; do it outside"
    )]
    ArithmeticInLoop,
}

/// An expression over `object`, or over other variables, that is true or false.
#[derive(Debug)]
pub struct Expression {
    tree: IdedExpr,
    loops: i32,
}

impl Expression {
    /// Reads an expression over `object`.
    pub fn parse(text: &str) -> Result<Self, ExpressionError> {
        Self::parse_over(text, &[OBJECT])
    }

    /// Reads an expression over some variables.
    pub fn parse_over(text: &str, variables: &[&str]) -> Result<Self, ExpressionError> {
        if text.len() > LONGEST {
            return Err(ExpressionError::TooLong(text.len()));
        }
        let depth = u16::try_from(DEEPEST).unwrap_or(u16::MAX);
        let parser = PrattParser::new().max_recursion_depth(depth);
        let parsed = catch_unwind(AssertUnwindSafe(|| parser.parse(text)));
        let tree = match parsed {
            Ok(Ok(tree)) => tree,
            Ok(Err(errors)) => {
                let first = errors.errors.first();
                if first.is_some_and(|e| e.msg.contains("recursion limit")) {
                    return Err(ExpressionError::TooDeep);
                }
                let told = first.map_or_else(String::new, |e| format!("{} (column {})", e.msg, e.pos.1));
                return Err(ExpressionError::Syntax(told));
            }
            Err(_) => return Err(ExpressionError::Syntax("it cannot be read".into())),
        };
        let mut walk = Walk { deepest: 0, loops: 0, unknown: None };
        walk.visit(&tree, 1, 0, &mut variables.iter().map(|v| (*v).to_owned()).collect());
        if walk.deepest > DEEPEST {
            return Err(ExpressionError::TooDeep);
        }
        match walk.unknown {
            Some(name) => {
                let known = variables.iter().map(|v| format!("`{v}`")).collect::<Vec<_>>().join(", ");
                Err(ExpressionError::Unknown { name, known })
            }
            None => Ok(Expression { tree, loops: walk.loops }),
        }
    }

    /// Whether it is true of an object.
    pub fn holds(&self, object: &Value) -> Result<bool, ExpressionError> {
        truth(evaluate(&self.context(&[(OBJECT, object)])?, &self.tree)?)
    }

    /// The values for an evaluation, unless they are too large for it.
    fn context(&self, values: &[(&str, &Value)]) -> Result<Context<'static, 'static>, ExpressionError> {
        let size = values.iter().map(|(_, value)| nodes(value)).fold(0, u32::saturating_add);
        if self.loops > 0 && f64::from(size).powi(self.loops + 1) > WORK {
            return Err(ExpressionError::TooMuchWork);
        }
        let mut context = Context::default();
        for (name, value) in values {
            context.add_variable_from_value(*name, to_cel(value));
        }
        Ok(context)
    }
}

fn evaluate(context: &Context<'_, '_>, tree: &IdedExpr) -> Result<Cel, ExpressionError> {
    match catch_unwind(AssertUnwindSafe(|| context.resolve(tree))) {
        Ok(Ok(value)) => Ok(value),
        // The object may be a Secret: what is quoted is cut to the kind of error and the names in it.
        Ok(Err(error)) => Err(ExpressionError::NoValue(told(&error))),
        Err(_) => Err(ExpressionError::NoValue("it cannot be evaluated".into())),
    }
}

fn truth(value: Cel) -> Result<bool, ExpressionError> {
    match value {
        Cel::Bool(holds) => Ok(holds),
        other => Err(ExpressionError::NotBoolean(name_of(&other))),
    }
}

fn told(error: &cel::ExecutionError) -> String {
    use cel::ExecutionError::{NoSuchKey, NoSuchOverload, UndeclaredReference};
    match error {
        NoSuchKey(name) => format!("there is no field {name}"),
        UndeclaredReference(name) => format!("there is no function {name}"),
        NoSuchOverload { .. } => "a function or an operator does not take such values".into(),
        _ => "its parts do not fit together for this object".into(),
    }
}

fn name_of(value: &Cel) -> &'static str {
    match value {
        Cel::List(_) => "a list",
        Cel::Map(_) => "a map",
        Cel::Int(_) | Cel::UInt(_) | Cel::Float(_) => "a number",
        Cel::String(_) => "a text",
        Cel::Null => "null",
        _ => "something else",
    }
}

/// Looks at a tree once: how deep it is, how many loops stand within each other, and which names it uses.
struct Walk {
    deepest: usize,
    loops: i32,
    unknown: Option<String>,
}

impl Walk {
    fn visit(&mut self, tree: &IdedExpr, depth: usize, loops: i32, bound: &mut Vec<String>) {
        self.deepest = self.deepest.max(depth);
        self.loops = self.loops.max(loops);
        // Whatever is below is refused anyhow, and the walk itself stays shallow.
        if depth > DEEPEST {
            return;
        }
        let depth = depth + 1;
        match &tree.expr {
            Expr::Unspecified | Expr::Literal(_) => {}
            Expr::Ident(name) => {
                if !bound.contains(name) && self.unknown.is_none() {
                    self.unknown = Some(name.clone());
                }
            }
            Expr::Call(call) => {
                for part in call.target.as_deref().into_iter().chain(&call.args) {
                    self.visit(part, depth, loops, bound);
                }
            }
            Expr::List(list) => {
                for part in &list.elements {
                    self.visit(part, depth, loops, bound);
                }
            }
            Expr::Map(map) => self.entries(map.entries.iter().map(|e| &e.expr), depth, loops, bound),
            Expr::Struct(of) => self.entries(of.entries.iter().map(|e| &e.expr), depth, loops, bound),
            Expr::Select(select) => self.visit(&select.operand, depth, loops, bound),
            Expr::Comprehension(each) => {
                self.visit(&each.iter_range, depth, loops, bound);
                self.visit(&each.accu_init, depth, loops, bound);
                let known = bound.len();
                bound.push(each.iter_var.clone());
                bound.extend(each.iter_var2.clone());
                bound.push(each.accu_var.clone());
                for part in [&each.loop_cond, &each.loop_step, &each.result] {
                    self.visit(part, depth, loops + 1, bound);
                }
                bound.truncate(known);
            }
        }
    }

    fn entries<'e>(
        &mut self,
        entries: impl Iterator<Item = &'e EntryExpr>,
        depth: usize,
        loops: i32,
        bound: &mut Vec<String>,
    ) {
        for entry in entries {
            match entry {
                EntryExpr::StructField(field) => self.visit(&field.value, depth, loops, bound),
                EntryExpr::MapEntry(entry) => {
                    self.visit(&entry.key, depth, loops, bound);
                    self.visit(&entry.value, depth, loops, bound);
                }
            }
        }
    }
}

/// How many values an object is made of.
fn nodes(value: &Value) -> u32 {
    let more: u32 = match value {
        Value::Array(items) => items.iter().map(nodes).fold(0, u32::saturating_add),
        Value::Object(map) => map.values().map(nodes).fold(0, u32::saturating_add),
        _ => 0,
    };
    more.saturating_add(1)
}

/// A value as CEL has it in Kubernetes: whole numbers are `int`, whatever their sign.
fn to_cel(value: &Value) -> Cel {
    match value {
        Value::Null => Cel::Null,
        Value::Bool(b) => Cel::Bool(*b),
        Value::Number(n) => match (n.as_i64(), n.as_u64()) {
            (Some(int), _) => Cel::Int(int),
            (None, Some(uint)) => Cel::UInt(uint),
            _ => Cel::Float(n.as_f64().unwrap_or_default()),
        },
        Value::String(text) => Cel::String(Arc::new(text.clone())),
        Value::Array(items) => Cel::List(Arc::new(items.iter().map(to_cel).collect())),
        Value::Object(map) => {
            let map: HashMap<Key, Cel> =
                map.iter().map(|(k, v)| (Key::String(Arc::new(k.clone())), to_cel(v))).collect();
            Cel::Map(Map { map: Arc::new(map) })
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use serde_json::json;

    fn object() -> Value {
        json!({"spec": {"replicas": 3}, "status": {"phase": "Running", "readyReplicas": 3, "load": 0.5,
            "conditions": [{"type": "Ready", "status": "True"}, {"type": "Stale", "status": "False"}]}})
    }

    fn holds(text: &str) -> Result<bool, ExpressionError> {
        Expression::parse(text)?.holds(&object())
    }

    #[test]
    fn what_people_write_about_objects_is_understood() {
        let table = [
            ("object.status.phase == 'Running'", true),
            ("object.status.phase in ['Bound', 'Released']", false),
            ("object.status.readyReplicas == object.spec.replicas", true),
            ("object.status.readyReplicas >= 3 && object.status.load < 0.75", true),
            ("object.status.conditions.exists(c, c.type == 'Ready' && c.status == 'True')", true),
            ("object.status.conditions.filter(c, c.status == 'True').size() == 1", true),
            ("has(object.status.observedGeneration)", false),
            ("object.status.phase.startsWith('Run') && object.status.phase.matches('^R.*g$')", true),
            ("!has(object.status.gone) || object.status.gone", true),
        ];
        for (text, expected) in table {
            assert_eq!(holds(text), Ok(expected), "{text}");
        }
    }

    #[test]
    fn a_mistake_is_known_before_there_is_an_object() {
        let message = |text: &str| Expression::parse(text).unwrap_err().to_string();
        assert!(message("object.status.phase = 'Running'").starts_with("the expression is not valid CEL:"));
        assert!(message("").starts_with("the expression is not valid CEL:"));
        assert_eq!(message("status.ready"), "the expression names \"status\", and only `object` is known");
        assert!(message("object.all(c, d)").contains("\"d\""));
    }

    #[test]
    fn what_says_nothing_about_an_object_quotes_nothing_of_it() {
        let said = |text: &str| holds(text).unwrap_err().to_string();
        assert_eq!(said("object.status.gone == 1"), "the expression has no value: there is no field gone");
        assert_eq!(said("object.status.phase"), "the expression is neither true nor false but a text");
        assert!(!said("object.status.phase + 1 == 2").contains("Running"));
        assert!(!said("object.status.phase.unheard() == 2").contains("Running"));
    }

    #[test]
    fn length_depth_and_work_are_bounded() {
        let long = format!("object.{} == 1", "a".repeat(LONGEST));
        assert!(matches!(Expression::parse(&long), Err(ExpressionError::TooLong(_))));
        let brackets = format!("{}object.a{}", "(1 + ".repeat(60), ")".repeat(60));
        let many = [
            brackets,
            format!("object{} == 1", ".a".repeat(200)),
            vec!["object.a"; 50].join(" + "),
            format!("{}object.a", "!-".repeat(200)),
            format!("{}object.a", "[".repeat(300)),
        ];
        for text in many {
            assert!(Expression::parse(&text).is_err(), "{text}");
        }
        let loops = "object.l.all(a, object.l.all(b, object.l.all(c, a + b + c > 0)))";
        let loops = Expression::parse(loops).unwrap();
        assert_eq!(loops.holds(&json!({"l": [1, 2]})), Ok(true));
        let large: Vec<i32> = (0..1000).collect();
        assert_eq!(loops.holds(&json!({"l": large})), Err(ExpressionError::TooMuchWork));
    }

    #[test]
    fn nothing_that_is_typed_brings_it_down() {
        let pieces = [
            "object", ".", "a", "(", ")", "[", "]", "{", "}", "'", "\"", "\\", "!", "-", "1", "9e999", "all",
            "has", "?", ":", ",", "==", "%", "/0", "''", "\u{e4}", "\n", "r'", "b'\\x", "0x", "size",
        ];
        let mut random = fastrand::Rng::with_seed(7);
        for _ in 0..3000 {
            let text: String =
                (0..random.usize(1..40)).map(|_| pieces[random.usize(..pieces.len())]).collect();
            if let Ok(expression) = Expression::parse(&text) {
                let _ = expression.holds(&object());
            }
        }
    }
}
