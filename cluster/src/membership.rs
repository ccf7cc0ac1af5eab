//! Who is alive: SWIM. The only file that drives foca.
//!
//! foca hands out any number of timers and effects through callbacks; this wraps it so that one
//! deadline and one queue of notices come out.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    fmt,
    num::{NonZeroU8, NonZeroUsize},
    time::Duration,
};

use bytes::Bytes;
use foca::{Codec as _, Foca, Notification, Runtime, Timer};
use presence::{NodeName, Replica, Time};
use rand::rngs::StdRng;

use crate::{
    config::Profile,
    wire::{Identity, MemberRecord, NameKey, SwimCodec},
};

/// Bytes of the largest packet; one that does not fit a datagram takes a stream.
const PACKET_LEN_MAX: usize = 16 * 1024;

/// Members told to a newcomer in one frame: with the longest names, and as many shards as a node may
/// have, they leave room in it.
pub(crate) const RECORDS_PER_FRAME: usize = 256;

/// Members told to a newcomer.
const RECORDS_MAX: usize = 4096;

/// Shortest time between two renewals of our identity. Where a renewal does not help, as a later run
/// of our name is known to be down there, each would be answered at once, without end.
const RENEW_GAP: Duration = Duration::from_secs(1);

impl foca::Identity for Identity {
    type Addr = NameKey;

    fn renew(&self) -> Option<Self> {
        let mut renewed = self.clone();
        renewed.renewal = renewed.renewal.wrapping_add(1);
        Some(renewed)
    }

