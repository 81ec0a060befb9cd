//! Kubernetes quantities (`500m`, `1Gi`, `1e3`), to be compared by what they amount to.

use serde_json::Value;

/// An amount as `mantissa * 10^exponent`, without trailing zeros in the mantissa: equal amounts are equal values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Quantity {
    mantissa: i128,
    exponent: i32,
}

/// Reads a quantity from a string or a number; `None` when it is none, or too large to compare.
pub(super) fn parse(value: &Value) -> Option<Quantity> {
    match value {
        Value::String(text) => parse_text(text),
        Value::Number(number) => parse_text(&number.to_string()),
        _ => None,
    }
}

/// Whether one quantity is less than another; `None` when one of them is none, or too large to compare.
pub(crate) fn is_less(one: &Value, other: &Value) -> Option<bool> {
    let (one, other) = (parse(one)?, parse(other)?);
    let common = one.exponent.min(other.exponent);
    let at = |q: Quantity| {
        let shift = u32::try_from(q.exponent.checked_sub(common)?).ok()?;
        q.mantissa.checked_mul(10_i128.checked_pow(shift)?)
    };
    Some(at(one)? < at(other)?)
}

fn parse_text(text: &str) -> Option<Quantity> {
    let text = text.trim();
    let (negative, text) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, suffix) = text.split_at(end);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
        return None;
    }
    let mut mantissa: i128 = 0;
    for digit in whole.bytes().chain(fraction.bytes()) {
        mantissa = mantissa.checked_mul(10)?.checked_add(i128::from(digit - b'0'))?;
    }
    let mut exponent = -i32::try_from(fraction.len()).ok()?;
    match suffix {
        "" => {}
        "n" => exponent -= 9,
        "u" => exponent -= 6,
        "m" => exponent -= 3,
        "k" => exponent += 3,
        "M" => exponent += 6,
        "G" => exponent += 9,
        "T" => exponent += 12,
        "P" => exponent += 15,
        "E" => exponent += 18,
        "Ki" => mantissa = mantissa.checked_mul(1 << 10)?,
        "Mi" => mantissa = mantissa.checked_mul(1 << 20)?,
        "Gi" => mantissa = mantissa.checked_mul(1 << 30)?,
        "Ti" => mantissa = mantissa.checked_mul(1 << 40)?,
        "Pi" => mantissa = mantissa.checked_mul(1 << 50)?,
        "Ei" => mantissa = mantissa.checked_mul(1 << 60)?,
        _ => exponent += suffix.strip_prefix(['e', 'E'])?.parse::<i32>().ok()?,
    }
    if negative {
        mantissa = -mantissa;
    }
    while mantissa != 0 && mantissa % 10 == 0 {
        mantissa /= 10;
        exponent = exponent.checked_add(1)?;
    }
    Some(Quantity { mantissa, exponent: if mantissa == 0 { 0 } else { exponent } })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn equal_amounts_in_any_spelling() {
        let equal = [
            (json!("1000m"), json!("1")),
            (json!(0.5), json!("500m")),
            (json!("0.5"), json!("500m")),
            (json!("1024Ki"), json!("1Mi")),
            (json!("1Gi"), json!(1_073_741_824)),
            (json!("1e3"), json!("1k")),
            (json!("1E3"), json!("1k")),
            (json!("1E"), json!("1000P")),
            (json!("0"), json!("0Gi")),
            (json!("-1000m"), json!(-1)),
            (json!("0.1Gi"), json!("107374182.4")),
        ];
        for (a, b) in equal {
            assert!(parse(&a).is_some(), "{a}");
            assert_eq!(parse(&a), parse(&b), "{a} {b}");
        }
        assert_ne!(parse(&json!("1M")), parse(&json!("1Mi")));
        for none in [
            json!("web"),
            json!(""),
            json!("1x"),
            json!("m"),
            json!("1.2.3"),
            json!(null),
            json!("99999999999999999999999999999999999999999"),
        ] {
            assert_eq!(parse(&none), None, "{none}");
        }
    }
}
