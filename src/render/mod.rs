//! A directory of a tree becomes objects.

pub mod yaml;
