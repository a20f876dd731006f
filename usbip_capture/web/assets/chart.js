// The bandwidth chart: ten minutes of bytes per second, in and out. The server counts, this draws.

import { el, text } from "./dom.js";
import { rate, time } from "./format.js";

/** Seconds that are shown at most, and at least. */
const [WINDOW, LEAST] = [600, 60];
let loading = null;

/** uPlot, which is fetched when it is first needed. */
function load() {
  loading ||= new Promise((resolve, reject) => {
    document.head.append(
      el("link", { rel: "stylesheet", href: new URL("uPlot.min.css", import.meta.url).href }),
      el("script", { src: new URL("uPlot.iife.min.js", import.meta.url).href,
        onload: () => resolve(window.uPlot), onerror: () => reject(new Error("the chart's script could not be fetched")) }));
  });
  return loading;
}

/** What the browser makes of a colour of the style sheet, in the colours that are on now. */
function colour(host, name, opacity = 1) {
  const probe = el("i");
  probe.style.color = opacity < 1 ? `color-mix(in srgb, var(${name}) ${opacity * 100}%, transparent)` : `var(${name})`;
  host.append(probe);
  const found = getComputedStyle(probe).color;
  probe.remove();
  return found;
}

/**
 * A chart in `host`. Gives {show(times, in, out), destroy()}; the arrays are the caller's, and are drawn as they are
 * when `show` is called. label: what it is of, for a screen reader.
 */
export async function bandwidthChart(host, api, label) {
  const values = [el("b"), el("b")];
  const legend = el("div", { class: "legend" },
    el("span", { class: "in" }, el("i"), "In, from devices ", values[0]),
    el("span", { class: "out" }, el("i"), "Out, to devices ", values[1]),
    el("span", { class: "at" }));
  const place = el("div", { class: "plot", role: "img", "aria-label": label, "data-test": "chart" });
  host.append(legend, place);
  const UPlot = await load();
  let data = [[], [], []];
  let plot = null;

  const describe = () => {
    const at = plot && plot.cursor.idx !== null && plot.cursor.left >= 0 ? plot.cursor.idx : data[0].length - 1;
    text(values[0], at < 0 ? "–" : rate(data[1][at]));
    text(values[1], at < 0 ? "–" : rate(data[2][at]));
    text(legend.lastChild, at >= 0 && at < data[0].length - 1 ? `at ${time(data[0][at])}` : "");
  };
  const range = () => {
    const last = data[0].length ? data[0][data[0].length - 1] : Date.now() / 1000;
    return [Math.max(last - WINDOW, Math.min(data[0][0] ?? last, last - LEAST)), last];
  };
  const draw = () => {
    if (plot) plot.destroy();
    plot = new UPlot(options(place, { range, describe }), data, place);
  };
  const resized = new ResizeObserver(() => plot && place.clientWidth && plot.setSize(size(place)));
  const ends = [api.on("theme", draw)];
  const scheme = matchMedia("(prefers-color-scheme: dark)");
  scheme.addEventListener("change", draw);
  draw();
  resized.observe(place);
  return {
    show(times, into, out) {
      data = [times, into, out];
      plot.setData(data);
      describe();
    },
    destroy() {
      resized.disconnect();
      scheme.removeEventListener("change", draw);
      for (const end of ends) end();
      plot.destroy();
    },
  };
}

const size = (place) => ({ width: Math.max(200, place.clientWidth), height: 220 });

function options(place, { range, describe }) {
  const quiet = colour(place, "--quiet");
  const lines = { stroke: colour(place, "--grid"), width: 1 };
  const font = "12px system-ui, sans-serif";
  const series = (name, style) => ({ stroke: colour(place, name), width: 1.5, points: { show: false }, ...style });
  return {
    ...size(place),
    legend: { show: false },
    cursor: { y: false, drag: { x: false, y: false }, points: { size: 7 } },
    scales: { x: { range }, y: { range: (_, least, most) => [0, Math.max(1000, (most || 0) * 1.1)] } },
    axes: [
      { stroke: quiet, font, grid: lines, ticks: { show: false }, size: 30, space: 70, values: (_, ticks, axis, space, gap) => ticks.map((tick) => clock(tick, gap)) },
      { stroke: quiet, font, grid: lines, ticks: { show: false }, size: 76, space: 36, values: (_, ticks) => ticks.map((tick) => plain(rate(tick))) },
    ],
    series: [{}, series("--in", { fill: colour(place, "--in", 0.14) }), series("--out", { dash: [5, 3] })],
    hooks: { setCursor: [describe] },
  };
}

/** With seconds, where several labels are within a minute. */
const clock = (tick, gap) => (gap < 60 ? time(tick).slice(-8) : time(tick).slice(-8, -3));

/** `2.00 MB/s` as `2 MB/s`. */
const plain = (label) => label.replace(/(\.\d*?)0+(?= )/, "$1").replace(/\.(?= )/, "");
