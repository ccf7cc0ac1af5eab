//! What entries and interests weigh, and what a crowd in one topic costs.
//!
//! `cargo bench -p presence --bench figures` prints one line per case; it asserts nothing. Bytes
//! are resident ones (`VmRSS`, so Linux only) of a process of its own per case, divided by the
//! items: the allocator's share is in them. With `-- targets` it prints only the figures that have
//! a target, each beside it, as `just bench-presence` does.

#![expect(
    clippy::print_stdout,
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "a bench looks at the clock and prints its figures"
)]

use std::{
    error::Error,
    hint::black_box,
    process::Command,
    time::{Duration, Instant},
};

use presence::{Applied, Config, NodeIx, Op, Range, Replica, Shard, Time, Topic, Value, shard_of};

/// As many as a node has by default.
const SHARDS: u16 = 16;

/// The number under which shards here know another node.
const OTHER: NodeIx = NodeIx(1);

/// Operations of a range, about as many as fit a message.
const RANGE_OPS: usize = 200;

const META: &[u8; 32] = b"{\"phase\":\"idle\",\"at\":1735689600}";

type Failure = Box<dyn Error>;

fn main() -> Result<(), Failure> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if let [flag, case, items] = &args[..]
        && flag == "--weigh"
    {
        println!("{}", weigh(case, items.parse()?)?);
        return Ok(());
    }
    if args.iter().any(|arg| arg == "targets") {
        return targets();
    }
    if args.iter().any(|arg| arg == "forget") {
        for topics in [10, 1000, 100_000] {
            forget(topics, true)?;
        }
        return forget(1000, false);
    }
    println!("{:<52} {:>10} {:>10}", "bytes per item, at items", "10,000", "1,000,000");
    for (case, what) in [
        ("interest", "own interest, one holder"),
        ("entry", "own entry and interest, topic of its own"),
        ("observed", "own entry, interest and observer, topic of its own"),
        ("remote", "entry of another node, ten a topic"),
        ("remote-own", "entry of another node, topic of its own"),
    ] {
        println!("{what:<52} {:>10} {:>10}", respawn(case, 10_000)?, respawn(case, 1_000_000)?);
    }
    println!();
    println!("{:<44} {:>9} {:>9} {:>9} {:>9}", "ns per call, entries", 100, 1000, 5000, 20_000);
    crowd()?;
    println!();
    println!(
        "{:<44} {:>9} {:>9} {:>9}",
        "100,000 entries of a node", "call µs", "worst µs", "all µs"
    );
    for topics in [10, 1000, 100_000] {
        forget(topics, true)?;
    }
    forget(1000, false)
}

// === figures with a target ===

/// Runs whose median is the figure.
const RUNS: usize = 3;

/// Remote entries beside which a change is applied.
const MANY: usize = 1_000_000;

/// Changes of one kind in a row: too many for the caches to keep.
const LOT: usize = 20_000;

/// Changes of one run of each kind.
const CHANGES: usize = 100_000;

fn targets() -> Result<(), Failure> {
    println!("{:<72} {:>10}  measured: median (lowest to highest)", "figure", "target");
    let weigh = |_| Ok(respawn("remote", MANY)?.parse()?);
    let weights = (0..RUNS).map(weigh).collect::<Result<_, Failure>>()?;
    report("memory per remote entry, 1,000,000 in 100,000 topics", "B", 150.0, weights);
    let names = ["a join", "an update", "a leave"];
    for observed in [false, true] {
        let mut times = [const { Vec::new() }; 3];
        for _ in 0..RUNS {
            for (all, time) in times.iter_mut().zip(apply(observed)?) {
                all.push(time.as_secs_f64() * 1_000_000.0);
            }
        }
        for (name, times) in names.iter().zip(times) {
            let topic = if observed { " of an observed topic" } else { "" };
            report(&format!("apply {name}{topic} beside 1,000,000"), "µs", 1.5, times);
        }
    }
    Ok(())
}

/// The columns are those of node/benches/presence/table.rs.
fn report(what: &str, unit: &str, target: f64, mut runs: Vec<f64>) {
    runs.sort_by(f64::total_cmp);
    let [lowest, .., highest] = runs[..] else { return };
    let median = runs[runs.len() / 2];
    let verdict = if median <= target { "met" } else { "MISSED" };
    let measured = format!("{median:.1} ({lowest:.1} to {highest:.1}) {unit}");
    println!("{what:<72} {:>10}  {measured:<32} {verdict}", format!("{target} {unit}"));
}

