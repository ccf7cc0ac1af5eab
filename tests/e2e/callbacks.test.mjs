// The callbacks example: each callback of a channel at work, failing, and slow.

import assert from "node:assert/strict";

import { example } from "./lib/process.mjs";
import { story } from "./lib/stage.mjs";
import { TcpSocket } from "./lib/tcp.mjs";
import { until } from "./lib/until.mjs";

const TOPIC = "callbacks:x";
const OK = { response: {}, status: "ok" };
const BINARY = example("callbacks");

const reply = (joinRef, ref, payload = OK) => [joinRef, ref, TOPIC, "phx_reply", payload];
const ok = (response) => ({ response, status: "ok" });
const refusal = (reason) => ({ response: { reason }, status: "error" });
const broadcast = (event, payload) => [null, null, TOPIC, event, payload];
const close = (ref) => [ref, ref, TOPIC, "phx_close", {}];
const crash = (ref) => [ref, ref, TOPIC, "phx_error", { reason: "channel_crash" }];

const start = (stage) => stage.alone({ binary: BINARY });
const open = (stage, node, name) => stage.raw(node, { query: new URLSearchParams({ vsn: "2.0.0", name }) });

async function joined(stage, node, name, payload = {}) {
  const socket = await open(stage, node, name);
  assert.deepEqual(await socket.ask(["1", "1", TOPIC, "phx_join", payload]), reply("1", "1"));
  return socket;
}

/** Waits until the node's log has such a line. */
const logged = (node, pattern) =>
  until(`a log line ${pattern}`, () => node.log.some((line) => pattern.test(line)));

const upgrade = {
  connection: "upgrade", upgrade: "websocket", "sec-websocket-version": "13", "sec-websocket-key": "AAAAAAAAAAAAAAAAAAAAAA==",
};

// --- connect and join -------------------------------------------------------------------------------

story("callbacks: a connect is refused, or fails, or panics, without a word to the client", async (stage) => {
  const node = await start(stage);
  const connect = async (query) => await node.request(`/socket/websocket?vsn=2.0.0${query}`, { headers: upgrade });
  for (const [query, expected] of [["", 403], ["&panic=1&name=x", 500], ["&name=x", 101]]) {
    const { status, text } = await connect(query);
    assert.deepEqual([status, text], [expected, ""], query);
  }
  await logged(node, /connect callback failed: panicked.*asked to panic/);
});

story("callbacks: the token of the official client reaches the connect callback", async (stage) => {
  const node = await start(stage);
  const client = await stage.phoenix(node, { authToken: ">>>" });
  await client.join(TOPIC);
  const watcher = await joined(stage, node, "watcher");
  await client.end();
  assert.deepEqual(await watcher.next(), broadcast("ended", { name: ">>>", reason: "Closed" }));
});

story("callbacks: clients over plain TCP come through the same door, and hear why they do not", async (stage) => {
  const node = await stage.alone({ binary: BINARY, tcpListen: "127.0.0.1:0" });
  for (const [params, reason] of [[{}, "who are you?"], [{ name: "x", panic: "1" }, "connect crashed"]]) {
    const refused = await TcpSocket.open(stage, node);
    assert.deepEqual(await refused.ask({ path: "/socket", vsn: "2.0.0", params }), { status: "error", reason });
  }
  const socket = await TcpSocket.connect(stage, node, { params: { name: "member" } });
  assert.deepEqual(await socket.ask(["1", "1", TOPIC, "phx_join", {}]), reply("1", "1"));
  assert.deepEqual(await socket.ask(["1", "2", TOPIC, "price", { euro: 5 }]), ["1", null, TOPIC, "price", { euro: 5 }]);
});

story("callbacks: a join that fails has crashed; pushes wait for one that is slow", async (stage) => {
  const node = await start(stage);
  const socket = await open(stage, node, "a");
  assert.deepEqual(await socket.ask(["1", "1", TOPIC, "phx_join", { fail: true }]), reply("1", "1", refusal("join crashed")));
  await logged(node, /channel crashed: the join was asked to fail/);
  socket.send(["2", "2", TOPIC, "phx_join", { slow: 300 }]);
  socket.send(["2", "3", TOPIC, "now", { n: 1 }]);
  assert.deepEqual(await socket.next(), reply("2", "2"));
  assert.deepEqual(await socket.next(), reply("2", "3", ok({ n: 1 })));
  await logged(node, /slow handler.*phx_join|phx_join.*slow handler/);
});

