// Captures: start one, what there is, and what a running one sees while it sees it.

import { allowed, card, choice, copy, copyable, field, form, invalid, submit } from "../controls.js";
import { ask, badge, button, el, fill, table, text } from "../dom.js";
import { bytes, count, counted, span, time } from "../format.js";
import { renderLive } from "../capture_live.js";
import { nameOf } from "../device_rows.js";

export const title = "Captures";

const TONES = { running: "good", stopped: "", failed: "bad" };
const EXAMPLES = ["bulk and in", "not control", "error", "ep == 0x81", "class == hid and length > 0", "bulk or descriptors"];
const MEGABYTE = 1e6;

/** id: of the capture to look into; without one, all are listed. */
export function render(container, api, [id] = []) {
  return id ? renderLive(container, api, id) : renderList(container, api);
}

async function renderList(container, api) {
  let captures = [];
  const starting = startForm(api, refresh);
  const streaming = streamCard(api);
  const shown = captureTable(api, refresh);
  container.append(
    card("New capture", starting.element),
    card("Captures", shown.element),
    streaming.element);

  const show = () => shown.update(captures);

  async function refresh() {
    const [held, plugged] = await Promise.all([api.get("/captures"), api.get("/devices")]);
    captures = held.captures;
    const devices = plugged.devices.filter((device) => !device.hub);
    starting.devices(devices);
    streaming.devices(devices);
    show();
  }

  const stops = [
    await api.follow(refresh),
    api.on("figures", (figures) => {
      for (const capture of captures) Object.assign(capture, (figures.captures || {})[capture.id]);
      show();
    }),
  ];
  return () => stops.forEach((stop) => stop());
}

function startForm(api, refresh) {
  const named = el("input", { type: "text", maxlength: 64, placeholder: "made from the time", autocomplete: "off" });
  const filter = el("input", {
    type: "text", class: "mono", placeholder: "everything", list: "filter-examples", autocomplete: "off",
    spellcheck: "false", autocapitalize: "none", "data-test": "filter",
  });
  const limit = el("input", { type: "number", min: 0, step: "any", placeholder: "none", "data-test": "limit" });
  const ring = el("input", { type: "number", min: 0, step: 1, placeholder: "one", "data-test": "ring" });
  const picker = devicePicker();
  const send = () => {
    if (!picker.complete()) throw invalid("Choose a device, or all devices.");
    if (!limit.validity.valid) throw invalid("The size limit is a number of MB, such as 10; empty for none.");
    if (!ring.validity.valid) throw invalid("The ring is a whole number of files, such as 5; empty for one file.");
    if (Number(ring.value) > 1 && !Number(limit.value)) throw invalid("A ring needs a size limit, for each of its files.");
    return api.post("/captures", {
      devices: picker.chosen(), filter: filter.value.trim(), name: named.value.trim(),
      max_bytes: Math.round(Number(limit.value) * MEGABYTE), files: Number(ring.value),
    });
  };
  const element = form(api, async () => {
    const answer = await send();
    named.value = "";
    await refresh();
    return answer;
  },
  picker.element,
  el("div", { class: "fields" },
    field("Name", named),
    field("Filter", filter, "In the language of capture filters, such as bulk and in; empty for everything."),
    field("Size limit (MB)", limit, "The capture ends when it is this long, unless it has a ring."),
    field("Ring of files", ring, "2 or more: goes on for ever, and keeps the newest so many files of that size.")),
  el("datalist", { id: "filter-examples" }, EXAMPLES.map((example) => el("option", { value: example }))),
  el("div", { class: "bar" }, submit(api, "Start capture", "operate", { "data-test": "start" })));
  return { element, devices: picker.devices };
}

/** Which devices: all, or those that are ticked. */
function devicePicker() {
  const all = el("input", { type: "checkbox", checked: true, "data-test": "all-devices" });
  const boxes = el("div", { class: "ticks" });
  const ticked = new Set();
  const inputs = new Map();
  const follow = () => {
    boxes.hidden = all.checked;
  };
  all.addEventListener("change", follow);
  follow();
  const box = (device) => {
    const input = el("input", { type: "checkbox", value: device.busid, checked: ticked.has(device.busid) });
    input.addEventListener("change", () => ticked[input.checked ? "add" : "delete"](device.busid));
    inputs.set(device.busid, input);
    return el("label", { class: "tick" }, input,
      el("span", {}, el("b", { class: "mono" }, device.busid), ` ${nameOf(device)}`,
        !device.exported && el("small", { class: "hint" }, " not exported: nobody can use it")));
  };
  let known = "";
  return {
    element: el("fieldset", { class: "devices" }, el("legend", {}, "Devices"),
      el("label", { class: "tick" }, all, el("span", {}, "All devices, also those that are plugged in later")), boxes),
    chosen: () => (all.checked ? [] : [...ticked]),
    complete: () => all.checked || ticked.size > 0,
    devices(devices) {
      const now = JSON.stringify(devices.map((device) => [device.busid, nameOf(device), device.exported]));
      if (now === known) return;
      known = now;
      for (const busid of [...ticked]) if (!devices.some((device) => device.busid === busid)) ticked.delete(busid);
      inputs.clear();
      fill(boxes, devices.length ? devices.map(box) : el("p", { class: "empty" }, "No device is plugged in."));
    },
  };
}

