/**
 * Updates the page from the events of a conversation's client.
 *
 * @module
 */

import { describeClose, TAKEN_OVER, Turn } from "../client.js";
import { isSeen } from "./chats.js";
import { endedText, endText, untilExpiry } from "./view.js";

/** @typedef {import("../client.js").Note} Note */
/** @typedef {import("./chats.js").Chat} Chat */
/**
 * @typedef {object} Page
 * @property {import("./chats.js").Chats} chats
 * @property {import("./composer.js").Composer} composer
 * @property {import("./log.js").Log} log
 * @property {import("./question.js").Question} question
 * @property {import("./status.js").Status} status
 * @property {(text: string) => void} announce Announces a text to screen readers.
 * @property {() => void} changed Called when the turns or the state may have changed.
 */

/** The close code when this client closed the session. */
const CLOSED = 1000;

/**
 * @param {Page} page
 * @param {string} text
 */
export function notice({ log, announce }, text) {
  log.say("notice", text);
  announce(text);
}

/**
 * Show why a conversation has no session, and what sending another message will do.
 * @param {Page} page
 * @param {Chat} chat The chat shown.
 */
export function sayEnded(page, chat) {
  const { client, route, unsaved } = chat;
  const last = client.history.at(-1);
  const said = unsaved || (last && "type" in last && last.type === "closed");
  const plain = client.code === 0 || client.code === CLOSED ? "The session has ended." : client.reason;
  const why = said ? "" : plain;
  if (isSeen(client)) {
    // A message begun before this notice needs the user's confirmation.
    chat.warned = page.composer.empty && !route.branches;
    notice(page, `${why} ${endedText(route.branches !== null)}`.trim());
  } else if (why === client.reason && why) {
    notice(page, why);
  }
}

/**
 * Show that the current conversation could not be saved.
 * @param {Page} page
 * @param {any} error
 */
export function sayUnsaved(page, error) {
  const full = error?.name === "QuotaExceededError";
  const why = full ? "This browser has no room to save" : "This browser could not save";
  notice(page, `${why} this conversation. What you write will be lost when you close the page.`);
}

/**
 * Subscribe to a chat's client; its events are displayed while the chat is shown.
 * @param {Chat} chat
 * @param {Page} page
 */
export function follow(chat, page) {
  const { client } = chat;
  const { chats, composer, log, question, status, announce } = page;
  const on = (/** @type {string} */ type, /** @type {(detail: any) => void} */ handle) =>
    client.addEventListener(type, (event) => {
      if (chat !== chats.shown) chats.rest(chat);
      else if (event instanceof CustomEvent) handle(event.detail);
    });
  const show = (/** @type {Turn | Note} */ item) => {
    log.show([item]);
    page.changed();
  };
  const newest = () => {
    const note = client.history.findLast((item) => !(item instanceof Turn));
    if (note === undefined || note instanceof Turn) return;
    const words = log.words(note);
    show(note);
    if (words) announce(words);
  };
  on("restored", () => {
    log.use(client);
    page.changed();
  });
  client.addEventListener("unsaved", ({ detail: error }) => {
    const known = chat.unsaved !== null;
    chat.unsaved = error;
    if (chat === chats.shown && !known) sayUnsaved(page, error);
  });
  on("state", (state) => {
    // A new session is not needed until the user writes something.
    const idle = client.pending.length === 0 && (composer.empty || !chat.writing);
    if (state === "waiting" && !client.resumable && idle) {
      client.close(); // fires "state" again
      return;
    }
    status.show();
    if (state === "closed" && client.code !== TAKEN_OVER) {
      status.session(null);
      const useless = describeClose(client.code).error !== undefined;
      if (useless) notice(page, client.reason);
      else if (client.code !== 0) sayEnded(page, chat);
    }
    page.changed();
  });
  on("turn", (turn) => {
    show(turn);
    if (turn.ended) announce(endText(turn, log.forgets(turn)));
  });
  on("opened", (opened) => {
    status.session(opened);
    const forgotten = isSeen(client) && !opened.sentHistory && !chat.warned;
    question.stale ||= forgotten && !composer.empty;
    chat.warned = false;
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
    notice(page, `This session expires soon: ${untilExpiry(expiring.expires_at, Date.now())}.`);
  });
  on("closed", () => {
    status.session(null);
    newest();
  });
  on("error", (error) => {
    // Each reconnect may fail with the same error; show it once.
    if (log.last !== error.message) log.say("problem", error.message);
    announce(error.message);
  });
}
