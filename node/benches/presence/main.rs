//! The figures of presence, each beside its target: `just bench-presence`.
//!
//! Nodes are real: they run in this process, or in processes of their own where they are to be
//! killed or to serve sockets, and are linked by QUIC on loopback. A figure is the median of its
//! runs, which follow in brackets, lowest and highest. It asserts nothing about the figures; what was
//! never seen ends it. `cargo bench -p presence --bench figures` measures the core alone.

#![expect(clippy::print_stdout, reason = "a bench prints its figures")]
#![expect(clippy::indexing_slicing, reason = "clients and topics are numbered by the bench itself")]

mod catch_up;
mod cluster;
mod crash;
mod list;
mod meter;
mod sockets;
mod table;
mod tracks;
mod wire;

use std::error::Error;

use table::Row;

type Failure = Box<dyn Error + Send + Sync>;

type Case = fn() -> Result<Vec<Row>, Failure>;

/// Runs of a case whose figure is a median.
const RUNS: usize = 3;

const CASES: [(&str, Case); 6] = [
    ("tracks", tracks::measure),
    ("sockets", sockets::measure),
    ("catch-up", catch_up::measure),
    ("list", list::measure),
    ("wire", wire::measure),
    ("crash", crash::measure),
];

fn main() -> Result<(), Failure> {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    if let [flag, rest @ ..] = &args[..]
        && flag == cluster::NODE_FLAG
    {
        return cluster::be_node(rest);
    }
    for (name, case) in CASES {
        if args.is_empty() || args.iter().any(|arg| arg == name) {
            for row in case()? {
                println!("{row}");
            }
        }
    }
    Ok(())
}
