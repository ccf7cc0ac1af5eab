// The client protocol, frame by frame.

import assert from "node:assert/strict";

import { story } from "./lib/stage.mjs";
import { Bytes } from "./lib/raw.mjs";
import { until } from "./lib/until.mjs";

const ROOM = "room:x";
const OK = { response: {}, status: "ok" };
const QUIET = '[[channel]]\ntopic = "room:*"\npresence = "off"\n';

const reply = (joinRef, ref, topic, payload = OK) => [joinRef, ref, topic, "phx_reply", payload];
const refusal = (reason) => ({ response: { reason }, status: "error" });
const close = (ref, topic = ROOM) => [ref, ref, topic, "phx_close", {}];

/** A node whose rooms have no presence, and a socket on it that has joined one as "1". */
async function joined(stage, config = "") {
  const node = await stage.alone({ config: QUIET + config });
  const socket = await stage.raw(node);
  assert.deepEqual(await socket.join(ROOM, { state: false }), [reply("1", "1", ROOM)]);
  return { node, socket };
}

// --- frames ---------------------------------------------------------------------------------------

story("join, state, diff, push, reply, leave and close are the frames that Phoenix sends", async (stage) => {
  const node = await stage.alone();
  const socket = await stage.raw(node, { user: "u1" });
  const [join, state] = await socket.join(ROOM, { payload: { meta: { name: "N1" } } });
  assert.deepEqual(join, reply("1", "1", ROOM));
  assert.deepEqual(state.slice(0, 4), ["1", null, ROOM, "presence_state"]);
  const [meta] = state[4].u1.metas;
  assert.deepEqual(Object.keys(state[4]), ["u1"]);
  assert.deepEqual([meta.name, typeof meta.phx_ref, typeof meta.online_at], ["N1", "string", "number"]);

  const other = await stage.raw(node, { user: "u2" });
  await other.join(ROOM);
  const diff = await socket.frames.find("the other's diff", (text) => text.includes('"u2"'));
  const [joinRef, ref, topic, event, { joins, leaves }] = JSON.parse(diff);
  assert.deepEqual([joinRef, ref, topic, event, leaves], [null, null, ROOM, "presence_diff", {}]);
  assert.equal(joins.u2.metas.length, 1);

  socket.send(["1", "2", ROOM, "message", { text: "hi" }]);
  assert.deepEqual(await socket.until("message"), [null, null, ROOM, "message", { text: "hi" }]);
  assert.deepEqual(await socket.next(), reply("1", "2", ROOM));
  assert.deepEqual(await socket.ask(["1", "3", ROOM, "phx_leave", {}]), reply("1", "3", ROOM));
  assert.deepEqual(await socket.next(), close("1"));
  const [, , , , left] = await other.frames
    .find("the leave", (text) => text.includes('"leaves":{"u1"')).then(JSON.parse);
  assert.deepEqual(left.leaves.u1.metas.map((gone) => gone.phx_ref), [meta.phx_ref]);
});

story("a heartbeat is answered whatever is joined, with its ref and without join_ref", async (stage) => {
  const { socket } = await joined(stage);
  for (const [joinRef, ref] of [[null, "2"], ["1", "3"], [null, 4], ["x", null]]) {
    assert.deepEqual(await socket.ask([joinRef, ref, "phoenix", "heartbeat", {}]), reply(null, ref, "phoenix"));
  }
  assert.deepEqual(await socket.ask([ null, "5", "phoenix", "heartbeat", {}, "extra" ]), reply(null, "5", "phoenix"));
});

story("a frame of an earlier join is ignored without a reply", async (stage) => {
  const { socket } = await joined(stage);
  socket.send(["0", "2", ROOM, "message", { stale: true }]);
  socket.send(["0", "3", ROOM, "phx_leave", {}]);
  socket.send([1, "4", ROOM, "message", { stale: true }]);
  assert.deepEqual(await socket.ask(["1", "5", ROOM, "message", {}]), [null, null, ROOM, "message", {}]);
  assert.deepEqual(await socket.next(), reply("1", "5", ROOM));
});

