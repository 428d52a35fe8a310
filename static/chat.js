/**
 * The chat page: what the user does goes to the client, what the client says is shown.
 *
 * @module
 */

import { MessageError, SessionClient } from "./client.js";
import { replyDetails, replyText, routeUrl, stateText, untilExpiry } from "./view.js";

/**
 * @template {HTMLElement} T
 * @param {string} id
 * @param {new () => T} kind
 * @returns {T}
 */
function element(id, kind) {
  const found = document.getElementById(id);
  if (!(found instanceof kind)) throw new Error(`no ${id} on the page`);
  return found;
}

const page = {
  state: element("state", HTMLElement),
  dot: element("dot", HTMLElement),
  route: element("route", HTMLSelectElement),
  session: element("session", HTMLElement),
  expiry: element("expiry", HTMLTimeElement),
  fresh: element("fresh", HTMLButtonElement),
  log: element("log", HTMLElement),
  welcome: element("welcome", HTMLElement),
  form: element("form", HTMLFormElement),
  text: element("text", HTMLTextAreaElement),
  send: element("send", HTMLButtonElement),
};

/** @type {SessionClient | null} */
let client = null;
/** @type {string | null} */
let expiresAt = null;

/**
 * @param {string} tag
 * @param {string} className
 * @param {string} text
 */
function made(tag, className, text) {
  const node = document.createElement(tag);
  node.className = className;
  node.textContent = text;
  return node;
}

/**
 * Add an entry to the conversation.
 * @param {"you" | "model" | "notice" | "problem"} who
 * @param {string} text
 */
function say(who, text) {
  page.welcome.hidden = true;
  const entry = made("div", `entry ${who}`, "");
  if (who === "you") entry.append(made("span", "who", "You"));
  if (who === "model") entry.append(made("span", "who", "Model"));
  if (who === "problem") entry.append(made("span", "who", "Problem"));
  const body = made("p", "body", text);
  entry.append(body);
  page.log.append(entry);
  page.log.scrollTop = page.log.scrollHeight;
  return { entry, body };
}

/** @param {string} text */
async function ask(text) {
  const connection = client;
  if (connection === null) return;
  say("you", text);
  const { entry, body } = say("model", "");
  entry.classList.add("pending");
  body.append(made("span", "dots", "…"));
  entry.setAttribute("aria-busy", "true");
  try {
    const done = await connection.send({ text });
    body.textContent = replyText(done);
    entry.append(made("span", "details", replyDetails(done)));
  } catch (error) {
    const known = error instanceof MessageError;
    entry.className = "entry problem";
    entry.querySelector(".who")?.replaceChildren("Problem");
    body.textContent = known ? error.message : "Something went wrong on this page.";
    if (known && error.failure.retryable) body.append(" You can send it again.");
  }
  entry.classList.remove("pending");
  entry.removeAttribute("aria-busy");
  page.log.scrollTop = page.log.scrollHeight;
}

/** @param {string} route */
function converse(route) {
  client?.close();
  const started = new SessionClient(routeUrl(location.href, route));
  client = started;
  // Another route or session may have been chosen by the time that this one speaks.
  const on = (/** @type {string} */ type, /** @type {(detail: any) => void} */ handle) =>
    started.addEventListener(type, (event) => {
      if (client === started && event instanceof CustomEvent) handle(event.detail);
    });
  let before = "";
  on("state", (state) => {
    page.dot.dataset.state = state;
    const text = stateText(state, started.reason);
    if (page.state.textContent !== text) page.state.textContent = text;
    page.send.disabled = state === "closed";
    if (state !== "open") showSession(null, null);
    if (state === "closed") say("notice", `${started.reason} Choose “New session” to go on.`);
  });
  on("opened", (opened) => {
    showSession(opened.session_id, opened.expires_at);
    if (before) say("notice", "This is a new session: the model has forgotten what was said.");
    before = opened.session_id;
  });
  on("updated", (updated) => showExpiry(updated.expires_at));
  on("expiring", (expiring) => {
    showExpiry(expiring.expires_at);
    say("notice", `This session expires soon: ${untilExpiry(expiring.expires_at, Date.now())}.`);
  });
  on("closed", ({ reason }) => say("notice", CLOSED[reason] ?? "The session has ended."));
  on("error", (error) => say("problem", error.message));
  started.connect();
}

/** @type {Record<string, string>} */
const CLOSED = {
  client: "You closed the session.",
  expired: "The session has expired.",
  lost: "The model has lost the session.",
  idle: "The session was unused for too long and has been closed.",
  model: "The model has closed the session.",
  operator: "The gateway is shutting down.",
};

/**
 * @param {string | null} sessionId
 * @param {string | null} expires
 */
function showSession(sessionId, expires) {
  page.session.textContent = sessionId === null ? "none" : `${sessionId.slice(0, 8)}…`;
  page.session.title = sessionId ?? "";
  showExpiry(sessionId === null ? undefined : expires);
}

/** @param {string | null | undefined} expires Undefined where there is no session. */
function showExpiry(expires) {
  expiresAt = expires ?? null;
  page.expiry.dateTime = expiresAt ?? "";
  page.expiry.title = expiresAt === null ? "" : new Date(expiresAt).toLocaleString();
  page.expiry.textContent = expires === undefined ? "–" : untilExpiry(expiresAt, Date.now());
}

function sendText() {
  const text = page.text.value.trim();
  if (text === "" || page.send.disabled) return;
  page.text.value = "";
  page.text.focus();
  void ask(text);
}

page.form.addEventListener("submit", (event) => {
  event.preventDefault();
  sendText();
});
page.text.addEventListener("keydown", (event) => {
  // Enter that ends the composition of a character is not Enter.
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    sendText();
  }
});
page.fresh.addEventListener("click", () => {
  converse(page.route.value);
  say("notice", "A new session begins.");
  page.text.focus();
});
page.route.addEventListener("change", () => {
  converse(page.route.value);
  say("notice", `Now speaking to the route ${page.route.value}, in a new session.`);
});
setInterval(() => {
  if (expiresAt !== null) page.expiry.textContent = untilExpiry(expiresAt, Date.now());
}, 1000);

try {
  const response = await fetch("/routes.json");
  /** @type {{ routes: string[], default: string }} */
  const { routes, default: first } = await response.json();
  for (const route of routes) page.route.add(new Option(route, route, route === first));
  converse(first);
} catch {
  page.state.textContent = "The gateway does not answer; reload the page to try again.";
}
