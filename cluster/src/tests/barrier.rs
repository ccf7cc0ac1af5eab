//! Joins that wait for the peers.

use super::*;

/// A new interest on node 0, and a join that waits for it.
fn join(net: &mut Net, name: &str, id: u64) {
    let hash = topic(name).hash64();
    let shard = presence::shard_of(hash, SHARDS);
    let now = net.now;
    let core = &mut net.cores[0];
    let presence = &mut core.shards.0[usize::from(shard)];
    let seq = presence.acquire_interest(hash, now);
    core.cluster.handle_head(shard, presence.head());
    core.cluster.barrier(shard, seq, id, now);
}

fn answers(net: &mut Net) -> Vec<(u64, bool)> {
    let events = net.events(0).into_iter();
    events
        .filter_map(|event| {
            let Event::Barrier { id, confirmed } = event else { return None };
            Some((id, confirmed))
        })
        .collect()
}

#[test]
fn alone_nobody_is_waited_for() {
    let mut net = Net::apart(1, &config());
    join(&mut net, "a", 1);
    assert_eq!(answers(&mut net), [(1, true)]);
}

#[test]
fn a_join_waits_until_every_linked_peer_has_acknowledged() {
    let mut net = Net::together(3, &config());
    net.shut(2, 0);
    join(&mut net, "a", 1);
    join(&mut net, "b", 2);
    net.pump();
    assert_eq!(answers(&mut net), []);
    net.shut.clear();
    net.pump();
    let mut answered = answers(&mut net);
    answered.sort_unstable();
    assert_eq!(answered, [(1, true), (2, true)]);
}

#[test]
fn a_second_join_of_a_known_topic_does_not_wait() {
    let mut net = Net::together(2, &config());
    join(&mut net, "a", 1);
    net.pump();
    net.shut(1, 0);
    join(&mut net, "a", 2);
    assert_eq!(answers(&mut net), [(1, true), (2, true)]);
}

#[test]
fn a_peer_that_missed_one_barrier_is_left_out_until_it_acknowledges_again() {
    let mut net = Net::together(3, &config());
    net.shut(2, 0);
    join(&mut net, "a", 1);
    net.pass(Duration::from_millis(199));
    assert_eq!(answers(&mut net), []);
    net.pass(Duration::from_millis(1));
    assert_eq!(answers(&mut net), [(1, false)]);
    assert_eq!(net.cores[0].cluster.stats().barrier_timeouts, 1);
    // The next one waits for the other peer only, and says that not all know.
    join(&mut net, "b", 2);
    net.pass(Duration::from_millis(5));
    assert_eq!(answers(&mut net), [(2, false)]);
    net.shut.clear();
    net.pass(Duration::from_millis(100));
    join(&mut net, "c", 3);
    net.pass(Duration::from_millis(5));
    assert_eq!(answers(&mut net), [(3, true)]);
    assert_eq!(net.cores[0].cluster.stats().barrier_timeouts, 1);
}

#[test]
fn a_peer_whose_link_ends_is_not_waited_for() {
    let mut net = Net::together(3, &config());
    net.shut(2, 0);
    join(&mut net, "a", 1);
    net.pump();
    net.unlink(0, 2);
    assert_eq!(answers(&mut net), [(1, true)]);
}

#[test]
fn too_many_joins_at_once_do_not_wait() {
    let mut net = Net::together(2, &Config { barriers_max: 2, ..config() });
    net.shut(1, 0);
    for (id, name) in (1..).zip(["a", "b", "c"]) {
        join(&mut net, name, id);
    }
    assert_eq!(answers(&mut net), [(3, false)]);
    assert_eq!(net.cores[0].cluster.stats().barriers_skipped, 1);
}

/// An acknowledgement of what an earlier run of this node had said may still be on its way.
#[test]
fn what_is_acknowledged_to_another_run_releases_nobody() {
    let mut net = Net::together(2, &config());
    net.shut(1, 0);
    join(&mut net, "a", 1);
    net.pump();
    let shard = presence::shard_of(topic("a").hash64(), SHARDS);
    let incarnation = net.cores[0].cluster.me().incarnation;
    let ack = |incarnation| {
        let positions = vec![(shard, u64::MAX)];
        Message::Ack(crate::wire::Positions { incarnation, positions })
    };
    net.forge(0, 1, &ack(incarnation - 1)).expect("a sound frame");
    assert_eq!(answers(&mut net), []);
    net.forge(0, 1, &ack(incarnation)).expect("a sound frame");
    assert_eq!(answers(&mut net), [(1, true)]);
}
