//! Promises, each in a file of its own, in one binary.
