/**
 * The chat page: what the user does goes to the client, what the client has is shown.
 *
 * The conversation is the client's history. Each of its turns and notes is shown by a function that
 * brings what is on the page up to date, whether it is new, has changed, or is from before the page
 * was loaded.
 *
 * @module
 */

import { SessionClient, TAKEN_OVER, Turn } from "./client.js";
import {
  failureText,
  noteText,
  replyDetails,
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
/** @type {string | null} */
let expiresAt = null;
/** The route of the newest session that is shown. @type {string | null} */
let route = null;
/** What brings each turn and note that is shown up to date. @type {WeakMap<object, () => void>} */
const shown = new WeakMap();
/** Turns that have changed since the page was last painted. @type {Set<Turn>} */
const changed = new Set();

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
 * Add to the conversation, or change it; who reads its end goes on to see the end.
 * @param {() => void} change
 */
function inLog(change) {
  const { log } = page;
  const atEnd = log.scrollHeight - log.scrollTop - log.clientHeight < 48;
  change();
  if (atEnd) log.scrollTop = log.scrollHeight;
}

/** @type {Record<string, string>} */
const WHO = { you: "You", model: "Model", problem: "Problem" };

/**
 * Add an entry to the conversation.
 * @param {"you" | "model" | "notice" | "problem"} who
 * @param {string} text
 */
function say(who, text) {
  const entry = made("div", `entry ${who}`, "");
  const name = made("span", "who", WHO[who] ?? "");
  if (who in WHO) entry.append(name);
  const body = made("p", "body", text);
  entry.append(body);
  inLog(() => {
    page.welcome.hidden = true;
    page.log.append(entry);
  });
  return { entry, name, body };
}

/** @param {string} text What those hear who do not see it. */
function announce(text) {
  page.announcer.textContent = text;
}

/** @param {string} text */
function notice(text) {
  say("notice", text);
  announce(text);
}

/** @param {Turn} turn */
function showTurn(turn) {
  if (turn.sent) say("you", turn.sent.text ?? "(not text)");
  const { entry, name, body } = say("model", "");
  entry.classList.add("pending");
  entry.setAttribute("aria-busy", "true");
  const text = new Text();
  const dots = made("span", "dots", "…");
  body.append(text, dots);
  const details = made("span", "details", "");
  entry.append(details);
  let over = false;

  const remark = (/** @type {string} */ words) => details.before(made("p", "remark", words));

  const end = (/** @type {NonNullable<Turn["ended"]>} */ done) => {
    over = true;
    entry.classList.remove("pending");
    entry.removeAttribute("aria-busy");
    dots.remove();
    const reply = replyText(done);
    if (reply !== text.data) text.data = reply;
    if (turn.incomplete) remark("Part of this answer is missing.");
    if (done.error) {
      entry.classList.replace("model", "problem");
      name.textContent = "Problem";
      if (reply) remark(failureText(done.error));
      else text.data = failureText(done.error);
    } else if (done.status === "cancelled") {
      if (reply) remark(stopText(done));
      else text.data = stopText(done);
    }
    // What the client itself has ended took no time that anybody has measured.
    details.textContent = done.duration_ms > 0 ? replyDetails(done) : "";
    if (details.textContent === "") details.remove();
  };

  return () => {
    if (over) return;
    if (turn.text.startsWith(text.data)) text.appendData(turn.text.slice(text.length));
    dots.hidden = turn.text !== "";
    if (turn.ended) end(turn.ended);
    else if (turn.cancelling) details.textContent = "Stopping …";
    else details.textContent = turn.status === "waiting" ? "Waiting …" : "";
  };
}

/** @param {Note} note */
function showNote(note) {
  const words = noteText(note, route);
  if (note.type === "opened") route = note.detail.route;
  if (words) say("notice", words);
  return () => {};
}

/**
 * Bring what is shown of these up to date.
 * @param {Iterable<Turn | Note>} items
 */
function show(items) {
  for (const item of items) {
    let update = shown.get(item);
    if (!update) {
      update = item instanceof Turn ? showTurn(item) : showNote(item);
      shown.set(item, update);
    }
    inLog(update);
  }
  showStop();
}

/** The turns whose answer is to come. */
function running() {
  const turns = (client?.history ?? []).filter((item) => item instanceof Turn);
  return turns.filter((turn) => !turn.ended);
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

/** @param {SessionClient} started */
function follow(started) {
  const on = (/** @type {string} */ type, /** @type {(detail: any) => void} */ handle) =>
    started.addEventListener(type, (event) => {
      if (event instanceof CustomEvent) handle(event.detail);
    });
  const newest = () => {
    const note = started.history.at(-1);
    if (note === undefined || note instanceof Turn) return;
    const words = noteText(note, route);
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
    page.send.disabled = closed;
    if (closed && !taken) {
      showSession(null, undefined);
      notice(`${started.reason} Choose “New session” to go on.`);
    }
    showStop();
  });
  on("turn", (turn) => {
    if (turn.ended) {
      changed.delete(turn);
      show([turn]);
      announce(turn.ended.error ? turn.ended.error.message : `Model: ${spoken(turn)}`);
    } else if (shown.has(turn)) {
      if (changed.size === 0) requestAnimationFrame(paint);
      changed.add(turn);
    } else {
      show([turn]);
    }
  });
  on("opened", (opened) => {
    showSession(opened.session_id, opened.expires_at);
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
    const last = page.log.lastElementChild?.querySelector(".body")?.textContent;
    if (last !== error.message) say("problem", error.message);
    announce(error.message);
  });
}

/** @param {Turn} turn That has ended. */
function spoken(turn) {
  if (!turn.ended) return "";
  const stopped = turn.ended.status === "cancelled" ? ` ${stopText(turn.ended)}` : "";
  return replyText(turn.ended) + stopped;
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
  page.text.value = "";
  page.text.focus();
  client?.send({ text });
  page.log.scrollTop = page.log.scrollHeight;
}

/** @param {string} name */
function restart(name) {
  storage?.setItem(ROUTE_KEY, name);
  client?.restart(routeUrl(location.href, name));
  page.text.focus();
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
  const response = await fetch("routes.json");
  /** @type {{ routes: string[], default: string }} */
  const { routes, default: usual } = await response.json();
  const before = storage?.getItem(ROUTE_KEY) ?? usual;
  const first = routes.includes(before) ? before : usual;
  for (const name of routes) page.route.add(new Option(name, name, false, name === first));
  client = new SessionClient(routeUrl(location.href, first), { storage });
  show(client.history);
  page.log.scrollTop = page.log.scrollHeight;
  follow(client);
  client.connect();
} catch {
  page.state.textContent = "The gateway does not answer; reload the page to try again.";
}
