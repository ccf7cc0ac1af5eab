// Realtime-style clients: @supabase/realtime-js and the Python client `realtime`, unchanged.

import assert from "node:assert/strict";

import { RealtimeClient } from "@supabase/realtime-js";
import WebSocket from "ws";

import { PYTHON, python } from "./lib/python.mjs";
import { story } from "./lib/stage.mjs";
import { until } from "./lib/until.mjs";

const ON = "[realtime]\nenabled = true\n";
const ROOM = "room";

/** A client of one node, over either version of the protocol. */
function client(stage, node, { vsn = "2.0.0", params = {}, path = "" } = {}) {
  const realtime = new RealtimeClient(`${node.socketUrl}${path}`, {
    transport: WebSocket,
    vsn,
    params: { apikey: "key", ...params },
  });
  stage.atEnd(() => realtime.disconnect());
  return realtime;
}

/** A channel with all that it hears, joined. */
async function joined(realtime, name = ROOM, config = {}) {
  const channel = realtime.channel(name, { config });
  const heard = [];
  channel.on("broadcast", { event: "*" }, (message) => heard.push(message));
  channel.on("system", {}, (message) => heard.push(message));
  if (config.presence) channel.on("presence", { event: "sync" }, () => heard.push({ type: "sync" }));
  await subscribed(channel);
  return { channel, heard };
}

function subscribed(channel) {
  return new Promise((resolve, reject) => {
    channel.subscribe((status, error) => {
      if (status === "SUBSCRIBED") resolve();
      if (status === "CHANNEL_ERROR" || status === "TIMED_OUT") reject(error ?? new Error(status));
    });
  });
}

const broadcasts = (heard) => heard.filter((message) => message.type === "broadcast");
const listed = (channel) =>
  Object.fromEntries(Object.entries(channel.presenceState()).map(([key, metas]) =>
    [key, metas.map(({ presence_ref: _, ...meta }) => meta)]));

async function heardBy(listeners, count) {
  for (const { heard } of listeners) {
    await until(`${count} broadcasts`, () => broadcasts(heard).length >= count);
  }
}

// --- broadcasts -------------------------------------------------------------------------------------

story("broadcasts reach clients of both versions on other nodes, and their sender if it wants them", async (stage) => {
  const [n1, n2] = await stage.cluster(2, { config: ON });
  const own = { broadcast: { self: true, ack: true } };
  const sender = await joined(client(stage, n1), ROOM, own);
  const others = [
    await joined(client(stage, n2)),
    await joined(client(stage, n2, { vsn: "1.0.0" })),
    await joined(client(stage, n1, { vsn: "1.0.0" })),
  ];
  const payload = { text: "hé \"hi\"", n: [1, null] };
  assert.equal(await sender.channel.send({ type: "broadcast", event: "größe", payload }), "ok");
  await heardBy([sender, ...others], 1);
  for (const { heard } of [sender, ...others]) {
    assert.deepEqual({ ...heard[0] }, { type: "broadcast", event: "größe", payload });
  }

  // A client of the first version sends text.
  assert.equal(await others[1].channel.send({ type: "broadcast", event: "back", payload: { n: 2 } }), "ok");
  await heardBy([sender, others[0], others[2]], 2);
  for (const { heard } of [sender, others[0], others[2]]) {
    assert.deepEqual({ ...heard[1] }, { type: "broadcast", event: "back", payload: { n: 2 } });
  }
  assert.equal(broadcasts(others[1].heard).length, 1, "it did not ask for its own");
});

story("bytes reach clients that can read them, and are counted for those that cannot", async (stage) => {
  const [n1, n2] = await stage.cluster(2, { config: ON });
  const sender = await joined(client(stage, n1), ROOM, { broadcast: { ack: true } });
  const [reader, old] = [await joined(client(stage, n2)), await joined(client(stage, n2, { vsn: "1.0.0" }))];
  const bytes = Uint8Array.from([0, 255, 10, 34]).buffer;
  assert.equal(await sender.channel.send({ type: "broadcast", event: "raw", payload: bytes }), "ok");
  assert.equal(await sender.channel.send({ type: "broadcast", event: "after", payload: {} }), "ok");
  await heardBy([reader], 2);
  assert.deepEqual(new Uint8Array(reader.heard[0].payload), new Uint8Array(bytes));
  await heardBy([old], 1);
  assert.deepEqual(old.heard.map(({ event }) => event), ["after"]);
  assert.equal(await n2.metric('wingbeat_deliveries_dropped_total{reason="binary"}'), 1);
});

