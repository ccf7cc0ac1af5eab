//! What the operating system allows this process.

use std::fs;

use super::super::Failure;

/// Descriptors besides those of the sockets: the runtime's, the standard streams, requests.
const SPARE_FILES: u64 = 32;

/// Fails if the process may not open so many sockets. Where the system does not tell the limit, the
/// first socket over it will.
pub(super) fn require_sockets(sockets: u64) -> Result<(), Failure> {
    let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
    check_files(&limits, sockets + SPARE_FILES)
}

fn check_files(limits: &str, needed: u64) -> Result<(), Failure> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"));
    let mut values = line.unwrap_or_default().split_whitespace();
    match values.next().and_then(|soft| soft.parse::<u64>().ok()) {
        Some(limit) if limit < needed => Err(Failure::usage(format_args!(
            "needs {needed} file descriptors, limit is {limit}: raise it with ulimit -n {needed}"
        ))),
        _ => Ok(()),
    }
}

/// Whether a command line, as `/proc` has it, is that of `wingbeat serve`, whatever the program's
/// file is called.
pub(super) fn is_serving(command: &[u8]) -> bool {
    command.split(|byte| *byte == 0).skip(1).any(|argument| argument == b"serve")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_low_a_limit_is_wrong_usage_and_says_what_to_do() {
        let limits = "Limit  Soft Limit  Hard Limit  Units\nMax open files  1024  4096  files\n";
        let failure = check_files(limits, 2_000).unwrap_err();
        assert_eq!(failure.exit_code(), 2);
        assert_eq!(
            failure.to_string(),
            "needs 2000 file descriptors, limit is 1024: raise it with ulimit -n 2000"
        );
        assert_eq!(check_files(limits, 1_024), Ok(()));
        assert_eq!(check_files("Max open files  unlimited  unlimited  files", u64::MAX), Ok(()));
        assert_eq!(check_files("", u64::MAX), Ok(()));
    }

    #[test]
    fn a_node_is_told_from_other_processes_by_its_command() {
        assert!(is_serving(b"/opt/w2\0serve\0--name\0n1\0"));
        for other in [&b"serve\0"[..], b"/sbin/init\0", b"wingbeat\0dev\0", b"vi\0serve.rs\0", b""]
        {
            assert!(!is_serving(other));
        }
    }
}
