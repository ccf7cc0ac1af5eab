//! Clients that lose their sockets and come back, here or on another node, and nodes that end.

use std::{collections::BTreeSet, time::Duration};

use proptest::prelude::*;

use super::{
    OWNER, T0, contents, drain,
    observer::{Observer, dispatch},
    owner, pull, replica, ring, topic, viewer,
};
use crate::{Change, Config, EntryId, Event, NodeIx, Shard, Time, TrackError, Up};

const LEASE: Duration = Duration::from_secs(15);

const OTHER: NodeIx = NodeIx(2);

const fn ms(millis: u64) -> Time {
    Time::from_micros(millis * 1000)
}

/// "+key meta", "-key meta" and "=key meta" for a join that replaces a leave, of all diffs that are due.
fn told(shard: &mut Shard, now: Time) -> Vec<String> {
    let mut all = Vec::new();
    for event in drain(shard, now) {
        let Event::Diff(diff) = event else { continue };
        let line = |sign, change: &Change| {
            format!("{sign}{} {}", change.key, String::from_utf8_lossy(&change.meta))
        };
        let replaced: BTreeSet<_> = diff.joins.iter().filter_map(|join| join.previous).collect();
        let gone = diff.leaves.iter().filter(|leave| !replaced.contains(&leave.reference));
        all.extend(gone.map(|leave| line('-', leave)));
        let sign = |join: &Change| if join.previous.is_some() { '=' } else { '+' };
        all.extend(diff.joins.iter().map(|join| line(sign(join), join)));
    }
    all
}

/// Two owners that know each other, and a viewer of both with an observer.
struct Three {
    owner: Shard,
    other: Shard,
    viewer: Shard,
}

impl Three {
    fn new() -> Self {
        let mut other = Shard::new(ring(1), 0, replica("other", 1));
        let mut owner = owner(ring(1));
        other.member_up(OWNER, &replica("owner", 1), true, T0);
        other.saw_head(OWNER, 1, 0, T0);
        owner.member_up(OTHER, &replica("other", 1), true, T0);
        owner.saw_head(OTHER, 1, 0, T0);
        let mut viewer = viewer("viewer", ring(1));
        viewer.member_up(OTHER, &replica("other", 1), true, T0);
        viewer.saw_head(OTHER, 1, 0, T0);
        viewer.observe(&topic(0), T0);
        Self { owner, other, viewer }
    }

    fn pull_owner(&mut self, now: Time) {
        pull((&mut self.viewer, OWNER), (&self.owner, NodeIx::SELF), 10_000, now);
        pull((&mut self.other, OWNER), (&self.owner, NodeIx::SELF), 10_000, now);
    }

    fn pull_other(&mut self, now: Time) {
        pull((&mut self.viewer, OTHER), (&self.other, NodeIx::SELF), 10_000, now);
        pull((&mut self.owner, OTHER), (&self.other, NodeIx::SELF), 10_000, now);
    }
}

/// The owner has "a", whose client is gone since 10 ms; the viewer knows.
fn detached() -> (Three, EntryId) {
    let mut three = Three::new();
    let a = three.owner.track(&topic(0), "a", b"1", T0).unwrap();
    three.pull_owner(T0);
    assert_eq!(told(&mut three.viewer, T0), ["+a 1"]);
    assert!(three.owner.detach(a, LEASE, ms(10)));
    three.pull_owner(ms(10));
    assert!(told(&mut three.viewer, ms(20)).is_empty());
    (three, a)
}

#[test]
fn a_client_that_is_gone_stays_listed_for_its_lease() {
    let (mut three, a) = detached();
    assert_eq!(contents(&three.viewer, &topic(0)), contents(&three.owner, &topic(0)));
    assert_eq!((three.owner.list(&topic(0)).len(), three.owner.detached()), (1, 1));
    assert_eq!(three.owner.lease_left(ms(1010)), Some(Duration::from_secs(14)));
    // It cannot be changed any more, or detached twice.
    assert!(three.owner.update(a, b"2", ms(20)).is_err());
    assert!(!three.owner.detach(a, LEASE, ms(20)));
    drain(&mut three.owner, ms(20));
    assert_eq!(three.owner.poll_timeout(), Some(ms(15_010)));
    drain(&mut three.owner, ms(15_009));
    assert_eq!(three.owner.list(&topic(0)).len(), 1);
    drain(&mut three.owner, ms(15_010));
    assert_eq!((three.owner.list(&topic(0)).len(), three.owner.detached()), (0, 0));
    three.pull_owner(ms(15_011));
    assert_eq!(told(&mut three.viewer, ms(15_011)), ["-a 1"]);
}

