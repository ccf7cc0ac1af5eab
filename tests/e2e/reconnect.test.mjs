// The official client behind a load balancer, when the node that it is on dies.

import assert from "node:assert/strict";

import { RoundRobin } from "./lib/balancer.mjs";
import { connect, agree } from "./lib/phoenix.mjs";
import { story } from "./lib/stage.mjs";
import { until } from "./lib/until.mjs";

const ROOM = "room:lobby";

/** The official client at the balancer. */
async function behind(stage, balancer, options) {
  const client = await connect(balancer.socketUrl, options);
  stage.atEnd(() => client.end());
  return client;
}

story("clients of a node that dies come back on another, and all are listed once", async (stage) => {
  const nodes = await stage.cluster(3);
  const balancer = await RoundRobin.start(stage, nodes);
  const users = ["u0", "u1", "u2", "u3", "u4", "u5"];
  const clients = [];
  for (const user of users) {
    const client = await behind(stage, balancer, { user });
    client.room = await client.join(ROOM, { meta: { of: user } });
    clients.push(client);
  }
  const rooms = clients.map((client) => client.room);
  await agree(rooms, users);
  assert.deepEqual(balancer.connections, [2, 2, 2]);

  await nodes[1].kill();
  const cutOff = clients.filter((_, i) => i % 3 === 1);
  for (const client of cutOff) {
    await until("it is back", () => client.opened === 2 && client.room.channel.isJoined());
  }
  const roster = await agree(rooms, users, { seconds: 8 });
  await until("each is there once", () => rooms.every((room) => Object.values(room.roster).every((metas) => metas.length === 1)), { seconds: 8 });
  for (const user of users) assert.equal(roster[user].at(-1).of, user);
  for (const client of clients) assert.equal(client.opened, cutOff.includes(client) ? 2 : 1);

  for (const [i, room] of rooms.entries()) await room.push("message", { i });
  for (const room of rooms) {
    await until("all six are heard", () => room.waiting("message").length === 6);
    assert.deepEqual(room.waiting("message").map(({ i }) => i).sort(), [0, 1, 2, 3, 4, 5]);
  }
});

story("a client of a node that is stopped comes back on another within a second", async (stage) => {
  const nodes = await stage.cluster(2);
  const balancer = await RoundRobin.start(stage, nodes);
  const client = await behind(stage, balancer, { user: "ann" });
  const room = await client.join(ROOM);
  await room.lists(["ann"]);
  await nodes[0].stop();
  assert.equal((await client.closes.next("the close")).code, 1012);
  await until("it is back", () => client.opened === 2 && room.channel.isJoined(), { seconds: 2 });
  await room.lists(["ann"]);
  assert.deepEqual(await nodes[1].present(ROOM), ["ann"]);
  await nodes[1].broadcast(ROOM, "message", { n: 1 });
  assert.deepEqual(await room.next("message"), { n: 1 });
});

story("a client outlives a restart of the only node", async (stage) => {
  const node = await stage.alone();
  const balancer = await RoundRobin.start(stage, [node]);
  const client = await behind(stage, balancer, { user: "ann" });
  const room = await client.join(ROOM);
  await node.restart();
  await until("it is back", () => client.opened >= 2 && room.channel.isJoined());
  await room.lists(["ann"]);
  await node.broadcast(ROOM, "message", { n: 1 });
  assert.deepEqual(await room.next("message"), { n: 1 });
});
