// Many light clients that behave as the official one does: one that is closed connects again, to
// another node, and joins anew.

import WebSocket from "ws";

import { until } from "./until.mjs";

/** Waits of the official client before it connects again, in milliseconds; the last one from then on. */
const RECONNECT_AFTER = [10, 50, 100, 150, 200, 250, 500, 1000, 2000];

/** How often a client sends a heartbeat. */
const HEARTBEAT_MS = 30_000;

/** One user in one room. */
class Member {
  joined = false;
  #tries = 0;
  #ended = false;
  #ws = null;

  constructor(crowd, user, place) {
    this.crowd = crowd;
    this.user = user;
    this.place = place;
    this.#connect();
  }

  #connect() {
    if (this.#ended) return;
    const node = this.crowd.nodes[this.place++ % this.crowd.nodes.length];
    const ws = new WebSocket(`${node.socketUrl}/websocket?vsn=2.0.0&user_id=${this.user}`, { handshakeTimeout: 5000 });
    this.#ws = ws;
    ws.on("open", () => ws.send(JSON.stringify(["1", "1", this.crowd.room, "phx_join", {}])));
    ws.on("message", (data) => {
      // Big frames are of others' presence.
      if (this.joined || data.length > 200) return;
      const [, ref, , event, payload] = JSON.parse(data);
      if (event !== "phx_reply" || ref !== "1" || payload.status !== "ok") return;
      this.joined = true;
      this.#tries = 0;
      this.crowd.joins++;
    });
    ws.on("error", () => {});
    ws.on("close", (code) => {
      this.crowd.closes[code] = (this.crowd.closes[code] ?? 0) + 1;
      this.joined = false;
      const wait = RECONNECT_AFTER[Math.min(this.#tries++, RECONNECT_AFTER.length - 1)];
      setTimeout(() => this.#connect(), wait);
    });
  }

  end() {
    this.#ended = true;
    this.#ws.terminate();
  }
}

/** So many users in one room, spread over the nodes. */
export class Crowd {
  /** Codes of closes, and how often each came. */
  closes = {};
  /** Joins that were answered. */
  joins = 0;

  constructor(stage, nodes, room, size) {
    this.nodes = nodes;
    this.room = room;
    this.members = Array.from({ length: size }, (_, i) => new Member(this, `u${i}`, i));
    stage.atEnd(() => this.members.forEach((member) => member.end()));
  }

  get joined() {
    return this.members.filter((member) => member.joined).length;
  }
}

/** A client that believes nothing: it replays the state and every diff, and notes who is ever absent. */
export class Watcher {
  /** Keys that were gone after some diff. */
  absences = [];
  /** References by key, once the state has come. */
  roster = null;
  /** Diffs seen. */
  diffs = 0;

  #ws;
  #beat;

  static async open(stage, node, room, user) {
    const watcher = new Watcher(node, room, user);
    stage.atEnd(() => watcher.end());
    await until("the state", () => watcher.roster !== null);
    return watcher;
  }

  constructor(node, room, user) {
    this.#ws = new WebSocket(`${node.socketUrl}/websocket?vsn=2.0.0&user_id=${user}`);
    this.#ws.on("error", () => {});
    this.#ws.on("open", () => this.#ws.send(JSON.stringify(["1", "1", room, "phx_join", {}])));
    this.#ws.on("message", (data) => this.#take(JSON.parse(data)));
    this.#beat = setInterval(() => this.#ws.send(JSON.stringify([null, "h", "phoenix", "heartbeat", {}])), HEARTBEAT_MS);
  }

  end() {
    clearInterval(this.#beat);
    this.#ws.terminate();
  }

  #take([, , , event, payload]) {
    if (event === "presence_diff") this.#apply(payload);
    if (event !== "presence_state") return;
    if (this.roster !== null) throw new Error("a second state: this watcher was too slow");
    const refs = ({ metas }) => new Set(metas.map((meta) => meta.phx_ref));
    this.roster = new Map(Object.entries(payload).map(([key, of]) => [key, refs(of)]));
  }

  #apply({ joins, leaves }) {
    this.diffs++;
    for (const [key, { metas }] of Object.entries(joins)) {
      const refs = this.roster.get(key) ?? new Set();
      metas.forEach((meta) => refs.add(meta.phx_ref));
      this.roster.set(key, refs);
    }
    for (const [key, { metas }] of Object.entries(leaves)) {
      const refs = this.roster.get(key) ?? new Set();
      metas.forEach((meta) => refs.delete(meta.phx_ref));
      if (refs.size > 0) continue;
      this.roster.delete(key);
      this.absences.push(key);
    }
  }
}
