// Access: the mode and the rules, what a client would get by them, what is exported, reserved, paired.

import { allowed, card, choice, facts, field, form, invalid, submit } from "../controls.js";
import { ask, badge, button, el, fill, table, text } from "../dom.js";
import { moment } from "../format.js";
import { exportsCard, leasesCard } from "../lending.js";

export const title = "Access";

const MODES = [
  ["closed", "Closed", "Programs of this machine, and whom a rule allows."],
  ["open", "Open", "Everybody who can connect, except whom a rule denies."],
];

export async function render(container, api) {
  let devices = [];
  const names = el("datalist", { id: "device-patterns" });
  const mode = modeCard(api, refresh);
  const rules = rulesCard(api, refresh);
  const check = checkCard(api);
  const exported = exportsCard(api);
  const leases = leasesCard(api);
  const paired = pairedCard();
  container.append(names, el("div", { class: "columns" }, mode.element, paired.element), rules.element, check.element,
    exported.element, leases.element);

  async function refresh() {
    const [access, plugged] = await Promise.all([api.get("/access"), api.get("/devices"), exported.fetch(), leases.fetch()]);
    devices = plugged.devices.filter((device) => !device.hub);
    fill(names, el("option", { value: "all" }, "all devices"),
      devices.map((device) => [
        el("option", { value: device.busid }, `whatever is plugged in there, now ${device.product || device.vid_pid}`),
        el("option", { value: device.vid_pid }, `every ${device.product || device.class_name}`)]));
    mode.show(access);
    rules.show(access);
    paired.show(access);
    leases.devices(devices);
  }

  return api.follow(refresh);
}

function modeCard(api, refresh) {
  let now = "";
  const radios = new Map(MODES.map(([name]) => [name, el("input", {
    type: "radio", name: "mode", value: name, ...allowed(api, "administer"), "data-test": `mode-${name}`,
    onchange: () => set(name),
  })]));
  const show = (mode) => {
    now = mode;
    for (const [name, radio] of radios) radio.checked = name === mode;
  };

  async function set(name) {
    const sure = name !== "open" || (await ask({
      title: "Open the server for everybody?", action: "Open", danger: true,
      text: "Everybody who can connect may then have all exported devices, except whom a rule denies.",
    }));
    if (!sure || !(await api.act(() => api.put("/access/mode", { mode: name })))) show(now);
    else await refresh();
  }

  const element = card("Mode", el("fieldset", { class: "plain" }, el("legend", { class: "unseen" }, "Mode"),
    MODES.map(([name, label, about]) => el("label", { class: "tick big" }, radios.get(name),
      el("span", {}, el("b", {}, label), el("br"), el("small", {}, about))))));
  return { element, show: (access) => show(access.mode) };
}

function rulesCard(api, refresh) {
  const remove = async ({ rule }) => {
    if (await ask({ title: "Remove this rule?", text: `${rule}\nSessions that are not allowed any more end.`, action: "Remove", danger: true })) {
      if (await api.act(() => api.delete("/access/rules", { rule }))) await refresh();
    }
  };
  const shown = table({
    caption: "Rules of access", test: "rules", key: ({ rule, source }) => `${rule} ${source}`,
    empty: "No rules.",
    columns: [
      { label: "Rule", wide: true, cell: once(({ rule }) => ruleShown(rule)) },
      { label: "From", cell: ({ source }) => source },
      { label: "Action", number: true, cell: once((row) => row.source !== "paired" && button("Remove", () => remove(row), {
        kind: "danger", "aria-label": `Remove the rule ${row.rule}`, ...allowed(api, "administer"), "data-test": "remove-rule",
      })) },
    ],
  });
  const action = choice([["allow", "allow"], ["deny", "deny"]], "allow", { "data-test": "rule-action" });
  const client = el("input", { type: "text", class: "mono", list: "client-patterns", autocomplete: "off", spellcheck: "false",
    placeholder: "192.0.2.0/24", "data-test": "rule-client" });
  const device = el("input", { type: "text", class: "mono", list: "device-patterns", autocomplete: "off", spellcheck: "false",
    placeholder: "all", "data-test": "rule-device" });
  const adding = form(api, async () => {
    const answer = await api.post("/access/rules", { rule: ruleOf(action.value, client.value, device.value) });
    client.value = device.value = "";
    await refresh();
    return answer;
  },
  el("div", { class: "fields" }, field("Action", action),
    field("Client", client, "any, local, an address, a network, paired, paired:NAME, cert, cert:NAME"),
    field("Device", device, "A port such as 1-1.4, VID:PID, VID:PID:SERIAL, class:03, or all"),
    el("div", { class: "field end" }, submit(api, "Add rule", "administer", { "data-test": "add-rule" }))),
  el("datalist", { id: "client-patterns" }, ["any", "local", "paired", "cert"].map((value) => el("option", { value }))));
  const byHand = el("p", { class: "notice", hidden: true },
    "The command line of this server has rules: what is changed here holds until it is started with that command line again.");
  return {
    element: card("Rules", el("p", { class: "hint" }, "A rule that denies wins over all that allow. A change holds at once, also for who is connected."),
      byHand, shown.element, el("h3", { class: "form-head" }, "Add a rule"), adding),
    show(access) {
      byHand.hidden = access.follows !== false;
      shown.update(access.rules);
    },
  };
}

