//! How many frames a second one lane carries between two transports of one process.
//!
//! `cargo run --release -p transport --example throughput [frame length] [frames]`

#![expect(clippy::print_stdout, reason = "an example prints what it found")]

use std::{
    error::Error,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Instant,
};

use bytes::Bytes;
use tokio::sync::Notify;
use transport::{
    Admit, Config, Delivery, Event, Handlers, Identity, Lane, LaneConfig, Secret, SendError,
    Transport, WhenFull,
};

fn config() -> Result<Config, Box<dyn Error>> {
    let lane = LaneConfig {
        name: "data",
        bound: 4 << 20,
        when_full: WhenFull::Drop,
        delivery: Delivery::Direct,
        priority: 0,
    };
    Ok(Config {
        cluster: "throughput".into(),
        secrets: vec![Secret::new([1; 32])?],
        lanes: vec![lane],
        ..Config::default()
    })
}

fn identity(name: &str) -> Identity {
    Identity { name: name.into(), incarnation: 1, hello: Bytes::new() }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let len: usize = arguments.next().map_or(Ok(200), |text| text.parse())?;
    let frames: usize = arguments.next().map_or(Ok(1_000_000), |text| text.parse())?;

    let (received, all) = (Arc::new(AtomicUsize::new(0)), Arc::new(Notify::new()));
    let (count, done) = (received.clone(), all.clone());
    let handlers = Handlers {
        direct: Arc::new(move |_, _, received| {
            let before = count.fetch_add(received.len(), Ordering::Relaxed);
            if before + received.len() >= frames {
                done.notify_one();
            }
            None
        }),
        admit: Arc::new(|_, _| Admit::Yes),
    };
    let (a, mut events) = Transport::bind(config()?, identity("a"), handlers.clone()).await?;
    let (b, mut b_events) = Transport::bind(config()?, identity("b"), handlers).await?;
    tokio::spawn(async move { while b_events.next().await.is_some() {} });
    a.keep(b.local_addr());
    let link = loop {
        if let Some(Event::Up(link)) = events.next().await {
            break link;
        }
    };

    let (frame, begun) = (Bytes::from(vec![7; len]), Instant::now());
    let mut sent = 0;
    while sent < frames {
        match link.send(Lane(0), frame.clone()) {
            Ok(()) => sent += 1,
            // Room is told when half of the lane is free.
            Err(SendError::Full) => drop(events.next().await),
            Err(error) => return Err(error.into()),
        }
    }
    all.notified().await;
    let seconds = begun.elapsed().as_secs_f64();
    let (rate, bytes) = (frames as f64 / seconds, (frames * len) as f64 / seconds);
    println!("{frames} frames of {len} B: {rate:.0} frames/s, {:.1} MB/s", bytes / 1e6);
    Ok(())
}
