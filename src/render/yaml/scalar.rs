//! What a scalar means: null, boolean, number or text, by the rules of YAML 1.1 as `kubectl` has them.
//!
//! The rules are those of the Go library that `kubectl` reads manifests with (`sigs.k8s.io/yaml`): `yes`, `on` and `y`
//! are booleans, `0644` is octal, `1_000` is a thousand, dates stay text, and a float outside of the range stays text.

use serde_json::{Number, Value};

/// A scalar that was understood.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Scalar {
    /// `null`, `~`, or nothing at all.
    Null,
    /// `true`, `yes`, `on`, `y` and their opposites.
    Bool(bool),
    /// An integer of 64 bits with a sign.
    Int(i64),
    /// An integer above those.
    Uint(u64),
    /// Everything with a point or an exponent, infinities and not-a-number included.
    Float(f64),
    /// Text.
    Text(String),
}

/// Why a scalar has no value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ScalarError {
    /// The tag names a type that the text is not of, such as `!!int x`.
    Tag,
    /// `!!binary` and the text is not base64, or not of text.
    Binary,
    /// JSON knows no infinity and no not-a-number.
    NotANumber,
    /// A key of a type that no key can have.
    Key,
}

/// Reads a scalar without quotes and tag.
pub(super) fn plain(text: &str) -> Scalar {
    let Some(first) = text.bytes().next() else { return Scalar::Null };
    if let Some(word) = word(text) {
        return word;
    }
    let number = match first {
        b'.' => float(text),
        b'0'..=b'9' | b'+' | b'-' => number(text),
        _ => None,
    };
    number.unwrap_or_else(|| Scalar::Text(text.to_owned()))
}

fn word(text: &str) -> Option<Scalar> {
    Some(match text {
        "y" | "Y" | "yes" | "Yes" | "YES" | "true" | "True" | "TRUE" | "on" | "On" | "ON" => {
            Scalar::Bool(true)
        }
        "n" | "N" | "no" | "No" | "NO" | "false" | "False" | "FALSE" | "off" | "Off" | "OFF" => {
            Scalar::Bool(false)
        }
        "~" | "null" | "Null" | "NULL" => Scalar::Null,
        ".nan" | ".NaN" | ".NAN" => Scalar::Float(f64::NAN),
        ".inf" | ".Inf" | ".INF" | "+.inf" | "+.Inf" | "+.INF" => Scalar::Float(f64::INFINITY),
        "-.inf" | "-.Inf" | "-.INF" => Scalar::Float(f64::NEG_INFINITY),
        _ => return None,
    })
}

/// An integer in any base, or a float; underscores are ignored wherever they stand.
fn number(text: &str) -> Option<Scalar> {
    let digits: String = text.chars().filter(|c| *c != '_').collect();
    let (negative, unsigned) = match digits.as_bytes().first()? {
        b'-' => (true, &digits[1..]),
        b'+' => (false, &digits[1..]),
        _ => (false, digits.as_str()),
    };
    if let Some(magnitude) = integer(unsigned) {
        if negative {
            // The one magnitude that has no positive counterpart is the smallest integer.
            if let Some(value) = 0i64.checked_sub_unsigned(magnitude) {
                return Some(Scalar::Int(value));
            }
        } else if let Ok(value) = i64::try_from(magnitude) {
            return Some(Scalar::Int(value));
        } else if !digits.starts_with('+') {
            return Some(Scalar::Uint(magnitude));
        }
    }
    float(&digits)
}

fn integer(text: &str) -> Option<u64> {
    let bytes = text.as_bytes();
    let (radix, rest) = match bytes {
        [b'0', b'x' | b'X', ..] => (16, &text[2..]),
        [b'0', b'b' | b'B', ..] => (2, &text[2..]),
        [b'0', b'o' | b'O', ..] => (8, &text[2..]),
        [b'0', _, ..] => (8, &text[1..]),
        _ => (10, text),
    };
    // The standard library takes a sign here, which Go refuses after a prefix.
    if rest.starts_with(['+', '-']) {
        return None;
    }
    u64::from_str_radix(rest, radix).ok()
}