#[test]
fn a_client_that_comes_back_to_its_node_only_changes_its_meta() {
    let (mut three, a) = detached();
    let back = three.owner.track(&topic(0), "a", b"2", ms(30)).unwrap();
    assert!(three.owner.entry(a).is_none() && three.owner.entry(back).is_some());
    assert_eq!(three.owner.detached(), 0);
    three.pull_owner(ms(30));
    assert_eq!(told(&mut three.viewer, ms(30)), ["=a 2"]);
    drain(&mut three.owner, ms(20_000));
    assert_eq!(three.owner.list(&topic(0)).len(), 1);
    assert!(three.owner.untrack(back, ms(20_000)));
    three.pull_owner(ms(20_000));
    assert_eq!(told(&mut three.viewer, ms(20_000)), ["-a 2"]);
}

#[test]
fn a_client_that_comes_back_to_another_node_only_changes_its_meta() {
    let (mut three, _) = detached();
    three.other.track(&topic(0), "a", b"2", ms(30)).unwrap();
    three.pull_other(ms(30));
    assert_eq!(told(&mut three.viewer, ms(30)), ["=a 2"]);
    assert_eq!(three.viewer.count(&topic(0)).entries, 1);
    assert_eq!(contents(&three.viewer, &topic(0)), contents(&three.owner, &topic(0)));
    assert_eq!(contents(&three.viewer, &topic(0)), contents(&three.other, &topic(0)));
    // A while later the old entry goes, which nobody notices.
    assert_eq!(three.owner.detached(), 1);
    drain(&mut three.owner, ms(1030));
    assert_eq!(three.owner.detached(), 0);
    three.pull_owner(ms(1031));
    assert!(told(&mut three.viewer, ms(1040)).is_empty());
}

#[test]
fn the_new_place_may_be_known_before_the_old_one_is_left() {
    let mut three = Three::new();
    let a = three.owner.track(&topic(0), "a", b"1", T0).unwrap();
    three.pull_owner(T0);
    told(&mut three.viewer, T0);
    three.other.track(&topic(0), "a", b"2", ms(10)).unwrap();
    three.pull_other(ms(10));
    assert_eq!(told(&mut three.viewer, ms(10)), ["+a 2"]);
    three.owner.detach(a, LEASE, ms(20));
    three.pull_owner(ms(20));
    assert_eq!(told(&mut three.viewer, ms(20)), ["-a 1"]);
    drain(&mut three.owner, ms(1020));
    assert_eq!(three.owner.detached(), 0);
}

#[test]
fn a_client_that_loses_its_new_place_at_once_is_still_listed_at_the_old_one() {
    let (mut three, _) = detached();
    let at_other = three.other.track(&topic(0), "a", b"2", ms(30)).unwrap();
    three.pull_other(ms(30));
    assert_eq!(told(&mut three.viewer, ms(30)), ["=a 2"]);
    three.other.detach(at_other, Duration::ZERO, ms(40));
    three.pull_other(ms(40));
    assert_eq!(told(&mut three.viewer, ms(40)), ["-a 2", "+a 1"]);
    drain(&mut three.owner, ms(1030));
    assert_eq!(three.owner.detached(), 1);
    drain(&mut three.owner, ms(15_010));
    three.pull_owner(ms(15_010));
    assert_eq!(told(&mut three.viewer, ms(15_010)), ["-a 1"]);
}

#[test]
fn a_client_that_leaves_just_after_it_moved_is_not_listed_at_its_old_place() {
    let (mut three, _) = detached();
    let at_other = three.other.track(&topic(0), "a", b"2", ms(30)).unwrap();
    three.pull_other(ms(30));
    assert_eq!(told(&mut three.viewer, ms(30)), ["=a 2"]);
    assert!(three.other.untrack(at_other, ms(40)));
    assert!(!three.other.untrack(at_other, ms(40)) && three.other.entry(at_other).is_none());
    assert!(three.other.update(at_other, b"3", ms(40)).is_err());
    drain(&mut three.owner, ms(1030));
    three.pull_owner(ms(1030));
    drain(&mut three.other, ms(1540));
    three.pull_other(ms(1540));
    assert_eq!(told(&mut three.viewer, ms(1540)), ["-a 2"]);
    assert_eq!(three.other.list(&topic(0)).len() + three.owner.list(&topic(0)).len(), 0);
    assert_eq!(three.other.detached(), 0);
}

