/**
 * A session that was told what was said before: opened over HTTP, gone on with over a WebSocket.
 *
 * @module
 */

import { Turn } from "./turns.js";

/** How long to wait for it, in milliseconds: opening a session at the model may take its time. */
const ANSWER = 60_000;

/** @typedef {{ role: "user" | "assistant", content: string }} Words */
/**
 * @typedef {object} Telling What a session may be told.
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
 * The newest of what was said, as the gateway takes it: the turns that were completed, in words.
 * @param {(Turn | import("./history.js").Note)[]} history
 * @param {Telling} limits
 * @returns {{ said: Words[], all: boolean }} `all`: whether nothing had to be left out.
 */
export function saidIn(history, { turns, bytes }) {
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
 * @param {import("./session.js").Token} [token]
 * @returns {Promise<{ session: { id: string, key: string }, context: Told["context"] } | null>} Null where
 *   the gateway opens none.
 */
export async function toldSession(url, history, token) {
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
