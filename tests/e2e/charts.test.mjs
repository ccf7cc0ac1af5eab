// The cost curves of docs/PERFORMANCE.md: what bench/chart.mjs draws.

import assert from "node:assert/strict";
import { existsSync, readFileSync, readdirSync } from "node:fs";
import { test } from "node:test";

import { picture } from "../../bench/chart.mjs";
import { bytes, count, duration, linear, logarithmic, powers } from "../../bench/scale.mjs";
import { REPOSITORY } from "./lib/process.mjs";

const FOLDER = `${REPOSITORY}docs/performance`;

function level(value) {
  return { median: value, min: value, max: value };
}

function point(x, rate, p99) {
  return { x, payload_bytes: 100, in_flight: 4, runs: 3, rate, p99_us: p99, cpu_seconds_per_million: level(1) };
}

/** The places of the dots, by what they say. */
function dots(svg) {
  const found = svg.matchAll(/<circle class="dot" cx="([\d.]+)" cy="([\d.]+)" r="[\d.]+"><title>([^<]+)/g);
  return new Map([...found].map(([, x, y, words]) => [words, { x: Number(x), y: Number(y) }]));
}

/** The height of the label of a tick, of the first panel that has it: its letters sit 4 px below the tick. */
function heightOfTick(svg, label) {
  const [, y] = svg.match(new RegExp(`<text class="tick" x="[\\d.]+" y="([\\d.]+)" text-anchor="end">${label}<`));
  return Number(y) - 4;
}

test("a logarithmic axis has round ticks around its values, at most six", () => {
  assert.deepEqual(logarithmic([53, 220_000]).ticks, [10, 100, 1_000, 10_000, 100_000, 1_000_000]);
  assert.deepEqual(logarithmic([0.4, 13]).ticks, [0.3, 1, 3, 10, 30]);
  assert.deepEqual(logarithmic([21, 45]).ticks, [20, 50]);
  assert.deepEqual(logarithmic([100]).ticks, [100, 200]);
});

test("a logarithmic axis puts equal ratios at equal distances", () => {
  const { at } = logarithmic([1, 1_000]);
  assert.equal(at(1), 0);
  assert.ok(Math.abs(at(10) - 1 / 3) < 1e-9);
  assert.equal(at(1_000), 1);
});

test("an axis of powers has those between its ends, the ends included", () => {
  assert.deepEqual(powers([10, 15_000], 10).ticks, [10, 100, 1_000, 10_000]);
  assert.deepEqual(powers([16, 65_536], 16).ticks, [16, 256, 4_096, 65_536]);
});

test("a linear axis begins at zero and ends at or above the highest value", () => {
  assert.deepEqual(linear([1_539_000, 389_400]).ticks, [0, 500_000, 1_000_000, 1_500_000, 2_000_000]);
  assert.deepEqual(linear([1.5]).ticks, [0, 0.5, 1, 1.5]);
  assert.equal(linear([7]).at(0), 0);
});

test("values read as people write them", () => {
  assert.deepEqual([10, 15_000, 1_250_000].map(count), ["10", "15k", "1.25M"]);
  assert.deepEqual([0, 0.3506, 5_931, 206_600].map(duration), ["0", "0.351 µs", "5.93 ms", "207 ms"]);
  assert.deepEqual([16, 65_536, 35_910_000].map(bytes), ["16 B", "64 KiB", "34.2 MiB"]);
});

test("points lie at their values, whiskers from the lowest to the highest run", () => {
  const spread = { median: 1_000_000, min: 500_000, max: 1_500_000 };
  const svg = picture("subscribers", [point(10, level(500_000), level(100)), point(1_000, spread, level(10_000))]);
  const low = dots(svg).get("10: 500k (500k to 500k)");
  const high = dots(svg).get("1k: 1M (500k to 1.5M)");
  assert.equal(low.y, heightOfTick(svg, "500k"));
  assert.equal(high.y, heightOfTick(svg, "1M"));
  assert.ok(svg.includes(`M${high.x} ${heightOfTick(svg, "500k")}V${heightOfTick(svg, "1\\.5M")}`), "the whisker");
  assert.equal(dots(svg).get("10: 100 µs (100 µs to 100 µs)").y, heightOfTick(svg, "100 µs"));
});

test("the pictures of the documentation show its figures", () => {
  const names = readdirSync(FOLDER).filter((file) => file.endsWith(".json")).map((file) => file.slice(0, -5));
  assert.notEqual(names.length, 0);
  for (const name of names) {
    const [figures, svg] = ["json", "svg"].map((suffix) => `${FOLDER}/${name}.${suffix}`);
    assert.ok(existsSync(svg), `${svg}: run node bench/chart.mjs`);
    const drawn = picture(name, JSON.parse(readFileSync(figures, "utf8")));
    assert.ok(drawn === readFileSync(svg, "utf8"), `${svg} is out of date: run node bench/chart.mjs`);
  }
});
