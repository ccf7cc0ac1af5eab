// The callbacks example: each callback of a channel at work, failing, and slow.

import assert from "node:assert/strict";

import { PollSession } from "./lib/longpoll.mjs";
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

/** Waits until the node has taken all that was sent before. */
async function heartbeat(socket) {
  socket.send([null, "beat", "phoenix", "heartbeat", {}]);
  await socket.frames.find("the heartbeat's answer", (text) => text.startsWith('[null,"beat"'));
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
  assert.equal(await node.metric("wingbeat_slow_handlers_total{channel=\"callbacks::Callbacks\"}"), 1);
});

story("callbacks: a handler that holds its thread is named while it does", async (stage) => {
  const node = await start(stage);
  const socket = await joined(stage, node, "a");
  socket.send(["1", "2", TOPIC, "block", 2_500]);
  await logged(node, /slow handler.*topic=callbacks:x event="?block/);
  assert.deepEqual(socket.frames.waiting, [], "it still runs");
  assert.deepEqual(await socket.next(), reply("1", "2"));
  assert.equal(await node.metric("wingbeat_slow_handlers_total{channel=\"callbacks::Callbacks\"}"), 1);
});

// --- more than a channel can take -------------------------------------------------------------------

const MANY = 5_000;
const numbered = (from, to, event = "now") =>
  Array.from({ length: to - from }, (_, i) => ["1", `${from + i}`, TOPIC, event, { n: from + i }]);
const answered = async (next, from, to) => {
  for (let n = from; n < to; n++) assert.deepEqual(await next(), reply("1", `${n}`, ok({ n })));
};

story("callbacks: a WebSocket client that asks faster than it is answered waits, and loses nothing", async (stage) => {
  const node = await start(stage);
  const [socket, other] = [await joined(stage, node, "a"), await joined(stage, node, "b")];
  socket.send(["1", "slow", TOPIC, "slow", 700]);
  for (const push of numbered(0, MANY)) socket.send(push);
  assert.deepEqual(await other.ask(["1", "9", TOPIC, "now", {}]), reply("1", "9"), "others do not wait");
  assert.deepEqual(await socket.next(), reply("1", "slow"));
  await answered(() => socket.next(), 0, MANY);
  assert.equal(await node.metric('wingbeat_events_refused_total{reason="rule"}'), 0);
});

story("callbacks: a TCP client that asks faster than it is answered waits, and loses nothing", async (stage) => {
  const node = await stage.alone({ binary: BINARY, tcpListen: "127.0.0.1:0" });
  const socket = await TcpSocket.connect(stage, node, { params: { name: "a" } });
  assert.deepEqual(await socket.ask(["1", "1", TOPIC, "phx_join", {}]), reply("1", "1"));
  socket.send(["1", "slow", TOPIC, "slow", 500]);
  for (const push of numbered(0, MANY)) socket.send(push);
  assert.deepEqual(await socket.next(), reply("1", "slow"));
  await answered(() => socket.next(), 0, MANY);
});

story("callbacks: a POST is answered once its channel has room for all of it", async (stage) => {
  const node = await start(stage);
  const session = await PollSession.open(node, { name: "a" });
  await session.post(node, ["1", "1", TOPIC, "phx_join", {}]);
  await session.until(node, (message) => message[1] === "1");
  await session.post(node, ["1", "slow", TOPIC, "slow", 700]);
  const begun = Date.now();
  const payload = "x".repeat(10_000);
  const big = (n) => ["1", `${n}`, TOPIC, "now", { payload }];
  const posted = session.post(node, ...Array.from({ length: 60 }, (_, n) => big(n)));
  const heard = session.until(node, (message) => message[1] === "59");
  assert.equal(await posted, 200);
  assert.ok(Date.now() - begun > 400, "not before the handler was done");
  const refs = (await heard).map((message) => [message[1], message[4].status]);
  assert.deepEqual(refs, [["slow", "ok"], ...Array.from({ length: 60 }, (_, n) => [`${n}`, "ok"])]);
});

story("callbacks: pushes that wait for a join, more than a channel can take, all are done", async (stage) => {
  const node = await start(stage);
  const socket = await open(stage, node, "a");
  socket.send(["1", "1", TOPIC, "phx_join", { slow: 200 }]);
  for (const push of numbered(0, 60)) socket.send(push);
  assert.deepEqual(await socket.next(), reply("1", "1"));
  await answered(() => socket.next(), 0, 60);
});

story("callbacks: a client whose channel is busy is not idle", async (stage) => {
  const node = await stage.alone({ binary: BINARY, env: { WINGBEAT_HTTP__IDLE_TIMEOUT: "1s" } });
  const socket = await joined(stage, node, "a");
  socket.send(["1", "slow", TOPIC, "slow", 3_000]);
  for (const push of numbered(0, MANY)) socket.send(push);
  assert.deepEqual(await socket.next({ seconds: 6 }), reply("1", "slow"));
  await answered(() => socket.next(), 0, MANY);
  assert.equal(await socket.code(), 1002, "now it is");
});

story("callbacks: a channel that ends while its client waits lets it go on", async (stage) => {
  const node = await start(stage);
  const socket = await joined(stage, node, "a");
  socket.send(["1", null, TOPIC, "slow", 300]);
  socket.send(["1", null, TOPIC, "error", {}]);
  for (const push of numbered(0, MANY)) socket.send(push);
  await heartbeat(socket);
  assert.deepEqual(await socket.ask(["2", "2", TOPIC, "phx_join", {}]), reply("2", "2"));
});

// --- the end ----------------------------------------------------------------------------------------

for (const [how, end] of [
  ["closes", (socket) => socket.ws.close(1000)],
  ["leaves", (socket) => socket.send(["1", null, TOPIC, "phx_leave", {}])],
]) {
  story(`callbacks: a client that pushes and ${how} has pushed`, async (stage) => {
    const node = await start(stage);
    const [member, socket] = [await joined(stage, node, "member"), await joined(stage, node, "a")];
    socket.send(["1", "slow", TOPIC, "slow", 300]);
    for (let n = 0; n < 900; n++) socket.send(["1", null, TOPIC, "price", { n }]);
    await end(socket);
    const heard = { price: [], ended: [] };
    while (heard.price.length < 900 || heard.ended.length < 1) {
      const [, , , event, payload] = await member.next();
      heard[event].push(payload);
    }
    assert.deepEqual(heard.price, Array.from({ length: 900 }, (_, n) => ({ n })));
    assert.deepEqual(heard.ended, [{ name: "a", reason: how === "closes" ? "Closed" : "Left" }]);
  });
}

story("callbacks: a stopping node does what was pushed before", async (stage) => {
  const nodes = await stage.cluster(2, { binary: BINARY });
  const [member, socket] = [await joined(stage, nodes[1], "member"), await joined(stage, nodes[0], "a")];
  socket.send(["1", "slow", TOPIC, "slow", 500]);
  for (let n = 0; n < 500; n++) socket.send(["1", null, TOPIC, "price", { n }]);
  await heartbeat(socket);
  const stopped = nodes[0].stop();
  for (let n = 0; n < 500; n++) assert.deepEqual((await member.until("price"))[4], { n });
  await stopped;
});

story("callbacks: a handler that outlives its client is no crash", async (stage) => {
  const node = await start(stage);
  const [watcher, socket] = [await joined(stage, node, "watcher"), await joined(stage, node, "a")];
  socket.send(["1", "2", TOPIC, "slow_push", 300]);
  await heartbeat(socket);
  await socket.end();
  assert.deepEqual(await watcher.until("ended"), broadcast("ended", { name: "a", reason: "Closed" }));
  assert.equal(await node.metric("wingbeat_channel_crashes_total"), 0);
  assert.deepEqual(node.log.filter((line) => /ERROR/.test(line)), []);
  assert.deepEqual(await node.present(TOPIC), []);
});

story("callbacks: what a client sends is not in the log", async (stage) => {
  const node = await start(stage);
  const socket = await joined(stage, node, "a");
  assert.deepEqual(await socket.ask(["1", "2", TOPIC, "slow", "hunter2"]), crash("1"));
  await logged(node, /channel crashed: JSON of another shape than wanted, line 1 column 9.*event="?slow/);
  assert.deepEqual(node.log.filter((line) => line.includes("hunter2")), []);
});

story("callbacks: a join begins once the client's former channel of the topic has ended", async (stage) => {
  const node = await start(stage);
  const [member, socket] = [await joined(stage, node, "member"), await joined(stage, node, "a")];
  socket.send(["1", "2", TOPIC, "slow", 400]);
  socket.send(["3", "3", TOPIC, "phx_join", {}]);
  socket.send(["3", null, TOPIC, "price", { of: "the new one" }]);
  assert.deepEqual((await member.next())[3], "ended");
  assert.deepEqual((await member.next())[4], { of: "the new one" });
});

story("callbacks: a client that cannot be listed is refused, and its channel hears so", async (stage) => {
  const node = await start(stage);
  const [watcher, socket] = [await joined(stage, node, "watcher"), await open(stage, node, "a")];
  const join = ["1", "1", TOPIC, "phx_join", { key: "k".repeat(300) }];
  assert.deepEqual(await socket.ask(join), reply("1", "1", refusal("payload too large")));
  assert.deepEqual(await watcher.until("ended"), broadcast("ended", { name: "a", reason: "Refused" }));
  assert.deepEqual(await socket.ask(["2", "2", TOPIC, "phx_join", { key: "k" }]), reply("2", "2"));
});

story("callbacks: a client whose channels are slow to end is not listened to before some have", async (stage) => {
  const node = await stage.alone({ binary: BINARY, env: { WINGBEAT_LIMITS__CHANNELS_PER_SOCKET: "3" } });
  const socket = await open(stage, node, "a");
  const begun = Date.now();
  for (let n = 0; n < 4; n++) {
    const topic = `callbacks:${n}`;
    socket.send(["1", `j${n}`, topic, "phx_join", {}]);
    await socket.frames.find("the answer of the join", (text) => text.startsWith(`["1","j${n}"`));
    if (n === 2) assert.ok(Date.now() - begun < 600, "as many may be ending as may be joined");
    socket.send(["1", null, topic, "slow", 800]);
    socket.send(["1", null, topic, "phx_leave", {}]);
  }
  assert.ok(Date.now() - begun >= 800, "then one has to have ended");
  assert.equal(await node.metric("wingbeat_joins_refused_total"), 0);
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