story("a push without join_ref is accepted and answered with the channel's", async (stage) => {
  const { socket } = await joined(stage);
  assert.deepEqual(await socket.ask([null, "2", ROOM, "message", {}]), [null, null, ROOM, "message", {}]);
  assert.deepEqual(await socket.next(), reply("1", "2", ROOM));
  assert.deepEqual(await socket.ask([null, "3", ROOM, "phx_leave", {}]), reply("1", "3", ROOM));
});

story("a join without join_ref is answered without, and its later frames carry its ref", async (stage) => {
  const node = await stage.alone();
  const socket = await stage.raw(node);
  assert.deepEqual(await socket.ask([null, "7", ROOM, "phx_join", {}]), reply(null, "7", ROOM));
  const state = await socket.until("presence_state");
  assert.deepEqual(state.slice(0, 4), ["7", null, ROOM, "presence_state"]);
  socket.send(["7", "8", ROOM, "message", { stale: true }]);
  socket.send([null, "9", ROOM, "phx_leave", {}]);
  assert.deepEqual((await socket.until("phx_reply")).slice(1), ["9", ROOM, "phx_reply", OK]);
  assert.deepEqual(await socket.next(), [null, null, ROOM, "phx_close", {}]);
});

story("refs keep their type and are echoed as they came", async (stage) => {
  const node = await stage.alone({ config: QUIET });
  const socket = await stage.raw(node);
  socket.send(`[4,5,"${ROOM}","phx_join",{}]`);
  assert.equal(await socket.frames.next("the reply"), `[4,5,"${ROOM}","phx_reply",{"response":{},"status":"ok"}]`);
  socket.send(["4", "6", ROOM, "message", { stale: "of another type" }]);
  assert.deepEqual(await socket.ask([4, "7", ROOM, "message", {}]), [null, null, ROOM, "message", {}]);
  assert.deepEqual(await socket.next(), reply(4, "7", ROOM));
});

story("an event on a topic that is not joined is unmatched, a leave of it is fine", async (stage) => {
  const { socket } = await joined(stage);
  const nowhere = refusal("unmatched topic");
  assert.deepEqual(await socket.ask(["1", "5", "room:y", "message", {}]), reply(null, "5", "room:y", nowhere));
  assert.deepEqual(await socket.ask(["1", "6", "other:y", "phx_join", {}]), reply(null, "6", "other:y", nowhere));
  assert.deepEqual(await socket.ask(["1", "7", 42, "message", {}]), reply(null, "7", 42, nowhere));
  const [, ref, topic, event, payload] = await socket.ask(["9", "8", "room:y", "phx_leave", {}]);
  assert.deepEqual([ref, topic, event, payload], ["8", "room:y", "phx_reply", OK]);
});

story("a second join of a topic answers first, then closes the former", async (stage) => {
  const { socket } = await joined(stage);
  assert.deepEqual(await socket.ask(["2", "3", ROOM, "phx_join", {}]), reply("2", "3", ROOM));
  assert.deepEqual(await socket.next(), close("1"));
  socket.send(["1", "4", ROOM, "message", { stale: true }]);
  assert.deepEqual(await socket.ask(["2", "5", ROOM, "message", {}]), [null, null, ROOM, "message", {}]);
  assert.deepEqual(await socket.next(), reply("2", "5", ROOM));
});

story("an event that is no string crashes its channel and nothing else", async (stage) => {
  const { socket } = await joined(stage);
  assert.deepEqual(await socket.join("room:y", { joinRef: "2", state: false }), [reply("2", "2", "room:y")]);
  const crash = { reason: "channel_crash" };
  assert.deepEqual(await socket.ask(["1", "3", ROOM, 7, {}]), ["1", "1", ROOM, "phx_error", crash]);
  assert.deepEqual(await socket.ask(["2", "4", "room:y", "message", {}]), [null, null, "room:y", "message", {}]);
});

