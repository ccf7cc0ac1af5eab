// Sockets whose frames the test writes and reads itself.

import net from "node:net";
import { randomBytes } from "node:crypto";
import { once } from "node:events";

import WebSocket from "ws";

import { Queue, within } from "./until.mjs";

/** A WebSocket with the frames as they are. */
export class RawSocket {
  /** Text frames in the order of arrival, undecoded. */
  frames = new Queue();
  /** Resolves with `{code, reason}`. */
  closed;

  static async open(node, { vsn = "2.0.0", user, query, protocols = [], ...options } = {}) {
    const params = query ?? new URLSearchParams({ ...(vsn === null ? {} : { vsn }), ...(user === undefined ? {} : { user_id: user }) });
    const socket = new RawSocket(new WebSocket(`${node.socketUrl}/websocket?${params}`, protocols, options));
    const open = once(socket.ws, "open");
    await within(5, () => "the socket is open", open);
    return socket;
  }

  constructor(ws) {
    this.ws = ws;
    ws.on("message", (data, binary) => this.frames.push(binary ? data : data.toString()));
    ws.on("error", () => {});
    this.closed = new Promise((resolve) => {
      ws.on("close", (code, reason) => resolve({ code, reason: reason.toString() }));
    });
  }

  /** Sends a frame: text and bytes as they are, anything else as JSON. */
  send(frame) {
    const raw = typeof frame === "string" || Buffer.isBuffer(frame);
    this.ws.send(raw ? frame : JSON.stringify(frame));
  }

  /** The next frame, decoded. */
  async next(options) {
    return JSON.parse(await this.frames.next("a frame", options));
  }

  /** Sends a frame and gives the next one. */
  async ask(frame) {
    this.send(frame);
    return await this.next();
  }

  /** Joins with V2 frames and gives the frames up to the presence state, if there is one to come. */
  async join(topic, { joinRef = "1", payload = {}, state = true } = {}) {
    const reply = await this.ask([joinRef, joinRef, topic, "phx_join", payload]);
    return state ? [reply, await this.until("presence_state")] : [reply];
  }

  /** The next frame of a V2 event, decoded. */
  async until(event, options) {
    const text = await this.frames.find(`a frame ${event}`, (frame) => JSON.parse(frame)[3] === event, options);
    return JSON.parse(text);
  }

  /** Waits for the close: its code. */
  async code({ seconds = 5 } = {}) {
    return (await within(seconds, () => "the socket is closed", this.closed)).code;
  }

  /** Reads no more, as a stuck client does. */
  stopReading() {
    this.ws.pause();
  }

  async end() {
    this.ws.terminate();
  }
}

/** A connection at the level of bytes, upgraded to a WebSocket. */
export class Bytes {
  #received = Buffer.alloc(0);
  #ended = false;

  static async upgrade(node, { path = "/socket/websocket?vsn=2.0.0" } = {}) {
    const [host, port] = node.address.split(":");
    const socket = net.connect(Number(port), host);
    await once(socket, "connect");
    const bytes = new Bytes(socket);
    const key = randomBytes(16).toString("base64");
    socket.write(
      `GET ${path} HTTP/1.1\r\nHost: ${node.address}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n` +
        `Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: ${key}\r\n\r\n`,
    );
    const head = await bytes.#take("the answer to the upgrade", (all) => {
      const end = all.indexOf("\r\n\r\n");
      return end < 0 ? null : end + 4;
    });
    if (!head.toString().startsWith("HTTP/1.1 101 ")) throw new Error(`no upgrade: ${head}`);
    return bytes;
  }

  constructor(socket) {
    this.socket = socket;
    socket.on("data", (data) => (this.#received = Buffer.concat([this.#received, data])));
    socket.on("close", () => (this.#ended = true));
    socket.on("error", () => {});
  }

  /** Writes one frame. `length` claims another length than the payload has. */
  write(opcode, payload, { masked = true, length = payload.length, first = 0x80 } = {}) {
    const mask = masked ? 0x80 : 0;
    let head;
    if (length < 126) head = Buffer.from([first | opcode, mask | length]);
    else if (length < 65_536) head = Buffer.from([first | opcode, mask | 126, length >> 8, length & 255]);
    else {
      head = Buffer.alloc(10);
      head[0] = first | opcode;
      head[1] = mask | 127;
      head.writeBigUInt64BE(BigInt(length), 2);
    }
    const key = masked ? Buffer.from([1, 2, 3, 4]) : Buffer.alloc(0);
    const body = Buffer.from(payload.map((byte, i) => (masked ? byte ^ key[i % 4] : byte)));
    this.socket.write(Buffer.concat([head, key, body]));
  }

  /** The next frame: `{opcode, payload}`. Those of a node are unmasked and here shorter than 64 KiB. */
  async frame() {
    const head = await this.#take("the head of a frame", (all) => {
      if (all.length < 2) return null;
      const length = (all[1] & 127) === 126 ? 4 : 2;
      return all.length < length ? null : length;
    });
    const length = head.length === 4 ? head.readUInt16BE(2) : head[1] & 127;
    const payload = await this.#take("the body of a frame", (all) => (all.length < length ? null : length));
    return { opcode: head[0] & 15, payload };
  }

  /** The code of the close frame that comes next. */
  async code() {
    const { opcode, payload } = await this.frame();
    if (opcode !== 8) throw new Error(`opcode ${opcode}, not a close: ${payload}`);
    return payload.readUInt16BE(0);
  }

  async #take(what, measure) {
    const deadline = Date.now() + 5000;
    for (;;) {
      const length = measure(this.#received);
      if (length !== null) {
        const taken = this.#received.subarray(0, length);
        this.#received = this.#received.subarray(length);
        return taken;
      }
      if (this.#ended || Date.now() > deadline) throw new Error(`not ${this.#ended ? "before the end" : "in 5 s"}: ${what}`);
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
  }

  end() {
    this.socket.destroy();
  }
}
