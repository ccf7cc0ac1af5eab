//! A broadcast's way to the peers, up to their lanes.

use cluster::wire::{self, PayloadKind};
use divan::Bencher;
use presence::NodeIx;
use wingbeat::pubsub::Routes;

use super::{PAYLOAD, topic};

/// Feed shards, as nodes have them.
const SHARDS: u16 = 64;

/// To the half of the peers that wants it.
#[divan::bench(args = [2, 50, 300])]
fn routes(bencher: Bencher<'_, '_>, peers: u16) {
    let (routes, hash) = (Routes::new(SHARDS), topic("room:lobby").hash64());
    for peer in (1..=peers).map(NodeIx) {
        routes.link(peer, true);
        routes.interest(hash, peer, peer.0 % 2 == 0);
    }
    bencher.bench_local(|| {
        let mut reached = 0;
        routes.peers(divan::black_box(hash), 0, |_| reached += 1);
        reached
    });
}

/// A node that has no peers pays this.
#[divan::bench]
fn routes_of_a_lone_node(bencher: Bencher<'_, '_>) {
    let routes = Routes::new(SHARDS);
    bencher.bench_local(|| divan::black_box(&routes).any_known());
}

fn broadcast() -> wire::Broadcast<'static> {
    let kind = PayloadKind::Json;
    wire::Broadcast { topic: "room:lobby", event: "new_msg", kind, sequence: 12_345 }
}

#[divan::bench]
fn wire_encode(bencher: Bencher<'_, '_>) {
    bencher.bench_local(|| wire::encode_broadcast(divan::black_box(&broadcast())));
}

#[divan::bench]
fn wire_decode(bencher: Bencher<'_, '_>) {
    let frame = bytes::Bytes::from([&wire::encode_broadcast(&broadcast()), PAYLOAD].concat());
    bencher.bench_local(|| {
        let (header, payload) = wire::decode_broadcast(&frame).unwrap().unwrap();
        (header.sequence, payload.len())
    });
}
