// The rooms example: every answer that a channel of an application can give, on the wire.

import assert from "node:assert/strict";

import * as binary from "./lib/binary.mjs";
import { agree } from "./lib/phoenix.mjs";
import { example } from "./lib/process.mjs";
import { story } from "./lib/stage.mjs";
import { until } from "./lib/until.mjs";

const ROOM = "room:x";
const OK = { response: {}, status: "ok" };
const CRASH = { reason: "channel_crash" };
const BINARY = example("rooms");

const reply = (joinRef, ref, topic, payload = OK) => [joinRef, ref, topic, "phx_reply", payload];
const ok = (response) => ({ response, status: "ok" });
const refusal = (reason) => ({ response: { reason }, status: "error" });
const close = (ref, topic = ROOM) => [ref, ref, topic, "phx_close", {}];
const crash = (ref, topic = ROOM) => [ref, ref, topic, "phx_error", CRASH];

const rooms = (stage, settings) => stage.alone({ binary: BINARY, ...settings });

/** A socket that has joined a room as "1", without presence. */
async function joined(stage, node, { topic = ROOM, ...options } = {}) {
  const socket = await stage.raw(node, { user: "u1", ...options });
  const answer = await socket.ask(["1", "1", topic, "phx_join", { track: false }]);
  assert.deepEqual(answer, reply("1", "1", topic, ok({ joined: topic })));
  return socket;
}

// --- joins ----------------------------------------------------------------------------------------

story("rooms: a join is answered, then told who is there, the joiner too", async (stage) => {
  const node = await rooms(stage);
  const socket = await stage.raw(node, { user: "u1" });
  const answer = await socket.ask(["1", "1", ROOM, "phx_join", { name: "N1" }]);
  assert.deepEqual(answer, reply("1", "1", ROOM, ok({ joined: ROOM })));
  const [joinRef, ref, topic, event, state] = await socket.next();
  assert.deepEqual([joinRef, ref, topic, event], ["1", null, ROOM, "presence_state"]);
  const [meta] = state.u1.metas;
  assert.deepEqual([Object.keys(state), meta.name, typeof meta.online_at], [["u1"], "N1", "number"]);
  assert.deepEqual(Object.keys(meta).sort(), ["name", "online_at", "phx_ref"]);
});

