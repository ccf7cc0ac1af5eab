// Waiting for the thing itself, with a deadline; never for a time that is hoped to be enough.

import { setTimeout as pause } from "node:timers/promises";
import { inspect } from "node:util";

const POLL_MS = 15;

/** Calls `probe` until it gives something truthy, and gives that. An exception counts as "not yet". */
export async function until(what, probe, { seconds = 10 } = {}) {
  const deadline = Date.now() + seconds * 1000;
  let last;
  for (;;) {
    try {
      last = await probe();
      if (last) return last;
    } catch (error) {
      last = error;
    }
    if (Date.now() > deadline) {
      throw new Error(`not in ${seconds} s: ${what}; last seen: ${inspect(last, { depth: 8, breakLength: 160 })}`);
    }
    await pause(POLL_MS);
  }
}

/** The promise's value, or an error that says what did not come in time. */
export async function within(seconds, what, promise) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`not in ${seconds} s: ${what()}`)), seconds * 1000);
  });
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}

/** Values that come one by one, to be taken one by one. */
export class Queue {
  #values = [];
  #takers = [];

  push(value) {
    const taker = this.#takers.shift();
    if (taker) taker(value);
    else this.#values.push(value);
  }

  /** What has come and was not taken. */
  get waiting() {
    return [...this.#values];
  }

  async next(what, { seconds = 5 } = {}) {
    if (this.#values.length > 0) return this.#values.shift();
    let taker;
    const value = new Promise((resolve) => this.#takers.push((taker = resolve)));
    try {
      return await within(seconds, () => what, value);
    } catch (error) {
      this.#takers = this.#takers.filter((other) => other !== taker);
      throw error;
    }
  }

  /** Takes values until one passes, and gives that one. */
  async find(what, passes, options) {
    const skipped = [];
    for (;;) {
      let value;
      try {
        value = await this.next(what, options);
      } catch (error) {
        error.message += `; skipped: ${inspect(skipped.slice(-20), { depth: 6 })}`;
        throw error;
      }
      if (passes(value)) return value;
      skipped.push(value);
    }
  }
}
