//! What must hold of the tree itself. Each failure names file and line.

use std::fs;

use tidy::{File, files, root};

/// Lines of the longest source file.
const LINES_MAX: usize = 700;

fn fail_if_any(what: &str, found: &[String]) {
    assert!(found.is_empty(), "{what}:\n{}", found.join("\n"));
}

/// Lines of Rust files for which `wrong` holds; this file names what it looks for.
fn rust_lines(wrong: impl Fn(&File, &str) -> bool) -> Vec<String> {
    let files = files();
    let rust = files.iter().filter(|file| file.is_rust() && !file.path.starts_with("tests/tidy/"));
    let found = rust.flat_map(|file| {
        let lines = file.lines().filter(|(_, line)| wrong(file, line));
        lines.map(|(n, line)| format!("{}:{n}: {}", file.path, line.trim())).collect::<Vec<_>>()
    });
    found.collect()
}

/// The `[dependencies]` of a crate, by name.
#[expect(clippy::expect_used, reason = "a crate without a manifest is a failed test")]
fn dependencies(folder: &str) -> Vec<String> {
    let manifest = fs::read_to_string(root().join(folder).join("Cargo.toml")).expect("a manifest");
    let section = manifest.split("\n[").find(|section| section.starts_with("dependencies]"));
    let lines = section.unwrap_or_default().lines().skip(1);
    let names = lines.filter_map(|line| line.split(['.', ' ', '=']).next());
    names.filter(|name| !name.is_empty()).map(ToOwned::to_owned).collect()
}

#[test]
fn each_crate_imports_only_what_lies_below_it() {
    let ours = ["presence", "cluster", "transport", "wingbeat", "sim"];
    let allowed: [(&str, &[&str]); 5] = [
        ("presence", &[]),
        ("cluster", &["presence"]),
        ("transport", &[]),
        ("node", &["presence", "cluster", "transport"]),
        ("tests/sim", &["presence", "cluster"]),
    ];
    for (folder, allowed) in allowed {
        let wrong: Vec<String> = dependencies(folder)
            .into_iter()
            .filter(|name| ours.contains(&name.as_str()) && !allowed.contains(&name.as_str()))
            .collect();
        fail_if_any(&format!("{folder} depends on"), &wrong);
    }
}

#[test]
fn the_pure_crates_know_no_runtime() {
    for folder in ["presence", "cluster", "tests/sim"] {
        let wrong: Vec<String> = dependencies(folder)
            .into_iter()
            .filter(|name| ["tokio", "quinn", "axum", "hyper"].contains(&name.as_str()))
            .collect();
        fail_if_any(&format!("{folder} depends on"), &wrong);
    }
}

/// The same inputs give the same outputs: time is handed in, and the one generator of random numbers is
/// made from a seed.
#[test]
fn the_pure_crates_have_no_clock_and_no_chance() {
    let words = ["Instant::now", "SystemTime", "thread_rng", "rand::rng()", "random()", "OsRng"];
    let found = rust_lines(|file, line| {
        let pure = ["presence/src/", "cluster/src/"].iter().any(|at| file.path.starts_with(at));
        pure && words.iter().any(|word| line.contains(word))
    });
    fail_if_any("clocks and chance in pure crates", &found);
    assert!(!dependencies("presence").contains(&"rand".to_owned()), "presence draws nothing");
}

#[test]
fn each_foreign_protocol_is_named_in_one_place() {
    let rules: [(&str, &[&str]); 4] = [
        ("bincode::", &["cluster/src/wire"]),
        ("foca::", &["cluster/src/membership.rs", "cluster/src/wire"]),
        ("quinn::", &["transport/"]),
        // Our own codecs are tested against the library, which is the client of a bench too.
        (
            "tungstenite",
            &[
                "node/src/websocket/tests",
                "node/src/endpoint/driver/tests",
                "node/src/cli/bench/",
                "node/benches/presence/",
            ],
        ),
    ];
    for (name, places) in rules {
        let found = rust_lines(|file, line| {
            let code = line.split("//").next().unwrap_or_default();
            code.contains(name) && !places.iter().any(|place| file.path.starts_with(place))
        });
        fail_if_any(&format!("{name} is named outside {places:?}"), &found);
    }
}

