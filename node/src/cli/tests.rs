//! Whole command lines against a node that is played by a few canned answers.

mod node;

use std::net::TcpListener;

use clap::CommandFactory as _;

use super::*;
use node::{Node, answer, ok, stream};

/// What a command left behind.
#[derive(Debug, PartialEq, Eq)]
struct Ended {
    code: u8,
    out: String,
    err: String,
}

fn wingbeat(args: &[&str]) -> Ended {
    let runners = Runners {
        dev: |args| Err(Failure::failed(format_args!("dev {} {}", args.nodes, args.port))),
        serve: |args| Err(Failure::failed(format_args!("serve {}", args.overrides().len()))),
    };
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let args = ["wingbeat"].iter().chain(args).map(OsString::from);
    let code = run(args, &runners, &mut Terminal { out: &mut out, err: &mut err });
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Ended { code, out: text(out), err: text(err) }
}

fn printed(out: &str) -> Ended {
    Ended { code: 0, out: out.to_owned(), err: String::new() }
}

#[test]
fn the_command_line_holds_together() {
    Cli::command().debug_assert();
}

#[test]
fn every_command_has_help_and_examples() {
    for command in Cli::command().get_subcommands() {
        let help = wingbeat(&[command.get_name(), "--help"]);
        assert_eq!((help.code, help.err.as_str()), (0, ""), "{}", command.get_name());
        assert!(help.out.contains("Examples:\n  wingbeat "), "{}", help.out);
    }
    let help = wingbeat(&["--help"]).out;
    assert!(help.contains("Exit codes:") && help.lines().all(|line| line.len() <= 100), "{help}");
}

#[test]
fn without_a_command_a_cluster_of_three_is_run() {
    assert_eq!(wingbeat(&[]).err, "wingbeat: dev 3 4000\n");
    assert_eq!(wingbeat(&["dev", "--nodes", "5", "--port", "0"]).err, "wingbeat: dev 5 0\n");
    assert_eq!(wingbeat(&["dev", "--nodes", "0"]).code, 2);
}

#[test]
fn flags_of_serve_set_keys() {
    let args = ServeArgs {
        join: vec!["a:1".into(), "dns:b:2".into()],
        listen: Some("127.0.0.1:9".into()),
        ..ServeArgs::default()
    };
    let config = crate::config::Config::load(None, [], &args.overrides()).unwrap();
    assert_eq!(config.http.listen.port(), 9);
    assert_eq!(config.cluster.join.len(), 2);
    let bad = ServeArgs { join: vec!["nowhere".into()], ..ServeArgs::default() };
    let error = crate::config::Config::load(None, [], &bad.overrides()).unwrap_err();
    assert_eq!(
        error.to_string(),
        r#"--join: "nowhere" is no seed, write HOST:PORT, IP:PORT or dns:HOST:PORT"#
    );
}

#[test]
fn a_wrong_command_line_is_exit_code_2_and_nothing_on_standard_output() {
    for args in [&["whom"][..], &["who"], &["who", "a\nb"], &["topics", "--limit", "0"]] {
        let Ended { code, out, err } = wingbeat(args);
        assert_eq!((code, out.as_str()), (2, ""), "{err}");
    }
    let tls = wingbeat(&["members", "--url", "https://a.test"]);
    assert_eq!(tls.code, 2);
    assert!(tls.err.starts_with("wingbeat: --url \"https://a.test\": no TLS here"), "{}", tls.err);
}

#[test]
fn a_node_that_is_not_there_is_exit_code_3_and_one_line() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let Ended { code, out, err } = wingbeat(&["members", "--url", &url]);
    assert_eq!((code, out.as_str()), (3, ""));
    assert_eq!(
        err,
        format!(
            "wingbeat: cannot reach {url} (connection refused): is a node running there? start one with wingbeat serve, or name another with --url\n"
        )
    );
}

#[test]
fn a_refusal_is_told_with_the_nodes_words_and_a_remedy() {
    let body = r#"{"error":{"code":"unauthorized","message":"a bearer token is wanted"}}"#;
    let node = Node::answering([answer("401 Unauthorized", body)]);
    let Ended { code, err, .. } = node.run(&["topics", "--token", "t0ken"]);
    assert_eq!(code, 1);
    let url = node.url.clone();
    assert_eq!(
        err,
        format!(
            "wingbeat: {url}: a bearer token is wanted (401 unauthorized): pass the node's API token with --token or WINGBEAT_TOKEN\n"
        )
    );
    let requests = node.requests();
    assert!(requests[0].contains("authorization: Bearer t0ken\r\n"), "{}", requests[0]);
}