story("the protocol's own events reach nobody when a client pushes them", async (stage) => {
  const { node, socket } = await joined(stage);
  const listener = await stage.raw(node);
  await listener.join(ROOM, { state: false });
  const events = ["phx_reply", "phx_close", "phx_error", "phx_x", "presence_state", "presence_diff", "presence_count", "disconnect"];
  for (const event of events) {
    assert.deepEqual(await socket.ask(["1", "2", ROOM, event, {}]), reply("1", "2", ROOM, refusal("reserved event")), event);
  }
  await node.broadcast(ROOM, "message", {});
  assert.deepEqual(await listener.next(), [null, null, ROOM, "message", {}]);
});

story("one channel too many is refused, a second join of a joined topic is not", async (stage) => {
  const { socket } = await joined(stage, "[limits]\nchannels_per_socket = 3\n");
  for (const [ref, topic] of [["2", "room:2"], ["3", "room:3"]]) await socket.join(topic, { joinRef: ref, state: false });
  const full = refusal("too many channels joined");
  assert.deepEqual((await socket.ask(["4", "4", "room:4", "phx_join", {}])).slice(1), ["4", "room:4", "phx_reply", full]);
  assert.deepEqual(await socket.ask(["5", "5", "room:3", "phx_join", {}]), reply("5", "5", "room:3"));
  assert.deepEqual(await socket.next(), close("3", "room:3"));
  assert.deepEqual(await socket.ask(["2", "6", "room:2", "phx_leave", {}]), reply("2", "6", "room:2"));
  await socket.next();
  assert.deepEqual(await socket.ask(["7", "7", "room:4", "phx_join", {}]), reply("7", "7", "room:4"));
});

story("joins and events over the configured rate are refused", async (stage) => {
  const { socket } = await joined(stage, "[limits]\njoins_per_second = 2\nevents_per_second = 3\n");
  const slower = refusal("too many requests");
  const answers = [];
  for (let i = 2; i < 10; i++) answers.push(await socket.ask([`${i}`, `${i}`, `room:${i}`, "phx_join", {}]));
  assert.ok(answers.some((answer) => JSON.stringify(answer[4]) === JSON.stringify(slower)), JSON.stringify(answers));
  for (let i = 0; i < 20; i++) socket.send(["1", `e${i}`, ROOM, "message", {}]);
  const refused = await socket.frames.find("a refusal", (text) => text.includes("too many requests"));
  assert.equal(JSON.parse(refused)[2], ROOM);
});

story("a join payload that is no object is an empty one", async (stage) => {
  const socket = await stage.raw(await stage.alone(), { user: "ann" });
  for (const payload of [null, [], "text", 7]) {
    socket.send(["1", "1", ROOM, "phx_join", payload]);
    const state = await socket.until("presence_state");
    assert.deepEqual(Object.keys(state[4].ann.metas.at(-1)).sort(), ["online_at", "phx_ref"]);
  }
});

// --- frames that end the socket -------------------------------------------------------------------

for (const [what, frame] of [
  ["bad JSON", "[1,2"],
  ["an object", '{"topic":"t","event":"e","payload":{},"ref":"1"}'],
  ["four elements", '["1","1","room:x","phx_join"]'],
  ["a number", "7"],
  ["an empty frame", ""],
  ["a byte order mark", '\ufeff["1","1","room:x","phx_join",{}]'],
  ["half a surrogate pair", '["1","1","room:x","message",{"text":"\\ud800"}]'],
  ["bytes that are no frame", Buffer.from([255, 0, 1])],
]) {
  story(`${what} ends that socket with 1011 and no other`, async (stage) => {
    const node = await stage.alone({ config: QUIET });
    const [bad, good] = [await stage.raw(node), await stage.raw(node)];
    await bad.join(ROOM, { state: false });
    await good.join(ROOM, { state: false });
    bad.send(frame);
    assert.equal(await bad.code(), 1011);
    assert.deepEqual(await good.ask(["1", "2", ROOM, "message", {}]), [null, null, ROOM, "message", {}]);
  });
}

story("a frame over the limit ends the socket with 1009, one at the limit does not", async (stage) => {
  const { socket } = await joined(stage, '[http]\nmax_frame_size = "2KiB"\n');
  const frame = (length) => {
    const text = JSON.stringify(["1", "2", ROOM, "message", ""]);
    return JSON.stringify(["1", "2", ROOM, "message", "x".repeat(length - text.length)]);
  };
  socket.send(frame(2048));
  assert.equal((await socket.until("message"))[4].length > 1900, true);
  socket.send(frame(2049));
  assert.equal(await socket.code(), 1009);
});

