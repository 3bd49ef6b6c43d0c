// SPDX-License-Identifier: Apache-2.0
"use strict";
// Colour scales of tokens.

const settings = { quantity: report.quantities[0]?.name, range: "all", raised: true };
const theme = () => document.documentElement.dataset.theme;
const clamp = (value, low, high) => Math.min(high, Math.max(low, value));
const runColour = (index) => report.colours.categorical[index % report.colours.categorical.length];

function chosenQuantity() {
  return report.quantities.find((quantity) => quantity.name === settings.quantity);
}

// What a quantity's numbers are as places between 0 and 1 on the colours of its scale, and back.
function scaleOf(quantity, values) {
  const [low, high] = settings.range === "one" && values ? ownRange(quantity, values) : [quantity.low, quantity.high];
  const power = settings.raised ? 0.5 : 1;
  const stops = report.colours[quantity.centre === null ? "sequential" : "diverging"][theme()].map(channels);
  if (quantity.centre === null) {
    return {
      stops,
      place: (value) => clamp((value - low) / (high - low), 0, 1) ** power,
      value: (place) => low + place ** (1 / power) * (high - low),
    };
  }
  const reach = high - quantity.centre;
  const bent = (part, exponent) => Math.sign(part) * Math.abs(part) ** exponent;
  return {
    stops,
    place: (value) => (bent(clamp((value - quantity.centre) / reach, -1, 1), power) + 1) / 2,
    value: (place) => quantity.centre + bent(2 * place - 1, 1 / power) * reach,
  };
}

function ownRange(quantity, values) {
  const known = values.filter((value) => value !== null);
  if (quantity.centre !== null) {
    const reach = known.reduce((most, value) => Math.max(most, Math.abs(value - quantity.centre)), 0) || 1;
    return [quantity.centre - reach, quantity.centre + reach];
  }
  const least = known.reduce((a, b) => Math.min(a, b), Infinity);
  const low = least >= 0 ? 0 : least;
  const high = known.reduce((a, b) => Math.max(a, b), -Infinity);
  return high > low ? [low, high] : [low, low + 1];
}

function channels(hex) {
  return [1, 3, 5].map((start) => parseInt(hex.slice(start, start + 2), 16));
}

function colourAt(stops, place) {
  const position = place * (stops.length - 1);
  const index = Math.min(Math.floor(position), stops.length - 2);
  const part = position - index;
  return stops[index].map((from, channel) => Math.round(from + part * (stops[index + 1][channel] - from)));
}

// Black or white, whichever has the higher contrast by WCAG's relative luminance.
function inkOn(colour) {
  const linear = colour.map((channel) => {
    const part = channel / 255;
    return part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
  });
  return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2] > 0.179 ? "#000" : "#fff";
}

function gradient(stops) {
  return `linear-gradient(to right, ${stops.map((stop) => `rgb(${stop})`).join(", ")})`;
}
