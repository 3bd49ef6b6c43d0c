// SPDX-License-Identifier: Apache-2.0
"use strict";
// The page as a whole: views, runs to show, theme.

const DRAW = { curves: () => charts.forEach((draw) => draw()), responses: () => drawResponses(), metrics: () => drawMetric() };
let shown;

// The view that the address names, as in report.html#responses.
function showAddressed() {
  const name = location.hash.slice(1);
  show(Object.hasOwn(DRAW, name) ? name : "curves");
}

function viewOf(tab) {
  return tab.id.replace("tab-", "");
}

function show(name) {
  shown = name;
  for (const tab of document.querySelectorAll("[role=tab]")) {
    const selected = viewOf(tab) === name;
    tab.setAttribute("aria-selected", selected);
    tab.tabIndex = selected ? 0 : -1;
    byId(`view-${viewOf(tab)}`).hidden = !selected;
  }
  byId("run-bar").hidden = name === "responses";
  scrollTo(0, 0);
  redraw();
}

function redraw() {
  DRAW[shown]();
}

function setTheme(name) {
  document.documentElement.dataset.theme = name;
  byId("theme").textContent = name === "dark" ? "Light" : "Dark";
}

function buildChips() {
  byId("run-chips").hidden = !severalRuns;
  byId("run-chips").append(...report.runs.map((run, index) => {
    const chip = element("button", { value: index }, visible(run.label));
    chip.setAttribute("aria-pressed", true);
    chip.style.setProperty("--run", runColour(index));
    return chip;
  }));
  byId("run-chips").addEventListener("click", (event) => {
    const chip = event.target.closest("button");
    if (chip) toggleRun(chip);
  });
}

function toggleRun(chip) {
  const run = Number(chip.value);
  if (!plots.hidden.delete(run)) plots.hidden.add(run);
  chip.setAttribute("aria-pressed", !plots.hidden.has(run));
  redraw();
}

function moveTab(event) {
  const tabs = [...document.querySelectorAll("[role=tab]")];
  const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
  if (!step) return;
  const next = tabs[(tabs.indexOf(event.target) + step + tabs.length) % tabs.length];
  next.focus();
  next.click();
}

function buildNotes() {
  const notes = report.runs.flatMap((run) => run.notes.map((note) => element("li", {}, visible(`${run.label}: ${note}`))));
  byId("notes").append(...(notes.length ? [element("ul", {}, ...notes)] : []));
}

function start() {
  setTheme(matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
  byId("title").textContent = visible(report.runs.map((run) => run.label).join(", "));
  buildChips();
  buildNotes();
  buildOverview();
  buildCharts();
  buildMetrics();
  buildResponses();
  document.querySelector("[role=tablist]").addEventListener("click", (event) => {
    if (event.target.role !== "tab") return;
    history.replaceState(null, "", `#${viewOf(event.target)}`);
    show(viewOf(event.target));
  });
  document.querySelector("[role=tablist]").addEventListener("keydown", moveTab);
  byId("theme").addEventListener("click", () => {
    setTheme(theme() === "dark" ? "light" : "dark");
    redraw();
  });
  byId("smoothing").addEventListener("input", (event) => {
    plots.smoothing = Number(event.target.value);
    byId("smoothing-value").textContent = event.target.value;
    redraw();
  });
  addEventListener("hashchange", showAddressed);
  showAddressed();
}

start();