story("a client that sends far more than the limit still reads why it was closed", async (stage) => {
  const node = await stage.alone();
  for (const megabytes of [1.5, 4, 4]) {
    const socket = await stage.raw(node);
    socket.send("x".repeat(megabytes * (1 << 20)));
    assert.equal(await socket.code(), 1009, `${megabytes} MiB`);
  }
});

story("a client that pings without reading costs the node next to nothing", async (stage) => {
  const node = await stage.alone();
  const resident = async () => Number(/^process_resident_memory_bytes (\d+)/m.exec(await (await fetch(`http://${node.address}/metrics`)).text())[1]);
  const { socket } = await Bytes.upgrade(node);
  socket.pause();
  const before = await resident();
  const ping = Buffer.concat([Buffer.from([0x89, 0x80 | 125, 0, 0, 0, 0]), Buffer.alloc(125)]);
  socket.write(Buffer.concat(Array(400_000).fill(ping)));
  let unsent = 0, same = 0;
  await until("the node reads no more of them", () => {
    same = socket.writableLength === unsent ? same + 1 : 0;
    unsent = socket.writableLength;
    return same > 20;
  });
  assert.ok(unsent > 0, "the node has read them all");
  const grown = (await resident()) - before;
  socket.destroy();
  assert.ok(grown < 20e6, `52 MB of pings cost ${grown} bytes`);
});

story("a frame over the limit is refused by its header alone", async (stage) => {
  const node = await stage.alone();
  for (const length of [(1 << 20) + 1, 2 ** 40]) {
    const bytes = await Bytes.upgrade(node);
    bytes.write(1, [], { length });
    assert.equal(await bytes.code(), 1009, String(length));
    bytes.end();
  }
});

story("a WebSocket violation ends the socket with 1002", async (stage) => {
  const node = await stage.alone();
  const violations = {
    "an unmasked frame": (bytes) => bytes.write(1, [...Buffer.from("[]")], { masked: false }),
    "a reserved bit": (bytes) => bytes.write(1, [...Buffer.from("[]")], { first: 0xc0 }),
    "an unknown opcode": (bytes) => bytes.write(3, []),
    "a continuation of nothing": (bytes) => bytes.write(0, [1]),
    "a ping in pieces": (bytes) => bytes.write(9, [], { first: 0 }),
    "a ping of 126 bytes": (bytes) => bytes.write(9, Array(126).fill(0)),
  };
  for (const [what, violate] of Object.entries(violations)) {
    const bytes = await Bytes.upgrade(node);
    violate(bytes);
    assert.equal(await bytes.code(), 1002, what);
    bytes.end();
  }
});

story("text that is no UTF-8 ends the socket with 1007", async (stage) => {
  const bytes = await Bytes.upgrade(await stage.alone());
  bytes.write(1, [0x5b, 0xff, 0x5d]);
  assert.equal(await bytes.code(), 1007);
  bytes.end();
});

story("a frame in pieces is one frame, and a ping between them is answered", async (stage) => {
  const bytes = await Bytes.upgrade(await stage.alone());
  const frame = [...Buffer.from(JSON.stringify([null, "1", "phoenix", "heartbeat", {}]))];
  bytes.write(1, frame.slice(0, 10), { first: 0 });
  bytes.write(9, [7]);
  bytes.write(0, frame.slice(10));
  assert.deepEqual(await bytes.frame(), { opcode: 10, payload: Buffer.from([7]) });
  const { opcode, payload } = await bytes.frame();
  assert.equal(opcode, 1);
  assert.deepEqual(JSON.parse(payload), reply(null, "1", "phoenix"));
  bytes.end();
});

