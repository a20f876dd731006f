// The URBs of a running capture, while they happen: pause, filter, and one of them in full.

import { facts, form } from "./controls.js";
import { badge, button, el, fill, icon, text } from "./dom.js";
import { bytes, count } from "./format.js";
import { longList } from "./rows.js";

const KEPT = 20000;
const AGAIN_MS = 2000;
const PENDING = -115; // -EINPROGRESS: a submit has no status yet
const CLOCK = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });

/** As `14:05:12.123456`. */
function clock(seconds) {
  const micros = Math.round((seconds % 1) * 1e6);
  return `${CLOCK.format(new Date(Math.floor(seconds) * 1000))}.${String(Math.min(micros, 999999)).padStart(6, "0")}`;
}

const spaced = (hex) => (hex || "").replace(/(..)(?=.)/g, "$1 ");
const endpoint = (row) => `0x${row.endpoint.toString(16).padStart(2, "0")} ${row.direction}`;
const direction = (row) => (row.event === "S" ? "→ submit" : "← complete");
const isBad = (row) => row.event === "C" && row.status !== 0 && row.status !== PENDING;

function status(row) {
  if (row.event === "S") return "";
  return row.status_name;
}

const COLUMNS = [
  { label: "No.", number: true, text: (row) => String(row.number) },
  { label: "Time", text: (row) => clock(row.time) },
  { label: "Device", text: (row) => row.device },
  { label: "Endpoint", text: endpoint },
  { label: "Type", text: (row) => row.type },
  { label: "Event", text: direction, tone: (row) => (row.event === "S" ? "quiet" : "") },
  { label: "Status", text: status, tone: (row) => (isBad(row) ? "bad" : "") },
  { label: "Length", number: true, text: (row) => String(row.length) },
  { label: "First bytes", text: (row) => spaced(row.data) || (row.setup ? `setup ${spaced(row.setup)}` : "") },
];

