//! What each pace of failure detection finds, how soon, and what it costs: the table in
//! docs/OPERATING.md, section 8.

use std::{fmt, time::Duration};

use cluster::Profile;

use crate::{network::Weather, world::World};

/// One row: a profile in a cluster of some size.
#[derive(Clone, Debug)]
pub struct Row {
    profile: Profile,
    nodes: usize,
    /// From all nodes' start to all being members for all.
    formed: Option<Duration>,
    /// From crashes to the last node that notices.
    detected: Vec<Duration>,
    /// Of nodes that were alive, in a minute under 1 % and 5 % of packets lost.
    lost: [u64; 2],
    /// Of nodes that stood still for 1, 1.5 and 2 s, of so many that did.
    paused: [(u64, usize); 3],
    /// Membership packets of one node, when nothing happens.
    bytes_per_second: usize,
}

/// Headings of the rows, as Markdown.
pub const HEADING: &str = "\
| profile | nodes | all know all | crash seen everywhere, p50 / p99 | false downs a minute, 1 % / 5 % lost | \
false downs by a pause of 1 / 1.5 / 2 s | bytes a node and second |
|---|---|---|---|---|---|---|";

const STEP: Duration = Duration::from_millis(20);
const FORM_MAX: Duration = Duration::from_secs(120);

/// Measures one row; crashes and pauses happen one after another, `tries` of each.
pub fn measure(profile: Profile, nodes: usize, tries: usize) -> Row {
    let mut row = Row {
        profile,
        nodes,
        formed: None,
        detected: Vec::new(),
        lost: [0; 2],
        paused: [(0, 0); 3],
        bytes_per_second: 0,
    };
    let mut world = world(profile, nodes, 0);
    row.formed = until(&mut world, FORM_MAX, |world| (0..nodes).all(|node| knows_all(world, node)));
    world.run_for(Duration::from_secs(20));
    let before: usize = (0..nodes).map(|node| world.sent(node, 0).bytes).sum();
    world.run_for(Duration::from_secs(20));
    let after: usize = (0..nodes).map(|node| world.sent(node, 0).bytes).sum();
    row.bytes_per_second = (after - before) / nodes / 20;
    for (place, millis) in row.paused.iter_mut().zip([1_000, 1_500, 2_000]) {
        for attempt in 0..tries {
            let downs = world.false_downs();
            world.pause(attempt % nodes, Duration::from_millis(millis));
            world.run_for(Duration::from_secs(15));
            let hidden = world.false_downs() > downs;
            *place = (place.0 + u64::from(hidden), place.1 + 1);
        }
    }
    for attempt in 0..tries {
        let dead = 1 + attempt % (nodes - 1);
        world.crash(dead);
        let gone =
            until(&mut world, FORM_MAX, |world| world.alive().all(|node| !world.is_up(node, dead)));
        row.detected.extend(gone);
        world.restart(dead, 0);
        world.run_for(Duration::from_secs(10));
    }
    row.detected.sort();
    for (place, lost) in row.lost.iter_mut().zip([10, 50]) {
        let mut world = self::world(profile, nodes, lost);
        world.run_for(Duration::from_secs(20));
        let before = world.false_downs();
        world.run_for(Duration::from_secs(60));
        *place = world.false_downs() - before;
    }
    row
}

fn world(profile: Profile, nodes: usize, lost: u32) -> World {
    // What each packet takes: across regions, and the way back, up to half a second.
    let delay = if profile == Profile::Wan { (20_000, 150_000) } else { (200, 1_500) };
    let cluster = cluster::Config { profile, shards: 1, ..cluster::Config::default() };
    let weather = Weather { delay, lost, doubled: 0 };
    World::with_settings(1, nodes, weather, cluster, presence::Config::default())
}

fn knows_all(world: &World, node: usize) -> bool {
    world.members_of(node) + 1 == world.size()
}

/// How long it takes until something is so, to a step.
fn until(world: &mut World, most: Duration, is_so: impl Fn(&World) -> bool) -> Option<Duration> {
    let start = world.elapsed();
    while !is_so(world) {
        if world.elapsed() - start > most {
            return None;
        }
        world.run_for(STEP);
    }
    Some(world.elapsed() - start)
}

impl Row {
    fn detected(&self, percent: usize) -> f64 {
        let at = (self.detected.len() * percent).div_ceil(100).max(1) - 1;
        self.detected.get(at).map_or(f64::NAN, Duration::as_secs_f64)
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self.profile {
            Profile::Lan => "lan",
            Profile::Fast => "fast",
            Profile::Wan => "wan",
        };
        let formed =
            self.formed.map_or("never".to_owned(), |t| format!("{:.2} s", t.as_secs_f64()));
        write!(f, "| `{name}` | {} | {formed} | ", self.nodes)?;
        write!(f, "{:.1} / {:.1} s | ", self.detected(50), self.detected(99))?;
        write!(f, "{} / {} | ", self.lost[0], self.lost[1])?;
        let paused = self.paused.map(|(hidden, of)| format!("{hidden} of {of}"));
        write!(f, "{} | {} |", paused.join(" / "), self.bytes_per_second)
    }
}