story("rooms: a join is denied, crashes, or finds no channel, each with its reason", async (stage) => {
  const node = await rooms(stage);
  const socket = await joined(stage, node);
  const join = (ref, topic, payload = {}) => socket.ask([ref, ref, topic, "phx_join", payload]);
  assert.deepEqual(await join("2", "room:y", { deny: true }), reply("2", "2", "room:y", refusal("denied")));
  assert.deepEqual(await join("3", "room:crash"), reply("3", "3", "room:crash", refusal("join crashed")));
  assert.deepEqual(await join("4", "other:y"), reply(null, "4", "other:y", refusal("unmatched topic")));
  assert.deepEqual(await socket.ask(["1", "5", ROOM, "ping", {}]), reply("1", "5", ROOM));
  assert.equal(await node.metric("wingbeat_channel_crashes_total"), 1);
  assert.ok(node.log.some((line) => /panicked.*topic=room:crash event="?phx_join/.test(line)), node.log.join("\n"));
});

story("rooms: a bad token is refused, and a socket's id closes it", async (stage) => {
  const node = await rooms(stage);
  const path = "/socket/websocket?vsn=2.0.0&token=bad";
  const upgrade = {
    connection: "upgrade", upgrade: "websocket", "sec-websocket-version": "13", "sec-websocket-key": "AAAAAAAAAAAAAAAAAAAAAA==",
  };
  const { status, text } = await node.request(path, { headers: upgrade });
  assert.deepEqual([status, text], [403, ""]);
  const socket = await joined(stage, node);
  await node.broadcast("users_socket:u1", "disconnect", {});
  assert.equal(await socket.code(), 1001);
});

story("rooms: a second join of a topic answers first, then closes the former", async (stage) => {
  const socket = await joined(stage, await rooms(stage));
  const again = ["2", "3", ROOM, "phx_join", { track: false }];
  assert.deepEqual(await socket.ask(again), reply("2", "3", ROOM, ok({ joined: ROOM })));
  assert.deepEqual(await socket.next(), close("1"));
  socket.send(["1", "4", ROOM, "ping", { stale: true }]);
  assert.deepEqual(await socket.ask(["2", "5", ROOM, "ping", {}]), reply("2", "5", ROOM));
  assert.deepEqual(await socket.ask(["6", "6", ROOM, "phx_join", { deny: true }]), reply("6", "6", ROOM, refusal("denied")));
  assert.deepEqual(await socket.next(), close("2"), "a denied join closes the former too");
});

// --- events ---------------------------------------------------------------------------------------

story("rooms: each event is answered as it should be", async (stage) => {
  const socket = await joined(stage, await rooms(stage));
  const payload = { text: "hi", n: 1.5 };
  const ask = (ref, event) => socket.ask(["1", ref, ROOM, event, payload]);
  assert.deepEqual(await ask("2", "ping"), reply("1", "2", ROOM, ok(payload)));
  assert.deepEqual(await ask("3", "fail"), reply("1", "3", ROOM, refusal("fail")));
  assert.deepEqual(await ask("4", "shout"), [null, null, ROOM, "shout", payload]);
  assert.deepEqual(await ask("5", "shout_ack"), [null, null, ROOM, "shout", payload], "before its reply");
  assert.deepEqual(await socket.next(), reply("1", "5", ROOM));
  assert.deepEqual(await ask("6", "push_me"), ["1", null, ROOM, "pushed", payload]);
  socket.send(["1", "7", ROOM, "noreply", payload]);
  socket.send(["1", "8", ROOM, "others", payload]);
  assert.deepEqual(await ask("9", "ping"), reply("1", "9", ROOM, ok(payload)), "neither answered nor echoed");
});

story("rooms: others reaches another channel of the same user", async (stage) => {
  const node = await rooms(stage);
  const [one, two] = [await joined(stage, node), await joined(stage, node)];
  one.send(["1", "2", ROOM, "others", { n: 1 }]);
  assert.deepEqual(await two.next(), [null, null, ROOM, "others", { n: 1 }]);
  assert.deepEqual(await one.ask(["1", "3", ROOM, "ping", {}]), reply("1", "3", ROOM));
});

story("rooms: a stop closes the channel, after its reply if there is one", async (stage) => {
  const socket = await joined(stage, await rooms(stage));
  assert.deepEqual(await socket.ask(["1", "2", ROOM, "stop", {}]), reply("1", "2", ROOM));
  assert.deepEqual(await socket.next(), close("1"));
  assert.deepEqual(await socket.ask(["1", "3", ROOM, "ping", {}]), reply(null, "3", ROOM, refusal("unmatched topic")));
  await socket.ask(["4", "4", ROOM, "phx_join", { track: false }]);
  assert.deepEqual(await socket.ask(["4", "5", ROOM, "stop_noreply", {}]), close("4"));
});

story("rooms: a leave is answered after all that was asked before it", async (stage) => {
  const socket = await joined(stage, await rooms(stage));
  for (let n = 2; n < 50; n++) socket.send(["1", `${n}`, ROOM, "ping", { n }]);
  socket.send(["1", "50", ROOM, "phx_leave", {}]);
  for (let n = 2; n < 50; n++) assert.deepEqual(await socket.next(), reply("1", `${n}`, ROOM, ok({ n })));
  assert.deepEqual(await socket.next(), reply("1", "50", ROOM));
  assert.deepEqual(await socket.next(), close("1"));
});

for (const [what, event, payload] of [
  ["a panic", "crash", {}],
  ["an unknown event", "dance", {}],
  ["an event that is no string", 7, {}],
  ["an array where an object is wanted", "shout", []],
  ["JSON where bytes are wanted", "bin", {}],
  ["an update of what is not tracked", "update_meta", {}],
]) {
  story(`rooms: ${what} crashes that channel and nothing else`, async (stage) => {
    const node = await rooms(stage);
    const socket = await joined(stage, node);
    const other = await joined(stage, node);
    assert.deepEqual(await socket.ask(["2", "2", "room:y", "phx_join", { track: false }]), reply("2", "2", "room:y", ok({ joined: "room:y" })));
    assert.deepEqual(await socket.ask(["1", "3", ROOM, event, payload]), crash("1"));
    assert.deepEqual(await socket.ask(["2", "4", "room:y", "ping", {}]), reply("2", "4", "room:y"));
    assert.deepEqual(await other.ask(["1", "5", ROOM, "ping", {}]), reply("1", "5", ROOM));
    assert.deepEqual(await socket.ask(["6", "6", ROOM, "phx_join", { track: false }]), reply("6", "6", ROOM, ok({ joined: ROOM })));
  });
}

story("rooms: V1 clients get the same in their frames", async (stage) => {
  const socket = await stage.raw(await rooms(stage), { vsn: "1.0.0", user: "u1" });
  const frame = (event, payload, ref) => ({ topic: ROOM, event, payload, ref });
  assert.deepEqual(await socket.ask(frame("phx_join", { track: false }, "1")), frame("phx_reply", ok({ joined: ROOM }), "1"));
  assert.deepEqual(await socket.ask(frame("ping", { a: 1 }, "2")), frame("phx_reply", ok({ a: 1 }), "2"));
  const pushed = await socket.ask(frame("push_me", { a: 1 }, "3"));
  assert.deepEqual([pushed.event, pushed.payload, pushed.ref], ["pushed", { a: 1 }, null]);
  assert.deepEqual(await socket.ask(frame("crash", {}, "4")), frame("phx_error", CRASH, "1"));
});

// --- bytes ----------------------------------------------------------------------------------------

story("rooms: bytes are echoed, refused, pushed and broadcast as bytes", async (stage) => {
  const node = await rooms(stage);
  const [socket, other] = [await joined(stage, node), await joined(stage, node)];
  const v1 = await stage.raw(node, { vsn: "1.0.0" });
  await v1.ask({ topic: ROOM, event: "phx_join", payload: { track: false }, ref: "1" });
  const data = [0, 255, 1, 254];
  const ask = async (ref, event) => {
    socket.send(binary.push("1", ref, ROOM, event, data));
    return binary.read(await socket.frames.next("a binary frame"));
  };
  const answer = { kind: "reply", joinRef: "1", topic: ROOM, data };
  assert.deepEqual(await ask("2", "bin"), { ...answer, ref: "2", status: "ok" });
  assert.deepEqual(await ask("3", "bin_err"), { ...answer, ref: "3", status: "error" });
  assert.deepEqual(await ask("4", "bin_push"), { kind: "push", joinRef: "1", topic: ROOM, event: "bin_pushed", data });
  const broadcast = { kind: "broadcast", topic: ROOM, event: "bin_shout", data };
  assert.deepEqual(await ask("5", "bin_shout"), broadcast);
  assert.deepEqual(binary.read(await other.frames.next("the broadcast")), broadcast);
  const ping = { topic: ROOM, event: "ping", payload: {}, ref: "2" };
  assert.equal((await v1.ask(ping)).event, "phx_reply", "a V1 client gets no bytes");
  socket.send(binary.push("1", "6", ROOM, "shout", data));
  assert.deepEqual(await socket.next(), crash("1"));
});

// --- presence -------------------------------------------------------------------------------------

story("rooms: a meta is updated and taken off, and the others see it", async (stage) => {
  const node = await rooms(stage);
  const socket = await stage.raw(node, { user: "u1" });
  const [, state] = await socket.join(ROOM, { payload: { name: "N1" } });
  const former = state[4].u1.metas[0].phx_ref;
  const watcher = await stage.raw(node, { user: "u2" });
  await watcher.join(ROOM);
  socket.send(["1", "2", ROOM, "update_meta", { mood: "fine" }]);
  const updated = JSON.parse(await watcher.frames.find("the update", (text) => text.includes("mood")))[4];
  const [meta] = updated.joins.u1.metas;
  assert.deepEqual([meta.name, meta.mood, meta.phx_ref_prev], ["N1", "fine", former]);
  assert.equal(updated.leaves.u1.metas[0].phx_ref, former);
  socket.send(["1", "3", ROOM, "untrack", {}]);
  const gone = JSON.parse(await watcher.frames.find("the leave", (text) => text.includes('"leaves":{"u1"') && !text.includes('"joins":{"u1"')))[4];
  assert.equal(gone.leaves.u1.metas[0].phx_ref, meta.phx_ref);
  socket.send(["1", "4", ROOM, "update_meta", {}]);
  assert.deepEqual(await socket.until("phx_error"), crash("1"));
});

story("rooms: who crashes, stops or goes is listed no more", async (stage) => {
  const node = await rooms(stage);
  for (const [user, end] of [
    ["crasher", (socket) => socket.send(["1", "2", ROOM, "crash", {}])],
    ["stopper", (socket) => socket.send(["1", "2", ROOM, "stop", {}])],
    ["leaver", (socket) => socket.send(["1", "2", ROOM, "phx_leave", {}])],
    ["goer", (socket) => socket.end()],
  ]) {
    const socket = await stage.raw(node, { user });
    await socket.join(ROOM);
    assert.deepEqual(await node.present(ROOM), [user]);
    end(socket);
    await until(`${user} is gone`, async () => (await node.present(ROOM)).length === 0);
  }
});

story("rooms: bench topics have their own rules", async (stage) => {
  const socket = await stage.raw(await rooms(stage), { user: "u1" });
  assert.deepEqual(await socket.ask(["1", "1", "bench:1", "phx_join", {}]), reply("1", "1", "bench:1"));
  assert.deepEqual(await socket.ask(["1", "2", "bench:1", "shout_ack", { n: 1 }]), [null, null, "bench:1", "shout", { n: 1 }]);
  assert.deepEqual(await socket.next(), reply("1", "2", "bench:1"));
  assert.deepEqual(await socket.ask(["3", "3", "pbench:1", "phx_join", { user_id: "other" }]), reply("3", "3", "pbench:1"));
  const state = await socket.until("presence_state");
  assert.deepEqual(Object.keys(state[4]), ["other"]);
  assert.deepEqual(Object.keys(state[4].other.metas[0]).sort(), ["online_at", "phx_ref"]);
  socket.send(["3", "4", "pbench:1", "ping", {}]);
  assert.deepEqual(await socket.until("phx_reply"), reply("3", "4", "pbench:1"));
  socket.send(["3", "5", "pbench:1", "shout", {}]);
  assert.deepEqual(await socket.until("phx_error"), crash("3", "pbench:1"));
});

// --- several nodes, the official client ---------------------------------------------------------------

story("rooms: three nodes with the official client show one roster and hear each other", async (stage) => {
  const nodes = await stage.cluster(3, { binary: BINARY });
  const clients = [];
  for (const [i, node] of nodes.entries()) clients.push(await stage.phoenix(node, { user: `u${i}` }));
  const channels = [];
  for (const client of clients) channels.push(await client.join(ROOM, { name: "N" }));
  await agree(channels, ["u0", "u1", "u2"]);
  assert.deepEqual(await channels[0].push("ping", { n: 1 }), { status: "ok", response: { n: 1 } });
  assert.deepEqual(await channels[1].push("shout_ack", { n: 2 }), { status: "ok", response: {} });
  for (const channel of channels) assert.deepEqual(await channel.next("shout"), { n: 2 });
  channels[2].send("others", { n: 3 });
  for (const channel of channels.slice(0, 2)) assert.deepEqual(await channel.next("others"), { n: 3 });
  assert.deepEqual(await channels[2].push("update_meta", { mood: "fine" }), { status: "ok", response: {} });
  await until("all see the mood", () => channels.every((channel) => channel.roster.u2?.[0].mood === "fine"));
  await clients[1].end();
  await agree([channels[0], channels[2]], ["u0", "u2"]);
});

story("rooms: the official client joins anew after a crash", async (stage) => {
  const node = await rooms(stage);
  const client = await stage.phoenix(node, { user: "u1" });
  const channel = await client.join(ROOM, {});
  channel.send("crash");
  await channel.heard.find("the crash", ({ event }) => event === "phx_error");
  await until("it is joined again", () => channel.channel.state === "joined");
  assert.deepEqual(await channel.push("ping", { n: 1 }), { status: "ok", response: { n: 1 } });
});

// --- many -----------------------------------------------------------------------------------------

story("rooms: ten thousand channels on a hundred sockets answer, hear, and are gone with them", async (stage) => {
  const node = await rooms(stage);
  const numbers = Array.from({ length: 100 }, (_, i) => i);
  const sockets = await Promise.all(numbers.map((n) => stage.raw(node, { user: `u${n}` })));
  const topics = numbers.map((n) => `room:${n}`);
  const each = (ask) => Promise.all(sockets.map((socket) => ask(socket)));

  await each(async (socket) => {
    topics.forEach((topic, n) => socket.send([`${n}`, `${n}`, topic, "phx_join", { track: false }]));
    for (const _ of topics) assert.equal((await socket.next({ seconds: 20 }))[4].status, "ok");
  });
  assert.equal(await node.metric("wingbeat_subscriptions"), 10_000);
  assert.deepEqual(await sockets[0].ask(["x", "x", "room:more", "phx_join", {}]),
    reply("x", "x", "room:more", refusal("too many channels joined")));

  await each(async (socket) => {
    topics.forEach((topic, n) => socket.send([`${n}`, "p", topic, "ping", { n }]));
    const answers = [];
    for (const _ of topics) answers.push(await socket.next({ seconds: 20 }));
    answers.sort(([, , , , one], [, , , , other]) => one.response.n - other.response.n);
    assert.deepEqual(answers, topics.map((topic, n) => reply(`${n}`, "p", topic, ok({ n }))));
  });
  sockets[7].send(["42", "s", "room:42", "shout", { from: 7 }]);
  await each(async (socket) => assert.deepEqual(await socket.next(), [null, null, "room:42", "shout", { from: 7 }]));

  await each((socket) => socket.end());
  for (const name of ["wingbeat_sockets", "wingbeat_subscriptions", "wingbeat_topics"]) {
    await until(`${name} is 0`, async () => (await node.metric(name)) === 0);
  }
});
