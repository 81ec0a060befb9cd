//! Digests: short names for values, stable over processes and versions.

use serde_json::Value;
use sha2::{Digest, Sha256};

/// Lower-case hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut out, byte| {
        let _ = write!(out, "{byte:02x}");
        out
    })
}

/// Digest of bytes: the first 128 bits of SHA-256 as 32 hexadecimal digits.
pub fn of_bytes(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes)[..16])
}

/// Digest of a JSON value, whatever the order of its keys.
pub fn of_value(value: &Value) -> String {
    let mut out = Vec::with_capacity(512);
    write_canonical(value, &mut out);
    of_bytes(&out)
}

/// Digest of a JSON value under a key (HMAC-SHA256, 128 bits): for values of Secrets, which must not be
/// guessable from their digest.
pub fn of_value_keyed(value: &Value, key: &[u8]) -> String {
    let mut out = Vec::with_capacity(512);
    write_canonical(value, &mut out);
    of_bytes_keyed(&out, key)
}

/// Digest of bytes under a key (HMAC-SHA256, 128 bits).
pub fn of_bytes_keyed(bytes: &[u8], key: &[u8]) -> String {
    use hmac::{Hmac, KeyInit, Mac};
    match Hmac::<Sha256>::new_from_slice(key) {
        Ok(mut mac) => {
            mac.update(bytes);
            hex(&mac.finalize().into_bytes()[..16])
        }
        // HMAC takes keys of any length, so this branch is never taken; saying nothing leaks nothing.
        Err(_) => String::new(),
    }
}

/// Writes JSON with sorted keys and no blanks.
pub fn write_canonical(value: &Value, out: &mut Vec<u8>) {
    match value {
        Value::Object(map) => {
            let mut keys: Vec<_> = map.keys().collect();
            keys.sort_unstable();
            out.push(b'{');
            for (i, key) in keys.into_iter().enumerate() {
                if i > 0 {
                    out.push(b',');
                }
                write_scalar(&Value::String(key.clone()), out);
                out.push(b':');
                write_canonical(&map[key], out);
            }
            out.push(b'}');
        }
        Value::Array(items) => {
            out.push(b'[');
            for (i, item) in items.iter().enumerate() {
                if i > 0 {
                    out.push(b',');
                }
                write_canonical(item, out);
            }
            out.push(b']');
        }
        scalar => write_scalar(scalar, out),
    }
}

fn write_scalar(value: &Value, out: &mut Vec<u8>) {
    // Writing a scalar into a Vec cannot fail.
    let _ = serde_json::to_writer(out, value);
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn order_of_keys_does_not_matter_and_values_do() {
        let a = serde_json::from_str(r#"{"a":1,"b":[1,{"c":null}]}"#).unwrap_or_default();
        let b = serde_json::from_str(r#"{"b":[1,{"c":null}],"a":1}"#).unwrap_or_default();
        assert_eq!(of_value(&a), of_value(&b));
        assert_ne!(of_value(&a), of_value(&json!({"a": 1, "b": [1, {"c": 0}]})));
        assert_ne!(of_value_keyed(&a, b"k1"), of_value_keyed(&a, b"k2"));
    }
}
