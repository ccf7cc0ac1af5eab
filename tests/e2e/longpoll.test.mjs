// Long-polling: the official client with nothing but HTTP requests, and sessions that any node serves.

import assert from "node:assert/strict";
import { once } from "node:events";

import { LongPoll, Socket } from "phoenix";
import WebSocket from "ws";

import { PollSession, Rotation } from "./lib/longpoll.mjs";
import { Client, agree, connect } from "./lib/phoenix.mjs";
import { story } from "./lib/stage.mjs";
import { until } from "./lib/until.mjs";

const ROOM = "room:x";
const QUIET = '[[channel]]\ntopic = "room:*"\npresence = "off"\n';
/** Polls that end soon. */
const SHORT = `[http]\nlongpoll_window = "200ms"\n${QUIET}`;

const numbers = (count) => Array.from({ length: count }, (_, i) => i);
const told = (frames, event) => frames.filter((frame) => frame[3] === event).map((frame) => frame[4].n);

/** The official client over long-polling, at a node or a proxy. */
async function polling(stage, node, options) {
  const client = await connect(node.socketUrl, { transport: LongPoll, ...options });
  stage.atEnd(() => client.end());
  return client;
}

// --- the official client --------------------------------------------------------------------------

story("the official client joins, pushes, hears and leaves with nothing but requests", async (stage) => {
  const node = await stage.alone();
  const ann = await polling(stage, node, { user: "ann" });
  const bob = await stage.phoenix(node, { user: "bob" });
  const [hers, his] = [await ann.join(ROOM, { meta: { from: "poll" } }), await bob.join(ROOM)];
  const roster = await agree([hers, his], ["ann", "bob"]);
  assert.equal(roster.ann[0].from, "poll");

  assert.deepEqual(await hers.push("message", { text: "hé \"hi\"" }), { status: "ok", response: {} });
  assert.deepEqual(await his.next("message"), { text: "hé \"hi\"" });
  assert.deepEqual(await hers.next("message"), { text: "hé \"hi\"" });
  await his.push("message", { text: "back" });
  assert.deepEqual(await hers.next("message"), { text: "back" });
  assert.equal(await node.metric("wingbeat_longpoll_sessions"), 1);

  assert.equal((await hers.leave()).status, "ok");
  await his.lists(["bob"]);
});

story("a client whose WebSocket does not get through falls back to long-polling", async (stage) => {
  const node = await stage.alone();
  const proxy = await Rotation.start(stage, [node]);
  const client = new Client(new Socket(proxy.socketUrl, {
    transport: WebSocket,
    params: { user_id: "ann" },
    longPollFallbackMs: 200,
    sessionStorage: { getItem: () => null, setItem: () => {} },
  }));
  stage.atEnd(() => client.end());
  client.socket.connect();
  const room = await client.join(ROOM);
  await room.lists(["ann"]);
  assert.equal((await room.push("message")).status, "ok");
  assert.equal(await node.metric("wingbeat_longpoll_sessions"), 1);
});

story("a hundred channels and pushes in one go arrive in order", async (stage) => {
  const node = await stage.alone({ config: QUIET });
  const client = await polling(stage, node);
  const rooms = await Promise.all(numbers(100).map((i) => client.join(`room:${i}`)));
  const other = await (await stage.phoenix(node)).join("room:7");
  for (const n of numbers(350)) rooms[7].send("message", { n });
  await until("all are heard", () => other.waiting("message").length === 350 && rooms[7].waiting("message").length === 350);
  for (const room of [other, rooms[7]]) assert.deepEqual(room.waiting("message").map(({ n }) => n), numbers(350));
});

// --- any node serves any session ------------------------------------------------------------------

story("a session is served by all nodes in turn: nothing is lost, doubled or out of order", async (stage) => {
  const nodes = await stage.cluster(3);
  const proxy = await Rotation.start(stage, nodes);
  const ann = await polling(stage, proxy, { user: "ann" });
  const bob = await stage.phoenix(nodes[1], { user: "bob" });
  const [hers, his] = [await ann.join(ROOM), await bob.join(ROOM)];
  await agree([hers, his], ["ann", "bob"]);
  const count = 1000;
  for (const n of numbers(count)) {
    if (n % 10 !== 0) {
      his.send("down", { n });
    } else {
      hers.send("up", { n: n / 10 });
      await his.push("down", { n });
    }
  }
  await until("all are heard", () => hers.waiting("down").length >= count && his.waiting("up").length >= count / 10, { seconds: 20 });
  assert.deepEqual(hers.waiting("down").map(({ n }) => n), numbers(count));
  assert.deepEqual(his.waiting("up").map(({ n }) => n), numbers(count / 10));
  assert.equal(ann.opened, 1, "in one session");
  assert.ok(proxy.requests.every((served) => served > 5), `by all nodes: ${proxy.requests}`);
  const forwarded = await Promise.all(nodes.map((node) => node.metric("wingbeat_longpoll_forwarded_total")));
  assert.equal(forwarded.filter((requests) => requests > 5).length, 2, "by those that are not its own");
});

