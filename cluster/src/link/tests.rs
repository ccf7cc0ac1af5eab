//! The way of one feed over one link.

use super::*;

const W: Duration = Duration::from_millis(2);

fn at(micros: u64) -> Time {
    Time::from_micros(micros)
}

/// A link whose peer has our only feed up to `position` of `head`.
fn link(position: u64, head: u64) -> Link {
    let mut link = Link::new(1, 10, 1, Time::ZERO);
    link.resume(&[position], &[head]);
    link
}

fn live(link: &mut Link, now: Time) -> Option<(u16, u64, u32)> {
    link.next(Lane::FeedLive, W, now)
}

fn bulk(link: &mut Link, now: Time) -> Option<(u16, u64, u32)> {
    link.next(Lane::FeedBulk, W, now)
}

#[test]
fn nothing_is_sent_before_the_peer_has_said_where_it_stands() {
    let mut link = Link::new(1, 10, 1, Time::ZERO);
    link.grown(0, 5);
    link.rewind(0, 0, 5);
    assert_eq!((live(&mut link, at(0)), bulk(&mut link, at(0))), (None, None));
    link.resume(&[3], &[5]);
    assert_eq!(bulk(&mut link, at(0)), Some((0, 3, 0)));
}

#[test]
fn a_peer_that_is_behind_is_served_in_bulk_until_it_has_acknowledged_all() {
    let mut link = link(0, 9);
    assert_eq!(bulk(&mut link, at(0)), Some((0, 0, 0)));
    // A part leaves, more is to come.
    assert!(!link.sent(0, 4, 9));
    assert_eq!(bulk(&mut link, at(0)), Some((0, 4, 0)));
    // All is sent: its acknowledgement is awaited, and what is new waits for it.
    assert!(link.sent(0, 9, 9));
    link.grown(0, 10);
    assert_eq!((live(&mut link, at(9)), bulk(&mut link, at(9))), (None, None));
    link.acked(0, 4, 10);
    assert_eq!(live(&mut link, at(9)), None);
    link.acked(0, 9, 10);
    assert_eq!(live(&mut link, at(9)), Some((0, 9, 0)));
    assert_eq!(bulk(&mut link, at(9)), None);
    assert!(!link.sent(0, 10, 10));
    assert_eq!(live(&mut link, at(99_000)), None);
}

#[test]
fn the_first_change_leaves_at_once_and_the_next_ones_together() {
    let mut link = link(5, 5);
    link.grown(0, 6);
    assert_eq!(live(&mut link, at(100)), Some((0, 5, 0)));
    link.sent(0, 6, 6);
    link.grown(0, 7);
    link.grown(0, 8);
    assert_eq!(live(&mut link, at(2_099)), None);
    assert_eq!(link.poll_timeout(), Some(at(2_100)));
    assert_eq!(live(&mut link, at(2_100)), Some((0, 6, 0)));
    link.sent(0, 8, 8);
    assert_eq!((live(&mut link, at(9_999)), link.poll_timeout()), (None, None));
}

#[test]
fn a_flush_serves_all_shards_that_changed_in_order() {
    let mut link = Link::new(1, 10, 3, Time::ZERO);
    link.resume(&[0; 3], &[0; 3]);
    for shard in [2, 0, 1] {
        link.grown(shard, 1);
    }
    for shard in 0..3 {
        assert_eq!(live(&mut link, at(0)).map(|next| next.0), Some(shard));
        link.sent(shard, 1, 1);
    }
    assert_eq!(live(&mut link, at(0)), None);
}

#[test]
fn a_lane_without_room_leaves_no_deadline_behind() {
    let mut link = link(5, 5);
    link.grown(0, 6);
    link.flush(W, at(100));
    assert_eq!(link.poll_timeout(), None);
    // What is new is served with what is due.
    link.grown(0, 7);
    assert_eq!((live(&mut link, at(100)), link.poll_timeout()), (Some((0, 5, 0)), None));
}

#[test]
fn a_rewind_starts_another_epoch_in_bulk() {
    let mut link = link(5, 5);
    link.grown(0, 8);
    assert!(live(&mut link, at(0)).is_some());
    link.sent(0, 8, 8);
    link.rewind(0, 6, 8);
    assert_eq!((live(&mut link, at(9)), bulk(&mut link, at(9))), (None, Some((0, 6, 1))));
    assert_eq!(link.acked_position(0), 6);
    link.rewind(0, 99, 8);
    assert_eq!((live(&mut link, at(9)), bulk(&mut link, at(9))), (None, None));
    link.grown(0, 9);
    assert_eq!(live(&mut link, at(9_999)), Some((0, 8, 2)));
}

#[test]
fn an_acknowledgement_counts_up_to_what_was_sent_and_never_back() {
    let mut link = link(2, 9);
    link.acked(0, 7, 9);
    assert_eq!(link.acked_position(0), 2);
    link.sent(0, 6, 9);
    link.acked(0, 5, 9);
    link.acked(0, 3, 9);
    assert_eq!(link.acked_position(0), 5);
}

#[test]
fn a_position_beyond_our_head_is_of_another_feed() {
    let mut link = link(10, 9);
    assert_eq!((bulk(&mut link, at(0)), link.acked_position(0)), (Some((0, 0, 0)), 0));
}

#[test]
fn acknowledgements_are_gathered_until_one_is_waited_for() {
    let mut link = link(0, 0);
    link.owe_ack(0, at(50));
    link.owe_ack(3, at(90));
    assert_eq!((link.take_acks(at(49)), link.poll_timeout()), (None, Some(at(50))));
    link.owe_ack(3, at(20));
    assert_eq!(link.take_acks(at(20)), Some(BTreeSet::from([0, 3])));
    assert_eq!((link.take_acks(at(999)), link.poll_timeout()), (None, None));
}

#[test]
fn broadcasts_flood_until_all_is_known_and_where_all_is_wanted() {
    let mut link = link(0, 0);
    assert!(link.floods(0) && !link.caught_up());
    link.incoming[0].behind = false;
    assert!(!link.floods(0) && link.caught_up());
    link.incoming[0].everything = true;
    assert!(link.floods(0) && link.caught_up());
}
