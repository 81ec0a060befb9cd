//! The `windlass` binary: parse, start logging, dispatch; nothing else.

fn main() {}
