//! Frames between two nodes travel on these lanes.

use transport::{Delivery, Lane, LaneConfig, WhenFull};

pub(crate) const SWIM: Lane = Lane(0);
pub(crate) const CONTROL: Lane = Lane(1);
pub(crate) const FEED_LIVE: Lane = Lane(2);
pub(crate) const FEED_BULK: Lane = Lane(3);
pub(crate) const DATA: u8 = 4;
const DATA_LANES: u16 = 4;

/// The lane of the core's name.
pub(crate) fn of(lane: cluster::Lane) -> Lane {
    match lane {
        cluster::Lane::Swim => SWIM,
        cluster::Lane::Control => CONTROL,
        cluster::Lane::FeedLive => FEED_LIVE,
        cluster::Lane::FeedBulk => FEED_BULK,
    }
}

/// Bytes that must be free in a lane before it is filled. A range of a feed is never longer, and
/// one that did not fit would cut the link.
pub(crate) fn room_wanted(lane: cluster::Lane) -> usize {
    match lane {
        cluster::Lane::Swim | cluster::Lane::Control => 1,
        cluster::Lane::FeedLive | cluster::Lane::FeedBulk => 64 << 10,
    }
}

/// The lane of broadcasts on topics of a shard: always the same one, so they keep their order.
pub(crate) fn data(shard: u16) -> Lane {
    Lane(DATA + u8::try_from(shard % DATA_LANES).unwrap_or(0))
}

/// All lanes, by number.
pub(crate) fn all() -> Vec<LaneConfig> {
    let lane = |name, bound, when_full, delivery, priority| LaneConfig {
        name,
        bound,
        when_full,
        delivery,
        priority,
    };
    let queue = Delivery::Queue;
    let mut lanes = vec![
        lane("swim", 256 << 10, WhenFull::Drop, queue, 4),
        lane("control", 1 << 20, WhenFull::Cut, queue, 3),
        lane("feed-live", 256 << 10, WhenFull::Cut, queue, 2),
        lane("feed-bulk", 1 << 20, WhenFull::Cut, queue, 0),
    ];
    for name in ["data-0", "data-1", "data-2", "data-3"] {
        lanes.push(lane(name, 8 << 20, WhenFull::Drop, Delivery::Direct, 1));
    }
    lanes
}