/// The mean times of a join, an update and a leave of another node, each a range of its own, all
/// in topics drawn at random from 100,000.
fn apply(observed: bool) -> Result<[Duration; 3], Failure> {
    let mut shards: Vec<Shard> = (0..SHARDS).map(shard).collect();
    let topics = (0..MANY / 10).map(topic).collect::<Result<Vec<_>, _>>()?;
    if observed {
        for topic in &topics {
            let number = usize::from(shard_of(topic.hash64(), SHARDS));
            shards[number].observe(topic, Time::ZERO);
        }
    }
    receive(&mut shards, MANY, topics.len())?;
    let mut now = Time::from_micros(10_000_000);
    shards.iter_mut().for_each(|shard| settle(shard, now));
    let mut writers: Vec<Writer> = shards.iter().map(Writer::new).collect();
    let mut times = [Duration::ZERO; 3];
    // By a step that shares no factor with their number, all topics are met, far from each other.
    let picks = (0..CHANGES).map(|item| item * 61_803 % topics.len());
    for lot in picks.collect::<Vec<_>>().chunks(LOT) {
        let number = |at: &usize| usize::from(shard_of(topics[*at].hash64(), SHARDS));
        let mut joined: Vec<Tenant> = Vec::new();
        for (kind, time) in times.iter_mut().enumerate() {
            let mut ranges = Vec::new();
            for (item, at) in lot.iter().enumerate() {
                let writer = &mut writers[number(at)];
                if kind == 0 {
                    joined.push(writer.tenant());
                }
                let range = match kind {
                    0 | 1 => writer.put(joined[item], &topics[*at], item)?,
                    _ => writer.remove(joined[item]),
                };
                ranges.push((number(at), range));
            }
            let started = Instant::now();
            let mut applied = 0;
            for (number, range) in ranges {
                let answer = black_box(shards[number].apply(OTHER, range, now));
                applied += usize::from(matches!(answer, Applied::Applied { .. }));
            }
            *time += started.elapsed();
            if applied < lot.len() {
                return Err("a range was refused".into());
            }
            now = now + Duration::from_millis(20);
            shards.iter_mut().for_each(|shard| settle(shard, now));
        }
    }
    Ok(times.map(|time| time / u32::try_from(CHANGES).unwrap_or(1)))
}

/// The other node's log of one shard.
struct Writer {
    v: u64,
    width: u32,
    free: Vec<u32>,
}

/// Who is in a slot.
#[derive(Clone, Copy)]
struct Tenant {
    slot: u32,
    born: u64,
}

impl Writer {
    fn new(shard: &Shard) -> Self {
        let v = shard.position(OTHER).map_or(0, |at| at.v);
        Self { v, width: u32::try_from(v).unwrap_or(0), free: Vec::new() }
    }

    /// A slot for whom the next change brings.
    fn tenant(&mut self) -> Tenant {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.width += 1;
            self.width - 1
        });
        Tenant { slot, born: self.v + 1 }
    }

    fn put(&mut self, tenant: Tenant, topic: &Topic, item: usize) -> Result<Range, Failure> {
        let key = key(MANY + item);
        let len = u16::try_from(key.len())?.to_le_bytes();
        let kv = [&len, key.as_bytes(), META].concat().into_boxed_slice();
        let (Tenant { slot, born }, value) = (tenant, Value::Presence { topic: 0, kv });
        let op = Op::Put { slot, seq: self.v + 1, born, value };
        Ok(self.range(vec![topic.clone()], op))
    }

    fn remove(&mut self, Tenant { slot, .. }: Tenant) -> Range {
        self.free.push(slot);
        self.range(Vec::new(), Op::Remove { slot, seq: self.v + 1 })
    }

    fn range(&mut self, topics: Vec<Topic>, op: Op) -> Range {
        let from = self.v;
        self.v += 1;
        let (to, head, ops) = (self.v, self.v, vec![op]);
        Range { incarnation: 1, from, to, head, horizon: 0, retain: None, topics, ops }
    }
}

// === memory ===

fn respawn(case: &str, items: usize) -> Result<String, Failure> {
    let output = Command::new(std::env::current_exe()?)
        .args(["--weigh", case, &items.to_string()])
        .output()?;
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

/// Resident bytes per item.
fn weigh(case: &str, items: usize) -> Result<usize, Failure> {
    let mut shards: Vec<Shard> = (0..SHARDS).map(shard).collect();
    let before = resident()?;
    match case {
        "remote" => receive(&mut shards, items, items / 10)?,
        "remote-own" => receive(&mut shards, items, items)?,
        _ => {
            for item in 0..items {
                let topic = topic(item)?;
                let now = Time::from_micros(u64::try_from(item)?);
                let shard = &mut shards[usize::from(shard_of(topic.hash64(), SHARDS))];
                shard.acquire_interest(topic.hash64(), now);
                if case == "observed" {
                    shard.observe(&topic, now);
                }
                if case != "interest" {
                    shard.track(&topic, &key(item), META, now)?;
                }
                settle(shard, now);
            }
        }
    }
    let after = resident()?;
    black_box(&shards);
    Ok(after.saturating_sub(before) / items)
}

fn resident() -> Result<usize, Failure> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("no VmRSS")?;
    let kib: usize = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kib * 1024)
}

