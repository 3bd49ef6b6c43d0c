// SPDX-License-Identifier: Apache-2.0
"use strict";
// Plots of metrics over the training steps.

const plots = { hidden: new Set(), smoothing: 0 };
const CONFIG = { responsive: true, displaylogo: false, modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d"] };
const MOST_BARS = 60;
// Lines of so few points, as of validation, have markers and are not smoothed.
const FEW = 30;

const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
// Plotly reads a few tags and entities in its texts.
const plain = (text) => visible(text).replaceAll("&", "&amp;").replaceAll("<", "&lt;");

function shownRuns() {
  return report.runs.map((_, index) => index).filter((index) => !plots.hidden.has(index));
}

function pointsOf(run, line) {
  const first = metricsOf(run)[line.metric];
  if (!first || !line.minus) return first;
  const second = metricsOf(run)[line.minus];
  if (!second) return undefined;
  const subtracted = new Map(second.steps.map((step, index) => [step, second.values[index]]));
  const kept = first.steps.map((step, index) => [step, first.values[index]]).filter(([step]) => subtracted.has(step));
  return { steps: kept.map(([step]) => step), values: kept.map(([step, value]) => value - subtracted.get(step)) };
}

// An exponential moving average whose first values are not drawn towards zero.
function smoothed(values, factor) {
  let sum = 0;
  let weight = 0;
  return values.map((value) => {
    sum = factor * sum + value;
    weight = factor * weight + 1;
    return sum / weight;
  });
}

function lineTraces(run, line) {
  const points = pointsOf(run, line);
  if (!points) return [];
  const few = points.steps.length <= FEW;
  const factor = few ? 0 : plots.smoothing;
  const trace = {
    x: points.steps,
    y: smoothed(points.values, factor),
    name: plain([severalRuns ? report.runs[run].label : "", line.name].filter(Boolean).join(", ") || "value"),
    mode: few ? "lines+markers" : "lines",
    line: { color: runColour(run), width: 2, dash: line.dashed ? "dash" : "solid" },
    marker: { size: 5 },
    hovertemplate: "%{y:.4~g}",
  };
  if (factor === 0) return [trace];
  return [{ ...trace, y: points.values, mode: "lines", opacity: 0.25, hoverinfo: "skip", hovertemplate: null }, trace];
}

function axis(title) {
  const line = css("--line");
  return { title: { text: plain(title), standoff: 8 }, gridcolor: line, linecolor: line, zeroline: false, automargin: true };
}

function stepAxis() {
  return { ...axis("training step"), unifiedhovertitle: { text: "step %{x}" } };
}

function layout(unit, height = 260) {
  return {
    height,
    margin: { l: 44, r: 10, t: 22, b: 34 },
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    font: { family: css("--font"), size: 12, color: css("--soft") },
    hovermode: "x unified",
    hoverlabel: { bgcolor: css("--card"), bordercolor: css("--line"), font: { color: css("--ink") }, namelength: -1 },
    modebar: { bgcolor: "rgba(0,0,0,0)", color: css("--soft"), activecolor: css("--accent") },
    showlegend: false,
    xaxis: stepAxis(),
    yaxis: axis(unit),
  };
}

function drawPanel(node, panel, height) {
  const traces = shownRuns().flatMap((run) => panel.lines[run].flatMap((line) => lineTraces(run, line)));
  Plotly.react(node, traces, layout(panel.unit, height), CONFIG);
}

function costTraces(run, column) {
  const { steps, seconds } = report.costs[run];
  const axes = { xaxis: `x${column + 1}`, yaxis: "y" };
  const kind = steps.length > MOST_BARS ? { type: "scatter", mode: "none", stackgroup: `run ${run}` } : { type: "bar" };
  return costPhases().flatMap((phase, index) => {
    if (!seconds[phase]) return [];
    const colour = phase === "other" ? report.colours.rest : runColour(index);
    const look = { name: phase, legendgroup: phase, showlegend: column === 0, fillcolor: colour, marker: { color: colour } };
    return [{ x: steps, y: seconds[phase], hovertemplate: "%{y:.3~g} s", ...kind, ...look, ...axes }];
  });
}

function costPhases() {
  return [...new Set(report.costs.flatMap((cost) => Object.keys(cost.seconds)))];
}

function drawCost(node) {
  const runs = shownRuns().filter((run) => report.costs[run].steps.length);
  const look = { ...layout("seconds a step", 300), barmode: "stack", bargap: 0.1, showlegend: true };
  look.legend = { traceorder: "reversed" };
  look.margin.t = 26;
  look.annotations = runs.map((run, column) => costTitle(run, (column + 0.5) / runs.length));
  runs.forEach((run, column) => {
    const domain = [(column + 0.04 * (column > 0)) / runs.length, (column + 0.96) / runs.length];
    look[column ? `xaxis${column + 1}` : "xaxis"] = { ...stepAxis(), domain };
  });
  Plotly.react(node, runs.flatMap(costTraces), look, CONFIG);
}

function costTitle(run, x) {
  const place = { x, y: 1, xref: "paper", yref: "paper", yanchor: "bottom", showarrow: false };
  return { ...place, text: plain(severalRuns ? report.runs[run].label : "") };
}

// One line of each name: runs may draw it from different metrics.
function kindsOf(panel) {
  return [...new Map(panel.lines.flat().map((line) => [line.name, line])).values()];
}

function lineKey(panel) {
  const named = kindsOf(panel).filter((line) => line.name);
  return named.map((line) => element("span", { className: line.dashed ? "key dashed" : "key" }, line.name));
}

const charts = [];

function addChart(title, key, draw, wide) {
  const node = element("div", { className: "chart" });
  const heading = [element("h2", {}, title), element("p", { className: "keys" }, ...key)];
  byId("charts").append(element("div", { className: wide ? "card wide" : "card" }, ...heading, node));
  charts.push(() => draw(node));
}

function buildCharts() {
  for (const panel of report.panels) addChart(panel.title, lineKey(panel), (node) => drawPanel(node, panel), false);
  if (report.costs.some((cost) => cost.steps.length)) addChart("Seconds of a step, by phase", [], drawCost, true);
}

function buildOverview() {
  const head = element("tr", {}, element("th"), ...report.runs.map((run) => element("th", { scope: "col" }, visible(run.label))));
  const rows = report.panels.flatMap((panel) => kindsOf(panel).map((line) => overviewRow(panel, line)));
  byId("overview").append(element("thead", {}, head), element("tbody", {}, ...rows));
}

function overviewRow(panel, line) {
  const title = [panel.title, line.name].filter(Boolean).join(", ");
  const cells = report.runs.map((run) => overviewCell(run.overview.find((v) => v.panel === panel.key && v.line === line.name)));
  return element("tr", {}, element("th", { scope: "row" }, title), ...cells);
}

function overviewCell(found) {
  if (!found) return element("td", {}, "–");
  const difference = element("span", { className: "change" }, change(found.first, found.last));
  return element("td", {}, `${short(found.first)} → ${short(found.last)} `, difference);
}
