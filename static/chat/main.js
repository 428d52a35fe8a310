/**
 * The chat page: what the user does goes to the client, what the client has is shown.
 *
 * @module
 */

import { describeClose, SessionClient, TAKEN_OVER, Turn } from "../client.js";
import { element } from "../dom.js";
import { Composer } from "./composer.js";
import { Conversations, newId } from "./conversations.js";
import { about, choices, dress } from "./dress.js";
import { Question } from "./question.js";
import { Sidebar, titleText } from "./sidebar.js";
import { Status } from "./status.js";
import { endText, routeUrl, size, untilExpiry } from "./view.js";

/** @typedef {import("../client.js").Body} Body */
/** @typedef {import("../client.js").Note} Note */
/** @typedef {import("./conversations.js").Summary} Summary */
/** @typedef {import("./dress.js").Route} Route */
/**
 * @typedef {object} Shown
 * @property {string} id
 * @property {Route} route
 * @property {SessionClient} client
 * @property {boolean} said Whether anything was said in it before it was shown.
 * @property {boolean} unsaved Whether the user knows that it can't be kept.
 */

const ROUTE_KEY = "session-gateway.route";
/** How long to wait for the end of a word before a draft is kept, in milliseconds. */
const TYPING = 300;

const page = {
  name: element("name", HTMLElement),
  route: element("route", HTMLSelectElement),
  fresh: element("fresh", HTMLButtonElement),
  announcer: element("announcer", HTMLElement),
  log: element("log", HTMLElement),
  welcome: element("welcome", HTMLElement),
  editing: element("editing", HTMLElement),
  leave: element("leave", HTMLButtonElement),
  stop: element("stop", HTMLButtonElement),
  details: element("details", HTMLDialogElement),
  largest: element("largest", HTMLElement),
  forget: element("forget", HTMLButtonElement),
};

// What shows a conversation is most of the page, and nothing has to wait for it to be painted.
const showing = import("./log.js");
const opening = Conversations.open("session-gateway").catch(() => null);
const gateway = await about();
const conversations = await opening;
const composer = new Composer({ send: sendDraft, changed: draftChanged });
const status = new Status({ connect: () => shown?.client.connect(), signIn });
const question = new Question({
  held,
  send: sendDraft,
  edit: (texts) => {
    composer.text = [...texts, composer.text].filter(Boolean).join("\n");
  },
  discard: () => composer.clear(),
  focus: () => composer.focus(),
});
const sidebar = conversations && new Sidebar(conversations, { open, remove, listed });
const { Log } = await showing;
const log = new Log(page.log, page.welcome, { actions });

/** @type {Shown | null} */
let shown = null;
/** Those that are not shown, and whose answer is under way. @type {Map<string, SessionClient>} */
const background = new Map();
/** Who the user is, where the gateway asks. @type {string | undefined} */
let token;
/** The turn that the message field has another wording of. @type {Turn | null} */
let edited = null;
/** @type {ReturnType<typeof setTimeout> | undefined} */
let typing;

/** @param {string} text What those hear who do not see it. */
function announce(text) {
  page.announcer.textContent = text;
}

/** @param {string} text */
function notice(text) {
  log.say("notice", text);
  announce(text);
}

/** The client says it too, when it keeps what was said. */
const unkept = () => undefined;

/** @param {Iterable<Turn | Note>} items */
function show(items) {
  log.show(items);
  showStop();
  question.show();
}

// Conversations

/** @param {string} name */
function routeOf(name) {
  const { routes } = gateway;
  return routes.find((route) => route.name === name) ?? routes[0];
}

/**
 * Show a conversation that is kept.
 * @param {string} id
 */
async function open(id) {
  const kept = (await conversations?.list())?.find((each) => each.id === id);
  if (kept) await use(id, routeOf(kept.route), kept);
  else await begin();
}

/** Begin a new conversation on the route that is chosen. */
async function begin() {
  const id = newId();
  const route = routeOf(page.route.value);
  if (shown && unused() && shown.route === route) {
    composer.focus();
    return;
  }
  await use(id, route, await conversations?.create(id, route.name).catch(unkept));
}

/**
 * @param {string} id
 * @param {Route} route
 * @param {Summary} [summary]
 */
