//! Values with a syntax of their own: sizes, rates, seeds, topic patterns, origins.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    num::NonZeroU32,
    str::FromStr,
};

use presence::{NodeName, Topic};

use super::field::{Field, TextValue, Written};

/// Why a value is refused: what was written, and what to write.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidValue(String);

impl InvalidValue {
    pub(super) const fn new(why: String) -> Self {
        Self(why)
    }
}

/// A number of bytes, written `64KiB` (1,024 each) or `10MB` (1,000,000 each).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(usize);

impl Size {
    /// Units from the largest; each displays the sizes that it divides, binary before decimal.
    const UNITS: [(&'static str, usize); 7] = [
        ("GiB", 1 << 30),
        ("MiB", 1 << 20),
        ("KiB", 1 << 10),
        ("GB", 1_000_000_000),
        ("MB", 1_000_000),
        ("kB", 1_000),
        ("B", 1),
    ];

    /// A size of that many bytes.
    pub const fn new(bytes: usize) -> Self {
        Self(bytes)
    }

    /// The number of bytes.
    pub const fn bytes(self) -> usize {
        self.0
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let divides = |(_, unit): &&(&str, usize)| self.0 != 0 && self.0.is_multiple_of(*unit);
        let (name, unit) = Self::UNITS.iter().find(divides).unwrap_or(&("B", 1));
        write!(f, "{}{name}", self.0 / unit)
    }
}

impl TextValue for Size {
    const REFUSAL: &'static str = "no size, write 64KiB or 10MB";

    fn read(text: &str) -> Option<Self> {
        let text = text.trim();
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (number, name) = text.split_at(digits);
        let named = |(unit, _): &&(&str, usize)| unit.eq_ignore_ascii_case(name.trim_start());
        let (_, unit) = Self::UNITS.iter().find(named)?;
        number.parse::<usize>().ok()?.checked_mul(*unit).map(Self)
    }

    fn write(&self) -> String {
        self.to_string()
    }

    fn amount(&self) -> Option<u64> {
        u64::try_from(self.0).ok()
    }
}

/// How many a second one client may do, or no limit: a number from 1 up, or `"off"`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rate(Option<NonZeroU32>);

impl Rate {
    /// No limit.
    pub const OFF: Self = Self(None);

    /// At most that many a second.
    pub const fn new(per_second: NonZeroU32) -> Self {
        Self(Some(per_second))
    }

    /// The limit, if there is one.
    pub const fn per_second(self) -> Option<NonZeroU32> {
        self.0
    }
}

impl Field for Rate {
    fn set(&mut self, written: &Written<'_>) -> Result<(), InvalidValue> {
        if matches!(written.text(), Some("off" | "")) {
            *self = Self::OFF;
            return Ok(());
        }
        let mut number = 0_usize;
        let read = number.set(written).ok().and_then(|()| u32::try_from(number).ok());
        let rate = read.and_then(NonZeroU32::new);
        *self = Self::new(
            rate.ok_or_else(|| written.refuse("no rate, write a number from 1 up or \"off\""))?,
        );
        Ok(())
    }

    fn show(&self) -> String {
        self.0.map_or_else(|| "\"off\"".to_owned(), |rate| rate.to_string())
    }
}

/// Where a node of the cluster may be found.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Seed {
    /// One address.
    Address(SocketAddr),
    /// One machine by name; whichever of its addresses answers.
    Host {
        /// The name.
        host: String,
        /// The port of its cluster listener.
        port: u16,
    },
    /// A name whose every address is a node, looked up again and again: `dns:HOST:PORT`.
    Dns {
        /// The name.
        host: String,
        /// The port that all nodes' cluster listeners share.
        port: u16,
    },
}

impl fmt::Display for Seed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Host { host, port } => write!(f, "{host}:{port}"),
            Self::Dns { host, port } => write!(f, "dns:{host}:{port}"),
        }
    }
}

impl TextValue for Seed {
    const REFUSAL: &'static str = "no seed, write HOST:PORT, IP:PORT or dns:HOST:PORT";

    fn read(text: &str) -> Option<Self> {
        let text = text.trim();
        if let Some(name) = text.strip_prefix("dns:") {
            return host_and_port(name).map(|(host, port)| Self::Dns { host, port });
        }
        if let Ok(address) = text.parse::<SocketAddr>() {
            return (address.port() != 0).then_some(Self::Address(address));
        }
        host_and_port(text).map(|(host, port)| Self::Host { host, port })
    }

    fn write(&self) -> String {
        self.to_string()
    }
}

/// A DNS name (letters, digits, `-`, `_`, `.`) and a port that is not 0.
fn host_and_port(text: &str) -> Option<(String, u16)> {
    let (host, port) = text.rsplit_once(':')?;
    is_dns_name(host).then_some(())?;
    let port = port.parse().ok().filter(|port| *port != 0)?;
    Some((host.to_owned(), port))
}

fn is_dns_name(host: &str) -> bool {
    let label = |label: &str| {
        let name_byte = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
        (1..=63).contains(&label.len()) && label.bytes().all(name_byte)
    };
    host.len() <= 253 && host.strip_suffix('.').unwrap_or(host).split('.').all(label)
}

