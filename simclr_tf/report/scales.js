// What drawing needs of numbers: ticks, words, the nearest of sorted ones, the range in sight.
"use strict";

// A round number of steps between two ticks, for about `count` of them.
function tickStep(low, high, count) {
  const rough = (high - low) / count;
  const power = 10 ** Math.floor(Math.log10(rough));
  return power * [1, 2, 2.5, 5, 10].find((factor) => factor * power >= rough);
}

function ticks(low, high, count) {
  const step = tickStep(low, high, count);
  const found = [];
  for (let n = Math.ceil(low / step); n * step <= high && found.length < 50; n++) {
    found.push(n * step + 0); // no -0
  }
  return found;
}

function logTicks(low, high) {
  const found = [];
  const stride = Math.max(1, Math.ceil((high - low) / 5));
  for (let power = Math.ceil(low); power <= high; power += stride) found.push(power);
  return found.length > 1 ? found : ticks(low, high, 4);
}

// What 10 ** power is rounded to: two digits where it is not a power of ten itself.
function logStep(power) {
  return 10 ** (Math.floor(power) - (Number.isInteger(power) ? 0 : 1));
}

function tickText(value, step, share) {
  const size = share ? 100 : 1;
  const largest = Math.abs(value * size);
  if (largest && (largest >= 1e7 || step * size < 1e-4)) return value.toExponential(1);
  const isWhole = (n) => Math.abs(n - Math.round(n)) < 1e-6 * Math.abs(n);
  let digits = 0;
  while (digits < 8 && !isWhole(step * size * 10 ** digits)) digits++;
  return (value * size).toLocaleString("en-US", {
    minimumFractionDigits: digits,
    maximumFractionDigits: digits,
  }) + (share ? " %" : "");
}

// Half to even, as the run itself prints its shares.
const perCent = new Intl.NumberFormat("en-US", {
  minimumFractionDigits: 2,
  maximumFractionDigits: 2,
  roundingMode: "halfEven",
});

function words(value, share) {
  if (value === null || value === undefined) return "not finite";
  if (share) return `${perCent.format(100 * value)} %`;
  const size = Math.abs(value);
  if (size !== 0 && (size >= 1e9 || size < 1e-4)) return value.toExponential(3);
  if (size >= 1000) return Math.round(value).toLocaleString("en-US");
  return String(Number(value.toPrecision(4)));
}

// The place in the sorted `xs` of what is nearest to x.
function nearest(xs, x) {
  let low = 0;
  let high = xs.length - 1;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (xs[middle] < x) low = middle + 1;
    else high = middle;
  }
  return low > 0 && x - xs[low - 1] < xs[low] - x ? low - 1 : low;
}

// The least and greatest y in sight, also where a curve only passes through, with some room.
function heights(lines, [left, right], mayEndAtZero) {
  let [low, high] = [Infinity, -Infinity];
  const see = (y) => {
    low = Math.min(low, y);
    high = Math.max(high, y);
  };
  for (const { x, y } of lines) {
    for (let i = 0; i < x.length; i++) {
      if (y[i] === null) continue;
      if (x[i] >= left && x[i] <= right) see(y[i]);
      if (i === 0 || y[i - 1] === null || x[i] === x[i - 1]) continue;
      for (const edge of [left, right]) {
        const part = (edge - x[i - 1]) / (x[i] - x[i - 1]);
        if (part > 0 && part < 1) see(y[i - 1] + part * (y[i] - y[i - 1]));
      }
    }
  }
  if (low > high) return [0, 1];
  const room = high > low ? 0.06 * (high - low) : Math.abs(low) * 0.1 || 1;
  return [mayEndAtZero && low >= 0 && low < room ? 0 : low - room, high + room];
}

function svg(parent, name, attributes, text) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text !== undefined) made.textContent = text;
  parent.append(made);
  return made;
}
