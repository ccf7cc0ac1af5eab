//! Set-ups that are refused, and those that get a warning.

use super::{Folder, lines, load, parse};
use crate::config::{Config, SecretError};

const SECRET: &str = "0123456789abcdef0123456789abcdef";

fn refusal(text: &str) -> String {
    lines(&parse(text).check().unwrap_err())
}

fn warnings(config: &Config) -> String {
    let warnings = config.check().unwrap();
    warnings.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

fn with_secret(text: &str) -> Config {
    load(text, &[("WINGBEAT_CLUSTER_SECRET", SECRET)], &[]).unwrap()
}

#[test]
fn the_default_is_fine() {
    assert_eq!(Config::default().check(), Ok(vec![]));
    assert_eq!(Config::default().cluster_listener(), None);
    assert!(Config::default().anonymous_allowed());
}

#[test]
fn listening_elsewhere_wants_anonymous_decided() {
    assert_eq!(
        refusal("[http]\nlisten = \"0.0.0.0:4000\""),
        "http.listen is 0.0.0.0:4000, not loopback, and auth.anonymous is not decided: set auth.anonymous = true to let anyone connect, or listen on loopback"
    );
    let decided = parse("[http]\nlisten = \"0.0.0.0:4000\"\n[auth]\nanonymous = true");
    assert!(
        warnings(&decided).starts_with("http.listen is 0.0.0.0:4000 and there is no API token")
    );
    assert_eq!(
        refusal("[tcp]\nlisten = \"10.0.0.7:4100\""),
        "tcp.listen is 10.0.0.7:4100, not loopback, and auth.anonymous is not decided: set auth.anonymous = true to let anyone connect, or listen on loopback"
    );
    let decided = parse("[tcp]\nlisten = \"10.0.0.7:4100\"\n[auth]\nanonymous = true");
    assert_eq!(decided.check(), Ok(vec![]));
}

#[test]
fn clustering_elsewhere_wants_a_secret() {
    let said = refusal("[cluster]\nlisten = \"10.0.0.1:4400\"");
    assert!(said.starts_with("cluster.listen is 10.0.0.1:4400, not loopback, and there is no cluster secret: set WINGBEAT_CLUSTER_SECRET or cluster.secret_file"), "{said}");
    assert_eq!(warnings(&with_secret("[cluster]\nlisten = \"10.0.0.1:4400\"")), "");
}

#[test]
fn a_wildcard_wants_an_address_to_advertise() {
    let text = "[cluster]\nlisten = \"0.0.0.0:4400\"";
    let said = lines(&with_secret(text).check().unwrap_err());
    assert_eq!(
        said,
        "cluster.listen is 0.0.0.0:4400, every address of this machine: set cluster.advertise to the IP:PORT that peers reach it under"
    );
    for bad in ["0.0.0.0:4400", "10.0.0.1:0", "[::]:1"] {
        let config = with_secret(&format!("{text}\nadvertise = \"{bad}\""));
        let said = lines(&config.check().unwrap_err());
        assert_eq!(
            said,
            format!(
                "cluster.advertise is {bad}, which no peer can reach: set it to one IP:PORT of this node"
            )
        );
    }
    assert_eq!(warnings(&with_secret(&format!("{text}\nadvertise = \"10.0.0.1:4400\""))), "");
}

#[test]
fn a_node_that_joins_listens_on_loopback_by_default_and_reaches_no_further() {
    let config = parse("[cluster]\njoin = [\"127.0.0.1:4401\"]");
    assert_eq!(config.cluster_listener(), Some("127.0.0.1:4400".parse().unwrap()));
    assert_eq!(config.check(), Ok(vec![]));
    let said = refusal("[cluster]\njoin = [\"10.0.0.1:4400\"]");
    assert_eq!(
        said,
        "cluster.join has 10.0.0.1:4400, which cannot be reached from loopback (127.0.0.1:4400): set cluster.listen to an address of the same network"
    );
}

#[test]
fn processes_of_one_machine_share_a_key_made_of_the_clusters_name() {
    let secrets = |name| {
        parse(&format!("[cluster]\nname = \"{name}\"\njoin = [\"localhost:1\"]"))
            .cluster_secrets()
            .unwrap()
    };
    assert_eq!(secrets("a"), secrets("a"));
    assert_ne!(secrets("a"), secrets("b"));
    assert!(secrets("a")[0].len() >= 32);
}

#[test]
fn a_secret_comes_from_the_variable_or_else_the_file_two_in_a_rotation() {
    let folder = Folder::new();
    let other = SECRET.to_uppercase();
    folder.write("secret", &format!("{other}\n{SECRET}\n"));
    let file = folder.write("wingbeat.toml", "[cluster]\nsecret_file = \"secret\"");
    let config = Config::load(Some(&file), [], &[]).unwrap();
    assert_eq!(config.cluster_secrets(), Ok(vec![other.clone().into_bytes(), SECRET.into()]));
    let variable = ("WINGBEAT_CLUSTER_SECRET".into(), format!("{SECRET},{other}").into());
    let config = Config::load(Some(&file), [variable], &[]).unwrap();
    assert_eq!(config.cluster_secrets(), Ok(vec![SECRET.into(), other.into_bytes()]));
}

#[test]
fn bad_secrets_are_refused_without_being_shown() {
    let folder = Folder::new();
    let secrets = |text: &str| {
        folder.write("secret", text);
        let file = folder.write("wingbeat.toml", "[cluster]\nsecret_file = \"secret\"");
        Config::load(Some(&file), [], &[]).unwrap().cluster_secrets().unwrap_err()
    };
    assert!(matches!(secrets("hush-hush"), SecretError::Short { len: 9, min: 32, .. }));
    assert!(matches!(secrets(""), SecretError::Malformed { .. }));
    assert!(matches!(
        secrets(&format!("{SECRET}\n{SECRET}\n{SECRET}")),
        SecretError::Malformed { .. }
    ));
    assert!(matches!(secrets(&format!("{SECRET} with spaces")), SecretError::Malformed { .. }));
    assert!(!secrets("hush-hush").to_string().contains("hush"));
    let config = load("", &[("WINGBEAT_CLUSTER_SECRET", "hush-hush")], &[]).unwrap();
    assert!(!format!("{config:?} {}", config.cluster_secrets().unwrap_err()).contains("hush"));
    assert!(!config.to_toml().contains("hush"));
}

#[cfg(unix)]
#[test]
fn a_secret_file_that_others_can_read_is_warned_about() {
    use std::{fs, os::unix::fs::PermissionsExt as _};
    let folder = Folder::new();
    let secret = folder.write("secret", SECRET);
    let file = folder
        .write("wingbeat.toml", "[cluster]\nlisten = \"127.0.0.1:0\"\nsecret_file = \"secret\"");
    let config = Config::load(Some(&file), [], &[]).unwrap();
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o644)).unwrap();
    let path = secret.display();
    assert_eq!(
        warnings(&config),
        format!("cluster.secret_file {path} can be read by others: chmod 600 {path}")
    );
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).unwrap();
    assert_eq!(warnings(&config), "");
}

