// Numbers and times as people read them.

const three = (number) => (number >= 99.95 ? number.toFixed(0) : number >= 9.995 ? number.toFixed(1) : number.toFixed(2));

function scaled(number, units, size) {
  let unit = 0;
  while (unit + 1 < units.length && number >= 999.5) {
    number /= size;
    unit += 1;
  }
  return `${unit || !Number.isInteger(number) ? three(number) : number} ${units[unit]}`;
}

/** As `31.2 MB`, a megabyte being a million bytes. */
export const bytes = (number) => scaled(number || 0, ["B", "kB", "MB", "GB", "TB"], 1000);
/** As `31.2 MB/s`. */
export const rate = (number) => scaled(number ? Math.max(1, Math.round(number)) : 0, ["B/s", "kB/s", "MB/s", "GB/s"], 1000);
/** As `12 345`. */
export const count = (number) => Math.round(number || 0).toLocaleString("en").replaceAll(",", "\u202f");
/** As `3 devices`. */
export const counted = (number, noun) => `${count(number)} ${noun}${number === 1 ? "" : "s"}`;

/** Seconds as `1.23 ms`. */
export function duration(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  for (const [size, unit] of [[1, "s"], [1e-3, "ms"], [1e-6, "µs"]]) {
    if (seconds >= size * 0.9995) return `${three(seconds / size)} ${unit}`;
  }
  return seconds > 0 ? `${Math.round(seconds * 1e9)} ns` : "0";
}

/** Seconds as `3 d 4 h`, `5 min 12 s`. */
export function span(seconds) {
  const whole = Math.max(0, Math.floor(seconds || 0));
  const [days, hours] = [Math.floor(whole / 86400), Math.floor(whole / 3600) % 24];
  const minutes = Math.floor(whole / 60) % 60;
  if (days) return `${days} d ${hours} h`;
  if (hours) return `${hours} h ${minutes} min`;
  return minutes ? `${minutes} min ${whole % 60} s` : `${whole} s`;
}

/** Seconds since 1970, or RFC 3339, as a Date. */
export const date = (when) => new Date(typeof when === "number" ? when * 1000 : when);

const CLOCK = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });
const DAY = new Intl.DateTimeFormat("en-GB", { day: "2-digit", month: "short" });
const WHOLE = new Intl.DateTimeFormat("en-GB", { dateStyle: "medium", timeStyle: "medium" });

/** As `14:05:12`, of another day `28 Nov 14:05:12`. */
export function time(when) {
  const moment = date(when);
  const day = DAY.format(moment);
  return day === DAY.format(new Date()) ? CLOCK.format(moment) : `${day} ${CLOCK.format(moment)}`;
}

/** With its date. */
export const moment = (when) => WHOLE.format(date(when));

/** As `since 14:05:12 (3 min 2 s)`. */
export const since = (when, now = Date.now() / 1000) =>
  (when ? `${time(when)} (${span(now - date(when).getTime() / 1000)})` : "–");
