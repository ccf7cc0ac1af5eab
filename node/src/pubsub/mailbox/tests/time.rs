//! Clients that say nothing, or take nothing.

use super::*;

const TIMEOUT: u32 = 50;

fn mailbox() -> Arc<Mailbox> {
    let mailbox = Mailbox::new(LIMIT, Outlet::Owner);
    mailbox.hear(100);
    mailbox
}

#[test]
fn a_silent_client_is_asked_for_when_its_time_is_up_and_then_closed() {
    let (mailbox, owner) = (mailbox(), Owner::new());
    assert_eq!(owner.control(&mailbox), None);
    assert_eq!(mailbox.expire(101, TIMEOUT), Some(150));
    mailbox.hear(120);
    assert_eq!(mailbox.expire(150, TIMEOUT), Some(170));
    assert_eq!(mailbox.expire(169, TIMEOUT), Some(170));
    push(&mailbox, b'a');
    assert_eq!(owner.control(&mailbox), None);
    let rings = owner.rings();
    assert_eq!(mailbox.expire(170, TIMEOUT), None);
    assert_eq!(owner.rings(), rings + 1);
    assert_eq!(owner.control(&mailbox), Some(Control::Close(CloseReason::Idle)), "at once");
    assert!(mailbox.is_empty(), "nothing is kept for it");
}

#[test]
fn a_client_that_takes_nothing_is_closed_however_much_it_says() {
    let (mailbox, owner) = (mailbox(), Owner::new());
    push(&mailbox, b'a');
    mailbox.note_blocked(110);
    mailbox.note_blocked(140);
    mailbox.hear(140);
    assert_eq!(mailbox.expire(150, TIMEOUT), Some(160), "since it took nothing first");
    mailbox.hear(159);
    assert_eq!(mailbox.expire(160, TIMEOUT), None);
    assert_eq!(owner.control(&mailbox), Some(Control::Close(CloseReason::Stalled)), "at once");
}

#[test]
fn a_client_that_takes_a_little_now_and_then_stays() {
    let mailbox = mailbox();
    push(&mailbox, b'a');
    for now in (110..1000).step_by(40) {
        mailbox.note_blocked(now);
        mailbox.hear(now);
        assert!(mailbox.expire(now + 39, TIMEOUT).is_some());
        mailbox.note_progress();
    }
    assert_eq!(mailbox.expire(1000, TIMEOUT), Some(990 + TIMEOUT));
    assert_eq!(mailbox.closed(), None);
}

#[test]
fn a_client_that_is_not_listened_to_is_not_silent() {
    let mailbox = mailbox();
    mailbox.stop_listening();
    for now in (150..1000).step_by(50) {
        assert_eq!(mailbox.expire(now, TIMEOUT), Some(now + TIMEOUT));
    }
    mailbox.hear(1000);
    assert_eq!(mailbox.expire(1049, TIMEOUT), Some(1050));
    assert_eq!(mailbox.expire(1050, TIMEOUT), None);
}

#[test]
fn a_clock_that_stands_behind_closes_nobody() {
    let mailbox = mailbox();
    mailbox.note_blocked(100);
    assert_eq!(mailbox.expire(1, TIMEOUT), Some(150));
    mailbox.hear(u32::MAX);
    mailbox.note_progress();
    assert_eq!(mailbox.expire(u32::MAX, TIMEOUT), Some(u32::MAX), "nor one at its end");
}
