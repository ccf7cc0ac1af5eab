//! The command line: one file a subcommand, and the only place of the program that prints.
//!
//! A command reads its arguments, does one thing and says what came of it: results on standard
//! output, a table for people or JSON (`--json`) for scripts; a failure as one line on standard
//! error, `wingbeat: what, where, what to do`. [`Failure::exit_code`] lists the exit codes.
//!
//! `dev` and `serve` run nodes, which is the business of whoever calls [`main`]: it hands them in
//! as [`Runners`]. All others are clients of a node's HTTP API.

mod api;
mod bench;
mod broadcast;
mod check;
mod client;
mod completions;
mod dev;
mod disconnect;
mod drain;
mod failure;
mod members;
mod roster;
mod serve;
mod sse;
mod subscription;
mod table;
mod tail;
mod text;
mod topics;
mod url;
mod who;

#[cfg(test)]
mod tests;

use std::{
    env,
    ffi::OsString,
    io::{self, BufWriter, Write},
    path::PathBuf,
    process::ExitCode,
};

use clap::{Parser, Subcommand};

use client::Client;

pub use api::ApiArgs;
pub use dev::DevArgs;
pub use failure::Failure;
pub use serve::ServeArgs;

/// Before what went wrong.
const NAME: &str = "wingbeat";

const AFTER_HELP: &str = "\
Start with:
  wingbeat                                  a cluster of three nodes on this machine
  wingbeat who room:lobby                   who is online there
  wingbeat broadcast room:lobby hello '{\"from\":\"me\"}'

Exit codes:
  0  done
  1  failed: the node refused, or a file or an answer is wrong
  2  the command line, the environment or the configuration is wrong
  3  the node cannot be reached, or went away";

/// Wingbeat: a clustered pub/sub node that knows who is online.
#[derive(Debug, Parser)]
#[command(name = "wingbeat", version, after_help = AFTER_HELP)]
pub struct Cli {
    /// What to do; `dev` if nothing is said.
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// Each subcommand.
#[derive(Debug, Subcommand)]
#[expect(missing_docs, reason = "the arguments of each document it, and its help is theirs")]
pub enum Command {
    Dev(DevArgs),
    Serve(ServeArgs),
    Who(who::WhoArgs),
    Topics(topics::TopicsArgs),
    Broadcast(broadcast::BroadcastArgs),
    Tail(tail::TailArgs),
    Members(members::MembersArgs),
    Disconnect(disconnect::DisconnectArgs),
    Drain(drain::DrainArgs),
    Bench(bench::BenchArgs),
    Check(check::CheckArgs),
    Completions(completions::CompletionsArgs),
}

/// What runs nodes, until they end.
#[derive(Clone, Copy, Debug)]
pub struct Runners {
    /// A cluster in this process.
    pub dev: fn(&DevArgs) -> Result<(), Failure>,
    /// One node.
    pub serve: fn(&ServeArgs) -> Result<(), Failure>,
}

/// Where a command writes.
struct Terminal<'a> {
    /// Results.
    out: &'a mut dyn Write,
    /// Remarks for people.
    err: &'a mut dyn Write,
}

/// Runs the command that the process was started with.
pub fn main(runners: &Runners) -> ExitCode {
    // Not locked: a node that runs meanwhile prints too.
    let mut out = BufWriter::new(io::stdout());
    let mut err = io::stderr();
    let terminal = &mut Terminal { out: &mut out, err: &mut err };
    ExitCode::from(run(env::args_os(), runners, terminal))
}

/// Runs this application on a node
///
/// Flags go before variables (WINGBEAT_HTTP__LISTEN=0.0.0.0:4000), variables before the file. The
/// cluster secret comes from WINGBEAT_CLUSTER_SECRET or a file that the configuration names, never
/// from a flag. Ends at SIGTERM or SIGINT.
#[derive(Debug, Parser)]
#[command(
    args_conflicts_with_subcommands = true,
    disable_help_subcommand = true,
    version = concat!("on wingbeat ", env!("CARGO_PKG_VERSION")),
    after_help = "Exit codes: 0 stopped as asked, 1 failed, 2 wrong flags or configuration"
)]
struct Program {
    #[command(flatten)]
    args: ServeArgs,
    #[command(subcommand)]
    command: Option<Only>,
}

