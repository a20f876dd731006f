// Elements made by code. Text is only ever set as text: what devices and strangers send is never markup.

const PROPERTIES = new Set(["value", "checked", "disabled", "hidden", "selected", "open", "indeterminate"]);
const SVG = "http://www.w3.org/2000/svg";

/** An element. props: attributes; `onclick` and so on: listeners; `class`; null and false are left out. */
export function el(tag, props = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(props || {})) set(element, name, value);
  // A select has its value only once it has its options.
  append(element, children);
  if (props && tag === "select" && props.value !== undefined) element.value = props.value;
  return element;
}

function set(element, name, value) {
  if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
  else if (PROPERTIES.has(name)) element[name] = value;
  else if (value === true) element.setAttribute(name, "");
  else if (value !== false && value !== null && value !== undefined) element.setAttribute(name, value);
}

function append(element, children) {
  for (const child of children.flat(Infinity)) {
    if (child !== null && child !== undefined && child !== false) element.append(child);
  }
}

/** Put these in place of what is in `element`. */
export function fill(element, ...children) {
  element.replaceChildren();
  append(element, children);
  return element;
}

/** Set the text, if it is another one. */
export function text(element, value) {
  if (element.textContent !== value) element.textContent = value;
}

/** Set an attribute, if it is another one. */
export function attribute(element, name, value) {
  if (element.getAttribute(name) !== value) element.setAttribute(name, value);
}

/** Keep the children of `parent` as `rows` are: one for each key, made once, updated each time, in this order. */
export function keyed(parent, rows, key, make, update = () => {}) {
  const before = parent.rowsByKey || new Map();
  const now = new Map();
  let place = parent.firstChild;
  for (const row of rows) {
    const name = key(row);
    const element = before.get(name) || make(row);
    before.delete(name);
    now.set(name, element);
    update(element, row);
    if (element === place) place = place.nextSibling;
    else parent.insertBefore(element, place);
  }
  for (const element of before.values()) element.remove();
  parent.rowsByKey = now;
}

/**
 * A table that becomes cards on a phone. columns: [{label, cell, number, wide}], label "" for buttons; cell(row, td)
 * returns text or a node, or fills `td` itself and returns nothing. Gives {element, update(rows)}.
 */
export function table({ caption, columns, key, empty = "Nothing here.", test = null }) {
  const body = el("tbody", { role: "rowgroup" });
  const none = el("p", { class: "empty" }, empty);
  const kind = (column) => [column.number ? "number" : "", column.wide ? "wide" : ""].filter(Boolean).join(" ") || null;
  const head = columns.map((column) => el("th", { role: "columnheader", scope: "col", class: kind(column) },
    column.label || el("span", { class: "unseen" }, "Actions")));
  const whole = el("table", { role: "table", class: "stack", "data-test": test },
    el("caption", { class: "unseen" }, caption),
    el("thead", { role: "rowgroup" }, el("tr", { role: "row" }, head)), body);
  const make = () => el("tr", { role: "row" },
    columns.map((column) => el("td", { role: "cell", "data-label": column.label, class: kind(column) })));
  const update = (tr, row) => columns.forEach((column, i) => {
    const content = column.cell(row, tr.children[i]);
    if (content instanceof Node) fill(tr.children[i], content);
    else if (content !== undefined) text(tr.children[i], String(content ?? ""));
  });
  whole.hidden = none.hidden = true; // until it is known which of them it is
  const element = el("div", { class: "table" }, whole, none);
  return {
    element,
    update(rows) {
      keyed(body, rows, key, make, update);
      whole.hidden = !rows.length;
      none.hidden = rows.length > 0;
    },
  };
}

/** A button. kind: "primary", "danger", "quiet" or nothing. While what `act` returns is pending it is disabled. */
export function button(label, act, { kind = null, icon: name = null, ...props } = {}) {
  const made = el("button", { type: "button", class: kind, ...props }, name && icon(name), label);
  made.addEventListener("click", async (event) => {
    event.stopPropagation();
    if (made.getAttribute("aria-disabled") === "true") return;
    made.setAttribute("aria-disabled", "true"); // not `disabled`: the focus would be lost
    try {
      await act(event);
    } finally {
      made.removeAttribute("aria-disabled");
    }
  });
  return made;
}

/** A small coloured word. tone: good, warn, bad, info or nothing. */
export const badge = (word, tone = "") => el("span", { class: `badge ${tone}` }, word);