#[test]
fn what_is_no_node_is_told_apart() {
    let node = Node::answering([answer("404 Not Found", "<html>"), ok("[]"), "SSH-2.0\r\n".into()]);
    let ended: Vec<_> = (0..3).map(|_| node.run(&["topics"])).collect();
    let codes: Vec<_> = ended.iter().map(|ended| ended.code).collect();
    assert_eq!(codes, [1, 1, 3]);
    assert!(ended[0].err.contains("404 Not Found and no reason"), "{}", ended[0].err);
    assert!(ended[1].err.contains("is the URL right?"), "{}", ended[1].err);
}

#[test]
fn who_lists_all_pages_with_the_topic_encoded() {
    let node = Node::answering([
        ok(
            r#"{"topic":"room:a/b","count":2,"presences":{"ann":{"metas":[{"phx_ref":"1","name":"Ann"}]}},"next":"ann"}"#,
        ),
        ok(
            r#"{"topic":"room:a/b","count":2,"presences":{"bob":{"metas":[{"phx_ref":"2"},{"phx_ref":"3"}]}}}"#,
        ),
    ]);
    let ended = node.run(&["who", "room:a/b"]);
    let table = "KEY  ONLINE  META\nann  -       {\"name\":\"Ann\"}\nbob  -\nbob  -\n";
    assert_eq!(ended, printed(table));
    let requests = node.requests();
    assert!(requests[0].starts_with("GET /api/presence/room%3Aa%2Fb?limit=1000 HTTP/1.1\r\n"));
    assert!(requests[1].starts_with("GET /api/presence/room%3Aa%2Fb?limit=1000&after=ann "));
}

#[test]
fn who_stops_at_its_limit_and_prints_json_for_scripts() {
    let page =
        r#"{"topic":"t","count":9,"presences":{"ann":{"metas":[{"phx_ref":"1"}]}},"next":"ann"}"#;
    let node = Node::answering([ok(page), ok(page)]);
    let limited = node.run(&["who", "t", "--limit", "1"]);
    assert_eq!((limited.code, limited.err.as_str()), (0, "1 of 9 keys\n"));
    let json = node.run(&["who", "t", "--limit", "1", "--json"]);
    assert_eq!(
        json,
        printed(
            "{\"count\":9,\"presences\":{\"ann\":{\"metas\":[{\"phx_ref\":\"1\"}]}},\"topic\":\"t\"}\n"
        )
    );
    assert!(node.requests()[0].starts_with("GET /api/presence/t?limit=1 "));
}

