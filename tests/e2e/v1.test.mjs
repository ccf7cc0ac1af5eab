// Clients that speak the older frames, objects, beside those that speak arrays.

import assert from "node:assert/strict";

import { agree } from "./lib/phoenix.mjs";
import { story } from "./lib/stage.mjs";

const ROOM = "room:lobby";

story("the official client with V1 frames talks to one with V2 frames on another node", async (stage) => {
  const nodes = await stage.cluster(2);
  const old = await (await stage.phoenix(nodes[0], { user: "old", v1: true })).join(ROOM);
  const fresh = await (await stage.phoenix(nodes[1], { user: "fresh" })).join(ROOM);
  assert.deepEqual(await old.push("message", { from: "old" }), { status: "ok", response: {} });
  assert.deepEqual(await fresh.next("message"), { from: "old" });
  assert.deepEqual(await old.next("message"), { from: "old" });
  await fresh.push("message", { from: "fresh" });
  assert.deepEqual(await old.next("message"), { from: "fresh" });
  await agree([old, fresh], ["old", "fresh"]);
  assert.equal((await old.leave()).status, "ok");
  await fresh.lists(["fresh"]);
});

story("without vsn frames are objects with the keys that V1 clients read", async (stage) => {
  const node = await stage.alone();
  const socket = await stage.raw(node, { vsn: null, user: "ann" });
  /** The next frame of an event; its own presence_diff may come at any time. */
  const next = async (event) => {
    const text = await socket.frames.find(event, (frame) => JSON.parse(frame).event !== "presence_diff");
    assert.equal(JSON.parse(text).event, event);
    return JSON.parse(text);
  };
  const reply = (ref, topic = ROOM) => ({ event: "phx_reply", payload: { response: {}, status: "ok" }, ref, topic });

  socket.send({ topic: ROOM, event: "phx_join", payload: {}, ref: "1" });
  assert.deepEqual(await next("phx_reply"), reply("1"));
  assert.deepEqual(Object.keys((await next("presence_state")).payload), ["ann"]);
  socket.send({ topic: ROOM, event: "message", payload: { n: 1 }, ref: "2", join_ref: "1" });
  assert.deepEqual(await next("message"), { topic: ROOM, event: "message", payload: { n: 1 }, ref: null, join_ref: null });
  assert.deepEqual(await next("phx_reply"), reply("2"));
  socket.send({ topic: "phoenix", event: "heartbeat", payload: {}, ref: "3" });
  assert.deepEqual(await next("phx_reply"), reply("3", "phoenix"));
  socket.send({ topic: ROOM, event: "phx_leave", payload: {}, ref: "4" });
  assert.deepEqual(await next("phx_reply"), reply("4"));
  const close = await next("phx_close");
  assert.deepEqual([close.topic, close.payload, close.ref], [ROOM, {}, "1"]);
});

story("an unmatched topic is said in V1 too", async (stage) => {
  const node = await stage.alone();
  const socket = await stage.raw(node, { vsn: "1.0.0" });
  const reply = await socket.ask({ topic: "nowhere", event: "message", payload: {}, ref: "5" });
  const payload = { response: { reason: "unmatched topic" }, status: "error" };
  assert.deepEqual(reply, { event: "phx_reply", payload, ref: "5", topic: "nowhere" });
});

for (const [what, frame] of [
  ["an array", '["1","1","room:x","phx_join",{}]'],
  ["an object without payload", '{"topic":"t","event":"e","ref":"1"}'],
  ["an object without ref", '{"topic":"t","event":"e","payload":{}}'],
  ["no JSON", "hello"],
]) {
  story(`a V1 socket ends with 1011 after ${what}`, async (stage) => {
    const socket = await stage.raw(await stage.alone(), { vsn: "1.0.0" });
    socket.send(frame);
    assert.equal(await socket.code(), 1011);
  });
}
