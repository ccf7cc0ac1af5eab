// Nodes that stand still, die, move and start again and again, as the clients of the others see it.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { setTimeout as pause } from "node:timers/promises";

import { RoundRobin } from "./lib/balancer.mjs";
import { Events } from "./lib/events.mjs";
import { agree, connect } from "./lib/phoenix.mjs";
import { ownAddress, story } from "./lib/stage.mjs";
import { until } from "./lib/until.mjs";

const ROOM = "room:lobby";

/** Clients in the room, one for each of `users`, an object of names and nodes: their rooms by name. */
async function crowd(stage, users) {
  const rooms = {};
  for (const [user, node] of Object.entries(users)) {
    rooms[user] = await (await stage.phoenix(node, { user })).join(ROOM);
  }
  await agree(Object.values(rooms), Object.keys(users));
  return rooms;
}

/** Follows the room by server-sent events: gives what tells whom it was told to have left. */
async function follow(stage, node, users) {
  const events = await Events.open(stage, node, `/api/subscribe?topic=${ROOM}&presence=true`);
  const { data } = await events.next();
  assert.deepEqual(Object.keys(data.presences).sort(), [...users].sort());
  return () => leavesIn(events.waiting.map(({ event, data }) => ({ event, payload: data })));
}

/** Who leaves in the diffs among these events. */
function leavesIn(events) {
  const diffs = events.filter(({ event }) => event === "presence_diff");
  return diffs.flatMap(({ payload }) => Object.keys(payload.leaves));
}

/** The same of an official client: from its room, what tells whom it was told to have left. */
const watch = (room) => () => leavesIn(room.order);

/** The lines of a node's log that match. */
const said = (node, pattern) => node.log.filter((line) => pattern.test(line));

/** How a node sees another, as its API tells it. */
async function member(node, name) {
  const found = (await node.members()).filter((one) => one.name === name);
  assert.equal(found.length, 1, `one ${name}: ${JSON.stringify(found)}`);
  return found[0];
}

story("a node that stands still for 1.5 s is taken for dead by nobody, and no watcher sees anybody leave", async (stage) => {
  const nodes = await stage.cluster(3);
  const users = ["ann", "bob", "cat"];
  const rooms = await crowd(stage, { ann: nodes[0], bob: nodes[1], cat: nodes[2] });
  const others = nodes.slice(0, 2);
  const watchers = [watch(rooms.ann), watch(rooms.bob)];
  for (const node of others) watchers.push(await follow(stage, node, users));
  const look = async (seconds) => {
    const end = Date.now() + seconds * 1000;
    while (Date.now() < end) {
      for (const node of others) {
        assert.notEqual((await member(node, "n3")).state, "down");
        assert.deepEqual(await node.present(ROOM), users);
      }
      await pause(20);
    }
  };
  nodes[2].process.signal("SIGSTOP");
  await look(1.5);
  nodes[2].process.signal("SIGCONT");
  await look(3.5);
  for (const node of others) assert.deepEqual(said(node, /peer down|partition suspected/), []);
  for (const leaves of watchers) assert.deepEqual(leaves(), []);
  // They would have been told.
  await rooms.cat.leave();
  await until("all are told", () => watchers.every((leaves) => leaves().join() === "cat"));
});

story("all clients of a node that is killed leave once on each other node", async (stage) => {
  const nodes = await stage.cluster(3);
  const dying = Array.from({ length: 20 }, (_, i) => `gone${i}`).sort();
  const rooms = await crowd(stage, { ann: nodes[0], bob: nodes[1], ...Object.fromEntries(dying.map((user) => [user, nodes[2]])) });
  const others = nodes.slice(0, 2);
  const watchers = [watch(rooms.ann), watch(rooms.bob)];
  for (const node of others) watchers.push(await follow(stage, node, ["ann", "bob", ...dying]));
  const killedAt = Date.now();
  await nodes[2].kill();
  await agree([rooms.ann, rooms.bob], ["ann", "bob"], { seconds: 10 });
  console.log(`gone everywhere ${(Date.now() - killedAt) / 1000} s after the kill`);
  for (const node of others) {
    assert.deepEqual(await node.present(ROOM), ["ann", "bob"]);
    assert.equal((await member(node, "n3")).state, "down");
    assert.equal(said(node, /WARN.*peer down: it does not answer probes/).length, 1);
  }
  await until("all are told", () => watchers.every((leaves) => leaves().length >= dying.length));
  for (const leaves of watchers) assert.deepEqual(leaves().sort(), dying);
});

