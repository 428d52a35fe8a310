/**
 * A session that was told what was said before: opened over HTTP, gone on with over a WebSocket.
 *
 * @module
 */

import { Turn } from "./turns.js";

/** How many sessions in a row are told something, if each is gone when it is resumed. */
const MAX_TOLD = 3;
/** How long to wait for it, in milliseconds: opening a session at the model may take its time. */
const ANSWER = 60_000;

/** @typedef {{ role: "user" | "assistant", content: string }} Words */
/**
 * @typedef {object} Limits What a session may be told.
 * @property {number} turns At most so many.
 * @property {number} bytes At most so much of text.
 */

/**
 * @typedef {object} Told
 * @property {boolean} all Whether nothing had to be left out.
 * @property {"told" | "replayed"} context Whether it knows both sides' words, or was sent the user's
 *   again and has answered anew.
 */

/**
 * @typedef {object} Telling
 * @property {{ id: string, key: string } | null} session That was told; null where there is none.
 * @property {Told | null} told What it was told.
 * @property {boolean} untold Whether there was something that it could not be told.
 */

/**
 * The newest of what was said, as the gateway takes it: the turns that were completed, in words.
 * @param {(Turn | import("./history.js").Note)[]} history
 * @param {Limits} limits
 * @returns {{ said: Words[], all: boolean }} `all`: whether nothing had to be left out.
 */
function saidIn(history, { turns, bytes }) {
  const encoder = new TextEncoder();
  /** @type {Words[]} */
  const said = [];
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
    if (left < 0 || said.length >= 2 * turns) {
      all = false;
      break;
    }
    said.unshift({ role: "user", content: asked }, { role: "assistant", content: answered });
  }
  return { said, all };
}

/**
 * @param {string} url Of the route's WebSocket, with its name.
 * @param {Words[]} history
 * @param {import("./connection.js").Token} [token]
 * @returns {Promise<{ session: { id: string, key: string }, context: Told["context"] } | null>} Null where
 *   the gateway opens none.
 */
async function toldSession(url, history, token) {
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

export class Teller {
  #limits;
  /** How many sessions were told something since the last that was attached. */
  #told = 0;

  /** @param {Limits} limits */
  constructor(limits) {
    this.#limits = limits;
  }

  /**
   * @param {(Turn | import("./history.js").Note)[]} history
   * @param {string} url Of the route's WebSocket.
   * @param {import("./connection.js").Token} [token]
   * @returns {Promise<Telling>}
   */
  async tell(history, url, token) {
    const { said, all } = saidIn(history, this.#limits);
    const tells = said.length > 0 && this.#told < MAX_TOLD;
    const opened = tells ? await toldSession(url, said, token) : null;
    if (!opened) return { session: null, told: null, untold: said.length > 0 || !all };
    this.#told += 1;
    return { session: opened.session, told: { all, context: opened.context }, untold: false };
  }

  /** A session was attached. */
  reset() {
    this.#told = 0;
  }
}
