//! The query of a connect: which wire format, and what the client says of itself.

use std::{collections::BTreeMap, fmt};

use super::message::Version;

/// Levels of the deepest nested parameter: `a[b]` has two.
const DEPTH_MAX: usize = 16;

/// Why a query, or what takes its place, was refused: HTTP status 400.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum InvalidQuery {
    /// A name or value, percent-decoded, is no UTF-8.
    #[error("query is not UTF-8")]
    NotUtf8,
    /// A name is nested deeper than 16 levels.
    #[error("query parameter is nested deeper than {DEPTH_MAX} levels")]
    TooDeep,
}

/// The parameters of a connect, `vsn` among them.
///
/// Its `Debug` shows names only: values may be tokens.
#[derive(Clone, Default, PartialEq, Eq)]
pub(crate) struct Params(BTreeMap<String, Param>);

/// One parameter.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Param {
    /// `a=text`, also when empty.
    Text(String),
    /// `a[]=1&a[]=2`.
    List(Vec<Self>),
    /// `a[b]=c`.
    Map(BTreeMap<String, Self>),
}

impl Params {
    /// Reads a query string, without its `?`.
    ///
    /// `+` and `%20` are spaces, a `%` that two hexadecimal digits do not follow is itself, and the
    /// last of repeated parameters wins.
    ///
    /// # Errors
    /// When the decoded text is no UTF-8 or too deep.
    pub(crate) fn parse(query: &str) -> Result<Self, InvalidQuery> {
        let mut root = BTreeMap::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let (name, value) = (decode(name)?, decode(value)?);
            let (first, rest) = segments(&name);
            if rest.len() >= DEPTH_MAX {
                return Err(InvalidQuery::TooDeep);
            }
            put(&mut root, first, &rest, value);
        }
        Ok(Self(root))
    }

    /// Takes the members of a JSON object, for clients whose connect has no query: texts as they are,
    /// numbers and booleans as they are written; null counts as missing.
    ///
    /// # Errors
    /// When they are nested too deep.
    pub(crate) fn from_json(
        members: serde_json::Map<String, serde_json::Value>,
    ) -> Result<Self, InvalidQuery> {
        from_members(members, 1).map(Self)
    }

    /// The wire format that `vsn` asks for; `None` when there is no such format.
    pub(crate) fn version(&self) -> Option<Version> {
        match self.get("vsn") {
            None => Version::parse(None),
            Some(Param::Text(vsn)) => Version::parse(Some(vsn)),
            Some(Param::List(_) | Param::Map(_)) => None,
        }
    }

    /// All parameters of the top level, by name.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &Param)> {
        self.0.iter().map(|(name, param)| (name.as_str(), param))
    }

    /// A parameter of the top level.
    pub(crate) fn get(&self, name: &str) -> Option<&Param> {
        self.0.get(name)
    }

    /// The text of a parameter of the top level; `None` when it is missing or nested.
    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        match self.get(name)? {
            Param::Text(text) => Some(text),
            Param::List(_) | Param::Map(_) => None,
        }
    }
}

impl fmt::Debug for Params {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl fmt::Debug for Param {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(_) => f.write_str("Text"),
            Self::List(items) => f.debug_list().entries(items).finish(),
            Self::Map(map) => f.debug_map().entries(map).finish(),
        }
    }
}

/// `a[b][]` is `a`, then `b` and the empty segment of a list. A name whose brackets do not close at
/// its end is one segment.
fn segments(name: &str) -> (&str, Vec<&str>) {
    match name.strip_suffix(']').and_then(|open| open.split_once('[')) {
        Some((first, rest)) => (first, rest.split("][").collect()),
        None => (name, Vec::new()),
    }
}

/// Puts `value` where the path leads, and makes way for it: a later parameter replaces a former
/// one of another kind.
fn put(map: &mut BTreeMap<String, Param>, first: &str, rest: &[&str], value: String) {
    let former = map.remove(first);
    map.insert(first.to_owned(), nest(former, rest, value));
}

/// The parameter that `former` becomes when `value` is put at `path` within it.
fn nest(former: Option<Param>, path: &[&str], value: String) -> Param {
    match path.split_first() {
        None => Param::Text(value),
        Some((&"", rest)) => {
            let mut items = match former {
                Some(Param::List(items)) => items,
                _ => Vec::new(),
            };
            items.push(nest(None, rest, value));
            Param::List(items)
        }
        Some((&name, rest)) => {
            let mut map = match former {
                Some(Param::Map(map)) => map,
                _ => BTreeMap::new(),
            };
            put(&mut map, name, rest, value);
            Param::Map(map)
        }
    }
}

fn from_members(
    members: serde_json::Map<String, serde_json::Value>,
    level: usize,
) -> Result<BTreeMap<String, Param>, InvalidQuery> {
    let params = members.into_iter().filter_map(|(name, value)| {
        from_value(value, level).transpose().map(|param| Ok((name, param?)))
    });
    params.collect()
}

fn from_value(value: serde_json::Value, level: usize) -> Result<Option<Param>, InvalidQuery> {
    use serde_json::Value;
    if level > DEPTH_MAX {
        return Err(InvalidQuery::TooDeep);
    }
    Ok(Some(match value {
        Value::Null => return Ok(None),
        Value::String(text) => Param::Text(text),
        Value::Bool(_) | Value::Number(_) => Param::Text(value.to_string()),
        Value::Array(items) => {
            let items =
                items.into_iter().filter_map(|item| from_value(item, level + 1).transpose());
            Param::List(items.collect::<Result<_, _>>()?)
        }
        Value::Object(members) => Param::Map(from_members(members, level + 1)?),
    }))
}

