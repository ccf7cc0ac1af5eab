//! A file's values and the messages about them.

use std::{path::Path, time::Duration};

use proptest::prelude::*;

use super::{complaint, parse};
use crate::config::{
    Config, Pattern, Seed,
    field::TextValue as _,
    values::{OriginRule, Size},
};

#[test]
fn an_unknown_key_names_its_line_and_the_key_that_was_meant() {
    assert_eq!(
        complaint("[node]\n\n[http]\nlisen = \"127.0.0.1:1\""),
        r#"wingbeat.toml:4: unknown key "lisen" in [http], did you mean "listen"?"#
    );
}

#[test]
fn a_key_in_the_wrong_section_is_sent_to_the_right_one() {
    assert_eq!(
        complaint("[http]\nanonymous = true"),
        r#"wingbeat.toml:2: unknown key "anonymous" in [http], did you mean "anonymous" in [auth]?"#
    );
    assert_eq!(
        complaint("profile = 1"),
        r#"wingbeat.toml:1: unknown key "profile" outside of a section, did you mean "profile" in [cluster]?"#
    );
}

#[test]
fn an_unknown_section_names_the_one_that_was_meant() {
    assert_eq!(
        complaint("[htpp]\nlisten = \"\""),
        "wingbeat.toml:1: unknown section [htpp], did you mean [http]?"
    );
    assert_eq!(
        complaint("[[channels]]\ntopic = \"a\""),
        "wingbeat.toml:1: unknown section [channels], did you mean [[channel]]?"
    );
    assert_eq!(complaint("[udp]\n"), "wingbeat.toml:1: unknown section [udp]");
}

