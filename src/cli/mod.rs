//! The command line: one file per command; prints, decides nothing.

pub mod adopt;
pub mod completion;
pub mod connect;
pub mod diff;
pub mod directory;
pub mod drift;
pub mod endpoints;
pub mod expansion;
pub mod find;
pub mod health;
pub mod history;
pub mod install;
pub mod live;
pub mod output;
pub mod probe;
pub mod release;
pub mod render;
mod rendered;
pub mod request;
pub mod rollback;
pub mod rollout;
pub mod run;
pub mod status;
pub mod suspend;
pub mod sync;
pub mod tree;
pub mod uninstall;

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
    /// Show Repositories and Deliveries: revision, health, what is held and why
    Status(status::StatusArgs),
    /// Show each field that is not as it should be, who changed it, and what was mended lately
    Drift(drift::DriftArgs),
    /// Show the last revisions of a Delivery and what became of each
    History(history::HistoryArgs),
    /// Show what a Delivery or an Application has in the cluster, what that owns, and how it is
    Tree(tree::TreeArgs),
    /// Show who serves for a Delivery or an Application, by variant, and the traffic policy in force
    Endpoints(endpoints::EndpointsArgs),
    /// Show what a directory on disk would change in the cluster
    Diff(diff::DiffArgs),
    /// Print the objects that a directory on disk renders to; needs no cluster
    Render(render::RenderArgs),
    /// Look at the source now, and reconcile
    Sync(sync::SyncArgs),
    /// Show how far a rollout is: steps, weights, measurements, what it waits for
    Rollout(rollout::RolloutArgs),
    /// Let a rollout go on, or promote it at once
    Promote(rollout::PromoteArgs),
    /// Keep a rollout where it is
    Pause(rollout::AskArgs),
    /// Take a rollout back, and hold its revision
    Abort(rollout::AskArgs),
    /// Try a revision again whose rollout failed
    Retry(rollout::AskArgs),
    /// Stop reconciling a Delivery; what runs stays
    Suspend(suspend::SuspendArgs),
    /// Go on reconciling a Delivery that is suspended, or with a rollout that is paused
    Resume(suspend::ResumeArgs),
    /// Go back to a revision that was deployed before, and hold the newest one
    Rollback(rollback::RollbackArgs),
    /// Try a held revision again
    Release(release::ReleaseArgs),
    /// Give a Delivery whose status was lost its objects back
    Adopt(adopt::AdoptArgs),
    /// Tell the health of objects given as YAML or JSON
    Health(health::HealthArgs),
    /// Take Windlass out of the cluster; what it deployed stays
    Uninstall(uninstall::UninstallArgs),
    /// Print a script that completes the words of this command in a shell
    Completion(completion::CompletionArgs),
    /// Put the custom resource definitions, or all of Windlass, into a cluster
    Install(install::InstallArgs),
    /// Ask a server for its health: exit code 0 when it is well
    #[command(hide = true)]
    Probe(probe::ProbeArgs),
}

/// Threads for what blocks (reading a mirror). Hundreds of Deliveries that begin together would start hundreds of them,
/// each with memory of its own, for the few processors that there are.
const BLOCKING_THREADS: usize = 8;

/// Runs a command; the answer is the exit code.
pub fn main(cli: Cli) -> i32 {
    crate::telemetry::start(&cli.log_level, cli.log_format);
    let result = match cli.command {
        Command::Run(args) => asynchronously(run::run(*args)),
        Command::Status(args) => asynchronously(status::run(args)),
        Command::Drift(args) => asynchronously(drift::run(args)),
        Command::History(args) => asynchronously(history::run(args)),
        Command::Tree(args) => asynchronously(tree::run(args)),
        Command::Endpoints(args) => asynchronously(endpoints::run(args)),
        Command::Diff(args) => asynchronously(diff::run(args)),
        Command::Render(args) => asynchronously(render::run(args)),
        Command::Sync(args) => asynchronously(sync::run(args)),
        Command::Rollout(args) => asynchronously(rollout::run(args)),
        Command::Promote(args) => asynchronously(rollout::promote(args)),
        Command::Pause(args) => asynchronously(rollout::pause(args)),
        Command::Abort(args) => asynchronously(rollout::abort(args)),
        Command::Retry(args) => asynchronously(rollout::retry(args)),
        Command::Suspend(args) => asynchronously(suspend::suspend(args)),
        Command::Resume(args) => asynchronously(suspend::resume(args)),
        Command::Rollback(args) => asynchronously(rollback::run(args)),
        Command::Release(args) => asynchronously(release::run(args)),
        Command::Adopt(args) => asynchronously(adopt::run(args)),
        Command::Uninstall(args) => asynchronously(uninstall::run(args)),
        Command::Completion(args) => completion::run(&args),
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
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .max_blocking_threads(BLOCKING_THREADS)
        .build()?;
    let result = runtime.block_on(command);
    // A blocking call that hangs must not keep the process.
    runtime.shutdown_timeout(std::time::Duration::from_secs(1));
    result
}
