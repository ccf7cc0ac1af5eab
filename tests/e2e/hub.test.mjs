// The monitoring hub: applications push samples over plain TCP, pages see what they come to.

import assert from "node:assert/strict";

import { push } from "./lib/binary.mjs";
import { Browser } from "./lib/browser.mjs";
import { Node } from "./lib/node.mjs";
import { Running, example } from "./lib/process.mjs";
import { story } from "./lib/stage.mjs";
import { TcpSocket } from "./lib/tcp.mjs";
import { until, within } from "./lib/until.mjs";

const OK = { response: {}, status: "ok" };

async function start(stage, name = "hub", env = {}) {
  const listen = { WINGBEAT_HTTP__LISTEN: "127.0.0.1:0", WINGBEAT_TCP__LISTEN: "127.0.0.1:0" };
  const process = new Running([], { binary: example("monitoring_hub"), env: { ...listen, WINGBEAT_NODE__NAME: name, ...env } });
  stage.atEnd(() => process.end());
  const bound = async (listener) => (await process.line(new RegExp(`^listening ${listener} (\\S+)$`)))[1];
  const cluster = env.WINGBEAT_CLUSTER__LISTEN ? await bound("cluster") : null;
  return Object.assign(new Node(name, {}), { process, address: await bound("http"), tcp: await bound("tcp"), cluster });
}

async function cluster(stage) {
  const env = { WINGBEAT_CLUSTER__LISTEN: "127.0.0.1:0", WINGBEAT_CLUSTER_SECRET: stage.secret };
  const first = await start(stage, "n1", env);
  const nodes = [first, await start(stage, "n2", { ...env, WINGBEAT_CLUSTER__JOIN: first.cluster })];
  await stage.formed(nodes);
  return nodes;
}

/** The layout that the example describes. */
function samples(component, microseconds, { count = microseconds.length } = {}) {
  const data = Buffer.alloc(3 + component.length + 4 * microseconds.length);
  data[0] = component.length;
  data.write(component, 1);
  data.writeUInt16BE(count, 1 + component.length);
  microseconds.forEach((value, i) => data.writeUInt32BE(value, 3 + component.length + 4 * i));
  return data;
}

/** An application, connected over TCP. */
class Application {
  #ref = 1;

  static async connect(stage, node, app, instance = `${app}-1`) {
    const application = new Application();
    application.socket = await TcpSocket.connect(stage, node, { params: { app, instance } });
    assert.deepEqual(await application.socket.join("metrics"), ["1", "1", "metrics", "phx_reply", OK]);
    return application;
  }

  /** Pushes and gives the payload of the reply. */
  async push(data) {
    const ref = `${++this.#ref}`;
    const [joinRef, answered, topic, event, payload] = await this.socket.ask(push("1", ref, "metrics", "samples", data));
    assert.deepEqual([joinRef, answered, topic, event], ["1", ref, "metrics", "phx_reply"]);
    return payload;
  }

  async pushed(component, microseconds) {
    assert.deepEqual(await this.push(samples(component, microseconds)), OK);
  }
}

/** Joins as a page does: the channel, and the response to its join. */
async function watch(stage, node, topic) {
  const channel = await (await stage.phoenix(node)).join(topic);
  return { channel, response: channel.channel.joinPush.receivedResp.response };
}

/** The next point that has samples. */
async function point(channel) {
  const found = await channel.heard.find("a point", ({ event, payload }) => event === "point" && payload.count > 0);
  return found.payload;
}

function near(actual, expected) {
  assert.ok(Math.abs(actual - expected) <= expected / 100, `${actual} is not ${expected} within 1 %`);
}

/** 1 to 1,000 ms, in no order. */
const SPREAD = Array.from({ length: 1000 }, (_, i) => 1000 * (1 + ((i * 7) % 1000)));