#[test]
fn who_says_when_nobody_or_one_key_is_not_there() {
    let missing = r#"{"error":{"code":"not_found","message":"no such key"}}"#;
    let node = Node::answering([
        ok(r#"{"topic":"t","count":0,"presences":{}}"#),
        answer("404 Not Found", missing),
        ok(r#"{"metas":[{"phx_ref":"1","a":1}]}"#),
    ]);
    assert_eq!(node.run(&["who", "t"]), printed("nobody is on t\n"));
    let absent = node.run(&["who", "t", "--key", "a b"]);
    assert_eq!((absent.code, absent.err.as_str()), (1, "wingbeat: a b is not on t\n"));
    let present = node.run(&["who", "t", "--key", "a b"]);
    assert_eq!(present, printed("KEY  ONLINE  META\na b  -       {\"a\":1}\n"));
    assert!(node.requests()[1].starts_with("GET /api/presence/t/a%20b "));
}

#[test]
fn who_counts_without_listing() {
    let body = r#"{"topic":"t","count":2,"entries":3}"#;
    let node = Node::answering([ok(body), ok(body)]);
    assert_eq!(node.run(&["who", "t", "--count"]), printed("2 keys, 3 entries\n"));
    assert_eq!(node.run(&["who", "t", "--count", "--json"]), printed(&format!("{body}\n")));
    assert!(node.requests()[0].starts_with("GET /api/presence/t?count=true "));
}

#[test]
fn a_watch_shows_who_is_there_then_each_change_until_the_node_goes() {
    let events = concat!(
        "event: presence_state\ndata: {\"topic\":\"t\",\"presences\":{\"ann\":{\"metas\":[{\"phx_ref\":\"1\"}]}}}\n\n",
        ": keep-alive\n\nevent: broadcast\ndata: {}\n\n",
        "event: presence_diff\ndata: {\"topic\":\"t\",\"joins\":{\"bob\":{\"metas\":[{\"phx_ref\":\"2\",\"n\":1}]}},\"leaves\":{}}\n\n",
        "event: presence_diff\ndata: {\"topic\":\"t\",\"joins\":{\"bob\":{\"metas\":[{\"phx_ref\":\"3\",\"phx_ref_prev\":\"2\",\"n\":2}]}},\"leaves\":{\"bob\":{\"metas\":[{\"phx_ref\":\"2\",\"n\":1}]},\"ann\":{\"metas\":[{\"phx_ref\":\"1\"}]}}}\n\n",
    );
    let node = Node::answering([stream(events), stream(events)]);
    let Ended { code, out, err } = node.run(&["who", "t", "--watch"]);
    assert_eq!((code, out.as_str()), (3, "= ann\n+ bob {\"n\":1}\n- ann\n~ bob {\"n\":2}\n"));
    assert!(err.contains("ended the stream: the node has stopped or restarted"), "{err}");
    let json = node.run(&["who", "t", "--watch", "--json", "--key", "ann"]);
    let expected = "{\"change\":\"present\",\"key\":\"ann\",\"metas\":[{\"phx_ref\":\"1\"}]}\n{\"change\":\"leave\",\"key\":\"ann\",\"metas\":[]}\n";
    assert_eq!(json.out, expected);
    assert!(node.requests()[0].starts_with("GET /api/subscribe?topic=t&presence=true "));
}

#[test]
fn tail_prints_a_line_for_each_message() {
    let events = concat!(
        "event: broadcast\ndata: {\"topic\":\"a\",\"event\":\"e\",\"payload\":{ \"x\":\ndata: 1}}\n\n",
        "event: other\ndata: ?\n\n",
        "event: broadcast\ndata: {\"topic\":\"b\",\"event\":\"\\u001b[2J\",\"payload\":null}\n\n",
    );
    let node = Node::answering([stream(events), stream(events)]);
    let people = node.run(&["tail", "a", "b:c"]);
    assert_eq!((people.code, people.out.as_str()), (3, "a e { \"x\": 1}\nb \\u{1b}[2J null\n"));
    let scripts = node.run(&["tail", "a", "--json"]);
    assert!(scripts.out.starts_with("{\"topic\":\"a\",\"event\":\"e\",\"payload\":{ \"x\": 1}}\n"));
    assert!(node.requests()[0].starts_with("GET /api/subscribe?topic=a&topic=b%3Ac "));
}

#[test]
fn a_broadcast_carries_its_payload_byte_for_byte() {
    let node = Node::answering([
        answer("202 Accepted", r#"{"accepted":1}"#),
        answer("202 Accepted", r#"{"accepted":1}"#),
    ]);
    assert_eq!(node.run(&["broadcast", "t", "e", r#"{"n": 1.50}"#]), printed("accepted 1\n"));
    assert_eq!(node.run(&["broadcast", "t", "e", "--json"]), printed("{\"accepted\":1}\n"));
    let requests = node.requests();
    assert!(requests[0].ends_with(r#"{"topic":"t","event":"e","payload":{"n": 1.50}}"#));
    assert!(requests[1].ends_with(r#"{"topic":"t","event":"e","payload":{}}"#));
    let bad = wingbeat(&["broadcast", "t", "e", "{text:hi}"]);
    assert_eq!(bad.code, 2);
    assert!(bad.err.starts_with("wingbeat: the payload is no JSON ("), "{}", bad.err);
}

#[test]
fn topics_are_a_table_and_nodes_left_out_are_told() {
    let body = r#"{"topics":[{"topic":"room:1","subscribers":12,"presences":3,"entries":14}],"missing":["n3"]}"#;
    let node = Node::answering([ok(body), ok(body)]);
    let people = node.run(&["topics", "room:"]);
    assert_eq!(
        people.out,
        "TOPIC   SUBSCRIBERS  PRESENCES  ENTRIES\nroom:1           12          3       14\n"
    );
    assert_eq!(people.err, "not counted, no answer: n3\n");
    assert_eq!(node.run(&["topics", "--scope", "node", "--json"]), printed(&format!("{body}\n")));
    let requests = node.requests();
    assert!(requests[0].starts_with("GET /api/topics?prefix=room%3A&limit=1000&scope=cluster "));
    assert!(requests[1].starts_with("GET /api/topics?prefix=&limit=1000&scope=node "));
}

#[test]
fn members_are_shown_as_the_node_sees_them() {
    let body = r#"{"node":{"name":"a","incarnation":7,"region":null,"version":"0.1.0","address":"127.0.0.1:4400","uptime_seconds":62},
        "members":[
        {"name":"a","incarnation":7,"address":"127.0.0.1:4400","state":"self","region":"","version":"0.1.0","linked":false,"rtt_ms":null,"queued_bytes":0,"presence_lag":0,"agreement":null},
        {"name":"b","incarnation":8,"address":"127.0.0.1:4401","state":"suspect","region":"eu","version":null,"linked":true,"rtt_ms":0.43,"queued_bytes":12,"presence_lag":3,"presences":250,"agreement":true}],"agreement":true,
        "partition_suspected":{"seconds":75,"missing":1,"members":3},"interest":{"topics":4}}"#;
    let node = Node::answering([ok(body)]);
    let expected = "\
as seen by a, up 1m 2s

partition suspected: 1 of 3 members is missing without a goodbye, for 1m 15s

NAME  STATE    ADDRESS         REGION  VERSION  LINK     RTT  QUEUED  LAG  PRESENCES  AGREES
a     self     127.0.0.1:4400  -       0.1.0    -          -       0    0          0  -
b     suspect  127.0.0.1:4401  eu      -        yes   0.4 ms      12    3        250  yes

all nodes list the same presences
";
    assert_eq!(node.run(&["members"]), printed(expected));
}

#[test]
fn disconnect_names_the_socket_id() {
    let node = Node::answering([answer("202 Accepted", "{}")]);
    let ended = node.run(&["disconnect", "users_socket:42"]);
    assert_eq!(ended, printed("told every node to close users_socket:42\n"));
    assert!(node.requests()[0].ends_with(r#"{"socket_id":"users_socket:42"}"#));
}

#[test]
fn drain_waits_for_the_end_of_the_node_where_it_is_asked_to() {
    let stage = |stage: &str, sockets: u8| {
        format!(
            r#"{{"name":"a","draining":true,"stage":"{stage}","sockets":{sockets},"detached":1,"seconds":0.1,"seconds_left":9}}"#
        )
    };
    let begun = answer("202 Accepted", &stage("unready", 3));
    let first = "a is unready: 3 sockets open, 1 clients not back elsewhere\n";
    let node = Node::answering([begun.clone()]);
    assert_eq!(node.run(&["drain"]), printed(first));
    assert!(node.requests()[0].starts_with("POST /api/drain "));
    // The same is not said twice; a node that does not answer any more has ended.
    let going = [begun, ok(&stage("unready", 3)), ok(&stage("waiting", 0))];
    let rest = "a is waiting: 0 sockets open, 1 clients not back elsewhere\nthe node has ended\n";
    let node = Node::answering(going);
    assert_eq!(node.run(&["drain", "--wait"]), printed(&format!("{first}{rest}")));
    // A supervisor has started it again, in time for the next question.
    let again = stage("serving", 0).replace("true", "false");
    let node = Node::answering([answer("202 Accepted", &stage("waiting", 0)), ok(&again)]);
    assert_eq!(node.run(&["drain", "--wait"]), printed(rest));
    let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    assert_eq!(wingbeat(&["drain", "--wait", "--url", &format!("http://{gone}")]).code, 3);
}

#[test]
fn check_tells_each_mistake_on_a_line_of_its_own() {
    let path = env::temp_dir().join(format!("wingbeat-check-{}.toml", std::process::id()));
    let check = |text: &str| {
        std::fs::write(&path, text).unwrap();
        wingbeat(&["check", &path.display().to_string()])
    };
    let name = path.display();
    assert_eq!(check(""), printed(&format!("{name}: fine\n")));
    let bad = check("[http]\nlisen = 1\n[log]\nlevel = 2");
    assert_eq!((bad.code, bad.err.lines().count()), (1, 2));
    assert!(bad.err.starts_with(&format!("wingbeat: {name}:2: unknown key")), "{}", bad.err);
    let insecure = check("[http]\nlisten = \"0.0.0.0:80\"");
    assert_eq!(insecure.code, 1);
    assert!(insecure.err.starts_with("wingbeat: http.listen is 0.0.0.0:80, not loopback"));
    let warned = check("[auth]\nanonymous = false");
    assert_eq!(warned.code, 0);
    assert!(warned.err.starts_with("warning: auth.anonymous = false"), "{}", warned.err);
    std::fs::remove_file(&path).unwrap();
}

#[test]
fn completions_name_the_commands() {
    let script = wingbeat(&["completions", "bash"]);
    assert_eq!(script.code, 0);
    assert!(script.out.contains("disconnect"));
}

#[test]
fn a_reader_that_has_gone_is_no_failure() {
    struct Gone;
    impl Write for Gone {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let runners = Runners { dev: |_| Ok(()), serve: |_| Ok(()) };
    let mut err = Vec::new();
    let args = ["wingbeat", "completions", "bash"].map(OsString::from);
    assert_eq!(run(args, &runners, &mut Terminal { out: &mut Gone, err: &mut err }), 0);
    assert!(err.is_empty());
}

#[test]
fn a_token_shows_in_no_debug_output() {
    let cli = Cli::try_parse_from(["wingbeat", "members", "--token", "hush-hush"]).unwrap();
    assert!(!format!("{cli:?}").contains("hush-hush"));
}
