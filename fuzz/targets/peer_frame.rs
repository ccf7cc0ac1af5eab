//! Frames of a linked peer: whatever they are, the node refuses them or takes them.
#![no_main]

use bytes::Bytes;
use cluster::{Cluster, Config, Lane, Shards, wire};
use libfuzzer_sys::fuzz_target;
use presence::{Replica, Shard, Time};

/// Shards in a row.
struct Lent(Vec<Shard>);

impl Shards for Lent {
    fn with<R>(&mut self, shard: u16, work: impl FnOnce(&mut Shard) -> R) -> R {
        work(&mut self.0[usize::from(shard)])
    }
}

fuzz_target!(|frames: Vec<(u16, Vec<u8>)>| {
    let replica = |name: &str| Replica { name: name.parse().expect("a name"), incarnation: 1 };
    let me = replica("me");
    let mut now = Time::ZERO;
    let config = Config { shards: 2, ..Config::default() };
    let shard = |number| Shard::new(presence::Config::default(), number, me.clone());
    let mut shards = Lent((0..2).map(shard).collect());
    let address = "10.0.0.1:4400".parse().expect("an address");
    let mut cluster = Cluster::new(config, me.clone(), address, 1, now);
    let Some(peer) = cluster.handle_link_up(1, &replica("peer"), &mut shards, now) else { return };
    for (millis, frame) in frames {
        let frame = Bytes::from(frame);
        let _ = wire::decode_broadcast(&frame);
        let _ = wire::decode_topics_request(&frame);
        let _ = wire::decode_topics(&frame);
        if cluster.handle_frame(peer, 1, &frame, &mut shards, now).is_err() {
            return;
        }
        while cluster.poll_event().is_some() {}
        for lane in Lane::ALL {
            while cluster.poll_transmit(peer, lane, 64 << 10, &mut shards, now).is_some() {}
        }
        now = now + std::time::Duration::from_millis(millis.into());
        cluster.handle_timeout(&mut shards, now);
    }
});
