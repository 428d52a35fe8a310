/**
 * Sends the history of a conversation to the session that replaces a lost one. Such a session is
 * opened over HTTP, and resumed by a WebSocket.
 *
 * @module
 */

import { Turn } from "./turns.js";

/** The number of sessions in a row that get the history, if each is gone when it is resumed. */
const MAX_SENT = 3;
/** The timeout of the request, in milliseconds. Opening a session at the model can take long. */
const ANSWER = 60_000;

/** @typedef {{ role: "user" | "assistant", content: string }} Message */
/**
 * @typedef {object} HistoryLimits How much of a conversation a new session is sent, the newest of it.
 * @property {number} turns
 * @property {number} bytes Of text.
 */

/**
 * @typedef {object} SentHistory
 * @property {boolean} all Whether nothing was left out.
 * @property {"sent" | "replayed"} context `sent`: the model has both sides of the conversation.
 *   `replayed`: it was sent the user's messages again, and answered them anew.
 */

/**
 * @typedef {object} Restored
 * @property {{ id: string, key: string } | null} session The session that has the history; null if
 *   there is none.
 * @property {SentHistory | null} sentHistory
 * @property {boolean} forgets Whether there is a history that the next session won't have.
 */

/**
 * The newest completed turns, as the gateway expects them.
 * @param {(Turn | import("./history.js").Note)[]} history
 * @param {HistoryLimits} limits
 * @returns {{ messages: Message[], all: boolean }} `all`: whether nothing was left out.
 */
function messagesOf(history, { turns, bytes }) {
  const encoder = new TextEncoder();
  /** @type {Message[]} */
  const messages = [];
  let all = true;
  let left = bytes;
  for (const item of history.toReversed()) {
    if (!(item instanceof Turn)) continue;
    const asked = item.sent?.text;
    const answered = item.ended?.text;
    const whole = item.status === "completed" && !item.incomplete;
    if (!whole || asked === undefined || answered === undefined) {
      all &&= item.ended === null || item.ended.outcome === "not_invoked";
      continue;
    }
    left -= encoder.encode(asked).length + encoder.encode(answered).length;
    if (left < 0 || messages.length >= 2 * turns) {
      all = false;
      break;
    }
    messages.unshift({ role: "user", content: asked }, { role: "assistant", content: answered });
  }
  return { messages, all };
}

/**
 * Open a session that begins with a history.
 * @param {string} url Of the route's WebSocket, with its name.
 * @param {Message[]} history
 * @param {import("./connection.js").Token} [token]
 * @returns {Promise<{ session: { id: string, key: string }, context: SentHistory["context"] } | null>}
 *   Null if the gateway refuses, or can't be reached.
 */
async function openWith(url, history, token) {
  const address = url.replace(/^ws/, "http").replace(/\/ws\/([^/]+)$/, "/v1/routes/$1/sessions");
  try {
    const shown = typeof token === "function" ? await token() : token;
    const answer = await fetch(address, {
      method: "POST",
      headers: {
        "Content-Type": "application/json",
        ...(shown !== undefined && { Authorization: `Bearer ${shown}` }),
      },
      body: JSON.stringify({ history }),
      cache: "no-store",
      credentials: "omit",
      signal: AbortSignal.timeout(ANSWER),
    });
    if (answer.status !== 201) return null;
    const { session_id: id, resume_key: key, context } = await answer.json();
    return { session: { id, key }, context };
  } catch {
    return null;
  }
}

export class Restorer {
  #limits;
  /** The number of sessions that were sent a history since one was attached. */
  #count = 0;

  /** @param {HistoryLimits} limits */
  constructor(limits) {
    this.#limits = limits;
  }

  /**
   * Open a session that has the history, if there is any.
   * @param {(Turn | import("./history.js").Note)[]} history
   * @param {string} url Of the route's WebSocket.
   * @param {import("./connection.js").Token} [token]
   * @returns {Promise<Restored>}
   */
  async open(history, url, token) {
    const { messages, all } = messagesOf(history, this.#limits);
    const sends = messages.length > 0 && this.#count < MAX_SENT;
    const opened = sends ? await openWith(url, messages, token) : null;
    if (!opened) return { session: null, sentHistory: null, forgets: messages.length > 0 || !all };
    this.#count += 1;
    const sentHistory = { all, context: opened.context };
    return { session: opened.session, sentHistory, forgets: false };
  }

  /** A session was attached. */
  reset() {
    this.#count = 0;
  }
}
