// Axes: where a value lies between 0 and 1, which values have a tick, and how a value reads.

/** Ticks that an axis has at most. */
const TICKS_MAX = 6;

/** Steps of a decade, the finest first. */
const DECADE_STEPS = [[1, 2, 5], [1, 3], [1]];

const LINEAR_STEPS = [1, 2, 2.5, 5, 10];

/** Without the noise of binary fractions, such as 0.30000000000000004. */
function clean(value) {
  return Number(value.toPrecision(12));
}

function scale(low, high, ticks, project = (value) => value) {
  const [from, to] = [project(low), project(high)];
  return { low, high, ticks, at: (value) => (project(value) - from) / (to - from) };
}

/** From 0 to a round value that is not below `values`, with 4 to 6 ticks. */
export function linear(values) {
  const highest = Math.max(...values);
  const decade = 10 ** Math.floor(Math.log10(highest / (TICKS_MAX - 1)));
  const step = LINEAR_STEPS.map((step) => clean(step * decade)).find((step) => step * (TICKS_MAX - 1) >= highest);
  const count = Math.ceil(clean(highest / step));
  const ticks = Array.from({ length: count + 1 }, (_, i) => clean(i * step));
  return scale(0, ticks.at(-1), ticks);
}

/** Logarithmic, between round values around `values`: as fine as the number of ticks allows. */
export function logarithmic(values) {
  const [lowest, highest] = [Math.min(...values), Math.max(...values)];
  const first = Math.floor(Math.log10(lowest));
  const decades = Array.from({ length: Math.ceil(Math.log10(highest)) - first + 1 }, (_, i) => 10 ** (first + i));
  const candidates = DECADE_STEPS.map((steps) => {
    const all = decades.flatMap((decade) => steps.map((step) => clean(step * decade)));
    const from = all.findLastIndex((tick) => tick <= lowest);
    const to = all.findIndex((tick) => tick >= highest);
    return all.slice(from, Math.max(to, from + 1) + 1);
  });
  const ticks = candidates.find((ticks) => ticks.length <= TICKS_MAX) ?? candidates.at(-1);
  return scale(ticks[0], ticks.at(-1), ticks, Math.log);
}

/** Logarithmic from the lowest to the highest value, with ticks at the powers of `base` between them. */
export function powers(values, base) {
  const [low, high] = [Math.min(...values), Math.max(...values)];
  const ticks = [];
  // The powers of 10 and 16 are exact up to 2^53: counting them up makes no error.
  for (let tick = 1; tick <= high; tick *= base) if (tick >= low) ticks.push(tick);
  return scale(low, high, ticks, Math.log);
}

/** Linear from the lowest to the highest value, with a tick at each. */
export function each(values) {
  const ticks = [...new Set(values)].sort((a, b) => a - b);
  return scale(ticks[0], ticks.at(-1), ticks);
}

// --- how values read -------------------------------------------------------------------------------

/** `units` are [size, name], the smallest first. */
function withUnit(value, units) {
  const [size, name] = units.findLast(([size]) => value >= size) ?? units[0];
  const digits = value / size;
  return `${clean(digits >= 100 ? Math.round(digits) : Number(digits.toPrecision(3)))}${name}`;
}

/** 15000: 15k. */
export function count(value) {
  return withUnit(value, [[1, ""], [1e3, "k"], [1e6, "M"]]);
}

/** Of microseconds. */
export function duration(value) {
  return value === 0 ? "0" : withUnit(value, [[1, " µs"], [1e3, " ms"], [1e6, " s"]]);
}

/** Of bytes. */
export function bytes(value) {
  return value === 0 ? "0" : withUnit(value, [[1, " B"], [2 ** 10, " KiB"], [2 ** 20, " MiB"], [2 ** 30, " GiB"]]);
}