/** A client with a blank in its name stands in double quotes. */
function ruleOf(action, client, device) {
  const name = client.trim();
  if (!name) throw invalid("Name a client, such as 192.0.2.0/24, or any.");
  return [action, /[\s"]/.test(name) ? JSON.stringify(name) : name, device.trim() || "all"].join(" ");
}

/** A cell that is made once: what it shows never changes. */
const once = (make) => (row, td) => {
  if (!td.firstChild) td.append(make(row) || "–");
};

function ruleShown(rule) {
  const [action, ...rest] = rule.split(" ");
  return el("code", { class: "rule" }, badge(action, action === "deny" ? "bad" : "good"), ` ${rest.join(" ")}`);
}

function checkCard(api) {
  const client = el("input", { type: "text", class: "mono", list: "client-patterns", autocomplete: "off", spellcheck: "false",
    placeholder: "192.0.2.7 or paired:NAME", "data-test": "check-client" });
  const verdict = el("p", { role: "status", "data-test": "verdict" });
  const shown = table({
    caption: "What this client would get", test: "check", key: ({ busid }) => busid, empty: "Nothing is exported.",
    columns: [
      { label: "Device", wide: true, cell: (row, td) => void fill(td, el("span", {}, el("b", { class: "mono" }, row.busid), ` ${row.product || ""}`)) },
      { label: "Gets it", cell: (row, td) => void fill(td, row.allowed ? badge("yes", "good") : badge("no", "bad")) },
      { label: "By rule", wide: true, cell: (row, td) => void fill(td, row.rule ? el("code", {}, row.rule) : "–") },
      { label: "Why", wide: true, cell: ({ reason }) => reason || "–" },
    ],
  });
  shown.element.hidden = true;
  const asking = form(api, async () => {
    if (!client.value.trim()) throw invalid("Name a client, such as 192.0.2.7.");
    const answer = await api.post("/access/check", { client: client.value.trim() });
    const got = answer.devices.filter((device) => device.allowed).length;
    text(verdict, `${answer.client} would get ${got} of ${answer.devices.length}.`);
    shown.element.hidden = false;
    shown.update(answer.devices);
  }, el("div", { class: "fields" },
    field("Client", client, "An address, or a proven identity such as paired:NAME or cert:NAME"),
    el("div", { class: "field end" }, submit(api, "Check", "look", { "data-test": "check-go" }))));
  return { element: card("What would a client get?", asking, verdict, shown.element) };
}

function pairedCard() {
  const list = el("div");
  return {
    element: card("Connections", list),
    show({ listening, paired }) {
      const places = (listening || []).map((place) => el("div", {}, el("code", {}, place)));
      const names = (paired || []).map(({ name, fingerprint, since }) => el("div", { class: "named" }, el("b", {}, name),
        el("small", {}, `since ${moment(since)}, certificate `, el("code", {}, fingerprint))));
      fill(list, facts([
        ["Listens at", places.length ? places : "–"],
        ["Paired clients", names.length ? names : "None. A client is paired by usbip-capture pair."],
      ]));
    },
  };
}
