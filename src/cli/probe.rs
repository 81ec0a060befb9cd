//! `windlass probe URL`: the image's health check, which has no shell and no curl at hand.

use super::{NOT_WELL, WELL};
use crate::server::probe::ask;
use clap::Args;

/// Ask a server for its health.
#[derive(Args, Debug)]
pub struct ProbeArgs {
    /// What to ask
    #[arg(default_value = "http://127.0.0.1:8080/livez", value_name = "URL")]
    url: String,
}

/// Prints the answer; the exit code says whether it was a success.
pub fn run(args: &ProbeArgs) -> anyhow::Result<i32> {
    let (code, body) = ask(&args.url)?;
    anstream::println!("{}", body.trim_end());
    Ok(if (200..300).contains(&code) { WELL } else { NOT_WELL })
}
