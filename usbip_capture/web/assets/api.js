// The server, as pages ask it: requests, figures as they change, who is signed in.

import { toast } from "./dom.js";

const PREFIX = "/api/v1";
/** Moments of ten minutes. */
const MOST = 1200;
const ROLES = ["look", "operate", "administer"];

/** What the server refused: its sentence, and the HTTP status (0: it was not reached). */
export class ApiError extends Error {
  constructor(sentence, status) {
    super(sentence);
    this.status = status;
  }
}

/**
 * What a page gets. `me`: {name, role}. `figures`: the newest ones, null before the first.
 * Events to listen to with `on`: "figures" (twice a second), "changed" (devices, clients or captures are to be fetched
 * again; also after the connection came back), "history", "link" (state of the connection), "signed-out".
 */
export class Api {
  constructor() {
    this.me = null;
    this.figures = null;
    this.history = null;
    this.link = "connecting";
    this.listeners = new Map();
  }

  /** Call `listener` for each event of this kind; returns what ends that. */
  on(kind, listener) {
    if (!this.listeners.has(kind)) this.listeners.set(kind, new Set());
    this.listeners.get(kind).add(listener);
    return () => this.listeners.get(kind).delete(listener);
  }

  /**
   * Call `refresh` now and after each "changed", one call at a time, the last one after the last change: so what is shown
   * is never older than what there is. every: also after so many figures, for what changes all the time. Returns what
   * ends that, once the first is done; throws what that throws.
   */
  async follow(refresh, { every = Infinity } = {}) {
    let running = null;
    let wanted = false;
    const run = () => {
      wanted = true;
      running ||= (async () => {
        try {
          while (wanted) {
            wanted = false;
            await refresh();
          }
        } finally {
          running = null;
        }
      })();
      return running;
    };
    const again = () => run().catch((error) => this.failed(error));
    let figures = 0;
    const stops = [this.on("changed", again), this.on("figures", () => (figures += 1) % every === 0 && again())];
    const end = () => stops.forEach((stop) => stop());
    try {
      await run();
    } catch (error) {
      end();
      throw error;
    }
    return end;
  }

  emit(kind, value) {
    for (const listener of [...(this.listeners.get(kind) || [])]) listener(value);
  }

  /** Whether who is signed in has this role. */
  may(role) {
    return this.me !== null && ROLES.indexOf(this.me.role) >= ROLES.indexOf(role);
  }

  get(path, query = null) {
    return this.request("GET", query ? `${path}?${new URLSearchParams(query)}` : path);
  }

  post(path, body = {}) {
    return this.request("POST", path, body);
  }

  put(path, body = {}) {
    return this.request("PUT", path, body);
  }

  patch(path, body = {}) {
    return this.request("PATCH", path, body);
  }

  delete(path, body = {}) {
    return this.request("DELETE", path, body);
  }

  /** The answer's JSON. Throws ApiError. */
  async request(method, path, body) {
    const options = { method, headers: { Accept: "application/json" }, credentials: "same-origin" };
    if (body !== undefined) {
      options.headers["Content-Type"] = "application/json";
      options.body = JSON.stringify(body);
    }
    let answer;
    let value = null;
    try {
      answer = await fetch(PREFIX + path, options);
      value = await answer.json();
    } catch (error) {
      if (!answer) throw new ApiError("The server does not answer. Is it still running?", 0);
    }
    if (answer.status === 401 && path !== "/login") this.emit("signed-out");
    if (!answer.ok || (value && value.ok === false)) {
      throw new ApiError((value && value.error) || `The server answered ${answer.status} ${answer.statusText}`, answer.status);
    }
    return value;
  }

  /** Do something and show its outcome: `act(() => api.post(…))`. Gives the answer, null if it failed. */
  async act(request) {
    try {
      const answer = await request();
      if (answer && answer.outcome) toast(answer.outcome);
      return answer;
    } catch (error) {
      this.failed(error);
      return null;
    }
  }

  /** Show why something failed; what is no answer of the server is a fault of ours. */
  failed(error) {
    if (!(error instanceof ApiError)) throw error;
    if (error.status !== 401) toast(error.message, "bad");
  }

  /**
   * Call `take` for each event from the one after this number on, also after the server was restarted. Gives {close()}.
   * While the page is not seen it is closed: a browser has few connections for one server, shared by all tabs.
   */
  events(after, take) {
    let last = after;
    let source = null;
    const open = () => {
      if (source) source.close();
      source = null;
      if (document.visibilityState === "hidden") return;
      source = new EventSource(`${PREFIX}/events?after=${last}`);
      source.onmessage = (message) => {
        const event = JSON.parse(message.data);
        last = event.number;
        take(event);
      };
    };
    open();
    document.addEventListener("visibilitychange", open);
    const end = this.on("link", (link) => link === "up" && open());
    return {
      close() {
        end();
        document.removeEventListener("visibilitychange", open);
        if (source) source.close();
      },
    };
  }

  /** The address of a WebSocket or of a file of `/api/v1`. */
  socket(path) {
    return `${location.protocol === "https:" ? "wss:" : "ws:"}//${location.host}${PREFIX}${path}`;
  }

  file(path) {
    return PREFIX + path;
  }
}

/** Keeps `api` supplied with figures; connects again by itself, and asks who is signed in when it cannot. */
export class Live {
  constructor(api) {
    this.api = api;
    this.socket = null;
    this.timer = 0;
    this.wait = 500;
    this.changed = null;
    addEventListener("online", () => this.soon());
    document.addEventListener("visibilitychange", () => document.visibilityState === "visible" && this.soon());
  }

  start() {
    clearTimeout(this.timer);
    this.stop();
    const socket = new WebSocket(this.api.socket("/figures"));
    this.socket = socket;
    socket.onopen = () => this.opened();
    socket.onmessage = (message) => this.take(JSON.parse(message.data));
    socket.onclose = () => socket === this.socket && this.closed();
  }

  stop() {
    const socket = this.socket;
    this.socket = null;
    if (socket) socket.close();
  }

  /** Try at once, if the connection is down. */
  soon() {
    if (this.api.link === "down") this.start();
  }

  state(link) {
    if (this.api.link !== link) {
      this.api.link = link;
      this.api.emit("link", link);
    }
  }

  opened() {
    this.wait = 500;
    this.changed = null;
    this.state("up");
  }

  async closed() {
    this.socket = null;
    this.state("down");
    this.timer = setTimeout(() => this.again(), this.wait);
    this.wait = Math.min(4000, this.wait * 2);
  }

  async again() {
    try {
      await this.api.get("/me"); // 401: shows the page to sign in
    } catch (error) {
      if (error.status === 401) return;
      if (!error.status) return void (this.timer = setTimeout(() => this.again(), this.wait));
    }
    this.start();
  }

  take(message) {
    if (message.type === "history") {
      this.api.history = message;
      this.api.emit("history", message);
    } else if (message.type === "figures") {
      this.api.figures = message;
      this.keep(message);
      this.api.emit("figures", message);
      if (message.changed !== this.changed) {
        this.changed = message.changed;
        this.api.emit("changed");
      }
    }
  }

  keep({ time, in: into, out }) {
    const history = this.api.history;
    if (!history) return;
    extend(history, time, { in: into, out });
  }
}

/** One more moment of a device's history, within the window that is shown. figures: of the device, if it is there. */
export function extend(history, when, figures) {
  for (const [name, value] of [["times", when], ["in", figures ? figures.in : 0], ["out", figures ? figures.out : 0]]) {
    history[name].push(value);
    if (history[name].length > MOST) history[name].shift();
  }
}
