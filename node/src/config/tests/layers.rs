//! The environment goes before the file, flags before both.

use super::{Folder, lines, load};
use crate::config::{Config, Override};

const FILE: &str = "[http]\nlisten = \"127.0.0.1:1\"\n[node]\nregion = \"file\"";

fn listen_flag(value: &str) -> Override {
    Override { flag: "--listen", section: "http", key: "listen", value: value.to_owned() }
}

#[test]
fn flags_go_before_variables_and_variables_before_the_file() {
    let variables = [("WINGBEAT_HTTP__LISTEN", "127.0.0.1:2")];
    let port = |config: Config| config.http.listen.port();
    assert_eq!(load(FILE, &[], &[]).map(port), Ok(1));
    assert_eq!(load(FILE, &variables, &[]).map(port), Ok(2));
    let flagged = load(FILE, &variables, &[listen_flag("127.0.0.1:3")]).unwrap();
    assert_eq!(flagged.node.region.as_deref(), Some("file"));
    assert_eq!(port(flagged), 3);
}

#[test]
fn lists_in_variables_are_split_at_commas_or_read_as_toml() {
    for value in ["a:1, dns:b:2,", r#"["a:1", "dns:b:2"]"#] {
        let config = load("", &[("WINGBEAT_CLUSTER__JOIN", value)], &[]).unwrap();
        let seeds: Vec<_> = config.cluster.join.iter().map(ToString::to_string).collect();
        assert_eq!(seeds, ["a:1", "dns:b:2"]);
    }
}

#[test]
fn an_empty_variable_unsets_what_may_be_unset() {
    let config = load(FILE, &[("WINGBEAT_NODE__REGION", "")], &[]).unwrap();
    assert_eq!(config.node.region, None);
}

#[test]
fn all_kinds_of_values_are_read_from_variables() {
    let variables = [
        ("WINGBEAT_AUTH__ANONYMOUS", "true"),
        ("WINGBEAT_HTTP__MAX_CONNECTIONS", "7"),
        ("WINGBEAT_LIMITS__MAILBOX_BYTES", "1MiB"),
        ("WINGBEAT_LIMITS__EVENTS_PER_SECOND", "9"),
    ];
    let config = load("", &variables, &[]).unwrap();
    assert_eq!(config.auth.anonymous, Some(true));
    assert_eq!(config.http.max_connections, 7);
    assert_eq!(config.limits.mailbox_bytes.bytes(), 1 << 20);
    assert_eq!(config.limits.events_per_second.per_second().map(u32::from), Some(9));
}

#[test]
fn a_mistake_in_a_variable_or_flag_names_it() {
    let complaint = |name, value| lines(&load("", &[(name, value)], &[]).unwrap_err());
    let address = "is no address, write IP:PORT as in 127.0.0.1:4000 or [::1]:4000";
    assert_eq!(
        complaint("WINGBEAT_HTTP__LISTEN", "foo"),
        format!("WINGBEAT_HTTP__LISTEN: \"foo\" {address}")
    );
    assert_eq!(
        complaint("WINGBEAT_HTTP__LISEN", "foo"),
        "WINGBEAT_HTTP__LISEN: unknown variable, did you mean WINGBEAT_HTTP__LISTEN?"
    );
    assert_eq!(
        complaint("WINGBEAT_HTTP_LISTEN", "127.0.0.1:1"),
        "WINGBEAT_HTTP_LISTEN: unknown variable, did you mean WINGBEAT_HTTP__LISTEN?"
    );
    assert_eq!(
        complaint("WINGBEAT_CLUSTER__SECRET", "hush"),
        "WINGBEAT_CLUSTER__SECRET: unknown variable, did you mean WINGBEAT_CLUSTER_SECRET?"
    );
    assert_eq!(
        complaint("WINGBEAT_CHANNEL__TOPIC", "a"),
        "WINGBEAT_CHANNEL__TOPIC: channel rules come from a config file, [[channel]]"
    );
    let flagged = load("", &[], &[listen_flag("bar")]).unwrap_err();
    assert_eq!(lines(&flagged), format!("--listen: \"bar\" {address}"));
}

#[test]
fn mistakes_of_all_sources_are_told_together() {
    let variables = [("WINGBEAT_LOG__LEVEL", "loud")];
    let error = load("[nod]", &variables, &[listen_flag("bar")]).unwrap_err();
    assert_eq!(error.problems().len(), 3);
}

#[test]
fn variables_that_are_no_keys_are_left_alone() {
    let others = [
        ("WINGBEAT_URL", "x"),
        ("WINGBEAT_TOKEN", "x"),
        ("WINGBEAT_LOG", "x"),
        ("WINGBEAT_PORT_4000_TCP_ADDR", "x"),
        ("PATH", "x"),
    ];
    assert_eq!(load("", &others, &[]), Ok(Config::default()));
}

#[test]
fn a_path_in_the_file_starts_at_the_files_folder() {
    let folder = Folder::new();
    let file = folder.write("wingbeat.toml", "[cluster]\nsecret_file = \"secret\"");
    let config = Config::load(Some(&file), [], &[]).unwrap();
    assert_eq!(config.cluster.secret_file, Some(folder.0.join("secret")));
}

#[test]
fn the_effective_configuration_reads_back() {
    let variables = [
        ("WINGBEAT_CLUSTER__JOIN", "a:1,dns:b:2"),
        ("WINGBEAT_HTTP__ORIGINS", "https://*.example.com:8443"),
        ("WINGBEAT_AUTH__ANONYMOUS", "false"),
        ("WINGBEAT_LIMITS__JOINS_PER_SECOND", "5"),
    ];
    let text = format!("{FILE}\n[[channel]]\ntopic = \"a:*\"\n[[channel]]\ntopic = \"b\"");
    let config = load(&text, &variables, &[]).unwrap();
    assert_eq!(load(&config.to_toml(), &[], &[]), Ok(config));
}
