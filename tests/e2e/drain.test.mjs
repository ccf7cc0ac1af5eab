// Nodes that are drained: their clients move, and nobody sees them absent.

import assert from "node:assert/strict";

import { Crowd, Watcher } from "./lib/crowd.mjs";
import { agree } from "./lib/phoenix.mjs";
import { story, ownAddress } from "./lib/stage.mjs";
import { until } from "./lib/until.mjs";

const ROOM = "room:lobby";

const USERS = 1000;

const status = async (node, path) => (await node.call(path)).status;

/** Three nodes that keep their addresses, a crowd over all of them, and a watcher on each. */
async function crowded(stage, size) {
  const nodes = await stage.cluster(3);
  // Addresses of nodes that are restarted stay.
  for (const node of nodes) Object.assign(node.settings, { listen: node.address, clusterListen: node.cluster });
  for (const node of nodes) node.settings.join = nodes.filter((other) => other !== node).map((other) => other.cluster);
  const crowd = new Crowd(stage, nodes, ROOM, size);
  await until("all have joined", () => crowd.joined === size, { seconds: 20 });
  return { nodes, crowd };
}

const watch = async (stage, nodes) =>
  Object.fromEntries(await Promise.all(nodes.map(async (node) => [node.name, await Watcher.open(stage, node, ROOM, `watcher-${node.name}`)])));

story("a rolling deploy under 1,000 clients shows nobody absent", async (stage) => {
  const { nodes, crowd } = await crowded(stage, USERS);
  const users = (watcher) => [...watcher.roster].filter(([key]) => key.startsWith("u"));
  const lists = (watcher) => users(watcher).length === USERS;
  const listsOnce = (watcher) => lists(watcher) && users(watcher).every(([, refs]) => refs.size === 1);
  for (const node of nodes) {
    const others = nodes.filter((other) => other !== node);
    const watchers = await watch(stage, others);
    await until("all are listed", () => Object.values(watchers).every(lists));
    const before = crowd.joins;
    const { code } = await node.stop();
    assert.equal(code, 0, node.log.slice(-5).join("\n"));
    await until("all have joined again", () => crowd.joined === USERS, { seconds: 15 });
    assert.ok(crowd.joins > before);
    await node.start();
    await stage.formed(nodes, { seconds: 15 });
    await until("all are listed once", () => Object.values(watchers).every(listsOnce), { seconds: 10 });
    for (const [name, watcher] of Object.entries(watchers)) {
      const absent = watcher.absences.filter((key) => key.startsWith("u"));
      assert.deepEqual(absent.slice(0, 5), [], `${absent.length} were absent on ${name} while ${node.name} was away`);
    }
    assert.ok((await node.presence(ROOM)).count >= USERS);
    Object.values(watchers).forEach((watcher) => watcher.end());
  }
  assert.deepEqual(Object.keys(crowd.closes).filter((code) => !["1006", "1012"].includes(code)), [], JSON.stringify(crowd.closes));
  assert.ok(crowd.closes[1012] > 0);
}, { seconds: 100 });

story("kill -9 hides the clients of a node until they are back", async (stage) => {
  const { nodes, crowd } = await crowded(stage, 60);
  const watchers = await watch(stage, nodes.slice(0, 2));
  // Clients that cannot come back.
  crowd.nodes = [nodes[2]];
  await nodes[2].kill();
  await until("a third is gone", () =>
    Object.values(watchers).every((watcher) => watcher.absences.filter((key) => key.startsWith("u")).length === 20), { seconds: 6 });
});