story("of two processes of one name the older ends and says so, and its clients go elsewhere", async (stage) => {
  const nodes = await stage.cluster(3);
  const rooms = await crowd(stage, { ann: nodes[0], bob: nodes[1] });
  const balancer = await RoundRobin.start(stage, [nodes[2], nodes[0]]);
  const client = await connect(balancer.socketUrl, { user: "old" });
  stage.atEnd(() => client.end());
  rooms.old = await client.join(ROOM);
  await agree(Object.values(rooms), ["ann", "bob", "old"]);
  assert.deepEqual(await nodes[2].present(ROOM), ["ann", "bob", "old"]);
  const older = await member(nodes[0], "n3");

  const newer = await stage.node("n3", { join: [nodes[0].cluster] });
  const { code } = await nodes[2].process.ended;
  assert.equal(code, 1);
  const [line] = said(nodes[2], /ERROR.*another node named n3 .*took this node's place/);
  assert.ok(line, nodes[2].log.join("\n"));
  assert.match(line, /give each node its own --name/);
  await assert.rejects(fetch(nodes[2].url), "it serves nobody any more");

  await stage.formed([nodes[0], nodes[1], newer]);
  for (const node of nodes.slice(0, 2)) {
    const now = await member(node, "n3");
    assert.equal(now.address, newer.cluster);
    assert.notEqual(now.incarnation, older.incarnation);
  }
  assert.ok(newer.process.running);
  await until("the client is back", () => client.opened === 2 && rooms.old.channel.isJoined());
  const roster = await agree(Object.values(rooms), ["ann", "bob", "old"]);
  assert.equal(roster.old.length, 1, "it is there once");
  for (const node of [nodes[0], nodes[1], newer]) assert.equal((await node.presence(ROOM)).presences.old.metas.length, 1);
  const fresh = await (await stage.phoenix(newer, { user: "fresh" })).join(ROOM);
  await agree([...Object.values(rooms), fresh], ["ann", "bob", "fresh", "old"]);
});

story("a node that comes back at another address is found there, and at the old one no more", async (stage) => {
  const nodes = await stage.cluster(3);
  const rooms = await crowd(stage, { ann: nodes[0], bob: nodes[1], old: nodes[2] });
  delete rooms.old;
  const before = nodes[2].cluster;
  await nodes[2].restart({ clusterListen: await ownAddress(), join: [nodes[1].cluster] });
  assert.notEqual(nodes[2].cluster, before);
  await stage.formed(nodes);
  for (const node of nodes.slice(0, 2)) assert.equal((await member(node, "n3")).address, nodes[2].cluster);
  await agree(Object.values(rooms), ["ann", "bob"]);
  rooms.new = await (await stage.phoenix(nodes[2], { user: "new" })).join(ROOM);
  await agree(Object.values(rooms), ["ann", "bob", "new"]);
  await rooms.ann.push("message", { n: 1 });
  assert.deepEqual(await rooms.new.next("message"), { n: 1 });
  // Another node may have the old address, and is no n3 to anybody.
  const heir = await stage.node("n4", { clusterListen: before, join: [nodes[0].cluster] });
  await stage.formed([...nodes, heir]);
  assert.equal((await member(nodes[1], "n4")).address, before);
  assert.equal((await member(nodes[1], "n3")).address, nodes[2].cluster);
  await agree(Object.values(rooms), ["ann", "bob", "new"]);
});

/** The process's memory, in KiB. */
function memory(node) {
  return Number(/VmRSS:\s+(\d+) kB/.exec(readFileSync(`/proc/${node.process.pid}/status`, "utf8"))[1]);
}

const RESTARTS = 50;
/** After so many, what they cost is compared with what they cost in the end. */
const RESTARTS_EARLY = 10;

story(`${RESTARTS} restarts of one node leave no trace of its former runs on another`, async (stage) => {
  const nodes = await stage.cluster(3);
  const rooms = await crowd(stage, { ann: nodes[0], bob: nodes[1] });
  const series = async () => {
    const lines = (await nodes[0].call("/metrics")).text.split("\n").filter((line) => !line.startsWith("#"));
    return lines.map((line) => line.replace(/ \S+$/, "")).sort();
  };
  const early = {};
  for (let run = 1; run <= RESTARTS; run++) {
    await nodes[2].restart({ join: [nodes[0].cluster] });
    const room = await (await stage.phoenix(nodes[2], { user: `run${run}` })).join(ROOM);
    await agree([...Object.values(rooms), room], ["ann", "bob", `run${run}`]);
    if (run === RESTARTS_EARLY) Object.assign(early, { series: await series(), memory: memory(nodes[0]) });
  }
  await stage.formed(nodes);
  assert.equal((await nodes[0].members()).length, 3);
  assert.deepEqual(await series(), early.series, "the metrics name what they named");
  const grown = memory(nodes[0]) - early.memory;
  console.log(`${RESTARTS - RESTARTS_EARLY} restarts took ${grown} KiB of another node's memory`);
  assert.ok(grown < 2 * 1024, `${grown} KiB`);
  assert.equal((await nodes[0].presence(ROOM)).count, 3);
});
