//! Objects as they go over the wire: what is answered and what watches tell is mostly the same version of an object,
//! which is written out once.

use axum::body::Bytes;
use serde_json::Value;
use std::collections::HashMap;
use std::sync::Arc;

/// So many are kept at a time.
const MOST: usize = 128;

/// What was written out lately, by where it stands. Kept with the object: nothing else stands there meanwhile.
#[derive(Default)]
pub struct Wire(HashMap<usize, (Arc<Value>, Bytes)>);

impl Wire {
    /// An object as JSON.
    pub fn bytes(&mut self, object: &Arc<Value>) -> Bytes {
        if self.0.len() >= MOST {
            self.0.clear();
        }
        let at = Arc::as_ptr(object).addr();
        let write = || (object.clone(), serde_json::to_vec(&**object).unwrap_or_default().into());
        self.0.entry(at).or_insert_with(write).1.clone()
    }
}
