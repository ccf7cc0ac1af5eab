// Who is there, as the official Presence class shows it on every node.

import assert from "node:assert/strict";

import { agree } from "./lib/phoenix.mjs";
import { story } from "./lib/stage.mjs";
import { until } from "./lib/until.mjs";

const ROOM = "room:lobby";

/** A client on each node, u1 on the first and so on, all in the room. */
async function oneOnEach(stage, nodes) {
  const clients = [];
  for (const [i, node] of nodes.entries()) {
    const client = await stage.phoenix(node, { user: `u${i + 1}` });
    client.room = await client.join(ROOM, { meta: { node: node.name } });
    clients.push(client);
  }
  return clients;
}

const rooms = (clients) => clients.map((client) => client.room);

/** The keys that each node's API lists. */
async function listed(nodes, keys, options) {
  const wanted = [...keys].sort().join();
  await until(`the API of each node lists ${wanted || "nobody"}`, async () => {
    const lists = await Promise.all(nodes.map(async (node) => (await node.present(ROOM)).join()));
    if (lists.every((list) => list === wanted)) return true;
    throw new Error(JSON.stringify(lists));
  }, options);
}

story("clients of three nodes end with the same list", async (stage) => {
  const nodes = await stage.cluster(3);
  const clients = await oneOnEach(stage, nodes);
  const roster = await agree(rooms(clients), ["u1", "u2", "u3"]);
  for (const [i, key] of ["u1", "u2", "u3"].entries()) {
    const [meta, ...more] = roster[key];
    assert.deepEqual(more, []);
    assert.deepEqual(Object.keys(meta).sort(), ["node", "online_at", "phx_ref"]);
    assert.equal(meta.node, nodes[i].name);
    assert.ok(Math.abs(Date.now() / 1000 - meta.online_at) < 60, "online_at is in Unix seconds");
  }
  for (const node of nodes) {
    const { topic, count, presences } = await node.presence(ROOM);
    assert.deepEqual([topic, count], [ROOM, 3]);
    for (const key of Object.keys(roster)) assert.deepEqual(presences[key].metas, roster[key]);
  }
});

story("two tabs of one user are two metas of one key, and leave one by one", async (stage) => {
  const nodes = await stage.cluster(2);
  const watcher = await stage.phoenix(nodes[0], { user: "watcher" });
  const room = await watcher.join(ROOM);
  const tabs = [];
  for (const [i, node] of [nodes[0], nodes[1]].entries()) {
    tabs.push(await stage.phoenix(node, { user: "ann" }));
    tabs[i].room = await tabs[i].join(ROOM, { meta: { tab: i } });
  }
  await until("both tabs are there", () => room.roster.ann?.length === 2);
  const roster = await agree([room, ...rooms(tabs)], ["ann", "watcher"]);
  assert.deepEqual(roster.ann.map((meta) => meta.tab).sort(), [0, 1]);
  assert.equal((await nodes[1].presence(ROOM)).count, 2, "count counts keys");
  await tabs[0].room.leave();
  await until("one tab is left", () => room.roster.ann?.length === 1);
  assert.equal(room.roster.ann[0].tab, 1);
  await tabs[1].end();
  await room.lists(["watcher"]);
});

story("who loses its connection is gone everywhere", async (stage) => {
  const nodes = await stage.cluster(3);
  const [one, two, three] = await oneOnEach(stage, nodes);
  await agree([one.room, two.room, three.room], ["u1", "u2", "u3"]);
  three.socket.reconnectTimer.scheduleTimeout = () => {};
  three.cut();
  await agree([one.room, two.room], ["u1", "u2"]);
  await listed(nodes, ["u1", "u2"]);
});

story("kill -9 of a node removes its presences everywhere in under 5 s and breaks nothing else", async (stage) => {
  const nodes = await stage.cluster(3);
  const [one, two, three] = await oneOnEach(stage, nodes);
  await agree([one.room, two.room, three.room], ["u1", "u2", "u3"]);
  const killedAt = Date.now();
  await nodes[2].kill();
  const others = nodes.slice(0, 2);
  await agree([one.room, two.room], ["u1", "u2"], { seconds: 5 });
  await listed(others, ["u1", "u2"], { seconds: 5 });
  const seconds = (Date.now() - killedAt) / 1000;
  assert.ok(seconds < 5, `gone after ${seconds} s`);
  assert.deepEqual([one.opened, two.opened], [1, 1], "nobody else was cut off");
  await one.room.push("message", { n: 1 });
  assert.deepEqual(await two.room.next("message"), { n: 1 });
  await until("the log says it", () => nodes[0].log.some((line) => /peer down/.test(line) && line.includes("n3")));
});