story("hub: samples over TCP become points of right counts and percentiles, one for each component", async (stage) => {
  const node = await start(stage);
  const db = (await watch(stage, node, "metrics:shop:db")).channel;
  const web = (await watch(stage, node, "metrics:shop:web-1.x")).channel;
  const shop = await Application.connect(stage, node, "shop");
  const before = Date.now() / 1000;
  // One push is of one second, so these are the percentiles of exactly these.
  await shop.pushed("db", SPREAD);
  const summed = await point(db);
  assert.deepEqual([summed.count, summed.instance], [1000, "shop-1"]);
  for (const [name, expected] of Object.entries({ p50: 500_000, p90: 900_000, p99: 990_000, max: 1_000_000 })) near(summed[name], expected);
  assert.ok(summed.t >= before && summed.t <= Date.now() / 1000 + 1, `${summed.t} is when that second ended`);
  // Longer than the hub tells apart, and as short as can be.
  await shop.pushed("web-1.x", [0xffffffff, 0]);
  const extremes = await point(web);
  assert.deepEqual([extremes.count, extremes.p50], [2, 0]);
  near(extremes.max, 60_000_000);
  assert.ok(!db.waiting("point").some(({ count }) => count > 0), "each component has its own");
});

story("hub: no sample is lost or counted twice, whatever the second, and however its application ends", async (stage) => {
  const node = await start(stage);
  const { channel } = await watch(stage, node, "metrics:shop:db");
  const shops = [await Application.connect(stage, node, "shop", "a"), await Application.connect(stage, node, "shop", "b")];
  const counts = { a: 0, b: 0 };
  const count = async () => {
    const { instance, count } = await point(channel);
    counts[instance] += count;
  };
  await Promise.all(shops.map((shop) => shop.pushed("db", [1, 2, 3])));
  while (counts.a < 3 || counts.b < 3) await count();
  for (let i = 0; i < 40; i++) await shops[i % 2].pushed("db", Array(100).fill(5));
  for (const { socket } of shops) socket.end();
  while (counts.a < 2003 || counts.b < 2003) await count();
  assert.deepEqual(counts, { a: 2003, b: 2003 });
});

story("hub: presence tells which applications are connected, where, with which components", async (stage) => {
  const node = await start(stage);
  const { channel } = await watch(stage, node, "metrics");
  const [shop, mail] = [await Application.connect(stage, node, "shop"), await Application.connect(stage, node, "mail")];
  await channel.lists(["mail", "shop"]);
  await shop.pushed("db", [1]);
  await shop.pushed("cache", [1]);
  await until("the components are told", () => channel.roster.shop[0].components.join() === "cache,db");
  const [{ instance, node: name }] = channel.roster.shop;
  assert.deepEqual([instance, name], ["shop-1", "hub"]);
  mail.socket.end();
  await channel.lists(["shop"]);
});

story("hub: who comes late gets the last minutes, of applications too that are gone", async (stage) => {
  const node = await start(stage);
  const { channel: page, response } = await watch(stage, node, "metrics");
  assert.deepEqual(response, { topics: [] });
  const early = await watch(stage, node, "metrics:shop:db");
  assert.deepEqual(early.response, { points: [] });
  const shop = await Application.connect(stage, node, "shop");
  await shop.pushed("db", SPREAD);
  const summed = await point(early.channel);
  const late = await watch(stage, node, "metrics:shop:db");
  assert.deepEqual(late.response.points.filter(({ count }) => count > 0), [summed]);

  await page.lists(["shop"]);
  shop.socket.end();
  await page.lists([]);
  assert.deepEqual((await watch(stage, node, "metrics")).response, { topics: ["metrics:shop:db"] });
  const { response: { points } } = await watch(stage, node, "metrics:shop:db");
  assert.ok(points.some(({ t }) => t === summed.t));
  const times = points.map(({ t }) => t);
  assert.deepEqual(times, [...new Set(times)].sort((a, b) => a - b), "the oldest comes first, none twice");
});

