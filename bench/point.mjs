// A point of a curve: what is drawn of the reports of `wingbeat bench --json`, and whether all arrived.
//
//   node bench/point.mjs X [SERIES] <REPORTS
//
// One report with the spread of its runs, or, of a scenario without runs (idle), one for each run.

import { argv, stdin } from "node:process";
import { text } from "node:stream/consumers";

const WHAT = ["scenario", "topics", "subscribers", "payload_bytes", "in_flight", "sockets", "topics_each_socket"];
const FAULTS = ["lost", "doubled", "reordered", "disconnected"];

/** Four significant digits: more would only say how one run went. */
function rounded(value) {
  return Number(value.toPrecision(4));
}

function spread({ median, min, max }) {
  return { median: rounded(median), min: rounded(min), max: rounded(max) };
}

function spreadOf(values) {
  const sorted = values.toSorted((a, b) => a - b);
  const middle = (sorted.length - 1) / 2;
  const median = (sorted[Math.floor(middle)] + sorted[Math.ceil(middle)]) / 2;
  return spread({ median, min: sorted[0], max: sorted.at(-1) });
}

function figures(reports) {
  const { spread: runs } = reports[0];
  if (runs) {
    return {
      runs: reports[0].runs,
      rate: spread(runs.rate),
      p99_us: spread(runs.p99_us),
      cpu_seconds_per_million: spread(runs.cpu_seconds_per_million),
    };
  }
  return {
    runs: reports.length,
    resident_bytes: spreadOf(reports.map((report) => report.resident_bytes_settled)),
    bytes_per_socket: spreadOf(reports.map((report) => report.bytes_per_socket_settled)),
  };
}

function picked(names, report) {
  return Object.fromEntries(names.filter((name) => name in report).map((name) => [name, report[name]]));
}

function faults(reports) {
  const names = FAULTS.filter((name) => name in reports[0]);
  return Object.fromEntries(names.map((name) => [name, reports.reduce((sum, report) => sum + report[name], 0)]));
}

const reports = (await text(stdin)).trim().split("\n").map((line) => JSON.parse(line));
const [x, series] = argv.slice(2);
const point = {
  x: Number(x),
  ...(series && { series }),
  ...picked(WHAT, reports[0]),
  ...figures(reports),
  ...faults(reports),
};
console.log(JSON.stringify(point));
