// SPDX-License-Identifier: Apache-2.0
"use strict";
// Every metric that was logged, in a list that can be searched.

const metricNames = [...new Set(report.runs.flatMap((_, run) => Object.keys(metricsOf(run))))].sort();
let chosenMetric = metricNames[0];

function buildMetrics() {
  const titles = ["last value of", ...report.runs.map((run) => visible(run.label))];
  const head = element("tr", {}, ...titles.map((title) => element("th", { scope: "col" }, title)));
  byId("metric-table").append(element("thead", {}, head), element("tbody", {}, ...metricNames.map(metricRow)));
  byId("metric-table").addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (button) chooseMetric(metricNames[button.value]);
  });
  byId("metric-query").addEventListener("input", filterMetrics);
  filterMetrics();
}

function metricRow(name, index) {
  const cells = report.runs.map((_, run) => element("td", {}, number(metricsOf(run)[name]?.values.at(-1))));
  const parts = visible(name).split(/(?<=\/)/).flatMap((part) => [part, element("wbr")]);
  const button = element("button", { value: index }, ...parts);
  return element("tr", {}, element("th", { scope: "row" }, button), ...cells);
}

// Every word must occur in the name.
function filterMetrics() {
  const words = byId("metric-query").value.toLowerCase().split(/\s+/);
  const rows = [...byId("metric-table").tBodies[0].rows];
  rows.forEach((row, index) => {
    row.hidden = !words.every((word) => metricNames[index].toLowerCase().includes(word));
  });
  byId("metric-count").textContent = `${rows.filter((row) => !row.hidden).length} of ${rows.length} metrics`;
}

function chooseMetric(name) {
  chosenMetric = name;
  drawMetric();
}

function drawMetric() {
  if (chosenMetric === undefined) return;
  byId("metric-title").textContent = visible(chosenMetric);
  for (const button of byId("metric-table").querySelectorAll("button")) {
    button.setAttribute("aria-current", metricNames[button.value] === chosenMetric);
  }
  const lines = report.runs.map(() => [{ name: "", metric: chosenMetric }]);
  drawPanel(byId("metric-chart"), { unit: "", lines }, 420);
}
