//! Which manager owns which field: `metadata.managedFields` decoded into paths and sets of paths.
//!
//! Every apply, update and patch leaves an entry with the name of its field manager and the set of fields that it
//! set, in the form `FieldsV1`. An edit by another manager takes the edited paths out of our entry; so our
//! entry together with the values under it tells whether anybody changed what we applied.

mod owner;
mod path;
mod set;
mod shape;
mod stamp;

pub use owner::{Operation, Owner, owned_by, owners};
pub use path::{Path, Segment};
pub use set::PathSet;
pub use shape::{desired_paths, is_server_metadata};
pub use stamp::{owned_digest, whole_digest};

pub(crate) use path::same_scalar;
pub(crate) use shape::{ListShape, find_item, item_segment, list_shape};