#[test]
fn an_api_token_that_is_missing_empty_or_short_is_refused() {
    let folder = Folder::new();
    let file = folder.write("wingbeat.toml", "[auth]\napi_token_file = \"token\"");
    let config = Config::load(Some(&file), [], &[]).unwrap();
    let said = || config.check().unwrap_err().to_string();
    assert!(said().contains("cannot be read: No such file"), "{}", said());
    folder.write("token", "\n");
    assert!(said().contains("want one line of visible ASCII"), "{}", said());
    folder.write("token", "short");
    assert!(said().contains("a secret of 5 bytes, want at least 16"), "{}", said());
    folder.write("token", "0123456789abcdef\n");
    let token = config.api_token().unwrap().unwrap();
    assert_eq!(token.expose(), "0123456789abcdef");
    assert_eq!(format!("{token:?}"), "Secret(…)");
}

#[test]
fn a_drain_that_is_over_before_it_begins_is_warned_about() {
    let warned = |text: &str| warnings(&parse(text));
    assert_eq!(warned("[drain]\ndelay = \"10s\""), "");
    let said = warned("[drain]\ndelay = \"25s\"");
    assert!(said.starts_with("drain.delay (25s) is not below drain.timeout (25s)"), "{said}");
}

#[test]
fn a_rule_behind_one_that_takes_all_its_topics_is_warned_about() {
    let config = parse("[[channel]]\ntopic = \"room:*\"\n[[channel]]\ntopic = \"room:1\"");
    assert_eq!(
        warnings(&config),
        r#"[[channel]] "room:1" is never used: "room:*" stands before it and the first match wins"#
    );
}

#[test]
fn a_node_without_a_name_is_named_after_its_machine_and_port() {
    assert!(Config::default().node_name(4001).unwrap().as_str().ends_with("-4001"));
    assert_eq!(parse("[node]\nname = \"n1\"").node_name(4001).unwrap().as_str(), "n1");
}
