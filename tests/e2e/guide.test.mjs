// docs/GUIDE.md: its program is the example, its files and its client work as they stand there.

import assert from "node:assert/strict";
import { readFileSync, symlinkSync } from "node:fs";
import { dirname, join as joinPath } from "node:path";
import { test } from "node:test";

import { Browser } from "./lib/browser.mjs";
import { REPOSITORY, Running, example } from "./lib/process.mjs";
import { story } from "./lib/stage.mjs";

const GUIDE = readFileSync(`${REPOSITORY}docs/GUIDE.md`, "utf8");

/** The code blocks of a language, in order. */
const blocks = (language) => [...GUIDE.matchAll(new RegExp(`^\`\`\`${language}\\n(.*?)^\`\`\`$`, "gms"))].map(([, text]) => text);

/** Does what the guide does by curl. */
async function curl(node, call) {
  const [, body] = new RegExp(`api/${call} -d '(.*)'$`, "m").exec(GUIDE);
  assert.equal((await node.call(`/api/${call}`, { body })).status, 202);
}

test("guide: the blocks of Rust, one after another, are the example", () => {
  const program = readFileSync(`${REPOSITORY}node/examples/guide.rs`, "utf8");
  assert.equal(blocks("rust").join("\n"), program);
});

story("guide: two nodes by its files, and its client on each", async (stage) => {
  const [, ...configs] = blocks("toml");
  assert.equal(configs.length, 2);
  const settings = { binary: example("guide"), env: { WINGBEAT_CLUSTER_SECRET: undefined } };
  stage.file("secret", `${stage.secret}\n`);
  // Ports of the machine's choice in place of those of the guide.
  const n1 = await stage.node("n1", { ...settings, config: configs[0] });
  const n2 = await stage.node("n2", { ...settings, config: configs[1], join: [n1.cluster] });
  await stage.formed([n1, n2]);

  const [source] = blocks("js");
  const script = stage.file("client.mjs", source);
  symlinkSync(joinPath(REPOSITORY, "tests/e2e/node_modules"), joinPath(dirname(script), "node_modules"));
  const start = (node, user) => {
    const client = new Running([script, node.socketUrl, user], { binary: process.execPath });
    stage.atEnd(() => client.end());
    return client;
  };
  const ann = start(n1, "ann");
  for (const line of [/^welcome ann$/, /^online: ann$/, /^ann: hello$/, /^said 1$/, /^reminder: tea$/]) await ann.line(line);
  const bob = start(n2, "bob");
  for (const line of [/^welcome bob$/, /^online: ann, bob$/, /^bob: hello$/]) await bob.line(line);
  for (const line of [/^online: ann, bob$/, /^bob: hello$/]) await ann.line(line);

  assert.deepEqual(await n1.present("room:lobby"), ["ann", "bob"]);
  await curl(n1, "broadcast");
  for (const client of [ann, bob]) await client.line(/^robot: hello$/);
  const before = ann.stdout.length;
  await curl(n2, "disconnect");
  await ann.line(/^welcome ann$/, { after: before });
  await n2.kill();
  await ann.line(/^online: ann$/, { after: ann.stdout.length, seconds: 20 });
});

story("guide: the node's own page is a client of it", async (stage) => {
  const node = await stage.alone({ binary: example("guide") });
  const browser = await Browser.launch(stage);
  const pages = [];
  for (const name of ["Ann", "Bob"]) {
    const page = await browser.open(node, { query: `?topic=room%3Alobby&name=${name}` });
    await page.click("#join button");
    await page.waitForSelector("#status[data-state=joined]");
    pages.push(page);
  }
  const [ann, bob] = pages;
  await ann.locator("#people-list .name", { hasText: "Bob" }).waitFor();
  await ann.fill("#text", "hello");
  await ann.press("#text", "Enter");
  await bob.locator(".bubble", { hasText: "Ann" }).locator("p", { hasText: "hello" }).waitFor();
  assert.deepEqual(browser.errors, []);
});

story("guide: a client without a name is not let in, nor anybody to the attic", async (stage) => {
  const node = await stage.alone({ binary: example("guide") });
  assert.equal((await node.request("/socket/websocket?vsn=2.0.0", { headers: {
    connection: "upgrade", upgrade: "websocket", "sec-websocket-version": "13", "sec-websocket-key": "AAAAAAAAAAAAAAAAAAAAAA==",
  } })).status, 403);
  const socket = await stage.raw(node, { user: "ann" });
  const [, , , , payload] = await socket.ask(["1", "1", "room:attic", "phx_join", {}]);
  assert.deepEqual(payload, { status: "error", response: { reason: "nobody may go there" } });
  await socket.join("room:a");
  const ask = async (i) => {
    socket.send(["1", `${i}`, "room:a", "remind_me", { after_ms: 60_000, text: "later" }]);
    return (await socket.until("phx_reply"))[4];
  };
  for (let i = 0; i < 10; i++) assert.equal((await ask(i)).status, "ok");
  assert.deepEqual((await ask(10)).response, { reason: "too many reminders" });
});