#[test]
fn what_a_node_that_is_gone_left_goes_when_its_client_is_elsewhere() {
    let (mut three, _) = detached();
    for shard in [&mut three.viewer, &mut three.other] {
        shard.member_depart(OWNER, 1, LEASE, ms(20));
    }
    let at_other = three.other.track(&topic(0), "a", b"2", ms(30)).unwrap();
    three.pull_other(ms(30));
    assert_eq!(told(&mut three.viewer, ms(30)), ["=a 2"]);
    for shard in [&mut three.viewer, &mut three.other] {
        drain(shard, ms(1030));
        assert_eq!(shard.raw(&topic(0)).len(), 1);
    }
    assert!(three.other.untrack(at_other, ms(1040)));
    three.pull_other(ms(1040));
    assert_eq!(told(&mut three.viewer, ms(1040)), ["-a 2"]);
    assert_eq!(three.viewer.list(&topic(0)).len(), 0);
}

#[test]
fn a_second_client_of_the_key_makes_a_lease_needless() {
    let mut owner = owner(ring(1));
    let first = owner.track(&topic(0), "a", b"1", T0).unwrap();
    let second = owner.track(&topic(0), "a", b"2", T0).unwrap();
    assert!(owner.detach(first, LEASE, T0));
    assert_eq!((owner.list(&topic(0)).len(), owner.detached()), (1, 0));
    assert!(owner.detach(second, Duration::ZERO, T0));
    assert_eq!(owner.list(&topic(0)).len(), 0);
}

#[test]
fn a_node_that_says_goodbye_leaves_its_entries_for_the_lease() {
    let (mut three, _) = detached();
    three.owner.track(&topic(0), "b", b"1", ms(20)).unwrap();
    three.pull_owner(ms(20));
    told(&mut three.viewer, ms(20));
    let hash = topic(0).hash64();
    three.viewer.member_depart(OWNER, 1, LEASE, ms(30));
    // Membership notices that it is gone, and its link ends.
    three.viewer.member_down(OWNER, 1, ms(31));
    three.viewer.member_forget(OWNER, 1, ms(32));
    assert_eq!(three.viewer.position(OWNER), None);
    let events = drain(&mut three.viewer, ms(32));
    assert_eq!(events, [Event::Interest { owner: OWNER, hash, present: false }]);
    assert_eq!(three.viewer.count(&topic(0)).keys, 2);
    three.other.track(&topic(0), "b", b"2", ms(40)).unwrap();
    three.pull_other(ms(40));
    assert_eq!(told(&mut three.viewer, ms(40)), ["=b 2"]);
    // It is started again, and its old run's entries stay.
    assert_eq!(
        three.viewer.member_up(OWNER, &replica("owner", 1), false, ms(50)),
        Up::Ignored { seen: 1 }
    );
    assert_eq!(three.viewer.member_up(OWNER, &replica("owner", 2), true, ms(50)), Up::New);
    three.viewer.saw_head(OWNER, 2, 0, ms(50));
    assert_eq!(three.viewer.count(&topic(0)).keys, 2);
    assert!(told(&mut three.viewer, ms(50)).is_empty());
    // What is left of "b" is freed, and no more.
    assert_eq!(three.viewer.poll_timeout(), Some(ms(1_040)));
    assert!(told(&mut three.viewer, ms(1_040)).is_empty());
    assert_eq!(three.viewer.raw(&topic(0)).len(), 2);
    assert_eq!(three.viewer.poll_timeout(), Some(ms(15_030)));
    assert_eq!(told(&mut three.viewer, ms(15_030)), ["-a 1"]);
    assert_eq!((three.viewer.list(&topic(0)).len(), three.viewer.poll_timeout()), (1, None));
}

#[test]
fn a_crash_hides_even_those_that_have_a_lease() {
    let (mut three, _) = detached();
    three.viewer.member_down(OWNER, 1, ms(30));
    assert_eq!(told(&mut three.viewer, ms(30)), ["-a 1"]);
    // Too late.
    three.viewer.member_depart(OWNER, 1, LEASE, ms(40));
    assert!(three.viewer.list(&topic(0)).is_empty());
}

#[test]
fn goodbyes_in_a_row_keep_a_bounded_number_of_former_runs() {
    let mut viewer = Shard::new(Config::default(), 0, replica("viewer", 1));
    viewer.observe(&topic(0), T0);
    for run in 1..30 {
        let mut owner = Shard::new(Config::default(), 0, replica("owner", run));
        owner.track(&topic(0), &format!("k{run}"), b"{}", T0).unwrap();
        viewer.member_up(OWNER, &replica("owner", run), true, T0);
        viewer.saw_head(OWNER, run, owner.head(), T0);
        pull((&mut viewer, OWNER), (&owner, NodeIx::SELF), 10_000, T0);
        viewer.member_depart(OWNER, run, LEASE, T0);
        viewer.member_forget(OWNER, run, T0);
    }
    assert_eq!(viewer.list(&topic(0)).len(), 8);
    drain(&mut viewer, ms(15_000));
    assert_eq!((viewer.list(&topic(0)).len(), viewer.poll_timeout()), (0, None));
}

