//! The command line: one file per command; prints, decides nothing.

pub mod connect;
pub mod health;
pub mod install;
pub mod probe;
pub mod run;

use clap::{Parser, Subcommand};

/// All is well.
pub const WELL: i32 = 0;
/// Something is not well: held, drifted, unhealthy, would change.
pub const NOT_WELL: i32 = 1;
/// The command itself failed.
pub const ERROR: i32 = 2;

/// Windlass keeps Kubernetes as Git says, and treats a commit as one transaction.
#[derive(Parser)]
#[command(name = "windlass", version, about, disable_help_subcommand = true, max_term_width = 100)]
pub struct Cli {
    /// How much is logged: error, warn, info, debug, trace, or a filter such as windlass=debug
    #[arg(long, global = true, default_value = "info", value_name = "LEVEL")]
    pub log_level: String,
    /// How logs are written; text on a terminal and JSON otherwise, when not given
    #[arg(long, global = true, value_enum, value_name = "FORMAT")]
    pub log_format: Option<crate::telemetry::LogFormat>,
    /// What to do
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Subcommand)]
pub enum Command {
    /// Run the daemon: poll Git, apply, wait for health, roll back, report drift
    Run(Box<run::RunArgs>),
    /// Tell the health of objects given as YAML or JSON
    Health(health::HealthArgs),
    /// Put the custom resource definitions, or all of Windlass, into a cluster
    Install(install::InstallArgs),
    /// Ask a server for its health: exit code 0 when it is well
    #[command(hide = true)]
    Probe(probe::ProbeArgs),
}

/// Runs a command; the answer is the exit code.
pub fn main(cli: Cli) -> i32 {
    crate::telemetry::start(&cli.log_level, cli.log_format);
    let result = match cli.command {
        Command::Run(args) => asynchronously(run::run(*args)),
        Command::Health(args) => health::run(&args, &mut std::io::stdin(), &mut std::io::stdout()),
        Command::Install(args) => install::run(args),
        Command::Probe(args) => probe::run(&args),
    };
    match result {
        Ok(code) => code,
        Err(error) => {
            anstream::eprintln!("error: {error:#}");
            ERROR
        }
    }
}

pub(crate) fn asynchronously(command: impl Future<Output = anyhow::Result<i32>>) -> anyhow::Result<i32> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let result = runtime.block_on(command);
    // A blocking call that hangs must not keep the process.
    runtime.shutdown_timeout(std::time::Duration::from_secs(1));
    result
}
