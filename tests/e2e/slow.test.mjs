// Clients that read too slowly, by their channel's policy; and frames that are compressed for all.

import assert from "node:assert/strict";

import { story } from "./lib/stage.mjs";
import { until } from "./lib/until.mjs";

const ROOM = "room:x";
/** More than the system's own buffers and a mailbox hold. */
const MESSAGES = 400;
const PADDING = "x".repeat(60_000);

/** A node with the policy, and two clients on it: one that reads and one that has stopped. */
async function stalled(stage, overflow) {
  const rule = `[[channel]]\ntopic = "room:*"\npresence = "off"\noverflow = "${overflow}"\n`;
  const node = await stage.alone({ config: rule });
  const [reader, sleeper] = [await stage.raw(node), await stage.raw(node)];
  for (const socket of [reader, sleeper]) await socket.join(ROOM, { state: false });
  sleeper.stopReading();
  return { node, reader, sleeper };
}

/** Publishes numbered messages and waits until the reader has all of them, in order. */
async function publish(node, reader, event = () => "tick") {
  for (let n = 0; n < MESSAGES; n++) {
    await node.broadcast(ROOM, event(n), { n, padding: PADDING });
    const [, , , , payload] = await reader.next();
    assert.equal(payload.n, n, "who reads misses nothing");
  }
}

/** The numbers that a socket has got when the last message is among them. */
async function numbers(socket) {
  const got = [];
  while (got.at(-1) !== MESSAGES - 1) got.push((await socket.next())[4].n);
  return got;
}

const ascending = (list) => list.every((n, i) => i === 0 || list[i - 1] < n);

story("with drop_oldest it goes on with the newest, in order, and what it missed is counted", async (stage) => {
  const { node, reader, sleeper } = await stalled(stage, "drop_oldest");
  await publish(node, reader);
  sleeper.ws.resume();
  const got = await numbers(sleeper);
  assert.ok(ascending(got), "in order");
  const dropped = await node.metric('wingbeat_deliveries_dropped_total{reason="drop_oldest"}');
  assert.equal(got.length + dropped, MESSAGES, "all are accounted for");
  assert.ok(dropped > 10, `${dropped} dropped`);
  const reply = await sleeper.ask([null, "9", "phoenix", "heartbeat", {}]);
  assert.equal(reply[4].status, "ok", "the socket lives");
});

story("with conflate it gets the last of each event", async (stage) => {
  const { node, reader, sleeper } = await stalled(stage, "conflate");
  await node.broadcast(ROOM, "rare", { n: -1 });
  await reader.next();
  await publish(node, reader, (n) => (n % 2 ? "odd" : "even"));
  sleeper.ws.resume();
  const got = await numbers(sleeper);
  assert.ok(ascending(got), "in order");
  assert.ok(got.includes(MESSAGES - 2), "the last of the other event too");
  const dropped = await node.metric('wingbeat_deliveries_dropped_total{reason="conflate"}');
  assert.equal(got.length + dropped, MESSAGES + 1, "all are accounted for");
});

story("frames are compressed for clients that ask for it, where the configuration allows it", async (stage) => {
  const node = await stage.alone({ config: "[http]\ncompression = true\n" });
  const asks = await stage.raw(node, { perMessageDeflate: true });
  const plain = await stage.raw(node, { perMessageDeflate: false });
  assert.match(asks.ws.extensions, /permessage-deflate/);
  assert.equal(plain.ws.extensions, "");
  for (const socket of [asks, plain]) await socket.join(ROOM);
  const body = { text: "wingbeat ".repeat(1000) };
  asks.send(["1", "2", ROOM, "say", body]);
  for (const socket of [asks, plain]) {
    const said = await socket.until("say");
    assert.deepEqual(said, [null, null, ROOM, "say", body]);
  }
  const { bytesRead } = asks.ws._socket;
  assert.ok(bytesRead < 3_000, `${bytesRead} bytes for 9,000`);
});

story("nothing is compressed unless the configuration says so", async (stage) => {
  const node = await stage.alone();
  const socket = await stage.raw(node, { perMessageDeflate: true });
  assert.equal(socket.ws.extensions, "");
});

story("a publisher that floods is told so, and others hear what it may say, and each other", async (stage) => {
  const rule = `[limits]\nevents_per_second = 50\n[[channel]]\ntopic = "room:*"\npresence = "off"\n`;
  const node = await stage.alone({ config: rule });
  const [flooder, polite, listener] = [await stage.raw(node), await stage.raw(node), await stage.raw(node)];
  for (const socket of [flooder, polite, listener]) await socket.join(ROOM, { state: false });
  const sent = 2_000;
  for (let n = 0; n < sent; n++) flooder.send(["1", `${n}`, ROOM, "flood", { n }]);
  polite.send(["1", "2", ROOM, "say", { text: "hello" }]);
  assert.equal((await polite.until("phx_reply"))[4].status, "ok");

  const answers = [];
  while (answers.length < sent) {
    const [, , , event, payload] = await flooder.next();
    if (event === "phx_reply") answers.push(payload);
  }
  const refused = answers.filter(({ status }) => status === "error");
  assert.ok(refused.length > sent / 2, `${refused.length} refused`);
  assert.ok(refused.every(({ response }) => response.reason === "too many requests"));
  assert.equal(await node.metric('wingbeat_events_refused_total{reason="rate"}'), refused.length);

  const heard = [];
  for (let n = 0; n < sent - refused.length + 1; n++) heard.push((await listener.next())[3]);
  assert.equal(heard.filter((event) => event === "say").length, 1, "the polite one is heard");
});

story("a peer that stalls costs nobody else a message, and what it misses is bounded and counted", async (stage) => {
  // What waited for it comes all at once, which a client on a busy machine need not keep up with.
  const rule = `[[channel]]\ntopic = "room:*"\npresence = "off"\noverflow = "drop_oldest"\n`;
  const nodes = await stage.cluster(3, { config: rule });
  const sockets = [];
  for (const node of nodes) {
    const socket = await stage.raw(node);
    await socket.join(ROOM, { state: false });
    sockets.push(socket);
  }
  const [near, far, stalled] = sockets;
  nodes[2].process.signal("SIGSTOP");
  const before = await nodes[0].metric("process_resident_memory_bytes");
  for (let n = 0; n < MESSAGES; n++) {
    await nodes[0].broadcast(ROOM, "tick", { n, padding: PADDING });
    for (const socket of [near, far]) assert.equal((await socket.next())[4].n, n, "who reads misses nothing");
  }
  const grown = (await nodes[0].metric("process_resident_memory_bytes")) - before;
  nodes[2].process.signal("SIGCONT");
  assert.ok(grown < 64e6, `${grown} bytes more for the stalled peer`);
  await nodes[0].sees(["n1", "n2", "n3"], { seconds: 20 });

  const last = async () => {
    await nodes[0].broadcast(ROOM, "last", {});
    return (await stalled.until("last", { seconds: 1 }))[3] === "last";
  };
  await until("its clients hear again", last, { seconds: 20 });
  const dropped = (await nodes[0].call("/metrics")).text.split("\n").filter((line) =>
    /^wingbeat_(forward_dropped_total|lane_dropped_frames_total)/.test(line) && !line.endsWith(" 0"));
  assert.ok(dropped.length > 0, "what was dropped is counted");
});
