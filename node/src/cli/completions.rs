//! `wingbeat completions`.

use clap::CommandFactory as _;
use clap_complete::Shell;

use super::{Cli, Failure, Terminal};

/// Print the completion script of a shell
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  wingbeat completions bash > /etc/bash_completion.d/wingbeat
  wingbeat completions fish > ~/.config/fish/completions/wingbeat.fish
  wingbeat completions zsh > \"${fpath[1]}/_wingbeat\"")]
pub struct CompletionsArgs {
    /// The shell
    shell: Shell,
}

impl CompletionsArgs {
    pub(super) fn run(&self, terminal: &mut Terminal<'_>) -> Result<(), Failure> {
        // Made in memory first: the generator panics when its writer fails.
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Cli::command(), "wingbeat", &mut script);
        Ok(terminal.out.write_all(&script)?)
    }
}
