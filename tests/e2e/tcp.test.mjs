// Clients over plain TCP, beside WebSockets and on other nodes, and what is not let in.

import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";

import { agree } from "./lib/phoenix.mjs";
import { REPOSITORY, Running } from "./lib/process.mjs";
import { story } from "./lib/stage.mjs";
import { TcpSocket, framed } from "./lib/tcp.mjs";
import { until, within } from "./lib/until.mjs";

const ROOM = "room:x";
const QUIET = '[[channel]]\ntopic = "*"\npresence = "off"\n';
const TCP = { tcpListen: "127.0.0.1:0" };
const CONNECT = { path: "/socket", vsn: "2.0.0", params: {} };

const reply = (joinRef, ref, topic) => [joinRef, ref, topic, "phx_reply", { response: {}, status: "ok" }];

/** The frame of a push. */
function push(joinRef, ref, topic, event, data) {
  const names = [joinRef, ref, topic, event].map((name) => Buffer.from(name));
  return Buffer.concat([Buffer.from([0, ...names.map((name) => name.length)]), ...names, Buffer.from(data)]);
}

/** The data of the next binary broadcast of an event. */
async function bytes(socket, event) {
  const frame = await socket.frames.find(`bytes of ${event}`, (frame) => Buffer.isBuffer(frame));
  const head = 3 + frame[1];
  assert.equal(frame[0], 2);
  assert.equal(frame.subarray(head, head + frame[2]).toString(), event);
  return frame.subarray(head + frame[2]);
}

/** A node that serves TCP, with a socket on it that has joined a room. */
async function joined(stage, config = "", settings = {}) {
  const node = await stage.alone({ config: config + QUIET, ...TCP, ...settings });
  const socket = await TcpSocket.connect(stage, node);
  assert.deepEqual(await socket.join(ROOM), reply("1", "1", ROOM));
  return { node, socket };
}

// --- messages -------------------------------------------------------------------------------------

story("a client over TCP and the official one on another node hear and see each other", async (stage) => {
  const nodes = await stage.cluster(2, TCP);
  const device = await TcpSocket.connect(stage, nodes[0], { user: "device" });
  assert.deepEqual(await device.join(ROOM, { meta: { kind: "sensor" } }), reply("1", "1", ROOM));
  assert.equal((await device.until("presence_state"))[4].device.metas[0].kind, "sensor");
  const page = await (await stage.phoenix(nodes[1], { user: "page" })).join(ROOM);
  await agree([page], ["device", "page"]);
  const [, , , , { joins }] = await device.until("presence_diff");
  assert.ok(joins.device ?? joins.page);

  device.send(["1", "2", ROOM, "message", { from: "device" }]);
  assert.deepEqual(await page.next("message"), { from: "device" });
  assert.deepEqual((await device.until("message"))[4], { from: "device" });
  assert.deepEqual(await device.until("phx_reply"), reply("1", "2", ROOM));
  await page.push("message", { from: "page" });
  assert.deepEqual((await device.until("message"))[4], { from: "page" });

  device.end();
  await page.lists(["page"]);
});

story("bytes go both ways between TCP and WebSocket, of any length and among texts", async (stage) => {
  const nodes = await stage.cluster(2, { config: QUIET, ...TCP });
  const device = await TcpSocket.connect(stage, nodes[0]);
  await device.join(ROOM);
  const page = await (await stage.phoenix(nodes[1])).join(ROOM);
  const data = Buffer.alloc(700_000).map((_, i) => (i * 31) % 253);
  device.send(push("1", "2", ROOM, "sample", data));
  device.send(["1", "3", ROOM, "message", { n: 1 }]);
  assert.deepEqual(Buffer.from(await page.next("sample")), data);
  assert.deepEqual(await page.next("message"), { n: 1 });
  assert.deepEqual(await bytes(device, "sample"), data);
  await page.push("sample", Uint8Array.from([0, 255]).buffer);
  assert.deepEqual(await bytes(device, "sample"), Buffer.from([0, 255]));
});

