//! Which pages may connect.

use crate::config::OriginRule;

/// Decides on `Origin` headers.
#[derive(Clone, Debug)]
pub(crate) struct Origins {
    rules: Vec<OriginRule>,
    /// Pages of this machine may connect whatever their port: for development.
    any_loopback: bool,
    /// The listener answers this machine alone.
    local: bool,
}

impl Origins {
    pub(crate) fn new(rules: Vec<OriginRule>, any_loopback: bool, local: bool) -> Self {
        Self { rules, any_loopback, local }
    }

    /// Whether a page of this origin may connect. Without rules its host must be the one it connects
    /// to, on any port. What is no browser sends no origin, and may.
    pub(crate) fn allow(&self, origin: Option<&str>, host: Option<&str>) -> bool {
        let Some(origin) = origin else { return true };
        if self.any_loopback && host_of_origin(origin).is_some_and(is_loopback) {
            return true;
        }
        if !self.rules.is_empty() {
            return self.rules.iter().any(|rule| rule.allows(origin));
        }
        let same = |own: &str| {
            // A name that resolves to loopback for the sake of an attack is no name of this machine.
            let named = !self.local || is_loopback(host_name(own));
            named
                && host_of_origin(origin)
                    .is_some_and(|host| host.eq_ignore_ascii_case(host_name(own)))
        };
        host.is_some_and(same)
    }
}

/// The host of `https://host:port`.
pub(crate) fn host_of_origin(origin: &str) -> Option<&str> {
    let (_, host) = origin.split_once("://")?;
    Some(host_name(host))
}

/// The host of `host:port`, where the host may be an IPv6 address in brackets.
pub(crate) fn host_name(host: &str) -> &str {
    match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or(rest),
        None => host.split(':').next().unwrap_or(host),
    }
}

/// Whether a host name means this machine.
pub(crate) fn is_loopback(host: &str) -> bool {
    let address = host.parse::<std::net::IpAddr>();
    host.eq_ignore_ascii_case("localhost") || address.is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_rules_the_page_must_come_from_the_host_it_connects_to() {
        let origins = Origins::new(Vec::new(), false, false);
        let allow = |origin, host| origins.allow(Some(origin), Some(host));
        assert!(allow("http://a.example:8080", "a.example:4000"));
        assert!(allow("https://[::1]", "[::1]:4000"));
        assert!(!allow("https://evil.example", "a.example"));
        assert!(!allow("null", "a.example"));
        assert!(origins.allow(None, None), "no browser");
    }

    #[test]
    fn a_name_that_was_made_to_lead_to_loopback_is_no_way_in() {
        let origins = Origins::new(Vec::new(), false, true);
        let allow = |origin, host| origins.allow(Some(origin), Some(host));
        assert!(!allow("http://evil.example:4000", "evil.example:4000"));
        assert!(allow("http://localhost:5173", "localhost:4000"));
    }

    #[test]
    fn in_development_any_page_of_this_machine_may_connect() {
        let origins = Origins::new(Vec::new(), true, true);
        assert!(origins.allow(Some("http://localhost:5173"), Some("127.0.0.1:4000")));
        assert!(!origins.allow(Some("http://evil.example"), Some("127.0.0.1:4000")));
    }
}
