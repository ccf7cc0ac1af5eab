// A node of a cluster: one process of `wingbeat serve`.

import { once } from "node:events";
import http from "node:http";

import { Running } from "./process.mjs";
import { until, within } from "./until.mjs";

export class Node {
  /** The process; a new one after a restart. */
  process;
  /** Where clients connect, as host:port. */
  address;
  /** Where clients over plain TCP connect, as host:port; null where nobody asked for it. */
  tcp = null;
  /** Where peers connect, as host:port; null for a node in no cluster. */
  cluster = null;
  #former = [];

  constructor(name, settings) {
    this.name = name;
    this.settings = settings;
  }

  /** Starts the process and waits until it listens. */
  async start() {
    const { listen = "127.0.0.1:0", tcpListen, clusterListen = "127.0.0.1:0", join = [], args = [], config, env, binary } = this.settings;
    const all = ["serve", "--name", this.name, "--listen", listen];
    if (tcpListen) all.push("--tcp-listen", tcpListen);
    if (clusterListen) all.push("--cluster-listen", clusterListen);
    for (const seed of join) all.push("--join", seed);
    if (config) all.push("--config", config);
    if (this.process) this.#former.push(...this.process.stderr);
    this.process = new Running([...all, ...args], { env: { WINGBEAT_LOG__FORMAT: "text", ...env }, binary });
    this.address = (await this.process.line(/^listening http (\S+)$/))[1];
    if (tcpListen) this.tcp = (await this.process.line(/^listening tcp (\S+)$/))[1];
    if (clusterListen) this.cluster = (await this.process.line(/^listening cluster (\S+)$/))[1];
    return this;
  }

  /** Starts it again under its name; what `settings` says replaces what it was started with. */
  async restart(settings = {}) {
    await this.kill();
    Object.assign(this.settings, settings);
    return await this.start();
  }

  /** As `kill -9` does: without a goodbye. */
  async kill() {
    await this.process.end("SIGKILL");
  }

  /** As an operator does: SIGTERM. */
  async stop() {
    return await this.process.end("SIGTERM", { seconds: 30 });
  }

  /** Its log, that of former runs too. */
  get log() {
    return [...this.#former, ...this.process.stderr];
  }

  get url() {
    return `http://${this.address}`;
  }

  /** The mount point that phoenix.js wants. */
  get socketUrl() {
    return `ws://${this.address}/socket`;
  }

  /** Calls the API: `{status, headers, text, json}`. A body that is no string is sent as JSON. */
  async call(path, { method, body, headers = {} } = {}) {
    const response = await fetch(this.url + path, {
      method: method ?? (body === undefined ? "GET" : "POST"),
      headers: { ...(body === undefined ? {} : { "content-type": "application/json" }), ...headers },
      body: body === undefined || typeof body === "string" ? body : JSON.stringify(body),
    });
    const text = await response.text();
    let json;
    try {
      json = JSON.parse(text);
    } catch {
      json = undefined;
    }
    return { status: response.status, headers: response.headers, text, json };
  }

  /** A request as written: any header, Host too, and an upgrade: `{status, headers, text}`. */
  async request(path, { method = "GET", headers = {} } = {}) {
    const [host, port] = this.address.split(":");
    const request = http.request({ host, port, path, method, headers, agent: false });
    request.end();
    const [response, socket] = await within(5, () => `an answer to ${method} ${path}`, Promise.race([
      once(request, "response"),
      once(request, "upgrade"),
    ]));
    let text = "";
    if (response.statusCode === 101) socket.destroy();
    else for await (const chunk of response) text += chunk;
    request.destroy();
    return { status: response.statusCode, headers: response.headers, text };
  }

  async broadcast(topic, event, payload) {
    const { status, text } = await this.call("/api/broadcast", { body: { topic, event, payload } });
    if (status !== 202) throw new Error(`broadcast: ${status} ${text}`);
  }

  /** The value of a metric, with its labels as they are written. */
  async metric(name) {
    const lines = (await this.call("/metrics")).text.split("\n");
    const line = lines.find((line) => line.startsWith(`${name} `));
    if (!line) throw new Error(`no metric ${name}`);
    return Number(line.slice(name.length));
  }

  /** Who is on a topic, as the API tells it. */
  async presence(topic) {
    return (await this.call(`/api/presence/${encodeURIComponent(topic)}`)).json;
  }

  async present(topic) {
    return Object.keys((await this.presence(topic)).presences).sort();
  }

  async members() {
    return (await this.call("/api/cluster")).json.members;
  }

  /** Waits until it sees exactly these nodes, itself too, up and linked. */
  async sees(names, options) {
    const wanted = [...names].sort().join();
    await until(`${this.name} sees ${wanted}`, async () => {
      const members = await this.members();
      const up = members.filter((member) => ["self", "up"].includes(member.state) && member.linked);
      if (up.map((member) => member.name).sort().join() === wanted) return true;
      throw new Error(JSON.stringify(members));
    }, options);
  }
}
