// The tree of hubs, devices and empty ports; with a busid in the address, the page of that device.

import { ask, attribute, badge, el, fill, icon, keyed, text } from "../dom.js";
import { byPort, nameOf, pageOf, pathOf, portsOf, stateBadge } from "../device_rows.js";
import { counted, rate, time } from "../format.js";

export const title = "Devices";

export async function render(container, api, [busid]) {
  if (busid) {
    const page = await import("../device_page.js");
    return page.render(container, api, busid);
  }
  const search = el("input", { type: "search", placeholder: "Filter: name, port, VID:PID, client", "aria-label": "Filter devices", "data-test": "filter" });
  const summary = el("span", { class: "quiet", role: "status" });
  const tree = el("ul", { class: "tree", "aria-label": "Devices by port", "data-test": "tree" });
  const none = el("p", { class: "empty" }, "No USB device is plugged in.");
  fill(api.actions, search);
  fill(container, el("section", { class: "card" }, el("div", { class: "bar" }, summary), tree, none));
  let devices = [];
  const rows = new Map(); // li of each device, by busid
  const draw = () => {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    rows.clear();
    const roots = branches(devices, (device) => words.every((word) => wordsOf(device).includes(word)), !words.length);
    level(tree, roots, api, rows);
    none.hidden = roots.length > 0;
    text(none, words.length ? "No device matches the filter." : "No USB device is plugged in.");
    text(summary, summaryOf(devices));
    live(rows, api.figures);
  };
  const refresh = async () => {
    ({ devices } = await api.get("/devices"));
    draw();
  };
  search.addEventListener("input", draw);
  const ends = [
    await api.follow(refresh),
    api.on("figures", (figures) => live(rows, figures)),
  ];
  return () => ends.forEach((end) => end());
}

function summaryOf(devices) {
  const plugged = devices.filter((device) => !device.hub);
  const exported = plugged.filter((device) => device.exported);
  const used = plugged.filter((device) => device.state === "in use");
  return `${counted(plugged.length, "device")}, ${exported.length} exported, ${used.length} in use`;
}

const wordsOf = (device) =>
  [device.busid, nameOf(device), device.manufacturer, device.serial, device.vid_pid, device.class_name, device.state, device.client]
    .filter(Boolean).join(" ").toLowerCase();

/** Devices as nodes {key, device, children}; with the ports where nothing is plugged in, {key, ports}. */
function branches(devices, matches, withPorts) {
  const nodes = new Map(devices.map((device) => [device.busid, { key: device.busid, device, children: [] }]));
  const roots = [];
  for (const device of [...devices].sort(byPort)) {
    const parent = nodes.get(device.parent);
    (parent && parent.device !== device ? parent.children : roots).push(nodes.get(device.busid));
  }
  const kept = (list) => list.filter((node) => {
    node.children = kept(node.children);
    return node.children.length || matches(node.device);
  });
  const found = kept(roots);
  if (withPorts) for (const node of nodes.values()) addEmptyPorts(node);
  return found;
}

function addEmptyPorts(node) {
  const taken = new Map(node.children.map((child) => [child.device.port || portsOf(child.key).at(-1), child]));
  const most = Math.max(node.device.ports || 0, 0);
  if (!most) return;
  const all = [];
  let first = 0;
  for (let port = 1; port <= most + 1; port += 1) {
    const child = taken.get(port);
    if (!child && port <= most) first ||= port;
    if (first && (child || port > most)) {
      all.push({ key: `${node.key} ${first}-${port - 1}`, ports: [first, port - 1] });
      first = 0;
    }
    if (child) all.push(child);
  }
  node.children = [...all, ...node.children.filter((child) => !all.includes(child))];
}

function level(list, nodes, api, rows) {
  keyed(list, nodes, (node) => node.key, (node) => (node.device ? makeRow(api) : makePorts()), (li, node) => {
    if (!node.device) return text(li.querySelector(".name"), portsText(node.ports));
    li.show(node.device);
    rows.set(node.key, li);
    level(li.below, node.children, api, rows);
    if (li.below.hidden !== !node.children.length) li.below.hidden = !node.children.length;
  });
}

const portsText = ([first, last]) => (first === last ? `Port ${first}: empty` : `Ports ${first} to ${last}: empty`);

const makePorts = () => el("li", {}, el("div", { class: "device none" }, icon("empty"), el("span", { class: "name" })));

function makeRow(api) {
  const picture = el("span", { class: "picture" });
  const name = el("a", { class: "name", "data-test": "device" });
  const about = el("span", { class: "about" });
  const state = el("span", { class: "state" });
  const client = el("span", { class: "client" });
  const figures = el("span", { class: "figures" });
  let device = null;
  const exported = el("input", { type: "checkbox", role: "switch", class: "switch", disabled: !api.may("operate"), "data-test": "export" });
  exported.addEventListener("change", () => setExport(api, device, exported));
  const below = el("ul");
  const li = el("li", {}, el("div", { class: "device" }, picture, el("span", { class: "what" }, name, about), state, client, figures, exported), below);
  return Object.defineProperties(li, {
    below: { value: below },
    show: { value: (given) => {
      device = given;
      if (picture.dataset.icon !== device.icon) {
        picture.dataset.icon = device.icon;
        fill(picture, icon(device.icon));
      }
      attribute(li, "data-busid", device.busid);
      attribute(name, "href", pageOf(device.busid));
      text(name, nameOf(device));
      text(about, aboutOf(device));
      const words = device.hub ? "" : device.state + (device.lease ? "reserved" : "");
      if (state.textContent !== words) fill(state, words && stateBadge(device.state), device.lease ? badge("reserved", "warn") : null);
      attribute(state, "title", device.why || device.lease || "");
      text(client, device.client ? [device.client, device.since && `since ${time(device.since)}`].filter(Boolean).join("\n") : "");
      attribute(li.firstChild, "class", device.hub ? "device hub" : "device");
      if (exported.hidden !== device.hub) exported.hidden = device.hub;
      exported.checked = device.exported;
      attribute(exported, "aria-label", `Export ${device.busid}, ${nameOf(device)}`);
      attribute(exported, "title", device.exported ? "Exported: turn off to withdraw it" : "Not exported: turn on to lend it");
    } },
    live: { value: (now) => text(figures, device.hub ? "" : flow(now || { in: device.rate_in, out: device.rate_out }, device)) },
  });
}

/** Exported or not, as the switch has it; who has the device is asked about first. */
export async function setExport(api, device, input) {
  const on = input.checked;
  const sure = on || !device.client || await ask({
    title: `Withdraw ${nameOf(device)}?`, action: "Withdraw", danger: true,
    text: `${device.client} has it, and loses it at once.`,
  });
  const done = sure && await api.act(() => api.post(pathOf(device.busid, "export"), { on }));
  if (!done) input.checked = !on;
}

function aboutOf(device) {
  const what = device.root ? [device.vid_pid] : [device.manufacturer, device.vid_pid, device.hub ? null : device.class_name];
  return [device.busid, ...what, device.speed_name, device.hub && device.ports ? counted(device.ports, "port") : null].filter(Boolean).join(" · ");
}

function flow({ in: into, out, errors }, device) {
  if (!device.exported) return "";
  const parts = [];
  if (into || out || device.client) parts.push(`in ${rate(into)}\nout ${rate(out)}`);
  const failed = errors ?? device.errors;
  if (failed) parts.push(counted(failed, "error"));
  return parts.join("\n");
}

function live(rows, figures) {
  for (const [busid, li] of rows) li.live(figures && figures.devices && figures.devices[busid]);
}
