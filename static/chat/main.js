/**
 * The chat page: passes the user's actions to the client, and shows its conversation.
 *
 * @module
 */

import { element } from "../dom.js";
import { Chats, isSeen, running } from "./chats.js";
import { Composer } from "./composer.js";
import { Conversations, newId } from "./conversations.js";
import { about, choose, chosen, dress } from "./dress.js";
import { follow, notice, sayEnded, sayUnsaved } from "./follow.js";
import { Question } from "./question.js";
import { Sidebar, titleText } from "./sidebar.js";
import { Status } from "./status.js";
import { size } from "./view.js";

/** @typedef {import("../client.js").Turn} Turn */
/** @typedef {import("./chats.js").Chat} Chat */
/** @typedef {import("./composer.js").Outgoing} Outgoing */
/** @typedef {import("./conversations.js").Summary} Summary */

const ROUTE_KEY = "session-gateway.route";
/** The last draft, if the page was closed before the database had saved it. */
const DRAFT_KEY = "session-gateway.draft";
/** Debounces saving a draft, in milliseconds. */
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
  gone: element("gone", HTMLElement),
  missing: element("missing", HTMLElement),
  instead: element("instead", HTMLButtonElement),
  form: element("form", HTMLFormElement),
  stop: element("stop", HTMLButtonElement),
  details: element("details", HTMLDialogElement),
  largest: element("largest", HTMLElement),
  forget: element("forget", HTMLButtonElement),
};

/**
 * The turn being edited in the message field, its text, and the draft that the field had before.
 * @type {{ turn: Turn, text: string, draft: string } | null}
 */
let edited = null;
/** @type {ReturnType<typeof setTimeout> | undefined} */
let typing;
/** Whether a conversation has been shown yet. */
let loaded = false;

// Most of the page's code shows conversations; import it without delaying the first paint.
const showing = import("./log.js");
const opening = Conversations.open("session-gateway").catch(() => null);
const gateway = await about();
const conversations = await opening;
const composer = new Composer({ send: sendDraft, changed: draftChanged });
const status = new Status({
  connect: () => chats.shown?.client.connect(),
  signIn,
  focus: () => composer.focus(),
});
const question = new Question({
  held,
  send: sendDraft,
  edit: (turns) => composer.putBack(turns.flatMap(asSent)),
  discard: () => {
    composer.clear();
    keepDraft();
  },
  focus: () => composer.focus(),
});
const chats = new Chats(conversations, gateway, {
  route: () => page.route.value,
  empty: () => composer.empty,
  draft,
  keepDraft: () => {
    if (typing !== undefined) keepDraft(); // else it may overwrite another window's
  },
  show,
  follow: (chat) => follow(chat, shared),
  read: (chat) => sayEnded(shared, chat),
  forget: (id) => composer.forget(id),
});
const sidebar =
  conversations &&
  new Sidebar(conversations, {
    open: (id) => chats.open(id),
    remove: (id) => chats.remove(id),
    attached: (id) => composer.attached(id),
    listed,
  });
const { Log } = await showing;
const log = new Log(page.log, page.welcome, {
  actions,
  fileName: (turn) => chats.shown?.names.get(turn.id),
});
const shared = { chats, composer, log, question, status, announce, changed };

/** @param {string} text For screen readers. */
function announce(text) {
  page.announcer.textContent = text;
}

// Conversations

/**
 * @param {Chat} chat
 * @param {string} draft
 */
function show(chat, draft) {
  const { id, route, client, titled, unsaved } = chat;
  const gone = route.gone === true;
  if (!gone) page.route.value = route.name;
  page.largest.textContent = gone ? "–" : size(route.message_bytes);
  page.missing.textContent = `The route “${route.name}” is no longer available. You can still read and export this conversation.`;
  page.gone.hidden = !gone;
  page.form.hidden = gone;
  const early = loaded ? "" : composer.text; // typed while the page was loading
  loaded = true;
  chat.writing = false;
  stopEditing();
  composer.show(id, [draft, early].filter(Boolean).join("\n"), route);
  log.use(client);
  if (unsaved) sayUnsaved(shared, unsaved);
  page.welcome.hidden = titled;
  question.forget();
  status.use(client, gone);
  changed();
  // On touch screens, focus would open a keyboard over the conversation.
  if (!matchMedia("(pointer: coarse)").matches) composer.focus();
  sidebar?.select(id);
  if (early) draftChanged();
}

async function begin() {
  await chats.begin();
  sidebar?.select(chats.shown?.id ?? "");
  composer.focus();
}

/** @param {Summary[]} all */
function listed(all) {
  const summary = all.find(({ id }) => id === chats.shown?.id);
  page.name.textContent = summary ? titleText(summary) : "New conversation";
  document.title = summary?.title ? `${summary.title} – ${gateway.title}` : gateway.title;
}

/**
 * Send messages in place of a turn, in a branch: a new conversation with the history before it.
 * @param {Turn} turn
 * @param {Outgoing[]} messages
 */
async function branch(turn, messages) {
  if (await chats.branch(turn, page.name.textContent ?? "")) {
    send(messages);
  } else {
    notice(shared, "This browser has no room for a branch, so nothing was sent.");
    composer.putBack(messages);
  }
}

/** @param {Turn} turn @returns {Outgoing[]} What it sent. */
function asSent({ id, sent }) {
  return sent ? [{ body: sent, name: chats.shown?.names.get(id) }] : [];
}

/**
 * The actions for one side of a turn.
 * @param {Turn} turn
 * @param {string} who
 * @returns {{ label: string, run: () => void }[]}
 */
