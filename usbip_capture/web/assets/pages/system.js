// System: what runs here, on what.

import { card, facts } from "../controls.js";
import { el, text } from "../dom.js";
import { bytes, span } from "../format.js";

export const title = "System";

const SECOND_MS = 1000;

export async function render(container, api) {
  const system = await api.get("/system");
  const fetched = Date.now();
  const uptime = el("span", { "data-test": "uptime" });
  const memory = el("span");
  const tick = () => text(uptime, span(system.uptime + (Date.now() - fetched) / 1000));
  const memoryOf = (rss, total) => text(memory, total ? `${bytes(rss)} of ${bytes(total)}` : bytes(rss));
  tick();
  memoryOf(system.memory.rss, system.memory.total);
  container.append(el("div", { class: "columns" },
    card("Server", facts([
      ["Name", system.name],
      ["Version", system.version],
      ["Uptime", uptime],
      ["Memory", memory],
      ["Process", String(system.pid)],
      ["Configuration", el("code", {}, system.configuration)],
    ])),
    card("What it runs on", facts([
      ["Platform", system.platform],
      ["Python", system.python],
      ["libusb", system.libusb || "not loaded"],
    ]))));
  const timer = setInterval(tick, SECOND_MS);
  const stop = api.on("figures", ({ memory: rss }) => rss && memoryOf(rss, system.memory.total));
  return () => {
    clearInterval(timer);
    stop();
  };
}
