//! What the operating system says of this process.

use std::fs;

/// Usage of the process; zeros where the system does not tell.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Usage {
    pub(super) id: u64,
    /// User and system time, to 10 ms.
    pub(crate) cpu_seconds: f64,
    pub(crate) resident_bytes: u64,
    pub(super) open_fds: u64,
}

/// Clock ticks a second in `/proc/self/stat`, fixed by the kernel's interface.
const TICKS: f64 = 100.0;

const PAGE_BYTES: u64 = 4096;

/// Reads `/proc`.
pub(crate) fn usage() -> Usage {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let descriptors = fs::read_dir("/proc/self/fd").map_or(0, Iterator::count);
    Usage {
        id: u64::from(std::process::id()),
        open_fds: u64::try_from(descriptors).unwrap_or(0),
        ..read(&stat)
    }
}

/// CPU time and memory of another process.
pub(crate) fn usage_of(process: u32) -> Usage {
    read(&fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default())
}

fn read(stat: &str) -> Usage {
    // Fields count from behind the name, which may hold spaces.
    let (_, fields) = stat.rsplit_once(')').unwrap_or_default();
    let fields: Vec<&str> = fields.split_whitespace().collect();
    let field = |number: usize| fields.get(number).and_then(|text| text.parse::<u64>().ok());
    let ticks = field(11).unwrap_or(0) + field(12).unwrap_or(0);
    Usage {
        #[expect(clippy::cast_precision_loss, reason = "ticks since the start are few")]
        cpu_seconds: ticks as f64 / TICKS,
        resident_bytes: field(21).unwrap_or(0) * PAGE_BYTES,
        ..Usage::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_is_that_of_user_and_system_and_the_name_may_hold_anything() {
        let stat = "7 (a b) c) S 1 2 3 4 5 6 7 8 9 10 250 50 0 0 20 0 3 0 100 4096 2 0";
        let want = Usage { cpu_seconds: 3.0, resident_bytes: 2 * PAGE_BYTES, ..Usage::default() };
        assert_eq!(read(stat), want);
        assert_eq!(read("7 (x) S 1"), Usage::default());
    }
}
