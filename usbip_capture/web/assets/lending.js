// Of the page Access: what is exported, and for whom devices are reserved.

import { allowed, card, choice, field, form, submit } from "./controls.js";
import { ask, button, el, fill, table } from "./dom.js";
import { span, time } from "./format.js";
import { nameOf } from "./device_rows.js";

const TURN_LENGTHS = [[1800, "30 minutes"], [3600, "1 hour"], [7200, "2 hours"], [14400, "4 hours"], [28800, "8 hours"], [86400, "1 day"], [604800, "1 week"]];

const once = (make) => (row, td) => {
  if (!td.firstChild) td.append(make(row));
};

/** With what is left of a turn that has begun. */
function untilWhen({ begins, until }) {
  const now = Date.now() / 1000;
  return begins > now ? time(until) : `${time(until)} (${span(until - now)} left)`;
}

/** The rules of what is exported. Gives {element, fetch()}. */
export function exportsCard(api) {
  const remove = async ({ rule }) => {
    if (await ask({ title: "Remove this rule?", text: `${rule}\nWho has a device that is not exported any more loses it.`, action: "Remove", danger: true })) {
      if (await api.act(() => api.delete("/exports", { rule }))) await fetch();
    }
  };
  const shown = table({
    caption: "Rules of what is exported", test: "exports", key: ({ rule }) => rule, empty: "Nothing is exported.",
    columns: [
      { label: "Rule", wide: true, cell: once(({ rule }) => el("code", {}, rule)) },
      { label: "Exports now", wide: true, cell: ({ busids }) => busids.join(", ") || "nothing" },
      { label: "Action", number: true, cell: once((row) => button("Remove", () => remove(row), {
        kind: "danger", "aria-label": `Remove the export ${row.rule}`, ...allowed(api, "administer"), "data-test": "remove-export",
      })) },
    ],
  });
  const rule = el("input", { type: "text", class: "mono", list: "device-patterns", autocomplete: "off", spellcheck: "false",
    placeholder: "1-1.4", "data-test": "export-rule" });
  const adding = form(api, async () => {
    const answer = await api.post("/exports", { rule: rule.value.trim() });
    rule.value = "";
    await fetch();
    return answer;
  }, el("div", { class: "fields" },
    field("Device", rule, "A port such as 1-1.4, VID:PID, VID:PID:SERIAL, class:03, or all. Hubs are never exported."),
    el("div", { class: "field end" }, submit(api, "Add export", "administer", { "data-test": "add-export" }))));

  async function fetch() {
    const { exports } = await api.get("/exports");
    shown.update(exports);
  }

  const hint = el("p", { class: "hint" }, "A rule outlives the device: what is plugged in later is exported, too.");
  return { element: card("Exports", hint, shown.element, adding), fetch };
}

/** For whom devices are reserved, and who comes next. Gives {element, fetch(), devices(list)}. */
export function leasesCard(api) {
  const release = async ({ busid, client }) => {
    if (await ask({ title: `Release ${busid}?`, text: `It is not reserved for ${client} any more then.`, action: "Release", danger: true })) {
      if (await api.act(() => api.delete("/leases", { busid, client }))) await fetch();
    }
  };
  const shown = table({
    caption: "Reserved devices", test: "leases", key: ({ busid, client, begins }) => `${busid} ${client} ${begins}`,
    empty: "No device is reserved.",
    columns: [
      { label: "Device", cell: once(({ busid }) => el("b", { class: "mono" }, busid)) },
      { label: "For", wide: true, cell: once(({ client }) => el("code", {}, client)) },
      { label: "From", cell: ({ begins }) => time(begins) },
      { label: "Until", cell: untilWhen },
      { label: "Action", number: true, cell: once((row) => button("Release", () => release(row), {
        "aria-label": `Release ${row.busid} of ${row.client}`, ...allowed(api, "operate"), "data-test": "release",
      })) },
    ],
  });
  const device = choice([], "", { "data-test": "lease-device" });
  const client = el("input", { type: "text", class: "mono", list: "client-patterns", autocomplete: "off", spellcheck: "false",
    placeholder: "local", "data-test": "lease-client" });
  const length = choice(TURN_LENGTHS, 7200);
  const reserving = form(api, async () => {
    const answer = await api.post("/leases", { busid: device.value, client: client.value.trim() || "local", seconds: Number(length.value) });
    client.value = "";
    await fetch();
    return answer;
  }, el("div", { class: "fields" }, field("Device", device),
    field("Client", client, "An address, a network, local (this machine), paired:NAME, cert:NAME"), field("For", length),
    el("div", { class: "field end" }, submit(api, "Reserve", "operate", { "data-test": "reserve" }))));

  async function fetch() {
    const { leases } = await api.get("/leases");
    shown.update(leases.flatMap(({ busid, turns }) => turns.map((turn) => ({ busid, ...turn }))));
  }

  let known = "";
  const hint = el("p", { class: "hint" }, "While a device is reserved, nobody else can attach it, and who else has it is disconnected. If it is reserved already, the client comes next.");
  return {
    element: card("Reserved devices", hint, shown.element, reserving),
    fetch,
    devices(devices) {
      const now = JSON.stringify(devices.map((one) => [one.busid, nameOf(one)]));
      if (now === known) return;
      known = now;
      const before = device.value;
      fill(device, devices.map((one) => el("option", { value: one.busid }, `${one.busid} ${nameOf(one)}`)));
      if (devices.some((one) => one.busid === before)) device.value = before;
    },
  };
}
