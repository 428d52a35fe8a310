/**
 * The chat page: what the user does goes to the client, what the client has is shown.
 *
 * @module
 */

import { describeClose, SessionClient, TAKEN_OVER, Turn, UNAUTHENTICATED } from "./client.js";
import { Log } from "./log.js";
import {
  beginsToForget,
  FORGETS,
  isWithheld,
  questionText,
  replyText,
  routeUrl,
  stateText,
  stopText,
  untilExpiry,
} from "./view.js";

/** @typedef {import("./client.js").Note} Note */

const ROUTE_KEY = "session-gateway.route";

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
  announcer: element("announcer", HTMLElement),
  log: element("log", HTMLElement),
  welcome: element("welcome", HTMLElement),
  elsewhere: element("elsewhere", HTMLElement),
  here: element("here", HTMLButtonElement),
  question: element("question", HTMLElement),
  asked: element("asked", HTMLElement),
  anyway: element("anyway", HTMLButtonElement),
  edit: element("edit", HTMLButtonElement),
  discard: element("discard", HTMLButtonElement),
  signin: element("signin", HTMLFormElement),
  token: element("token", HTMLInputElement),
  known: element("known", HTMLElement),
  form: element("form", HTMLFormElement),
  text: element("text", HTMLTextAreaElement),
  stop: element("stop", HTMLButtonElement),
  send: element("send", HTMLButtonElement),
};

/** The tab's storage. A browser may be told to have none. */
const storage = (() => {
  try {
    return sessionStorage;
  } catch {
    return undefined;
  }
})();

/** @type {SessionClient | null} */
let client = null;
/** @type {Log | null} */
let log = null;
/** @type {string | null} */
let expiresAt = null;
/** Turns that have changed since the page was last painted. @type {Set<Turn>} */
const changed = new Set();
/** Whether what is in the message field was begun for a session that is gone. */
let stale = false;
/** Whether it was to be sent all the same, so that the user is asked. */
let asked = false;

/** @param {string} text What those hear who do not see it. */
function announce(text) {
  page.announcer.textContent = text;
}

/** @param {string} text */
function notice(text) {
  log?.say("notice", text);
  announce(text);
}

/** @param {Iterable<Turn | Note>} items */
function show(items) {
  log?.show(items);
  showStop();
  showQuestion();
}

function pending() {
  const turns = (client?.history ?? []).filter((item) => item instanceof Turn);
  return turns.filter((turn) => !turn.ended);
}

/** The turns whose answer is to come. */
function running() {
  return pending().filter((turn) => !turn.held);
}

/** The turns that wait for a word of the user's. */
function held() {
  return pending().filter((turn) => turn.held);
}

function showStop() {
  const first = running()[0];
  const focused = document.activeElement === page.stop;
  page.stop.hidden = first === undefined || client?.state === "closed";
  page.stop.disabled = first?.cancelling ?? false;
  page.stop.textContent = page.stop.disabled ? "Stopping …" : "Stop";
  if (focused && (page.stop.hidden || page.stop.disabled)) page.text.focus();
}

function stop() {
  running()
    .find((turn) => !turn.cancelling)
    ?.cancel();
}

/** Ask before anything goes to a session that it was not meant for. */
function showQuestion() {
  const count = held().length + Number(asked);
  if (count === 0 && page.question.contains(document.activeElement)) page.text.focus();
  page.question.hidden = count === 0;
  const text = count === 0 ? "" : questionText(count);
  if (page.asked.textContent !== text) page.asked.textContent = text; // which reads it out
}

/** The user has said what to do. */
function answered() {
  stale = asked = false;
  showQuestion();
  page.text.focus();
}

function sendAnyway() {
  const draft = asked;
  for (const turn of held()) turn.release();
  answered();
  if (draft) sendText();
}

function editBefore() {
  const texts = held().map((turn) => turn.sent?.text);
  page.text.value = [...texts, page.text.value].filter(Boolean).join("\n");
  for (const turn of held()) turn.cancel();
  answered();
}

function discard() {
  if (asked) page.text.value = "";
  for (const turn of held()) turn.cancel();
  answered();
}

/** @param {boolean} needed */
function showSignIn(needed) {
  if (needed === !page.signin.hidden) return;
  page.signin.hidden = !needed;
  if (!needed) return;
  if (client?.token !== undefined) page.known.textContent = `${client.reason} Sign in again.`;
  page.token.focus();
}

function signIn() {
  if (client === null) return;
  client.token = page.token.value.trim();
  page.token.value = "";
  client.connect();
  page.text.focus();
}

