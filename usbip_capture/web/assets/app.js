// The shell: which page is shown, who is signed in, whether the server is reached.

import { Api, Live } from "./api.js";
import { button, el, fill, icon, text, toast } from "./dom.js";
import { span } from "./format.js";

const PAGES = [
  ["overview", "Overview"], ["devices", "Devices"], ["clients", "Clients"], ["captures", "Captures"], ["events", "Events"],
  null,
  ["access", "Access"], ["tokens", "Tokens"], ["settings", "Settings"], ["system", "System"],
];
const FIRST = "overview";
const LINKS = { connecting: "Connecting…", up: "Connected", down: "No connection: trying again" };
const THEMES = { "": "as the system has it", light: "light", dark: "dark" };

const byId = (id) => document.getElementById(id);
const api = new Api();
const live = new Live(api);
let shown = 0;
let dispose = null;
let wasDown = false;
let server = { name: "", version: "", started: 0 };

function pageOf(hash) {
  const [name, ...rest] = hash.replace(/^#\/?/, "").split("/");
  const known = PAGES.find((page) => page && page[0] === name);
  return { name: known ? name : FIRST, rest: known ? rest.map(decoded) : [] };
}

function decoded(part) {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}

function leavePage() {
  shown += 1;
  const ended = dispose;
  dispose = null; // first: a page that cannot end itself must not keep the next one away
  if (ended) ended();
}

async function show({ focus = false } = {}) {
  leavePage();
  const turn = shown;
  const { name, rest } = pageOf(location.hash);
  for (const link of byId("nav").querySelectorAll("a")) {
    if (link.dataset.page === name) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  openMenu(false);
  const container = el("div", { class: `page page-${name}`, "data-test": `page-${name}` });
  const heading = el("h1", { tabindex: "-1" });
  const head = el("div", { class: "page-head" }, heading, el("div", { class: "page-actions" }));
  const title = (value) => {
    text(heading, value);
    document.title = `${value} · ${server.name || "usbip-capture"}`;
  };
  try {
    const page = await import(`./pages/${name}.js`);
    if (turn !== shown) return;
    title(page.title);
    fill(byId("main"), head, container);
    if (focus) heading.focus({ preventScroll: true });
    scrollTo(0, 0);
    const own = Object.assign(Object.create(api), { title, actions: head.lastChild });
    const ended = await page.render(container, own, rest);
    if (turn === shown) dispose = ended;
    else if (ended) ended();
  } catch (error) {
    if (turn !== shown || error.status === 401) return;
    title(PAGES.find((page) => page && page[0] === name)[1]);
    fill(container, el("p", { class: "problem", "data-test": "problem" }, error.message),
      button("Try again", () => show(), { kind: "primary" }));
    fill(byId("main"), head, container);
    if (error.status === undefined) throw error;
  }
}

function openMenu(open) {
  byId("side").classList.toggle("open", open);
  byId("menu").setAttribute("aria-expanded", String(open));
}

function buildShell() {
  fill(byId("nav"), PAGES.map((page) => (page
    ? el("a", { href: `#/${page[0]}`, "data-page": page[0], "data-test": `nav-${page[0]}` }, icon(page[0]), page[1])
    : el("hr"))));
  byId("menu").append(icon("menu"));
  byId("menu").onclick = () => openMenu(!byId("side").classList.contains("open"));
  byId("skip").onclick = (event) => {
    event.preventDefault(); // the hash is the page's
    byId("main").focus();
  };
  document.addEventListener("keydown", (event) => event.key === "Escape" && openMenu(false));
  addEventListener("hashchange", () => show({ focus: true }));
}

function showWho() {
  const theme = button("", nextTheme, { kind: "icon-only", icon: "theme", "aria-label": "Colours", "data-test": "theme" });
  const leave = button("", signOut, { kind: "icon-only", icon: "leave", "aria-label": "Sign out", title: "Sign out", "data-test": "sign-out" });
  fill(byId("who"), el("span", { title: `Signed in with the token ${api.me.name}, whose role is ${api.me.role}` },
    el("b", {}, api.me.name), el("small", {}, api.me.role)), theme, leave);
  applyTheme();
}

function applyTheme() {
  const theme = localStorage.getItem("theme") || "";
  if (theme) document.documentElement.dataset.theme = theme;
  else delete document.documentElement.dataset.theme;
  const made = document.querySelector("[data-test=theme]");
  if (made) made.title = `Colours: ${THEMES[theme]}`;
  api.emit("theme");
}

function nextTheme() {
  const names = Object.keys(THEMES);
  localStorage.setItem("theme", names[(names.indexOf(localStorage.getItem("theme") || "") + 1) % names.length]);
  applyTheme();
}

async function signOut() {
  await api.act(() => api.post("/logout"));
  signedOut();
}

async function signedOut() {
  if (document.body.classList.contains("signed-out")) return;
  api.me = null;
  live.stop();
  leavePage();
  document.body.classList.add("signed-out");
  const login = await import("./login.js");
  login.render(byId("main"), api, signedIn);
}

async function signedIn() {
  document.body.classList.remove("signed-out");
  api.me = await api.get("/me");
  showWho();
  live.start();
  await Promise.all([showServer(), show()]);
}

async function showServer() {
  try {
    const { name, version, started } = await api.get("/overview");
    server = { name, version, started };
  } catch (error) {
    return void api.failed(error);
  }
  text(byId("server-name"), server.name);
  byId("server-name").title = server.name;
  showAbout();
}

function showAbout() {
  if (!server.version) return;
  const up = Date.now() / 1000 - server.started;
  const [version, uptime] = byId("about").children;
  text(version, `Version ${server.version}`);
  text(uptime, up > 0 ? `Up ${span(up)}` : "");
}

function showLink(link) {
  byId("link").dataset.state = link;
  text(byId("link").lastChild, LINKS[link]);
  if (link === "down") wasDown = true;
  if (link === "up" && wasDown) {
    wasDown = false;
    toast("Connected again");
    showServer();
    if (!dispose) show(); // the page could not be shown before
  }
}

async function start() {
  applyTheme();
  buildShell();
  api.on("link", showLink);
  api.on("signed-out", signedOut);
  setInterval(showAbout, 1000);
  const token = new URLSearchParams(location.search).get("token");
  try {
    if (token !== null) {
      history.replaceState(null, "", location.pathname + location.hash); // it is not to stay in the address bar
      await api.post("/login", { token });
    }
    await signedIn();
  } catch (error) {
    if (error.status === 401) return;
    if (error.status === undefined) throw error;
    fill(byId("main"), el("p", { class: "problem" }, error.message), button("Try again", () => location.reload(), { kind: "primary" }));
  }
}

start();