/// Decimal digits with a point or an exponent, and nothing else that the standard library would take (`inf`, `nan`).
fn float(text: &str) -> Option<Scalar> {
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    let (mantissa, exponent) = match unsigned.find(['e', 'E']) {
        Some(at) => (&unsigned[..at], Some(&unsigned[at + 1..])),
        None => (unsigned, None),
    };
    let all_digits = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, "0"));
    if !all_digits(whole) || !all_digits(fraction) || (whole.is_empty() && fraction.is_empty()) {
        return None;
    }
    if let Some(exponent) = exponent {
        let digits = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
        if digits.is_empty() || !all_digits(digits) {
            return None;
        }
    }
    let value: f64 = text.parse().ok()?;
    // Outside of the range it stays text: `1e400` is "1e400".
    value.is_finite().then_some(Scalar::Float(value))
}

/// Reads a scalar with an explicit tag, given in its long form (`tag:yaml.org,2002:int`).
pub(super) fn tagged(tag: &str, text: &str) -> Result<Scalar, ScalarError> {
    let Some(kind) = tag.strip_prefix("tag:yaml.org,2002:") else { return Ok(Scalar::Text(text.into())) };
    match (kind, plain(text)) {
        ("str", _) => Ok(Scalar::Text(text.into())),
        ("binary", _) => binary(text),
        ("null", Scalar::Null)
        | ("bool", Scalar::Bool(_))
        | ("int", Scalar::Int(_) | Scalar::Uint(_))
        | ("float", Scalar::Float(_)) => Ok(plain(text)),
        ("float", Scalar::Int(value)) => Ok(Scalar::Float(value as f64)),
        ("timestamp", Scalar::Text(date)) if date.as_bytes().first().is_some_and(u8::is_ascii_digit) => {
            Ok(Scalar::Text(date))
        }
        ("null" | "bool" | "int" | "float" | "timestamp", _) => Err(ScalarError::Tag),
        _ => Ok(Scalar::Text(text.into())),
    }
}

fn binary(text: &str) -> Result<Scalar, ScalarError> {
    use base64::Engine;
    let compact: String = text.chars().filter(|c| !matches!(c, '\n' | '\r')).collect();
    let bytes = base64::engine::general_purpose::STANDARD.decode(compact).map_err(|_| ScalarError::Binary)?;
    // Go would replace what is not UTF-8 and so change the data without a word.
    String::from_utf8(bytes).map(Scalar::Text).map_err(|_| ScalarError::Binary)
}

impl Scalar {
    /// As a JSON value. An integral float becomes an integer, as Go writes it.
    pub(super) fn into_value(self) -> Result<Value, ScalarError> {
        Ok(match self {
            Scalar::Null => Value::Null,
            Scalar::Bool(value) => Value::Bool(value),
            Scalar::Int(value) => Value::Number(value.into()),
            Scalar::Uint(value) => Value::Number(value.into()),
            Scalar::Float(value) => Value::Number(number_of(value).ok_or(ScalarError::NotANumber)?),
            Scalar::Text(text) => Value::String(text),
        })
    }

    /// As a key of a mapping: JSON has text only.
    pub(super) fn into_key(self) -> Result<String, ScalarError> {
        match self {
            Scalar::Bool(value) => Ok(value.to_string()),
            Scalar::Int(value) => Ok(value.to_string()),
            Scalar::Float(value) => Ok(float_key(value)),
            Scalar::Text(text) => Ok(text),
            Scalar::Null | Scalar::Uint(_) => Err(ScalarError::Key),
        }
    }
}

fn number_of(value: f64) -> Option<Number> {
    if value.fract() == 0.0 {
        if value >= i64::MIN as f64 && value < i64::MAX as f64 {
            return Some((value as i64).into());
        }
        if value > 0.0 && value < u64::MAX as f64 {
            return Some((value as u64).into());
        }
    }
    Number::from_f64(value)
}

/// How Go writes a float as a key: the shortest digits of a 32-bit float, with an exponent below 1e-4 and from 1e6.
fn float_key(value: f64) -> String {
    let value = value as f32;
    if value.is_nan() {
        return ".nan".into();
    }
    if value.is_infinite() {
        return if value > 0.0 { ".inf" } else { "-.inf" }.into();
    }
    let scientific = format!("{value:e}");
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if !(-4..6).contains(&exponent) {
        let sign = if exponent < 0 { '-' } else { '+' };
        format!("{mantissa}e{sign}{:02}", exponent.abs())
    } else {
        format!("{value}")
    }
}