/// Lets all shards know `items` entries of another node, spread over `topics`.
fn receive(shards: &mut [Shard], items: usize, topics: usize) -> Result<(), Failure> {
    let mut lots: Vec<Vec<(Topic, String)>> = shards.iter().map(|_| Vec::new()).collect();
    let mut ranges: Vec<u64> = shards.iter().map(|_| 0).collect();
    for item in 0..items {
        let topic = topic(item % topics)?;
        let number = usize::from(shard_of(topic.hash64(), SHARDS));
        lots[number].push((topic, key(item)));
        if lots[number].len() == RANGE_OPS {
            put(&mut shards[number], &mut ranges[number], std::mem::take(&mut lots[number]))?;
        }
    }
    for ((shard, v), lot) in shards.iter_mut().zip(&mut ranges).zip(lots) {
        put(shard, v, lot)?;
    }
    Ok(())
}

/// Applies a range of entries that continues `v`.
fn put(shard: &mut Shard, v: &mut u64, lot: Vec<(Topic, String)>) -> Result<(), Failure> {
    let from = *v;
    let mut range = Range {
        incarnation: 1,
        from,
        to: from + u64::try_from(lot.len())?,
        head: from + u64::try_from(lot.len())?,
        horizon: 0,
        retain: None,
        topics: Vec::new(),
        ops: Vec::new(),
    };
    for (at, (topic, key)) in (0..).zip(lot) {
        let seq = from + u64::from(at) + 1;
        let len = u16::try_from(key.len())?.to_le_bytes();
        let kv = [&len, key.as_bytes(), META].concat().into_boxed_slice();
        let value = Value::Presence { topic: at, kv };
        range.topics.push(topic);
        range.ops.push(Op::Put { slot: u32::try_from(seq - 1)?, seq, born: seq, value });
    }
    *v = range.to;
    match shard.apply(OTHER, range, Time::ZERO) {
        Applied::Applied { .. } | Applied::Duplicate => Ok(()),
        Applied::Nack { .. } | Applied::Rejected(_) => Err("a range was refused".into()),
    }
}

// === time ===

/// One topic with an observer: what a join and a leave cost beside so many others.
fn crowd() -> Result<(), Failure> {
    let cases: [(&str, Case); 9] = [
        ("track", |c| c.change(1, |c| c.joined)),
        ("flush of 1 join", |c| c.change(1, |c| c.told)),
        ("untrack", |c| c.change(1, |c| c.left)),
        ("track, of 50", |c| c.change(50, |c| c.joined)),
        ("flush of 50 joins, per join", |c| c.change(50, |c| c.told)),
        ("untrack, of 50", |c| c.change(50, |c| c.left)),
        ("told", |c| Ok(time(100, || c.shard.told(&c.topic).1.len()))),
        ("count", |c| Ok(time(1000, || c.shard.count(&c.topic)))),
        ("count, with a hidden node", Crowd::count_with_hidden),
    ];
    for (what, case) in cases {
        print!("{what:<44}");
        for entries in [100, 1000, 5000, 20_000] {
            print!(" {:>9}", case(&mut Crowd::new(entries)?)?.as_nanos());
        }
        println!();
    }
    Ok(())
}

type Case = fn(&mut Crowd) -> Result<Duration, Failure>;

struct Crowd {
    shard: Shard,
    topic: Topic,
    entries: usize,
    now: Time,
}

/// Times of each step of a change, per entry.
struct Steps {
    joined: Duration,
    told: Duration,
    left: Duration,
}

impl Crowd {
    fn new(entries: usize) -> Result<Self, Failure> {
        let (mut shard, topic, now) = (shard(0), topic(0)?, Time::ZERO);
        shard.observe(&topic, now);
        for item in 0..entries {
            shard.track(&topic, &key(item), META, now)?;
        }
        let mut crowd = Self { shard, topic, entries, now };
        crowd.settle();
        Ok(crowd)
    }

    fn settle(&mut self) {
        self.now = self.now + Duration::from_millis(20);
        settle(&mut self.shard, self.now);
    }

