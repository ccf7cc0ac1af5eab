//! `wingbeat who`.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use presence::Topic;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    ApiArgs, Failure, Terminal,
    client::Client,
    roster::{Change, Diff, Meta, Metas, Presences, Roster},
    sse::Event,
    table::{Column, Table},
    text::printable,
    url::percent,
};

/// Keys asked for at a time.
const PAGE: u64 = 1_000;

/// Show who is online on a topic, on all nodes
///
/// With --watch, first those who are there (=), then each change: + joined, ~ changed, - left.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  wingbeat who room:lobby
  wingbeat who room:lobby --key ann         one key; exit code 1 if it is not there
  wingbeat who room:lobby --watch
  wingbeat who room:lobby --count           how many, in rooms of any size
  wingbeat who room:lobby --json | jq '.presences | keys'

Exit codes: 3 when the node goes away while watching")]
pub struct WhoArgs {
    /// The topic
    topic: Topic,
    /// Show this key alone
    #[arg(long)]
    key: Option<String>,
    /// Go on, and show each change
    #[arg(long)]
    watch: bool,
    /// Show how many there are, and not who
    #[arg(long, conflicts_with_all = ["watch", "key", "limit"])]
    count: bool,
    /// Show at most so many keys
    #[arg(
        long,
        conflicts_with_all = ["watch", "key"],
        value_parser = clap::value_parser!(u64).range(1..)
    )]
    limit: Option<u64>,
    /// Print JSON; with --watch, a line for each change
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    pub(super) api: ApiArgs,
}

/// A page of a topic's presences.
#[derive(Deserialize)]
struct Page {
    count: u64,
    presences: Presences,
    next: Option<String>,
}

/// How many are on a topic.
#[derive(Deserialize)]
struct Counted {
    count: u64,
    entries: u64,
}

/// The data of an event `presence_state`.
#[derive(Deserialize)]
struct State {
    presences: Presences,
}

impl WhoArgs {
    pub(super) async fn run(
        &self,
        client: &Client,
        terminal: &mut Terminal<'_>,
    ) -> Result<(), Failure> {
        match &self.key {
            _ if self.watch => self.watch(client, terminal).await,
            _ if self.count => self.count(client, terminal).await,
            Some(key) => self.one(key, client, terminal).await,
            None => self.list(client, terminal).await,
        }
    }

    async fn one(
        &self,
        key: &str,
        client: &Client,
        terminal: &mut Terminal<'_>,
    ) -> Result<(), Failure> {
        let topic = self.topic.as_str();
        let path = format!("/api/presence/{}/{}", percent(topic), percent(key));
        let answer = match client.get(&path).await {
            Err(Failure::Refused { status: 404, .. }) => {
                let key = printable(key);
                return Err(Failure::failed(format_args!("{key} is not on {topic}")));
            }
            answer => answer?,
        };
        let Metas { metas } = client.decode(&answer)?;
        if self.json {
            terminal.out.write_all(&answer)?;
            writeln!(terminal.out)?;
            return Ok(());
        }
        let mut table = table();
        add_rows(&mut table, key, &metas);
        Ok(table.write(terminal.out)?)
    }

    async fn count(&self, client: &Client, terminal: &mut Terminal<'_>) -> Result<(), Failure> {
        let path = format!("/api/presence/{}?count=true", percent(self.topic.as_str()));
        let answer = client.get(&path).await?;
        let Counted { count, entries } = client.decode(&answer)?;
        if self.json {
            terminal.out.write_all(&answer)?;
            writeln!(terminal.out)?;
            return Ok(());
        }
        Ok(writeln!(terminal.out, "{count} keys, {entries} entries")?)
    }

    async fn list(&self, client: &Client, terminal: &mut Terminal<'_>) -> Result<(), Failure> {
        let (count, presences) = self.pages(client).await?;
        let topic = self.topic.as_str();
        if self.json {
            let listed =
                json!({ "topic": topic, "count": count, "presences": as_json(&presences) });
            writeln!(terminal.out, "{listed}")?;
            return Ok(());
        }
        if presences.is_empty() {
            writeln!(terminal.out, "nobody is on {topic}")?;
            return Ok(());
        }
        let mut table = table();
        for (key, Metas { metas }) in &presences {
            add_rows(&mut table, key, metas);
        }
        table.write(terminal.out)?;
        if (presences.len() as u64) < count {
            writeln!(terminal.err, "{} of {count} keys", presences.len())?;
        }
        Ok(())
    }

