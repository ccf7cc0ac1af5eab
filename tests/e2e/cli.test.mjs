// The command line, as people and scripts use it.

import assert from "node:assert/strict";
import net from "node:net";
import { once } from "node:events";

import { Node } from "./lib/node.mjs";
import { Running } from "./lib/process.mjs";
import { story } from "./lib/stage.mjs";
import { until } from "./lib/until.mjs";

const ROOM = "room:lobby";
const TOKEN = "0123456789abcdef-token";

/** Where nothing listens. */
async function nobody() {
  const server = net.createServer();
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address();
  server.close();
  await once(server, "close");
  return { url: `http://127.0.0.1:${port}` };
}

function succeeded({ code, stdout, stderr }) {
  assert.equal(code, 0, stderr);
  return stdout;
}

// --- help, completions, check ---------------------------------------------------------------------

const COMMANDS = ["dev", "serve", "who", "topics", "broadcast", "tail", "members", "disconnect", "check", "completions", "bench"];

story("help names every command, and each has help with examples", async (stage) => {
  const help = succeeded(await stage.cli(null, ["--help"]));
  for (const command of COMMANDS) {
    assert.ok(help.includes(`\n  ${command} `), command);
    const own = succeeded(await stage.cli(null, [command, "--help"]));
    assert.match(own, /Usage: wingbeat/);
    if (command !== "bench") assert.match(own, /Examples:/, command);
  }
  assert.match(help, /Exit codes:/);
  assert.match(succeeded(await stage.cli(null, ["--version"])), /^wingbeat \d+\.\d+\.\d+/);
});

story("a wrong command line is told with exit code 2", async (stage) => {
  for (const args of [["dance"], ["who"], ["who", ""], ["who", "a", "--dance"], ["topics", "--limit", "0"], ["dev", "--nodes", "0"]]) {
    const { code, stdout, stderr } = await stage.cli(null, args);
    assert.deepEqual([code, stdout], [2, ""], args.join(" "));
    assert.notEqual(stderr, "");
  }
});

for (const shell of ["bash", "zsh", "fish"]) {
  story(`completions for ${shell} name the commands`, async (stage) => {
    const script = succeeded(await stage.cli(null, ["completions", shell]));
    for (const command of COMMANDS) assert.ok(script.includes(command), command);
  });
}

story("check says that a good file is fine, and shows what is in effect", async (stage) => {
  const file = stage.file("good.toml", '[node]\nname = "a"\n[[channel]]\ntopic = "room:*"\ndeliver = "others"\n');
  assert.match(succeeded(await stage.cli(null, ["check", file])), /fine/);
  const shown = succeeded(await stage.cli(null, ["check", file, "--show"]));
  const again = stage.file("shown.toml", shown);
  assert.match(succeeded(await stage.cli(null, ["check", again])), /fine/, "what it shows is a configuration itself");
});

story("check tells every mistake with its file and line", async (stage) => {
  const file = stage.file("bad.toml", '[http]\nlisten = "127.0.0.1:4000"\nmax_frame_sise = "1MiB"\nidle_timeout = "soon"\n\n[clutser]\nname = "a"\n');
  const { code, stdout, stderr } = await stage.cli(null, ["check", file]);
  assert.deepEqual([code, stdout], [1, ""]);
  const lines = stderr.split("\n");
  assert.equal(lines.length, 3, stderr);
  assert.ok(lines.some((line) => line.includes(`${file}:3:`) && line.includes("max_frame_size")), "with a near match");
  assert.ok(lines.some((line) => line.includes(`${file}:4:`)));
  assert.ok(lines.some((line) => line.includes(`${file}:6:`) && line.includes("cluster")));
  const missing = await stage.cli(null, ["check", `${file}.missing`]);
  assert.equal(missing.code, 1);
  assert.match(missing.stderr, /bad\.toml\.missing/);
});

// --- bench ----------------------------------------------------------------------------------------

