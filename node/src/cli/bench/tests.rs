//! Whole scenarios against a fake node, and the command line.

use std::thread;

use clap::{CommandFactory as _, Parser as _};
use serde_json::Value;
use tokio::sync::oneshot;

use super::{
    super::{Cli, Command},
    fake_node::{FakeNode, Fault},
    *,
};

/// What a run ended with.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) json: Value,
    pub(super) people: String,
    pub(super) failure: Option<String>,
}

fn ended(report: &impl Report) -> Ended {
    let (mut json, mut people, mut err) = (Vec::new(), Vec::new(), Vec::new());
    let judged = report.tell(true, &mut Terminal { out: &mut json, err: &mut err });
    report.write(&mut people).unwrap();
    let lines: Vec<_> = json.split(|byte| *byte == b'\n').collect();
    assert_eq!(lines.len(), 2, "one object on one line");
    Ended {
        json: serde_json::from_slice(&json).unwrap(),
        people: String::from_utf8(people).unwrap(),
        failure: judged.err().map(|failure| failure.to_string()),
    }
}

/// Runs a scenario against a fake node of so many listeners.
pub(super) fn run(
    args: &str,
    listeners: usize,
    fault: Fault,
    check: impl FnOnce(&FakeNode),
) -> Result<Ended, Failure> {
    block_on(async {
        let node = FakeNode::start(listeners, fault).await;
        let scenario = parse(&format!("{args} --url {}", node.urls.join(","))).unwrap();
        // The bench blocks its thread, which the node must not need.
        let (done, ended) = oneshot::channel();
        thread::spawn(move || drop(done.send(run_scenario(scenario))));
        let ended = ended.await.unwrap();
        check(&node);
        ended
    })
}

/// Runs a scenario against whatever it names.
pub(super) fn run_against(args: &str) -> Ended {
    run_scenario(parse(args).unwrap()).unwrap()
}

fn run_scenario(scenario: Scenario) -> Result<Ended, Failure> {
    let progress = Progress::new(false);
    Ok(match scenario {
        Scenario::Fanout(args) => ended(&args.run(progress)?),
        Scenario::Rooms(args) => ended(&args.run(progress)?),
        Scenario::Cross(args) => ended(&args.run(progress)?),
        Scenario::Echo(args) => ended(&args.run(progress)?),
        Scenario::Churn(args) => ended(&args.run(progress)?),
        Scenario::Mass(args) => ended(&args.run(progress)?),
        Scenario::Presence(args) => ended(&block_on(args.run(progress))?),
        Scenario::Idle(args) => ended(&block_on(args.run(progress))?),
        Scenario::FloorServer(_) => panic!("the floor is no scenario"),
    })
}

fn parse(args: &str) -> Result<Scenario, clap::Error> {
    let args = ["wingbeat", "bench"].into_iter().chain(args.split_whitespace());
    match Cli::try_parse_from(args)?.command {
        Some(Command::Bench(args)) => Ok(args.scenario),
        other => panic!("{other:?}"),
    }
}

/// Checks that the help of a scenario names all fields of its report.
pub(super) fn documented(scenario: &str, json: &Value) {
    let mut command = Cli::command();
    let command = command.find_subcommand_mut("bench").unwrap();
    let command = command.find_subcommand_mut(scenario).unwrap();
    let help = command.render_long_help().to_string();
    for field in json.as_object().unwrap().keys() {
        assert!(help.contains(field), "{field} is not in\n{help}");
    }
    let long = help.lines().find(|line| line.chars().count() > 100);
    assert_eq!(long, None, "a terminal of 100 columns would break it");
    let fields = help.split("JSON fields:").nth(1).unwrap();
    assert!(fields.contains("null") && fields.contains("cpu_seconds_per_million"), "{fields}");
}

#[test]
fn each_scenario_has_short_help_with_examples() {
    let mut command = Cli::command();
    let bench = command.find_subcommand_mut("bench").unwrap();
    for scenario in bench.get_subcommands_mut().filter(|scenario| !scenario.is_hide_set()) {
        let help = scenario.render_help().to_string();
        assert!(help.contains("Examples:\n  wingbeat bench "), "{help}");
    }
}

#[test]
fn the_nodes_have_their_parts_by_their_order() {
    let nodes = |args: &str| {
        let Scenario::Fanout(args) = parse(&format!("fanout {args}")).unwrap() else {
            panic!("not fanout");
        };
        args.common.nodes
    };
    let three = nodes("--url http://a --url http://b,http://c");
    assert_eq!(
        (three.first(), three.others(&[])),
        ("http://a", vec!["http://b".into(), "http://c".into()])
    );
    let one = nodes("--url http://a");
    assert_eq!(one.others(&[]), ["http://a"]);
    let named = ["http://d".to_owned(), "http://a".to_owned()];
    assert_eq!(one.others(&named), named);
    assert_eq!(one.all(&named), ["http://a", "http://d"]);
    assert_eq!(nodes("").first(), "http://127.0.0.1:4000");
}

#[test]
fn arguments_that_cannot_work_are_refused() {
    for args in [
        "",
        "fanout --payload 15",
        "fanout --payload 2000000",
        "fanout --subscribers 0",
        "fanout --in-flight 0",
        "fanout --rate 0",
        "fanout --rate 5 --in-flight 2",
        "fanout --rate 5 --search 20ms",
        "fanout --search 1us",
        "fanout --step 1s",
        "fanout --floor --floor-joined",
        "fanout --slow 1 --floor",
        "fanout --runs 0",
        "rooms --members 1",
        "rooms --topics 0",
        "echo --sockets 0",
        "churn --sockets 0",
        "mass",
        "mass --event other",
        "fanout --seconds 0",
        "fanout --seconds nan",
        "fanout --concurrency 0",
        "presence --topics 0",
        "presence --spread --observers-url http://a",
        "idle --sockets 0",
        "idle --heartbeat 0s",
    ] {
        assert_eq!(parse(args).unwrap_err().exit_code(), 2, "{args}");
    }
}

#[test]
fn the_token_is_not_shown() {
    let scenario = parse("idle --token hush").unwrap();
    assert!(!format!("{scenario:?}").contains("hush"));
}

#[test]
fn more_sockets_than_the_system_allows_are_wrong_usage() {
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let unlimited = limits.lines().any(|l| l.starts_with("Max open files            unlimited"));
    if limits.is_empty() || unlimited {
        return;
    }
    for args in
        ["fanout --subscribers 1000000", "presence --clients 1000000", "idle --sockets 1000000"]
    {
        match run(args, 1, Fault::Nothing, |_| ()) {
            Err(failure) => {
                assert_eq!(failure.exit_code(), 2);
                assert!(failure.to_string().contains("raise it with ulimit -n"), "{failure}");
            }
            Ok(_) => panic!("opened a million sockets"),
        }
    }
}

#[test]
fn a_node_that_is_not_there_or_refuses_is_told_apart() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let Scenario::Idle(args) = parse(&format!("idle --sockets 1 --url {url}")).unwrap() else {
        panic!("not idle");
    };
    assert_eq!(block_on(args.run(Progress::new(false))).unwrap_err().exit_code(), 3);

    let refused = run("idle --sockets 3", 1, Fault::RefusesUpgrades, |_| ()).unwrap_err();
    assert_eq!(refused.exit_code(), 1);
    assert!(refused.to_string().contains("403"), "{refused}");
    let refused = run("idle --sockets 3", 1, Fault::RefusesJoins, |_| ()).unwrap_err();
    assert!(refused.to_string().contains(r#"was refused: {"reason":"no"}"#), "{refused}");
}
