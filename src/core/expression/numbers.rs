//! Expressions over measured values. What makes them different is NaN: every comparison with it is false, so a rule that says
//! what a failure is (`candidate / stable > 1.2`) would let it pass. Here no part of an expression may come to NaN or to infinity.

use super::{Expression, ExpressionError, evaluate, truth};
use cel::common::ast::operators as op;
use cel::common::ast::{EntryExpr, Expr, IdedExpr, LiteralValue};
use cel::common::types::CelDouble;
use cel::{Context, Value as Cel};
use serde_json::Value;

/// Operations that can make NaN or infinity of ordinary numbers, or of a text.
const ARITHMETIC: [&str; 4] = [op::DIVIDE, op::MULTIPLY, op::SUBSTRACT, "double"];

impl Expression {
    /// Whether one of its parts is this variable.
    pub fn names(&self, variable: &str) -> bool {
        any(&self.tree, &mut |part| matches!(&part.expr, Expr::Ident(name) if name == variable))
    }

    /// Refuses arithmetic within loops, whose parts cannot be looked at one by one.
    pub fn measurable(self) -> Result<Self, ExpressionError> {
        let arithmetic = |part: &IdedExpr| match &part.expr {
            Expr::Call(call) => ARITHMETIC.contains(&call.func_name.as_str()),
            _ => false,
        };
        let in_loop = |part: &IdedExpr| match &part.expr {
            Expr::Comprehension(each) => {
                [&each.loop_cond, &each.loop_step, &each.result].iter().any(|p| any(p, &mut { arithmetic }))
            }
            _ => false,
        };
        match any(&self.tree, &mut { in_loop }) {
            true => Err(ExpressionError::ArithmeticInLoop),
            false => Ok(self),
        }
    }

    /// The same with every whole number read as a decimal one, which CEL keeps apart: `stable * 2`.
    pub fn decimals(mut self) -> Self {
        each_mut(&mut self.tree, &mut |part| {
            if let Expr::Literal(literal) = &part.expr {
                let number = match literal {
                    LiteralValue::Int(n) => *n.inner() as f64,
                    LiteralValue::UInt(n) => *n.inner() as f64,
                    _ => return,
                };
                part.expr = Expr::Literal(LiteralValue::Double(CelDouble::from(number)));
            }
        });
        self
    }

    /// Whether it is true of some values, none of its parts being NaN or infinite.
    pub fn holds_of(&self, values: &[(&str, &Value)]) -> Result<bool, ExpressionError> {
        let context = self.context(values)?;
        // First: a comparison with NaN is an error of its own, which says less.
        finite(&context, &self.tree)?;
        truth(evaluate(&context, &self.tree)?)
    }
}

/// Looks at the parts that an evaluation looks at: what stands behind a guard (`stable > 0.0 && …`) that does not hold is
/// none of them.
fn finite(context: &Context<'_, '_>, tree: &IdedExpr) -> Result<(), ExpressionError> {
    match &tree.expr {
        Expr::Call(call) => {
            let is_true = |part: &IdedExpr| matches!(evaluate(context, part), Ok(Cel::Bool(true)));
            let is_false = |part: &IdedExpr| matches!(evaluate(context, part), Ok(Cel::Bool(false)));
            match (call.func_name.as_str(), call.args.as_slice()) {
                (op::LOGICAL_AND, [left, right]) => {
                    finite(context, left)?;
                    if !is_false(left) {
                        finite(context, right)?;
                    }
                    return Ok(());
                }
                (op::LOGICAL_OR, [left, right]) => {
                    finite(context, left)?;
                    if !is_true(left) {
                        finite(context, right)?;
                    }
                    return Ok(());
                }
                (op::CONDITIONAL, [condition, yes, no]) => {
                    finite(context, condition)?;
                    return finite(context, if is_true(condition) { yes } else { no });
                }
                _ => {}
            }
            for part in call.target.as_deref().into_iter().chain(&call.args) {
                finite(context, part)?;
            }
            match evaluate(context, tree) {
                Ok(Cel::Float(n)) if !n.is_finite() => Err(no_number(n)),
                _ => Ok(()),
            }
        }
        Expr::Literal(LiteralValue::Double(n)) if !n.inner().is_finite() => Err(no_number(*n.inner())),
        Expr::Select(select) => finite(context, &select.operand),
        Expr::List(list) => list.elements.iter().try_for_each(|part| finite(context, part)),
        Expr::Map(map) => {
            map.entries.iter().try_for_each(|entry| entry_parts(&entry.expr, &mut |p| finite(context, p)))
        }
        Expr::Struct(of) => {
            of.entries.iter().try_for_each(|entry| entry_parts(&entry.expr, &mut |p| finite(context, p)))
        }
        // Within a loop there is no arithmetic (`measurable`).
        Expr::Comprehension(each) => {
            finite(context, &each.iter_range)?;
            finite(context, &each.accu_init)
        }
        Expr::Unspecified | Expr::Literal(_) | Expr::Ident(_) => Ok(()),
    }
}

fn no_number(n: f64) -> ExpressionError {
    ExpressionError::NoNumber(if n.is_nan() { "NaN" } else { "infinite" })
}

