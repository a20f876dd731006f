// Settings: what config.toml has under [server], by the same words; restart, and back to defaults.

import { allowed, askTwice, card, choice } from "../controls.js";
import { button, el, fill, text } from "../dom.js";
import { counted } from "../format.js";

export const title = "Settings";

/** Groups as the server names them, in order. Another one, and none, is shown under the last heading. */
const GROUPS = [
  ["network", "Network", "Where it listens, and as what it is found."],
  ["dashboard", "Dashboard", "These pages."],
  ["exports", "Exports", "What is lent, and how."],
  ["access", "Access", "Who may have it, and how much. The page Access has the rules one by one, and a check."],
  ["recording", "Captures and reports", "What is written, and where."],
  ["hooks", "Hooks", "What is called when something happens."],
  ["", "More", ""],
];

export async function render(container, api) {
  const page = new SettingsPage(container, api);
  return api.follow(() => page.refresh());
}

class SettingsPage {
  constructor(container, api) {
    this.api = api;
    this.rows = new Map();
    this.shown = null;
    this.file = el("code");
    this.groups = el("div", { class: "groups" });
    this.note = el("p", { class: "notice", hidden: true, role: "status", "data-test": "needs-restart" });
    this.count = el("span", { role: "status" });
    this.problem = el("p", { class: "problem", role: "alert", hidden: true, "data-test": "problem" });
    this.save = el("div", { class: "save-bar", hidden: true, "data-test": "save-bar" }, this.count, this.problem,
      button("Discard", () => this.discard()),
      button("Save", () => this.send(), { kind: "primary", ...allowed(api, "administer"), "data-test": "save" }));
    api.actions.append(
      button("Back to defaults…", () => this.defaults(), { ...allowed(api, "administer"), "data-test": "defaults" }),
      button("Restart…", () => this.restart(), { ...allowed(api, "administer"), "data-test": "restart" }));
    container.append(el("p", { class: "quiet lead" }, "These are the values of [server] in ", this.file, ", by the same words. What the server's command line has comes before them."),
      this.note, this.groups, this.save);
  }

  async fetch() {
    this.show(await this.api.get("/settings"));
  }

  /** What somebody else has changed; what is being edited here stays, also if that began meanwhile. */
  async refresh() {
    const answer = await this.api.get("/settings");
    if (!this.edited().length && !same(answer, this.shown)) this.show(answer);
  }

  show(answer) {
    this.shown = answer;
    const { file, settings } = answer;
    text(this.file, file);
    this.rows.clear();
    const known = new Set(GROUPS.map(([group]) => group));
    const cards = GROUPS.map(([group, heading, about]) => {
      const own = settings.filter((setting) => (known.has(setting.group) ? setting.group : "") === group);
      return own.length && card(heading, about && el("p", { class: "hint" }, about), own.map((setting) => this.row(setting)));
    });
    fill(this.groups, cards.filter(Boolean));
    this.follow();
  }

  row(setting) {
    const editor = editorOf(setting);
    const id = `setting-${setting.key}`;
    editor.control.id = id;
    editor.control.setAttribute("aria-describedby", `${id}-help`);
    editor.control.dataset.test = id;
    if (!this.api.may("administer") || setting.fixed) editor.control.disabled = true;
    const back = button("Default", () => {
      editor.put(setting.default);
      this.follow();
    }, { kind: "quiet", "aria-label": `Put ${setting.key} back to its default` });
    const element = el("div", { class: "setting" },
      el("div", { class: "key" }, el("label", { for: id, class: "mono" }, setting.key),
        noteOf(setting)),
      el("div", { class: "value" }, editor.control),
      el("small", { id: `${id}-help`, class: "hint help" }, setting.help),
      back);
    editor.control.addEventListener("input", () => this.follow());
    this.rows.set(setting.key, { setting, editor, element, back });
    return element;
  }

  edited() {
    return [...this.rows.values()].filter(({ setting, editor }) => !same(editor.value(), shownValue(setting, setting.value)));
  }

  follow() {
    const edited = this.edited();
    for (const row of this.rows.values()) {
      const { setting, editor, element, back } = row;
      element.classList.toggle("edited", edited.includes(row));
      back.hidden = !this.api.may("administer") || setting.fixed || same(editor.value(), shownValue(setting, setting.default));
    }
    this.save.hidden = !edited.length;
    this.problem.hidden = true;
    text(this.count, `${counted(edited.length, "setting")} changed`);
  }

