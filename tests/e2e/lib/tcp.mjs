// Clients over plain TCP: each message behind its length in four bytes.

import net from "node:net";
import { once } from "node:events";

import { Queue, within } from "./until.mjs";

/** A message with its length before it. */
export function framed(message) {
  const bytes = Buffer.from(Buffer.isBuffer(message) || typeof message === "string" ? message : JSON.stringify(message));
  const length = Buffer.alloc(4);
  length.writeUInt32BE(bytes.length);
  return Buffer.concat([length, bytes]);
}

export class TcpSocket {
  /** Messages in the order of arrival: text undecoded, binary ones as buffers. */
  frames = new Queue();
  /** Resolves when the connection has ended. */
  ended;
  #received = Buffer.alloc(0);

  /** A connection on which nothing was said. */
  static async open(stage, node) {
    const [host, port] = node.tcp.split(":");
    const socket = new TcpSocket(net.connect(Number(port), host));
    stage.atEnd(() => socket.end());
    await within(5, () => "the connection is open", once(socket.stream, "connect"));
    return socket;
  }

  /** A socket that is let in. */
  static async connect(stage, node, { user, params = {} } = {}) {
    const socket = await TcpSocket.open(stage, node);
    const answer = await socket.ask({ path: "/socket", vsn: "2.0.0", params: user === undefined ? params : { user_id: user } });
    if (answer.status !== "ok") throw new Error(`connect: ${JSON.stringify(answer)}`);
    return socket;
  }

  constructor(stream) {
    this.stream = stream;
    stream.setNoDelay(true);
    stream.on("error", () => {});
    stream.on("data", (data) => this.#take(data));
    this.ended = new Promise((resolve) => stream.on("close", resolve));
  }

  #take(data) {
    this.#received = Buffer.concat([this.#received, data]);
    while (this.#received.length >= 4) {
      const end = 4 + this.#received.readUInt32BE(0);
      if (this.#received.length < end) return;
      const message = this.#received.subarray(4, end);
      this.frames.push(message[0] < 9 ? message : message.toString());
      this.#received = this.#received.subarray(end);
    }
  }

  /** Sends a message: text and bytes as they are, anything else as JSON. */
  send(message) {
    this.stream.write(framed(message));
  }

  /** The next message, decoded. */
  async next(options) {
    return JSON.parse(await this.frames.next("a message", options));
  }

  async ask(message) {
    this.send(message);
    return await this.next();
  }

  /** The next text message of an event, decoded. */
  async until(event, options) {
    const passes = (frame) => typeof frame === "string" && JSON.parse(frame)[3] === event;
    return JSON.parse(await this.frames.find(`a message ${event}`, passes, options));
  }

  /** Joins and gives the reply. */
  async join(topic, payload = {}) {
    return await this.ask(["1", "1", topic, "phx_join", payload]);
  }

  /** Waits for the last words and the end: the code. */
  async code(options) {
    const [, , topic, , { code }] = await this.until("phx_close", options);
    if (topic !== "phoenix") throw new Error(`the close of ${topic}`);
    await within(5, () => "the connection has ended", this.ended);
    return code;
  }

  end() {
    this.stream.destroy();
  }
}
