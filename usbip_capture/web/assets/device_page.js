// The page of one device: what it is, who has it, its endpoints, what can be done with it.

import { extend } from "./api.js";
import { bandwidthChart } from "./chart.js";
import { ask, badge, button, el, fill, table, text } from "./dom.js";
import { nameOf, pathOf, stateBadge } from "./device_rows.js";
import { bytes, count, duration, since } from "./format.js";
import { histogram, smallHistogram } from "./histogram.js";

const EVERY = 4; // figures, that is two seconds: then the endpoints are fetched again

export async function render(container, api, busid) {
  let device = await api.get(pathOf(busid)); // throws if there is none
  const actions = makeActions(api, () => device);
  const about = el("section", { class: "card" });
  const chartCard = el("section", { class: "card" }, el("div", { class: "bar" }, el("h2", {}, "Bandwidth"), el("small", {}, "last 10 minutes")));
  const endpoints = makeEndpoints();
  const descriptors = el("pre", { class: "descriptors", tabindex: "0", "aria-label": "Descriptors", "data-test": "descriptors" });
  const gone = el("p", { class: "notice", hidden: true, role: "status", "data-test": "gone" }, "It is not plugged in any more, or has no power. The page follows when it is back.");
  fill(api.actions, el("a", { class: "button", href: "#/devices" }, "All devices"));
  fill(container, gone, actions.element, el("div", { class: "columns" }, about, chartCard), endpoints.element,
    el("details", { class: "card" }, el("summary", {}, el("h2", {}, "Descriptors")), descriptors));
  const show = () => {
    api.title(nameOf(device));
    actions.show();
    fill(about, el("h2", {}, "Device"), factsOf(device));
    endpoints.show(device.endpoints || []);
    text(descriptors, device.descriptors || "");
    chartCard.hidden = device.hub;
  };
  show();
  const chart = device.hub ? null : await bandwidthChart(chartCard, api, `Bytes per second of ${busid} in the last 10 minutes, in and out`);
  let history = device.hub ? null : await api.get(pathOf(busid, "history"));
  if (chart) chart.show(history.times, history.in, history.out);
  const refresh = async () => {
    if (!gone.hidden && !device.hub && api.figures && !(busid in api.figures.devices)) return; // it is still gone
    try {
      device = await api.get(pathOf(busid));
      gone.hidden = true;
      show();
    } catch (error) {
      if (error.status !== 404) throw error;
      gone.hidden = false;
      actions.leave();
    }
  };
  const ends = [
    await api.follow(refresh, { every: EVERY }),
    api.on("history", async () => {
      if (chart) history = await api.get(pathOf(busid, "history")).catch(() => history);
    }),
    api.on("figures", (figures) => {
      if (chart) {
        extend(history, figures.time, (figures.devices || {})[busid]);
        chart.show(history.times, history.in, history.out);
      }
    }),
  ];
  return () => {
    ends.forEach((end) => end());
    if (chart) chart.destroy();
  };
}

function factsOf(device) {
  const strings = device.strings || device;
  const facts = [
    ["State", [stateBadge(device.state), device.lease ? [" ", badge("reserved", "warn")] : null]],
    ["Why", device.why], ["Client", device.client && `${device.client}, since ${since(device.since)}`], ["Reserved", device.lease],
    ["Exported by", device.rule],
    ["Port", device.busid], ["VID:PID", device.vid_pid], ["Manufacturer", strings.manufacturer], ["Product", strings.product],
    ["Serial number", strings.serial], ["Class", device.class_name], ["Speed", device.speed_name],
    ["Drivers here", (device.drivers || []).join(", ")], ["Used here by", (device.uses || []).join("\n")],
    ["Moved", device.hub ? "" : `${bytes(device.bytes_in)} in, ${bytes(device.bytes_out)} out, ${count(device.urbs)} URBs`],
    ["Errors", device.errors ? el("span", { class: "problem" }, count(device.errors)) : ""],
  ];
  return el("dl", { class: "facts", "data-test": "facts" },
    facts.filter(([, value]) => value).map(([name, value]) => [el("dt", {}, name), el("dd", {}, value)]));
}

