//! A seed draws which faults there are, how often, and how the cores are set; clients come, go, change
//! and speak meanwhile. Then the faults end and everything must come right.

use std::time::Duration;

use cluster::Profile;

use crate::{network::Weather, world::World};

/// How a plan went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Hash over all that happened.
    pub trace: u64,
    /// Broadcasts that clients heard.
    pub delivered: u64,
}

/// Longest time from the end of all faults to one roster: a false "down" is found out within a dial
/// (5 s), told (1 s), outlived, and two digests later all is equal.
const SETTLE: Duration = Duration::from_secs(30);

/// The same across regions, where suspicions last four times as long.
const SETTLE_WAN: Duration = Duration::from_secs(60);

/// What can be done to a cluster.
#[derive(Clone, Copy, Debug)]
enum Step {
    Join,
    Leave,
    /// A client loses its socket; its entry has a lease.
    Lose,
    Update,
    Broadcast,
    Crash,
    Restart,
    Goodbye,
    /// A goodbye that leaves the entries a lease.
    Retire,
    Cut,
    Partition,
    Heal,
    Pause,
    Wait,
}

/// What a seed has drawn.
#[derive(Debug)]
struct Mix {
    weather: Weather,
    cluster: cluster::Config,
    presence: presence::Config,
    /// How often, against the sum of all.
    weights: Vec<(Step, u64)>,
    rooms: u64,
}

/// Dice of the plan, not of the world: SplitMix64.
struct Dice(u64);

impl Dice {
    fn draw(&mut self, below: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ word >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ word >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        (word ^ word >> 31) % below.max(1)
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.draw(n) == 0
    }

    /// 0 for half of all seeds, else 1 to `most`.
    fn some(&mut self, most: u64) -> u64 {
        if self.one_in(2) { 0 } else { 1 + self.draw(most) }
    }
}

/// Runs the plan of a seed; panics with what is wrong, and how to run it again.
pub fn run_plan(seed: u64, nodes: usize, seconds: u64) -> Outcome {
    let mix = Mix::draw(seed);
    let settle = if mix.cluster.profile == Profile::Wan { SETTLE_WAN } else { SETTLE };
    let Mix { weather, cluster, presence, weights, rooms } = mix;
    let mut world = World::with_settings(seed, nodes, weather, cluster, presence);
    world.replay_with(format!(
        "cargo run --release -p sim -- --seed {seed} --nodes {nodes} --seconds {seconds}"
    ));
    world.run_for(Duration::from_secs(2));
    let end = world.elapsed() + Duration::from_secs(seconds);
    while world.elapsed() < end {
        step(&mut world, &weights, rooms);
        let pause = world.draw(100_000);
        world.run_for(Duration::from_micros(pause));
    }
    for node in 0..nodes {
        world.restart(node, 0);
    }
    world.settle_and_check(settle);
    Outcome { trace: world.trace(), delivered: world.delivered() }
}

impl Mix {
    fn draw(seed: u64) -> Self {
        let mut dice = Dice(seed);
        let weather = Weather {
            delay: match dice.draw(3) {
                0 => (200, 1_500),
                1 => (1_000, 80_000),
                _ => (100, 20_000),
            },
            lost: u32::try_from(dice.some(80)).unwrap_or(0),
            doubled: u32::try_from(dice.some(80)).unwrap_or(0),
        };
        let crash = dice.some(20);
        let (goodbye, retire) = (dice.some(8), dice.some(8));
        let (cut, partition) = (dice.some(10), dice.some(8));
        let weights = vec![
            (Step::Join, 100 + dice.draw(400)),
            (Step::Leave, 50 + dice.draw(300)),
            (Step::Lose, dice.some(150)),
            (Step::Update, dice.draw(300)),
            (Step::Broadcast, dice.draw(600)),
            (Step::Crash, crash),
            (Step::Goodbye, goodbye),
            (Step::Retire, retire),
            (Step::Restart, if crash + goodbye + retire > 0 { 5 + dice.draw(30) } else { 0 }),
            (Step::Cut, cut),
            (Step::Partition, partition),
            (Step::Heal, if cut + partition > 0 { 2 + dice.draw(16) } else { 0 }),
            (Step::Pause, dice.some(10)),
            (Step::Wait, 1 + dice.draw(8)),
        ];
        let (cluster, presence) = settings(&mut dice);
        Self { weather, cluster, presence, weights, rooms: 1 + dice.draw(12) }
    }
}