function actions(turn, who) {
  const { sent, ended } = turn;
  const { route } = chats.shown ?? {};
  if (!sent || !ended || !route || route.gone) return [];
  const branches = conversations !== null && route.branches;
  if (who === "you") {
    const text = composer.wording(sent);
    return text === null ? [] : [{ label: "Edit", run: () => edit(text, branches ? turn : null) }];
  }
  return branches
    ? [{ label: "Regenerate", run: () => branch(turn, asSent(turn)) }]
    : [{ label: "Send again", run: () => send(asSent(turn)) }];
}

/**
 * @param {string} text
 * @param {Turn | null} turn The turn to replace; null to send at the end.
 */
function edit(text, turn) {
  if (turn) {
    edited = { turn, text, draft: draft() };
    composer.text = text;
  } else {
    composer.text = [text, composer.text].filter(Boolean).join("\n");
  }
  page.editing.hidden = edited === null;
  composer.focus();
  draftChanged();
}

function stopEditing() {
  edited = null;
  page.editing.hidden = true;
}

// Turns

/** Turns held until the user confirms them. */
function held() {
  return (chats.shown?.client.pending ?? []).filter((turn) => turn.held);
}

/** Turns that are waiting for their reply. */
function underWay() {
  return chats.shown ? running(chats.shown.client) : [];
}

/** Update the stop button and the question about held turns. */
function changed() {
  const first = underWay()[0];
  const focused = document.activeElement === page.stop;
  page.stop.hidden = first === undefined || chats.shown?.client.state === "closed";
  page.stop.disabled = first?.cancelling ?? false;
  const label = page.stop.disabled ? "Stopping …" : "Stop";
  if (page.stop.textContent !== label) page.stop.textContent = label;
  if (focused && (page.stop.hidden || page.stop.disabled)) composer.focus();
  question.show();
}

function stop() {
  underWay()
    .find((turn) => !turn.cancelling)
    ?.cancel();
}

// Sending

/** Connect if there is no connection, as there is something to send. */
function connect() {
  const { shown } = chats;
  if (!shown || shown.client.state !== "closed" || status.useless) return;
  const { client, route, warned } = shown;
  question.stale ||= isSeen(client) && !client.resumable && !route.branches && !warned;
  client.connect();
}

/** @param {Outgoing[]} messages */
function send(messages) {
  const { shown } = chats;
  if (!shown) return;
  connect();
  for (const { body, name } of messages) {
    const id = newId();
    if (name && (body.bytes || body.base64 !== undefined)) shown.names.set(id, name);
    shown.client.send(body, id);
  }
  log.scrollToEnd();
}

function sendDraft() {
  if (composer.empty || status.useless || !chats.shown) return;
  if (!edited) connect();
  if (!edited && !question.allows()) return;
  const messages = composer.take();
  if (messages === null) return;
  const { turn = null, draft: before = "" } = edited ?? {};
  stopEditing();
  composer.text = before;
  keepDraft();
  composer.focus();
  if (turn) branch(turn, messages);
  else send(messages);
}

function draftChanged() {
  if (chats.shown) chats.shown.writing = true;
  if (composer.empty) question.forget();
  else if (!edited) connect();
  clearTimeout(typing);
  typing = setTimeout(keepDraft, TYPING);
}

/** The draft to save, including an edited turn if its text was changed. */
function draft() {
  if (!edited) return composer.text;
  const wording = composer.text === edited.text ? "" : composer.text;
  return [wording, edited.draft].filter(Boolean).join("\n");
}

function keepDraft() {
  clearTimeout(typing);
  typing = undefined;
  if (!chats.shown) return;
  const { id } = chats.shown;
  if (lastWords().id === id) choose(DRAFT_KEY, "");
  conversations?.update(id, { draft: draft() }).catch(() => {}); // storage is full
}

/** @returns {{ id?: string, draft?: string }} The last draft of any conversation. */
function lastWords() {
  return JSON.parse(chosen(DRAFT_KEY) || "{}");
}

/** A page that is being closed has no time to write to the database. */
function keepLastWords() {
  if (typing === undefined || !chats.shown) return;
  choose(DRAFT_KEY, JSON.stringify({ id: chats.shown.id, draft: draft() }));
}

async function keptLastWords() {
  const { id, draft } = lastWords();
  choose(DRAFT_KEY, "");
  if (id) await conversations?.update(id, { draft });
}

/** @param {string} token */
function signIn(token) {
  chats.signIn(token);
  composer.focus();
}

// The page

page.route.addEventListener("change", () => {
  choose(ROUTE_KEY, page.route.value);
  begin();
});
for (const node of [page.fresh, page.instead]) node.addEventListener("click", begin);
page.stop.addEventListener("click", stop);
page.leave.addEventListener("click", () => {
  composer.text = edited?.draft ?? "";
  stopEditing();
  keepDraft();
  composer.focus();
});
page.forget.addEventListener("click", () => {
  page.details.close();
  chats.clear();
});
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && !event.isComposing && !document.querySelector("dialog[open]")) stop();
});
addEventListener("hashchange", () => chats.open(location.hash.slice(1)));
addEventListener("pagehide", keepLastWords);

dress(gateway, (text) => {
  const before = composer.text;
  composer.text = text;
  sendDraft();
  if (before === "") return;
  composer.text = [composer.text, before].filter(Boolean).join("\n");
  draftChanged();
});
page.route.value = chosen(ROUTE_KEY) ?? gateway.default;
if (page.route.selectedIndex < 0) page.route.value = gateway.default;
page.forget.hidden = conversations === null;
await keptLastWords().catch(() => {});
await conversations?.sweep().catch(() => {});
await chats.open(location.hash.slice(1));