    fn addr(&self) -> NameKey {
        self.key()
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
    /// The timers that let go of those that are down.
    removals: BTreeMap<NodeName, (Time, u64)>,
    /// How long the answer to a probe may take.
    pub(crate) probe_rtt: Duration,
    /// No renewal before.
    renew_after: Time,
    /// Packets of others that made no sense.
    pub(crate) refused: u64,
}

/// What foca asks for during one call.
#[derive(Default)]
struct Effects {
    packets: VecDeque<(Identity, Bytes)>,
    notices: VecDeque<Notice>,
    timers: Vec<(Timer<Identity>, Duration)>,
    renewed: bool,
    /// Nobody has spoken to our present identity yet.
    unheard: bool,
}

impl Runtime<Identity> for &mut Effects {
    fn notify(&mut self, notification: Notification<'_, Identity>) {
        match notification {
            Notification::MemberUp(id) => self.notices.push_back(Notice::Up(id.clone())),
            Notification::MemberDown(id) => self.notices.push_back(Notice::Down(id.clone())),
            Notification::Rename(_, new) => self.notices.push_back(Notice::Renamed(new.clone())),
            Notification::Rejoin(_) => (self.renewed, self.unheard) = (true, true),
            Notification::Active => self.unheard = false,
            Notification::Idle | Notification::Defunct => {}
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
        let parameters = parameters(profile);
        Self {
            probe_rtt: parameters.probe_rtt,
            foca: Foca::new(identity, parameters, rng, SwimCodec),
            effects: Effects::default(),
            timers: BTreeMap::new(),
            timers_made: 0,
            removals: BTreeMap::new(),
            renew_after: Time::ZERO,
            refused: 0,
        }
    }

    pub(crate) fn identity(&self) -> &Identity {
        self.foca.identity()
    }

    pub(crate) fn is_active(&self, identity: &Identity) -> bool {
        let run = (identity.key(), identity.incarnation);
        self.foca.iter_members().any(|member| (member.id().key(), member.id().incarnation) == run)
    }

    /// Which runs of names are members.
    pub(crate) fn runs(&self) -> BTreeSet<(NameKey, u64)> {
        self.foca
            .iter_members()
            .map(|member| (member.id().key(), member.id().incarnation))
            .collect()
    }

    /// The identity of a member's run: renewed since it was last told, perhaps.
    pub(crate) fn active(&self, replica: &Replica) -> Option<&Identity> {
        self.foca
            .iter_members()
            .map(foca::Member::id)
            .find(|id| id.name == replica.name && id.incarnation == replica.incarnation)
    }

    /// Whether our identity has changed and nobody has spoken to the new one yet: until then foca
    /// neither probes nor gossips.
    pub(crate) fn is_unheard(&self) -> bool {
        self.effects.unheard
    }

    pub(crate) fn suspects(&self) -> impl Iterator<Item = &Identity> {
        self.foca
            .iter_members()
            .filter(|member| member.state() == foca::State::Suspect)
            .map(foca::Member::id)
    }

    /// What is known, for a newcomer; of more than a few frames hold, those that are alive first.
    pub(crate) fn records(&self) -> Vec<MemberRecord> {
        let is_down = |member: &&foca::Member<Identity>| member.state() == foca::State::Down;
        let alive = self.foca.iter_members();
        let down = self.foca.iter_membership_state().filter(is_down);
        alive.chain(down).take(RECORDS_MAX).map(MemberRecord::from).collect()
    }

    pub(crate) fn handle_packet(&mut self, packet: &[u8], now: Time) {
        if now < self.renew_after && says_down(packet) {
            return;
        }
        let done = self.foca.handle_data(packet, &mut self.effects);
        self.settle(done.is_ok(), now);
    }

    pub(crate) fn handle_records(&mut self, records: Vec<MemberRecord>, now: Time) {
        // foca looks through all members for each record, and most of them are known.
        let known = self.foca.iter_membership_state();
        let known: BTreeMap<NameKey, &foca::Member<Identity>> =
            known.map(|member| (member.id().key(), member)).collect();
        let members = records.into_iter().take(RECORDS_MAX).filter_map(MemberRecord::into_member);
        let news = members.filter(|member| known.get(&member.id().key()) != Some(&member));
        let members: Vec<foca::Member<Identity>> = news.collect();
        let done = self.foca.apply_many(members.into_iter(), true, &mut self.effects);
        self.settle(done.is_ok(), now);
    }

    pub(crate) fn announce(&mut self, to: Identity, now: Time) {
        let done = self.foca.announce(to, &mut self.effects);
        self.settle(done.is_ok(), now);
    }

    /// Runs under another identity of the same name from here on.
    pub(crate) fn change_identity(&mut self, identity: Identity, now: Time) {
        self.effects.unheard = true;
        let done = self.foca.change_identity(identity, &mut self.effects);
        self.settle(done.is_ok(), now);
    }

    pub(crate) fn leave(&mut self, now: Time) {
        let done = self.foca.leave_cluster(&mut self.effects);
        self.settle(done.is_ok(), now);
    }

    pub(crate) fn poll_timeout(&self) -> Option<Time> {
        self.timers.first_key_value().map(|((at, _), _)| *at)
    }

    pub(crate) fn handle_timeout(&mut self, now: Time) {
        while let Some(entry) = self.timers.first_entry()
            && entry.key().0 <= now
        {
            let timer = entry.remove();
            if let Timer::RemoveDown(down) = &timer {
                self.removals.remove(&down.name);
            }
            let done = self.foca.handle_timer(timer, &mut self.effects);
            self.settle(done.is_ok(), now);
        }
    }

    pub(crate) fn poll_notice(&mut self) -> Option<Notice> {
        self.effects.notices.pop_front()
    }

    pub(crate) fn poll_packet(&mut self) -> Option<(Identity, Bytes)> {
        self.effects.packets.pop_front()
    }

    fn settle(&mut self, done: bool, now: Time) {
        // Errors concern one packet or one probe round, and foca carries on by itself after both.
        if !done {
            self.refused += 1;
        }
        // When the time to answer a suspicion is over, foca 2.0.0 tells the suspect that it is down,
        // also if it did answer in time; it would renew itself for nothing.
        let foca = &self.foca;
        self.effects.packets.retain(|(to, packet)| {
            !(says_down(packet) && foca.iter_members().any(|member| member.id() == to))
        });
        if std::mem::take(&mut self.effects.renewed) {
            self.renew_after = now + RENEW_GAP;
        }
        for (timer, after) in self.effects.timers.drain(..) {
            self.timers_made += 1;
            let key = (now + after, self.timers_made);
            // Of a node that starts again and again, only the last run is still to be removed.
            if let Timer::RemoveDown(down) = &timer
                && let Some(earlier) = self.removals.insert(down.name.clone(), key)
            {
                self.timers.remove(&earlier);
            }
            self.timers.insert(key, timer);
        }
    }
}

impl fmt::Debug for Membership {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Membership")
            .field("identity", self.identity())
            .field("records", &self.records())
            .field("timers", &self.timers)
            .finish_non_exhaustive()
    }
}

/// Whether the packet tells its receiver that it is taken for dead.
fn says_down(packet: &[u8]) -> bool {
    let header = SwimCodec.decode_header(packet);
    header.is_ok_and(|header| header.message == foca::Message::TurnUndead)
}

/// Measured in docs/OPERATING.md, "Failure detection".
fn parameters(profile: Profile) -> foca::Config {
    let (probe_period, probe_rtt, suspect, gossip) = match profile {
        Profile::Lan => (350, 120, 2_000, 100),
        Profile::Fast => (250, 80, 800, 100),
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
