// Draws a chart as SVG: panels side by side over the same x, each point a median with the lowest and the
// highest of its runs. It has a ground of its own, light or dark as the reader's system is.

const WIDTH = 760;
const HEIGHT = 318;
const MARGIN = 26;
const GAP = 22;
const PLOT = { top: 122, bottom: 262 };
/** Left of a plot, for the labels of its ticks. */
const LABELS = 46;
/** Between a plot's edge and its first and last point. */
const INSET = 12;
const FONT = "ui-sans-serif, system-ui, 'Segoe UI', Roboto, Helvetica, Arial, sans-serif";
const RADIUS = 3.2;
const CAP = 3;

const STYLE = `
    .ground { fill: #fbfaf7; stroke: #e4e0d6; }
    .title { fill: #1d3b3f; font-size: 17px; font-weight: 600; }
    .how, .label, .key { fill: #5b6d70; font-size: 12px; }
    .panel { fill: #1d3b3f; font-size: 13px; font-weight: 600; }
    .tick { fill: #5b6d70; font-size: 11.5px; font-variant-numeric: tabular-nums; }
    .grid { stroke: #e4e0d6; }
    .axis { stroke: #a9b3b3; }
    .curve { fill: none; stroke-width: 2; stroke-linejoin: round; }
    .spread { fill: none; stroke-width: 1.4; stroke-opacity: 0.6; }
    .dot { stroke: #fbfaf7; stroke-width: 1; }
    .s0 .curve, .s0 .spread { stroke: #2f7a80; } .s0 .dot { fill: #2f7a80; }
    .s1 .curve, .s1 .spread { stroke: #c07a1e; } .s1 .dot { fill: #c07a1e; }
    @media (prefers-color-scheme: dark) {
      .ground { fill: #14191c; stroke: #2c363a; }
      .title, .panel { fill: #e6eeee; }
      .how, .label, .key, .tick { fill: #9db0b2; }
      .grid { stroke: #262f33; }
      .axis { stroke: #55656a; }
      .dot { stroke: #14191c; }
      .s0 .curve, .s0 .spread { stroke: #5cc0c4; } .s0 .dot { fill: #5cc0c4; }
      .s1 .curve, .s1 .spread { stroke: #e8a94c; } .s1 .dot { fill: #e8a94c; }
    }
  `;

function escaped(text) {
  return text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll('"', "&quot;");
}

/** A length of the picture: a tenth of a pixel is enough. */
function px(value) {
  return String(Number(value.toFixed(1)));
}

function element(name, attributes, content = "") {
  const told = (value) => (typeof value === "number" ? px(value) : value);
  const listed = Object.entries(attributes).map(([key, value]) => ` ${key}="${told(value)}"`).join("");
  return content === "" ? `<${name}${listed}/>` : `<${name}${listed}>${content}</${name}>`;
}

function text(style, x, y, words, anchor) {
  return element("text", { class: style, x, y, ...(anchor && { "text-anchor": anchor }) }, escaped(words));
}

function path(style, d) {
  return element("path", { class: style, d });
}

/** The places of a panel on the picture. */
function place(number, of, x, y) {
  const width = (WIDTH - 2 * MARGIN - GAP * (of - 1)) / of;
  const left = MARGIN + number * (width + GAP);
  const plot = { left: left + LABELS, right: left + width };
  const inner = plot.right - plot.left - 2 * INSET;
  return {
    left,
    plot,
    x: (value) => plot.left + INSET + inner * x.at(value),
    y: (value) => PLOT.bottom - (PLOT.bottom - PLOT.top) * y.at(value),
  };
}

function axes(chart, panel, at, x, y) {
  const parts = [text("panel", at.left, PLOT.top - 16, panel.title)];
  for (const tick of y.ticks) {
    const height = at.y(tick);
    if (tick !== y.low) parts.push(path("grid", `M${px(at.plot.left)} ${px(height)}H${px(at.plot.right)}`));
    parts.push(text("tick", at.plot.left - 7, height + 4, panel.format(tick), "end"));
  }
  parts.push(path("axis", `M${px(at.plot.left)} ${PLOT.bottom}H${px(at.plot.right)}`));
  for (const tick of x.ticks) {
    parts.push(path("axis", `M${px(at.x(tick))} ${PLOT.bottom}v4`));
    parts.push(text("tick", at.x(tick), PLOT.bottom + 18, chart.x.format(tick), "middle"));
  }
  parts.push(text("label", (at.plot.left + at.plot.right) / 2, PLOT.bottom + 37, chart.x.title, "middle"));
  return parts;
}

