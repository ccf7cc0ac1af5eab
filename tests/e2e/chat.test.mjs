// Talk between clients of several nodes, by the official client.

import assert from "node:assert/strict";

import { story } from "./lib/stage.mjs";
import { until } from "./lib/until.mjs";

const ROOM = "room:lobby";

const rule = (text, topic = "*") => `[[channel]]\ntopic = "${topic}"\npresence = "off"\n${text}\n`;

story("a message on one node is heard once by clients of all three nodes", async (stage) => {
  const nodes = await stage.cluster(3);
  const rooms = [];
  for (const node of nodes) rooms.push(await (await stage.phoenix(node)).join(ROOM));
  for (const [i, room] of rooms.entries()) {
    const message = { from: `n${i + 1}`, text: "hellö 👋\u2028", list: [1, null, { deep: true }] };
    assert.deepEqual(await room.push("message", message), { status: "ok", response: {} });
    for (const listener of rooms) assert.deepEqual(await listener.next("message"), message);
  }
  for (const room of rooms) assert.deepEqual(room.waiting("message"), []);
});

story("the sender hears its own message before the reply", async (stage) => {
  const node = await stage.alone();
  const room = await (await stage.phoenix(node)).join(ROOM);
  for (let i = 0; i < 20; i++) await room.push("message", { i });
  const order = room.order.map(({ event }) => event).filter((event) => ["message", "phx_reply"].includes(event));
  const expected = ["phx_reply", ...Array.from({ length: 20 }, () => ["message", "phx_reply"]).flat()];
  assert.deepEqual(order, expected);
});

story("500 messages of one publisher arrive everywhere in its order", async (stage) => {
  const nodes = await stage.cluster(3);
  const rooms = [];
  for (const node of nodes) rooms.push(await (await stage.phoenix(node)).join(ROOM));
  for (let i = 0; i < 500; i++) rooms[0].send("message", { i });
  const expected = Array.from({ length: 500 }, (_, i) => i);
  for (const room of rooms) {
    await until("all 500 messages", () => room.waiting("message").length >= 500);
    assert.deepEqual(room.waiting("message").map(({ i }) => i), expected);
  }
});

story("two publishers on two nodes each keep their order", async (stage) => {
  const nodes = await stage.cluster(3);
  const rooms = [];
  for (const node of nodes) rooms.push(await (await stage.phoenix(node)).join(ROOM));
  for (let i = 0; i < 200; i++) {
    rooms[0].send("message", { from: 0, i });
    rooms[1].send("message", { from: 1, i });
  }
  const expected = Array.from({ length: 200 }, (_, i) => i);
  for (const room of rooms) {
    await until("all 400 messages", () => room.waiting("message").length >= 400);
    for (const from of [0, 1]) {
      const heard = room.waiting("message").filter((message) => message.from === from);
      assert.deepEqual(heard.map(({ i }) => i), expected);
    }
  }
});

story("whoever has joined misses nothing that is published on another node from then on", async (stage) => {
  const [first, second] = await stage.cluster(2);
  const client = await stage.phoenix(second);
  for (let i = 0; i < 20; i++) {
    const room = await client.join(`room:${i}`);
    await first.broadcast(`room:${i}`, "message", { i });
    assert.deepEqual(await room.next("message"), { i });
  }
});

story("messages of one topic do not reach another", async (stage) => {
  const node = await stage.alone();
  const client = await stage.phoenix(node);
  const [one, two] = [await client.join("room:1"), await client.join("room:2")];
  await one.push("message", { to: 1 });
  await two.push("message", { to: 2 });
  assert.deepEqual(await two.next("message"), { to: 2 });
  assert.deepEqual(one.waiting("message"), [{ to: 1 }]);
});

