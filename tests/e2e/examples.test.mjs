// The small examples, as their readers would try them. The larger ones have tests of their own.

import assert from "node:assert/strict";

import { agree, connect } from "./lib/phoenix.mjs";
import { Running, example } from "./lib/process.mjs";
import { story } from "./lib/stage.mjs";

story("chat: whoever is in a room is listed, and hears what is said", async (stage) => {
  const nodes = await stage.cluster(2, { binary: example("chat") });
  const join = async (node, name) => {
    const client = await stage.phoenix(node, { params: { name } });
    return await client.join("room:lobby", { from: "a test" });
  };
  const [ann, bob] = [await join(nodes[0], "ann"), await join(nodes[1], "bob")];
  const roster = await agree([ann, bob], ["ann", "bob"]);
  assert.equal(roster.ann[0].from, "a test");
  assert.deepEqual(await ann.push("message", { text: "hello" }), { status: "ok", response: {} });
  for (const channel of [ann, bob]) assert.deepEqual(await channel.next("message"), { text: "hello" });
});

story("embed: an axum application serves a node beside its own routes", async (stage) => {
  const server = new Running(["127.0.0.1:0"], { binary: example("embed") });
  stage.atEnd(() => server.end());
  const [, address] = await server.line(/^listening http (\S+)$/);
  const client = await connect(`ws://${address}/socket`, { user: "u1" });
  stage.atEnd(() => client.end());
  const channel = await client.join("room:lobby", { meta: {} });
  const { status } = await fetch(`http://${address}/say`, { method: "POST", body: "hello" });
  assert.equal(status, 202);
  assert.deepEqual(await channel.next("said"), { text: "hello" });
  await channel.lists(["u1"]);
  assert.equal((await (await fetch(`http://${address}/api/presence/room:lobby`)).json()).count, 1);
  const { code } = await server.end("SIGINT");
  assert.equal(code, 0);
  assert.equal((await client.closes.next("the close")).code, 1012);
});

story("embed: a node whose name another process takes sends its clients away and ends", async (stage) => {
  const n1 = await stage.node("n1");
  const embed = async () => {
    const env = {
      WINGBEAT_CLUSTER_SECRET: stage.secret,
      WINGBEAT_NODE__NAME: "twin",
      WINGBEAT_CLUSTER__LISTEN: "127.0.0.1:0",
      WINGBEAT_CLUSTER__JOIN: n1.cluster,
    };
    const server = new Running(["127.0.0.1:0"], { binary: example("embed"), env });
    stage.atEnd(() => server.end());
    const [, address] = await server.line(/^listening http (\S+)$/);
    await n1.sees(["n1", "twin"]);
    return { server, address };
  };
  const elder = await embed();
  const client = await connect(`ws://${elder.address}/socket`);
  stage.atEnd(() => client.end());
  await client.join("room:lobby");
  const younger = await embed();
  assert.equal((await elder.server.ended).code, 1);
  assert.match(elder.server.stderr.join("\n"), /another node named twin/);
  assert.equal((await client.closes.next("the close")).code, 1012);
  assert.equal((await fetch(`http://${younger.address}/readyz`)).status, 200);
});
