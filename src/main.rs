//! The `windlass` binary: parse, start logging, dispatch; nothing else.

use clap::Parser;

fn main() {
    std::process::exit(windlass::cli::main(windlass::cli::Cli::parse()));
}