story("a client whose session's node dies begins anew on another", async (stage) => {
  const nodes = await stage.cluster(3);
  const proxy = await Rotation.start(stage, nodes);
  const client = await polling(stage, proxy, { user: "ann" });
  const room = await client.join(ROOM);
  await room.lists(["ann"]);
  const sessions = await Promise.all(nodes.map((node) => node.metric("wingbeat_longpoll_sessions")));
  await nodes[sessions.indexOf(1)].kill();
  await until("it is back", () => client.opened > 1 && room.channel.isJoined(), { seconds: 20 });
  const [left] = nodes.filter((_, i) => sessions[i] === 0);
  await left.broadcast(ROOM, "message", { n: 1 });
  assert.deepEqual(await room.next("message"), { n: 1 });
});

story("a client whose session's node stops is back within a second", async (stage) => {
  const nodes = await stage.cluster(2);
  const proxy = await Rotation.start(stage, nodes);
  const client = await polling(stage, proxy, { user: "ann" });
  const room = await client.join(ROOM);
  await room.lists(["ann"]);
  const [first] = await Promise.all(nodes.map((node) => node.metric("wingbeat_longpoll_sessions")));
  const [stopped, left] = first === 1 ? nodes : nodes.reverse();
  const exit = stopped.stop();
  await until("it is back", () => client.opened > 1 && room.channel.isJoined(), { seconds: 3 });
  await left.broadcast(ROOM, "message", { n: 1 });
  assert.deepEqual(await room.next("message"), { n: 1 });
  await exit;
});

story("a session outlives the stop of a node that only passes its polls on", async (stage) => {
  const [own, other] = await stage.cluster(2, { config: QUIET });
  const session = await PollSession.open(own);
  await session.join(own, ROOM, { state: false });
  const poll = session.poll(other);
  await until("it waits there", async () => await other.metric("wingbeat_longpoll_forwarded_total") === 1);
  const exit = other.stop();
  assert.equal((await poll).status, 204);
  await own.broadcast(ROOM, "message", { n: 1 });
  assert.deepEqual(told(await session.until(own, (frame) => frame[3] === "message"), "message"), [1]);
  await exit;
});

// --- polls ----------------------------------------------------------------------------------------

story("a poll waits for its window, and its token stays the same", async (stage) => {
  const node = await stage.alone({ config: SHORT });
  const session = await PollSession.open(node);
  const before = Date.now();
  assert.deepEqual(await session.poll(node), { status: 204, token: session.token, messages: [] });
  const waited = Date.now() - before;
  assert.ok(waited >= 195 && waited < 5000, `${waited} ms`);
  await session.join(node, ROOM, { state: false });
  const poll = session.poll(node);
  await node.broadcast(ROOM, "message", { n: 1 });
  const answer = await poll;
  assert.deepEqual([answer.status, answer.token], [200, session.token]);
  assert.deepEqual(answer.messages, ['[null,null,"room:x","message",{"n":1}]']);
});