story("a client that sends nothing is closed with 1002, whatever it is sent meanwhile", async (stage) => {
  const { node, socket } = await joined(stage, '[http]\nidle_timeout = "1s"\n');
  const started = Date.now();
  let sent = 0;
  const talking = setInterval(() => void node.broadcast(ROOM, "message", { n: sent++ }).catch(() => {}), 100);
  stage.atEnd(() => clearInterval(talking));
  assert.equal(await socket.code(), 1002);
  const seconds = (Date.now() - started) / 1000;
  clearInterval(talking);
  assert.ok(seconds > 0.8 && seconds < 3, `closed after ${seconds} s`);
  assert.ok(sent > 3);
});

story("heartbeats keep a socket open", async (stage) => {
  const { socket } = await joined(stage, '[http]\nidle_timeout = "1s"\n');
  const started = Date.now();
  for (let i = 0; Date.now() - started < 2500; i++) {
    assert.deepEqual(await socket.ask([null, `${i}`, "phoenix", "heartbeat", {}]), reply(null, `${i}`, "phoenix"));
    await new Promise((resolve) => setTimeout(resolve, 250));
  }
});

// --- the connect ----------------------------------------------------------------------------------

const UPGRADE = {
  connection: "Upgrade",
  upgrade: "websocket",
  "sec-websocket-version": "13",
  "sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ==",
};

const connect = (node, { query = "?vsn=2.0.0", headers = {}, method } = {}) =>
  node.request(`/socket/websocket${query}`, { method, headers: { ...UPGRADE, ...headers } });

story("vsn 1.0.x, 2.0.x and none are accepted, all others refused with 403 and no body", async (stage) => {
  const node = await stage.alone();
  for (const query of ["", "?vsn=1.0.0", "?vsn=1.0.7", "?vsn=2.0.0", "?vsn=2.0.12", "?vsn=9.0.0&vsn=2.0.0", "?user_id=a%zz"]) {
    assert.equal((await connect(node, { query })).status, 101, query);
  }
  for (const vsn of ["2.1.0", "1.5.0", "9.0.0", "2.0", "", "two", "2.0.x", "2.0.0.0", "2.0.0&vsn=3.0.0"]) {
    const { status, text } = await connect(node, { query: `?vsn=${vsn}` });
    assert.deepEqual([status, text], [403, ""], vsn);
  }
  await until("the log says it", () => node.log.some((line) => /connect refused.*vsn/.test(line)));
});

