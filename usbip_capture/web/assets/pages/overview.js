// At a glance: what is plugged in and lent, how much goes through, what happened last.

import { extend } from "../api.js";
import { bandwidthChart } from "../chart.js";
import { nameOf, pathOf } from "../device_rows.js";
import { badge, el, fill, table, text } from "../dom.js";
import { newestFirst, sentenceOf, severityBadge, showEvent } from "../event_rows.js";
import { bytes, count, counted, rate, span, time } from "../format.js";

export const title = "Overview";

const EVENTS = 15;

export async function render(container, api) {
  const tiles = makeTiles();
  const events = eventTable();
  const captures = captureTable();
  const chartCard = el("section", { class: "card", "aria-label": "Bandwidth" });
  fill(container, tiles.element, chartCard,
    el("div", { class: "columns uneven" },
      el("section", { class: "card events" }, heading("Latest events", "events"), events.element),
      el("section", { class: "card captures" }, heading("Running captures", "captures"), captures.element)));
  const chart = await chartOf(chartCard, api);
  let latest = [];
  const show = (value) => {
    tiles.show(value);
    captures.update(value.captures);
    latest = newestFirst(value.events).slice(0, EVENTS);
    events.update(latest);
  };
  const end = await api.follow(async () => {
    show(await api.get("/overview"));
    await chart.refresh();
  });
  if (api.figures) tiles.live(api.figures);
  const stream = api.events(latest.length ? latest[0].number : 0, (event) => {
    latest = [event, ...latest].slice(0, EVENTS);
    events.update(latest);
  });
  const ends = [
    end,
    api.on("figures", (figures) => {
      tiles.live(figures);
      captures.live(figures.captures || {});
    }),
    () => stream.close(),
    () => chart.destroy(),
  ];
  return () => ends.forEach((end) => end());
}

const heading = (name, page) => el("div", { class: "bar" }, el("h2", {}, name), el("a", { href: `#/${page}` }, "All"));

function makeTiles() {
  const made = {};
  let started = 0;
  const tile = (name, label, page) => {
    const [value, note] = [el("b", { "data-test": `tile-${name}` }, "–"), el("span", {}, label)];
    made[name] = { value, note };
    return el(page ? "a" : "div", { class: "tile", href: page ? `#/${page}` : null }, el("span", { class: "name" }, label), value, note);
  };
  const element = el("div", { class: "tiles" },
    tile("devices", "Devices", "devices"), tile("clients", "Clients", "clients"), tile("throughput", "Throughput"),
    tile("memory", "Memory of the server", "system"), tile("uptime", "Uptime", "system"));
  const set = (name, value, note) => {
    text(made[name].value, value);
    text(made[name].note, note);
  };
  const memory = (size) => (size ? bytes(size) : "–"); // not known on every system
  const throughput = ({ in: into, out, urbs }) => set("throughput", rate((into || 0) + (out || 0)), `${count(urbs)} URBs/s`);
  return {
    element,
    show(overview) {
      const { plugged, exported, in_use: used } = overview.devices;
      started = overview.started;
      set("devices", count(plugged), `${exported} exported, ${used} in use`);
      set("clients", count(overview.clients), `${used} with a device`);
      throughput(overview.throughput);
      set("memory", memory(overview.memory.rss), overview.memory.total ? `of ${bytes(overview.memory.total)}` : "");
      set("uptime", span(overview.uptime), `since ${time(overview.started)}`);
    },
    live(figures) {
      throughput(figures);
      text(made.memory.value, memory(figures.memory));
      text(made.clients.value, count(figures.clients));
      if (started) text(made.uptime.value, span(figures.time - started));
    },
  };
}

function eventTable() {
  return table({
    caption: "Latest events", test: "events", empty: "Nothing has happened yet.", key: (event) => event.number,
    columns: [
      { label: "Time", cell: (event) => time(event.time) },
      { label: "Kind", cell: (event, td) => { if (!td.firstChild) td.append(el("span", { class: "pair" }, severityBadge(event), kindButton(event))); } },
      { label: "What", wide: true, cell: (event) => sentenceOf(event) },
    ],
  });
}

const kindButton = (event) => el("button", { type: "button", class: "quiet inline", onclick: () => showEvent(event) }, event.kind);

function captureTable() {
  const cells = new Map();
  const amount = ({ packets, bytes: size, dropped }) =>
    `${counted(packets, "packet")}, ${bytes(size)}${dropped ? `, ${count(dropped)} dropped` : ""}`;
  const made = table({
    caption: "Running captures", test: "captures", empty: "No capture is running.", key: (capture) => capture.id,
    columns: [
      { label: "Name", wide: true, cell: (capture, td) => { if (!td.firstChild) td.append(el("span", { class: "pair" }, el("a", { href: "#/captures" }, capture.name || capture.id), badge("running", "good"))); } },
      { label: "Devices", cell: (capture) => capture.devices.join(", ") || "all" },
      { label: "Captured", cell: (capture, td) => { cells.set(capture.id, td); return amount(capture); } },
    ],
  });
  return {
    element: made.element,
    update(captures) {
      cells.clear();
      made.update(captures.filter((capture) => capture.state === "running"));
    },
    live(figures) {
      for (const [id, td] of cells) if (figures[id]) text(td, amount(figures[id]));
    },
  };
}

/** Of all devices, or of the one that is chosen. */
async function chartOf(card, api) {
  const choice = el("select", { "aria-label": "Device", "data-test": "chart-device" }, el("option", { value: "" }, "All devices"));
  card.append(el("div", { class: "bar" }, el("h2", {}, "Bandwidth"), el("small", {}, "last 10 minutes"), choice));
  const chart = await bandwidthChart(card, api, "Bytes per second of the last 10 minutes, in and out");
  let own = null; // history of the device that is chosen
  const redraw = () => {
    const shown = own || api.history;
    if (shown) chart.show(shown.times, shown.in, shown.out);
  };
  const choose = async () => {
    own = choice.value ? await api.get(pathOf(choice.value, "history")) : null;
    redraw();
  };
  const refresh = async () => {
    const { devices } = await api.get("/devices");
    const chosen = choice.value;
    const lent = devices.filter((device) => !device.hub && (device.exported || device.busid === chosen));
    fill(choice, el("option", { value: "" }, "All devices"),
      lent.map((device) => el("option", { value: device.busid }, `${device.busid} ${nameOf(device)}`)));
    choice.value = lent.some((device) => device.busid === chosen) ? chosen : "";
    await choose();
  };
  choice.addEventListener("change", () => choose().catch((error) => api.failed(error)));
  const ends = [api.on("history", redraw), api.on("figures", (figures) => {
    if (own) extend(own, figures.time, (figures.devices || {})[choice.value]);
    redraw();
  })];
  await refresh();
  return {
    refresh,
    destroy() {
      ends.forEach((end) => end());
      chart.destroy();
    },
  };
}