for (const [where, size] of [["here", 1], ["on another node", 2]]) {
  story(`of two polls one gets the messages and the other ends, a session ${where}`, async (stage) => {
    const nodes = await stage.cluster(size, { config: QUIET });
    const [own, at] = [nodes[0], nodes[size - 1]];
    const session = await PollSession.open(own);
    await session.join(at, ROOM, { state: false });
    const polls = [session.poll(at), session.poll(own)];
    // Whichever came first: the unit tests say which one wins.
    const ended = await Promise.race(polls.map(async (poll, i) => ({ i, status: (await poll).status })));
    assert.equal(ended.status, 204);
    await own.broadcast(ROOM, "message", { n: 1 });
    assert.deepEqual((await polls[1 - ended.i]).messages, ['[null,null,"room:x","message",{"n":1}]']);
  });

  story(`nothing is lost with polls that are cut, a session ${where}`, async (stage) => {
    const nodes = await stage.cluster(size, { config: QUIET });
    const [own, at] = [nodes[0], nodes[size - 1]];
    const session = await PollSession.open(own);
    await session.join(at, ROOM, { state: false });
    const heard = [];
    for (const n of numbers(100)) {
      (await session.begin(at)).destroy();
      await own.broadcast(ROOM, "message", { n });
      heard.push(...told(await session.until(at, (frame) => frame[4].n === n), "message"));
    }
    assert.deepEqual(heard, numbers(100));
  });

  story(`hardly anything is lost with answers that are cut, a session ${where}`, async (stage) => {
    const nodes = await stage.cluster(size, { config: QUIET });
    const [own, at] = [nodes[0], nodes[size - 1]];
    const session = await PollSession.open(own);
    await session.join(at, ROOM, { state: false });
    const heard = [];
    let cut = 0;
    for (const n of numbers(50)) {
      const poll = await session.begin(at);
      const response = once(poll, "response");
      await own.broadcast(ROOM, "message", { n, pad: "x".repeat(2000) });
      const [answer] = await response;
      const [some] = await once(answer, "data");
      poll.destroy();
      // A machine that is too busy to cut it in time does not count.
      if (String(some).endsWith("]}")) heard.push(n);
      else cut++;
      await own.broadcast(ROOM, "message", { n: -1 });
      heard.push(...told(await session.until(at, (frame) => frame[4].n === -1), "message").filter((m) => m >= 0));
    }
    assert.ok(cut > 30, `${cut} were cut in time`);
    const late = numbers(50).filter((n) => !heard.includes(n));
    // A machine that is too busy to hear of a cut in time may lose some.
    assert.ok(late.length <= 50 - cut + 10, `lost: ${late}`);
    assert.deepEqual(heard, [...new Set(heard)].sort((a, b) => a - b), "in order, and once");
  });
}

story("what waits between two polls comes in several answers, in order", async (stage) => {
  const node = await stage.alone({ config: `[limits]\nmailbox_bytes = "4MiB"\n${QUIET}` });
  const session = await PollSession.open(node);
  await session.join(node, ROOM, { state: false });
  const messages = numbers(900).map((n) => ({ topic: ROOM, event: "message", payload: { n, pad: "x".repeat(700) } }));
  assert.equal((await node.call("/api/broadcast", { body: messages })).status, 202);
  const heard = [];
  let answers = 0;
  while (heard.length < messages.length) {
    const { status, messages: some } = await session.poll(node);
    assert.equal(status, 200);
    heard.push(...some.map((text) => JSON.parse(text)[4].n));
    answers++;
  }
  assert.deepEqual(heard, numbers(900));
  assert.ok(answers > 2, `${answers} answers`);
});

story("V1 frames, and binary ones from the client", async (stage) => {
  const node = await stage.alone({ config: QUIET });
  const v1 = await PollSession.open(node, { vsn: "1.0.0" });
  const join = { topic: ROOM, event: "phx_join", payload: {}, ref: "1" };
  assert.equal(await v1.postBody(node, JSON.stringify(join), "application/json"), 200);
  const { messages } = await v1.poll(node);
  assert.deepEqual(messages.map((text) => JSON.parse(text)), [
    { event: "phx_reply", payload: { response: {}, status: "ok" }, ref: "1", topic: ROOM },
  ]);

  const v2 = await PollSession.open(node);
  await v2.join(node, ROOM, { state: false });
  const watcher = await stage.raw(node);
  await watcher.join(ROOM, { state: false });
  const head = Buffer.from([0, 1, 1, ROOM.length, 4]);
  const push = Buffer.concat([head, Buffer.from(`12${ROOM}blob`), Buffer.from([0, 255])]);
  assert.equal(await v2.post(node, push.toString("base64"), ["1", "3", ROOM, "text", { n: 1 }]), 200);
  const blob = await watcher.frames.next("the bytes");
  assert.deepEqual(blob, Buffer.concat([Buffer.from([2, ROOM.length, 4]), Buffer.from(`${ROOM}blob`), Buffer.from([0, 255])]));
  assert.deepEqual(await watcher.next(), [null, null, ROOM, "text", { n: 1 }]);
  const seen = await v2.until(node, (frame) => frame[1] === "3");
  assert.deepEqual(seen.map((frame) => frame[1] ?? frame[3]), ["text", "2", "3"], "its own bytes have no form in a poll");
});

// --- the end of a session -------------------------------------------------------------------------

