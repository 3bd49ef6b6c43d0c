// SPDX-License-Identifier: Apache-2.0
"use strict";
// Recorded responses: a list that can be filtered, one response in full, or all responses to one prompt by step.

const view = { mode: "response", response: null, prompt: null };
const NOTHING = {
  records: "These runs recorded no responses; perception.record_every=50 records some every 50 steps.",
  response: "No recorded response passes the filters.",
  prompt: "No prompt was recorded at more than one step.",
};
const VERDICTS = { all: "all", correct: "correct", wrong: "wrong", unjudged: "not judged" };
const MARKS = { correct: "✓", wrong: "✗", unjudged: "·" };
const TOKENS_OF_A_ROW = 300;

function verdictOf(entry) {
  if (entry.accuracy === null) return "unjudged";
  return entry.accuracy >= 0.5 ? "correct" : "wrong";
}

// Indices of the responses that pass the filters; the step is left open when steps are compared.
function filtered() {
  const [run, step, verdict] = ["run", "step", "verdict"].map((name) => byId(`filter-${name}`).value);
  const text = byId("filter-text").value.toLowerCase();
  return report.records.map((_, index) => index).filter((index) => {
    const entry = report.records[index];
    if (run !== "all" && String(entry.run) !== run) return false;
    if (view.mode === "response" && step !== "all" && String(entry.step) !== step) return false;
    if (verdict !== "all" && verdictOf(entry) !== verdict) return false;
    return report.prompts[entry.text].text.toLowerCase().includes(text);
  });
}

// Prompts with the indices of their responses, where there are several steps to compare.
function recurringPrompts(indices) {
  const byPrompt = new Map();
  for (const index of indices) {
    const { prompt } = report.records[index];
    if (prompt !== null) byPrompt.set(prompt, [...(byPrompt.get(prompt) ?? []), index]);
  }
  const steps = (group) => new Set(group.map((index) => report.records[index].step)).size;
  return new Map([...byPrompt].filter(([, group]) => steps(group) > 1));
}

function listItem(value, entry, head, facts) {
  const lines = [element("span", { className: "item-head" }, ...head), element("span", { className: "item-facts" }, facts)];
  const excerpt = element("span", { className: "excerpt" }, visible(report.prompts[entry.text].excerpt));
  const small = entry.picture === null ? [] : [picture(entry.picture, "")];
  return element("button", { value }, element("span", { className: "item-words" }, ...lines, excerpt), ...small);
}

function responseItem(index) {
  const entry = report.records[index];
  const verdict = verdictOf(entry);
  const mark = element("span", { className: `mark ${verdict}`, title: VERDICTS[verdict] }, MARKS[verdict]);
  const head = [mark, `step ${entry.step}`, runDot(entry.run)];
  return listItem(index, entry, head, `reward ${number(entry.reward)} · ${entry.tokens} tokens`);
}

function promptItem(prompt, group) {
  const steps = [...new Set(group.map((index) => report.records[index].step))].sort((a, b) => a - b);
  const head = [`${steps.length} steps, ${steps[0]} to ${steps.at(-1)}`];
  return listItem(prompt, report.records[group[0]], head, `${group.length} responses`);
}

function runDot(run) {
  if (!severalRuns) return "";
  const dot = element("span", { className: "dot" });
  dot.style.backgroundColor = runColour(run);
  return element("span", { className: "run-name" }, dot, visible(report.runs[run].label));
}

// The list, and what is chosen from it: keys of `listed` are indices of responses, or prompts with their responses.
let listed = new Map();

function drawResponses() {
  if (!report.records.length) return drawDetail([nothing(NOTHING.records)]);
  for (const button of byId("modes").children) button.setAttribute("aria-pressed", button.dataset.mode === view.mode);
  byId("filter-step").disabled = view.mode === "prompt";
  drawList(filtered());
  drawChosen();
}

function drawList(indices) {
  const prompts = view.mode === "prompt";
  listed = prompts ? recurringPrompts(indices) : new Map(indices.map((index) => [index, index]));
  byId("list").replaceChildren(...[...listed].map(([key, value]) => (prompts ? promptItem(key, value) : responseItem(value))));
  byId("list-count").textContent = prompts
    ? `${listed.size} prompts recorded at several steps`
    : `${listed.size} of ${report.records.length} responses`;
}

function drawChosen() {
  if (!listed.has(view[view.mode])) view[view.mode] = listed.keys().next().value ?? null;
  const key = view[view.mode];
  for (const item of byId("list").children) item.setAttribute("aria-current", item.value === String(key));
  if (key === null) return drawDetail([nothing(NOTHING[view.mode])]);
  drawDetail(view.mode === "prompt" ? promptDetail(listed.get(key)) : responseDetail(key));
}

function drawDetail(nodes) {
  byId("detail").replaceChildren(...nodes);
  drawLegend();
  hideTip();
}

function nothing(text) {
  return element("p", { className: "nothing" }, text);
}

// Nothing but a picture that the report wrote itself, from within the page.
function picture(index, alt) {
  return element("img", { loading: "lazy", alt, src: block(`image-${index}`) });
}

