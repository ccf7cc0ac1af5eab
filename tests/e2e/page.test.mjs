// The page at `/`, in a browser.

import assert from "node:assert/strict";

import { Browser } from "./lib/browser.mjs";
import { ownAddress, story } from "./lib/stage.mjs";
import { until } from "./lib/until.mjs";

async function join(page, name, topic = "room:lobby") {
  await page.fill("#name", name);
  await page.fill("#topic", topic);
  await page.click("#join button");
  await page.waitForSelector("#status[data-state=joined]");
}

async function say(page, text) {
  await page.fill("#text", text);
  await page.press("#text", "Enter");
}

const heard = async (page) => await page.locator(".bubble p").allTextContents();

async function people(page, expected, options) {
  await until(`the page lists ${expected.join(", ")}`, async () => {
    const rows = await page.locator("#people-list li .name").allTextContents();
    if (rows.slice().sort().join() === [...expected].sort().join()) return true;
    throw new Error(rows.join());
  }, options);
}

story("people on the pages of two nodes chat and see each other, and on which node", async (stage) => {
  const nodes = await stage.cluster(2);
  const browser = await Browser.launch(stage);
  const ann = await browser.open(nodes[0]);
  const bob = await browser.open(nodes[1], { query: "?topic=room%3Alobby&name=Bob" });
  assert.match(await ann.title(), /n1/);
  assert.equal(await bob.inputValue("#name"), "Bob");
  await join(ann, "Ann");
  await people(ann, ["Ann (you)on n1"]);
  await join(bob, "Bob");
  await people(ann, ["Ann (you)on n1", "Bobon n2"]);
  await people(bob, ["Annon n1", "Bob (you)on n2"]);
  await say(ann, "hello <b>Bob</b> 👋");
  await say(bob, "hello Ann");
  for (const page of [ann, bob]) {
    await until("both have both messages", async () => (await heard(page)).sort().join() === "hello <b>Bob</b> 👋,hello Ann");
  }
  await nodes[0].broadcast("room:lobby", "message", { name: "robot", text: "from the API" });
  for (const page of [ann, bob]) await page.locator(".bubble p", { hasText: "from the API" }).waitFor();
  await bob.click("#leave");
  await people(ann, ["Ann (you)on n1"]);
  await bob.waitForSelector("#join:not([hidden])");
  assert.deepEqual(browser.strangers, [], "it loads nothing from elsewhere");
  assert.deepEqual(browser.errors, []);
});

story("the page comes back by itself when its node does", async (stage) => {
  const node = await stage.alone({ listen: await ownAddress() });
  const browser = await Browser.launch(stage);
  const page = await browser.open(node);
  await join(page, "Ann");
  await node.kill();
  await page.waitForSelector("#status[data-state=waiting]");
  assert.ok(await page.isVisible("#banner"));
  await node.start();
  await page.waitForSelector("#status[data-state=joined]", { timeout: 15_000 });
  assert.ok(!(await page.isVisible("#banner")));
  await people(page, ["Ann (you)on alone"]);
  await say(page, "still here");
  await page.locator(".bubble.own p", { hasText: "still here" }).waitFor();
  assert.deepEqual(browser.errors, []);
}, { seconds: 90 });

story("when its node dies, the page goes to another one of the machine", async (stage) => {
  const nodes = await stage.cluster(3);
  const browser = await Browser.launch(stage);
  const [ann, bob] = [await browser.open(nodes[0]), await browser.open(nodes[1])];
  await join(ann, "Ann");
  await join(bob, "Bob");
  await people(bob, ["Annon n1", "Bob (you)on n2"]);
  await nodes[0].kill();
  await until("she is on another node", async () => /^n[23]$/.test(await ann.textContent("#node")));
  await ann.waitForSelector("#status[data-state=joined]");
  const other = await ann.textContent("#node");
  await people(bob, [`Annon ${other}`, "Bob (you)on n2"]);
  await say(ann, "still here");
  await bob.locator(".bubble p", { hasText: "still here" }).waitFor();
  assert.deepEqual(browser.errors, []);
});

story("on a phone the page fits, and shows who is there on request", async (stage) => {
  const node = await stage.alone();
  const browser = await Browser.launch(stage);
  const page = await browser.open(node, { viewport: { width: 360, height: 640 }, isMobile: true, hasTouch: true });
  await join(page, "Ann");
  const width = await page.evaluate(() => document.documentElement.scrollWidth);
  assert.equal(width, 360, "nothing sticks out");
  assert.ok(!(await page.isVisible("#people")));
  await page.tap("#people-toggle");
  await people(page, ["Ann (you)on alone"]);
  assert.ok(await page.isVisible("#people"));
  assert.deepEqual(browser.errors, []);
});

story("a refused join is told on the page", async (stage) => {
  const node = await stage.alone();
  const browser = await Browser.launch(stage);
  const page = await browser.open(node);
  await page.fill("#name", "Ann");
  await page.fill("#topic", "$node");
  await page.click("#join button");
  await page.locator("#join-error", { hasText: "unauthorized" }).waitFor();
  await join(page, "Ann");
});