story("deliver = \"others\" leaves out the sender's own channel and nobody else", async (stage) => {
  const [first, second] = await stage.cluster(2, { config: rule('deliver = "others"') });
  const sender = await (await stage.phoenix(first, { user: "ann" })).join(ROOM);
  const sameUser = await (await stage.phoenix(first, { user: "ann" })).join(ROOM);
  const remote = await (await stage.phoenix(second, { user: "ann" })).join(ROOM);
  assert.equal((await sender.push("message", { n: 1 })).status, "ok");
  assert.deepEqual(await sameUser.next("message"), { n: 1 });
  assert.deepEqual(await remote.next("message"), { n: 1 });
  await first.broadcast(ROOM, "message", { n: 2 });
  assert.deepEqual(await sender.next("message"), { n: 2 }, "a broadcast over the API has no sender");
});

story("ack = false answers no push, and refusals still", async (stage) => {
  const node = await stage.alone({ config: rule("ack = false") });
  const socket = await stage.raw(node);
  await socket.join(ROOM, { state: false });
  assert.deepEqual(await socket.ask(["1", "2", ROOM, "message", { n: 1 }]), [null, null, ROOM, "message", { n: 1 }]);
  socket.send(["1", "3", ROOM, "message", { n: 2 }]);
  socket.send(["1", "4", ROOM, "presence_diff", {}]);
  assert.deepEqual(await socket.next(), [null, null, ROOM, "message", { n: 2 }]);
  assert.deepEqual(await socket.next(), ["1", "4", ROOM, "phx_reply", { response: { reason: "reserved event" }, status: "error" }]);
});

story("publish = \"nobody\" leaves publishing to the API", async (stage) => {
  const node = await stage.alone({ config: rule('publish = "nobody"') });
  const room = await (await stage.phoenix(node)).join(ROOM);
  assert.deepEqual(await room.push("message", {}), { status: "error", response: { reason: "unauthorized" } });
  await node.broadcast(ROOM, "message", { from: "api" });
  assert.deepEqual(await room.next("message"), { from: "api" });
});

story("after leaving, a topic's messages come no more", async (stage) => {
  const node = await stage.alone();
  const client = await stage.phoenix(node);
  const [left, kept] = [await client.join("room:left"), await client.join("room:kept")];
  assert.equal((await left.leave()).status, "ok");
  await node.broadcast("room:left", "message", {});
  await node.broadcast("room:kept", "message", {});
  await kept.next("message");
  assert.deepEqual(left.waiting("message"), []);
});

story("a topic that no rule matches cannot be joined", async (stage) => {
  const node = await stage.alone({ config: rule("", "room:*") });
  const client = await stage.phoenix(node);
  await client.join(ROOM);
  await assert.rejects(client.join("lobby"), /unmatched topic/);
});

story("the first rule that matches decides", async (stage) => {
  const config = rule('publish = "nobody"', "room:news") + rule("", "room:*");
  const client = await stage.phoenix(await stage.alone({ config }));
  const [news, talk] = [await client.join("room:news"), await client.join("room:talk")];
  assert.equal((await news.push("message")).status, "error");
  assert.equal((await talk.push("message")).status, "ok");
});

story("bad topics are refused to the one who asks and to nobody else", async (stage) => {
  const node = await stage.alone();
  const client = await stage.phoenix(node);
  const room = await client.join(ROOM);
  for (const topic of ["", "x".repeat(513), "a\u0000b", "a\nb"]) {
    await assert.rejects(client.join(topic), /invalid topic/, JSON.stringify(topic));
  }
  for (const topic of ["users_socket:ann", "$node"]) await assert.rejects(client.join(topic), /unauthorized/);
  assert.equal((await room.push("message")).status, "ok");
});

story("a payload of any JSON is relayed byte for byte", async (stage) => {
  const [first, second] = await stage.cluster(2);
  const sender = await stage.raw(first);
  const listener = await stage.raw(second);
  await sender.join(ROOM);
  await listener.join(ROOM);
  for (const payload of ['{"b":1, "a":1.0e2,"b":"\\u00e9" }', "[ 1 ]", '"text"', "12345678901234567890.1", "null", "true"]) {
    sender.send(`["1","7","${ROOM}","message",${payload}]`);
    const frame = await listener.frames.find("the message", (text) => text.includes('"message"'));
    assert.equal(frame, `[null,null,"${ROOM}","message",${payload}]`);
  }
});
