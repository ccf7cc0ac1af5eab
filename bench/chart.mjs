// Draws the cost curves: each NAME.json of a folder that bench/curves has written becomes NAME.svg.
//
//   node bench/chart.mjs [FOLDER]    default: docs/performance

import { readFileSync, readdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { argv } from "node:process";
import { fileURLToPath } from "node:url";

import { draw } from "./draw.mjs";
import { bytes, count, duration, each, linear, logarithmic, powers } from "./scale.mjs";

const FOLDER = fileURLToPath(new URL("../docs/performance", import.meta.url));

const decades = (values) => powers(values, 10);

/** Every fourth doubling, so that their labels have room. */
const powersOf16 = (values) => powers(values, 16);

/** What the points have under `name`: "1,000", or "1 or 4". */
function told(points, name) {
  const values = [...new Set(points.map((point) => point[name]))].sort((a, b) => a - b);
  return values.map((value) => value.toLocaleString("en")).join(" or ");
}

function inFlight(points) {
  return `${told(points, "in_flight")} messages in flight`;
}

/** The panels of all curves that publish. */
function panels({ rate = linear, p99 = logarithmic, cpu = linear } = {}) {
  return [
    { title: "Deliveries a second", of: (point) => point.rate, scale: rate, format: count },
    { title: "Publish to deliver, p99", of: (point) => point.p99_us, scale: p99, format: duration },
    // Seconds a million are microseconds each.
    { title: "Server CPU a delivery", of: (point) => point.cpu_seconds_per_million, scale: cpu, format: duration },
  ];
}

const CHARTS = {
  subscribers: {
    title: "Subscribers of one topic",
    how: (points) => `One node, ${told(points, "payload_bytes")}-byte payloads, ${inFlight(points)}.`,
    x: { title: "subscribers", scale: decades, format: count },
    panels: panels(),
  },
  payload: {
    title: "Size of a message",
    how: (points) => `One node, ${told(points, "subscribers")} subscribers, ${inFlight(points)}.`,
    x: { title: "payload", scale: powersOf16, format: bytes },
    panels: panels({ rate: logarithmic, cpu: logarithmic }),
  },
  topics: {
    title: "Topics with a few subscribers each",
    how: (points) => `One node, ${told(points, "subscribers")} subscribers a topic, `
      + `${told(points, "payload_bytes")}-byte payloads, ${inFlight(points)} over all topics.`,
    x: { title: "topics", scale: decades, format: count },
    panels: panels({ rate: logarithmic, cpu: logarithmic }),
  },
  nodes: {
    title: "Nodes of a cluster",
    how: (points) => `${told(points, "subscribers")} subscribers, from 2 nodes on all but the publisher's, `
      + `${inFlight(points)}, all on one machine.`,
    x: { title: "nodes", scale: each, format: count },
    panels: panels({ p99: linear }),
  },
  memory: {
    title: "Memory of idle sockets",
    how: () => "One node, each socket in a topic of its own, without the kernel's memory.",
    series: { joined: "joined", listed: "joined and listed as present" },
    x: { title: "sockets", scale: linear, format: count },
    panels: [
      { title: "Resident memory of the node", of: (point) => point.resident_bytes, scale: binary, format: bytes },
      { title: "For each socket", of: (point) => point.bytes_per_socket, scale: binary, format: bytes },
    ],
  },
};

/** Linear, with ticks that are round in the unit of bytes that the values have. */
function binary(values) {
  const unit = 2 ** (10 * Math.floor(Math.log2(Math.max(...values)) / 10));
  const { low, high, ticks, at } = linear(values.map((value) => value / unit));
  return { low, high: high * unit, ticks: ticks.map((tick) => tick * unit), at: (value) => at(value / unit) };
}

/** The picture of the curve `name` with these points. */
export function picture(name, points) {
  const chart = CHARTS[name];
  return draw({ ...chart, how: chart.how(points) }, points);
}

function drawAll(folder) {
  for (const name of Object.keys(CHARTS)) {
    if (!readdirSync(folder).includes(`${name}.json`)) continue;
    const points = JSON.parse(readFileSync(join(folder, `${name}.json`), "utf8"));
    writeFileSync(join(folder, `${name}.svg`), picture(name, points));
    console.log(join(folder, `${name}.svg`));
  }
}

if (argv[1] === fileURLToPath(import.meta.url)) drawAll(argv[2] ?? FOLDER);