export function renderLive(container, api, id) {
  const path = `/captures/${encodeURIComponent(id)}`;
  let socket = null;
  let timer = 0;
  let ended = false;
  let paused = false;
  let missed = 0;
  let wanted = "";
  let pending = false;

  const heading = el("h2", {}, "Capture");
  const state = el("span", { role: "status", "data-test": "live-state" }, badge("connecting", "warn"));
  const counts = el("span", { class: "hint", "data-test": "live-counts" });
  const detail = el("div", { class: "card detail", "aria-live": "polite", hidden: true, "data-test": "urb" });
  const list = longList({ label: "URBs of this capture", columns: COLUMNS, limit: KEPT, chosen: (row) => showDetail(detail, row) });
  const filter = el("input", {
    type: "text", class: "mono", placeholder: "Filter, such as bulk and in", "aria-label": "Filter", autocomplete: "off",
    spellcheck: "false", autocapitalize: "none", "data-test": "live-filter",
  });
  const problem = el("p", { class: "problem", role: "alert", hidden: true });
  const pause = button("Pause", () => setPaused(!paused), { "aria-pressed": "false", "data-test": "pause" });
  const newest = button("Newest", () => list.newest(), { icon: "down", hidden: true });
  list.following((follows) => {
    newest.hidden = follows;
  });
  const filterForm = form(api, async () => {
    wanted = filter.value.trim();
    pending = true;
    problem.hidden = true;
    send({ filter: wanted });
  }, filter, el("button", { type: "submit" }, "Apply"));
  filterForm.className = "live-filter";
  container.append(el("section", { class: "card live" },
    el("a", { class: "back", href: "#/captures" }, icon("back"), "All captures"),
    el("div", { class: "bar" }, heading, state, el("span", { class: "grow" }), pause, newest),
    filterForm, problem, list.element, counts), detail);

  const send = (message) => socket && socket.readyState === WebSocket.OPEN && socket.send(JSON.stringify(message));
  const showState = (word, tone) => fill(state, badge(word, tone));

  function setPaused(now) {
    paused = now;
    pause.setAttribute("aria-pressed", String(now));
    pause.lastChild.data = now ? "Go on" : "Pause";
    send({ pause: now });
    if (socket) showState(now ? "paused" : "live", now ? "warn" : "good");
  }

  function count_() {
    text(counts, `${count(list.length)} rows${list.length >= KEPT ? " (the newest)" : ""}${missed ? `, ${count(missed)} left out: they came faster than a page can show; the capture itself has them` : ""}`);
  }

  function take(message) {
    if (message.error) {
      problem.textContent = message.error;
      problem.hidden = false;
      pending = false;
      return;
    }
    if (message.filter !== undefined) {
      if (pending) list.clear();
      pending = false;
    }
    if (message.ended) look();
    missed += message.missed || 0;
    if (message.rows && message.rows.length) list.add(message.rows);
    count_();
  }

  function connect() {
    clearTimeout(timer);
    const made = new WebSocket(api.socket(`${path}/live${wanted ? `?${new URLSearchParams({ filter: wanted })}` : ""}`));
    socket = made;
    made.onopen = () => {
      showState(paused ? "paused" : "live", paused ? "warn" : "good");
      if (paused) send({ pause: true });
    };
    made.onmessage = (message) => take(JSON.parse(message.data));
    made.onclose = () => made === socket && closed();
  }

  async function closed() {
    socket = null;
    if (ended) return;
    showState("not connected", "warn");
    await look();
    if (!ended) timer = setTimeout(connect, AGAIN_MS);
  }

  /** What the capture is called, and whether it still runs. */
  async function look() {
    try {
      const { captures } = await api.get("/captures");
      const capture = captures.find((one) => one.id === id);
      text(heading, capture ? capture.name : "This capture does not exist any more");
      if (!capture || capture.state !== "running") finish(capture);
    } catch (error) {
      if (error.status) api.failed(error);
    }
  }

  function finish(capture) {
    ended = true;
    clearTimeout(timer);
    const open = socket;
    socket = null;
    if (open) open.close();
    showState(capture ? capture.state : "deleted", capture && capture.state === "stopped" ? "" : "bad");
    pause.hidden = true;
    if (capture && capture.error) {
      problem.textContent = capture.error;
      problem.hidden = false;
    }
    if (capture) text(counts, `${counts.textContent || "0 rows"} · ${bytes(capture.bytes)} in ${count(capture.packets)} packets`);
  }

  const stops = [api.on("changed", () => ended || look())];
  count_();
  look().then(() => ended || connect());
  return () => {
    ended = true;
    clearTimeout(timer);
    stops.forEach((stop) => stop());
    list.end();
    if (socket) socket.close();
  };
}

function showDetail(detail, row) {
  detail.hidden = false;
  fill(detail, el("h3", {}, `URB ${row.number}`), facts([
    ["Time", clock(row.time)],
    ["Device", row.device],
    row.client && ["Client", row.client],
    ["Endpoint", `${endpoint(row)}, ${row.type}`],
    ["Event", row.event === "S" ? "submit: the host asks" : "complete: the device has answered"],
    row.event === "C" && ["Status", `${status(row)}, ${row.status}`],
    ["Length", `${count(row.length)} bytes`],
    row.setup && ["Setup", el("code", {}, spaced(row.setup))],
    row.data && ["First bytes", el("code", { class: "bytes" }, dump(row.data))],
  ].filter(Boolean)));
}

/** Bytes in lines of 16, with the characters that they are. */
function dump(hex) {
  const lines = [];
  for (let at = 0; at < hex.length; at += 32) {
    const part = hex.slice(at, at + 32);
    const codes = part.match(/../g).map((two) => parseInt(two, 16));
    const letters = codes.map((code) => (code >= 32 && code < 127 ? String.fromCharCode(code) : "·")).join("");
    lines.push(`${(at / 2).toString(16).padStart(4, "0")}  ${spaced(part).padEnd(47)}  ${letters}`);
  }
  return lines.join("\n");
}