fn decode(text: &str) -> Result<String, InvalidQuery> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        match byte {
            b'+' => out.push(b' '),
            b'%' => match escaped(tail) {
                Some(decoded) => {
                    out.push(decoded);
                    rest = &tail[2..];
                }
                None => out.push(b'%'),
            },
            _ => out.push(byte),
        }
    }
    String::from_utf8(out).map_err(|_| InvalidQuery::NotUtf8)
}

/// The byte of the two hexadecimal digits that `tail` starts with.
fn escaped(tail: &[u8]) -> Option<u8> {
    let digit = |at: usize| char::from(*tail.get(at)?).to_digit(16);
    u8::try_from(digit(0)? * 16 + digit(1)?).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(query: &str) -> Params {
        Params::parse(query).expect("a valid query")
    }

    fn path<'a>(params: &'a Params, name: &str, keys: &[&str]) -> Option<&'a Param> {
        keys.iter().try_fold(params.get(name)?, |param, key| match param {
            Param::Map(map) => map.get(*key),
            Param::List(items) => items.get(key.parse::<usize>().ok()?),
            Param::Text(_) => None,
        })
    }

    fn text(param: Option<&Param>) -> Option<&str> {
        match param {
            Some(Param::Text(text)) => Some(text),
            _ => None,
        }
    }

    #[test]
    fn the_last_of_repeated_parameters_wins() {
        assert_eq!(parse("vsn=1.0.0&vsn=2.0.0").version(), Some(Version::V2));
        assert_eq!(parse("a[b]=1&a=2").text("a"), Some("2"));
        assert_eq!(text(path(&parse("a=2&a[b]=1"), "a", &["b"])), Some("1"));
    }

    #[test]
    fn parameters_nest() {
        let params = parse("a[b]=c&a[d][e]=f&l[]=1&l[]=2&m[][x]=3");
        assert_eq!(text(path(&params, "a", &["b"])), Some("c"));
        assert_eq!(text(path(&params, "a", &["d", "e"])), Some("f"));
        assert_eq!(text(path(&params, "l", &["1"])), Some("2"));
        assert_eq!(text(path(&params, "m", &["0", "x"])), Some("3"));
        assert_eq!(params.text("a"), None);
    }

    #[test]
    fn brackets_that_do_not_close_are_part_of_the_name() {
        let params = parse("a[b=1&c]=2&d[e]f=3");
        assert_eq!(params.text("a[b"), Some("1"));
        assert_eq!(params.text("c]"), Some("2"));
        assert_eq!(params.text("d[e]f"), Some("3"));
    }

    #[test]
    fn a_broken_escape_is_literal_and_a_good_one_is_decoded() {
        let params = parse("a=%zz&b=100%&c=%4&d=J%c3%B6rg+B%20C&%65=5&f=%+1");
        let values = ["a", "b", "c", "d", "e", "f"].map(|name| params.text(name));
        let expected = ["%zz", "100%", "%4", "Jörg B C", "5", "% 1"];
        assert_eq!(values, expected.map(Some));
    }

    #[test]
    fn text_that_is_no_utf8_is_refused() {
        assert_eq!(Params::parse("a=%ff"), Err(InvalidQuery::NotUtf8));
        assert_eq!(Params::parse("%c3=a"), Err(InvalidQuery::NotUtf8));
    }

    #[test]
    fn nesting_has_a_bound() {
        let deep = |levels: usize| format!("a{}=1", "[b]".repeat(levels - 1));
        assert!(Params::parse(&deep(16)).is_ok());
        assert_eq!(Params::parse(&deep(17)), Err(InvalidQuery::TooDeep));
        assert_eq!(Params::parse(&deep(100_000)), Err(InvalidQuery::TooDeep));
    }

    #[test]
    fn a_missing_version_is_the_first_and_a_nested_one_is_none() {
        assert_eq!(parse("").version(), Some(Version::V1));
        assert_eq!(parse("vsn=2.0.0").version(), Some(Version::V2));
        assert_eq!(parse("vsn").version(), None);
        assert_eq!(parse("vsn[]=2.0.0").version(), None);
    }

    #[test]
    fn debug_output_hides_values() {
        let shown = format!("{:?} {:?}", parse("token=hush"), parse("t[a]=hush").get("t"));
        assert!(shown.contains("token") && !shown.contains("hush"), "{shown}");
    }

    #[test]
    fn json_members_are_parameters_too() {
        let read = |json: &str| Params::from_json(serde_json::from_str(json).expect("an object"));
        let json = r#"{"a":"x","n":7,"t":true,"none":null,"l":["1",2],"m":{"k":{"d":"e"}}}"#;
        let params = read(json).expect("parameters");
        assert_eq!(
            ["a", "n", "t", "none"].map(|name| params.text(name)),
            [Some("x"), Some("7"), Some("true"), None]
        );
        assert_eq!(text(path(&params, "l", &["1"])), Some("2"));
        assert_eq!(text(path(&params, "m", &["k", "d"])), Some("e"));
        let deep = |levels: usize| {
            let (open, close) = ("[".repeat(levels - 1), "]".repeat(levels - 1));
            read(&format!(r#"{{"a":{open}1{close}}}"#))
        };
        assert!(deep(16).is_ok());
        assert_eq!(deep(17), Err(InvalidQuery::TooDeep));
    }

    proptest! {
        #[test]
        fn any_query_is_read_or_refused(query in "([ab=&+%\\[\\]]|%[0-9a-fA-F]{2}|.){0,80}") {
            let _ = Params::parse(&query);
        }
    }
}