function promptCard(index) {
  const record = recordOf(index);
  const pictures = record.images.map((image, place) => picture(image, `picture ${place + 1} of the prompt`));
  const answer = [element("b", {}, "expected answer "), visible(record.truth ?? "")];
  const truth = record.truth === null ? [] : [element("p", { className: "truth" }, ...answer)];
  const text = element("div", { className: "prompt-text" }, visible(report.prompts[report.records[index].text].text.trim()));
  const shown = pictures.length ? [element("div", { className: "pictures" }, ...pictures)] : [];
  return element("div", { className: "card prompt" }, ...shown, element("div", { className: "prompt-words" }, text, ...truth));
}

function responseDetail(index) {
  const missing = missingNote(index);
  const heading = element("div", { className: "response-head" }, ...facts(index), pager(index));
  return [promptCard(index), element("div", { className: "card" }, heading, ...missing, tokenView(index))];
}

function facts(index) {
  const entry = report.records[index];
  const verdict = verdictOf(entry);
  return [
    element("span", { className: `mark ${verdict}` }, `${MARKS[verdict]} ${VERDICTS[verdict]}`),
    element("span", {}, `step ${entry.step}`),
    runDot(entry.run),
    element("span", {}, `reward ${number(entry.reward)}`),
    element("span", { title: `mean over the tokens: ${chosenQuantity()?.title ?? ""}` }, meanText(index)),
  ];
}

function meanText(index) {
  const quantity = chosenQuantity();
  const known = (recordOf(index).values[quantity?.name] ?? []).filter((value) => value !== null);
  if (!known.length) return "";
  return `mean ${short(known.reduce((a, b) => a + b, 0) / known.length)}`;
}

function missingNote(index) {
  const quantity = chosenQuantity();
  if (quantity && recordOf(index).values[quantity.name]) return [];
  return [nothing(`${quantity?.title ?? "No number a token"} was not recorded for this response.`)];
}

function pager(index) {
  const indices = [...listed.keys()];
  const place = indices.indexOf(index);
  const step = (text, to) => element("button", { value: indices[to] ?? "", disabled: indices[to] === undefined }, text);
  return element("span", { className: "pager" }, step("Previous", place - 1), step("Next", place + 1));
}

function promptDetail(group) {
  const entry = (index) => report.records[index];
  const order = [...group].sort((a, b) => entry(a).step - entry(b).step || entry(a).run - entry(b).run);
  return [promptCard(order[0]), element("div", { className: "card" }, ...order.map(stackedRow))];
}

function stackedRow(index) {
  const row = element("div", { className: "stacked" }, element("div", { className: "stacked-head" }, ...facts(index)));
  row.dataset.stacked = index;
  whenSeen.observe(row);
  return row;
}

// Responses further down are drawn when they come near the window.
const whenSeen = new IntersectionObserver((entries) => {
  for (const { isIntersecting, target } of entries) {
    if (!isIntersecting) continue;
    whenSeen.unobserve(target);
    fillRow(target, TOKENS_OF_A_ROW);
  }
}, { rootMargin: "600px" });

function fillRow(row, count) {
  const index = Number(row.dataset.stacked);
  const total = recordOf(index).tokens.length;
  const more = total > count ? [element("button", { className: "more", value: index }, `Show all ${total} tokens`)] : [];
  row.replaceChildren(row.firstChild, element("div", {}, ...missingNote(index), tokenView(index, count), ...more));
}

function fillFilters() {
  const steps = [...new Set(report.records.map((entry) => entry.step))].sort((a, b) => a - b);
  const verdicts = Object.entries(VERDICTS);
  byId("filter-run").append(option("all", "all"), ...report.runs.map((run, index) => option(index, visible(run.label))));
  byId("filter-step").append(option("all", "all"), ...steps.map((step) => option(step, step)));
  byId("filter-verdict").append(...verdicts.map(([value, text]) => option(value, text)));
  byId("quantity").append(...report.quantities.map((quantity) => option(quantity.name, quantity.title)));
}

function buildResponses() {
  fillFilters();
  listenToTokens();
  byId("modes").addEventListener("click", (event) => {
    view.mode = event.target.dataset.mode ?? view.mode;
    drawResponses();
  });
  byId("list").addEventListener("click", (event) => {
    const item = event.target.closest("button");
    if (item) choose(item.value);
  });
  byId("detail").addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (button?.className === "more") fillRow(button.closest(".stacked"), Infinity);
    else if (button) choose(button.value);
  });
  byId("filters").addEventListener("input", drawResponses);
  byId("colour-bar").addEventListener("input", () => {
    Object.assign(settings, { quantity: byId("quantity").value, range: byId("range").value, raised: byId("raised").checked });
    drawChosen();
  });
}

function choose(key) {
  view[view.mode] = view.mode === "response" ? Number(key) : key;
  drawChosen();
  byId("list").querySelector("[aria-current=true]")?.scrollIntoView({ block: "nearest" });
}
