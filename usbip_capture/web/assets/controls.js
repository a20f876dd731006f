// What pages with forms are made of: fields with their hints, text to copy, questions that are asked twice.

import { ask, button, el, toast } from "./dom.js";

let fields = 0;

/** A label, a control and what it means, tied together for screen readers. Gives the whole; `control` keeps its own id. */
export function field(label, control, hint = "", { wide = false, mono = false } = {}) {
  const id = control.id || `field-${(fields += 1)}`;
  control.id = id;
  const parts = [el("label", { for: id, class: mono ? "mono" : null }, label), control];
  if (hint) {
    parts.push(el("small", { id: `${id}-hint`, class: "hint" }, hint));
    control.setAttribute("aria-describedby", `${id}-hint`);
  }
  return el("div", { class: wide ? "field wide" : "field" }, parts);
}

/** A select of [[value, words]…]. */
export function choice(options, value, props = {}) {
  return el("select", { value, ...props }, options.map(([name, words]) => el("option", { value: name }, words)));
}

/** A form, whose `act` is called instead of sending it, one at a time; a sentence that `act` throws stays in it. */
export function form(api, act, ...children) {
  const problem = el("p", { class: "problem", role: "alert", hidden: true });
  const made = el("form", { class: "form", novalidate: true }, children, problem);
  let busy = false;
  made.addEventListener("submit", async (event) => {
    event.preventDefault();
    if (busy) return;
    busy = true;
    problem.hidden = true;
    try {
      const answer = await act();
      if (answer && answer.outcome) toast(answer.outcome);
    } catch (error) {
      if (error.status === undefined) throw error;
      if (error.status !== 401) {
        problem.textContent = error.message;
        problem.hidden = false;
      }
    } finally {
      busy = false;
    }
  });
  return made;
}

/** What a form throws for what it does not send: the sentence is shown in it. */
export function invalid(sentence) {
  return Object.assign(new Error(sentence), { status: 400 });
}

/** The button that sends a form; without the role it is for, it cannot be used, and says why. */
export function submit(api, label, role, props = {}) {
  return el("button", { type: "submit", class: "primary", ...allowed(api, role), ...props }, label);
}

/** Properties of a control that needs a role. */
export function allowed(api, role) {
  return api.may(role) ? {} : { disabled: true, title: `This needs the role ${role}` };
}

/** Into the clipboard; where the browser forbids that (no TLS, another machine), selected in a dialog. */
export async function copy(words) {
  try {
    await navigator.clipboard.writeText(words);
    toast("Copied");
  } catch {
    const area = el("textarea", { readonly: true, rows: 4, class: "mono", "aria-label": "Text to copy" });
    area.value = words;
    const dialog = el("dialog", { "aria-label": "Copy by hand" },
      el("form", { method: "dialog" },
        el("p", {}, "The browser does not let this page copy: press Ctrl+C, or ⌘C."), area,
        el("div", { class: "bar end" }, el("button", { class: "primary" }, "Close"))));
    dialog.addEventListener("close", () => dialog.remove());
    document.body.append(dialog);
    dialog.showModal();
    area.select();
  }
}

/** A command or a secret, with a button beside it that copies it. Gives {element, set(words)}. */
export function copyable(words, label, test = null) {
  let shown = words;
  const code = el("code", { "data-test": test }, words);
  return {
    element: el("div", { class: "copyable" }, code, button("Copy", () => copy(shown), { "aria-label": `Copy ${label}` })),
    set(other) {
      shown = other;
      code.textContent = other;
    },
  };
}

/**
 * Something that cannot be undone: the server says what it does and gives a word for it, and two questions are asked.
 * path: of both the question (GET) and the deed (POST).
 */
export async function askTwice(api, path, { title, action, last }) {
  const asked = await api.act(() => api.get(path));
  if (!asked) return null;
  if (!(await ask({ title, text: asked.text || "", action: "Go on" }))) return null;
  if (!(await ask({ title: last, text: "This is the last question.", action, danger: true }))) return null;
  return api.act(() => api.post(path, { confirm: asked.confirm }));
}

/** A card: a heading, and what is under it. */
export function card(title, ...children) {
  return el("section", { class: "card" }, title && el("h2", {}, title), children);
}

/** Terms and what they are: [[term, text or node]…]. */
export function facts(pairs) {
  return el("dl", { class: "facts" }, pairs.map(([term, value]) => [el("dt", {}, term), el("dd", {}, value)]));
}