    /// All pages up to the limit, and how many keys there are.
    async fn pages(&self, client: &Client) -> Result<(u64, Presences), Failure> {
        let path = format!("/api/presence/{}", percent(self.topic.as_str()));
        let mut presences = Presences::new();
        let mut after = String::new();
        loop {
            let room = self.limit.unwrap_or(u64::MAX).saturating_sub(presences.len() as u64);
            let path = format!("{path}?limit={}{after}", room.min(PAGE));
            let mut page: Page = client.decode(&client.get(&path).await?)?;
            let before = presences.len();
            presences.append(&mut page.presences);
            let moved = presences.len() > before;
            let full = self.limit.is_some_and(|limit| presences.len() as u64 >= limit);
            match page.next {
                Some(next) if moved && !full => after = format!("&after={}", percent(&next)),
                Some(_) | None => return Ok((page.count, presences)),
            }
        }
    }

    async fn watch(&self, client: &Client, terminal: &mut Terminal<'_>) -> Result<(), Failure> {
        let topic = percent(self.topic.as_str());
        let path = format!("/api/subscribe?topic={topic}&presence=true");
        let mut stream = client.subscribe(&path).await?;
        let mut watch = Watch { roster: Roster::default(), begun: false, args: self };
        loop {
            let event = stream.next().await?;
            watch.handle(&event, client, terminal)?;
            terminal.out.flush()?;
        }
    }
}

/// A watch under way.
struct Watch<'a> {
    roster: Roster,
    /// The first state has come.
    begun: bool,
    args: &'a WhoArgs,
}

impl Watch<'_> {
    fn handle(
        &mut self,
        event: &Event,
        client: &Client,
        terminal: &mut Terminal<'_>,
    ) -> Result<(), Failure> {
        let first = !self.begun;
        let changes = match event.name.as_str() {
            "presence_state" => {
                self.begun = true;
                let State { presences } = client.decode(event.data.as_bytes())?;
                self.roster.replace(presences)
            }
            "presence_diff" => self.roster.apply(client.decode::<Diff>(event.data.as_bytes())?),
            _ => return Ok(()),
        };
        for (key, change) in changes {
            if self.args.key.as_ref().is_none_or(|only| *only == key) {
                let (sign, word) = match change {
                    Change::Join if first => ("=", "present"),
                    Change::Join => ("+", "join"),
                    Change::Update => ("~", "update"),
                    Change::Leave => ("-", "leave"),
                };
                self.write(&key, sign, word, terminal)?;
            }
        }
        Ok(())
    }

    fn write(
        &self,
        key: &str,
        sign: &str,
        word: &str,
        terminal: &mut Terminal<'_>,
    ) -> Result<(), Failure> {
        let metas = self.roster.metas(key);
        if self.args.json {
            writeln!(terminal.out, "{}", json!({ "change": word, "key": key, "metas": metas }))?;
            return Ok(());
        }
        let shown: Vec<_> = metas.iter().map(own_fields).filter(|meta| !meta.is_empty()).collect();
        let line = format!("{sign} {key} {}", shown.join(" "));
        writeln!(terminal.out, "{}", printable(line.trim_end()))?;
        Ok(())
    }
}

fn table() -> Table {
    Table::new([Column::Left("KEY"), Column::Left("ONLINE"), Column::Left("META")])
}

fn add_rows(table: &mut Table, key: &str, metas: &[Meta]) {
    for meta in metas {
        table.row([key.to_owned(), online_for(meta), own_fields(meta)]);
    }
}

/// How long the presence has been there, by the clock of its node.
fn online_for(meta: &Meta) -> String {
    let since = meta.get("online_at").and_then(Value::as_u64).map(Duration::from_secs);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    since.map_or_else(
        || "-".to_owned(),
        |since| {
            let whole_seconds = Duration::from_secs(now.saturating_sub(since).as_secs());
            humantime::format_duration(whole_seconds).to_string()
        },
    )
}

/// What the client said of itself, without what the node adds.
fn own_fields(meta: &Meta) -> String {
    let mut own = meta.clone();
    own.retain(|name, _| !matches!(name.as_str(), "phx_ref" | "phx_ref_prev" | "online_at"));
    if own.is_empty() { String::new() } else { Value::Object(own).to_string() }
}

fn as_json(presences: &Presences) -> Value {
    presences
        .iter()
        .map(|(key, Metas { metas })| (key.clone(), json!({ "metas": metas })))
        .collect()
}
