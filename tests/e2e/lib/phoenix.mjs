// The official client, with `ws` for its socket.

import { Presence, Socket } from "phoenix";
import WebSocket from "ws";

import { Queue, until, within } from "./until.mjs";

/** What the official client's documentation names for V1: frames as objects. */
const V1 = {
  vsn: "1.0.0",
  encode: (message, done) => {
    const { topic, event, payload, ref, join_ref } = message;
    done(JSON.stringify({ topic, event, payload, ref, join_ref }));
  },
  decode: (text, done) => done(JSON.parse(text)),
};

const FAST = { reconnectAfterMs: () => 50, rejoinAfterMs: () => 50 };

/** Connects to a mount point; `user` is who it says it is, `v1` asks for V1 frames. */
export async function connect(url, { user, v1 = false, params = {}, ...options } = {}) {
  const client = new Client(new Socket(url, {
    transport: WebSocket,
    params: user === undefined ? params : { ...params, user_id: user },
    ...FAST,
    ...(v1 ? V1 : {}),
    ...options,
  }));
  await client.connect();
  return client;
}

export class Client {
  /** Each close of the socket: `{code, reason}`. */
  closes = new Queue();
  /** How often it has been open. */
  opened = 0;

  constructor(socket) {
    this.socket = socket;
    socket.onOpen(() => this.opened++);
    socket.onClose(({ code, reason }) => this.closes.push({ code, reason }));
  }

  async connect() {
    const opened = new Promise((resolve, reject) => {
      this.socket.onOpen(resolve);
      this.socket.onError((error) => reject(error?.error ?? error));
    });
    this.socket.connect();
    await within(5, () => "the socket is open", opened);
  }

  /** Joins a topic and waits for the reply. */
  async join(topic, payload = {}) {
    const joined = new Joined(this.socket.channel(topic, payload));
    await joined.join();
    return joined;
  }

  /** Ends the connection as a lost network does: no close frame, no leave. */
  cut() {
    this.socket.conn.terminate();
  }

  async end() {
    const done = new Promise((resolve) => this.socket.disconnect(resolve));
    const stuck = setTimeout(() => this.socket.conn?.terminate?.(), 1000);
    await done;
    clearTimeout(stuck);
  }
}

/** A reply: `{status, response}`. */
async function replyTo(push, what) {
  const reply = new Promise((resolve) => {
    for (const status of ["ok", "error", "timeout"]) push.receive(status, (response) => resolve({ status, response }));
  });
  return await within(10, () => `a reply to ${what}`, reply);
}

/** A joined topic. */
export class Joined {
  /** Everything heard: `{event, payload}`, replies apart. */
  heard = new Queue();
  /** The same, and `phx_reply`, in the order of arrival. */
  order = [];
  presence;

  constructor(channel) {
    this.channel = channel;
    this.presence = new Presence(channel);
    channel.onMessage = (event, payload) => {
      if (event.startsWith("chan_reply_")) return payload;
      this.order.push({ event, payload });
      if (event !== "phx_reply") this.heard.push({ event, payload });
      return payload;
    };
  }

  async join() {
    const reply = await replyTo(this.channel.join(), `the join of ${this.channel.topic}`);
    if (reply.status !== "ok") throw new Error(`join of ${this.channel.topic}: ${JSON.stringify(reply)}`);
  }

  async push(event, payload = {}) {
    return await replyTo(this.channel.push(event, payload), event);
  }

  /** Pushes without asking for the reply. */
  send(event, payload = {}) {
    this.channel.push(event, payload);
  }

  async leave() {
    return await replyTo(this.channel.leave(), "the leave");
  }

  /** The payload of the next broadcast of this event. */
  async next(event, options) {
    const found = await this.heard.find(`${event} on ${this.channel.topic}`, (heard) => heard.event === event, options);
    return found.payload;
  }

  /** All broadcasts of this event heard so far and not taken. */
  waiting(event) {
    return this.heard.waiting.filter((heard) => heard.event === event).map((heard) => heard.payload);
  }

  /** Who is there by the official Presence class, in an order that can be compared. */
  get roster() {
    const byKey = this.presence.list((key, { metas }) => [key, [...metas].sort((a, b) => (a.phx_ref < b.phx_ref ? -1 : 1))]);
    return Object.fromEntries(byKey.sort(([a], [b]) => (a < b ? -1 : 1)));
  }

  get present() {
    return Object.keys(this.roster);
  }

  /** Waits until exactly these keys are there. */
  async lists(keys, options) {
    const wanted = [...keys].sort().join();
    await until(`${this.channel.topic} lists ${wanted || "nobody"}`, () => {
      if (this.present.join() === wanted) return true;
      throw new Error(`it lists ${this.present.join()}`);
    }, options);
  }
}

/** Waits until all show the same roster with exactly these keys, and gives it. */
export async function agree(channels, keys, options) {
  await Promise.all(channels.map((channel) => channel.lists(keys, options)));
  await until("all show the same roster", () => {
    const rosters = channels.map((channel) => JSON.stringify(channel.roster));
    if (new Set(rosters).size === 1) return true;
    throw new Error(rosters.join(" != "));
  }, options);
  return channels[0].roster;
}