story("a session that nobody polls ends as a closed socket does", async (stage) => {
  const node = await stage.alone({ config: '[http]\nlongpoll_window = "200ms"\n' });
  const polled = await PollSession.open(node, { user: "here" });
  const left = await PollSession.open(node, { user: "gone" });
  for (const session of [polled, left]) await session.join(node, ROOM);
  await until("it is taken off", async () => {
    await polled.poll(node);
    return (await node.present(ROOM)).join() === "here";
  }, { seconds: 15 });
  assert.equal(await left.post(node, ["1", "2", ROOM, "message", {}]), 410);
  const { status, token } = await left.poll(node);
  assert.equal(status, 410);
  assert.notEqual(token, left.token, "a new session");
}, { seconds: 90 });

story("a socket that is disconnected by its id ends its session's poll at once", async (stage) => {
  const nodes = await stage.cluster(2, { config: QUIET });
  const session = await PollSession.open(nodes[0], { user: "ann" });
  const poll = session.poll(nodes[1]);
  await until("it waits", async () => await nodes[1].metric("wingbeat_longpoll_forwarded_total") === 1);
  assert.equal((await nodes[1].call("/api/disconnect", { body: { socket_id: "users_socket:ann" } })).status, 202);
  assert.equal((await poll).status, 410);
  assert.equal(await session.post(nodes[1], [null, "1", "phoenix", "heartbeat", {}]), 410);
});

story("a client that leaves too much unread is closed as a slow one", async (stage) => {
  const node = await stage.alone({ config: `[http]\nmax_frame_size = "1KiB"\n[limits]\nmailbox_bytes = "4KiB"\n${QUIET}` });
  const session = await PollSession.open(node);
  await session.join(node, ROOM, { state: false });
  const messages = numbers(100).map((n) => ({ topic: ROOM, event: "message", payload: { n, pad: "x".repeat(900) } }));
  assert.equal((await node.call("/api/broadcast", { body: messages.slice(0, 50) })).status, 202);
  assert.equal((await session.poll(node)).status, 200, "16 times as much may wait between two polls");
  assert.equal((await node.call("/api/broadcast", { body: messages })).status, 202);
  assert.equal((await session.poll(node)).status, 410);
  assert.equal(await node.metric("wingbeat_slow_clients_total"), 1);
});

story("posts wait unread until those before them are taken, and those that are too many are sent away", async (stage) => {
  const [own, at] = await stage.cluster(2, { config: `[limits]\nmailbox_bytes = "4KiB"\n${QUIET}` });
  const session = await PollSession.open(own);
  await session.join(own, ROOM, { state: false });
  await own.broadcast(ROOM, "message", { pad: "x".repeat(3000) });
  const frame = JSON.stringify(["1", "2", ROOM, "post", {}]);
  const headers = { ...session.headers, "content-type": "application/x-ndjson" };
  const post = () => at.call(session.path, { method: "POST", headers, body: frame });
  const refused = [];
  const posts = numbers(140).map(async () => {
    const answer = await post();
    if (answer.status === 503) refused.push(answer);
    return answer;
  });
  await until("the client has to read first", () => refused.length === 12);
  let heard = 0;
  while (heard < 128) heard += (await session.poll(own)).messages.filter((text) => JSON.parse(text)[3] === "post").length;
  const statuses = (await Promise.all(posts)).map(({ status }) => status);
  assert.deepEqual([200, 503].map((status) => statuses.filter((one) => one === status).length), [128, 12]);
  assert.equal(heard, 128);
});

story("a message that is larger than others share its answer with nobody, on whatever node it is asked for", async (stage) => {
  const [own, at] = await stage.cluster(2, { config: `[http]\nmax_frame_size = "10MiB"\n${QUIET}` });
  const session = await PollSession.open(own);
  await session.join(own, ROOM, { state: false });
  // Each backslash is two in JSON, and four in an answer.
  const large = "\\".repeat(4_500_000);
  const payloads = [{ n: 1 }, { n: 2, large }, { n: 3 }];
  for (const payload of payloads) await own.broadcast(ROOM, "message", payload);
  for (const payload of payloads) {
    const { status, messages } = await session.poll(at);
    assert.deepEqual([status, messages.length], [200, 1]);
    const heard = JSON.parse(messages[0])[4];
    assert.deepEqual([heard.n, heard.large === payload.large], [payload.n, true]);
  }
});

// --- what is refused ------------------------------------------------------------------------------

