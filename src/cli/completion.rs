//! `windlass completion SHELL`: the words of the command line for a shell.

use super::{Cli, WELL};
use clap::CommandFactory;

/// Print a script that completes the words of this command in a shell.
///
/// bash: source <(windlass completion bash). zsh: windlass completion zsh > "${fpath[1]}/_windlass".
/// fish: windlass completion fish > ~/.config/fish/completions/windlass.fish
#[derive(Clone, Debug, clap::Args)]
pub struct CompletionArgs {
    /// The shell
    #[arg(value_enum)]
    shell: clap_complete::Shell,
}

/// Prints the script.
pub fn run(args: &CompletionArgs) -> anyhow::Result<i32> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "windlass", &mut script);
    super::output::emit(&String::from_utf8_lossy(&script))?;
    Ok(WELL)
}