story("a message is whole however its bytes come, and many may come at once", async (stage) => {
  const { socket } = await joined(stage);
  for (const byte of framed([null, "2", "phoenix", "heartbeat", {}])) {
    await new Promise((resolve) => socket.stream.write(Buffer.from([byte]), resolve));
  }
  assert.deepEqual(await socket.next(), reply(null, "2", "phoenix"));
  const many = Array.from({ length: 200 }, (_, i) => [null, `h${i}`, "phoenix", "heartbeat", {}]);
  const all = Buffer.concat(many.map(framed));
  socket.stream.write(all.subarray(0, 1001));
  socket.stream.write(all.subarray(1001));
  for (const [, ref] of many) assert.deepEqual(await socket.next(), reply(null, ref, "phoenix"));
});

story("a connect a byte at a time is one, and what follows it at once is taken", async (stage) => {
  const node = await stage.alone({ config: QUIET, ...TCP });
  const slow = await TcpSocket.open(stage, node);
  for (const byte of framed({ ...CONNECT, auth_token: "left alone" })) {
    await new Promise((resolve) => slow.stream.write(Buffer.from([byte]), resolve));
  }
  assert.deepEqual(await slow.next(), { status: "ok" });
  const hasty = await TcpSocket.open(stage, node);
  hasty.stream.write(Buffer.concat([CONNECT, ["1", "1", ROOM, "phx_join", {}]].map(framed)));
  assert.deepEqual(await hasty.next(), { status: "ok" });
  assert.deepEqual(await hasty.next(), reply("1", "1", ROOM));
});

// --- who is not let in ----------------------------------------------------------------------------

for (const [what, connect, reason] of [
  ["no JSON", "hello", /not JSON/],
  ["a list", [1, 2], /not JSON/],
  ["bytes", Buffer.from([0, 1, 2]), /not JSON/],
  ["nothing", "", /not JSON/],
  ["no vsn", { path: "/socket", params: {} }, /vsn/],
  ["V1", { ...CONNECT, vsn: "1.0.0" }, /vsn is not 2\.0\.x/],
  ["an unknown vsn", { ...CONNECT, vsn: "2.1.0" }, /vsn is not 2\.0\.x/],
  ["another path", { ...CONNECT, path: "/live" }, /\/socket/],
  ["params that are no object", { ...CONNECT, params: "x" }, /not JSON/],
  ["params nested too deep", JSON.stringify(CONNECT).replace("{}", `{"a":${"[".repeat(20)}1${"]".repeat(20)}}`), /nested/],
  ["64 KiB", { ...CONNECT, params: { a: "x".repeat(65_536) } }, /over 65536 bytes/],
]) {
  story(`a connect with ${what} is refused, with the reason`, async (stage) => {
    const node = await stage.alone(TCP);
    const socket = await TcpSocket.open(stage, node);
    const answer = await socket.ask(connect);
    assert.equal(answer.status, "error");
    assert.match(answer.reason, reason);
    await within(5, () => "the end", socket.ended);
  });
}

story("who does not connect in time is told, half a connect or none", async (stage) => {
  const node = await stage.alone(TCP);
  const [silent, half] = [await TcpSocket.open(stage, node), await TcpSocket.open(stage, node)];
  half.stream.write(framed(CONNECT).subarray(0, 20));
  for (const socket of [silent, half]) {
    assert.match((await socket.next({ seconds: 15 })).reason, /no connect within 10 s/);
    await within(5, () => "the end", socket.ended);
  }
});

story("http.max_connections counts TCP too", async (stage) => {
  const node = await stage.alone({ config: "[http]\nmax_connections = 2\n", ...TCP });
  const first = await TcpSocket.connect(stage, node);
  await TcpSocket.connect(stage, node);
  const third = await TcpSocket.open(stage, node);
  assert.match((await third.next()).reason, /too many connections/);
  await within(5, () => "the end", third.ended);
  first.end();
  await until("there is room again", async () => await TcpSocket.connect(stage, node));
});

story("auth.anonymous = false holds for TCP", async (stage) => {
  const node = await stage.alone({ config: "[auth]\nanonymous = false\n", ...TCP });
  const socket = await TcpSocket.open(stage, node);
  assert.deepEqual(await socket.ask(CONNECT), { status: "error", reason: "auth.anonymous is false" });
});

// --- ends -----------------------------------------------------------------------------------------

