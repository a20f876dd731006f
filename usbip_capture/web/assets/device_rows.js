// How a device is named and its state shown, on whichever page.

import { badge, el } from "./dom.js";

const TONES = { free: "good", "in use": "info", held: "warn", "not exported": "", hub: "" };

/** Its product, or what it is. */
export const nameOf = (device) => device.product || (device.root ? `Bus ${device.busid.replace(/^usb/, "")}` : device.class_name) || device.vid_pid;

/** The page of a device. */
export const pageOf = (busid) => `#/devices/${encodeURIComponent(busid)}`;

/** A link to the page of a device, also of one that is no longer there. */
export const deviceLink = (busid, label = busid) => el("a", { href: pageOf(busid) }, label);

export const stateBadge = (state) => badge(state, TONES[state] || "");

/** Path of a device of `/api/v1`. */
export const pathOf = (busid, ...rest) => ["/devices", encodeURIComponent(busid), ...rest].join("/");

/** Where it is: the ports by which it is reached, as numbers, for putting in order. */
export const portsOf = (busid) => busid.replace(/^usb/, "").split(/[-.]/).map(Number);

/** Order of ports: 1-2 before 1-10. */
export function byPort(one, other) {
  const [a, b] = [portsOf(one.busid), portsOf(other.busid)];
  for (let i = 0; i < Math.max(a.length, b.length); i += 1) {
    if (a[i] !== b[i]) return (a[i] ?? -1) - (b[i] ?? -1);
  }
  return 0;
}
