//! `deploy/wingbeat.toml` lists what the code reads, at the code's defaults.

use std::collections::BTreeMap;

use toml::de::DeTable;

use super::load;
use crate::config::{Config, keys};

const FILE: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/wingbeat.toml"));

/// The file with each commented key live: `#` before anything but a space.
fn uncommented() -> String {
    let live = |line: &'static str| match line.strip_prefix('#') {
        Some(key) if !key.is_empty() && !key.starts_with([' ', '#']) => key,
        _ => line,
    };
    FILE.lines().map(live).collect::<Vec<_>>().join("\n")
}

/// `section.key` → value, as written.
fn listed(text: &str) -> BTreeMap<String, String> {
    let mut section = String::new();
    let mut keys = BTreeMap::new();
    for line in text.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
        match line.split_once(" = ") {
            Some((key, value)) => {
                let former = keys.insert(format!("{section}.{key}"), value.to_owned());
                assert_eq!(former, None, "{section}.{key} twice");
            }
            None => section = line.trim_matches(['[', ']']).to_owned(),
        }
    }
    keys
}

#[test]
fn the_file_as_it_is_changes_nothing() {
    assert_eq!(load(FILE, &[], &[]), Ok(Config::default()));
}

#[test]
fn the_file_lists_every_key_of_the_code_at_its_default_and_no_other() {
    assert_eq!(listed(&uncommented()), listed(&Config::default().to_toml()));
    assert_eq!(load(&uncommented(), &[], &[]), Ok(Config { ..Config::default() }));
}

#[test]
fn the_file_keeps_the_order_of_the_code() {
    let table = DeTable::parse(FILE).unwrap();
    let mut sections: Vec<_> =
        table.get_ref().keys().map(|key| (key.span().start, key.get_ref())).collect();
    sections.sort();
    assert_eq!(
        sections.into_iter().map(|(_, name)| name.as_ref()).collect::<Vec<_>>(),
        keys::sections()
    );
}

#[test]
fn every_key_of_the_file_is_explained_above_it() {
    let lines: Vec<_> = FILE.lines().collect();
    for pair in lines.windows(2) {
        if pair[1].starts_with('#') && pair[1].contains(" = ") && !pair[1].starts_with("# ") {
            assert!(pair[0].starts_with("# "), "{} has no explanation", pair[1]);
        }
    }
}