/** @param {SessionClient} started */
function follow(started) {
  const on = (/** @type {string} */ type, /** @type {(detail: any) => void} */ handle) =>
    started.addEventListener(type, (event) => {
      if (event instanceof CustomEvent) handle(event.detail);
    });
  const newest = () => {
    const note = started.history.findLast((item) => !(item instanceof Turn));
    if (note === undefined || note instanceof Turn) return;
    const words = log?.words(note);
    show([note]);
    if (words) announce(words);
  };
  on("state", (state) => {
    page.dot.dataset.state = state;
    const text = stateText(state, started.reason);
    if (page.state.textContent !== text) page.state.textContent = text;
    const closed = state === "closed";
    const taken = closed && started.code === TAKEN_OVER;
    page.elsewhere.hidden = !taken;
    showSignIn(closed && started.code === UNAUTHENTICATED);
    const useless = describeClose(started.code).error !== undefined;
    page.send.disabled = closed && (taken || useless);
    if (closed && !taken) {
      showSession(null, undefined);
      const next = "Write a message or choose “New session” to go on.";
      notice(useless ? started.reason : `${started.reason} ${next}`);
    }
    showStop();
  });
  on("turn", (turn) => {
    if (turn.ended) {
      changed.delete(turn);
      show([turn]);
      announce(spoken(turn));
    } else if (log?.has(turn)) {
      if (changed.size === 0) requestAnimationFrame(paint);
      changed.add(turn);
    } else {
      show([turn]);
    }
  });
  on("opened", (opened) => {
    showSession(opened.session_id, opened.expires_at);
    stale ||= opened.replaces !== null && page.text.value.trim() !== "";
    newest();
  });
  on("resumed", (resumed) => showSession(resumed.session_id, resumed.expires_at));
  on("renewed", (renewed) => {
    showExpiry(renewed.expires_at);
    newest();
  });
  on("gap", newest);
  on("updated", (updated) => showExpiry(updated.expires_at));
  on("expiring", (expiring) => {
    showExpiry(expiring.expires_at);
    notice(`This session expires soon: ${untilExpiry(expiring.expires_at, Date.now())}.`);
  });
  on("closed", () => {
    showSession(null, undefined);
    newest();
  });
  on("error", (error) => {
    // Every attempt to come back may fail for the same reason; once is enough to know it.
    if (log?.last !== error.message) log?.say("problem", error.message);
    announce(error.message);
  });
}

/** @param {Turn} turn That has ended. */
function spoken(turn) {
  if (!turn.ended) return "";
  if (turn.ended.error) return turn.ended.error.message;
  if (isWithheld(turn)) return "Not sent.";
  const stopped = turn.ended.status === "cancelled" ? ` ${stopText(turn.ended)}` : "";
  const forgets = beginsToForget(turn, client?.history ?? []) ? `${FORGETS} ` : "";
  return `${forgets}Model: ${replyText(turn.ended)}${stopped}`;
}

function paint() {
  const turns = [...changed];
  changed.clear();
  show(turns);
}

/**
 * @param {string | null} sessionId
 * @param {string | null | undefined} expires
 */
function showSession(sessionId, expires) {
  page.session.textContent = sessionId === null ? "none" : `${sessionId.slice(0, 8)}…`;
  page.session.title = sessionId ?? "";
  showExpiry(expires);
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
  if (client?.state === "closed") {
    stale = true;
    client.connect();
  }
  asked = stale;
  showQuestion();
  if (!page.question.hidden) {
    page.anyway.focus();
    return;
  }
  page.text.value = "";
  page.text.focus();
  client?.send({ text });
  log?.scrollToEnd();
}

/** @param {string} name */
function restart(name) {
  storage?.setItem(ROUTE_KEY, name);
  client?.restart(routeUrl(location.href, name));
  answered();
}

page.signin.addEventListener("submit", (event) => {
  event.preventDefault();
  signIn();
});
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
page.text.addEventListener("input", () => {
  if (page.text.value.trim() !== "") return;
  stale = asked = false; // what was begun is gone
  showQuestion();
});
page.anyway.addEventListener("click", sendAnyway);
page.edit.addEventListener("click", editBefore);
page.discard.addEventListener("click", discard);
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && !event.isComposing) stop();
});
page.stop.addEventListener("click", stop);
page.here.addEventListener("click", () => {
  client?.connect();
  page.text.focus();
});
page.fresh.addEventListener("click", () => restart(page.route.value));
page.route.addEventListener("change", () => restart(page.route.value));
setInterval(() => {
  if (expiresAt !== null) page.expiry.textContent = untilExpiry(expiresAt, Date.now());
}, 1000);

try {
  const response = await fetch("page.json");
  /** @type {{ routes: { name: string }[], default: string }} */
  const told = await response.json();
  const routes = told.routes.map(({ name }) => name);
  const usual = told.default;
  const before = storage?.getItem(ROUTE_KEY) ?? usual;
  const first = routes.includes(before) ? before : usual;
  for (const name of routes) page.route.add(new Option(name, name, false, name === first));
  client = new SessionClient(routeUrl(location.href, first), { storage, hold: true });
  log = new Log(page.log, page.welcome, client);
  show(client.history);
  log.scrollToEnd();
  follow(client);
  client.connect();
} catch {
  page.state.textContent = "The gateway does not answer; reload the page to try again.";
}
