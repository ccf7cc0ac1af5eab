// Binary frames: from push to broadcast over the cluster, beside text on one socket, and what is none.

import assert from "node:assert/strict";

import { Events } from "./lib/events.mjs";
import { story } from "./lib/stage.mjs";
import { until } from "./lib/until.mjs";

const ROOM = "room:x";
const QUIET = '[[channel]]\ntopic = "*"\npresence = "off"\n';
const BYTES = Uint8Array.from({ length: 256 }, (_, i) => i);

const reply = (joinRef, ref, topic, response = {}, status = "ok") => [joinRef, ref, topic, "phx_reply", { response, status }];

/** The frame of a push. */
function push(joinRef, ref, topic, event, data) {
  const names = [joinRef, ref, topic, event].map((name) => Buffer.from(name));
  return Buffer.concat([Buffer.from([0, ...names.map((name) => name.length)]), ...names, Buffer.from(data)]);
}

/** The frame of a broadcast. */
function broadcast(topic, event, data) {
  const names = [topic, event].map((name) => Buffer.from(name));
  return Buffer.concat([Buffer.from([2, ...names.map((name) => name.length)]), ...names, Buffer.from(data)]);
}

/** What has no form for somebody on this node. */
const formless = async (node) => await node.metric('wingbeat_deliveries_dropped_total{reason="binary"}');

story("the official client's bytes reach all clients of all nodes, among its texts and in their order", async (stage) => {
  const nodes = await stage.cluster(3, { config: QUIET });
  const rooms = [];
  for (const node of nodes) rooms.push(await (await stage.phoenix(node)).join(ROOM));
  const [sender] = rooms;
  assert.deepEqual(await sender.push("sample", BYTES.buffer), { status: "ok", response: {} });
  await sender.push("message", { n: 1 });
  await sender.push("sample", new ArrayBuffer(0));
  await sender.push("message", { n: 2 });
  for (const room of rooms) {
    const heard = [];
    for (let i = 0; i < 4; i++) heard.push(await room.heard.next("a broadcast"));
    assert.deepEqual(heard.map(({ event }) => event), ["sample", "message", "sample", "message"]);
    assert.ok(heard[0].payload instanceof ArrayBuffer);
    assert.deepEqual(new Uint8Array(heard[0].payload), BYTES);
    assert.equal(heard[2].payload.byteLength, 0);
    assert.deepEqual([heard[1].payload, heard[3].payload], [{ n: 1 }, { n: 2 }]);
  }
  for (const node of nodes) assert.equal(await formless(node), 0);
});

story("a large binary push of another node arrives whole", async (stage) => {
  const nodes = await stage.cluster(2, { config: QUIET });
  const [here, there] = [await (await stage.phoenix(nodes[0])).join(ROOM), await (await stage.phoenix(nodes[1])).join(ROOM)];
  const large = new Uint8Array(900_000).map((_, i) => (i * 7) % 251);
  await there.push("blob", large.buffer);
  assert.deepEqual(new Uint8Array(await here.next("blob")), large);
});

story("who reads text alone hears the texts only, and what was left out is counted", async (stage) => {
  const nodes = await stage.cluster(2, { config: QUIET });
  const old = await (await stage.phoenix(nodes[1], { v1: true })).join(ROOM);
  const events = await Events.open(stage, nodes[1], `/api/subscribe?topic=${ROOM}`);
  const fresh = await (await stage.phoenix(nodes[0])).join(ROOM);
  await fresh.push("sample", BYTES.buffer);
  await fresh.push("message", { after: "bytes" });
  assert.deepEqual((await old.heard.next("the text")).payload, { after: "bytes" });
  assert.deepEqual((await events.next()).data.payload, { after: "bytes" });
  assert.equal(await formless(nodes[0]), 0);
  await until("both are counted", async () => (await formless(nodes[1])) === 2);
});

story("the bytes of a push and its broadcast are those of Phoenix", async (stage) => {
  const node = await stage.alone({ config: QUIET });
  const [sender, other] = [await stage.raw(node), await stage.raw(node)];
  await sender.join(ROOM, { state: false });
  await other.join(ROOM, { joinRef: "77", state: false });
  sender.send(push("1", "12", ROOM, "sample", [0, 255]));
  const expected = Buffer.from([2, 6, 6, ...Buffer.from("room:xsample"), 0, 255]);
  assert.deepEqual(await sender.frames.next("its own copy"), expected);
  assert.deepEqual(await sender.next(), reply("1", "12", ROOM));
  assert.deepEqual(await other.frames.next("the broadcast"), expected);
  sender.send(push("1", "13", ROOM, "é", []));
  assert.deepEqual(await other.frames.next("the broadcast"), broadcast(ROOM, "é", []));
});

