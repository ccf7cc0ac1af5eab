// Long-poll sessions whose requests the test makes itself, and a proxy that sends each elsewhere.

import http from "node:http";
import { once } from "node:events";

import { until } from "./until.mjs";

/** A session as a client without any library has one. */
export class PollSession {
  token = null;
  #query;

  /** Opens a session on a node. */
  static async open(node, { vsn = "2.0.0", user, ...params } = {}) {
    const query = new URLSearchParams({ vsn, ...(user === undefined ? {} : { user_id: user }), ...params });
    const session = new PollSession(query);
    const { status, token } = await session.poll(node);
    if (status !== 410 || !token) throw new Error(`no session: ${status} ${token}`);
    session.token = token;
    return session;
  }

  constructor(query) {
    this.#query = query;
  }

  get path() {
    return `/socket/longpoll?${this.#query}`;
  }

  get headers() {
    return this.token === null ? {} : { "x-phoenix-longpoll-token": this.token };
  }

  /** Polls once, at any node: the body of the answer. */
  async poll(node) {
    return (await node.call(this.path, { headers: this.headers })).json;
  }

  /** Polls until a message passes: that one and those before it, decoded. */
  async until(node, passes) {
    const seen = [];
    await until("the message", async () => {
      const { status, messages } = await this.poll(node);
      if (![200, 204].includes(status)) throw new Error(`status ${status}`);
      seen.push(...messages.map((text) => JSON.parse(text)));
      return seen.some(passes);
    });
    return seen;
  }

  /** Posts frames, one a line: the body's status. Text and base64 as they are, anything else as JSON. */
  async post(node, ...frames) {
    const lines = frames.map((frame) => (typeof frame === "string" ? frame : JSON.stringify(frame)));
    return await this.postBody(node, lines.join("\n"));
  }

  async postBody(node, body, type = "application/x-ndjson") {
    const headers = { ...this.headers, "content-type": type };
    return (await node.call(this.path, { method: "POST", headers, body })).json.status;
  }

  /** Joins a topic and gives the frames up to the presence state, if there is one to come. */
  async join(node, topic, { joinRef = "1", payload = {}, state = true } = {}) {
    const status = await this.post(node, [joinRef, joinRef, topic, "phx_join", payload]);
    if (status !== 200) throw new Error(`join: ${status}`);
    return await this.until(node, (frame) => frame[3] === (state ? "presence_state" : "phx_reply"));
  }

  /** A poll that can be cut: what arrives of its answer, and the connection. */
  async begin(node) {
    const [host, port] = node.address.split(":");
    const request = http.get({ host, port, path: this.path, headers: this.headers, agent: false });
    request.on("error", () => {});
    await once(request, "finish");
    return request;
  }
}

/** Sends each request to the next of some nodes that answers, whatever was sent where before. */
export class Rotation {
  /** Requests that each node has got. */
  requests;
  #nodes;
  #next = 0;

  static async start(stage, nodes) {
    const rotation = new Rotation(nodes);
    const server = http.createServer((request, response) => rotation.#pass(request, response));
    // No upgrades get through.
    server.on("upgrade", (_, socket) => socket.destroy());
    server.listen(0, "127.0.0.1");
    await once(server, "listening");
    rotation.address = `127.0.0.1:${server.address().port}`;
    rotation.socketUrl = `ws://${rotation.address}/socket`;
    stage.atEnd(() => {
      server.close();
      server.closeAllConnections();
    });
    return rotation;
  }

  constructor(nodes) {
    this.#nodes = nodes;
    this.requests = nodes.map(() => 0);
  }

  async #pass(request, response) {
    const chunks = [];
    for await (const chunk of request) chunks.push(chunk);
    this.#send(request, response, Buffer.concat(chunks), this.#next++);
  }

  #send(request, response, body, place, tried = 0) {
    if (tried === this.#nodes.length) return response.writeHead(502).end();
    const index = (place + tried) % this.#nodes.length;
    const [host, port] = this.#nodes[index].address.split(":");
    const { method, url: path, headers } = request;
    const passed = http.request({ host, port, path, method, headers, agent: false });
    passed.on("error", (error) => {
      if (error.code === "ECONNREFUSED") this.#send(request, response, body, place, tried + 1);
      else response.destroy();
    });
    passed.on("response", (answer) => {
      this.requests[index]++;
      answer.on("error", () => response.destroy());
      response.writeHead(answer.statusCode, answer.headers);
      answer.pipe(response);
    });
    response.on("close", () => passed.destroy());
    passed.end(body);
  }
}