story("hub: garbage costs whoever sends it an error, and nobody else anything", async (stage) => {
  const node = await start(stage);
  const { channel } = await watch(stage, node, "metrics:shop:db");
  const [shop, other] = [await Application.connect(stage, node, "shop"), await Application.connect(stage, node, "other")];
  for (const [garbage, reason] of [
    [Buffer.alloc(0), /end before/],
    [Buffer.from([200, 1, 2]), /end before/],
    [Buffer.from([2, 0x64, 0x62, 0]), /end before/],
    [samples("db", []), /want 1 to 65,535/],
    [samples("db", [1, 2], { count: 3 }), /want 1 to 65,535/],
    [Buffer.concat([samples("db", [1]), Buffer.from([0])]), /want 1 to 65,535/],
    [samples("", [1]), /a name has/],
    [samples("d b", [1]), /a name has/],
    [samples("d:b", [1]), /a name has/],
    [samples("d".repeat(65), [1]), /a name has/],
    [Buffer.from([2, 0xff, 0xfe, 0, 1, 0, 0, 0, 1]), /a name has/],
  ]) {
    const { status, response } = await other.push(garbage);
    assert.equal(status, "error");
    assert.match(response.reason, reason);
  }
  for (let i = 0; i < 64; i++) await other.pushed(`c${i}`, [1]);
  assert.match((await other.push(samples("c64", [1]))).response.reason, /at most 64 components/);
  await other.pushed("c63", [1]);

  other.socket.send(["1", "json", "metrics", "samples", { db: 1 }]);
  assert.match((await other.socket.until("phx_reply"))[4].response.reason, /binary/);
  // An event that is none ends its channel, bytes that are no frame their socket.
  other.socket.send(["1", "x", "metrics", "sample", {}]);
  assert.equal((await other.socket.until("phx_error"))[2], "metrics");
  other.socket.stream.write(Buffer.from("GET / HTTP/1.1\r\n\r\n"));
  assert.equal(await other.socket.code(), 1009);

  await shop.pushed("db", [7, 7]);
  const { count, p99, max } = await point(channel);
  assert.deepEqual([count, p99, max], [2, 7, 7]);
});

story("hub: names that cannot be part of a topic do not connect", async (stage) => {
  const node = await start(stage);
  for (const params of [{ app: "" }, { app: "a:b" }, { app: "x".repeat(65) }, { app: "a", instance: "b c" }]) {
    const socket = await TcpSocket.open(stage, node);
    const answer = await socket.ask({ path: "/socket", vsn: "2.0.0", params });
    assert.equal(answer.status, "error");
    assert.match(answer.reason, /a name has/);
    await within(5, () => "the end", socket.ended);
  }
});

story("hub: pages of every node see applications of any, and a node remembers what its pages heard", async (stage) => {
  const [here, there] = await cluster(stage);
  const shop = await Application.connect(stage, here, "shop");
  const page = (await watch(stage, there, "metrics")).channel;
  await page.lists(["shop"]);
  await shop.pushed("db", [3]);
  await until("the component is told", () => page.roster.shop[0].components.join() === "db");
  assert.equal(page.roster.shop[0].node, "n1");

  const first = await watch(stage, there, "metrics:shop:db");
  assert.deepEqual(first.response, { points: [] }, "it begins with now");
  await shop.pushed("db", SPREAD);
  const summed = await point(first.channel);
  assert.equal(summed.count, 1000);
  const second = await watch(stage, there, "metrics:shop:db");
  assert.deepEqual(second.response.points.filter(({ count }) => count === 1000), [summed]);
});

story("hub: the page draws what comes, in a browser", async (stage) => {
  const node = await start(stage);
  const browser = await Browser.launch(stage);
  const page = await browser.open(node);
  await page.locator("#status", { hasText: "live" }).waitFor();
  const shop = await Application.connect(stage, node, "shop");
  await shop.pushed("web", SPREAD);
  await shop.pushed("db", SPREAD);
  await page.locator("h2", { hasText: "shop-1 on hub" }).waitFor();
  await page.locator(".card", { hasText: "db" }).locator("small", { hasText: "top 1000" }).waitFor();
  await page.locator(".p99", { hasText: "991 ms" }).first().waitFor();
  const paths = page.locator(".card", { hasText: "db" }).locator("path");
  await until("all lines are drawn", async () => {
    const drawn = await paths.evaluateAll((all) => all.map((path) => path.getAttribute("d")));
    return drawn.length === 4 && drawn.every((d) => d.startsWith("M"));
  });
  shop.socket.end();
  await page.locator(".gone h2", { hasText: "not connected" }).waitFor();
  // Who comes when all is over sees it all the same.
  const late = await browser.open(node);
  await late.locator(".p99", { hasText: "991 ms" }).first().waitFor();
  assert.deepEqual(browser.strangers, [], "it loads nothing from elsewhere");
  assert.deepEqual(browser.errors, []);
});
