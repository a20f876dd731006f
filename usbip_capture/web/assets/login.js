// The page to sign in, when there is no session, or no longer one.

import { el, fill } from "./dom.js";

/** Show it; `done` is called once the server knows who it is. */
export function render(container, api, done) {
  document.title = "Sign in · usbip-capture";
  const problem = el("p", { class: "problem", role: "alert", "data-test": "problem" });
  if (location.hash === "#/login") {
    problem.textContent = "The token of that link is not known here: it was removed, or belongs to another server.";
    history.replaceState(null, "", "#/");
  }
  const token = el("input", { id: "token", name: "token", type: "password", autocomplete: "current-password", required: true,
    spellcheck: "false", "data-test": "token" });
  const submit = el("button", { class: "primary", "data-test": "sign-in" }, "Sign in");
  const form = el("form", { class: "card", id: "sign-in" },
    el("h1", {}, "Sign in"),
    el("p", {}, "The server printed a link with a token when it was first started with --web. Open that link, or paste the token here."),
    el("p", {}, "Lost it? On the machine of the server, ", el("code", {}, "usbip-capture token NAME --role administer"), " makes another one."),
    el("input", { name: "username", autocomplete: "username", value: "usbip-capture", hidden: true }),
    el("label", { for: "token" }, "Token"), token, problem,
    el("div", { class: "bar end" }, submit));
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    submit.disabled = true;
    problem.textContent = "";
    try {
      await api.post("/login", { token: tokenIn(token.value) });
      await done();
    } catch (error) {
      if (error.status === undefined) throw error;
      problem.textContent = error.message;
      submit.disabled = false;
      token.select();
    }
  });
  fill(container, form);
  token.focus();
}

/** The token alone, also of a whole link. */
function tokenIn(pasted) {
  const found = pasted.trim().match(/[?&]token=([^&#\s]+)/);
  return found ? decodeURIComponent(found[1]) : pasted.trim();
}