function whisker(x, low, high) {
  const [left, right] = [px(x - CAP), px(x + CAP)];
  return `M${left} ${px(high)}H${right}M${left} ${px(low)}H${right}M${px(x)} ${px(low)}V${px(high)}`;
}

function said(chart, panel, point) {
  const { median, min, max } = panel.of(point);
  return `${chart.x.format(point.x)}: ${panel.format(median)} (${panel.format(min)} to ${panel.format(max)})`;
}

function curve(chart, panel, points, number, at) {
  const line = points.map((point) => `${px(at.x(point.x))} ${px(at.y(panel.of(point).median))}`);
  const spreads = points.map((point) => whisker(at.x(point.x), at.y(panel.of(point).min), at.y(panel.of(point).max)));
  const dots = points.map((point) => {
    const [cx, cy] = [at.x(point.x), at.y(panel.of(point).median)];
    const words = element("title", {}, escaped(said(chart, panel, point)));
    return element("circle", { class: "dot", cx, cy, r: RADIUS }, words);
  });
  return [`<g class="s${number}">`, path("spread", spreads.join("")), path("curve", `M${line.join("L")}`), ...dots, "</g>"];
}

/** How often each point was measured. */
function runs(points) {
  const [fewest, most] = [Math.min, Math.max].map((pick) => pick(...points.map((point) => point.runs)));
  if (most === 1) return "One run each.";
  return `Median, lowest and highest of ${fewest === most ? most : `${fewest} to ${most}`} runs.`;
}

/** The names of the curves, in the right upper corner. */
function key(chart, names) {
  if (names.length < 2) return [];
  return names.flatMap((name, number) => {
    const y = 34 + 19 * number;
    return [
      `<g class="s${number}">`,
      element("circle", { class: "dot", cx: WIDTH - MARGIN - 5, cy: y - 4, r: RADIUS + 1 }),
      "</g>",
      text("key", WIDTH - MARGIN - 16, y, chart.series[name], "end"),
    ];
  });
}

function description(chart, points, series) {
  const panels = chart.panels.flatMap((panel) => series.map(([name, points]) => {
    const whose = name === "" ? "" : `, ${chart.series[name]}`;
    return `${panel.title}${whose}, by ${chart.x.title}: ${points.map((point) => said(chart, panel, point)).join("; ")}.`;
  }));
  return `${chart.how} ${runs(points)} ${panels.join(" ")}`;
}

/**
 * The picture of `points` as `chart` says: `title`, `how` (it was measured), `x` (`title`, `scale` of values,
 * `format`), `series` (the names of more than one curve) and `panels`, each with `title`, `of` (a point's
 * `{median, min, max}`), `scale` and `format`. The same points give the same picture, to the byte.
 */
export function draw(chart, points) {
  const names = [...new Set(points.map((point) => point.series ?? ""))];
  const series = names.map((name) => [name, points.filter((point) => (point.series ?? "") === name)]);
  const x = chart.x.scale(points.map((point) => point.x));
  const panels = chart.panels.flatMap((panel, number) => {
    const y = panel.scale(points.flatMap((point) => [panel.of(point).min, panel.of(point).max]));
    const at = place(number, chart.panels.length, x, y);
    return [...axes(chart, panel, at, x, y), ...series.flatMap(([, of], i) => curve(chart, panel, of, i, at))];
  });
  const lines = [
    element("title", { id: "t" }, escaped(chart.title)),
    element("desc", { id: "d" }, escaped(description(chart, points, series))),
    element("style", {}, STYLE),
    element("rect", { class: "ground", x: 0.5, y: 0.5, width: WIDTH - 1, height: HEIGHT - 1, rx: 12 }),
    text("title", MARGIN, 36, chart.title),
    text("how", MARGIN, 57, chart.how),
    text("how", MARGIN, 74, runs(points)),
    ...key(chart, names),
    ...panels,
  ];
  const size = `viewBox="0 0 ${WIDTH} ${HEIGHT}" width="${WIDTH}" height="${HEIGHT}"`;
  return `<svg xmlns="http://www.w3.org/2000/svg" ${size} role="img" aria-labelledby="t d" font-family="${FONT}">\n`
    + `${lines.map((line) => `  ${line}\n`).join("")}</svg>\n`;
}
