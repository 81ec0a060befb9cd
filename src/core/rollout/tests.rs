//! The machine's promises, one at a time. The simulation tries them all together.