/// Which topics a rule governs: one topic, or all that start with a text (`room:*`).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Pattern {
    /// The topic, or what topics start with.
    stem: String,
    open: bool,
}

impl Pattern {
    /// The pattern of every topic, `*`.
    pub const fn any() -> Self {
        Self { stem: String::new(), open: true }
    }

    /// Whether the rule governs `topic`.
    pub fn matches(&self, topic: &str) -> bool {
        if self.open { topic.starts_with(&self.stem) } else { topic == self.stem }
    }

    /// Whether every topic of `other` is one of this pattern's.
    pub fn covers(&self, other: &Self) -> bool {
        self.matches(&other.stem) && (self.open || !other.open)
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.stem, if self.open { "*" } else { "" })
    }
}

impl FromStr for Pattern {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        let refuse = || InvalidValue::new(format!("{text:?} is {}", Self::REFUSAL));
        Self::read(text).ok_or_else(refuse)
    }
}

impl TextValue for Pattern {
    const REFUSAL: &'static str =
        "no pattern, write a topic of 1 to 512 bytes, with one * at most, at its end";

    fn read(text: &str) -> Option<Self> {
        let (stem, open) = text.strip_suffix('*').map_or((text, false), |stem| (stem, true));
        let valid = (open && stem.is_empty()) || stem.parse::<Topic>().is_ok();
        (valid && !stem.contains('*')).then(|| Self { stem: stem.to_owned(), open })
    }

    fn write(&self) -> String {
        self.to_string()
    }
}

/// From which pages a browser may connect: `https://chat.example.com`, `https://*.example.com`
/// for every subdomain, or `*` for all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OriginRule(Allowed);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Allowed {
    Any,
    Exactly(WebOrigin),
    Subdomains(WebOrigin),
}

/// An origin as browsers send it, in lower case, with its port.
#[derive(Clone, Debug, PartialEq, Eq)]
struct WebOrigin {
    scheme: &'static str,
    host: String,
    port: u16,
}

impl OriginRule {
    /// Whether the value of a request's `Origin` header is allowed. `null` is only by `*`.
    pub fn allows(&self, origin: &str) -> bool {
        let parsed = || WebOrigin::parse(origin);
        match &self.0 {
            Allowed::Any => true,
            Allowed::Exactly(rule) => parsed().is_some_and(|origin| origin == *rule),
            Allowed::Subdomains(rule) => parsed().is_some_and(|origin| {
                let parent = origin.host.strip_suffix(&rule.host);
                let below = parent.is_some_and(|labels| labels.len() > 1 && labels.ends_with('.'));
                below && (origin.scheme, origin.port) == (rule.scheme, rule.port)
            }),
        }
    }
}

impl fmt::Display for OriginRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Allowed::Any => f.write_str("*"),
            Allowed::Exactly(origin) => origin.write(f, ""),
            Allowed::Subdomains(origin) => origin.write(f, "*."),
        }
    }
}

impl TextValue for OriginRule {
    const REFUSAL: &'static str =
        "no origin, write https://chat.example.com, https://*.example.com or *";

    fn read(text: &str) -> Option<Self> {
        if text == "*" {
            return Some(Self(Allowed::Any));
        }
        match text.split_once("://*.") {
            None => WebOrigin::parse(text).map(|origin| Self(Allowed::Exactly(origin))),
            Some((scheme, rest)) => WebOrigin::parse(&format!("{scheme}://{rest}"))
                .map(|origin| Self(Allowed::Subdomains(origin))),
        }
    }

    fn write(&self) -> String {
        self.to_string()
    }
}

impl WebOrigin {
    fn parse(text: &str) -> Option<Self> {
        let (scheme, authority) = text.split_once("://")?;
        let (scheme, default_port) = match scheme.to_ascii_lowercase().as_str() {
            "http" => ("http", 80),
            "https" => ("https", 443),
            _ => return None,
        };
        let bracketed = authority.ends_with(']');
        let (host, port) = match authority.rsplit_once(':').filter(|_| !bracketed) {
            Some((host, port)) => (host, port.parse().ok()?),
            None => (authority, default_port),
        };
        let v6 = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let valid = match v6 {
            Some(ip) => ip.parse::<IpAddr>().is_ok_and(|ip| ip.is_ipv6()),
            None => is_dns_name(host),
        };
        valid.then(|| Self { scheme, host: host.to_ascii_lowercase(), port })
    }

    fn write(&self, f: &mut fmt::Formatter<'_>, before_host: &str) -> fmt::Result {
        write!(f, "{}://{before_host}{}", self.scheme, self.host)?;
        match (self.scheme, self.port) {
            ("http", 80) | ("https", 443) => Ok(()),
            (_, port) => write!(f, ":{port}"),
        }
    }
}

impl TextValue for NodeName {
    const REFUSAL: &'static str = "no node name, write 1 to 128 bytes of visible ASCII";

    fn read(text: &str) -> Option<Self> {
        text.parse().ok()
    }

    fn write(&self) -> String {
        self.to_string()
    }
}
