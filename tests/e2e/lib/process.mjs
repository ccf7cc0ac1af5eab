// Child processes: their lines, their end, and that none outlives the tests.

import { spawn } from "node:child_process";
import { dirname, join as joinPath } from "node:path";
import { createInterface } from "node:readline";

import { until, within } from "./until.mjs";

const REPOSITORY = new URL("../../..", import.meta.url).pathname;

/** The program under test. */
export const BINARY = process.env.WINGBEAT_BIN ?? `${REPOSITORY}target/debug/wingbeat`;

/** An example of the library, built with the program under test. */
export const example = (name) => joinPath(dirname(BINARY), "examples", name);

export { REPOSITORY };

const alive = new Set();
process.on("exit", () => {
  for (const child of alive) child.kill("SIGKILL");
});
for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"]) process.on(signal, () => process.exit(1));

/** The environment without settings of a node, so that only a test's own count. */
function cleanEnvironment(extra) {
  const inherited = Object.entries(process.env).filter(([name]) => !name.startsWith("WINGBEAT_"));
  return { ...Object.fromEntries(inherited), ...extra };
}

/** A running program. */
export class Running {
  stdout = [];
  stderr = [];
  /** Resolves with `{code, signal}`. */
  ended;
  #child;
  #end = null;

  constructor(args, { binary = BINARY, env = {}, cwd, input } = {}) {
    this.command = `${binary} ${args.join(" ")}`;
    this.#child = spawn(binary, args, {
      cwd,
      env: cleanEnvironment(env),
      stdio: [input === undefined ? "ignore" : "pipe", "pipe", "pipe"],
    });
    alive.add(this.#child);
    for (const name of ["stdout", "stderr"]) {
      createInterface({ input: this.#child[name] }).on("line", (line) => this[name].push(line));
    }
    this.ended = new Promise((resolve) => {
      this.#child.on("error", (error) => {
        this.stderr.push(String(error));
        resolve((this.#end = { code: null, signal: null, error }));
      });
      this.#child.on("close", (code, signal) => {
        alive.delete(this.#child);
        resolve((this.#end = { code, signal }));
      });
    });
    if (input !== undefined) this.#child.stdin.end(input);
  }

  get running() {
    return this.#end === null;
  }

  get pid() {
    return this.#child.pid;
  }

  signal(signal) {
    this.#child.kill(signal);
  }

  /** Ends it and waits for the end. */
  async end(signal = "SIGKILL", { seconds = 10 } = {}) {
    if (this.running) this.signal(signal);
    return await within(seconds, () => `the end of ${this.command} after ${signal}`, this.ended);
  }

  /** The first line of `stream` that matches, now or later: the match. */
  async line(pattern, { stream = "stdout", seconds = 10, after = 0 } = {}) {
    return await until(`a line ${pattern} of ${this.command}`, () => {
      for (const line of this[stream].slice(after)) {
        const match = pattern.exec(line);
        if (match) return match;
      }
      if (!this.running) throw new Error(`it has ended: ${this.stderr.join("\n")}`);
      return null;
    }, { seconds });
  }

  /** All lines of the log that match. */
  logged(pattern) {
    return this.stderr.filter((line) => pattern.test(line));
  }
}

/** Runs a program to its end. */
export async function run(args, { seconds = 20, ...options } = {}) {
  const program = new Running(args, options);
  try {
    const { code, signal } = await within(seconds, () => `the end of ${program.command}`, program.ended);
    return { code, signal, stdout: program.stdout.join("\n"), stderr: program.stderr.join("\n") };
  } finally {
    if (program.running) program.signal("SIGKILL");
  }
}