const NODES: usize = 3;

/// What happens to users who never leave, while no lease ends.
#[derive(Clone, Debug)]
enum Step {
    /// A user's client comes, or comes back: to this node.
    Join {
        user: u8,
        node: usize,
    },
    /// A user's client loses its socket.
    Close {
        user: u8,
    },
    /// What one node wrote reaches another.
    Send {
        from: usize,
        to: usize,
        max_bytes: usize,
    },
    /// A node drains: it closes all sockets, and starts again.
    Drain {
        node: usize,
    },
    /// A node hears of all that drained.
    Hear {
        node: usize,
    },
    Tick {
        micros: u64,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let node = || 0..NODES;
    let max_bytes = prop_oneof![1..200_usize, Just(16 * 1024)];
    prop_oneof![
        10 => (0..4_u8, node()).prop_map(|(user, node)| Step::Join { user, node }),
        6 => (0..4_u8).prop_map(|user| Step::Close { user }),
        16 => (node(), node(), max_bytes)
            .prop_map(|(from, to, max_bytes)| Step::Send { from, to, max_bytes }),
        2 => node().prop_map(|node| Step::Drain { node }),
        4 => node().prop_map(|node| Step::Hear { node }),
        6 => (0..9_000_u64).prop_map(|micros| Step::Tick { micros }),
    ]
}

struct Node {
    shard: Shard,
    incarnation: u64,
    observer: Observer,
    clients: Vec<(u8, EntryId)>,
    /// The runs of the other nodes that it knows.
    known: [u64; NODES],
}

fn ix(node: usize) -> NodeIx {
    NodeIx(u16::try_from(node).unwrap() + 1)
}

impl Node {
    fn new(number: usize, incarnation: u64, slice: usize, now: Time) -> Self {
        let config = Config { diff_events_max: slice, retire_after: LEASE, ..ring(2) };
        let mut shard = Shard::new(config, 0, replica(&format!("n{number}"), incarnation));
        let mut observer = Observer::new(&mut shard, &topic(0), now);
        observer.may_rejoin = true;
        Self { shard, incarnation, observer, clients: Vec::new(), known: [0; NODES] }
    }

    /// Nobody who was listed is ever told as gone.
    fn flush(&mut self, now: Time) {
        self.observer.expected = self.observer.keys();
        let events = drain(&mut self.shard, now);
        dispatch(events, [&mut self.observer]);
        self.observer.assert_told(&self.shard);
        if self.shard.poll_timeout().is_none_or(|at| at > now + LEASE / 2) {
            assert_eq!(self.observer.contents(), contents(&self.shard, &topic(0)));
        }
    }
}

struct Model {
    nodes: Vec<Node>,
    slice: usize,
    now: Time,
}

impl Model {
    fn run(&mut self, step: &Step) {
        match *step {
            Step::Join { user, node } => {
                self.close(user);
                let meta = self.now.as_micros().to_string();
                let Node { shard, clients, .. } = &mut self.nodes[node];
                let key = format!("u{user}");
                let id = shard.track(&topic(0), &key, meta.as_bytes(), self.now).unwrap();
                clients.push((user, id));
            }
            Step::Close { user } => self.close(user),
            Step::Send { from, to, max_bytes } => self.send(from, to, max_bytes),
            Step::Drain { node } => {
                let incarnation = self.nodes[node].incarnation + 1;
                let users: Vec<u8> =
                    self.nodes[node].clients.iter().map(|(user, _)| *user).collect();
                users.into_iter().for_each(|user| self.close(user));
                // It has seen to it that all know what it had.
                for to in (0..NODES).filter(|to| *to != node) {
                    self.send(node, to, usize::MAX / 2);
                }
                self.nodes[node] = Node::new(node, incarnation, self.slice, self.now);
                for to in (0..NODES).filter(|to| *to != node) {
                    self.hear(to);
                }
            }
            Step::Hear { node } => self.hear(node),
            Step::Tick { micros } => {
                self.now = Time::from_micros(self.now.as_micros() + micros);
                self.nodes.iter_mut().for_each(|node| node.flush(self.now));
            }
        }
    }