async function use(id, route, summary) {
  if (shown?.id === id) return;
  leave();
  const running = background.get(id);
  background.delete(id);
  const client =
    running ??
    new SessionClient(routeUrl(location.href, route.name), {
      storage: conversations?.journal(id, route.name),
      hold: true,
      tell: route.branches ? { turns: route.history_turns, bytes: route.history_bytes } : undefined,
      token,
    });
  shown = { id, route, client, said: Boolean(summary?.title), unsaved: false };
  history.replaceState(null, "", `#${id}`);
  page.route.value = route.name;
  page.largest.textContent = size(route.message_bytes);
  composer.limits = route;
  composer.clear();
  composer.text = summary?.draft ?? "";
  log.use(client);
  stopEditing();
  question.forget();
  if (!running) {
    follow(client);
    client.connect();
  }
  status.use(client);
  showStop();
  composer.focus();
  await sidebar?.select(id);
}

/** Whether nothing was said or written in the conversation that is shown. */
function unused() {
  const said = shown?.said || shown?.client.history.some((item) => item instanceof Turn);
  return composer.empty && !said;
}

/** Leave what is shown; an answer that is under way goes on. */
function leave() {
  if (!shown) return;
  const { id, client } = shown;
  if (unused()) {
    shown = null;
    client.close();
    conversations?.discard(id).catch(unkept);
    return;
  }
  keepDraft();
  shown = null;
  if (client.state !== "closed" && running(client).length > 0) background.set(id, client);
  else client.detach();
}

/** @param {SessionClient} client That is not shown, and has told something. */
function rest(client) {
  if (running(client).length > 0) return;
  for (const [id, other] of background) {
    if (other !== client) continue;
    background.delete(id);
    client.detach();
  }
}

/** @param {Summary[]} all */
function listed(all) {
  const summary = all.find(({ id }) => id === shown?.id);
  page.name.textContent = summary ? titleText(summary) : "New conversation";
  document.title = summary?.title ? `${summary.title} – ${gateway.title}` : gateway.title;
}

/** @param {string} id */
async function remove(id) {
  const here = shown?.id === id;
  const client = here ? shown?.client : background.get(id);
  client?.close();
  background.delete(id);
  if (here) shown = null;
  await conversations?.remove(id).catch(unkept);
  if (here) await begin();
}

async function forgetAll() {
  page.details.close();
  const others = ((await conversations?.list()) ?? []).filter(({ id }) => id !== shown?.id);
  for (const { id } of others) await remove(id);
  if (shown) await remove(shown.id);
}

/**
 * Say something in a turn's place: in a new conversation, which knows what was said before it.
 * @param {Turn} turn
 * @param {Body[]} bodies
 */
async function branch(turn, bodies) {
  if (!shown || !conversations) return;
  const { route, client } = shown;
  const before = client.history.slice(0, client.history.indexOf(turn));
  const items = before.some((item) => item instanceof Turn) ? before : [];
  const title = items.length > 0 ? `${page.name.textContent} (branch)` : "";
  const id = newId();
  const from = { title, url: client.url, items };
  const summary = await conversations.create(id, route.name, from).catch(unkept);
  if (!summary) {
    notice("This browser has no room for a branch, so that nothing was sent.");
    composer.text ||= bodies.at(-1)?.text ?? "";
    return;
  }
  const used = use(id, route, summary);
  send(bodies); // before the user can show another one
  await used;
}

/**
 * What the user may do with one side of a turn.
 * @param {Turn} turn
 * @param {string} who
 * @returns {{ label: string, run: () => void }[]}
 */
function actions(turn, who) {
  const { sent, ended } = turn;
  if (!sent || !ended) return [];
  const branches = conversations !== null && shown?.route.branches;
  if (who === "you") {
    const { text } = sent;
    if (text === undefined) return [];
    return [{ label: "Edit", run: () => edit(text, branches ? turn : null) }];
  }
  return branches
    ? [{ label: "Regenerate", run: () => branch(turn, [sent]) }]
    : [{ label: "Send again", run: () => send([sent]) }];
}

/**
 * @param {string} text
 * @param {Turn | null} turn In whose place it is to be said; null: at the end.
 */
function edit(text, turn) {
  composer.text = text;
  edited = turn;
  page.editing.hidden = turn === null;
  composer.focus();
}

function stopEditing() {
  edited = null;
  page.editing.hidden = true;
}

// What is under way

/** The turns whose answer is to come. @param {SessionClient} [client] */
function running(client = shown?.client) {
  return (client?.pending ?? []).filter((turn) => !turn.held);
}

/** The turns that wait for a word of the user's. */
function held() {
  return (shown?.client.pending ?? []).filter((turn) => turn.held);
}

