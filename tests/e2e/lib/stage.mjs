// A test's own world: nodes, clients and files that are gone when it ends, logs shown when it fails.

import { randomBytes, randomInt } from "node:crypto";
import dgram from "node:dgram";
import { once } from "node:events";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import net from "node:net";
import { tmpdir } from "node:os";
import { join as joinPath } from "node:path";
import { test } from "node:test";

import { Node } from "./node.mjs";
import { connect } from "./phoenix.mjs";
import { Running, run } from "./process.mjs";
import { RawSocket } from "./raw.mjs";
import { within } from "./until.mjs";

/** Lines of each node's log that a failure shows. */
const LOG_LINES = 60;

/** A test with a stage. */
export function story(name, tell, { seconds = 60 } = {}) {
  test(name, async () => {
    const stage = new Stage();
    try {
      await within(seconds, () => "the end of the test", tell(stage));
    } catch (error) {
      stage.showLogs(name);
      throw error;
    } finally {
      await stage.close();
    }
  });
}

export class Stage {
  #secret = randomBytes(32).toString("hex");
  #directory = null;
  #nodes = [];
  #closers = [];

  /** Does `closer` at the end, the last one first. */
  atEnd(closer) {
    this.#closers.push(closer);
  }

  get secret() {
    return this.#secret;
  }

  /** A file of this test: its path. */
  file(name, text, mode = 0o600) {
    this.#directory ??= mkdtempSync(joinPath(tmpdir(), "wingbeat-e2e-"));
    const path = joinPath(this.#directory, name);
    writeFileSync(path, text, { mode });
    return path;
  }

  /** A node that has been made but not started. `config` is the text of its file. */
  prepare(name, { config, env, ...settings } = {}) {
    if (config !== undefined) settings.config = this.file(`${name}-${this.#nodes.length}.toml`, config);
    const node = new Node(name, { env: { WINGBEAT_CLUSTER_SECRET: this.#secret, ...env }, ...settings });
    this.#nodes.push(node);
    return node;
  }

  /** A node of this test's cluster, listening. */
  async node(name, settings) {
    return await this.prepare(name, settings).start();
  }

  /** A node in no cluster. */
  async alone(settings = {}) {
    return await this.node("alone", { clusterListen: null, env: { WINGBEAT_CLUSTER_SECRET: undefined }, ...settings });
  }

  /** So many nodes, n1, n2, …, that see each other. */
  async cluster(size, settings = {}) {
    const nodes = [await this.node("n1", settings)];
    const others = Array.from({ length: size - 1 }, (_, i) =>
      this.node(`n${i + 2}`, { ...settings, join: [nodes[0].cluster] }));
    nodes.push(...(await Promise.all(others)));
    await this.formed(nodes);
    return nodes;
  }

  async formed(nodes, options) {
    const names = nodes.map((node) => node.name);
    await Promise.all(nodes.map((node) => node.sees(names, options)));
  }

  /** An official client, connected. */
  async phoenix(node, options) {
    const client = await connect(node.socketUrl, options);
    this.atEnd(() => client.end());
    return client;
  }

  /** A socket whose frames the test writes and reads itself. */
  async raw(node, options) {
    const socket = await RawSocket.open(node, options);
    this.atEnd(() => socket.end());
    return socket;
  }

  /** Runs a command of the CLI against a node. */
  async cli(node, args, { env, ...options } = {}) {
    return await run(args, { env: { ...(node ? { WINGBEAT_URL: node.url } : {}), ...env }, ...options });
  }

  /** Starts a command that goes on. */
  follow(node, args, { env, ...options } = {}) {
    const running = new Running(args, { env: { ...(node ? { WINGBEAT_URL: node.url } : {}), ...env }, ...options });
    this.atEnd(() => running.end());
    return running;
  }

  /** An address that takes UDP packets and never answers, so that no other program gets it meanwhile. */
  async silentSeed() {
    const socket = dgram.createSocket("udp4");
    socket.bind(0, "127.0.0.1");
    await once(socket, "listening");
    this.atEnd(() => socket.close());
    return `127.0.0.1:${socket.address().port}`;
  }

  showLogs(title) {
    for (const node of this.#nodes) {
      const shown = node.log.slice(-LOG_LINES).map((line) => `    ${line}`).join("\n");
      console.error(`--- ${title}: log of ${node.name}\n${shown}`);
    }
  }

  async close() {
    for (const closer of this.#closers.reverse()) await closer();
    await Promise.all(this.#nodes.map((node) => node.process?.end()));
    if (this.#directory) rmSync(this.#directory, { recursive: true, force: true });
  }
}

/**
 * An address of this machine that no other program uses and that a node keeps over a restart: of the
 * 16 million of loopback one at random, so that nobody takes its port while the node is away.
 */
export async function ownAddress() {
  const host = `127.${randomInt(1, 255)}.${randomInt(1, 255)}.${randomInt(1, 255)}`;
  const [udp, tcp] = [dgram.createSocket("udp4"), net.createServer()];
  try {
    udp.bind(0, host);
    await once(udp, "listening");
    const { port } = udp.address();
    tcp.listen(port, host);
    await once(tcp, "listening");
    return `${host}:${port}`;
  } catch (error) {
    // Somebody listens on that port of all addresses.
    if (error.code === "EADDRINUSE") return await ownAddress();
    throw error;
  } finally {
    udp.close();
    tcp.close();
  }
}