#[derive(Debug, Subcommand)]
enum Only {
    #[command(hide = true)]
    Serve(ServeArgs),
}

/// Runs a program that takes the arguments of `wingbeat serve`.
pub(crate) fn run_program(serve: impl FnOnce(&ServeArgs) -> Result<(), Failure>) -> ExitCode {
    let terminal = &mut Terminal { out: &mut io::stdout(), err: &mut io::stderr() };
    let Program { args, command } = match Program::try_parse() {
        Ok(program) => program,
        Err(error) => return ExitCode::from(explain(&error, terminal)),
    };
    let args = command.map_or(args, |Only::Serve(args)| args);
    match serve(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            failure.tell(&program_name(), terminal.err);
            ExitCode::from(failure.exit_code())
        }
    }
}

/// What the program was started as.
fn program_name() -> String {
    let path = env::args_os().next().map(PathBuf::from);
    let name = path.as_ref().and_then(|path| path.file_name());
    name.map_or_else(|| NAME.to_owned(), |name| name.to_string_lossy().into_owned())
}

/// Prints what a running node has to say. Nobody may be reading, which is no reason to stop it.
pub(crate) fn say(text: &str) {
    let mut out = io::stdout().lock();
    drop(out.write_all(text.as_bytes()).and_then(|()| out.flush()));
}

/// Runs the command of `args` and gives its exit code.
fn run(
    args: impl IntoIterator<Item = OsString>,
    runners: &Runners,
    terminal: &mut Terminal<'_>,
) -> u8 {
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => return explain(&error, terminal),
    };
    let ended = dispatch(cli, runners, terminal);
    let flushed = terminal.out.flush().map_err(Failure::from);
    match ended.and(flushed) {
        Ok(()) => 0,
        Err(failure) => {
            failure.tell(NAME, terminal.err);
            failure.exit_code()
        }
    }
}

/// Prints help, the version, or what is wrong with the command line.
fn explain(error: &clap::Error, terminal: &mut Terminal<'_>) -> u8 {
    let text = error.render();
    let written = if error.use_stderr() {
        write!(terminal.err, "{text}")
    } else {
        write!(terminal.out, "{text}").and_then(|()| terminal.out.flush())
    };
    // Fails when nobody listens any more, and then there is nobody to tell.
    drop(written);
    u8::try_from(error.exit_code()).unwrap_or(failure::USAGE)
}

fn dispatch(cli: Cli, runners: &Runners, terminal: &mut Terminal<'_>) -> Result<(), Failure> {
    match cli.command.unwrap_or_else(|| Command::Dev(DevArgs::default())) {
        Command::Dev(args) => (runners.dev)(&args),
        Command::Serve(args) => (runners.serve)(&args),
        Command::Who(args) => block_on(&args.api, async |client| args.run(client, terminal).await),
        Command::Topics(args) => {
            block_on(&args.api, async |client| args.run(client, terminal).await)
        }
        Command::Broadcast(args) => {
            block_on(&args.api, async |client| args.run(client, terminal).await)
        }
        Command::Tail(args) => block_on(&args.api, async |client| args.run(client, terminal).await),
        Command::Members(args) => {
            block_on(&args.api, async |client| args.run(client, terminal).await)
        }
        Command::Disconnect(args) => {
            block_on(&args.api, async |client| args.run(client, terminal).await)
        }
        Command::Drain(args) => {
            block_on(&args.api, async |client| args.run(client, terminal).await)
        }
        Command::Bench(args) => args.run(terminal),
        Command::Check(args) => args.run(env::vars_os(), terminal),
        Command::Completions(args) => args.run(terminal),
    }
}

/// Runs a command against the node that `api` names.
fn block_on(
    api: &ApiArgs,
    command: impl AsyncFnOnce(&Client) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let client = api.client()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::failed(format_args!("no runtime: {error}")))?;
    runtime.block_on(command(&client))
}
