//! The `wingbeat` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    wingbeat::cli::main(&wingbeat::runners())
}