story("a node that froze for a while is hidden, and shown again when it wakes", async (stage) => {
  const nodes = await stage.cluster(3);
  const [one, two, three] = await oneOnEach(stage, nodes);
  await agree([one.room, two.room, three.room], ["u1", "u2", "u3"]);
  nodes[2].process.signal("SIGSTOP");
  await agree([one.room, two.room], ["u1", "u2"], { seconds: 6 });
  const suspected = async (node) => (await node.call("/api/cluster")).json.partition_suspected;
  const { missing, members } = await suspected(nodes[0]);
  assert.deepEqual([missing, members], [1, 3], "it has crashed, or is cut off: who knows");
  assert.match(await (await fetch(`http://${nodes[1].address}/metrics`)).text(), /^wingbeat_partition_suspected 1$/m);
  await two.room.leave();
  nodes[2].process.signal("SIGCONT");
  await agree([one.room, three.room], ["u1", "u3"], { seconds: 15 });
  await listed(nodes, ["u1", "u3"]);
  await one.room.push("message", { n: 1 });
  assert.deepEqual(await three.room.next("message"), { n: 1 });
  assert.equal(three.opened, 1, "its clients have noticed nothing");
  for (const node of nodes) await until("nobody is missing", async () => (await suspected(node)) === null);
  for (const line of [/partition suspected/, /partition over/]) assert.ok(nodes[0].log.some((said) => line.test(said)), line);
});

story("a node that restarts under its name comes back without ghosts", async (stage) => {
  const nodes = await stage.cluster(3);
  const [one, two, three] = await oneOnEach(stage, nodes);
  await agree([one.room, two.room, three.room], ["u1", "u2", "u3"]);
  await nodes[2].restart({ join: [nodes[0].cluster] });
  await stage.formed(nodes);
  await agree([one.room, two.room], ["u1", "u2"]);
  await listed(nodes, ["u1", "u2"]);
  const back = await stage.phoenix(nodes[2], { user: "back" });
  back.room = await back.join(ROOM);
  await agree([one.room, two.room, back.room], ["u1", "u2", "back"]);
  const members = await nodes[0].members();
  assert.equal(members.filter((member) => member.name === "n3").length, 1, "one n3, not two");
});

story("the node that all joined by can restart too", async (stage) => {
  const nodes = await stage.cluster(3);
  const clients = await oneOnEach(stage, nodes);
  await agree(rooms(clients), ["u1", "u2", "u3"]);
  await nodes[0].restart({ join: [nodes[1].cluster] });
  await stage.formed(nodes);
  await agree([clients[1].room, clients[2].room], ["u2", "u3"]);
  await listed(nodes, ["u2", "u3"]);
});

story("a fourth node that joins later lists all", async (stage) => {
  const nodes = await stage.cluster(3);
  const clients = await oneOnEach(stage, nodes);
  const crowd = await stage.phoenix(nodes[1], { user: "crowd" });
  for (let i = 0; i < 90; i++) await crowd.join(`room:${i}`);
  const fourth = await stage.node("n4", { join: [nodes[2].cluster] });
  await stage.formed([...nodes, fourth]);
  await listed([fourth], ["u1", "u2", "u3"]);
  for (let i = 0; i < 90; i++) {
    await until(`the fourth lists room:${i}`, async () => (await fourth.present(`room:${i}`)).join() === "crowd");
  }
  const late = await stage.phoenix(fourth, { user: "u4" });
  late.room = await late.join(ROOM);
  await agree([...rooms(clients), late.room], ["u1", "u2", "u3", "u4"]);
});

story("a hundred that come and go leave the same list everywhere", async (stage) => {
  const nodes = await stage.cluster(3);
  const clients = await oneOnEach(stage, nodes);
  const passers = [];
  for (let i = 0; i < 100; i++) {
    const passer = await stage.phoenix(nodes[i % 3], { user: `passer${i}` });
    passer.room = await passer.join(ROOM);
    passers.push(passer);
    if (i % 2 === 0) passer.room.leave();
  }
  const stayed = passers.map((_, i) => `passer${i}`).filter((_, i) => i % 2 === 1);
  await agree(rooms(clients), ["u1", "u2", "u3", ...stayed]);
  await Promise.all(passers.map((passer) => passer.end()));
  await agree(rooms(clients), ["u1", "u2", "u3"]);
  await listed(nodes, ["u1", "u2", "u3"]);
}, { seconds: 90 });

story("the state lists the joiner itself, and a client without user_id has a key of its own", async (stage) => {
  const node = await stage.alone();
  const one = await stage.raw(node);
  const [, , , , state] = (await one.join(ROOM, { payload: { meta: { name: "N" } } }))[1];
  const [key] = Object.keys(state);
  assert.ok(key.length >= 16, "128 random bits");
  assert.equal(state[key].metas[0].name, "N");
  const two = await stage.raw(node, { user: "two" });
  assert.ok("two" in (await two.join(ROOM))[1][4]);
  const room = await (await stage.phoenix(node, { user: "three" })).join(ROOM);
  await room.lists([key, "two", "three"]);
});

