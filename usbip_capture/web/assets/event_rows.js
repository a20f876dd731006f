// How an event is shown, on whichever page.

import { badge, el } from "./dom.js";
import { moment } from "./format.js";

const TONES = { emergency: "bad", alert: "bad", critical: "bad", error: "bad", warning: "warn", notice: "info" };

/** From the most severe on, as syslog has them. */
export const SEVERITIES = ["emergency", "alert", "critical", "error", "warning", "notice", "info", "debug"];

export const severityBadge = (event) => badge(event.severity, TONES[event.severity] || "");

/** Of whom: its address and, if that is proven, its name. */
export function clientOf(event) {
  if (!event.client) return "";
  return event.identity ? `${event.client} (${event.identity})` : event.client;
}

/** Which device: its port, and what it is. */
export const deviceOf = (event) => [event.busid, event.device].filter(Boolean).join(" ");

/** The rest, in one line. */
export function textOf(event) {
  const notes = [event.by && `by ${event.by}`, event.rule && `rule: ${event.rule}`, event.times > 1 && `${event.times} times`];
  return [event.text, ...notes].filter(Boolean).join(" · ");
}

/** All of it, as the server words it. */
export const sentenceOf = (event) => event.sentence || [clientOf(event), event.kind, deviceOf(event), textOf(event)].filter(Boolean).join(" ");

/** The newest of them, the newest first. */
export const newestFirst = (events) => [...events].sort((one, other) => other.number - one.number);

/** All that is known of an event. */
export function showEvent(event) {
  const facts = [
    ["What", event.sentence], ["Time", moment(event.time)], ["Severity", event.severity], ["Kind", event.kind], ["Client", clientOf(event)],
    ["Port of the client", event.port], ["Device", deviceOf(event)], ["Rule", event.rule], ["Caused by", event.by],
    ["Text", event.text], ["Times", event.times], ["Number", event.number],
  ].filter(([, value]) => value);
  const dialog = el("dialog", { "aria-labelledby": "event-title", "data-test": "event" },
    el("form", { method: "dialog" },
      el("h2", { id: "event-title" }, `Event: ${event.kind}`),
      el("dl", { class: "facts" }, facts.map(([name, value]) => [el("dt", {}, name), el("dd", {}, String(value))])),
      el("div", { class: "bar end" }, el("button", { class: "primary" }, "Close"))));
  dialog.addEventListener("close", () => dialog.remove());
  document.body.append(dialog);
  dialog.showModal();
}