story("what cannot be broadcast is refused, told to its sender alone, and ends nothing", async (stage) => {
  const node = await stage.alone({ config: ON });
  const [sender, other] = [await joined(client(stage, node)), await joined(client(stage, node))];
  // JSON.stringify makes nothing of a function: an empty text that is said to be JSON.
  await sender.channel.send({ type: "broadcast", event: "e", payload: () => 1 });
  await until("it is told why", () => sender.heard.length === 1);
  const { status, extension, message, channel } = sender.heard[0];
  assert.deepEqual({ status, extension, message, channel },
    { status: "error", extension: "broadcast", message: "invalid broadcast", channel: ROOM });
  await sender.channel.send({ type: "broadcast", event: "e", payload: { n: 1 } });
  await heardBy([other], 1);
  assert.deepEqual(other.heard.map(({ payload }) => payload), [{ n: 1 }]);
});

story("a join that asks for changes of a database, or for privacy, is refused with the reason", async (stage) => {
  const node = await stage.alone({ config: ON });
  const realtime = client(stage, node);
  const changes = realtime.channel("db").on("postgres_changes", { event: "*", schema: "public" }, () => {});
  await assert.rejects(subscribed(changes), /no database/);
  await changes.unsubscribe();
  await assert.rejects(subscribed(realtime.channel("mine", { config: { private: true } })), /private topics/);
  const { channel } = await joined(realtime);
  assert.equal(channel.state, "joined", "the socket goes on");
});

// --- presence ---------------------------------------------------------------------------------------

story("presence: tracked, updated and untracked on one node, seen on the other", async (stage) => {
  const [n1, n2] = await stage.cluster(2, { config: ON });
  const ann = await joined(client(stage, n1), ROOM, { presence: { key: "ann" } });
  const diffs = [];
  const bob = client(stage, n2).channel(ROOM, { config: { presence: { key: "bob" } } });
  for (const event of ["join", "leave"]) {
    bob.on("presence", { event }, ({ key, newPresences, leftPresences }) =>
      diffs.push([event, key, (newPresences ?? leftPresences).map(({ n }) => n)]));
  }
  bob.on("presence", { event: "sync" }, () => {});
  await subscribed(bob);

  const sees = async (expected) => {
    for (const channel of [ann.channel, bob]) {
      const seen = () => JSON.stringify(listed(channel));
      await until(JSON.stringify(expected), () => seen() === JSON.stringify(expected));
    }
  };
  assert.equal(await ann.channel.track({ n: 1 }), "ok");
  await sees({ ann: [{ n: 1 }] });
  assert.equal(await ann.channel.untrack(), "ok");
  await sees({});
  assert.deepEqual(diffs.splice(0), [["join", "ann", [1]], ["leave", "ann", [1]]]);

  // One that only tracks itself is seen, and told nothing.
  const silent = await joined(client(stage, n2));
  assert.equal(await silent.channel.track({ n: 3 }), "ok");
  await until("one presence", () => Object.keys(listed(ann.channel)).length === 1);
  assert.match(Object.keys(listed(ann.channel))[0], /^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/);
  assert.deepEqual(listed(silent.channel), {});
});

story("a second track is an update: one diff with what was and what is", async (stage) => {
  const [n1, n2] = await stage.cluster(2, { config: ON });
  const ann = await joined(client(stage, n1));
  const raw = await stage.raw(n2);
  await raw.join("realtime:room", { payload: { config: { presence: { enabled: true, key: "raw" } } } });
  const metas = async () => {
    const [, , , , { joins, leaves }] = await raw.until("presence_diff");
    const of = (side) => Object.values(side).flatMap(({ metas }) => metas);
    return [of(joins), of(leaves)];
  };
  assert.equal(await ann.channel.track({ n: 1 }), "ok");
  const [[was]] = await metas();
  assert.equal(await ann.channel.track({ n: 2 }), "ok");
  const [[is], left] = await metas();
  assert.deepEqual(left, [was]);
  assert.deepEqual(is, { n: 2, phx_ref: is.phx_ref, phx_ref_prev: was.phx_ref });
});

story("a new access token is taken without a word", async (stage) => {
  const node = await stage.alone({ config: ON });
  const realtime = client(stage, node);
  const { channel, heard } = await joined(realtime, ROOM, { broadcast: { self: true, ack: true } });
  await realtime.setAuth("another.token.here");
  assert.equal(await channel.send({ type: "broadcast", event: "e", payload: {} }), "ok");
  assert.equal(heard.length, 1);
});

// --- over HTTP --------------------------------------------------------------------------------------

