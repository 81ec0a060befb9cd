//! Spans of time as kubectl writes them: `45s`, `5m30s`, `3h`, `2d4h`, `1y30d`.

use jiff::{SignedDuration, Timestamp};

/// How long ago a time (RFC 3339) was; `-` when it is none.
pub fn since(time: &str, now: Timestamp) -> String {
    match time.parse::<Timestamp>() {
        Ok(then) => span(now.duration_since(then)),
        Err(_) => "-".to_owned(),
    }
}

/// A span in two units at most, and the finer one only where it says something. What lies ahead (a clock that is
/// behind) counts as now.
pub fn span(span: SignedDuration) -> String {
    let seconds = span.as_secs().max(0);
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86400);
    let two = |big: i64, unit: &str, small: i64, fine: &str| match small {
        0 => format!("{big}{unit}"),
        _ => format!("{big}{unit}{small}{fine}"),
    };
    match () {
        () if seconds < 120 => format!("{seconds}s"),
        () if minutes < 10 => two(minutes, "m", seconds % 60, "s"),
        () if hours < 3 => format!("{minutes}m"),
        () if hours < 8 => two(hours, "h", minutes % 60, "m"),
        () if hours < 48 => format!("{hours}h"),
        () if days < 8 => two(days, "d", hours % 24, "h"),
        () if days < 730 => format!("{days}d"),
        () if days < 2920 => two(days / 365, "y", days % 365, "d"),
        () => format!("{}y", days / 365),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_read_as_in_kubectl() {
        let table = [
            (-5, "0s"),
            (0, "0s"),
            (119, "119s"),
            (120, "2m"),
            (330, "5m30s"),
            (600, "10m"),
            (3 * 3600 - 1, "179m"),
            (3 * 3600, "3h"),
            (3 * 3600 + 120, "3h2m"),
            (8 * 3600 + 120, "8h"),
            (47 * 3600, "47h"),
            (52 * 3600, "2d4h"),
            (9 * 86400, "9d"),
            (730 * 86400, "2y"),
            (731 * 86400, "2y1d"),
            (3000 * 86400, "8y"),
        ];
        for (seconds, text) in table {
            assert_eq!(span(SignedDuration::from_secs(seconds)), text, "{seconds}");
        }
    }

    #[test]
    fn what_is_no_time_is_a_dash() {
        assert_eq!(since("", Timestamp::UNIX_EPOCH), "-");
        assert_eq!(since("1970-01-01T00:00:00.5Z", Timestamp::UNIX_EPOCH), "0s");
    }
}