/** The buttons; `device` gives the device as it is now. */
function makeActions(api, device) {
  const path = (...rest) => pathOf(device().busid, ...rest);
  const post = (name, body) => api.act(() => api.post(path(name), body));
  const sure = async (question, name, body) => (await ask({ danger: true, ...question })) && post(name, body);
  const client = () => (device().client ? `${device().client} has it, and loses it at once.` : "");
  const buttons = {
    export: button("Export", () => (device().exported && device().client
      ? sure({ title: `Withdraw ${nameOf(device())}?`, text: client(), action: "Withdraw" }, "export", { on: false })
      : post("export", { on: !device().exported })), { "data-test": "export" }),
    disconnect: button("End the client", () => sure({ title: "End the client?", text: `${client()} The device stays exported.`, action: "End the client" }, "disconnect"), { "data-test": "disconnect" }),
    reset: button("Reset", () => (device().client
      ? sure({ title: `Reset ${nameOf(device())}?`, text: `${device().client} has it, and sees its transfers fail until it has set the device up again.`, action: "Reset" }, "reset")
      : post("reset")), { "data-test": "reset" }),
    eject: button("Eject…", async () => {
      const answer = await api.act(() => api.get(path("eject")));
      if (answer) await sure({ title: `Eject ${nameOf(device())}?`, text: answer.text, action: "Eject" }, "eject");
    }, { "data-test": "eject" }),
    cycle: button("Power off and on", () => sure({ title: "Switch the port's power off and on?", text: client(), action: "Off and on" }, "power", { action: "cycle" }), { "data-test": "power-cycle" }),
    off: button("Power off", () => sure({ title: "Switch the port's power off?", text: client(), action: "Power off" }, "power", { action: "off" }), { "data-test": "power-off" }),
    on: button("Power on", () => post("power", { action: "on" }), { "data-test": "power-on" }),
    capture: button("Capture", async () => {
      if (await api.act(() => api.post("/captures", { devices: [device().busid] }))) location.hash = "#/captures";
    }, { kind: "primary", icon: "captures", "data-test": "capture" }),
  };
  const { capture, off, on, cycle, ...rest } = buttons;
  const element = el("div", { class: "bar actions", role: "group", "aria-label": "What can be done" },
    capture, Object.values(rest), el("span", { class: "group", role: "group", "aria-label": "Power of the port" }, cycle, off, on));
  const enable = (name, on, why = "") => {
    buttons[name].disabled = !on;
    buttons[name].title = why;
  };
  return {
    element,
    /** What can be done with the port of a device that is gone: it may be without power. */
    leave() {
      for (const name of Object.keys(buttons)) enable(name, name === "on" && api.may("operate"), "It is not plugged in");
      buttons.on.title = "";
    },
    show() {
      const now = device();
      element.hidden = now.hub;
      text(buttons.export, now.exported ? "Withdraw" : "Export");
      const may = api.may("operate");
      const role = may ? "" : "Your token has the role look: this needs operate";
      for (const name of Object.keys(buttons)) enable(name, may, role);
      if (!may) return;
      enable("disconnect", Boolean(now.client), now.client ? "" : "No client has it");
      for (const name of ["reset", "capture", "eject"]) enable(name, now.exported, now.exported ? "" : "It is not exported");
    },
  };
}

function makeEndpoints() {
  let all = [];
  let chosen = null;
  const large = el("div", { class: "histogram" });
  const show = () => {
    const endpoint = all.find((one) => one.address === chosen) || busiest(all);
    fill(large, endpoint ? histogram(endpoint) : null);
  };
  const rows = table({
    caption: "Endpoints", test: "endpoints", empty: "Its endpoints are not known.", key: (endpoint) => endpoint.address,
    columns: [
      { label: "Endpoint", cell: (endpoint, td) => { if (!td.firstChild) td.append(choose(endpoint)); } },
      { label: "Type", cell: (endpoint) => (endpoint.address ? `${endpoint.type} ${endpoint.direction}` : endpoint.type) },
      { label: "Packet", number: true, cell: (endpoint) => (endpoint.max_packet_size ? count(endpoint.max_packet_size) : "–") },
      { label: "URBs", number: true, cell: (endpoint) => count(endpoint.urbs) },
      { label: "Bytes", number: true, cell: (endpoint) => bytes(endpoint.bytes) },
      { label: "Errors", number: true, cell: (endpoint, td) => { td.classList.toggle("problem", endpoint.errors > 0); return count(endpoint.errors); } },
      { label: "Last status", cell: (endpoint) => statusOf(endpoint.last_status) },
      { label: "Median", number: true, cell: (endpoint) => duration(endpoint.median) },
      { label: "p99", number: true, cell: (endpoint) => duration(endpoint.p99) },
      { label: "Times", cell: (endpoint) => smallHistogram(endpoint.histogram || []) },
    ],
  });
  const choose = ({ address }) => button(addressOf(address), () => {
    chosen = address;
    show();
  }, { kind: "quiet inline mono", title: "Show its completion times below" });
  return {
    element: el("section", { class: "card endpoints" }, el("h2", {}, "Endpoints"), rows.element, large),
    show(endpoints) {
      all = endpoints;
      rows.update(endpoints);
      show();
    },
  };
}

const busiest = (endpoints) => endpoints.reduce((most, one) => (!most || one.urbs > most.urbs ? one : most), null);

const statusOf = (status) => (status === null || status === undefined ? "–" : status === 0 ? "OK" : String(status));

/** As lsusb has it: 0x81. */
export const addressOf = (address) => (typeof address === "number" ? `0x${address.toString(16).padStart(2, "0")}` : address);
