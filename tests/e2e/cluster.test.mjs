// Nodes that find each other, refuse strangers, go and come back.

import assert from "node:assert/strict";
import { existsSync, readdirSync } from "node:fs";

import { agree } from "./lib/phoenix.mjs";
import { ownAddress, story } from "./lib/stage.mjs";
import { until } from "./lib/until.mjs";

const ROOM = "room:lobby";

/** How long a refusal takes to be tried again, and more. */
const WATCH_SECONDS = 3;

async function ready(node) {
  return (await node.call("/readyz")).status;
}

/** The lines of a node's log that warn of something, at least; debug lines are not on. */
const warnings = (node) => node.log.filter((line) => / (WARN|ERROR) /.test(line));

async function pauseWatching(seconds = WATCH_SECONDS) {
  await new Promise((resolve) => setTimeout(resolve, seconds * 1000));
}

story("three processes with --join form a cluster in under 2 s", async (stage) => {
  const first = await stage.node("n1");
  const others = await Promise.all(["n2", "n3"].map((name) => stage.node(name, { join: [first.cluster] })));
  const listening = Date.now();
  await stage.formed([first, ...others]);
  const seconds = (Date.now() - listening) / 1000;
  console.log(`formed ${seconds} s after the last listener was up`);
  assert.ok(seconds < 2, `formed after ${seconds} s`);
  for (const node of [first, ...others]) {
    await until(`${node.name} is ready`, async () => (await ready(node)) === 200);
    assert.deepEqual(warnings(node), [], "nothing went wrong on the way");
    const peers = node.log.filter((line) => /peer up/.test(line)).length;
    assert.equal(peers, 2, node.log.join("\n"));
  }
});

story("nodes that all start at once, each with all the others as seeds, form one cluster", async (stage) => {
  const addresses = await Promise.all([ownAddress(), ownAddress(), ownAddress()]);
  const nodes = await Promise.all(addresses.map((clusterListen, i) =>
    stage.node(`n${i + 1}`, { clusterListen, join: addresses })));
  await stage.formed(nodes);
  for (const node of nodes) await until(`${node.name} is ready`, async () => (await ready(node)) === 200, { seconds: 3 });
  const rooms = [];
  for (const node of nodes) rooms.push(await (await stage.phoenix(node)).join(ROOM));
  await rooms[0].push("message", { n: 1 });
  for (const room of rooms) assert.deepEqual(await room.next("message"), { n: 1 });
});

story("nodes find each other on IPv6", async (stage) => {
  const settings = { listen: "[::1]:0", clusterListen: "[::1]:0" };
  const nodes = await stage.cluster(2, settings);
  const rooms = [];
  for (const node of nodes) rooms.push(await (await stage.phoenix(node)).join(ROOM));
  await rooms[0].push("message", { n: 1 });
  assert.deepEqual(await rooms[1].next("message"), { n: 1 });
});

story("every line of the log is JSON with its node, when that is asked for", async (stage) => {
  const env = { WINGBEAT_CLUSTER_SECRET: stage.secret, WINGBEAT_LOG__FORMAT: "json" };
  const nodes = await stage.cluster(2, { env });
  await nodes[1].stop();
  await until("the log says it", () => nodes[0].log.some((line) => /peer down/.test(line)));
  for (const node of nodes) {
    assert.ok(node.log.length >= 2);
    for (const line of node.log) assert.match(JSON.stringify(JSON.parse(line)), new RegExp(`"node":"${node.name}"`));
  }
});

story("a seed that does not answer is named in the log", async (stage) => {
  const seed = await stage.silentSeed();
  const node = await stage.node("n1", { join: [seed] });
  await until("the log names it", () => warnings(node).some((line) => line.includes(`cannot reach seed ${seed}`)), { seconds: 15 });
});

story("a seed whose name does not resolve is named in the log", async (stage) => {
  const node = await stage.node("n1", { join: ["dns:no-such-host.invalid:4400"] });
  await until("the log names it", () =>
    warnings(node).some((line) => line.includes("dns:no-such-host.invalid:4400")), { seconds: 15 });
});

/** A stranger that is refused by one clear line on each side, and changes nothing for others. */
async function refused(stage, settings, cause, cure) {
  const nodes = await stage.cluster(2);
  const clients = [await stage.phoenix(nodes[0], { user: "ann" }), await stage.phoenix(nodes[1], { user: "bob" })];
  const rooms = [await clients[0].join(ROOM), await clients[1].join(ROOM)];
  await agree(rooms, ["ann", "bob"]);
  const before = nodes.map((node) => node.log.length);
  const stranger = await stage.node("stranger", { ...settings, join: [nodes[0].cluster] });
  await until("the stranger says why", () => stranger.log.some((line) => line.includes(nodes[0].cluster) && cause.test(line)));
  await until("the node says why", () => nodes[0].log.some((line) => cause.test(line)));
  await pauseWatching();
  const told = (node, from = 0) => node.log.slice(from).filter((line) => / (WARN|ERROR|INFO) /.test(line));
  assert.equal(told(nodes[0], before[0]).length, 1, told(nodes[0], before[0]).join("\n"));
  assert.match(told(nodes[0], before[0])[0], cure);
  assert.deepEqual(told(nodes[1], before[1]), [], "the other node has nothing to do with it");
  assert.equal(told(stranger).length, 1, told(stranger).join("\n"));
  assert.match(told(stranger)[0], cure);
  for (const node of nodes) await node.sees(["n1", "n2"]);
  await stranger.sees(["stranger"]);
  await rooms[0].push("message", { n: 1 });
  assert.deepEqual(await rooms[1].next("message"), { n: 1 });
  await agree(rooms, ["ann", "bob"]);
  assert.deepEqual(clients.map((client) => client.opened), [1, 1]);
}

