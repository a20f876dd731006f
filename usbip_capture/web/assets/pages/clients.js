// Who is connected, and with which device.

import { ask, button, el, fill, table } from "../dom.js";
import { deviceLink } from "../device_rows.js";
import { bytes, count, duration, span, time } from "../format.js";

export const title = "Clients";

const EVERY = 4; // figures, that is two seconds

export async function render(container, api) {
  const rows = clientTable(api);
  fill(container, el("section", { class: "card" }, rows.element));
  const refresh = async () => rows.update((await api.get("/clients")).clients);
  return api.follow(refresh, { every: EVERY });
}

function clientTable(api) {
  return table({
    caption: "Clients", test: "clients", key: (client) => client.id,
    empty: "No client is connected. On the other machine: usbip attach -r THIS_MACHINE -b BUSID",
    columns: [
      { label: "Client", wide: true, cell: (client) => el("span", {}, el("b", {}, client.address), client.identity ? el("small", {}, ` ${client.identity}`) : null) },
      { label: "Device", wide: true, cell: (client) => (client.busid
        ? el("span", {}, deviceLink(client.busid), ` ${client.product || ""}`) : el("span", { class: "quiet" }, "none")) },
      { label: "Since", cell: (client) => sinceOf(client.imported || client.since) },
      { label: "Moved", cell: (client) => lines(`${bytes(client.bytes_in)} in`, `${bytes(client.bytes_out)} out`) },
      { label: "URBs", number: true, cell: (client) => count(client.urbs) },
      { label: "Round trip", number: true, cell: (client) => duration(client.round_trip) },
      { label: "", cell: (client, td) => { if (!td.firstChild) td.append(actionsOf(api, client)); } },
    ],
  });
}

const lines = (first, second) => el("span", { class: "lines" }, first, el("small", {}, second));

const sinceOf = (when) => lines(time(when), `for ${span(Date.now() / 1000 - when)}`);

function actionsOf(api, client) {
  const path = (name) => `/clients/${encodeURIComponent(client.id)}/${name}`;
  const end = button("End", async () => {
    const text = client.busid ? `It loses ${client.busid}, which stays exported.` : "It has no device.";
    if (await ask({ title: `End ${client.address}?`, text, action: "End it", danger: true })) {
      await api.act(() => api.post(path("disconnect")));
    }
  }, { "data-test": "end", disabled: !api.may("operate") });
  const ruled = (label, name) => button(label, async () => {
    const device = await askDevice(client, name);
    if (device) await api.act(() => api.post(path(name), { device }));
  }, { "data-test": name, disabled: !api.may("administer") });
  return el("div", { class: "bar" }, end, ruled("Allow…", "allow"), ruled("Deny…", "deny"));
}

/** For which devices a rule is to be; null if none is wanted. */
function askDevice(client, verb) {
  const choices = [["all", "all devices"]];
  if (client.busid) choices.unshift([client.busid, `${client.busid}, whatever is plugged in there`]);
  return new Promise((resolve) => {
    const other = el("input", { "aria-label": "Other devices", placeholder: "303a:4001, class:08, …", "data-test": "pattern" });
    const radio = (value, label, checked, extra = null) => el("label", { class: "check" },
      el("input", { type: "radio", name: "device", value, checked }), label, extra);
    const options = [...choices.map(([value, label], i) => radio(value, label, i === 0)), radio("", "others:", false, other)];
    other.addEventListener("input", () => { options.at(-1).firstChild.checked = true; });
    const dialog = el("dialog", { "aria-labelledby": "rule-title", "data-test": "rule" },
      el("form", { method: "dialog" },
        el("h2", { id: "rule-title" }, `${verb === "allow" ? "Allow" : "Deny"} ${client.address}`),
        el("p", {}, verb === "allow" ? "From now on, by a rule that is added, this client may have:" : "From now on, by a rule that is added, this client may not have, and loses at once:"),
        el("div", { class: "options" }, options),
        el("div", { class: "bar end" },
          el("button", { value: "" }, "Cancel"),
          el("button", { value: "yes", class: verb === "deny" ? "danger" : "primary", "data-test": "rule-yes" }, verb === "allow" ? "Allow" : "Deny"))));
    dialog.addEventListener("close", () => {
      const chosen = dialog.querySelector("input[name=device]:checked");
      dialog.remove();
      resolve(dialog.returnValue === "yes" ? chosen.value || other.value.trim() || null : null);
    });
    document.body.append(dialog);
    dialog.showModal();
  });
}
