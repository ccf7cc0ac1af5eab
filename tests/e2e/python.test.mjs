// The Python client `phoenix-channels-python-client`, unchanged, in both versions of the protocol.

import assert from "node:assert/strict";

import { PYTHON, python } from "./lib/python.mjs";
import { story } from "./lib/stage.mjs";

const ROOM = "room:x";

async function ends(client) {
  await client.line(/^refused .*unauthorized/);
  await client.line(/^left/);
  assert.equal((await client.ended).code, 0, client.stderr.join("\n"));
}

if (PYTHON) {
  story("the Python client of V1 joins, hears another node, is refused, and leaves", async (stage) => {
    const [n1, n2] = await stage.cluster(2);
    const speaker = await (await stage.phoenix(n2, { user: "ann" })).join(ROOM);
    const client = python(stage, "phoenix_client.py", [`${n1.socketUrl}/websocket`, "1.0", ROOM, "said"]);
    await client.line(/^joined/, { seconds: 20 });
    await speaker.push("said", { text: "hé", n: [1, null] });
    await client.line(/^heard {'text': 'hé', 'n': \[1, None\]}/);
    await ends(client);
    await speaker.lists(["ann"]);
  });

  // Of V2 it hears what is pushed to it alone: it drops broadcasts, which have no join_ref.
  story("the Python client of V2 joins, hears who is there, is refused, and leaves", async (stage) => {
    const [n1, n2] = await stage.cluster(2);
    const other = await (await stage.phoenix(n2, { user: "ann" })).join(ROOM);
    const url = `${n1.socketUrl}/websocket`;
    const client = python(stage, "phoenix_client.py", [url, "2.0", ROOM, "presence_state"]);
    await client.line(/^heard .*'ann': {'metas'/, { seconds: 20 });
    await ends(client);
    await other.lists(["ann"]);
  });
} else {
  console.error("no Python 3.11 with its clients: their stories are left out");
}
