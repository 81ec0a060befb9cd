//! Durations as Kubernetes writes them: `30s`, `5m`, `1h30m`.

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::borrow::Cow;
use std::fmt;
use std::time::Duration as Std;

/// Longer counts as so long: ten years, so that a time and a duration can be added.
const LONGEST: Std = Std::from_secs(10 * 365 * 24 * 3600);

/// A length of time, written `30s`, `5m`, `1h30m`, `500ms`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Duration(pub Std);

impl Duration {
    /// Whole seconds.
    pub const fn from_secs(secs: u64) -> Self {
        Duration(Std::from_secs(secs))
    }

    /// The same as a signed duration, for arithmetic with timestamps.
    pub fn signed(self) -> jiff::SignedDuration {
        jiff::SignedDuration::try_from(self.0).unwrap_or(jiff::SignedDuration::MAX)
    }
}

/// A text that is no duration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("\"{0}\" is no duration; write it like 30s, 5m or 1h30m")]
pub struct DurationError(String);

impl std::str::FromStr for Duration {
    type Err = DurationError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || DurationError(text.to_owned());
        let span: jiff::SignedDuration =
            if text == "0" { jiff::SignedDuration::ZERO } else { text.parse().map_err(|_| wrong())? };
        let span = Std::try_from(span).map_err(|_| wrong())?;
        Ok(Duration(span.min(LONGEST)))
    }
}

impl fmt::Display for Duration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = self.0.as_millis();
        let (hours, minutes, seconds, rest) =
            (millis / 3_600_000, millis / 60_000 % 60, millis / 1000 % 60, millis % 1000);
        if millis == 0 {
            return f.write_str("0s");
        }
        for (amount, unit) in [(hours, "h"), (minutes, "m"), (seconds, "s"), (rest, "ms")] {
            if amount > 0 {
                write!(f, "{amount}{unit}")?;
            }
        }
        Ok(())
    }
}

impl Serialize for Duration {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Duration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

impl JsonSchema for Duration {
    fn schema_name() -> Cow<'static, str> {
        "Duration".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "maxLength": 16, "pattern": "^([0-9]+(ms|s|m|h))+$"})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_and_write_as_kubernetes_does() {
        for (text, secs) in [("30s", 30), ("5m", 300), ("1h30m", 5400), ("0s", 0)] {
            assert_eq!(text.parse(), Ok(Duration::from_secs(secs)), "{text}");
            assert_eq!(Duration::from_secs(secs).to_string(), text);
        }
        for text in ["", "5", "five minutes", "-5s", "1 fortnight"] {
            assert!(text.parse::<Duration>().is_err(), "{text}");
        }
    }
}