for (const scenario of ["fanout --subscribers 20", "rooms --topics 10 --members 3", "echo --sockets 5", "churn --sockets 5"]) {
  story(`bench ${scenario} compares a node with its floor`, async (stage) => {
    const [node] = await stage.cluster(1);
    const args = ["bench", ...scenario.split(" "), "--seconds", "0.3", "--warmup", "100ms", "--floor", "--runs", "2", "--json"];
    const { runs, floor, ratio } = JSON.parse(succeeded(await stage.cli(node, args)));
    assert.equal(runs, 2);
    assert.equal(floor.report.scenario, scenario.split(" ")[0]);
    assert.ok(floor.report.server.cpu_seconds >= 0 && ratio.rate.median > 0);
  });
}

story("bench cross delivers on another node", async (stage) => {
  const [one, two] = await stage.cluster(2);
  const urls = [one, two].map(({ url }) => url).join(",");
  const args = ["bench", "cross", "--subscribers", "10", "--seconds", "0.3", "--url", urls, "--json"];
  const report = JSON.parse(succeeded(await stage.cli(null, args)));
  assert.deepEqual([report.lost, report.subscriber_urls], [0, [two.url]]);
});

// --- asking a node --------------------------------------------------------------------------------

story("who shows who is online, on any node", async (stage) => {
  const nodes = await stage.cluster(2);
  await (await stage.phoenix(nodes[0], { user: "ann" })).join(ROOM, { meta: { mood: "fine" } });
  await (await stage.phoenix(nodes[1], { user: "bob" })).join(ROOM);
  await until("both are listed", async () => (await nodes[0].present(ROOM)).length === 2);
  const table = succeeded(await stage.cli(nodes[0], ["who", ROOM]));
  assert.match(table, /^KEY +ONLINE +META/);
  assert.match(table, /^ann +\S+ +\{"mood":"fine"\}$/m);
  assert.match(table, /^bob\b/m);
  const json = JSON.parse(succeeded(await stage.cli(nodes[1], ["who", ROOM, "--json"])));
  assert.deepEqual([json.topic, json.count, Object.keys(json.presences)], [ROOM, 2, ["ann", "bob"]]);
  const { metas } = JSON.parse(succeeded(await stage.cli(nodes[1], ["who", ROOM, "--key", "ann", "--json"])));
  assert.equal(metas[0].mood, "fine");
  const first = JSON.parse(succeeded(await stage.cli(nodes[0], ["who", ROOM, "--limit", "1", "--json"])));
  assert.deepEqual(Object.keys(first.presences), ["ann"]);
  assert.equal((await stage.cli(nodes[0], ["who", ROOM, "--key", "nobody"])).code, 1);
  assert.match(succeeded(await stage.cli(nodes[0], ["who", "room:empty"])), /nobody is on room:empty/);
});

