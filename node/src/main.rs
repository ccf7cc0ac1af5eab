//! The `wingbeat` command.

use std::process::ExitCode;

/// The system's allocator keeps what a burst of large frames took; this one gives it back, and costs
/// less time.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    wingbeat::cli::main(&wingbeat::runners())
}