story("a compressing client gets bytes as they are, and its texts compressed", async (stage) => {
  const node = await stage.alone({ config: `[http]\ncompression = true\n${QUIET}` });
  const socket = await stage.raw(node, { perMessageDeflate: true });
  assert.match(socket.ws.extensions, /permessage-deflate/);
  await socket.join(ROOM, { state: false });
  const data = Buffer.alloc(500, 7);
  socket.send(push("1", "2", ROOM, "sample", data));
  assert.deepEqual(await socket.frames.next("the bytes"), broadcast(ROOM, "sample", data));
  assert.deepEqual(await socket.next(), reply("1", "2", ROOM));
});

story("refs of a binary frame are texts, never null, and its answers come as text", async (stage) => {
  const node = await stage.alone({ config: QUIET });
  const socket = await stage.raw(node);
  await socket.join(ROOM, { state: false });
  socket.send(push("", "2", ROOM, "message", [1]));
  socket.send(push("", "3", ROOM, "phx_leave", []));
  assert.deepEqual(await socket.ask(push("", "4", "phoenix", "heartbeat", [])), reply(null, "4", "phoenix"));
  assert.deepEqual(await socket.ask(push("", "", "phoenix", "heartbeat", [])), reply(null, "", "phoenix"));
  const unmatched = reply(null, "5", "room:y", { reason: "unmatched topic" }, "error");
  assert.deepEqual(await socket.ask(push("1", "5", "room:y", "message", [])), unmatched);
  const reserved = reply("1", "6", ROOM, { reason: "reserved event" }, "error");
  assert.deepEqual(await socket.ask(push("1", "6", ROOM, "presence_diff", [])), reserved);
  assert.deepEqual(await socket.ask(push("1", "7", ROOM, "phx_leave", [])), reply("1", "7", ROOM));
  assert.deepEqual(await socket.next(), ["1", "1", ROOM, "phx_close", {}]);
  assert.deepEqual(await socket.ask(push("8", "8", ROOM, "phx_join", [255])), reply("8", "8", ROOM));
});

story("a client of V1 may send its text in a binary frame", async (stage) => {
  const node = await stage.alone({ config: QUIET });
  const socket = await stage.raw(node, { vsn: "1.0.0" });
  socket.send(Buffer.from('{"topic":"phoenix","event":"heartbeat","payload":{},"ref":"4"}'));
  assert.equal((await socket.next()).ref, "4");
});

const WHOLE = push("1", "2", ROOM, "message", [1, 2, 3]);
for (const [what, frame, vsn] of [
  ["no byte", Buffer.alloc(0)],
  ["half a header", WHOLE.subarray(0, 3)],
  ["names cut short", WHOLE.subarray(0, 12)],
  ["a reply", Buffer.concat([Buffer.from([1]), WHOLE.subarray(1)])],
  ["a broadcast", broadcast(ROOM, "message", [])],
  ["an unknown kind", Buffer.from([200, 0, 0, 0, 0])],
  ["names that are no UTF-8", Buffer.from([0, 0, 0, 1, 1, 0xff, 0x41])],
  ["text of V2", Buffer.from('[null,"1","phoenix","heartbeat",{}]')],
  ["a push, to V1", WHOLE, "1.0.0"],
  ["no text, to V1", Buffer.from([0xff]), "1.0.0"],
]) {
  story(`a binary frame with ${what} ends that socket with 1011 and no other`, async (stage) => {
    const node = await stage.alone({ config: QUIET });
    const [bad, good] = [await stage.raw(node, { vsn: vsn ?? "2.0.0" }), await stage.raw(node)];
    await good.join(ROOM, { state: false });
    bad.send(frame);
    assert.equal(await bad.code(), 1011);
    good.send(WHOLE);
    assert.deepEqual(await good.frames.next("the broadcast"), broadcast(ROOM, "message", [1, 2, 3]));
  });
}