/// How the cores are set. Digests find what went wrong, so every other plan does without.
fn settings(dice: &mut Dice) -> (cluster::Config, presence::Config) {
    let mut cluster = cluster::Config { shards: 4, ..cluster::Config::default() };
    let mut presence = presence::Config::default();
    cluster.profile = match dice.draw(8) {
        0 => Profile::Wan,
        1 => Profile::Fast,
        _ => Profile::Lan,
    };
    if dice.one_in(2) {
        cluster.digest_interval = Duration::from_secs(1 << 20);
    }
    if dice.one_in(3) {
        cluster.forget_after = Duration::from_secs(3);
    }
    if dice.one_in(3) {
        let most = usize::try_from(dice.draw(4)).unwrap_or(0);
        (presence.tombstones_min, presence.tombstones_max) = (most, most);
    }
    if dice.one_in(4) {
        cluster.range_len = usize::try_from(1 + dice.some(400)).unwrap_or(1);
    }
    if dice.one_in(4) {
        cluster.shards = 1;
    }
    if dice.one_in(3) {
        presence.interest_linger = Duration::from_millis(dice.draw(2_000));
    }
    if dice.one_in(5) {
        presence.interests_max = 1;
    }
    if dice.one_in(5) {
        presence.diff_events_max = 2;
    }
    (cluster, presence)
}

fn step(world: &mut World, weights: &[(Step, u64)], rooms: u64) {
    let nodes = world.size() as u64;
    let node = usize::try_from(world.draw(nodes)).unwrap_or(0);
    let other = usize::try_from(world.draw(nodes)).unwrap_or(0);
    let topic = format!("room:{}", world.draw(rooms));
    match draw_step(world, weights) {
        Step::Join => {
            let key = format!("u{}", world.draw(30));
            world.join(node, &topic, &key);
        }
        Step::Leave => {
            if let Some(client) = world.some_client(node) {
                world.leave(node, client);
            }
        }
        Step::Lose => {
            let lease = Duration::from_millis(world.draw(6_000));
            if let Some(client) = world.some_client(node) {
                world.lose(node, client, lease);
            }
        }
        Step::Update => {
            if let Some(client) = world.some_client(node) {
                let meta = format!("{{\"n\":{}}}", world.draw(1000));
                world.update(node, client, &meta);
            }
        }
        Step::Broadcast => world.broadcast(node, &topic),
        Step::Crash => world.crash(node),
        Step::Goodbye => world.stop(node),
        Step::Retire => {
            let lease = Duration::from_millis(world.draw(6_000));
            world.retire(node, lease);
        }
        Step::Restart => {
            let off = i64::try_from(world.draw(40_000)).unwrap_or(0) - 30_000;
            world.restart(node, off);
        }
        Step::Cut if node != other => world.cut(node, other),
        Step::Partition if node != other => {
            let rest: Vec<usize> = world.alive().filter(|n| *n != node && *n != other).collect();
            world.partition(&[&[node, other], &rest]);
        }
        Step::Heal => world.heal(),
        Step::Pause => {
            let millis = world.draw(8_000);
            world.pause(node, Duration::from_millis(millis));
        }
        Step::Cut | Step::Partition | Step::Wait => {
            let span = world.draw(6_000_000);
            world.run_for(Duration::from_micros(span));
        }
    }
}

fn draw_step(world: &mut World, weights: &[(Step, u64)]) -> Step {
    let mut at = world.draw(weights.iter().map(|(_, weight)| weight).sum());
    for (step, weight) in weights {
        match at.checked_sub(*weight) {
            Some(rest) => at = rest,
            None => return *step,
        }
    }
    Step::Wait
}
