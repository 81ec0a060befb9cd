//! What is kept of a live object: not the object, but what is needed to know whether it is as we left it and healthy.

use crate::core::fields::owned_digest;
use crate::core::health::{Verdict, verdict};
use crate::core::plan::is_secret;
use serde_json::Value;

/// What a watch keeps of an object that carries our label, besides its identity.
#[derive(Clone, Debug)]
pub struct Kept {
    /// Digest of the fields that we own, with their values; empty when we own none. Keyed for Secrets.
    pub digest: String,
    /// Its health.
    pub verdict: Verdict,
}

/// Digests an object of a watch or of an answer.
pub fn keep(object: &Value, key: &[u8]) -> Kept {
    Kept { digest: digest(object, key), verdict: verdict(object) }
}

/// Digest of the fields that we own; empty when we own none.
pub fn digest(object: &Value, key: &[u8]) -> String {
    owned_digest(object, is_secret(object).then_some(key)).unwrap_or_default()
}
