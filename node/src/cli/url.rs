//! The address of a node, and texts as parts of one.

use std::fmt;

use hyper::Uri;

use super::Failure;

/// `http://HOST:PORT`, perhaps with a path that a proxy serves the node under.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct BaseUrl {
    host: String,
    port: u16,
    prefix: String,
}

impl BaseUrl {
    /// Reads it; `http://` may be left out.
    pub(super) fn parse(text: &str) -> Result<Self, Failure> {
        let bad = |why: &str| Failure::usage(format_args!("--url {text:?}: {why}"));
        let whole = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
        let uri: Uri = whole.parse().map_err(|_| bad("no URL, write http://127.0.0.1:4000"))?;
        match uri.scheme_str() {
            Some("http") => {}
            Some("https") => {
                return Err(bad("no TLS here, write http:// and reach the node by a tunnel"));
            }
            _ => return Err(bad("only http:// is understood")),
        }
        let host = uri.host().filter(|host| !host.is_empty()).ok_or_else(|| bad("no host"))?;
        if uri.query().is_some() || uri.authority().is_some_and(|a| a.as_str().contains('@')) {
            return Err(bad("write the scheme, host, port and path alone"));
        }
        Ok(Self {
            host: host.to_owned(),
            port: uri.port_u16().unwrap_or(80),
            prefix: uri.path().trim_end_matches('/').to_owned(),
        })
    }

    /// What to connect to: an IPv6 address without its brackets.
    pub(super) fn target(&self) -> (&str, u16) {
        (self.host.trim_start_matches('[').trim_end_matches(']'), self.port)
    }

    /// The `Host` header.
    pub(super) fn authority(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }

    /// The request target for a path of the API.
    pub(super) fn path(&self, path: &str) -> String {
        format!("{}{path}", self.prefix)
    }
}

impl fmt::Display for BaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}:{}{}", self.host, self.port, self.prefix)
    }
}

/// A text as one segment of a path, or as one value of a query.
pub(super) fn percent(text: &str) -> String {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            let digits = [HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]];
            encoded.extend(['%', char::from(digits[0]), char::from(digits[1])]);
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_a_scheme_a_host_a_port_and_perhaps_a_path() {
        let shown = |text| BaseUrl::parse(text).map(|url| url.to_string());
        assert_eq!(shown("http://a.test:4000/"), Ok("http://a.test:4000".to_owned()));
        assert_eq!(shown("localhost:4000"), Ok("http://localhost:4000".to_owned()));
        assert_eq!(shown("http://a.test/bus/"), Ok("http://a.test:80/bus".to_owned()));
        let v6 = BaseUrl::parse("http://[::1]:4000").unwrap();
        assert_eq!((v6.target(), v6.authority()), (("::1", 4000), "[::1]:4000".to_owned()));
    }

    #[test]
    fn a_url_that_cannot_work_is_wrong_usage() {
        for text in ["", "http://", "https://a.test", "ftp://a.test", "http://u:p@a.test", "a b"] {
            assert_eq!(BaseUrl::parse(text).map_err(|f| f.exit_code()), Err(2), "{text}");
        }
    }

    #[test]
    fn a_topic_becomes_one_segment() {
        assert_eq!(percent("room:a/b?c é%"), "room%3Aa%2Fb%3Fc%20%C3%A9%25");
    }
}