/// Two lines of a file, and what is said of the second.
const BAD_VALUES: &[(&str, &str)] = &[
    (
        "[http]\nidle_timeout = \"10x\"",
        r#"http.idle_timeout: "10x" is no duration, write 10s or 2m"#,
    ),
    ("[http]\nidle_timeout = 10", "http.idle_timeout: 10 is no duration, write 10s or 2m"),
    (
        "[http]\nidle_timeout = \"1ms\"",
        r#"http.idle_timeout: "1ms" is out of bounds, write 1s to 1day"#,
    ),
    (
        "[http]\nlisten = \"foo\"",
        r#"http.listen: "foo" is no address, write IP:PORT as in 127.0.0.1:4000 or [::1]:4000"#,
    ),
    (
        "[http]\nmax_frame_size = \"1GB\"",
        r#"http.max_frame_size: "1GB" is out of bounds, write 1KiB to 16MiB"#,
    ),
    (
        "[http]\nmax_frame_size = \"1 bag\"",
        r#"http.max_frame_size: "1 bag" is no size, write 64KiB or 10MB"#,
    ),
    ("[http]\nmax_connections = -1", "http.max_connections: -1 is no whole number"),
    (
        "[http]\nmax_connections = 0",
        "http.max_connections: 0 is out of bounds, write 1 to 10,000,000",
    ),
    (
        "[http]\norigins = \"example.com\"",
        r#"http.origins: "example.com" is no list, write ["a", "b"]"#,
    ),
    (
        "[http]\norigins = [\"example.com\"]",
        r#"http.origins: "example.com" is no origin, write https://chat.example.com, https://*.example.com or *"#,
    ),
    (
        "[node]\nname = \"a b\"",
        r#"node.name: "a b" is no node name, write 1 to 128 bytes of visible ASCII"#,
    ),
    ("[cluster]\nprofile = \"man\"", r#"cluster.profile: "man" is none of "lan", "fast", "wan""#),
    (
        "[cluster]\njoin = [\"one:1\", \"two\"]",
        r#"cluster.join: "two" is no seed, write HOST:PORT, IP:PORT or dns:HOST:PORT"#,
    ),
    ("[cluster]\nname = \"\"", r#"cluster.name: "" is out of bounds, write 1 to 64 bytes"#),
    ("[auth]\nanonymous = \"yes\"", r#"auth.anonymous: "yes" is neither true nor false"#),
    (
        "[limits]\njoins_per_second = 0",
        r#"limits.joins_per_second: 0 is no rate, write a number from 1 up or "off""#,
    ),
    (
        "[log]\nlevel = [1]",
        r#"log.level: a list is none of "error", "warn", "info", "debug", "trace""#,
    ),
];

#[test]
fn a_bad_value_says_what_to_write() {
    for (text, said) in BAD_VALUES {
        assert_eq!(complaint(text), format!("wingbeat.toml:2: {said}"));
    }
}

#[test]
fn a_channel_rule_is_checked_like_a_section() {
    let rule = |keys: &str| complaint(&format!("[[channel]]\n{keys}"));
    assert_eq!(
        rule("topic = \"a*b\""),
        r#"wingbeat.toml:2: channel.topic: "a*b" is no pattern, write a topic of 1 to 512 bytes, with one * at most, at its end"#
    );
    assert_eq!(
        rule("topic = \"a\"\njoin = \"authenticated\""),
        r#"wingbeat.toml:3: channel.join: "authenticated" is not "anyone", the one value there is"#
    );
    assert_eq!(
        rule("topic = \"a\"\nhistory = 3"),
        r#"wingbeat.toml:3: unknown key "history" in [[channel]]"#
    );
    assert_eq!(
        rule("topic = \"a\"\nlinger = \"2h\""),
        r#"wingbeat.toml:3: channel.linger: "2h" is out of bounds, write 0s to 1h"#
    );
    assert_eq!(
        rule("ack = true"),
        "wingbeat.toml:1: [[channel]] has no topic, write topic = \"room:*\""
    );
    assert_eq!(
        complaint("[channel]\ntopic = \"a\""),
        "wingbeat.toml:1: channel is a list of tables, write [[channel]] before each"
    );
}

#[test]
fn all_mistakes_are_told_at_once_in_the_order_of_the_file() {
    let said = complaint("[node]\nnam = 1\n[auth]\nanonymous = 3\n[http]\nlisten = 4");
    let places: Vec<_> = said.lines().map(|line| &line[..16]).collect();
    assert_eq!(places, ["wingbeat.toml:2:", "wingbeat.toml:4:", "wingbeat.toml:6:"]);
}

#[test]
fn what_is_not_toml_is_told_with_its_line() {
    let said = complaint("[node]\nname = \n");
    assert!(said.starts_with("wingbeat.toml:2: "), "{said}");
}

#[test]
fn a_missing_file_is_named() {
    let path = Path::new("/nowhere/wingbeat.toml");
    let said = Config::load(Some(path), [], &[]).unwrap_err().to_string();
    assert!(said.starts_with("/nowhere/wingbeat.toml: cannot be read: No such file"), "{said}");
}

#[test]
fn rules_keep_their_order_and_the_defaults_of_what_they_leave_out() {
    let config = parse(
        "[[channel]]\ntopic=\"b:*\"\npublish=\"nobody\"\n[[channel]]\ntopic=\"a\"\nack=false",
    );
    let [first, second] = config.channels.as_slice() else { panic!("two rules") };
    assert_eq!(
        (first.topic.to_string(), first.publish.as_str(), first.ack),
        ("b:*".into(), "nobody", true)
    );
    assert_eq!(
        (second.topic.to_string(), second.publish.as_str(), second.ack),
        ("a".into(), "anyone", false)
    );
}

#[test]
fn sizes_are_binary_or_decimal_as_written() {
    let cases = [
        ("64KiB", 64 << 10),
        ("10MB", 10_000_000),
        ("1 GiB", 1 << 30),
        ("512B", 512),
        ("2kB", 2_000),
        ("2kib", 2_048),
        ("0B", 0),
    ];
    for (text, bytes) in cases {
        assert_eq!(Size::read(text).map(Size::bytes), Some(bytes), "{text}");
    }
    for text in ["", "KiB", "12", "1.5MB", "-1B", "99999999999999999999B", "9999999999999GiB"] {
        assert_eq!(Size::read(text), None, "{text}");
    }
}

#[test]
fn durations_read_as_people_write_them() {
    assert_eq!(parse("[http]\nidle_timeout = \"2m\"").http.idle_timeout, Duration::from_secs(120));
    assert_eq!(
        parse("[cluster]\njoin_timeout = \"1s 500ms\"").cluster.join_timeout,
        Duration::from_millis(1_500)
    );
}

#[test]
fn seeds_are_addresses_names_or_dns() {
    let host = "node1.example.com".to_owned();
    assert_eq!(Seed::read("[::1]:4400"), Some(Seed::Address("[::1]:4400".parse().unwrap())));
    assert_eq!(Seed::read("node1.example.com:1"), Some(Seed::Host { host: host.clone(), port: 1 }));
    assert_eq!(Seed::read("dns:node1.example.com:2"), Some(Seed::Dns { host, port: 2 }));
    for text in [
        "",
        "a",
        "a:",
        "a:0",
        ":4400",
        "10.0.0.1:0",
        "::1:4400",
        "http://a:1",
        "a b:1",
        "dns:a",
        "dns:[::1]:4",
    ] {
        assert_eq!(Seed::read(text), None, "{text}");
    }
}

#[test]
fn a_pattern_is_a_topic_or_the_start_of_topics() {
    let pattern = |text| Pattern::read(text).unwrap();
    assert!(pattern("room:*").matches("room:1") && pattern("room:*").matches("room:"));
    assert!(!pattern("room:*").matches("rooms") && !pattern("room:1").matches("room:12"));
    assert!(pattern("*").matches("anything"));
    assert!(pattern("a*").covers(&pattern("ab")) && pattern("a*").covers(&pattern("ab*")));
    assert!(!pattern("a").covers(&pattern("a*")) && !pattern("ab*").covers(&pattern("a*")));
    for text in ["", "*a", "a**", "a\nb", &"x".repeat(513)] {
        assert_eq!(Pattern::read(text), None, "{text:?}");
        assert!(text.parse::<Pattern>().is_err(), "{text:?}");
    }
}

#[test]
fn an_origin_rule_allows_what_it_names_and_nothing_alike() {
    let rule = |text| OriginRule::read(text).unwrap();
    assert!(rule("https://Chat.example.com").allows("https://chat.example.com:443"));
    assert!(!rule("https://chat.example.com").allows("http://chat.example.com"));
    assert!(!rule("https://chat.example.com").allows("https://chat.example.com.evil.test"));
    assert!(rule("https://*.example.com").allows("https://a.b.example.com"));
    assert!(!rule("https://*.example.com").allows("https://example.com"));
    assert!(!rule("https://*.example.com").allows("https://evilexample.com"));
    assert!(!rule("https://*.example.com").allows("https://.example.com"));
    assert!(rule("http://localhost:3000").allows("http://localhost:3000"));
    assert!(rule("http://[::1]:3000").allows("http://[::1]:3000"));
    assert!(rule("*").allows("null") && !rule("http://localhost").allows("null"));
}

proptest! {
    #[test]
    fn a_size_reads_back_as_it_is_shown(bytes in any::<usize>()) {
        let size = Size::new(bytes);
        prop_assert_eq!(Size::read(&size.to_string()), Some(size));
    }

    #[test]
    fn no_file_can_make_the_reader_fail_otherwise_than_with_lines(text in "(?s).{0,200}") {
        drop(super::load(&text, &[], &[]));
    }

    #[test]
    fn no_origin_header_can_make_a_rule_fail(text in "(http|https|x)?(://)?.{0,40}") {
        OriginRule::read("https://*.example.com").unwrap().allows(&text);
    }
}