story("callbacks: who leaves before its join is answered is answered all the same", async (stage) => {
  const node = await start(stage);
  const socket = await open(stage, node, "a");
  socket.send(["1", "1", TOPIC, "phx_join", { slow: 60_000 }]);
  assert.deepEqual(await socket.ask(["1", "2", TOPIC, "phx_leave", {}]), reply("1", "2"));
  assert.deepEqual(await socket.next(), close("1"));
  assert.deepEqual(await socket.ask(["3", "3", TOPIC, "phx_join", {}]), reply("3", "3"));
});

// --- events -----------------------------------------------------------------------------------------

story("callbacks: an answer can come later, from another task, or never", async (stage) => {
  const socket = await joined(stage, await start(stage), "a");
  assert.deepEqual(await socket.ask(["1", "2", TOPIC, "later", { n: 1 }]), reply("1", "2", ok({ n: 1 })));
  socket.send(["1", "3", TOPIC, "never", {}]);
  assert.deepEqual(await socket.ask(["1", "4", TOPIC, "now", {}]), reply("1", "4"));
});

story("callbacks: the application's tasks reach the channel in order", async (stage) => {
  const socket = await joined(stage, await start(stage), "a");
  for (let ticks = 1; ticks < 20; ticks++) socket.send(["1", null, TOPIC, "tick", {}]);
  for (let ticks = 1; ticks < 20; ticks++) assert.deepEqual(await socket.next(), ["1", null, TOPIC, "ticked", { ticks }]);
  assert.deepEqual(await socket.ask(["1", "2", TOPIC, "stop_in_info", {}]), close("1"));
});

story("callbacks: intercepted broadcasts are what handle_out makes of them, the others as they are", async (stage) => {
  const node = await start(stage);
  const [member, guest] = [await joined(stage, node, "member"), await joined(stage, node, "guest")];
  guest.send(["1", "2", TOPIC, "price", { euro: 5 }]);
  assert.deepEqual(await member.next(), ["1", null, TOPIC, "price", { euro: 5 }]);
  assert.deepEqual(await guest.next(), ["1", null, TOPIC, "price", { for: "members" }]);
  await node.broadcast(TOPIC, "other", { n: 1 });
  for (const socket of [member, guest]) assert.deepEqual(await socket.next(), broadcast("other", { n: 1 }));
});

story("callbacks: topics of no channel are the relay's", async (stage) => {
  const node = await start(stage);
  const socket = await open(stage, node, "a");
  await socket.join("relayed");
  socket.send(["1", "2", "relayed", "message", { n: 1 }]);
  assert.deepEqual(await socket.until("message"), [null, null, "relayed", "message", { n: 1 }]);
});

story("callbacks: a client can be listed, and watch, long after its join", async (stage) => {
  const node = await start(stage);
  const [one, two] = [await joined(stage, node, "one"), await joined(stage, node, "two")];
  one.send(["1", null, TOPIC, "track", { n: 1 }]);
  await until("it is listed", async () => (await node.present(TOPIC)).join() === "one");
  two.send(["1", null, TOPIC, "watch", {}]);
  const [joinRef, ref, , event, state] = await two.next();
  assert.deepEqual([joinRef, ref, event, state.one.metas[0].n], ["1", null, "presence_state", 1]);
  assert.deepEqual((await one.ask(["1", "2", TOPIC, "presences", {}]))[4], ok(state));
  await one.end();
  const diff = await two.until("presence_diff");
  assert.deepEqual(Object.keys(diff[4].leaves), ["one"]);
});

// --- failures ---------------------------------------------------------------------------------------