  discard() {
    for (const { setting, editor } of this.rows.values()) editor.put(setting.value);
    this.follow();
  }

  async send() {
    const edited = this.edited();
    const wanted = Object.fromEntries(edited.map(({ setting, editor }) => [setting.key, editor.value()]));
    let answer = null;
    try {
      answer = await this.api.patch("/settings", wanted);
    } catch (error) {
      if (error.status === undefined) throw error;
      text(this.problem, error.message);
      this.problem.hidden = false;
      return;
    }
    await this.api.act(async () => answer);
    if (answer.restart) this.sayRestart(edited.filter(({ setting }) => setting.restart && !setting.given));
    await this.fetch();
  }

  sayRestart(rows) {
    fill(this.note, `${rows.map(({ setting }) => setting.key).join(", ")}: saved, and in force after a restart of the server. `,
      button("Restart…", () => this.restart()));
    this.note.hidden = false;
    this.note.scrollIntoView({ block: "center" });
  }

  async restart() {
    const done = await askTwice(this.api, "/restart", {
      title: "Restart the server?", last: "All clients are disconnected. Restart?", action: "Restart",
    });
    if (done) this.note.hidden = true;
  }

  async defaults() {
    const done = await askTwice(this.api, "/settings/defaults", {
      title: "All settings back to their defaults?", last: "What is set now is gone. Go back to the defaults?", action: "Back to defaults",
    });
    if (done) await this.fetch();
  }
}

/** When a value is in force, or why it is not. */
function noteOf({ fixed, given, running, restart }) {
  const note = given ? `the command line has it${running && `: ${running}`}` : fixed ? "in the file only" : restart ? "after a restart" : "";
  return note && el("small", {}, note);
}

const same = (one, other) => JSON.stringify(one) === JSON.stringify(other);

/** A value as its control gives it: nothing is an empty text or list. */
function shownValue(setting, value) {
  if (setting.kind === "list") return value || [];
  if (setting.kind === "flag") return value;
  if (setting.kind === "number") return value;
  return value === null || value === undefined ? "" : value;
}

/** The control of a setting: {control, value(), put(value)}. */
function editorOf(setting) {
  const { kind, choices } = setting;
  const editor = { list: listEditor, flag: flagEditor, number: numberEditor }[kind] || (choices && choices.length ? choiceEditor : textEditor);
  const made = editor(setting);
  made.put(setting.value);
  return made;
}

function listEditor() {
  const control = el("textarea", { class: "mono", rows: 2, spellcheck: "false", placeholder: "one a line" });
  const grow = () => {
    control.rows = Math.min(12, Math.max(2, control.value.split("\n").length));
  };
  control.addEventListener("input", grow);
  return {
    control,
    value: () => control.value.split("\n").map((line) => line.trim()).filter(Boolean),
    put(value) {
      control.value = (value || []).join("\n");
      grow();
    },
  };
}

/** On or off; where neither is chosen, the server decides. */
function flagEditor(setting) {
  if (setting.value !== null && setting.default !== null) {
    const control = el("input", { type: "checkbox", class: "switch", role: "switch" });
    return { control, value: () => control.checked, put: (value) => void (control.checked = value) };
  }
  const control = choice([["", "automatic"], ["true", "on"], ["false", "off"]], "");
  return {
    control,
    value: () => (control.value ? control.value === "true" : null),
    put: (value) => void (control.value = value === null ? "" : String(value)),
  };
}

function numberEditor() {
  const control = el("input", { type: "number", min: 0, step: 1, inputmode: "numeric" });
  return {
    control,
    value: () => (control.value === "" ? null : Number(control.value)),
    put: (value) => void (control.value = value ?? ""),
  };
}

function choiceEditor({ choices }) {
  const control = choice(choices.map((name) => [name, name || "not set"]), "");
  return { control, value: () => control.value, put: (value) => void (control.value = value ?? "") };
}

function textEditor() {
  const control = el("input", { type: "text", class: "mono", spellcheck: "false", autocomplete: "off", autocapitalize: "none" });
  return { control, value: () => control.value, put: (value) => void (control.value = value ?? "") };
}