// Drawn on 24 x 24, with strokes only.
const ICONS = {
  overview: "M4 13h6V4H4zM14 20h6V11h-6zM14 7h6V4h-6zM4 20h6v-3H4z",
  devices: "M12 21V5M12 3l-2.5 3.5h5zM12 16l-5-3V9.500M12 18.500l5-3V12M7 9.500a1.6 1.6 0 1 1 .01 0M15.5 9h3v3h-3z",
  clients: "M3 5h13v9H3zM7 18h5M9.5 14v4M19 9h2v9h-5",
  captures: "M12 12m-8.5 0a8.5 8.5 0 1 0 17 0a8.5 8.5 0 1 0-17 0M12 12m-3 0a3 3 0 1 0 6 0a3 3 0 1 0-6 0",
  events: "M9 6h11M9 12h11M9 18h11M4 6h.01M4 12h.01M4 18h.01",
  settings: "M4 7h9M17 7h3M15 5v4M4 12h3M11 12h9M9 10v4M4 17h9M17 17h3M15 15v4",
  access: "M12 3l7 3v5c0 5-3 8-7 10c-4-2-7-5-7-10V6zM9 11.500l2.2 2.200L15.5 9.5",
  tokens: "M8 15m-4.5 0a4.5 4.5 0 1 0 9 0a4.5 4.5 0 1 0-9 0M11.2 11.800L20 3M16.5 6.500l3 3",
  system: "M7 7h10v10H7zM10 3v4M14 3v4M10 17v4M14 17v4M3 10h4M3 14h4M17 10h4M17 14h4",
  disk: "M5 4h14v16H5zM12 11m-4 0a4 4 0 1 0 8 0a4 4 0 1 0-8 0M12 11h.01M8 18h3",
  keyboard: "M3 7h18v11H3zM6.5 10.500h.01M10 10.500h.01M14 10.500h.01M17.5 10.500h.01M8 14.500h8",
  mouse: "M12 3a5.5 5.5 0 0 1 5.5 5.500v7a5.5 5.5 0 0 1-11 0v-7A5.5 5.5 0 0 1 12 3M12 7v4",
  audio: "M4 9.500v5h3.500L12 18.500v-13L7.5 9.500zM15.5 9a4.2 4.2 0 0 1 0 6M18 6.500a7.8 7.8 0 0 1 0 11",
  video: "M3 7h12v10H3zM15 11l6-3.500v9L15 13",
  serial: "M3.5 8h17l-2 8h-13zM7.5 11h.01M10.5 11h.01M13.5 11h.01M16.5 11h.01M9 13.500h.01M12 13.500h.01M15 13.500h.01",
  network: "M9 4h6v5H9zM4 16h5v4H4zM15 16h5v4h-5zM12 9v4M6.5 16v-3h11v3",
  printer: "M7 9V4h10v5M7 17H4V9h16v8h-3M7 14h10v6H7z",
  hub: "M4 9h16v6H4zM7.5 12h.01M11 12h.01M14.5 12h2.500M12 9V5M8 15v3M16 15v3",
  vendor: "M7 7h10v10H7zM12 3v4M12 17v4M3 12h4M17 12h4",
  other: "M8 4h8v5H8zM6 9h12v7a4 4 0 0 1-4 4h-4a4 4 0 0 1-4-4zM11 6.500h.01M13.5 6.500h.01",
  empty: "M7 8h10v8H7z",
  menu: "M4 7h16M4 12h16M4 17h16",
  close: "M6 6l12 12M18 6L6 18",
  theme: "M12 3.500v17M12 3.500a8.5 8.5 0 1 1 0 17a8.5 8.5 0 0 1 0-17M12 7l6-2M12 12h8.500M12 17l6 2",
  leave: "M14 4H5v16h9M10 12h11M17.5 8.500L21 12l-3.5 3.5",
  back: "M15 5l-7 7l7 7",
  up: "M12 19V5M6 11l6-6l6 6",
  down: "M12 5v14M6 13l6 6l6-6",
};

/** A picture, which a screen reader leaves out: a word is beside it. */
export function icon(name) {
  const picture = document.createElementNS(SVG, "svg");
  picture.setAttribute("viewBox", "0 0 24 24");
  picture.setAttribute("class", "icon");
  picture.setAttribute("aria-hidden", "true");
  const path = document.createElementNS(SVG, "path");
  path.setAttribute("d", ICONS[name] || ICONS.other);
  picture.append(path);
  return picture;
}

/** Ask before something is done: true if it is to be. */
export function ask({ title, text: body, action, danger = false }) {
  return new Promise((resolve) => {
    const dialog = el("dialog", { "aria-labelledby": "ask-title", "data-test": "ask" },
      el("form", { method: "dialog" },
        el("h2", { id: "ask-title" }, title),
        String(body || "").split("\n").map((line) => el("p", {}, line)),
        el("div", { class: "bar end" },
          el("button", { value: "" , "data-test": "ask-no" }, "Cancel"),
          el("button", { value: "yes", class: danger ? "danger" : "primary", "data-test": "ask-yes" }, action))));
    dialog.addEventListener("close", () => {
      dialog.remove();
      resolve(dialog.returnValue === "yes");
    });
    document.body.append(dialog);
    dialog.showModal();
  });
}

/** A short message at the page's edge; tone "bad" for what failed. */
export function toast(message, tone = "good") {
  const close = () => made.remove();
  const made = el("div", { class: `toast ${tone}`, role: tone === "bad" ? "alert" : "status", "data-test": "toast" },
    el("span", {}, message),
    el("button", { type: "button", class: "icon-only", "aria-label": "Close this message", onclick: close }, icon("close")));
  const all = document.getElementById("toasts");
  all.append(made);
  while (all.children.length > 4) all.firstChild.remove();
  setTimeout(close, tone === "bad" ? 15000 : 6000);
}