function showStop() {
  const first = running()[0];
  const focused = document.activeElement === page.stop;
  page.stop.hidden = first === undefined || shown?.client.state === "closed";
  page.stop.disabled = first?.cancelling ?? false;
  const label = page.stop.disabled ? "Stopping …" : "Stop";
  if (page.stop.textContent !== label) page.stop.textContent = label;
  if (focused && (page.stop.hidden || page.stop.disabled)) composer.focus();
}

function stop() {
  running()
    .find((turn) => !turn.cancelling)
    ?.cancel();
}

/** @param {Body[]} bodies */
function send(bodies) {
  for (const body of bodies) shown?.client.send(body);
  log.scrollToEnd();
}

function sendDraft() {
  if (composer.empty || status.useless || !shown) return;
  const { client } = shown;
  if (client.state === "closed") {
    question.stale = !shown.route.branches;
    client.connect();
  }
  if (!question.allows()) return;
  const bodies = composer.take();
  if (bodies === null) return;
  const turn = edited;
  stopEditing();
  keepDraft();
  composer.focus();
  if (turn) branch(turn, bodies);
  else send(bodies);
}

function draftChanged() {
  if (composer.text.trim() === "") question.forget();
  clearTimeout(typing);
  typing = setTimeout(keepDraft, TYPING);
}

function keepDraft() {
  clearTimeout(typing);
  if (!shown) return;
  conversations?.update(shown.id, { draft: edited ? "" : composer.text }).catch(unkept);
}

/** @param {string} shownToken */
function signIn(shownToken) {
  token = shownToken;
  if (!shown) return;
  shown.client.token = token;
  shown.client.connect();
  composer.focus();
}

// What the client says

/** @param {SessionClient} client */
function follow(client) {
  const on = (/** @type {string} */ type, /** @type {(detail: any) => void} */ handle) =>
    client.addEventListener(type, (event) => {
      if (client !== shown?.client) rest(client);
      else if (event instanceof CustomEvent) handle(event.detail);
    });
  const newest = () => {
    const note = client.history.findLast((item) => !(item instanceof Turn));
    if (note === undefined || note instanceof Turn) return;
    const words = log.words(note);
    show([note]);
    if (words) announce(words);
  };
  on("restored", () => {
    log.use(client);
    showStop();
    question.show();
  });
  on("unsaved", () => {
    if (!shown || shown.unsaved) return;
    shown.unsaved = true;
    notice("This browser has no room to keep this conversation.");
  });
  on("state", (state) => {
    status.show();
    if (state === "closed" && client.code !== TAKEN_OVER) {
      status.session(null);
      const useless = describeClose(client.code).error !== undefined;
      const next = "Write a message or begin a new conversation to go on.";
      if (client.reason) notice(useless ? client.reason : `${client.reason} ${next}`);
    }
    showStop();
  });
  on("turn", (turn) => {
    show([turn]);
    if (turn.ended) announce(endText(turn, client.history));
  });
  on("opened", (opened) => {
    status.session(opened);
    const forgotten = opened.replaces !== null && !opened.told;
    question.stale ||= forgotten && composer.text.trim() !== "";
    newest();
  });
  on("resumed", (resumed) => status.session(resumed));
  on("renewed", (renewed) => {
    status.expires(renewed.expires_at);
    newest();
  });
  on("gap", newest);
  on("updated", (updated) => status.expires(updated.expires_at));
  on("expiring", (expiring) => {
    status.expires(expiring.expires_at);
    notice(`This session expires soon: ${untilExpiry(expiring.expires_at, Date.now())}.`);
  });
  on("closed", () => {
    status.session(null);
    newest();
  });
  on("error", (error) => {
    // Every attempt to come back may fail for the same reason; once is enough to know it.
    if (log.last !== error.message) log.say("problem", error.message);
    announce(error.message);
  });
}

// The page

page.route.addEventListener("change", () => {
  choices?.setItem(ROUTE_KEY, page.route.value);
  begin();
});
page.fresh.addEventListener("click", begin);
page.stop.addEventListener("click", stop);
page.leave.addEventListener("click", () => {
  stopEditing();
  composer.clear();
  composer.focus();
});
page.forget.addEventListener("click", forgetAll);
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && !event.isComposing && !document.querySelector("dialog[open]")) stop();
});
addEventListener("hashchange", () => open(location.hash.slice(1)));
addEventListener("pagehide", keepDraft);

dress(gateway, (text) => {
  composer.text = text;
  sendDraft();
});
page.route.value = routeOf(choices?.getItem(ROUTE_KEY) ?? gateway.default).name;
page.forget.hidden = conversations === null;
await conversations?.sweep().catch(unkept);
await open(location.hash.slice(1));