story("tokens that are forged, garbage or of another cluster name no session", async (stage) => {
  const [node, stranger] = [await stage.alone({ config: SHORT }), await stage.node("stranger", { config: SHORT })];
  const session = await PollSession.open(node);
  const foreign = await PollSession.open(stranger);
  const swapped = (token) => (token[9] === "A" ? "B" : "A");
  const forged = session.token.slice(0, 9) + swapped(session.token) + session.token.slice(10);
  for (const token of [forged, foreign.token, "", "x", "ä", "A".repeat(10_000)]) {
    const query = `vsn=2.0.0&token=${encodeURIComponent(token)}`;
    const { status, json } = await node.call(`/socket/longpoll?${query}`);
    assert.deepEqual([status, json.status], [200, 410], token);
    assert.notEqual(json.token, token);
    const posted = await node.call(`/socket/longpoll?${query}`, { method: "POST", body: "[]" });
    assert.deepEqual([posted.status, posted.json], [200, { status: 410 }]);
  }
  const { json } = await node.call(`/socket/longpoll?vsn=2.0.0&token=${session.token}`);
  assert.equal(json.status, 204, "the query names it as the header does");
});

story("a body that cannot be decoded ends its session, after the frames before it", async (stage) => {
  const node = await stage.alone({ config: `[http]\nmax_frame_size = "1KiB"\n${QUIET}` });
  const watcher = await stage.raw(node);
  await watcher.join(ROOM, { state: false });
  const push = (n) => ["1", "2", ROOM, "message", { n }];
  const bodies = ["", "#", "[1]", `["1","2","${ROOM}","message",{"x":"${"y".repeat(1024)}"}]`, "AAAA", "[\ud800]"];
  for (const [n, body] of bodies.entries()) {
    const session = await PollSession.open(node);
    await session.join(node, ROOM, { state: false });
    assert.equal(await session.postBody(node, `${JSON.stringify(push(n))}\n${body}\n`), 410, body);
    assert.deepEqual((await watcher.next())[4], { n });
    assert.equal(await session.post(node, push(-1)), 410, body);
  }
  const many = await PollSession.open(node);
  assert.equal(await many.post(node, ...numbers(100).map((n) => [null, `${n}`, "phoenix", "heartbeat", {}])), 200);
  assert.equal(await many.post(node, ...numbers(101).map((n) => [null, `${n}`, "phoenix", "heartbeat", {}])), 410);
  const large = await PollSession.open(node);
  assert.equal(await large.postBody(node, "[".repeat(9 << 20)), 410);
});

story("a connect is refused in the body, whatever is wrong with the request in the status line", async (stage) => {
  const node = await stage.alone();
  const get = async (path, options) => {
    const { status, text, headers } = await node.request(path, options);
    assert.equal(headers["cache-control"], "no-store");
    return [status, text];
  };
  assert.deepEqual(await get("/socket/longpoll?vsn=9.0.0"), [200, '{"status":403}']);
  assert.deepEqual(await get("/socket/longpoll?vsn=2.0.0&x=%ff"), [400, ""]);
  for (const method of ["PUT", "DELETE", "HEAD"]) assert.deepEqual(await get("/socket/longpoll", { method }), [400, ""]);
  const [, opened] = await get("/socket/longpoll");
  assert.deepEqual(Object.keys(JSON.parse(opened)), ["status", "token", "messages"]);
});

story("pages of other origins may poll where http.origins says so, and no others", async (stage) => {
  const page = "https://chat.example.com";
  const node = await stage.alone({ config: `[http]\norigins = ["${page}"]\n${QUIET}` });
  const headers = { origin: page, "access-control-request-headers": "content-type,x-phoenix-authtoken" };
  const asked = await node.request("/socket/longpoll", { method: "OPTIONS", headers });
  assert.equal(asked.status, 200);
  assert.equal(asked.headers["access-control-allow-origin"], page);
  assert.equal(asked.headers["access-control-allow-headers"], "content-type,x-phoenix-authtoken");
  assert.match(asked.headers["access-control-allow-methods"], /\bGET\b.*\bPOST\b/);
  assert.equal(asked.headers["access-control-max-age"], "3600");
  assert.match(asked.headers.vary, /origin/i);

  const opened = await node.request("/socket/longpoll?vsn=2.0.0", { headers: { origin: page } });
  assert.equal(opened.headers["access-control-allow-origin"], page);
  assert.equal(JSON.parse(opened.text).status, 410);
  for (const method of ["OPTIONS", "GET", "POST"]) {
    const refused = await node.request("/socket/longpoll?vsn=2.0.0", { method, headers: { origin: "https://evil.example" } });
    assert.deepEqual([refused.status, refused.text], [200, '{"status":403}'], method);
    assert.equal(refused.headers["access-control-allow-origin"], undefined);
  }
});
