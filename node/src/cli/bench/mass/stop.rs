//! The node that is stopped.

use std::fs;

use rustix::process::{Pid, Signal, kill_process};

use super::super::{super::Failure, block_on, process::is_serving, server::Servers};

/// The process of a node, on this machine.
#[derive(Clone, Copy, Debug)]
pub(super) struct Doomed {
    process: Pid,
}

impl Doomed {
    /// The last node's, if no other node is of the same process.
    pub(super) fn find(urls: &[String], token: Option<&str>) -> Result<Self, Failure> {
        let [others @ .., last] = urls else {
            return Err(too_few());
        };
        if others.is_empty() {
            return Err(too_few());
        }
        let ids = block_on(Servers::new(urls, token)?.process_ids())?;
        let Some((Some(id), others)) = ids.split_last() else {
            return Err(Failure::failed(format_args!("{last}/metrics tells no process id")));
        };
        if others.contains(&Some(*id)) {
            return Err(Failure::usage(format_args!(
                "process {id} serves other nodes than {last} too, and would stop those: \
                 start each node as a process of its own"
            )));
        }
        let command = fs::read(format!("/proc/{id}/cmdline")).unwrap_or_default();
        let process = i32::try_from(*id).ok().and_then(Pid::from_raw);
        match process.filter(|_| is_serving(&command)) {
            Some(process) => Ok(Self { process }),
            None => Err(Failure::usage(format_args!(
                "{last} says that it is process {id}, and that is no `wingbeat serve` of this \
                 machine: run the bench where the node runs"
            ))),
        }
    }

    /// Asks it to stop.
    pub(super) fn stop(self) -> Result<(), Failure> {
        kill_process(self.process, Signal::INT).map_err(|error| {
            let process = self.process.as_raw_nonzero();
            Failure::failed(format_args!("cannot stop process {process}: {error}"))
        })
    }
}

fn too_few() -> Failure {
    Failure::usage(
        "--event stop stops the last node while the others go on: name two or more, \
         --url http://127.0.0.1:4000 --url http://127.0.0.1:4001",
    )
}
