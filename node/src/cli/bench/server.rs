//! What the nodes use, read from their `/metrics`.

mod buckets;

use std::collections::BTreeMap;

use crate::telemetry::process::usage_of;

use super::{
    super::{Failure, client::Client},
    measure::as_f64,
};

pub(super) use buckets::Buckets;

/// The nodes under test, or a process in their place.
#[derive(Debug)]
pub(super) struct Servers {
    nodes: Vec<(String, Client)>,
    process: Option<u32>,
}

/// What the processes of all nodes have used since they started, and use.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Usage {
    /// The nodes of `wingbeat dev` share one.
    pub(super) processes: usize,
    pub(super) cpu_seconds: f64,
    pub(super) resident_bytes: f64,
}

/// What one node says of its process.
#[derive(Clone, Debug, Default, PartialEq)]
struct Process {
    id: Option<String>,
    started: Option<String>,
    cpu_seconds: f64,
    resident_bytes: f64,
}

/// Which process it is. Numbers are compared as they are written: equal processes write equally.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Identity<'a> {
    Process {
        id: &'a str,
        started: Option<&'a str>,
    },
    /// It does not say, so each node counts as one.
    Node(&'a str),
}

impl Servers {
    pub(super) fn new(urls: &[String], token: Option<&str>) -> Result<Self, Failure> {
        let node = |url: &String| Ok((url.clone(), Client::new(url, token)?));
        let nodes = urls.iter().map(node).collect::<Result<_, Failure>>()?;
        Ok(Self { nodes, process: None })
    }

    /// A process of this machine, of which the system tells.
    pub(super) fn of_process(process: u32) -> Self {
        Self { nodes: Vec::new(), process: Some(process) }
    }

    /// Asks every node; `None` if some node tells nothing of its process, as other servers may.
    /// Fails if a node cannot be reached.
    pub(super) async fn usage(&self) -> Result<Option<Usage>, Failure> {
        if let Some(process) = self.process {
            let of = usage_of(process);
            let resident_bytes = as_f64(of.resident_bytes);
            return Ok(Some(Usage { processes: 1, cpu_seconds: of.cpu_seconds, resident_bytes }));
        }
        let mut processes = Vec::with_capacity(self.nodes.len());
        for (url, client) in &self.nodes {
            match client.get("/metrics").await {
                Ok(page) => {
                    let process = Process::read(&String::from_utf8_lossy(&page));
                    let Some(process) = process else {
                        return Ok(None);
                    };
                    processes.push((url.as_str(), process));
                }
                Err(failure @ (Failure::Unreachable(_) | Failure::Usage(_))) => {
                    return Err(failure);
                }
                Err(_) => return Ok(None),
            }
        }
        Ok(Some(sum(&processes)))
    }
}

impl Servers {
    /// The process of each node; `None` for those that do not tell.
    pub(super) async fn process_ids(&self) -> Result<Vec<Option<u32>>, Failure> {
        let mut ids = Vec::with_capacity(self.nodes.len());
        for (_, client) in &self.nodes {
            let page = client.get("/metrics").await?;
            let process = Process::read(&String::from_utf8_lossy(&page));
            ids.push(process.and_then(|process| process.id?.parse().ok()));
        }
        Ok(ids)
    }

    /// What all nodes have counted in one histogram; `None` if some node does not have it. Nodes of
    /// one process that share a page are counted as often as they are named.
    pub(super) async fn buckets(&self, name: &str) -> Result<Option<Buckets>, Failure> {
        let mut all = Buckets::default();
        for (_, client) in &self.nodes {
            let page = client.get("/metrics").await?;
            match Buckets::read(&String::from_utf8_lossy(&page), name) {
                Some(buckets) => all.add(&buckets),
                None => return Ok(None),
            }
        }
        Ok(Some(all))
    }
}

/// Adds up, each process once.
fn sum(nodes: &[(&str, Process)]) -> Usage {
    let mut distinct = BTreeMap::new();
    for (url, process) in nodes {
        let identity = match &process.id {
            Some(id) => Identity::Process { id, started: process.started.as_deref() },
            None => Identity::Node(url),
        };
        distinct.insert(identity, process);
    }
    Usage {
        processes: distinct.len(),
        cpu_seconds: distinct.values().map(|p| p.cpu_seconds).sum(),
        resident_bytes: distinct.values().map(|p| p.resident_bytes).sum(),
    }
}

impl Process {
    /// Reads a page of metrics; `None` without CPU time and memory.
    fn read(page: &str) -> Option<Self> {
        let (mut cpu_seconds, mut resident_bytes) = (None, None);
        let mut process = Self::default();
        for (name, _labels, value) in page.lines().filter_map(sample) {
            match name.strip_prefix("wingbeat_").unwrap_or(name) {
                "process_id" => process.id = Some(value.to_owned()),
                "process_start_time_seconds" => process.started = Some(value.to_owned()),
                "process_cpu_seconds_total" => cpu_seconds = value.parse().ok(),
                "process_resident_memory_bytes" => resident_bytes = value.parse().ok(),
                _ => {}
            }
        }
        process.cpu_seconds = cpu_seconds?;
        process.resident_bytes = resident_bytes?;
        Some(process)
    }
}

/// The name, the labels and the value of a line of metrics; `None` for other lines.
fn sample(line: &str) -> Option<(&str, &str, &str)> {
    let (name, rest) = line.split_once([' ', '{']).filter(|_| !line.starts_with('#'))?;
    // Behind labels, if there are any.
    let (labels, value) = rest.rsplit_once('}').unwrap_or(("", rest));
    Some((name, labels, value.split_whitespace().next()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = "\
# HELP process_cpu_seconds CPU time.
# TYPE process_cpu_seconds counter
process_cpu_seconds_total 12.5
process_resident_memory_bytes{node=\"a b\"} 4096 1700000000
wingbeat_process_id 7
process_start_time_seconds 1.5e9
wingbeat_sockets 3
# EOF
";

    #[test]
    fn a_page_of_metrics_tells_the_process() {
        let expected = Process {
            id: Some("7".to_owned()),
            started: Some("1.5e9".to_owned()),
            cpu_seconds: 12.5,
            resident_bytes: 4096.0,
        };
        assert_eq!(Process::read(PAGE), Some(expected));
        assert_eq!(Process::read("process_cpu_seconds_total 1\n"), None);
        assert_eq!(Process::read("nothing\n\n{} {\n"), None);
    }

    #[test]
    fn nodes_of_one_process_count_once() {
        let shared = Process::read(PAGE).unwrap();
        let mut other = shared.clone();
        other.id = Some("8".to_owned());
        let mut unknown = shared.clone();
        unknown.id = None;
        let one = |nodes: &[(&str, Process)]| sum(nodes).processes;
        assert_eq!(one(&[("a", shared.clone()), ("b", shared.clone())]), 1);
        assert_eq!(one(&[("a", unknown.clone()), ("b", unknown)]), 2);
        let both = sum(&[("a", shared), ("b", other)]);
        assert_eq!((both.processes, both.cpu_seconds, both.resident_bytes), (2, 25.0, 8192.0));
    }
}
