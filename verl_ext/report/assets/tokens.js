// SPDX-License-Identifier: Apache-2.0
"use strict";
// Tokens of responses: their colours, and all of their numbers for the one under the pointer or with the focus.

function tokenView(index, count) {
  const node = element("div", { className: "tokens" });
  node.dataset.record = index;
  node.setAttribute("role", "group");
  node.setAttribute("aria-label", "tokens of the response; the arrow keys move from one to the next");
  node.append(...recordOf(index).tokens.slice(0, count).map(tokenSpan));
  colourTokens(node);
  return node;
}

function tokenSpan(text, index) {
  return element("span", { className: "token", tabIndex: index ? -1 : 0 }, visible(text).replaceAll("\n", "↵\n"));
}

function colourTokens(node) {
  const quantity = chosenQuantity();
  const values = quantity && recordOf(node.dataset.record).values[quantity.name];
  const scale = values && scaleOf(quantity, values);
  [...node.children].forEach((span, index) => paint(span, scale, values?.[index]));
}

function paint(span, scale, value) {
  const known = scale && value !== null;
  const colour = known && colourAt(scale.stops, scale.place(value));
  span.style.backgroundColor = known ? `rgb(${colour})` : "";
  span.style.color = known ? inkOn(colour) : "";
}

function showTip(span) {
  const tip = byId("tip");
  const record = recordOf(span.parentNode.dataset.record);
  const index = [...span.parentNode.children].indexOf(span);
  const title = `${visible(record.tokens[index]).replaceAll("\n", "↵")}`;
  const rows = report.quantities.filter((q) => record.values[q.name]).map((q) => tipRow(q, record.values[q.name], index));
  tip.replaceChildren(
    element("div", { className: "tip-token" }, title),
    element("div", { className: "tip-place" }, `token ${index + 1} of ${record.tokens.length}`),
    element("table", {}, ...rows),
  );
  tip.hidden = false;
  placeTip(tip, span.getClientRects()[0]);
}

function tipRow(quantity, values, index) {
  const row = element("tr", {}, element("th", {}, quantity.title), element("td", {}, number(values[index])));
  row.className = quantity.name === settings.quantity ? "chosen" : "";
  return row;
}

function placeTip(tip, box) {
  const { width, height } = tip.getBoundingClientRect();
  const below = box.bottom + 8 + height <= window.innerHeight;
  tip.style.left = `${clamp(box.left, 8, Math.max(8, window.innerWidth - width - 8))}px`;
  tip.style.top = `${below ? box.bottom + 8 : Math.max(8, box.top - height - 8)}px`;
}

function hideTip() {
  byId("tip").hidden = true;
}

function moveFocus(event) {
  const span = event.target;
  if (!span.classList?.contains("token")) return;
  const { firstChild, lastChild } = span.parentNode;
  const moves = { ArrowRight: span.nextSibling, ArrowLeft: span.previousSibling, Home: firstChild, End: lastChild };
  const next = moves[event.key];
  if (!next) return;
  event.preventDefault();
  span.tabIndex = -1;
  next.tabIndex = 0;
  next.focus();
}

// One listener a kind of event for all tokens of the page.
function listenToTokens() {
  const show = (event) => (event.target.classList?.contains("token") ? showTip(event.target) : hideTip());
  document.addEventListener("pointerover", show);
  document.addEventListener("focusin", show);
  document.addEventListener("focusout", hideTip);
  document.addEventListener("scroll", hideTip, { capture: true, passive: true });
  document.addEventListener("keydown", (event) => (event.key === "Escape" ? hideTip() : moveFocus(event)));
}

function drawLegend() {
  const quantity = chosenQuantity();
  if (!quantity) return byId("legend").replaceChildren();
  const scale = scaleOf(quantity, null);
  const bar = element("div", { className: "legend-bar" });
  bar.style.backgroundImage = gradient(scale.stops);
  const places = [0, 0.25, 0.5, 0.75, 1];
  const ends = { 0: "≤ ", 1: "≥ " };
  const texts = places.map((place) => number(Number(scale.value(place).toPrecision(2))));
  const labels = places.map((place, index) => legendLabel(place, `${ends[place] ?? ""}${texts[index]}`));
  const relative = settings.range === "one" ? [legendLabel(0, "least"), legendLabel(1, "most")] : labels;
  byId("legend").replaceChildren(bar, element("div", { className: "legend-labels" }, ...relative));
}

function legendLabel(place, text) {
  const label = element("span", {}, text);
  label.style.left = `${100 * place}%`;
  return label;
}