story("a drained node is not ready, takes nobody, and ends when its clients are elsewhere", async (stage) => {
  const nodes = await stage.cluster(2, { env: { WINGBEAT_DRAIN__DELAY: "500ms" } });
  const ann = await stage.phoenix(nodes[1], { user: "ann" });
  const room = await ann.join(ROOM);
  const bob = await stage.phoenix(nodes[0], { user: "bob" });
  const watched = await bob.join(ROOM);
  await agree([room, watched], ["ann", "bob"]);
  const drained = stage.follow(nodes[1], ["drain", "--wait"]);
  await until("it is not ready", async () => (await nodes[1].call("/readyz")).json?.status === "draining");
  assert.equal(await status(nodes[1], "/readyz"), 503);
  await until("its peer says so", async () => (await nodes[0].members()).some((member) => member.name === "n2" && member.state === "draining"));
  assert.equal((await ann.closes.next("the close")).code, 1012);
  assert.equal(await status(nodes[1], "/socket/longpoll?vsn=2.0.0"), 503);
  // She is listed until she is back.
  await watched.lists(["ann", "bob"]);
  const back = await stage.phoenix(nodes[0], { user: "ann" });
  await back.join(ROOM, { meta: { back: true } });
  assert.deepEqual(await nodes[1].process.ended, { code: 0, signal: null });
  assert.equal((await drained.ended).code, 0);
  assert.match(drained.stdout.join("\n"), /n2 is \w+: \d sockets open[^]*the node has ended/);
  await watched.lists(["ann", "bob"]);
  assert.equal(watched.roster.ann.length, 1);
  assert.equal(watched.roster.ann[0].back, true);
});

story("who does not come back after a drain leaves when the lease is over", async (stage) => {
  const nodes = await stage.cluster(2, { env: { WINGBEAT_DRAIN__LEASE: "4s", WINGBEAT_DRAIN__TIMEOUT: "1s" } });
  const ann = await stage.phoenix(nodes[1], { user: "ann" });
  await ann.join(ROOM);
  const watched = await (await stage.phoenix(nodes[0], { user: "bob" })).join(ROOM);
  await watched.lists(["ann", "bob"]);
  const { code } = await nodes[1].stop();
  assert.equal(code, 0);
  await nodes[0].sees(["n1"]);
  await watched.lists(["ann", "bob"]);
  await watched.lists(["bob"], { seconds: 6 });
});

story("a whole cluster that goes at once waits for nobody to come back", async (stage) => {
  const nodes = await stage.cluster(3, { env: { WINGBEAT_DRAIN__LEASE: "60s", WINGBEAT_DRAIN__TIMEOUT: "80s" } });
  for (const node of nodes) await (await stage.phoenix(node, { user: `on-${node.name}` })).join(ROOM);
  const began = Date.now();
  for (const { code } of await Promise.all(nodes.map((node) => node.stop()))) assert.equal(code, 0);
  assert.ok(Date.now() - began < 30_000, "nobody waited for the lease");
});

story("a client of a lingering channel that loses its socket is missed only if it does not come back", async (stage) => {
  const config = `[[channel]]\ntopic = "room:*"\nlinger = "2s"\n`;
  const nodes = await stage.cluster(2, { config });
  const watcher = await Watcher.open(stage, nodes[0], ROOM, "watcher");
  const first = await stage.raw(nodes[1], { user: "ann" });
  await first.join(ROOM);
  await until("ann is listed", () => watcher.roster.has("ann"));
  first.end();
  const second = await stage.raw(nodes[0], { user: "ann" });
  await second.join(ROOM);
  await until("her meta changed", () => watcher.diffs >= 2);
  assert.deepEqual(watcher.absences, []);
  assert.equal(watcher.roster.get("ann").size, 1);
  second.end();
  await until("she is missed", () => watcher.absences.includes("ann"), { seconds: 5 });
  const third = await stage.raw(nodes[1], { user: "ann" });
  await third.join(ROOM);
  await until("ann is listed again", () => watcher.roster.has("ann"));
  const left = watcher.absences.length;
  third.send(["1", "2", ROOM, "phx_leave", {}]);
  await until("she has left at once", () => watcher.absences.length > left, { seconds: 1.5 });
});
