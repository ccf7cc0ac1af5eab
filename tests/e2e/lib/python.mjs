// Clients in Python, of an environment that tests/run makes from requirements.txt.

import { existsSync } from "node:fs";

import { REPOSITORY, Running } from "./process.mjs";

const INTERPRETER = process.env.WINGBEAT_PYTHON ?? `${REPOSITORY}target/python/bin/python3`;

/** Whether there is one: the clients need Python 3.11. */
export const PYTHON = existsSync(INTERPRETER);

/** Runs a program of `python/`. */
export function python(stage, name, args) {
  const script = `${REPOSITORY}tests/e2e/python/${name}`;
  const running = new Running(["-u", script, ...args], { binary: INTERPRETER });
  stage.atEnd(() => running.end());
  return running;
}
