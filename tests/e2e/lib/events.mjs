// A stream of server-sent events from a node.

import { Queue } from "./until.mjs";

export class Events {
  #queue = new Queue();

  /** Opens the stream; when it returns, the node sends what happens from now on. */
  static async open(stage, node, path, headers = {}) {
    const abort = new AbortController();
    stage.atEnd(() => abort.abort());
    const response = await fetch(node.url + path, { headers, signal: abort.signal });
    if (response.status !== 200) throw new Error(`${path}: ${response.status} ${await response.text()}`);
    const type = response.headers.get("content-type");
    if (!type.startsWith("text/event-stream")) throw new Error(`${path}: content-type ${type}`);
    const events = new Events();
    events.#read(response.body).catch(() => {});
    return events;
  }

  /** The next event, `{event, data}`, its data decoded. */
  async next(options) {
    return await this.#queue.next("an event", options);
  }

  /** The events that have come and were not taken. */
  get waiting() {
    return this.#queue.waiting;
  }

  async #read(body) {
    const decoder = new TextDecoder();
    let text = "";
    for await (const chunk of body) {
      text += decoder.decode(chunk, { stream: true });
      const blocks = text.split("\n\n");
      text = blocks.pop();
      for (const block of blocks) this.#take(block);
    }
  }

  #take(block) {
    const fields = block.split("\n").filter((line) => !line.startsWith(":")).map((line) => /^(\w+): ?(.*)$/.exec(line));
    const value = (name) => fields.filter((field) => field?.[1] === name).map((field) => field[2]).join("\n");
    const data = value("data");
    if (data !== "") this.#queue.push({ event: value("event"), data: JSON.parse(data) });
  }
}