fn entry_parts<E>(entry: &EntryExpr, look: &mut impl FnMut(&IdedExpr) -> Result<(), E>) -> Result<(), E> {
    match entry {
        EntryExpr::StructField(field) => look(&field.value),
        EntryExpr::MapEntry(entry) => {
            look(&entry.key)?;
            look(&entry.value)
        }
    }
}

fn any(tree: &IdedExpr, is: &mut dyn FnMut(&IdedExpr) -> bool) -> bool {
    let mut tree = tree.clone();
    let mut found = false;
    each_mut(&mut tree, &mut |part| found = found || is(part));
    found
}

/// Every part of a tree, the outer ones first. Trees are shallow and short, as `parse_over` makes sure.
fn each_mut(tree: &mut IdedExpr, look: &mut dyn FnMut(&mut IdedExpr)) {
    look(tree);
    match &mut tree.expr {
        Expr::Unspecified | Expr::Literal(_) | Expr::Ident(_) => {}
        Expr::Call(call) => {
            call.target
                .as_deref_mut()
                .into_iter()
                .chain(&mut call.args)
                .for_each(|part| each_mut(part, look));
        }
        Expr::List(list) => list.elements.iter_mut().for_each(|part| each_mut(part, look)),
        Expr::Map(map) => map.entries.iter_mut().for_each(|entry| each_entry(&mut entry.expr, look)),
        Expr::Struct(of) => of.entries.iter_mut().for_each(|entry| each_entry(&mut entry.expr, look)),
        Expr::Select(select) => each_mut(&mut select.operand, look),
        Expr::Comprehension(each) => {
            let parts = [
                &mut each.iter_range,
                &mut each.accu_init,
                &mut each.loop_cond,
                &mut each.loop_step,
                &mut each.result,
            ];
            parts.into_iter().for_each(|part| each_mut(part, look));
        }
    }
}

fn each_entry(entry: &mut EntryExpr, look: &mut dyn FnMut(&mut IdedExpr)) {
    match entry {
        EntryExpr::StructField(field) => each_mut(&mut field.value, look),
        EntryExpr::MapEntry(entry) => {
            each_mut(&mut entry.key, look);
            each_mut(&mut entry.value, look);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use serde_json::json;

    fn of(text: &str, result: f64, stable: f64) -> Result<bool, ExpressionError> {
        let (result, stable) = (json!(result), json!(stable));
        let expression = Expression::parse_over(text, &["result", "stable"])?.measurable()?.decimals();
        expression.holds_of(&[("result", &result), ("stable", &stable)])
    }

    #[test]
    fn numbers_are_numbers() {
        for text in [
            "result >= 1",
            "result * 2 == 2.5 + 0",
            "result < stable * 2",
            "result <= stable + 1",
            "-1 < result",
        ] {
            assert_eq!(of(text, 1.25, 1.0), Ok(true), "{text}");
        }
        let unknown = of("candidate > 1", 1.0, 1.0).unwrap_err().to_string();
        assert_eq!(unknown, "the expression names \"candidate\", and only `result`, `stable` is known");
    }

    #[test]
    fn what_is_no_number_decides_nothing() {
        for text in [
            "result / stable > 1.2",
            "!(result / stable > 1.2)",
            "result / stable != 1.0",
            "result / stable < 1.2 || result < 1.0",
            "stable >= 0.0 && result / stable > 1.2",
            "(stable >= 0.0 ? result / stable : 1.0) < 2.0",
            "[result / stable].exists(x, x > 1.2)",
            "double('NaN') > 1.2",
            "1e308 * 1e308 > result",
            "result <= 1e999 - 1.0",
        ] {
            assert!(of(text, 0.0, 0.0).is_err(), "{text}");
        }
        assert!(
            matches!(of("result / stable > 1.2", 1.0, 0.0), Err(ExpressionError::NoNumber(_))),
            "infinite"
        );
    }

    #[test]
    fn what_a_guard_keeps_from_being_looked_at_is_not() {
        assert_eq!(of("stable > 0.0 && result / stable > 1.2", 1.0, 0.0), Ok(false));
        assert_eq!(of("stable == 0.0 || result / stable < 1.2", 1.0, 0.0), Ok(true));
        assert_eq!(of("stable == 0.0 ? result < 2.0 : result / stable < 1.2", 1.0, 0.0), Ok(true));
    }

    #[test]
    fn loops_compare_and_do_not_count() {
        let read = |text: &str| Expression::parse_over(text, &["result"]).unwrap().measurable().map(|_| ());
        assert_eq!(read("result.items.all(i, i.latency < 0.5)"), Ok(()));
        assert_eq!(read("result.items.filter(i, i.bad).size() == 0"), Ok(()));
        assert_eq!(read("result.items.map(i, i.a).exists(a, a > 1)"), Ok(()));
        for text in ["result.items.all(i, i.a / i.b < 0.5)", "result.items.exists(i, double(i.a) > 0.5)"] {
            assert_eq!(read(text), Err(ExpressionError::ArithmeticInLoop), "{text}");
        }
    }

    #[test]
    fn variables_are_found() {
        let names = |text: &str| Expression::parse_over(text, &["result", "stable"]).unwrap().names("stable");
        assert!(names("result < 2.0 * stable") && names("has(stable.a)") && names("[1].all(x, stable > x)"));
        assert!(!names("result.stable > 1"));
    }
}