for (const [what, message, code] of [
  ["bad JSON", framed("[1,2"), 1011],
  ["an object", framed({ topic: "t", event: "e", payload: {}, ref: "1" }), 1011],
  ["an empty message", framed(""), 1011],
  ["a binary message that is too short", framed(Buffer.from([0, 9, 9, 9, 9])), 1011],
  ["a binary message of an unknown kind", framed(Buffer.from([7, 0, 0, 0, 0])), 1011],
  ["text that is not UTF-8", framed(Buffer.from([0x5b, 0xff])), 1007],
  ["the length of one over the limit", Buffer.from([0, 0x10, 0, 1]), 1009],
  ["another protocol", Buffer.from("GET / HTTP/1.1\r\n\r\n"), 1009],
]) {
  story(`${what} ends that socket with ${code} and no other`, async (stage) => {
    const { node, socket } = await joined(stage);
    const other = await TcpSocket.connect(stage, node);
    await other.join(ROOM);
    socket.stream.write(message);
    assert.equal(await socket.code(), code);
    assert.deepEqual(await other.ask(["1", "2", ROOM, "message", {}]), [null, null, ROOM, "message", {}]);
  });
}

story("a client that is silent for the idle timeout is closed, one that answers heartbeats is not", async (stage) => {
  const { node, socket: silent } = await joined(stage, '[http]\nidle_timeout = "1s"\n');
  const heard = await TcpSocket.connect(stage, node);
  const closed = silent.code({ seconds: 10 });
  for (let i = 0; i < 4; i++) {
    assert.deepEqual(await heard.until("heartbeat"), [null, null, "phoenix", "heartbeat", {}]);
    heard.send([null, `${i}`, "phoenix", "heartbeat", {}]);
    assert.deepEqual(await heard.until("phx_reply"), reply(null, `${i}`, "phoenix"));
  }
  assert.equal(await closed, 1002);
  heard.send([null, "last", "phoenix", "heartbeat", {}]);
  assert.deepEqual(await heard.until("phx_reply"), reply(null, "last", "phoenix"));
});

story("a stopping node says 1012, to those too who are about to connect", async (stage) => {
  const { node, socket } = await joined(stage);
  const early = await TcpSocket.open(stage, node);
  // These two, and the one that asks.
  await until("it is accepted", async () => (await node.metric("wingbeat_connections")) === 3);
  const stopped = node.stop();
  assert.equal(await socket.code(), 1012);
  assert.equal((await early.next()).reason, "the node is stopping");
  assert.equal((await stopped).code, 0);
});

story("a user's socket over TCP is disconnected by its id, from another node", async (stage) => {
  const nodes = await stage.cluster(2, TCP);
  const socket = await TcpSocket.connect(stage, nodes[0], { user: "u1" });
  await socket.join(ROOM);
  await nodes[1].broadcast("users_socket:u1", "disconnect", {});
  assert.equal(await socket.code(), 1001);
});

story("a client that does not read is closed as a slow one, and nobody else loses anything", async (stage) => {
  const { node, socket: slow } = await joined(stage, '[limits]\nmailbox_bytes = "64KiB"\n');
  const reader = await TcpSocket.connect(stage, node);
  await reader.join(ROOM);
  slow.stream.pause();
  const text = "x".repeat(60_000);
  let sent = 0;
  await until("the slow one is counted", async () => {
    reader.send(["1", `m${sent}`, ROOM, "message", { text, n: sent }]);
    assert.equal((await reader.until("message"))[4].n, sent);
    sent++;
    return (await node.metric("wingbeat_slow_clients_total")) === 1;
  }, { seconds: 40 });
  slow.stream.resume();
  assert.equal(await slow.code({ seconds: 15 }), 1013);
});

// --- the example ----------------------------------------------------------------------------------

const PYTHON = spawnSync("python3", ["--version"]).status === 0;

if (PYTHON) {
  story("the Python example joins, pushes text and bytes, and hears others", async (stage) => {
    const node = await stage.alone(TCP);
    const page = await (await stage.phoenix(node, { user: "page" })).join(ROOM);
    const example = new Running([`${REPOSITORY}docs/tcp-client.py`, node.tcp, ROOM], { binary: "python3" });
    stage.atEnd(() => example.end());
    assert.deepEqual(await page.next("message"), { text: "hello" });
    const sample = new DataView(await page.next("sample"));
    assert.equal(sample.getFloat64(0), 0.25);
    await page.lists(["page", "python"]);
    await page.push("message", { text: "welcome" });
    await page.push("sample", Uint8Array.from([0xab]).buffer);
    await example.line(/^text \{"status":"ok"\}$/);
    await example.line(/^text .*welcome/);
    await example.line(/^bytes sample ab$/);
  });
}
