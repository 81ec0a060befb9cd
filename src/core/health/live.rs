//! Reading a live object: every accessor answers for any JSON value, and says "absent" to a field of the
//! wrong type.

use serde_json::Value;

/// A live object, or a part of one.
#[derive(Clone, Copy)]
pub(super) struct Live<'a>(&'a Value);

/// A condition of a status, whatever the kind.
#[derive(Clone, Copy)]
pub(super) struct Condition<'a> {
    pub kind: &'a str,
    /// `True`, `False` or `Unknown`.
    pub status: &'a str,
    pub reason: &'a str,
    pub message: &'a str,
    /// When it was last confirmed, or else last changed (RFC 3339); `""` where the kind writes neither.
    pub time: &'a str,
    pub observed_generation: Option<i64>,
}

impl<'a> Condition<'a> {
    fn of(value: &'a Value) -> Self {
        let live = Live(value);
        let updated = live.text("/lastUpdateTime");
        Condition {
            kind: live.text("/type"),
            status: live.text("/status"),
            reason: live.text("/reason"),
            message: live.text("/message"),
            time: if updated.is_empty() { live.text("/lastTransitionTime") } else { updated },
            observed_generation: live.int("/observedGeneration"),
        }
    }

    pub fn is_true(&self) -> bool {
        self.status.eq_ignore_ascii_case("true")
    }

    pub fn is_false(&self) -> bool {
        self.status.eq_ignore_ascii_case("false")
    }

    /// `Reason: message` with what there is of the two.
    pub fn why(&self) -> String {
        match (self.reason, first_line(self.message, MESSAGE_LIMIT)) {
            ("", message) if message.is_empty() => format!("{} is {}", self.kind, self.status),
            ("", message) => message,
            (reason, message) if message.is_empty() => reason.to_owned(),
            (reason, message) => format!("{reason}: {message}"),
        }
    }
}

impl<'a> Live<'a> {
    pub fn new(value: &'a Value) -> Self {
        Live(value)
    }

    /// The field at a JSON pointer; `null` counts as absent.
    pub fn get(&self, pointer: &str) -> Option<&'a Value> {
        self.0.pointer(pointer).filter(|value| !value.is_null())
    }

    /// Text, or `""`.
    pub fn text(&self, pointer: &str) -> &'a str {
        self.get(pointer).and_then(Value::as_str).unwrap_or_default()
    }

    /// A whole number.
    pub fn int(&self, pointer: &str) -> Option<i64> {
        self.get(pointer).and_then(Value::as_i64)
    }

    /// A count: 0 when absent or below.
    pub fn count(&self, pointer: &str) -> i64 {
        self.int(pointer).unwrap_or(0).max(0)
    }

    /// Whether a flag is set.
    pub fn is_set(&self, pointer: &str) -> bool {
        self.get(pointer).and_then(Value::as_bool).unwrap_or(false)
    }

    /// The items of a list; none when absent.
    pub fn items(&self, pointer: &str) -> impl Iterator<Item = Live<'a>> + use<'a> {
        self.get(pointer).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default().iter().map(Live)
    }

    /// The text under a key of a map, where the key may hold `/` (labels, annotations).
    pub fn keyed(&self, pointer: &str, key: &str) -> Option<&'a str> {
        self.get(pointer)?.get(key)?.as_str()
    }

    /// The conditions of the status.
    pub fn conditions(&self) -> impl Iterator<Item = Condition<'a>> + use<'a> {
        self.conditions_at("/status/conditions")
    }

    /// The conditions of a list.
    pub fn conditions_at(&self, pointer: &str) -> impl Iterator<Item = Condition<'a>> + use<'a> {
        self.items(pointer).map(|item| Condition::of(item.0))
    }

    /// The condition of a type.
    pub fn condition(&self, kind: &str) -> Option<Condition<'a>> {
        self.conditions().find(|c| c.kind == kind)
    }

    /// `metadata.generation`, 0 where the kind has none.
    pub fn generation(&self) -> i64 {
        self.count("/metadata/generation")
    }

    /// Whether its controller still has to look at the current generation. A controller that has looked
    /// further (seen after a restore from a backup) is not waited for.
    pub fn is_unobserved(&self) -> bool {
        self.int("/status/observedGeneration").unwrap_or(0) < self.generation()
    }

    /// When somebody other than a status writer last changed the object, by its managed fields (RFC 3339).
    pub fn last_change(&self) -> Option<&'a str> {
        self.items("/metadata/managedFields")
            .filter(|entry| entry.text("/subresource") != "status")
            .map(|entry| entry.text("/time"))
            .filter(|time| !time.is_empty())
            .max()
    }

    /// Whether the object is controlled by an owner: by uid where both are known, else by kind and name.
    pub fn is_controlled_by(&self, owner: &Live<'_>) -> bool {
        let uid = owner.text("/metadata/uid");
        self.items("/metadata/ownerReferences").any(|reference| {
            let theirs = reference.text("/uid");
            if !uid.is_empty() && !theirs.is_empty() {
                return uid == theirs;
            }
            reference.text("/kind") == owner.text("/kind")
                && !reference.text("/name").is_empty()
                && reference.text("/name") == owner.text("/metadata/name")
        })
    }
}

/// Longest message that is taken over from elsewhere, in characters.
pub(super) const MESSAGE_LIMIT: usize = 300;

/// The first line that is not blank, cut at a number of characters. What a validation error quotes as the
/// wrong value is left out, for it can be the value of an environment variable.
pub(super) fn first_line(text: &str, limit: usize) -> String {
    let line = text.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or_default();
    let line = without_quoted_values(line);
    if line.chars().count() <= limit {
        return line;
    }
    let mut cut: String = line.chars().take(limit.saturating_sub(1)).collect();
    cut.push('…');
    cut
}

fn without_quoted_values(line: &str) -> String {
    const MARK: &str = "Invalid value: \"";
    let mut out = String::with_capacity(line.len());
    let mut rest = line;
    while let Some(at) = rest.find(MARK) {
        out.push_str(&rest[..at + MARK.len() - 3]);
        let quoted = &rest[at + MARK.len()..];
        let mut escaped = false;
        let end = quoted.char_indices().find(|&(_, c)| {
            let closes = c == '"' && !escaped;
            escaped = c == '\\' && !escaped;
            closes
        });
        rest = end.map_or("", |(end, _)| &quoted[end + 1..]);
    }
    out.push_str(rest);
    out
}

/// `1 pod`, `2 pods`.
pub(super) fn counted(count: i64, noun: &str) -> String {
    if count == 1 { format!("1 {noun}") } else { format!("{count} {noun}s") }
}