    fn close(&mut self, user: u8) {
        for node in &mut self.nodes {
            if let Some(at) = node.clients.iter().position(|(other, _)| *other == user) {
                let (_, id) = node.clients.swap_remove(at);
                assert!(node.shard.detach(id, LEASE, self.now));
            }
        }
    }

    /// The goodbyes of former runs, and the links of new ones.
    fn hear(&mut self, at: usize) {
        for of in (0..NODES).filter(|of| *of != at) {
            let run = self.nodes[of].incarnation;
            let head = self.nodes[of].shard.head();
            let node = &mut self.nodes[at];
            if node.known[of] == run {
                continue;
            }
            node.shard.member_depart(ix(of), node.known[of], LEASE, self.now);
            node.shard.member_forget(ix(of), node.known[of], self.now);
            node.known[of] = run;
            node.shard.member_up(ix(of), &replica(&format!("n{of}"), run), true, self.now);
            node.shard.saw_head(ix(of), run, head, self.now);
        }
    }

    fn send(&mut self, from: usize, to: usize, max_bytes: usize) {
        let run = self.nodes[from].incarnation;
        if from == to || self.nodes[to].known[from] != run {
            return;
        }
        let Some(at) = self.nodes[to].shard.position(ix(from)) else { return };
        let range = self.nodes[from].shard.serve(NodeIx::SELF, at.v, max_bytes);
        if let Some(range) = range {
            self.nodes[to].shard.apply(ix(from), range, self.now);
        }
    }
}

proptest! {
    /// Users move between nodes that come and go; whatever reaches whom when, no observer sees one of
    /// them leave while its lease lasts, and in the end all list each user once.
    #[test]
    fn nobody_who_moves_is_ever_seen_absent(
        slice in 2..6_usize,
        steps in prop::collection::vec(step(), 0..120),
    ) {
        let nodes = (0..NODES).map(|number| Node::new(number, 1, slice, T0)).collect();
        let mut model = Model { nodes, slice, now: T0 };
        (0..NODES).for_each(|node| model.hear(node));
        for step in &steps {
            model.run(step);
        }
        (0..NODES).for_each(|node| model.hear(node));
        for user in 0..4 {
            model.run(&Step::Join { user, node: usize::from(user) % NODES });
        }
        for (from, to) in (0..NODES).flat_map(|from| (0..NODES).map(move |to| (from, to))) {
            model.send(from, to, usize::MAX / 2);
        }
        model.run(&Step::Tick { micros: 1_100_000 });
        for node in &model.nodes {
            prop_assert_eq!(node.shard.count(&topic(0)).entries, 4);
            let list = contents(&node.shard, &topic(0));
            prop_assert_eq!(&list, &contents(&model.nodes[0].shard, &topic(0)));
        }
    }
}

#[test]
fn entries_without_clients_make_room_for_those_with() {
    let mut shard = owner(Config { entries_max: 2, ..ring(0) });
    let a = shard.track(&topic(0), "a", b"{}", T0).unwrap();
    let b = shard.track(&topic(0), "b", b"{}", T0).unwrap();
    assert_eq!(shard.track(&topic(0), "c", b"{}", T0), Err(TrackError::Full));
    shard.detach(b, LEASE, ms(1));
    shard.detach(a, LEASE, ms(2));
    let c = shard.track(&topic(0), "c", b"{}", ms(3)).unwrap();
    let keys: Vec<_> = shard.list(&topic(0)).iter().map(|entry| entry.key.to_owned()).collect();
    assert_eq!((keys, shard.detached()), (vec!["a".to_owned(), "c".to_owned()], 1));
    shard.track(&topic(1), "d", b"{}", ms(3)).unwrap();
    assert_eq!(shard.track(&topic(0), "e", b"{}", ms(3)), Err(TrackError::Full));
    assert!(shard.entry(c).is_some() && shard.detached() == 0);
}

#[test]
fn what_an_earlier_run_left_is_counted_for_no_node() {
    let (mut three, _) = detached();
    three.viewer.member_depart(OWNER, 1, LEASE, ms(30));
    let of_owner = |viewer: &Shard| viewer.totals().owners.get(&OWNER).map(|total| total.entries);
    assert_eq!(of_owner(&three.viewer), Some(1));
    three.viewer.member_forget(OWNER, 1, ms(40));
    three.viewer.member_up(OWNER, &replica("later", 7), true, ms(50));
    assert_eq!(of_owner(&three.viewer), Some(0), "another node has the number");
    assert_eq!(three.viewer.totals().cluster.entries, 1);
    assert_eq!(three.viewer.list(&topic(0)).len(), 1);
}