story("in manual mode a client tracks, updates and untracks itself", async (stage) => {
  const config = '[[channel]]\ntopic = "*"\npresence = "manual"\n';
  const nodes = await stage.cluster(2, { config });
  const ann = await (await stage.phoenix(nodes[0], { user: "ann" })).join(ROOM, { meta: { ignored: true } });
  const watcher = await stage.raw(nodes[1], { user: "watcher" });
  const [, state] = await watcher.join(ROOM);
  assert.deepEqual(state, ["1", null, ROOM, "presence_state", {}]);

  assert.deepEqual(await ann.push("presence", { type: "track", meta: { mood: "fine" } }), { status: "ok", response: {} });
  const [, , , , joined] = await watcher.until("presence_diff");
  const [first] = joined.joins.ann.metas;
  assert.equal(first.mood, "fine");
  assert.deepEqual(joined.leaves, {});

  assert.equal((await ann.push("presence", { type: "track", meta: { mood: "better" } })).status, "ok");
  const [, , , , updated] = await watcher.until("presence_diff");
  const [second] = updated.joins.ann.metas;
  assert.deepEqual([second.mood, second.phx_ref_prev], ["better", first.phx_ref]);
  assert.deepEqual(updated.leaves.ann.metas.map((meta) => meta.phx_ref), [first.phx_ref]);
  assert.notEqual(second.phx_ref, first.phx_ref);

  assert.equal((await ann.push("presence", { type: "untrack" })).status, "ok");
  const [, , , , left] = await watcher.until("presence_diff");
  assert.deepEqual(left.joins, {});
  assert.deepEqual(left.leaves.ann.metas.map((meta) => meta.phx_ref), [second.phx_ref]);
  assert.equal((await ann.push("presence", { type: "dance" })).status, "error");
  await ann.lists([]);
});

story("presence = \"off\" lists nobody and sends no presence", async (stage) => {
  const config = '[[channel]]\ntopic = "*"\npresence = "off"\n';
  const node = await stage.alone({ config });
  const socket = await stage.raw(node, { user: "ann" });
  await socket.join(ROOM, { state: false });
  const other = await stage.raw(node, { user: "bob" });
  await other.join(ROOM, { state: false });
  const reply = await socket.ask(["1", "2", ROOM, "message", {}]);
  assert.equal(reply[3], "message", "no presence event came before");
  assert.deepEqual(await node.present(ROOM), []);
});

story("a meta over 4 KiB is refused", async (stage) => {
  const client = await stage.phoenix(await stage.alone(), { user: "ann" });
  await assert.rejects(client.join(ROOM, { meta: { text: "x".repeat(5000) } }), /payload too large/);
  await client.join(ROOM, { meta: { text: "x".repeat(3000) } });
});

story("a count room is told how many are there, at once after a pause and then once a second, and lists everybody", async (stage) => {
  const config = '[[channel]]\ntopic = "room:*"\npresence_events = "count"\n';
  const nodes = await stage.cluster(2, { config });
  const watcher = await stage.phoenix(nodes[0], { user: "watcher" });
  const room = await watcher.join(ROOM);
  assert.deepEqual(await room.next("presence_count"), { count: 1, entries: 1 }, "it is told with the join");
  const began = Date.now();
  const crowd = [];
  for (let i = 0; i < 40; i++) {
    const client = await stage.phoenix(nodes[i % 2], { user: `u${i >> 1}` });
    client.room = await client.join(ROOM);
    crowd.push(client);
  }
  const all = { count: 21, entries: 41 };
  const told = [];
  while (JSON.stringify(told.at(-1)) !== JSON.stringify(all)) told.push(await room.next("presence_count"));
  const seconds = (Date.now() - began) / 1000;
  assert.ok(told.length <= seconds + 2, `${told.length} counts in ${seconds} s`);
  await listed(nodes, ["watcher", ...Array.from({ length: 20 }, (_, i) => `u${i}`)]);
  await Promise.all(crowd.map((client) => client.end()));
  let last;
  do last = await room.next("presence_count"); while (last.entries !== 1);
  assert.deepEqual(last, { count: 1, entries: 1 });
  const heard = [...crowd, { room }].flatMap((client) => client.room.order.map(({ event }) => event));
  const kinds = new Set(heard.filter((event) => event.startsWith("presence")));
  assert.deepEqual([...kinds], ["presence_count"], "nobody is told who");
});