story("who --watch shows each change, until the node goes", async (stage) => {
  const nodes = await stage.cluster(2);
  await (await stage.phoenix(nodes[1], { user: "ann" })).join(ROOM);
  await until("she is listed", async () => (await nodes[0].present(ROOM)).length === 1);
  const watch = stage.follow(nodes[0], ["who", ROOM, "--watch"]);
  const lines = stage.follow(nodes[0], ["who", ROOM, "--watch", "--json"]);
  await watch.line(/^= ann/);
  await lines.line(/^\{.*"ann"/);
  const bob = await stage.phoenix(nodes[1], { user: "bob" });
  const room = await bob.join(ROOM, { meta: { x: 1 } });
  await watch.line(/^\+ bob \{"x":1\}$/);
  await room.leave();
  await watch.line(/^- bob$/);
  await until("three changes as JSON", () => lines.stdout.length === 3);
  const changes = lines.stdout.map((line) => JSON.parse(line)).map(({ change, key }) => `${change} ${key}`);
  assert.deepEqual(changes, ["present ann", "join bob", "leave bob"]);
  await nodes[0].kill();
  assert.equal((await watch.ended).code, 3);
});

story("topics lists topics with their counts", async (stage) => {
  const nodes = await stage.cluster(2);
  for (const node of nodes) await (await stage.phoenix(node, { user: "ann" })).join(ROOM);
  await until("both are listed", async () => {
    const table = succeeded(await stage.cli(nodes[0], ["topics", "room:"]));
    return /^TOPIC +SUBSCRIBERS +PRESENCES +ENTRIES\nroom:lobby +2 +1 +2$/.test(table.replace(/ +$/gm, ""));
  });
  const own = JSON.parse(succeeded(await stage.cli(nodes[0], ["topics", "--scope", "node", "--json"])));
  assert.equal(own.topics[0].subscribers, 1);
});

story("broadcast publishes what it is given, or what it reads", async (stage) => {
  const nodes = await stage.cluster(2);
  const room = await (await stage.phoenix(nodes[1])).join(ROOM);
  assert.match(succeeded(await stage.cli(nodes[0], ["broadcast", ROOM, "hello"])), /accepted 1/);
  assert.deepEqual(await room.next("hello"), {});
  succeeded(await stage.cli(nodes[0], ["broadcast", ROOM, "message", '{"text":"hi"}']));
  assert.deepEqual(await room.next("message"), { text: "hi" });
  const read = await stage.cli(nodes[0], ["broadcast", ROOM, "message", "-", "--json"], { input: '["from", "stdin"]\n' });
  assert.deepEqual(JSON.parse(succeeded(read)), { accepted: 1 });
  assert.deepEqual(await room.next("message"), ["from", "stdin"]);
  const bad = await stage.cli(nodes[0], ["broadcast", ROOM, "message", "{text}"]);
  assert.equal(bad.code, 2);
  assert.match(bad.stderr, /no JSON/);
  const refused = await stage.cli(nodes[0], ["broadcast", ROOM, "phx_close", "{}"]);
  assert.equal(refused.code, 1);
  assert.match(refused.stderr, /reserved_event/);
});

story("tail follows topics of the whole cluster", async (stage) => {
  const nodes = await stage.cluster(2);
  const tail = stage.follow(nodes[0], ["tail", ROOM, "room:2"]);
  const json = stage.follow(nodes[0], ["tail", ROOM, "--json"]);
  await until("it subscribes", async () => {
    const topics = (await nodes[0].call("/api/topics?scope=node")).json.topics;
    return topics.find((topic) => topic.topic === ROOM)?.subscribers === 2;
  });
  await nodes[1].broadcast(ROOM, "message", { text: "hi\n\u001b[31m" });
  await nodes[1].broadcast("room:2", "other", 7);
  await tail.line(/^room:lobby message \{.*hi/);
  await tail.line(/^room:2 other 7$/);
  assert.ok(!tail.stdout.join("").includes("\u001b"), "nothing that a terminal would obey");
  const [line] = await json.line(/.*/);
  assert.deepEqual(JSON.parse(line), { topic: ROOM, event: "message", payload: { text: "hi\n\u001b[31m" } });
});

story("members shows the cluster as a node sees it", async (stage) => {
  const nodes = await stage.cluster(3);
  const table = succeeded(await stage.cli(nodes[0], ["members"]));
  assert.match(table, /as seen by n1/);
  for (const node of nodes) assert.match(table, new RegExp(`^${node.name} +(self|up) +${node.cluster}\\b`, "m"));
  const { members } = JSON.parse(succeeded(await stage.cli(nodes[1], ["members", "--json"])));
  assert.deepEqual(members.map((member) => member.state), ["up", "self", "up"]);
});

story("members of a node in no cluster is itself", async (stage) => {
  const node = await stage.alone();
  assert.match(succeeded(await stage.cli(node, ["members"])), /^alone +self\b/m);
});

story("disconnect closes a user's sockets on every node", async (stage) => {
  const nodes = await stage.cluster(2);
  const ann = await stage.phoenix(nodes[1], { user: "ann" });
  succeeded(await stage.cli(nodes[0], ["disconnect", "users_socket:ann"]));
  assert.equal((await ann.closes.next("the close")).code, 1001);
});

story("the token goes by variable or flag, and is asked for when it is missing", async (stage) => {
  const file = stage.file("token", TOKEN);
  const node = await stage.alone({ config: `[auth]\napi_token_file = "${file}"\n` });
  const without = await stage.cli(node, ["topics"]);
  assert.equal(without.code, 1);
  assert.match(without.stderr, /WINGBEAT_TOKEN/);
  succeeded(await stage.cli(node, ["topics"], { env: { WINGBEAT_TOKEN: TOKEN } }));
  succeeded(await stage.cli(node, ["topics", "--token", TOKEN]));
  succeeded(await stage.cli(null, ["topics", "--token", TOKEN, "--url", node.url]));
});

story("a node that cannot be reached is exit code 3 and a line that names it", async (stage) => {
  const nowhere = await nobody();
  for (const args of [["who", ROOM], ["topics"], ["broadcast", ROOM, "e"], ["tail", ROOM], ["members"], ["disconnect", "id"]]) {
    const { code, stderr } = await stage.cli(nowhere, args);
    assert.equal(code, 3, args[0]);
    assert.match(stderr, new RegExp(`^wingbeat: .*${nowhere.url}`));
  }
});

// --- set-ups that are refused ---------------------------------------------------------------------

const SECRET = { WINGBEAT_CLUSTER_SECRET: "a-secret-of-more-than-thirty-two-bytes" };

for (const [what, args, env, remedy] of [
  ["clients from elsewhere without a word on who may", ["--listen", "0.0.0.0:0"], {}, /auth\.anonymous/],
  ["clients over TCP from elsewhere without a word on who may", ["--tcp-listen", "0.0.0.0:0"], {}, /tcp\.listen.*auth\.anonymous/s],
  ["a cluster elsewhere without a secret", ["--cluster-listen", "10.0.0.7:0"], {}, /WINGBEAT_CLUSTER_SECRET|secret_file/],
  ["a wildcard without an address to advertise", ["--cluster-listen", "0.0.0.0:0"], SECRET, /cluster\.advertise/],
  ["a secret that is too short", ["--cluster-listen", "127.0.0.1:0"], { WINGBEAT_CLUSTER_SECRET: "short" }, /32/],
  ["an unknown variable", [], { WINGBEAT_HTTP__LISEN: "127.0.0.1:0" }, /WINGBEAT_HTTP__LISEN.*listen/i],
  ["a bad address", ["--listen", "everywhere"], {}, /--listen/],
]) {
  story(`serve refuses ${what} with exit code 2, and says what to set`, async (stage) => {
    const listen = args.includes("--listen") ? [] : ["--listen", "127.0.0.1:0"];
    const { code, stdout, stderr } = await stage.cli(null, ["serve", ...listen, ...args], { env });
    assert.deepEqual([code, stdout], [2, ""], stderr);
    assert.match(stderr, /^wingbeat: /);
    assert.match(stderr, remedy);
    assert.ok(!stderr.includes(env.WINGBEAT_CLUSTER_SECRET ?? "no secret"), "secrets are not shown");
  });
}

story("a flag goes before a variable, a variable before the file", async (stage) => {
  const config = '[node]\nname = "file"\nregion = "file"\n[cluster]\nname = "file"\n';
  const env = { WINGBEAT_NODE__NAME: "variable", WINGBEAT_NODE__REGION: "variable" };
  const node = await stage.node("flag", { config, env });
  const { node: own } = (await node.call("/api/cluster")).json;
  assert.deepEqual([own.name, own.region, own.cluster], ["flag", "variable", "file"]);
});

story("a port in use is told with what to change", async (stage) => {
  const node = await stage.node("n1");
  const http = await stage.cli(null, ["serve", "--listen", node.address]);
  assert.equal(http.code, 1);
  assert.match(http.stderr, new RegExp(`${node.address}.*in use.*--listen`, "s"));
  const tcp = await stage.cli(null, ["serve", "--listen", "127.0.0.1:0", "--tcp-listen", node.address]);
  assert.equal(tcp.code, 1);
  assert.match(tcp.stderr, new RegExp(`TCP on ${node.address}.*in use.*--tcp-listen`, "s"));
  const cluster = await stage.cli(null, ["serve", "--listen", "127.0.0.1:0", "--cluster-listen", node.cluster]);
  assert.equal(cluster.code, 1);
  assert.match(cluster.stderr, new RegExp(`${node.cluster}.*in use.*--cluster-listen`, "s"));
  const dev = await stage.cli(null, ["dev", "--port", node.address.split(":")[1]]);
  assert.equal(dev.code, 1);
  assert.match(dev.stderr, /in use/);
});

// --- dev ------------------------------------------------------------------------------------------

for (const args of [["dev", "--port", "0"], ["dev", "--port", "0", "--nodes", "5"]]) {
  story(`${args.join(" ")} is a whole cluster that ends at SIGINT`, async (stage) => {
    const size = args.includes("5") ? 5 : 3;
    const dev = new Running(args);
    stage.atEnd(() => dev.end());
    await until("it prints where each node is", () => dev.stdout.filter((line) => /^ +n\d+ +http:\/\//.test(line)).length === size);
    assert.equal(dev.stdout.filter((line) => /^listening http /.test(line)).length, size);
    assert.equal(dev.stdout.filter((line) => /^listening tcp /.test(line)).length, size);
    assert.equal(dev.stdout.filter((line) => /^listening cluster /.test(line)).length, size);
    assert.ok(dev.stdout.some((line) => /wingbeat who/.test(line)), "and what to try");
    const nodes = dev.stdout.filter((line) => /^listening http /.test(line)).map((line, i) => {
      const node = new Node(`n${i + 1}`, {});
      node.address = line.split(" ")[2];
      return node;
    });
    await stage.formed(nodes, { seconds: 3 });
    const first = await (await stage.phoenix(nodes[0], { user: "ann" })).join(ROOM);
    const last = await (await stage.phoenix(nodes.at(-1), { user: "bob" })).join(ROOM);
    await first.push("message", { n: 1 });
    assert.deepEqual(await last.next("message"), { n: 1 });
    await first.lists(["ann", "bob"]);
    await last.lists(["ann", "bob"]);
    assert.deepEqual(await dev.end("SIGINT"), { code: 0, signal: null });
  });
}

story("pages of any port of this machine may connect to dev, and no others", async (stage) => {
  const dev = new Running(["dev", "--port", "0", "--nodes", "1"]);
  stage.atEnd(() => dev.end());
  const node = new Node("n1", {});
  node.address = (await dev.line(/^listening http (\S+)$/))[1];
  const socket = await stage.raw(node, { origin: "http://localhost:5173" });
  await socket.join(ROOM);
  await assert.rejects(stage.raw(node, { origin: "http://evil.example" }), /403/);
});

story("dev takes rules from a file", async (stage) => {
  const file = stage.file("rules.toml", '[[channel]]\ntopic = "room:*"\npublish = "nobody"\n');
  const dev = new Running(["dev", "--port", "0", "--nodes", "1", "--config", file]);
  stage.atEnd(() => dev.end());
  const node = new Node("n1", {});
  node.address = (await dev.line(/^listening http (\S+)$/))[1];
  const room = await (await stage.phoenix(node)).join(ROOM);
  assert.deepEqual(await room.push("message"), { status: "error", response: { reason: "unauthorized" } });
});
