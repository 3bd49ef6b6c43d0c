// SPDX-License-Identifier: Apache-2.0
"use strict";
// Blocks of JSON in the page, each parsed when it is first asked for, and how their numbers and texts are shown.

const parsedBlocks = new Map();

function block(id) {
  if (!parsedBlocks.has(id)) parsedBlocks.set(id, JSON.parse(document.getElementById(id).textContent));
  return parsedBlocks.get(id);
}

const report = block("report");
const byId = (id) => document.getElementById(id);
const metricsOf = (run) => block(`metrics-${run}`);
const recordOf = (index) => block(`record-${index}`);
const severalRuns = report.runs.length > 1;

// An element with these properties; texts among the children become text nodes, never markup.
function element(tag, properties = {}, ...children) {
  const node = Object.assign(document.createElement(tag), properties);
  node.append(...children);
  return node;
}

function option(value, text) {
  return element("option", { value }, text);
}

function number(value) {
  if (value === null || value === undefined) return "–";
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (size >= 1e6 || size < 1e-4) return value.toExponential(2);
  return String(Number(size >= 1000 ? value.toFixed(0) : value.toPrecision(4)));
}

// About three digits, of which none is left out, so that a column reads easily; as many as a number of that size has.
function short(value, size = Math.abs(value)) {
  if (value === 0) return "0";
  if (size >= 1e5 || size < 1e-3) return value.toExponential(1);
  return value.toFixed(size >= 100 ? 0 : size >= 10 ? 1 : 3);
}

function change(from, to) {
  return `${to >= from ? "+" : "−"}${short(Math.abs(to - from), Math.max(Math.abs(from), Math.abs(to)))}`;
}

// Zero-width joiners (U+200C, U+200D) belong to words and emoji; everything else that cannot be seen is spelt out, so
// that no control, mark of direction or lone surrogate acts on what stands around it.
const UNSEEN = /(?![\n\u200c\u200d])[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}]/gu;

function visible(text) {
  return text.replace(UNSEEN, (character) => {
    const code = character.codePointAt(0).toString(16).toUpperCase();
    return `⟨U+${code.padStart(4, "0")}⟩`;
  });
}
