//! Every key of a configuration, where its value is kept, and its bounds.

use super::{Config, field::Field, parts::ChannelRule};

/// One key of a section.
pub(super) struct Key<T: 'static> {
    pub(super) section: &'static str,
    pub(super) name: &'static str,
    pub(super) field: fn(&mut T) -> &mut dyn Field,
    bounds: Option<Bounds>,
}

/// What a value's magnitude may be, and how that is said.
#[derive(Clone, Copy)]
struct Bounds {
    min: u64,
    max: u64,
    said: &'static str,
}

/// The section of channel rules, an array of tables.
pub(super) const CHANNEL: &str = "channel";

const fn key(
    section: &'static str,
    name: &'static str,
    field: fn(&mut Config) -> &mut dyn Field,
) -> Key<Config> {
    Key { section, name, field, bounds: None }
}

const fn channel_key(
    name: &'static str,
    field: fn(&mut ChannelRule) -> &mut dyn Field,
) -> Key<ChannelRule> {
    Key { section: CHANNEL, name, field, bounds: None }
}

const HOUR_MILLIS: u64 = 3_600 * 1_000;
const DAY_MILLIS: u64 = 24 * 3_600 * 1_000;

/// The keys, in the order of `deploy/wingbeat.toml`.
pub(super) static KEYS: &[Key<Config>] = &[
    key("node", "name", |c| &mut c.node.name),
    key("node", "region", |c| &mut c.node.region).within(1, 64, "1 to 64 bytes"),
    key("http", "listen", |c| &mut c.http.listen),
    key("http", "origins", |c| &mut c.http.origins).within(0, 1_000, "at most 1,000 origins"),
    key("http", "max_connections", |c| &mut c.http.max_connections).within(
        1,
        10_000_000,
        "1 to 10,000,000",
    ),
    key("http", "max_frame_size", |c| &mut c.http.max_frame_size).within(
        1 << 10,
        16 << 20,
        "1KiB to 16MiB",
    ),
    key("http", "idle_timeout", |c| &mut c.http.idle_timeout).within(
        1_000,
        DAY_MILLIS,
        "1s to 1day",
    ),
    key("http", "longpoll_window", |c| &mut c.http.longpoll_window).within(
        100,
        15_000,
        "100ms to 15s",
    ),
    key("http", "compression", |c| &mut c.http.compression),
    key("tcp", "listen", |c| &mut c.tcp.listen),
    key("realtime", "enabled", |c| &mut c.realtime.enabled),
    key("cluster", "listen", |c| &mut c.cluster.listen),
    key("cluster", "advertise", |c| &mut c.cluster.advertise),
    key("cluster", "join", |c| &mut c.cluster.join).within(0, 1_000, "at most 1,000 seeds"),
    key("cluster", "name", |c| &mut c.cluster.name).within(1, 64, "1 to 64 bytes"),
    key("cluster", "secret_file", |c| &mut c.cluster.secret_file),
    key("cluster", "profile", |c| &mut c.cluster.profile),
    key("cluster", "join_timeout", |c| &mut c.cluster.join_timeout).within(
        0,
        DAY_MILLIS,
        "0s to 1day",
    ),
    key("cluster", "interest_topics", |c| &mut c.cluster.interest_topics).within(
        1,
        100_000_000,
        "1 to 100,000,000",
    ),
    key("drain", "lease", |c| &mut c.drain.lease).within(0, HOUR_MILLIS, "0s to 1h"),
    key("drain", "delay", |c| &mut c.drain.delay).within(0, HOUR_MILLIS, "0s to 1h"),
    key("drain", "timeout", |c| &mut c.drain.timeout).within(1_000, HOUR_MILLIS, "1s to 1h"),
    key("auth", "anonymous", |c| &mut c.auth.anonymous),
    key("auth", "api_token_file", |c| &mut c.auth.api_token_file),
    key("limits", "channels_per_socket", |c| &mut c.limits.channels_per_socket).within(
        1,
        100_000,
        "1 to 100,000",
    ),
    key("limits", "joins_per_second", |c| &mut c.limits.joins_per_second),
    key("limits", "events_per_second", |c| &mut c.limits.events_per_second),
    key("limits", "mailbox_bytes", |c| &mut c.limits.mailbox_bytes).within(
        4 << 10,
        1 << 30,
        "4KiB to 1GiB",
    ),
    key("log", "format", |c| &mut c.log.format),
    key("log", "level", |c| &mut c.log.level),
];

/// The keys of one `[[channel]]`.
pub(super) static CHANNEL_KEYS: &[Key<ChannelRule>] = &[
    channel_key("topic", |rule| &mut rule.topic),
    channel_key("join", |rule| &mut rule.join),
    channel_key("publish", |rule| &mut rule.publish),
    channel_key("deliver", |rule| &mut rule.deliver),
    channel_key("ack", |rule| &mut rule.ack),
    channel_key("presence", |rule| &mut rule.presence),
    channel_key("presence_events", |rule| &mut rule.presence_events),
    channel_key("linger", |rule| &mut rule.linger).within(0, HOUR_MILLIS, "0s to 1h"),
    channel_key("overflow", |rule| &mut rule.overflow),
];

impl<T> Key<T> {
    /// Bounds the value's magnitude: bytes, milliseconds, items or the number itself.
    const fn within(mut self, min: u64, max: u64, said: &'static str) -> Self {
        self.bounds = Some(Bounds { min, max, said });
        self
    }

    /// What to complain of when the value just set is out of bounds.
    pub(super) fn out_of_bounds(&self, field: &dyn Field) -> Option<String> {
        let bounds = self.bounds?;
        let magnitude = field.magnitude()?;
        let outside = magnitude < bounds.min || magnitude > bounds.max;
        outside.then(|| format!("out of bounds, write {}", bounds.said))
    }

    /// `section.name`.
    pub(super) fn dotted(&self) -> String {
        format!("{}.{}", self.section, self.name)
    }

    /// `WINGBEAT_SECTION__NAME`.
    pub(super) fn variable(&self) -> String {
        format!("WINGBEAT_{}__{}", self.section, self.name).to_ascii_uppercase()
    }
}

/// The sections of single keys, each once, in order.
pub(super) fn sections() -> Vec<&'static str> {
    let mut names: Vec<_> = KEYS.iter().map(|key| key.section).collect();
    names.dedup();
    names
}

/// The whole configuration as a file that reads back to it; secrets are no part of it.
pub(super) fn to_toml(config: &Config) -> String {
    let mut config = config.clone();
    let mut text = String::new();
    for section in sections() {
        text.push_str(&format!("[{section}]\n"));
        for key in KEYS.iter().filter(|key| key.section == section) {
            text.push_str(&format!("{} = {}\n", key.name, (key.field)(&mut config).show()));
        }
        text.push('\n');
    }
    for rule in &mut config.channels {
        text.push_str(&format!("[[{CHANNEL}]]\n"));
        for key in CHANNEL_KEYS {
            text.push_str(&format!("{} = {}\n", key.name, (key.field)(rule).show()));
        }
        text.push('\n');
    }
    text
}

/// The candidate that `written` was probably meant to be.
pub(super) fn nearest<S: AsRef<str>>(
    written: &str,
    candidates: impl IntoIterator<Item = S>,
) -> Option<S> {
    const LIKENESS_MIN: f64 = 0.8;
    let alike = |name: S| (strsim::jaro_winkler(written, name.as_ref()), name);
    let best = candidates.into_iter().map(alike).max_by(|a, b| a.0.total_cmp(&b.0));
    best.filter(|(likeness, _)| *likeness >= LIKENESS_MIN).map(|(_, name)| name)
}