function captureTable(api, refresh) {
  return table({
    caption: "Captures, the newest first",
    test: "captures",
    key: (capture) => capture.id,
    empty: "No captures yet. Start one above, or on the page of a device.",
    columns: [
      { label: "Name", wide: true, cell: nameCell },
      { label: "State", cell: (capture, td) => ifChanged(td, capture.state, () => badge(capture.state, TONES[capture.state])) },
      { label: "Started", cell: startedCell },
      { label: "Size", cell: sizeCell },
      { label: "Actions", number: true, cell: (capture, td) => actionsCell(api, refresh, capture, td) },
    ],
  });
}

/** Fill the cell only if what it shows is another thing: its buttons would lose the focus. */
function ifChanged(td, key, make) {
  if (td.dataset.shown === key) return;
  td.dataset.shown = key;
  fill(td, make());
}

function nameCell(capture, td) {
  const about = [capture.devices.length ? capture.devices.join(", ") : "all devices"];
  if (capture.filter) about.push(capture.filter);
  if (capture.by) about.push(`by ${capture.by}`);
  ifChanged(td, JSON.stringify([capture.name, about, capture.state, capture.error]), () => el("div", { class: "named" },
    el("b", {}, capture.name), el("small", { class: "hint" }, about.join(" · ")),
    capture.error && el("small", { class: capture.state === "failed" ? "problem" : "hint" }, capture.error)));
}

function sizeCell(capture, td) {
  if (!td.firstChild) td.append(el("div", { class: "named" }, el("span"), el("small")));
  const [size, about] = td.firstChild.children;
  text(size, bytes(capture.bytes) + (capture.files > 1 ? ` in ${capture.files} files` : ""));
  text(about, `${capture.packets === null ? "packets not counted" : counted(capture.packets, "packet")}${capture.dropped ? `, ${count(capture.dropped)} dropped` : ""}`);
  about.classList.toggle("problem", capture.dropped > 0);
}

function startedCell(capture, td) {
  if (!td.firstChild) td.append(el("div", { class: "named" }, el("span"), el("small")));
  const [at, long] = td.firstChild.children;
  text(at, time(capture.started));
  text(long, capture.ended ? `for ${span(capture.ended - capture.started)}` : "");
}

function actionsCell(api, refresh, capture, td) {
  ifChanged(td, capture.state, () => {
    const running = capture.state === "running";
    const path = `/captures/${encodeURIComponent(capture.id)}`;
    const acting = async (request) => {
      await api.act(request);
      await api.act(refresh);
    };
    const may = allowed(api, "operate");
    const stop = () => acting(() => api.post(`${path}/stop`));
    const remove = async () => {
      const body = running ? "It is running: it is stopped first, and its file is gone." : "Its file is gone then.";
      if (await ask({ title: `Delete the capture ${capture.name}?`, text: body, action: "Delete", danger: true })) {
        await acting(() => api.delete(path));
      }
    };
    const named = (words) => ({ "aria-label": `${words} ${capture.name}` });
    return el("div", { class: "actions" },
      running && button("Stop", stop, { ...named("Stop"), ...may, "data-test": "stop" }),
      running && el("a", { class: "button", href: `#/captures/${encodeURIComponent(capture.id)}`, ...named("Watch"), "data-test": "watch" }, "Watch"),
      el("a", { class: "button", href: api.file(`${path}/download`), download: "", ...named("Download"), "data-test": "download" }, "Download"),
      capture.command && button("Copy command", () => copy(capture.command), {
        ...named("Copy the command that opens"), title: capture.command, "data-test": "command",
      }),
      button("Delete", remove, { kind: "danger", ...named("Delete"), ...may, "data-test": "delete" }));
  });
}

/** The command that shows a device's transfers in Wireshark while they happen, for copying. */
function streamCard(api) {
  const chosen = choice([["", "All devices"]], "");
  const filter = el("input", {
    type: "text", class: "mono", placeholder: "everything", list: "filter-examples", autocomplete: "off", spellcheck: "false",
    autocapitalize: "none",
  });
  let known = "";
  const line = copyable("", "the command", "stream-command");
  const follow = () => line.set(streamCommand(api, chosen.value, filter.value.trim()));
  chosen.addEventListener("change", follow);
  filter.addEventListener("input", follow);
  follow();
  const element = card("Watch in Wireshark",
    el("p", { class: "hint" }, "This streams what happens into Wireshark on your machine, without a capture here. Put a token of yours in place of TOKEN."),
    el("div", { class: "fields" }, field("Device", chosen), field("Filter", filter)), line.element);
  return {
    element,
    devices(devices) {
      const now = JSON.stringify(devices.map((device) => [device.busid, nameOf(device)]));
      if (now === known) return;
      known = now;
      const before = chosen.value;
      fill(chosen, el("option", { value: "" }, "All devices"),
        devices.map((device) => el("option", { value: device.busid }, `${device.busid} ${nameOf(device)}`)));
      chosen.value = devices.some((device) => device.busid === before) ? before : "";
      follow();
    },
  };
}

/** For a shell of Linux and macOS: a word in single quotes is taken as it is. */
const quoted = (word) => `'${word.replaceAll("'", "'\\''")}'`;

function streamCommand(api, busid, filter) {
  const query = new URLSearchParams();
  if (busid) query.set("device", busid);
  if (filter) query.set("filter", filter);
  const address = `${location.origin}${api.file("/captures/stream")}${query.size ? `?${query}` : ""}`;
  return `curl -sN -H 'Authorization: Bearer TOKEN' ${quoted(address)} | wireshark -k -i -`;
}
