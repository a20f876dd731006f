// What has happened: all that the server remembers, with a filter. Only the rows in view are made.

import { button, el, fill, text } from "../dom.js";
import { clientOf, deviceOf, newestFirst, SEVERITIES, sentenceOf, severityBadge, showEvent, textOf } from "../event_rows.js";
import { count, counted, moment, time } from "../format.js";

export const title = "Events";

const MOST = 10000;
const CELLS = ["Time", "Severity", "Kind", "Client", "Device", "Text"];
const narrow = matchMedia("(max-width: 760px)");
const MARGIN = 12; // rows made beyond what is in view

export async function render(container, api) {
  const filter = makeFilter();
  const list = makeList();
  const summary = el("span", { class: "quiet", role: "status" });
  fill(api.actions, button("Save as NDJSON", () => save(api), { icon: "down", "data-test": "save" }));
  fill(container, el("section", { class: "card events-card" }, el("div", { class: "bar" }, filter.element, summary), list.element));
  let events = [];
  let pending = false;
  const draw = () => {
    pending = false;
    const shown = events.filter(filter.matches());
    list.show(shown);
    text(summary, shown.length === events.length ? counted(events.length, "event") : `${count(shown.length)} of ${counted(events.length, "event")}`);
  };
  const soon = () => {
    if (!pending) requestAnimationFrame(draw);
    pending = true;
  };
  events = newestFirst((await api.get("/events", { last: MOST })).events);
  filter.kinds(events);
  draw();
  prepare([...events]);
  filter.element.addEventListener("input", soon);
  const stream = api.events(events.length ? events[0].number : 0, (event) => {
    events.unshift(event);
    if (events.length > MOST) events.pop();
    filter.kinds([event]);
    soon();
  });
  return () => {
    stream.close();
    list.destroy();
  };
}

function makeFilter() {
  const search = el("input", { type: "search", placeholder: "Search: address, port, text", "aria-label": "Search events", "data-test": "search" });
  const severity = el("select", { "aria-label": "Severity", "data-test": "severity" },
    el("option", { value: "" }, "Any severity"), SEVERITIES.slice(0, -1).map((name) => el("option", { value: name }, name === "emergency" ? name : `${name} and worse`)));
  const kind = el("select", { "aria-label": "Kind", "data-test": "kind" }, el("option", { value: "" }, "Any kind"));
  const known = new Set();
  return {
    element: el("div", { class: "bar filter", role: "search" }, search, severity, kind),
    kinds(events) {
      const before = known.size;
      for (const event of events) known.add(event.kind);
      if (known.size === before) return;
      const chosen = kind.value;
      fill(kind, el("option", { value: "" }, "Any kind"), [...known].sort().map((name) => el("option", { value: name }, name)));
      kind.value = chosen;
    },
    matches() {
      const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
      const most = severity.value ? SEVERITIES.indexOf(severity.value) : SEVERITIES.length;
      return (event) => SEVERITIES.indexOf(event.severity) <= most && (!kind.value || event.kind === kind.value)
        && (!words.length || matchesWords(event, words));
    },
  };
}

function matchesWords(event, words) {
  const all = wordsOf(event);
  return words.every((word) => all.includes(word));
}

const wordsOf = (event) =>
  (event.words ||= [event.kind, event.severity, clientOf(event), deviceOf(event), textOf(event)].join(" ").toLowerCase());

/** Make what is searched while there is nothing else to do, so that the first letter typed is not slow. */
function prepare(events) {
  let next = 0;
  const some = () => {
    const end = performance.now() + 3;
    while (next < events.length && performance.now() < end) wordsOf(events[next++]);
    if (next < events.length) setTimeout(some, 10);
  };
  some();
}

/** Rows of one height in a box that scrolls; those in view are filled from `shown`. */
function makeList() {
  const rows = el("div", { class: "rows", role: "rowgroup" });
  const box = el("div", { class: "event-list", tabindex: "0", role: "table", "aria-label": "Events, the newest first", "data-test": "events" },
    el("div", { class: "head", role: "row" }, CELLS.map((name) => el("span", { role: "columnheader" }, name))), rows);
  const none = el("p", { class: "empty", hidden: true }, "No event matches.");
  let shown = [];
  let pending = false;
  const made = [];
  const addRow = () => {
    made.push(makeRow());
    rows.append(made.at(-1).element);
  };
  const draw = () => {
    pending = false;
    if (!made.length) addRow();
    made[0].element.hidden = false; // it is measured
    const height = made[0].element.offsetHeight || 32;
    const first = Math.max(0, Math.floor(box.scrollTop / height) - MARGIN);
    const number = Math.min(shown.length - first, Math.ceil(box.clientHeight / height) + 2 * MARGIN);
    while (made.length < number) addRow();
    rows.style.setProperty("height", `${shown.length * height}px`);
    made.forEach((row, i) => {
      row.element.hidden = i >= number;
      if (i < number) row.show(shown[first + i], first + i, height);
    });
  };
  const soon = () => {
    if (!pending) requestAnimationFrame(draw);
    pending = true;
  };
  box.addEventListener("scroll", soon, { passive: true });
  const resized = new ResizeObserver(soon);
  resized.observe(box);
  return {
    element: el("div", {}, box, none),
    destroy: () => resized.disconnect(),
    show(events) {
      shown = events;
      box.setAttribute("aria-rowcount", shown.length + 1);
      none.hidden = shown.length > 0;
      draw();
    },
  };
}

function makeRow() {
  let event = null;
  let was = false;
  const cells = CELLS.map((name) => el("span", { role: "cell", class: `of-${name.toLowerCase()}` }));
  const open = el("button", { type: "button", class: "quiet inline", onclick: () => showEvent(event) });
  cells[2].append(open);
  const element = el("div", { class: "row", role: "row" }, cells);
  return {
    element,
    show(given, index, height) {
      element.style.setProperty("transform", `translateY(${index * height}px)`);
      element.setAttribute("aria-rowindex", index + 2);
      if (given === event && was === narrow.matches) return;
      was = narrow.matches;
      event = given;
      text(cells[0], time(event.time));
      cells[0].title = moment(event.time);
      if (cells[1].textContent !== event.severity) fill(cells[1], severityBadge(event));
      text(open, event.kind);
      const texts = [clientOf(event), deviceOf(event), textOf(event)];
      if (narrow.matches) texts[2] = sentenceOf(event); // the others are not shown there
      texts.forEach((value, i) => {
        text(cells[i + 3], value);
        cells[i + 3].title = value;
      });
    },
  };
}

async function save(api) {
  const answer = await fetch(api.file(`/events?last=${MOST}`), { headers: { Accept: "application/x-ndjson" } });
  const link = el("a", { href: URL.createObjectURL(await answer.blob()), download: "events.ndjson" });
  link.click();
  URL.revokeObjectURL(link.href);
}
