// Neighbouring releases in one cluster. The later ones are builds of this source that say they speak a
// later wire version; the first run builds them, into target/wire-next.

import assert from "node:assert/strict";
import { copyFileSync } from "node:fs";
import { before } from "node:test";

import { agree } from "./lib/phoenix.mjs";
import { REPOSITORY, run } from "./lib/process.mjs";
import { story } from "./lib/stage.mjs";
import { until } from "./lib/until.mjs";

const ROOM = "room:lobby";
const BUILD_SECONDS = 15 * 60;
const TARGET = `${REPOSITORY}target/wire-next`;

/** Speaks versions 1 and 2. */
const NEXT = `${TARGET}/wingbeat-next`;
/** Speaks version 2 alone. */
const ONLY_NEXT = `${TARGET}/wingbeat-only-next`;

async function build(feature, binary) {
  const args = ["build", "--locked", "-p", "wingbeat", "--features", `cluster/${feature}`, "--target-dir", TARGET];
  const { code, stderr } = await run(args, { binary: "cargo", cwd: REPOSITORY, seconds: BUILD_SECONDS });
  assert.equal(code, 0, stderr);
  copyFileSync(`${TARGET}/debug/wingbeat`, binary);
}

before(async () => {
  await build("wire-next", NEXT);
  await build("wire-only-next", ONLY_NEXT);
}, { timeout: 2 * BUILD_SECONDS * 1000 });

story("a release that also speaks the next version works together with this one", async (stage) => {
  const nodes = [await stage.node("n1")];
  nodes.push(await stage.node("n2", { join: [nodes[0].cluster], binary: NEXT }));
  nodes.push(await stage.node("n3", { join: [nodes[1].cluster] }));
  await stage.formed(nodes);
  const rooms = [];
  for (const [i, node] of nodes.entries()) rooms.push(await (await stage.phoenix(node, { user: `u${i}` })).join(ROOM));
  await agree(rooms, ["u0", "u1", "u2"]);
  for (const [i, room] of rooms.entries()) {
    await room.push("message", { i });
    for (const listener of rooms) assert.deepEqual(await listener.next("message"), { i });
  }
});

story("a cluster is upgraded node by node", async (stage) => {
  const nodes = await stage.cluster(3);
  for (const [i, node] of nodes.entries()) {
    const other = nodes[(i + 1) % nodes.length];
    await node.restart({ binary: NEXT, join: [other.cluster] });
    await stage.formed(nodes);
    const room = await (await stage.phoenix(other, { user: `u${i}` })).join(ROOM);
    await node.broadcast(ROOM, "message", { i });
    assert.deepEqual(await room.next("message"), { i });
  }
});

for (const [what, first, second] of [
  ["a release that has dropped this one's version is refused", undefined, ONLY_NEXT],
  ["this release is refused by one that has dropped its version", ONLY_NEXT, undefined],
]) {
  story(`${what}, by one clear line on both sides`, async (stage) => {
    const nodes = await stage.cluster(2, { binary: first });
    const stranger = await stage.node("stranger", { binary: second, join: [nodes[0].cluster] });
    const refusals = (node) => node.log.filter((line) => /link refused/.test(line));
    await until("both say why", () => refusals(nodes[0]).length > 0 && refusals(stranger).length > 0);
    await new Promise((resolve) => setTimeout(resolve, 3000));
    for (const node of [nodes[0], stranger]) {
      assert.equal(refusals(node).length, 1, refusals(node).join("\n"));
      assert.match(refusals(node)[0], /wire versions .*run neighbouring releases/);
    }
    assert.deepEqual(refusals(nodes[1]), []);
    await stage.formed(nodes);
    await stranger.sees(["stranger"]);
  });
}

story("releases whose highest versions are the same work together, whatever else one of them speaks", async (stage) => {
  const middle = await stage.node("n1", { binary: NEXT });
  const later = await stage.node("n2", { join: [middle.cluster], binary: ONLY_NEXT });
  await stage.formed([middle, later]);
});
