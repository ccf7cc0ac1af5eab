//! Who is alive: SWIM. The only file that drives foca.
//!
//! foca hands out any number of timers and effects through callbacks; this wraps it so that one
//! deadline and one queue of notices come out.

use std::{
    collections::{BTreeMap, VecDeque},
    fmt,
    num::{NonZeroU8, NonZeroUsize},
    time::Duration,
};

use bytes::Bytes;
use foca::{Foca, Notification, Runtime, Timer};
use presence::Time;
use rand::rngs::StdRng;

use crate::{
    config::Profile,
    wire::{Identity, MemberRecord, SwimCodec},
};

/// Bytes of the largest packet; one that does not fit a datagram takes a stream.
const PACKET_LEN_MAX: usize = 16 * 1024;

impl foca::Identity for Identity {
    type Addr = presence::NodeName;

    fn renew(&self) -> Option<Self> {
        Some(Self { renewal: self.renewal.wrapping_add(1), ..self.clone() })
    }

    fn addr(&self) -> presence::NodeName {
        self.name.clone()
    }

    fn win_addr_conflict(&self, adversary: &Self) -> bool {
        (self.incarnation, self.renewal) > (adversary.incarnation, adversary.renewal)
    }
}

/// What the membership protocol found out.
#[derive(Debug)]
pub(crate) enum Notice {
    /// This identity is a member.
    Up(Identity),
    /// This identity took the place of another of its name, be it alive or dead.
    Renamed(Identity),
    /// This identity is no member any more.
    Down(Identity),
}

pub(crate) struct Membership {
    foca: Foca<Identity, SwimCodec, StdRng, foca::NoCustomBroadcast>,
    effects: Effects,
    timers: BTreeMap<(Time, u64), Timer<Identity>>,
    timers_made: u64,
    /// Packets of others that made no sense.
    pub(crate) refused: u64,
}

/// What foca asks for during one call.
#[derive(Default)]
struct Effects {
    packets: VecDeque<(Identity, Bytes)>,
    notices: VecDeque<Notice>,
    timers: Vec<(Timer<Identity>, Duration)>,
}

impl Runtime<Identity> for &mut Effects {
    fn notify(&mut self, notification: Notification<'_, Identity>) {
        match notification {
            Notification::MemberUp(id) => self.notices.push_back(Notice::Up(id.clone())),
            Notification::MemberDown(id) => self.notices.push_back(Notice::Down(id.clone())),
            Notification::Rename(_, new) => self.notices.push_back(Notice::Renamed(new.clone())),
            Notification::Active
            | Notification::Idle
            | Notification::Defunct
            | Notification::Rejoin(_) => {}
        }
    }

    fn send_to(&mut self, to: Identity, data: &[u8]) {
        self.packets.push_back((to, Bytes::copy_from_slice(data)));
    }

    fn submit_after(&mut self, event: Timer<Identity>, after: Duration) {
        self.timers.push((event, after));
    }
}

impl Membership {
    pub(crate) fn new(identity: Identity, profile: Profile, rng: StdRng) -> Self {
        Self {
            foca: Foca::new(identity, parameters(profile), rng, SwimCodec),
            effects: Effects::default(),
            timers: BTreeMap::new(),
            timers_made: 0,
            refused: 0,
        }
    }

    pub(crate) fn identity(&self) -> &Identity {
        self.foca.identity()
    }

    pub(crate) fn is_active(&self, identity: &Identity) -> bool {
        self.foca.iter_members().any(|member| {
            member.id().name == identity.name && member.id().incarnation == identity.incarnation
        })
    }

    pub(crate) fn suspects(&self) -> impl Iterator<Item = &Identity> {
        self.foca
            .iter_members()
            .filter(|member| member.state() == foca::State::Suspect)
            .map(foca::Member::id)
    }

    /// All that is known, for a newcomer.
    pub(crate) fn records(&self) -> Vec<MemberRecord> {
        self.foca.iter_membership_state().map(MemberRecord::from).collect()
    }

    pub(crate) fn handle_packet(&mut self, packet: &[u8], now: Time) {
        let done = self.foca.handle_data(packet, &mut self.effects);
        self.settle(done, now);
    }

    pub(crate) fn handle_records(&mut self, records: Vec<MemberRecord>, now: Time) {
        let members = records.into_iter().filter_map(MemberRecord::into_member);
        let done = self.foca.apply_many(members, true, &mut self.effects);
        self.settle(done, now);
    }

    pub(crate) fn announce(&mut self, to: Identity, now: Time) {
        let done = self.foca.announce(to, &mut self.effects);
        self.settle(done, now);
    }

    /// Runs under another identity of the same name from here on.
    pub(crate) fn change_identity(&mut self, identity: Identity, now: Time) {
        let done = self.foca.change_identity(identity, &mut self.effects);
        self.settle(done, now);
    }

    pub(crate) fn leave(&mut self, now: Time) {
        let done = self.foca.leave_cluster(&mut self.effects);
        self.settle(done, now);
    }

    pub(crate) fn poll_timeout(&self) -> Option<Time> {
        self.timers.first_key_value().map(|((at, _), _)| *at)
    }

    pub(crate) fn handle_timeout(&mut self, now: Time) {
        while let Some(entry) = self.timers.first_entry()
            && entry.key().0 <= now
        {
            let timer = entry.remove();
            let done = self.foca.handle_timer(timer, &mut self.effects);
            self.settle(done, now);
        }
    }

    pub(crate) fn poll_notice(&mut self) -> Option<Notice> {
        self.effects.notices.pop_front()
    }

    pub(crate) fn poll_packet(&mut self) -> Option<(Identity, Bytes)> {
        self.effects.packets.pop_front()
    }

    fn settle(&mut self, done: Result<(), foca::Error>, now: Time) {
        // Errors concern one packet or one probe round, and foca carries on by itself after both.
        if done.is_err() {
            self.refused += 1;
        }
        for (timer, after) in self.effects.timers.drain(..) {
            self.timers_made += 1;
            self.timers.insert((now + after, self.timers_made), timer);
        }
    }
}

impl fmt::Debug for Membership {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Membership").field("identity", self.identity()).finish_non_exhaustive()
    }
}

/// Measured in docs/OPERATING.md, "Failure detection".
fn parameters(profile: Profile) -> foca::Config {
    let (probe_period, probe_rtt, suspect, gossip) = match profile {
        Profile::Lan => (500, 150, 2_000, 200),
        Profile::Wan => (2_000, 800, 8_000, 500),
    };
    let millis = Duration::from_millis;
    let periodic = |frequency, members: NonZeroUsize| {
        Some(foca::PeriodicParams { frequency, num_members: members })
    };
    foca::Config {
        probe_period: millis(probe_period),
        probe_rtt: millis(probe_rtt),
        num_indirect_probes: THREE,
        max_transmissions: TEN,
        suspect_to_down_after: millis(suspect),
        remove_down_after: Some(Duration::from_secs(24 * 3600)),
        max_packet_size: PACKET_SIZE,
        notify_down_members: true,
        periodic_announce: periodic(Duration::from_secs(5), NonZeroUsize::MIN),
        periodic_announce_to_down_members: periodic(Duration::from_secs(5), NonZeroUsize::MIN),
        periodic_gossip: periodic(millis(gossip), THREE),
    }
}

const THREE: NonZeroUsize = NonZeroUsize::new(3).unwrap();
const TEN: NonZeroU8 = NonZeroU8::new(10).unwrap();
const PACKET_SIZE: NonZeroUsize = NonZeroUsize::new(PACKET_LEN_MAX).unwrap();
