// Tokens: who may use the dashboard and its interfaces, and what each may do.

import { allowed, card, choice, copyable, field, form, submit } from "../controls.js";
import { ask, badge, button, el, fill, table, text } from "../dom.js";
import { moment } from "../format.js";

export const title = "Tokens";

const ROLES = [
  ["look", "Sees everything, and changes nothing."],
  ["operate", "Also captures, exports on and off, disconnects and resets."],
  ["administer", "Also changes settings, access and tokens."],
];
const TONES = { administer: "warn", operate: "info", look: "" };

export async function render(container, api) {
  if (!api.may("administer")) {
    container.append(card("", el("p", {}, `You are signed in as ${api.me.name}, whose role is ${api.me.role}. Tokens are for the role administer.`)));
    return null;
  }
  const made = el("div", { "data-test": "made" });
  const shown = tokenTable(api, refresh);
  const name = el("input", { type: "text", maxlength: 64, autocomplete: "off", required: true, placeholder: "ann", "data-test": "token-name" });
  const role = choice(ROLES.map(([value]) => [value, value]), "look", { "data-test": "token-role" });
  const roleField = field("Role", role, ROLES[0][1]);
  role.addEventListener("change", () => text(roleField.querySelector(".hint"), new Map(ROLES).get(role.value)));
  const adding = form(api, async () => {
    const answer = await api.post("/tokens", { name: name.value.trim(), role: role.value });
    fill(made, showMade(name.value.trim(), answer, () => fill(made)));
    name.value = "";
    await refresh();
    return answer;
  }, el("div", { class: "fields" }, field("Name", name, "Whose it is, or for which script."), roleField,
    el("div", { class: "field end" }, submit(api, "Make a token", "administer", { "data-test": "add-token" }))));
  container.append(card("Make a token", adding, made), card("Tokens", shown.element));

  async function refresh() {
    shown.update((await api.get("/tokens")).tokens);
  }

  await refresh();
  return null;
}

function showMade(name, { token, link }, close) {
  return el("div", { class: "notice good" },
    el("p", {}, el("b", {}, `The token of ${name}, shown this once:`), " copy it now, the server keeps only what it needs to recognise it."),
    copyable(token, "the token", "new-token").element,
    link && [el("p", {}, "As a link, which signs in:"), copyable(link, "the link").element],
    el("div", { class: "bar end" }, button("I have it", close)));
}

function tokenTable(api, refresh) {
  const remove = async ({ name }) => {
    const own = name === api.me.name ? "\nIt is the one that you are signed in with." : "";
    if (await ask({ title: `Delete the token of ${name}?`, text: `Who uses it is signed out.${own}`, action: "Delete", danger: true })) {
      if (await api.act(() => api.delete("/tokens", { name }))) await refresh();
    }
  };
  const once = (make) => (row, td) => {
    if (!td.firstChild) td.append(make(row));
  };
  return table({
    caption: "Tokens", test: "tokens", key: ({ name, role }) => `${name} ${role}`, empty: "No tokens.",
    columns: [
      { label: "Name", wide: true, cell: once(({ name }) => el("span", {}, el("b", {}, name), name === api.me.name && el("small", {}, " (you)"))) },
      { label: "Role", cell: once(({ role }) => badge(role, TONES[role])) },
      { label: "Made", cell: (token) => (token.created ? moment(token.created) : "–") },
      { label: "Action", number: true, cell: once((token) => button("Delete", () => remove(token), {
        kind: "danger", "aria-label": `Delete the token of ${token.name}`, ...allowed(api, "administer"), "data-test": "delete-token",
      })) },
    ],
  });
}