    /// Lets `size` clients join, tells it, and lets them leave again.
    fn change(&mut self, size: u32, pick: fn(Steps) -> Duration) -> Result<Duration, Failure> {
        const ROUNDS: u32 = 500;
        let mut all = Steps { joined: Duration::ZERO, told: Duration::ZERO, left: Duration::ZERO };
        let first = self.entries;
        let keys: Vec<String> = (first..).take(usize::try_from(size)?).map(key).collect();
        for _ in 0..ROUNDS {
            let started = Instant::now();
            let mut ids = Vec::with_capacity(keys.len());
            for key in &keys {
                ids.push(self.shard.track(&self.topic, key, META, self.now)?);
            }
            all.joined += started.elapsed();
            let started = Instant::now();
            self.settle();
            all.told += started.elapsed();
            let started = Instant::now();
            for id in ids {
                self.shard.untrack(id, self.now);
            }
            all.left += started.elapsed();
            self.settle();
        }
        Ok(pick(all) / (ROUNDS * size))
    }

    /// Half as many entries again are another node's, which is down.
    fn count_with_hidden(&mut self) -> Result<Duration, Failure> {
        let mut v = 0;
        let lot = (0..self.entries / 2).map(|item| (self.topic.clone(), key(item + 7))).collect();
        put(&mut self.shard, &mut v, lot)?;
        self.shard.member_down(OTHER, 1, self.now);
        Ok(time(100, || self.shard.count(&self.topic)))
    }
}

/// A node with 100,000 entries in so many topics is forgotten: the call itself, the longest one
/// after it, and all; the best of five runs, as a machine that does other things makes calls long.
fn forget(topics: usize, observed: bool) -> Result<(), Failure> {
    let mut best = [Duration::MAX; 3];
    for _ in 0..5 {
        let times = forget_once(topics, observed)?;
        best = std::array::from_fn(|at| best[at].min(times[at]));
    }
    let what = format!("forgotten, in {topics} topics{}", if observed { ", observed" } else { "" });
    let [call, worst, all] = best.map(|time| time.as_micros());
    println!("{what:<44} {call:>9} {worst:>9} {all:>9}");
    Ok(())
}

fn forget_once(topics: usize, observed: bool) -> Result<[Duration; 3], Failure> {
    const ENTRIES: usize = 100_000;
    let mut shard = shard(0);
    for number in 0..topics {
        if observed {
            shard.observe(&topic(number)?, Time::ZERO);
        }
    }
    let mut v = 0;
    for lot in 0..ENTRIES / RANGE_OPS {
        let items = lot * RANGE_OPS..(lot + 1) * RANGE_OPS;
        let lot = items.map(|item| Ok((topic(item % topics)?, key(item))));
        put(&mut shard, &mut v, lot.collect::<Result<_, Failure>>()?)?;
    }
    let mut now = Time::from_micros(10_000_000);
    settle(&mut shard, now);
    let started = Instant::now();
    shard.member_forget(OTHER, 1, now);
    let call = started.elapsed();
    let mut worst = Duration::ZERO;
    while shard.poll_timeout().is_some() {
        // Diffs of one topic have a distance.
        now = now + Duration::from_micros(500);
        let step = Instant::now();
        shard.handle_timeout(now);
        while shard.poll_event().is_some() {}
        worst = worst.max(step.elapsed());
    }
    Ok([call, worst, started.elapsed()])
}

/// The mean time of one call.
fn time<T>(calls: u32, call: impl Fn() -> T) -> Duration {
    let started = Instant::now();
    for _ in 0..calls {
        black_box(call());
    }
    started.elapsed() / calls
}

// === what the cases are made of ===

fn shard(number: u16) -> Shard {
    let run = |name: &str| name.parse().ok().map(|name| Replica { name, incarnation: 1 });
    let (Some(me), Some(other)) = (run("me"), run("other")) else { unreachable!("both are names") };
    // Room for the items that the hash gives one shard beyond its share.
    let config = Config { interests_max: 80_000, entries_max: 160_000, ..Config::default() };
    let mut shard = Shard::new(config, number, me);
    shard.member_up(OTHER, &other, true, Time::ZERO);
    shard.saw_head(OTHER, 1, 0, Time::ZERO);
    shard
}

/// Does what is due, and drops the effects.
fn settle(shard: &mut Shard, now: Time) {
    loop {
        while shard.poll_event().is_some() {}
        if shard.poll_timeout().is_none_or(|at| at > now) {
            return;
        }
        shard.handle_timeout(now);
    }
}

fn topic(number: usize) -> Result<Topic, Failure> {
    Ok(format!("room:{number:07}").parse()?)
}

fn key(number: usize) -> String {
    format!("user-{number:07}")
}