for (const [what, event, name, line] of [
  ["an error of handle_in", "error", "a", /channel crashed: the handler was asked to fail.*event="?error/],
  ["a panic of handle_in", "panic", "a", /channel panicked: the handler was asked to panic/],
  ["a panic of handle_info", "panic_in_info", "a", /channel panicked: handle_info was asked to panic/],
  ["a panic of handle_out", "price", "panic", /channel panicked: price was asked to panic/],
]) {
  story(`callbacks: ${what} is logged, and hurts nobody else`, async (stage) => {
    const node = await start(stage);
    const [socket, other] = [await joined(stage, node, name), await joined(stage, node, "other")];
    socket.send(["1", "2", TOPIC, event, {}]);
    assert.deepEqual(await socket.next(), crash("1"));
    const ended = await other.until("ended");
    assert.deepEqual(ended, broadcast("ended", { name, reason: "Crashed" }));
    assert.deepEqual(await socket.ask(["3", "3", TOPIC, "phx_join", {}]), reply("3", "3"));
    await logged(node, line);
    assert.equal(await node.metric("wingbeat_channel_crashes_total"), 1);
  });
}

story("callbacks: a panic of terminate is logged and nothing else", async (stage) => {
  const node = await start(stage);
  const socket = await joined(stage, node, "a", { panic_at_end: true });
  assert.deepEqual(await socket.ask(["1", "2", TOPIC, "phx_leave", {}]), reply("1", "2"));
  assert.deepEqual(await socket.next(), close("1"));
  await logged(node, /channel panicked: terminate was asked to panic/);
  assert.deepEqual(await socket.ask(["3", "3", TOPIC, "phx_join", {}]), reply("3", "3"));
});

story("callbacks: a slow handler is named and counted, and holds up no other channel", async (stage) => {
  const node = await start(stage);
  const socket = await joined(stage, node, "a");
  const other = await joined(stage, node, "b");
  socket.send(["1", "2", TOPIC, "slow", 600]);
  assert.deepEqual(await other.ask(["1", "3", TOPIC, "now", {}]), reply("1", "3"));
  assert.deepEqual(await socket.ask(["1", "4", TOPIC, "now", {}]), reply("1", "2"));
  await logged(node, /slow handler.*topic=callbacks:x event="?slow/);
  assert.equal(await node.metric("wingbeat_slow_handlers_total"), 1);
});

story("callbacks: a client that asks faster than it is answered is told so", async (stage) => {
  const node = await start(stage);
  const socket = await joined(stage, node, "a");
  socket.send(["1", "slow", TOPIC, "slow", 500]);
  for (let i = 0; i < 1_200; i++) socket.send(["1", `${i}`, TOPIC, "now", {}]);
  const refused = await socket.frames.find("a refusal", (text) => text.includes("too many requests"));
  assert.equal(JSON.parse(refused)[2], TOPIC);
  const last = await socket.frames.find("the answer of one that waited", (text) => text.includes('"999"') || text.includes('"900"'));
  assert.equal(JSON.parse(last)[4].status, "ok");
});

story("callbacks: terminate runs for everyone, and hears why", async (stage) => {
  const node = await start(stage);
  const watcher = await joined(stage, node, "watcher");
  const ended = async (reason, end) => {
    const socket = await joined(stage, node, "a");
    await end(socket);
    assert.deepEqual(await watcher.until("ended"), broadcast("ended", { name: "a", reason }));
  };
  await ended("Left", (socket) => socket.send(["1", "2", TOPIC, "phx_leave", {}]));
  await ended("Replaced", async (socket) => {
    await socket.ask(["2", "2", TOPIC, "phx_join", {}]);
  });
  await ended("Stopped", (socket) => socket.send(["1", "2", TOPIC, "stop_in_info", {}]));
  await ended("Closed", (socket) => socket.end());
  const named = await joined(stage, node, "b");
  await node.broadcast("named:b", "disconnect", {});
  assert.equal(await named.code(), 1001);
  assert.deepEqual(await watcher.until("ended"), broadcast("ended", { name: "b", reason: "Closed" }));
});

story("callbacks: a stopping node lets its channels say goodbye", async (stage) => {
  const nodes = await stage.cluster(2, { binary: BINARY });
  const watcher = await joined(stage, nodes[1], "watcher");
  await joined(stage, nodes[0], "a");
  await nodes[0].stop();
  assert.deepEqual(await watcher.until("ended"), broadcast("ended", { name: "a", reason: "NodeStopping" }));
});
