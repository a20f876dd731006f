// How long URBs took, as bars: one for each step of the server's scale.

import { el } from "./dom.js";
import { count, counted, duration } from "./format.js";

const SVG = "http://www.w3.org/2000/svg";

/** The steps from the first to the last that has something in it. */
function used(steps) {
  const first = steps.findIndex(([, number]) => number);
  const last = steps.findLastIndex(([, number]) => number);
  return first < 0 ? [] : steps.slice(first, last + 1);
}

function bars(steps, width, height, gap) {
  const most = Math.max(1, ...steps.map(([, number]) => number));
  const step = width / Math.max(steps.length, 8);
  const picture = document.createElementNS(SVG, "svg");
  picture.setAttribute("viewBox", `0 0 ${width} ${height}`);
  picture.setAttribute("preserveAspectRatio", "none");
  steps.forEach(([, number], i) => {
    const tall = number ? Math.max(1.5, (number / most) * height) : 0;
    const bar = document.createElementNS(SVG, "rect");
    for (const [name, value] of Object.entries({ x: i * step, y: height - tall, width: step - gap, height: tall })) bar.setAttribute(name, value);
    picture.append(bar);
  });
  return picture;
}

/** For a row of a table. */
export function smallHistogram(steps) {
  const shown = used(steps);
  if (!shown.length) return el("span", { class: "quiet" }, "–");
  const picture = bars(shown, 96, 22, 1);
  picture.setAttribute("class", "bars small");
  picture.setAttribute("role", "img");
  picture.setAttribute("aria-label", `most within ${duration(shown.reduce((most, step) => (step[1] > most[1] ? step : most))[0])}`);
  return picture;
}

/** Of one endpoint, with its scale. */
export function histogram(endpoint) {
  const shown = used(endpoint.histogram || []);
  const address = typeof endpoint.address === "number" ? `0x${endpoint.address.toString(16).padStart(2, "0")}` : endpoint.address;
  if (!shown.length) return el("p", { class: "empty" }, `No URB of ${address} has completed yet.`);
  const all = shown.reduce((sum, [, number]) => sum + number, 0);
  const every = Math.ceil(shown.length / 8);
  const columns = shown.map(([bound, number], i) => el("li", { title: `up to ${duration(bound)}: ${counted(number, "URB")}` },
    el("i"), el("span", { class: (i / every) % 2 ? "minor" : null }, i % every === 0 && i <= shown.length - every ? duration(bound) : "")));
  const most = Math.max(...shown.map(([, number]) => number));
  shown.forEach(([, number], i) => columns[i].firstChild.style.setProperty("height", `${Math.max(number ? 1.5 : 0, (number / most) * 100)}%`));
  return el("figure", {},
    el("figcaption", {}, `Completion times of ${address}: ${count(all)} URBs, median ${duration(endpoint.median)}, p99 ${duration(endpoint.p99)}`),
    el("ol", { class: "steps", "data-test": "histogram" }, columns));
}
