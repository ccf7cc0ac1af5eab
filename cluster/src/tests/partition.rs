//! What is said of nodes that are missing.

use super::*;
use crate::Partition;

fn suspected(net: &Net, node: usize) -> Option<(usize, usize)> {
    let partition = net.cores[node].cluster.partition();
    partition.map(|Partition { missing, members, .. }| (missing, members))
}

fn lose(net: &mut Net, a: usize, b: usize) {
    net.shut(a, b);
    net.shut(b, a);
    net.unlink(a, b);
}

#[test]
fn both_sides_of_a_split_suspect_it_until_it_is_healed() {
    let mut net = Net::together(3, &config());
    assert_eq!(suspected(&net, 0), None);
    lose(&mut net, 0, 2);
    lose(&mut net, 1, 2);
    net.pass(Duration::from_secs(6));
    let all: Vec<_> = (0..3).map(|node| suspected(&net, node)).collect();
    assert_eq!(all, [Some((1, 3)), Some((1, 3)), Some((2, 3))]);
    let began = net.events(0).into_iter().filter_map(|event| {
        let Event::PartitionSuspected { missing } = event else { return None };
        Some(missing)
    });
    assert_eq!(began.collect::<Vec<_>>(), [replica(2).name]);
    let since = net.cores[0].cluster.partition().map(|partition| partition.since);
    net.shut.clear();
    net.link(0, 2);
    net.link(1, 2);
    net.pass(Duration::from_secs(3));
    let all: Vec<_> = (0..3).map(|node| suspected(&net, node)).collect();
    assert_eq!(all, [None; 3]);
    let over = net.events(0).into_iter().filter_map(|event| {
        let Event::PartitionOver { lasted } = event else { return None };
        Some(lasted)
    });
    let over: Vec<_> = over.collect();
    assert_eq!(over.len(), 1);
    assert!(since.is_some_and(|since| over[0] <= net.now.since(since)));
}

#[test]
fn a_goodbye_is_no_partition() {
    let mut net = Net::together(3, &config());
    let now = net.now;
    net.cores[1].cluster.leave(Duration::ZERO, now);
    net.pass(Duration::from_secs(1));
    net.unlink(0, 1);
    net.unlink(1, 2);
    net.pass(Duration::from_secs(10));
    assert_eq!((suspected(&net, 0), suspected(&net, 2)), (None, None));
    let told = net.events(0).into_iter().any(|e| matches!(e, Event::PartitionSuspected { .. }));
    assert!(!told);
}

#[test]
fn a_node_that_is_forgotten_is_missing_no_more() {
    let settings = Config { forget_after: Duration::from_secs(60), ..config() };
    let mut net = Net::together(2, &settings);
    lose(&mut net, 0, 1);
    net.pass(Duration::from_secs(30));
    assert_eq!(suspected(&net, 0), Some((1, 2)));
    net.pass(Duration::from_secs(40));
    assert_eq!(suspected(&net, 0), None);
}
