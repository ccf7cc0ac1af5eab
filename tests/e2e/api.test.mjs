// The HTTP API: what each endpoint answers, and to whom.

import assert from "node:assert/strict";
import { once } from "node:events";
import net from "node:net";

import { Events } from "./lib/events.mjs";
import { story } from "./lib/stage.mjs";
import { until, within } from "./lib/until.mjs";

const ROOM = "room:lobby";
const TOKEN = "0123456789abcdef-token";

/** An error answer: its status and code, after a look at its shape. */
function failure({ status, json, headers }) {
  assert.match(headers.get("content-type") ?? "", /^application\/json/);
  assert.deepEqual(Object.keys(json ?? {}), ["error"]);
  assert.deepEqual(Object.keys(json.error).sort(), ["code", "message"]);
  return `${status} ${json.error.code}`;
}

// --- health and metrics ---------------------------------------------------------------------------

story("healthz and readyz answer", async (stage) => {
  const node = await stage.alone();
  for (const path of ["/healthz", "/readyz"]) assert.equal((await node.call(path)).status, 200);
});

/** Every line of the Prometheus text format that a node writes. */
const METRIC_LINE = /^(# (HELP|TYPE|UNIT) [a-zA-Z_:][\w:]* .+|# EOF|[a-zA-Z_:][\w:]*(\{[^}]*\})? (-?[\d.]+(e[+-]?\d+)?|NaN|[+-]?Inf))$/;

story("metrics are Prometheus text, and count what happens", async (stage) => {
  const nodes = await stage.cluster(2);
  const room = await (await stage.phoenix(nodes[0])).join(ROOM);
  await nodes[1].broadcast(ROOM, "message", {});
  await room.next("message");
  const { status, headers, text } = await nodes[0].call("/metrics");
  assert.equal(status, 200);
  assert.match(headers.get("content-type"), /^(text\/plain|application\/openmetrics-text)/);
  const lines = text.split("\n").filter((line) => line !== "");
  for (const line of lines) assert.match(line, METRIC_LINE);
  const value = (name) => Number(lines.find((line) => line.startsWith(`${name} `))?.split(" ").at(-1));
  assert.deepEqual([value("wingbeat_sockets"), value("wingbeat_peers_linked"), value("wingbeat_topics")], [1, 1, 1]);
  const named = lines.filter((line) => line.startsWith("# TYPE")).map((line) => line.split(" ")[2]);
  assert.equal(new Set(named).size, named.length, "each metric once");
});

// --- broadcast ------------------------------------------------------------------------------------

story("a broadcast is accepted, one or an array of them in order", async (stage) => {
  const nodes = await stage.cluster(2);
  const room = await (await stage.phoenix(nodes[1])).join(ROOM);
  const one = await nodes[0].call("/api/broadcast", { body: { topic: ROOM, event: "message", payload: { n: 0 } } });
  assert.deepEqual([one.status, one.json], [202, { accepted: 1 }]);
  const many = Array.from({ length: 1000 }, (_, i) => ({ topic: ROOM, event: "message", payload: { n: i + 1 } }));
  const all = await nodes[0].call("/api/broadcast", { body: many });
  assert.deepEqual([all.status, all.json], [202, { accepted: 1000 }]);
  await until("all are heard", () => room.waiting("message").length === 1001);
  assert.deepEqual(room.waiting("message").map(({ n }) => n), Array.from({ length: 1001 }, (_, i) => i));
  const none = await nodes[0].call("/api/broadcast", { body: [] });
  assert.deepEqual([none.status, none.json], [202, { accepted: 0 }]);
});

story("a broadcast with a mistake is refused whole, and the item named", async (stage) => {
  const node = await stage.alone();
  const room = await (await stage.phoenix(node)).join(ROOM);
  const good = { topic: ROOM, event: "message", payload: {} };
  const bodies = [
    ["not JSON", "{", "bad_json"],
    ["empty", "", "bad_json"],
    ["a number", "7", "bad_json"],
    ["no payload", { topic: ROOM, event: "message" }, "bad_json"],
    ["unknown field", { ...good, extra: 1 }, "bad_json"],
    ["empty topic", { ...good, topic: "" }, "bad_topic"],
    ["control character", { ...good, topic: "a\nb" }, "bad_topic"],
    ["long topic", { ...good, topic: "x".repeat(513) }, "bad_topic"],
    ["empty event", { ...good, event: "" }, "bad_event"],
    ["long event", { ...good, event: "x".repeat(256) }, "bad_event"],
    ["the protocol's event", { ...good, event: "phx_close" }, "reserved_event"],
    ["forged presence", { ...good, event: "presence_diff" }, "reserved_event"],
    ["half a surrogate pair", `{"topic":"${ROOM}","event":"message","payload":"\\ud800"}`, "bad_json"],
    ["1,001 items", Array(1001).fill(good), "too_many"],
  ];
  for (const [what, body, code] of bodies) {
    assert.equal(failure(await node.call("/api/broadcast", { method: "POST", body })), `400 ${code}`, what);
  }
  const third = await node.call("/api/broadcast", { body: [good, good, { ...good, topic: "" }, good] });
  assert.equal(failure(third), "400 bad_topic");
  assert.match(third.json.error.message, /item 2\b/);
  await node.broadcast(ROOM, "last", {});
  await room.next("last");
  assert.deepEqual(room.waiting("message"), [], "all or nothing");
});

story("a payload over the limit is refused, any up to it taken", async (stage) => {
  const node = await stage.alone({ config: '[http]\nmax_frame_size = "2KiB"\n' });
  const payload = (length) => ({ topic: ROOM, event: "message", payload: "x".repeat(length - 2) });
  assert.equal((await node.call("/api/broadcast", { body: payload(2048) })).status, 202);
  assert.equal(failure(await node.call("/api/broadcast", { body: payload(2049) })), "400 payload_too_large");
});

story("a body over 16 MiB is refused", async (stage) => {
  const node = await stage.alone();
  const body = { topic: ROOM, event: "message", payload: "x".repeat((16 << 20) + 1) };
  const answer = await node.call("/api/broadcast", { body });
  assert.equal(failure(answer), "413 body_too_large");
});

// --- presence -------------------------------------------------------------------------------------

story("presence is listed by topic, by page and by key", async (stage) => {
  const nodes = await stage.cluster(2);
  const keys = Array.from({ length: 25 }, (_, i) => `user${String(i).padStart(2, "0")}`);
  for (const [i, key] of keys.entries()) {
    await (await stage.phoenix(nodes[i % 2], { user: key })).join(ROOM, { meta: { i } });
  }
  const path = `/api/presence/${encodeURIComponent(ROOM)}`;
  await until("all are listed", async () => (await nodes[0].presence(ROOM)).count === 25);
  const whole = (await nodes[0].call(path)).json;
  assert.deepEqual([whole.topic, whole.count, whole.next], [ROOM, 25, undefined]);
  assert.deepEqual(Object.keys(whole.presences), keys);

  const paged = [];
  let after = "";
  for (let pages = 1; ; pages++) {
    const page = (await nodes[0].call(`${path}?limit=10${after}`)).json;
    assert.equal(page.count, 25);
    paged.push(...Object.keys(page.presences));
    if (page.next === undefined) {
      assert.equal(pages, 3);
      break;
    }
    after = `&after=${encodeURIComponent(page.next)}`;
  }
  assert.deepEqual(paged, keys);

  await (await stage.phoenix(nodes[1], { user: "user07" })).join(ROOM, { meta: { i: 7 } });
  const counted = { topic: ROOM, count: 25, entries: 26 };
  await until("the second tab is counted", async () => (await nodes[0].presence(ROOM)).entries === 26);
  assert.deepEqual((await nodes[0].call(`${path}?count=true`)).json, counted);

  const { status, json } = await nodes[0].call(`${path}/user07`);
  assert.equal(status, 200);
  assert.deepEqual(json.metas.map((meta) => meta.i), [7, 7]);
  assert.equal(failure(await nodes[0].call(`${path}/nobody`)), "404 not_present");
});

story("a topic in which nobody is, is an empty one", async (stage) => {
  const node = await stage.alone();
  assert.deepEqual(await node.presence("room:empty"), { topic: "room:empty", count: 0, entries: 0, presences: {} });
});

story("topics and keys in paths are percent-encoded", async (stage) => {
  const node = await stage.alone();
  const topic = "room:a/b?c=d&e#ü %41";
  const key = "ann/1 + ü";
  await (await stage.phoenix(node, { user: key })).join(topic);
  assert.deepEqual(await node.present(topic), [key]);
  const path = `/api/presence/${encodeURIComponent(topic)}/${encodeURIComponent(key)}`;
  assert.equal((await node.call(path)).status, 200);
  const [listed] = (await node.call(`/api/topics?prefix=${encodeURIComponent("room:a/b?")}`)).json.topics;
  assert.equal(listed.topic, topic);
});

story("bad paths and queries are told", async (stage) => {
  const node = await stage.alone();
  const bad = [
    [`/api/presence/${"x".repeat(513)}`, "400 bad_topic"],
    ["/api/presence/a%0Ab", "400 bad_topic"],
    ["/api/presence/room?limit=0", "400 bad_limit"],
    ["/api/presence/room?limit=10001", "400 bad_limit"],
    ["/api/presence/room?limit=many", "400 bad_limit"],
    ["/api/topics?limit=-1", "400 bad_limit"],
    ["/api/topics?scope=world", "400 bad_scope"],
    ["/api/subscribe", "400 bad_topics"],
    ["/api/subscribe?topic=", "400 bad_topic"],
    ["/api/subscribe?topic=a&events=", "400 bad_events"],
    ["/api/nothing", "404 no_such_path"],
    ["/nothing", "404 no_such_path"],
  ];
  for (const [path, expected] of bad) assert.equal(failure(await node.call(path)), expected, path);
  assert.equal(failure(await node.call("/api/presence/%ff")).split(" ")[0], "400", "no UTF-8");
  assert.equal(failure(await node.call("/api/broadcast")), "405 method_not_allowed");
  assert.equal(failure(await node.call("/api/topics", { method: "DELETE" })), "405 method_not_allowed");
});

// --- topics ---------------------------------------------------------------------------------------

story("topics are listed with subscribers and presences, of the cluster or of one node", async (stage) => {
  const nodes = await stage.cluster(3);
  for (const [i, node] of nodes.entries()) {
    const client = await stage.phoenix(node, { user: "ann" });
    await client.join(ROOM);
    await client.join(`room:${i}`);
  }
  const topics = async (query) => {
    const { topics, missing } = (await nodes[0].call(`/api/topics${query}`)).json;
    assert.deepEqual(missing, []);
    return topics.map(({ topic, subscribers, presences, entries }) => `${topic} ${subscribers} ${presences} ${entries}`);
  };
  const all = ["room:0 1 1 1", "room:1 1 1 1", "room:2 1 1 1", "room:lobby 3 1 3"];
  await until("all are listed", async () => JSON.stringify(await topics("")) === JSON.stringify(all));
  assert.deepEqual(await topics("?prefix=room:l"), ["room:lobby 3 1 3"]);
  assert.deepEqual(await topics("?limit=2"), all.slice(0, 2));
  const own = await topics("?scope=node&prefix=room:l");
  assert.deepEqual(own, ["room:lobby 1 1 3"]);
  assert.deepEqual(await topics("?prefix=nothing"), []);
});

story("topics name the nodes that do not answer, within a second or so", async (stage) => {
  const nodes = await stage.cluster(3);
  await (await stage.phoenix(nodes[0])).join(ROOM);
  nodes[2].process.signal("SIGSTOP");
  const started = Date.now();
  const { topics, missing } = (await nodes[0].call("/api/topics")).json;
  nodes[2].process.signal("SIGCONT");
  assert.deepEqual([topics.map(({ topic }) => topic), missing], [[ROOM], ["n3"]]);
  assert.ok(Date.now() - started < 2000);
});

// --- cluster and disconnect -----------------------------------------------------------------------

story("the cluster is shown as the node sees it", async (stage) => {
  const nodes = await stage.cluster(2, { config: '[node]\nregion = "north"\n' });
  const { node, members } = (await nodes[0].call("/api/cluster")).json;
  assert.deepEqual([node.name, node.region, node.cluster, node.http, node.address], ["n1", "north", "wingbeat", nodes[0].address, nodes[0].cluster]);
  const [own, peer] = members;
  assert.deepEqual([own.name, own.state, own.address], ["n1", "self", nodes[0].cluster]);
  assert.deepEqual([peer.name, peer.state, peer.address, peer.region, peer.linked], ["n2", "up", nodes[1].cluster, "north", true]);
  for (const key of ["incarnation", "version", "rtt_ms", "queued_bytes", "presence_lag", "lag_ms", "via", "agreement"]) assert.ok(key in peer, key);
  assert.ok(peer.rtt_ms > 0 && peer.rtt_ms < 1000);
  await until("they have compared what they list", async () => (await nodes[0].members())[1].agreement === true, { seconds: 20 });
  for (const [i, user] of [[0, "ann"], [1, "bob"], [1, "cid"]]) await (await stage.phoenix(nodes[i], { user })).join(ROOM);
  await until("all agree on who is listed where", async () => {
    const { agreement, presence, members } = (await nodes[0].call("/api/cluster")).json;
    const seen = [agreement, presence, ...members.map(({ presences, presence_topics }) => [presences, presence_topics])];
    if (JSON.stringify(seen) === JSON.stringify([true, { entries: 3, topics: 1 }, [1, 1], [2, 1]])) return true;
    throw new Error(JSON.stringify(seen));
  }, { seconds: 20 });
});

story("incarnations survive a JSON reader whose numbers are doubles", async (stage) => {
  const node = await stage.node("n1");
  const { text, json } = await node.call("/api/cluster");
  assert.equal(JSON.stringify(json.node.incarnation), /"incarnation":("?\d+"?)/.exec(text)[1]);
});

story("a disconnect is accepted, its mistakes are told", async (stage) => {
  const node = await stage.alone();
  assert.equal((await node.call("/api/disconnect", { body: { socket_id: "users_socket:nobody" } })).status, 202);
  for (const body of ["", "{}", { socket_id: 7 }, { socket_id: "a", extra: 1 }]) {
    assert.equal(failure(await node.call("/api/disconnect", { method: "POST", body })), "400 bad_json");
  }
  for (const socket_id of ["", "x".repeat(513)]) {
    assert.equal(failure(await node.call("/api/disconnect", { body: { socket_id } })), "400 bad_socket_id");
  }
});

// --- subscribe ------------------------------------------------------------------------------------

story("subscribe streams topics as server-sent events, from all nodes", async (stage) => {
  const nodes = await stage.cluster(2);
  const events = await Events.open(stage, nodes[0], "/api/subscribe?topic=room:1&topic=room:2");
  for (const [i, topic] of ["room:1", "room:2", "room:3"].entries()) await nodes[1].broadcast(topic, "message", { i });
  await nodes[0].broadcast("room:1", "other", ["any", "JSON"]);
  const heard = [await events.next(), await events.next(), await events.next()];
  const data = (topic, event, payload) => ({ event: "broadcast", data: { topic, event, payload } });
  const sorted = heard.slice().sort((a, b) => (JSON.stringify(a) < JSON.stringify(b) ? -1 : 1));
  assert.deepEqual(sorted, [data("room:1", "message", { i: 0 }), data("room:1", "other", ["any", "JSON"]), data("room:2", "message", { i: 1 })]);
  assert.deepEqual(await nodes[0].present("room:1"), [], "it never joins presence");
});

story("subscribe with events= streams no other broadcasts", async (stage) => {
  const node = await stage.alone();
  const events = await Events.open(stage, node, "/api/subscribe?topic=room:1&topic=room:2&events=new,gone&events=late", { "last-event-id": "7" });
  for (const event of ["new", "other", "gone", "newer", "late"]) await node.broadcast("room:2", event, { event: "new" });
  await node.broadcast("room:1", "new", {});
  const heard = [];
  for (let n = 0; n < 4; n++) heard.push((await events.next()).data);
  assert.deepEqual(heard.map(({ topic, event }) => `${topic} ${event}`), ["room:2 new", "room:2 gone", "room:2 late", "room:1 new"]);
});

story("subscribe with presence=true streams the state and each diff", async (stage) => {
  const nodes = await stage.cluster(2);
  const ann = await stage.phoenix(nodes[1], { user: "ann" });
  const room = await ann.join(ROOM, { meta: { mood: "fine" } });
  await until("she is listed", async () => (await nodes[0].present(ROOM)).length === 1);
  const events = await Events.open(stage, nodes[0], `/api/subscribe?topic=${encodeURIComponent(ROOM)}&presence=true`);
  const state = await events.next();
  assert.equal(state.event, "presence_state");
  assert.equal(state.data.topic, ROOM);
  assert.equal(state.data.presences.ann.metas[0].mood, "fine");
  await room.leave();
  const diff = await events.next();
  assert.equal(diff.event, "presence_diff");
  assert.deepEqual([diff.data.topic, Object.keys(diff.data.joins), Object.keys(diff.data.leaves)], [ROOM, [], ["ann"]]);
});

story("subscribe with a prefix streams the presence of each topic that opens, on any node", async (stage) => {
  const nodes = await stage.cluster(2);
  const ann = await stage.phoenix(nodes[1], { user: "ann" });
  await ann.join("room:a");
  await ann.join("lobby");
  await until("she is listed", async () => (await nodes[0].present("room:a")).length === 1);
  const events = await Events.open(stage, nodes[0], "/api/subscribe?prefix=room:&presence=true");
  const told = async () => {
    const { event, data } = await events.next();
    const keys = (of) => Object.keys(of ?? {}).join();
    return [event, data.topic, keys(data.presences), keys(data.joins), keys(data.leaves)].join(" ").trimEnd();
  };
  assert.equal(await told(), "presence_state room:a ann");
  const room = await ann.join("room:b");
  assert.equal(await told(), "presence_state room:b ann");
  await (await stage.phoenix(nodes[0], { user: "bob" })).join("room:b");
  assert.equal(await told(), "presence_diff room:b  bob");
  await room.leave();
  assert.equal(await told(), "presence_diff room:b   ann");
  for (const query of ["prefix=room:", "prefix=a&presence=true&topic=b", "prefix=a&presence=true&events=b", "prefix=a&prefix=b&presence=true"]) {
    assert.equal(failure(await nodes[0].call(`/api/subscribe?${query}`)), "400 bad_prefix");
  }
});

// --- connections ----------------------------------------------------------------------------------

story("a request whose head does not come is given up after 10 s", async (stage) => {
  const node = await stage.alone();
  const [host, port] = node.address.split(":");
  const socket = net.connect(Number(port), host);
  stage.atEnd(() => socket.destroy());
  const closed = once(socket, "close");
  socket.resume();
  socket.write("GET /healthz HTTP/1.1\r\nHost: x\r\nX-Slow: ");
  const started = Date.now();
  await within(15, () => "the connection is closed", closed);
  assert.ok(Date.now() - started > 8000);
});

// --- who may use it -------------------------------------------------------------------------------

story("with a token the API wants it, and health and metrics do not", async (stage) => {
  const file = stage.file("token", `${TOKEN}\n`);
  const node = await stage.alone({ config: `[auth]\napi_token_file = "${file}"\n` });
  const bearer = (token) => ({ headers: { authorization: `Bearer ${token}` } });
  for (const path of ["/api/cluster", "/api/topics", "/api/presence/room", `/api/cluster?token=${TOKEN}`]) {
    assert.equal(failure(await node.call(path)), "401 unauthorized", path);
  }
  assert.equal(failure(await node.call("/api/cluster", bearer("wrong-token-of-16-bytes"))), "401 unauthorized");
  assert.equal(failure(await node.call("/api/cluster", { headers: { authorization: `Basic ${TOKEN}` } })), "401 unauthorized");
  assert.equal((await node.call("/api/cluster", bearer(TOKEN))).status, 200);
  const foreign = { host: "chat.example.com", origin: "https://evil.example", "x-forwarded-for": "10.0.0.1", authorization: `Bearer ${TOKEN}` };
  assert.equal((await node.request("/api/cluster", { headers: foreign })).status, 200, "a token is enough from anywhere");
  for (const path of ["/healthz", "/readyz", "/metrics", "/"]) assert.equal((await node.call(path)).status, 200, path);
  assert.equal(failure(await node.call("/api/subscribe?topic=room&token=wrong")), "401 unauthorized");
  const events = await Events.open(stage, node, `/api/subscribe?topic=room&token=${TOKEN}`);
  await node.call("/api/broadcast", { body: { topic: "room", event: "e", payload: 1 }, ...bearer(TOKEN) });
  assert.deepEqual((await events.next()).data, { topic: "room", event: "e", payload: 1 });
  assert.ok(!node.log.join("\n").includes(TOKEN), "the token is in no log");
});

story("without a token only this machine itself may use the API", async (stage) => {
  const node = await stage.alone();
  const [, port] = node.address.split(":");
  const status = async (headers) => (await node.request("/api/cluster", { headers })).status;
  assert.equal(await status({}), 200);
  assert.equal(await status({ host: `localhost:${port}` }), 200);
  assert.equal(await status({ origin: `http://${node.address}` }), 200);
  for (const headers of [
    { host: "rebound.example" },
    { host: `127.0.0.1.rebound.example:${port}` },
    { origin: "http://evil.example" },
    { origin: "null" },
    { "x-forwarded-for": "10.0.0.1" },
    { forwarded: "for=10.0.0.1" },
    { via: "1.1 proxy" },
  ]) {
    assert.equal(await status(headers), 403, JSON.stringify(headers));
  }
});