story("broadcasts by HTTP reach all, from the paths that the client makes of its URL", async (stage) => {
  const [n1, n2] = await stage.cluster(2, { config: ON });
  const listeners = [await joined(client(stage, n2)), await joined(client(stage, n2, { vsn: "1.0.0" }))];
  const sender = client(stage, n1).channel(ROOM);
  assert.equal(await sender.send({ type: "broadcast", event: "unjoined", payload: { n: 1 } }), "ok");
  assert.deepEqual(await sender.httpSend("said", { n: 2 }), { success: true });
  await heardBy(listeners, 2);
  for (const { heard } of listeners) {
    assert.deepEqual(heard.map(({ event, payload }) => [event, payload]), [["unjoined", { n: 1 }], ["said", { n: 2 }]]);
  }
  assert.deepEqual(await sender.httpSend("raw", Uint8Array.from([1, 2]).buffer), { success: true });
  await heardBy([listeners[0]], 3);
  assert.deepEqual(new Uint8Array(listeners[0].heard[2].payload), Uint8Array.from([1, 2]));

  const post = (path, body, headers) => fetch(`${n1.url}/api/broadcast${path}`, { method: "POST", body, headers });
  const bad = await post(`/${ROOM}/events/e`, "{");
  assert.deepEqual([bad.status, (await bad.json()).code], [400, "bad_json"]);
  const items = { messages: [{ topic: ROOM, event: "a", payload: 1 }, { topic: ROOM, event: "", payload: 2 }] };
  const half = await post("", JSON.stringify(items));
  assert.deepEqual([half.status, (await half.json()).error.message], [400, "message 1: event must have 1 to 255 bytes"]);
  const own = await post("", JSON.stringify({ topic: `realtime:${ROOM}`, event: "broadcast", payload: { type: "broadcast", event: "x" } }));
  assert.deepEqual(await own.json(), { accepted: 1 });
  await heardBy([listeners[1]], 3);
  assert.equal(listeners[1].heard[2].event, "x", "nothing of the refused ones came before it");
});

story("pages of allowed origins may broadcast by HTTP, others not, and the rest of the API stays shut", async (stage) => {
  const config = `${ON}[http]\norigins = ["https://app.example"]\n[auth]\nanonymous = true\napi_token_file = "${stage.file("token", "0123456789abcdef\n")}"\n`;
  const node = await stage.alone({ config });
  const path = `${node.url}/api/broadcast/${ROOM}/events/e`;
  const send = (url, options) => fetch(url, { method: "POST", body: "{}", ...options });
  const from = (origin) => ({ headers: { origin } });
  const asked = await send(path, { method: "OPTIONS", body: undefined, headers: { origin: "https://app.example", "access-control-request-headers": "apikey,content-type" } });
  assert.equal(asked.headers.get("access-control-allow-headers"), "apikey,content-type");
  const allowed = await send(path, from("https://app.example"));
  assert.deepEqual([allowed.status, allowed.headers.get("access-control-allow-origin")], [202, "https://app.example"]);
  assert.equal((await send(path, from("https://evil.example"))).status, 401);
  const plain = { method: "POST", body: '{"topic":"t","event":"e","payload":{}}' };
  assert.equal((await fetch(`${node.url}/api/broadcast`, plain)).status, 401);
  assert.equal((await fetch(`${node.url}/api/topics`, from("https://app.example"))).status, 401);
  assert.equal((await fetch(`${node.url}/api/broadcast`, { ...plain, headers: { apikey: "0123456789abcdef" } })).status, 202);
});

story("without realtime in the configuration these are topics as all others", async (stage) => {
  const node = await stage.alone();
  const raw = await stage.raw(node);
  await raw.join("realtime:room");
  assert.equal((await fetch(`${node.url}/api/broadcast/room/events/e`, { method: "POST", body: "{}" })).status, 404);
  raw.send(Buffer.from("\x03\x01\x01\x0d\x01\x00\x0112realtime:roome{}", "latin1"));
  assert.equal(await raw.code(), 1011);
});

// --- other clients ----------------------------------------------------------------------------------

if (PYTHON) {
  story("the Python client broadcasts and is present beside the other one", async (stage) => {
    const node = await stage.alone({ config: ON });
    const config = { presence: { key: "js" }, broadcast: { ack: true } };
    const peer = await joined(client(stage, node), ROOM, config);
    const other = python(stage, "realtime_client.py", [node.socketUrl, ROOM]);
    const see = () => JSON.stringify(listed(peer.channel));
    await until("it is listed", () => see() === '{"py":[{"from":"python"}]}', { seconds: 20 });
    await heardBy([peer], 2);
    const texts = broadcasts(peer.heard).map(({ event, payload }) => [event, payload.text]);
    assert.deepEqual(texts, [["said", "hello"], ["said", "by HTTP"]]);
    assert.equal(await peer.channel.send({ type: "broadcast", event: "answer", payload: { n: 7 } }), "ok");
    await other.line(/heard answer {'n': 7}/);
    assert.equal((await other.ended).code, 0, other.stderr.join("\n"));
    await until("it is gone", () => see() === "{}");
  }, { seconds: 60 });
} else {
  console.error("no Python 3.11 with its clients: their story is left out");
}
