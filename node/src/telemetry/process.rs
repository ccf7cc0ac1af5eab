//! What the operating system says of this process.

use std::fs;

/// Usage of the process; zeros where the system does not tell.
#[derive(Debug, Default)]
pub(super) struct Usage {
    pub(super) id: u64,
    pub(super) cpu_seconds: f64,
    pub(super) resident_bytes: u64,
    pub(super) open_fds: u64,
}

/// Clock ticks a second in `/proc/self/stat`, fixed by the kernel's interface.
const TICKS: f64 = 100.0;

const PAGE_BYTES: u64 = 4096;

/// Reads `/proc`.
pub(super) fn usage() -> Usage {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // Fields count from behind the name, which may hold spaces.
    let fields: Vec<&str> =
        stat.rsplit_once(')').map_or(Vec::new(), |(_, rest)| rest.split_whitespace().collect());
    let field = |number: usize| fields.get(number).and_then(|text| text.parse::<u64>().ok());
    let ticks = field(11).unwrap_or(0) + field(12).unwrap_or(0);
    let descriptors = fs::read_dir("/proc/self/fd").map_or(0, Iterator::count);
    Usage {
        id: u64::from(std::process::id()),
        #[expect(clippy::cast_precision_loss, reason = "ticks since the start are few")]
        cpu_seconds: ticks as f64 / TICKS,
        resident_bytes: field(21).unwrap_or(0) * PAGE_BYTES,
        open_fds: u64::try_from(descriptors).unwrap_or(0),
    }
}
