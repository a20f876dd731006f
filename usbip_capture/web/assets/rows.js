// A list of very many rows, of which only those in sight are elements: it stays as fast with 20 000 as with 20.

import { el } from "./dom.js";

const ROW_HEIGHT = 24; // as forms.css has it
const SPARE = 6;

/**
 * columns: [{label, text(row), tone(row), number}]. limit: rows that are kept. chosen(row): called for the row that is
 * clicked, or gone to by the arrow keys. Gives {element, add(rows), clear(), newest(), following(listener), length}.
 */
export function longList({ label, columns, limit, chosen }) {
  let rows = [];
  let gone = 0; // rows that were there before the first one
  let selected = -1; // counted from the first row ever
  let follows = true;
  let asked = 0;
  let scrolled = 0; // where it was scrolled to, the last time
  let listener = () => {};
  const pool = [];
  const body = el("div", { class: "long-rows", role: "rowgroup" });
  const cells = (role, words) => columns.map((column, i) => el("span", { role, class: column.number ? "number" : null }, words && words(column, i)));
  const head = el("div", { class: "long-head", role: "rowgroup" },
    el("div", { class: "long-row", role: "row" }, cells("columnheader", (column) => column.label)));
  const inner = el("div", { class: "long-table", role: "table", "aria-label": label }, head, body);
  const element = el("div", { class: "long", tabindex: 0, role: "region", "aria-label": label, "data-test": "long" }, inner);

  const made = () => {
    const row = el("div", { class: "long-row", role: "row" }, cells("cell"));
    pool.push(row);
    body.append(row);
    return row;
  };

  function draw() {
    asked = 0;
    body.style.height = `${rows.length * ROW_HEIGHT}px`;
    if (follows) element.scrollTop = element.scrollHeight;
    const first = Math.max(0, Math.floor(element.scrollTop / ROW_HEIGHT) - SPARE);
    const shown = Math.min(rows.length - first, Math.ceil(element.clientHeight / ROW_HEIGHT) + 2 * SPARE);
    for (let i = 0; i < Math.max(shown, pool.length); i += 1) {
      const line = pool[i] || made();
      line.hidden = i >= shown;
      if (i < shown) put(line, first + i);
    }
    inner.setAttribute("aria-rowcount", rows.length + 1);
  }

  function put(line, at) {
    const row = rows[at];
    line.style.top = `${at * ROW_HEIGHT}px`;
    line.classList.toggle("now", at + gone === selected);
    if (line.row === row) return;
    line.row = row;
    line.setAttribute("aria-rowindex", at + gone + 2);
    columns.forEach((column, i) => {
      const cell = line.children[i];
      cell.firstChild ? (cell.firstChild.data = column.text(row)) : cell.append(column.text(row));
      const tone = column.tone ? column.tone(row) : "";
      cell.className = `${column.number ? "number " : ""}${tone}`;
    });
  }

  const soon = () => {
    if (!asked) asked = requestAnimationFrame(draw);
  };

  function follow(now) {
    if (follows !== now) {
      follows = now;
      listener(now);
    }
    soon();
  }

  function choose(at) {
    if (at < 0 || at >= rows.length) return;
    selected = at + gone;
    follow(at === rows.length - 1 && follows);
    reveal(at);
    chosen(rows[at]);
  }

  function reveal(at) {
    const top = at * ROW_HEIGHT;
    const height = element.clientHeight - 2 * ROW_HEIGHT;
    if (top < element.scrollTop) element.scrollTop = top;
    else if (top > element.scrollTop + height) element.scrollTop = top - height;
  }

  element.addEventListener("scroll", () => {
    const up = element.scrollTop < scrolled;
    scrolled = element.scrollTop;
    // Where the window has become smaller, the end is out of sight, though nobody has scrolled.
    follow(element.scrollTop + element.clientHeight >= element.scrollHeight - ROW_HEIGHT || (follows && !up));
  }, { passive: true });
  body.addEventListener("click", (event) => {
    const line = event.target.closest(".long-row");
    if (line) choose(rows.indexOf(line.row));
  });
  element.addEventListener("keydown", (event) => {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (!step || event.ctrlKey || event.altKey) return;
    event.preventDefault();
    choose(selected < gone ? rows.length - 1 : Math.min(rows.length - 1, Math.max(0, selected - gone + step)));
  });
  const resized = new ResizeObserver(() => {
    if (!follows && selected >= gone) reveal(selected - gone);
    soon();
  });
  resized.observe(element);

  return {
    element,
    get length() {
      return rows.length;
    },
    add(more) {
      rows.push(...more);
      const over = rows.length - limit;
      if (over > 0) {
        rows = rows.slice(over);
        gone += over;
        if (!follows) element.scrollTop = Math.max(0, element.scrollTop - over * ROW_HEIGHT);
      }
      soon();
    },
    clear() {
      gone += rows.length;
      rows = [];
      follow(true);
    },
    newest: () => follow(true),
    following(call) {
      listener = call;
    },
    end() {
      resized.disconnect();
      cancelAnimationFrame(asked);
    },
  };
}