story("a node with another secret is refused by one clear line on each side", async (stage) => {
  const env = { WINGBEAT_CLUSTER_SECRET: "another-secret-of-more-than-32-bytes-for-sure" };
  await refused(stage, { env }, /secret differs/, /WINGBEAT_CLUSTER_SECRET/);
});

story("a node of another cluster is refused by one clear line on each side", async (stage) => {
  await refused(stage, { config: '[cluster]\nname = "other"\n' }, /it is of (another )?cluster/, /cluster\.name/);
});

story("nodes one step apart in a change of secrets work together, whoever dials", async (stage) => {
  const [old, next] = ["the-old-secret-of-more-than-32-bytes-for-sure", "the-next-secret-of-more-than-32-bytes-for-sure"];
  const steps = [old, `${old},${next}`, `${next},${old}`, next];
  for (let i = 1; i < steps.length; i++) {
    for (const [seed, dialler] of [[steps[i - 1], steps[i]], [steps[i], steps[i - 1]]]) {
      const first = await stage.node("n1", { env: { WINGBEAT_CLUSTER_SECRET: seed } });
      const second = await stage.node("n2", { env: { WINGBEAT_CLUSTER_SECRET: dialler }, join: [first.cluster] });
      await stage.formed([first, second]);
      await Promise.all([first.kill(), second.kill()]);
    }
  }
});

story("a node that looks its seeds up by DNS joins all addresses of the name", async (stage) => {
  const first = await stage.node("n1");
  const [, port] = first.cluster.split(":");
  const second = await stage.node("n2", { join: [`dns:localhost:${port}`] });
  await stage.formed([first, second]);
  assert.ok(second.log.some((line) => /seed resolved/.test(line) && line.includes(first.cluster)));
});

story("a starting node is not ready before a seed is joined, or join_timeout is over", async (stage) => {
  const seed = await stage.silentSeed();
  const lonely = await stage.node("n1", { join: [seed], config: '[cluster]\njoin_timeout = "2s"\n' });
  const started = Date.now();
  assert.equal(await ready(lonely), 503);
  assert.equal((await lonely.call("/healthz")).status, 200);
  await until("it is ready alone", async () => (await ready(lonely)) === 200);
  const seconds = (Date.now() - started) / 1000;
  assert.ok(seconds > 1 && seconds < 4, `ready after ${seconds} s`);
});

story("a node is ready at once when it has no seeds, or is its only seed", async (stage) => {
  assert.equal(await ready(await stage.alone()), 200);
  assert.equal(await ready(await stage.node("n1")), 200);
  const clusterListen = await ownAddress();
  const own = await stage.node("n2", { clusterListen, join: [clusterListen] });
  await until("it is ready", async () => (await ready(own)) === 200, { seconds: 3 });
});

story("a node stays ready when it has lost the others", async (stage) => {
  const nodes = await stage.cluster(2);
  await until("both are ready", async () => (await ready(nodes[0])) === 200 && (await ready(nodes[1])) === 200);
  await nodes[1].kill();
  await until("the other is down", async () => (await nodes[0].members()).some((member) => member.state === "down"));
  assert.equal(await ready(nodes[0]), 200);
  await until("the link is seen to be gone", async () =>
    (await nodes[0].members()).some((member) => member.state === "down" && !member.linked));
});

story("SIGTERM ends a node with exit code 0, its clients with 1012, and those who do not come back soon", async (stage) => {
  const nodes = await stage.cluster(2, { env: { WINGBEAT_DRAIN__LEASE: "1s" } });
  const [ann, bob] = [await stage.phoenix(nodes[0], { user: "ann" }), await stage.phoenix(nodes[1], { user: "bob" })];
  const rooms = [await ann.join(ROOM), await bob.join(ROOM)];
  await agree(rooms, ["ann", "bob"]);
  const stopping = nodes[1].stop();
  await rooms[0].lists(["ann"], { seconds: 4 });
  assert.deepEqual(await stopping, { code: 0, signal: null });
  assert.equal((await bob.closes.next("the close")).code, 1012);
  await until("the log says that it left", () => nodes[0].log.some((line) => /peer down: it left/.test(line) && line.includes("n2")));
  await nodes[0].sees(["n1"]);
});

/** The library that shifts a program's clock. */
function faketime() {
  const directories = readdirSync("/usr/lib").map((name) => `/usr/lib/${name}/faketime/libfaketime.so.1`);
  const found = [...directories, "/usr/lib/faketime/libfaketime.so.1"].find(existsSync);
  assert.ok(found, "no libfaketime: apt-get install faketime");
  return found;
}

story("a node whose clock jumped back an hour comes back under its name", async (stage) => {
  const nodes = await stage.cluster(3);
  const room = await (await stage.phoenix(nodes[0], { user: "ann" })).join(ROOM);
  await (await stage.phoenix(nodes[2], { user: "old" })).join(ROOM);
  await room.lists(["ann", "old"]);
  await nodes[2].restart({
    join: [nodes[0].cluster],
    env: { ...nodes[2].settings.env, LD_PRELOAD: faketime(), FAKETIME: "-1h", FAKETIME_DONT_FAKE_MONOTONIC: "1" },
  });
  await stage.formed(nodes, { seconds: 15 });
  assert.ok(nodes[2].log.some((line) => /clock is behind/.test(line)), nodes[2].log.join("\n"));
  await room.lists(["ann"]);
  const fresh = await (await stage.phoenix(nodes[2], { user: "fresh" })).join(ROOM);
  await agree([room, fresh], ["ann", "fresh"]);
  await fresh.push("message", { n: 1 });
  assert.deepEqual(await room.next("message"), { n: 1 });
});
