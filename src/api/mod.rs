//! The resources that Windlass defines, and the names that stand on other objects. Data only.

pub mod condition;

pub mod names;

pub use condition::Condition;