#[test]
fn only_the_command_line_prints() {
    let found = rust_lines(|file, line| {
        let printing = ["println!(", "print!(", "eprintln!(", "eprint!("];
        let prints = printing.iter().any(|name| line.trim_start().starts_with(name));
        let library = ["presence/src/", "cluster/src/", "transport/src/", "node/src/"];
        let inside = library.iter().any(|folder| file.path.starts_with(folder));
        prints && inside && !file.path.starts_with("node/src/cli/")
    });
    fail_if_any("printing outside node/src/cli", &found);
}

#[test]
fn nothing_is_left_to_do_and_no_queue_is_unbounded() {
    let words = ["TODO", "FIXME", "todo!(", "unimplemented!(", "dbg!("];
    let found = rust_lines(|_, line| words.iter().any(|word| line.contains(word)));
    fail_if_any("unfinished", &found);
    let found = rust_lines(|file, line| {
        let test = file.path.contains("/tests") || file.path.ends_with("/fake_node.rs");
        line.contains("unbounded_channel") && !test
    });
    fail_if_any("an unbounded queue", &found);
}

#[test]
fn a_test_waits_for_what_it_wants_to_see() {
    let found = rust_lines(|file, line| {
        let test = file.path.contains("/tests") || file.path.starts_with("tests/");
        test && line.contains("sleep(")
    });
    fail_if_any("a sleep in a test", &found);
}

#[test]
fn files_are_short_and_say_what_they_are_for() {
    let files = files();
    let rust = || files.iter().filter(|file| file.is_rust());
    let long = rust().filter(|file| file.text.lines().count() > LINES_MAX);
    let long: Vec<String> = long.map(|file| file.path.clone()).collect();
    fail_if_any(&format!("over {LINES_MAX} lines"), &long);
    let silent = rust().filter(|file| !file.text.starts_with("//!"));
    let silent: Vec<String> = silent.map(|file| format!("{}:1", file.path)).collect();
    fail_if_any("does not begin with what it is for", &silent);
}

/// The tree stands alone: it is read where nothing of its making is.
#[test]
fn nothing_points_outside_the_tree() {
    let outside = ["/work/", "shared/"];
    let files = files();
    let others = files.iter().filter(|file| !file.path.starts_with("tests/tidy/"));
    let found = others.flat_map(|file| {
        let lines = file.lines().filter(|(_, line)| outside.iter().any(|name| line.contains(name)));
        lines.map(|(n, line)| format!("{}:{n}: {}", file.path, line.trim())).collect::<Vec<_>>()
    });
    fail_if_any("a path outside the tree", &found.collect::<Vec<_>>());
}

#[test]
fn no_file_is_a_drawer_for_everything() {
    let drawers = ["common", "types", "utils", "util", "helpers", "misc"];
    let found: Vec<String> = files()
        .into_iter()
        .filter(|file| file.path.split(['/', '.']).any(|part| drawers.contains(&part)))
        .map(|file| file.path)
        .collect();
    fail_if_any("a drawer", &found);
}

#[test]
fn paths_in_the_architecture_exist() {
    let text = fs::read_to_string(root().join("docs/ARCHITECTURE.md")).expect("the architecture");
    let code = text.split('`').skip(1).step_by(2);
    let paths = code.filter(|code| code.contains('/') && !code.contains([' ', '*', '\n']));
    let missing = paths.filter(|path| !root().join(path).exists());
    let missing: Vec<String> = missing.map(ToOwned::to_owned).collect();
    fail_if_any("docs/ARCHITECTURE.md names what does not exist", &missing);
}

#[test]
fn the_readme_names_both_commands() {
    let text = fs::read_to_string(root().join("README.md")).expect("the README");
    for command in ["cargo run --release", "tests/run"] {
        assert!(text.contains(command), "README.md does not name {command}");
    }
}