story("the answer to the key is the one of RFC 6455", async (stage) => {
  const { headers } = await connect(await stage.alone());
  assert.equal(headers["sec-websocket-accept"], "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
  assert.equal(headers["sec-websocket-protocol"], undefined);
});

story("another method or a bad upgrade is 400", async (stage) => {
  const node = await stage.alone();
  for (const method of ["POST", "PUT", "OPTIONS", "DELETE"]) assert.equal((await connect(node, { method })).status, 400, method);
  for (const [header, value] of [["connection", "close"], ["upgrade", "h2c"], ["sec-websocket-version", "8"]]) {
    assert.equal((await connect(node, { headers: { [header]: value } })).status, 400, header);
  }
  assert.equal((await node.request("/socket/websocket?vsn=2.0.0")).status, 400, "no upgrade at all");
  assert.equal((await connect(node, { query: "?vsn=2.0.0&a=%ff" })).status, 400, "no UTF-8");
});

story("a page may connect to the host it came from, and no other may", async (stage) => {
  const node = await stage.alone();
  const [host] = node.address.split(":");
  for (const origin of [`http://${node.address}`, `http://${host}:1`, `https://${host}`]) {
    assert.equal((await connect(node, { headers: { origin } })).status, 101, origin);
  }
  for (const origin of ["http://evil.example", `http://${host}.evil.example`, "null", "http://localhost"]) {
    const { status, text } = await connect(node, { headers: { origin } });
    assert.deepEqual([status, text], [403, ""], origin);
  }
});

story("a name that was made to lead to loopback lets no page in", async (stage) => {
  const node = await stage.alone();
  const host = `evil.example:${node.address.split(":")[1]}`;
  const { status } = await connect(node, { headers: { host, origin: `http://${host}` } });
  assert.equal(status, 403);
});

story("http.origins names the pages that may connect", async (stage) => {
  const config = '[http]\norigins = ["https://chat.example.com", "https://*.example.org"]\n';
  const node = await stage.alone({ config });
  const status = async (origin) => (await connect(node, { headers: { origin } })).status;
  assert.equal(await status("https://chat.example.com"), 101);
  assert.equal(await status("https://a.example.org"), 101);
  for (const origin of ["https://example.com", "http://chat.example.com", "https://evilexample.org", `http://${node.address}`]) {
    assert.equal(await status(origin), 403, origin);
  }
});

story("auth.anonymous = false lets nobody in who does not say who it is", async (stage) => {
  const node = await stage.alone({ config: "[auth]\nanonymous = false\n" });
  const { status, text } = await connect(node);
  assert.deepEqual([status, text], [403, ""]);
});

story("connections over http.max_connections are turned away, and room is made again", async (stage) => {
  const node = await stage.alone({ config: `${QUIET}[http]\nmax_connections = 2\n` });
  const sockets = [await stage.raw(node), await stage.raw(node)];
  await assert.rejects(stage.raw(node));
  await sockets[0].join(ROOM, { state: false });
  await sockets[1].end();
  await until("there is room", async () => (await connect(node)).status === 101);
});

story("subprotocol phoenix is echoed, as the client with an authToken wants it", async (stage) => {
  const node = await stage.alone();
  const client = await stage.phoenix(node, { authToken: "a token?" });
  assert.equal(client.socket.conn.protocol, "phoenix");
  await client.join(ROOM);
  const unknown = await connect(node, { headers: { "sec-websocket-protocol": "graphql-ws" } });
  assert.deepEqual([unknown.status, unknown.headers["sec-websocket-protocol"]], [101, undefined]);
});

// --- disconnect and slow clients ------------------------------------------------------------------

for (const [how, disconnect] of [
  ["POST /api/disconnect", (node) => node.call("/api/disconnect", { body: { socket_id: "users_socket:ann" } })],
  ["a broadcast of disconnect to its id", (node) => node.call("/api/broadcast", {
    body: { topic: "users_socket:ann", event: "disconnect", payload: {} },
  })],
]) {
  story(`${how} closes the user's sockets on all nodes with 1001, and phoenix.js reconnects`, async (stage) => {
    const nodes = await stage.cluster(3);
    const anns = [];
    for (const node of nodes) anns.push(await stage.phoenix(node, { user: "ann" }));
    const bob = await stage.phoenix(nodes[1], { user: "bob" });
    const room = await bob.join(ROOM);
    for (const ann of anns) ann.room = await ann.join(ROOM);
    assert.equal((await disconnect(nodes[0])).status, 202);
    for (const ann of anns) assert.equal((await ann.closes.next("the close")).code, 1001);
    for (const ann of anns) await until("connected again", () => ann.opened === 2 && ann.room.channel.isJoined());
    assert.equal(bob.opened, 1);
    await until("all are listed again", () => room.roster.ann?.length === 3 && room.present.join() === "ann,bob");
  });
}

story("a client that does not read is closed with 1013, and nobody else loses anything", async (stage) => {
  const config = `${QUIET}[limits]\nmailbox_bytes = "64KiB"\n`;
  const node = await stage.alone({ config });
  const slow = await stage.raw(node);
  await slow.join(ROOM, { state: false });
  const other = await stage.phoenix(node);
  const room = await other.join(ROOM);
  slow.stopReading();
  const text = "x".repeat(4000);
  let sent = 0;
  await until("the slow client is given up", async () => {
    for (let i = 0; i < 50; i++) await node.broadcast(ROOM, "message", { n: sent++, text });
    return node.log.some((line) => /slow client disconnected/.test(line));
  }, { seconds: 30 });
  assert.equal(other.opened, 1, "the other was not cut off");
  await until("the other has heard all", () => room.waiting("message").length === sent);
  assert.deepEqual(room.waiting("message").map(({ n }) => n), Array.from({ length: sent }, (_, i) => i));
  assert.ok(/wingbeat\w*slow\w* [1-9]/.test((await node.call("/metrics")).text), "it is counted");
  slow.ws.resume();
  assert.equal(await slow.code(), 1013);
}, { seconds: 90 });
