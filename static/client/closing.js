/**
 * Why connections end, and when a client may reconnect: section 6 of PROTOCOL.md as a table.
 *
 * @module
 */

/** @typedef {"no" | "now" | "later" | "new"} Reconnect `new`: at once, to open a new session. */
/**
 * @typedef {object} CloseCode
 * @property {string} words For people.
 * @property {Reconnect} reconnect
 * @property {string} [error] The error code of messages that could not be sent for this reason, if
 *   sending them again is of no use.
 */
/**
 * What each close code means, and whether the client reconnects.
 * @type {ReadonlyMap<number, CloseCode>}
 */
export const CLOSE_CODES = new Map([
  [1000, { words: "The session was closed.", reconnect: "no" }],
  [1001, { words: "The gateway went away.", reconnect: "later" }],
  [1002, { words: "The client sent an invalid WebSocket frame.", reconnect: "no" }],
  [1006, { words: "The connection was lost.", reconnect: "later" }],
  [1007, { words: "A message was not valid UTF-8.", reconnect: "no" }],
  [1009, { words: "A message was too large.", reconnect: "no" }],
  [1011, { words: "The gateway had an internal error.", reconnect: "later" }],
  [1012, { words: "The gateway is restarting.", reconnect: "now" }],
  [4400, { words: "The client violated the protocol.", reconnect: "no" }],
  [
    4401,
    { words: "You are not signed in, or your sign-in has expired.", reconnect: "no", error: "unauthenticated" },
  ],
  [4403, { words: "You may not use this route.", reconnect: "no", error: "forbidden" }],
  [4404, { words: "The route does not exist.", reconnect: "no", error: "unknown_route" }],
  [4406, { words: "The gateway uses another version of the protocol.", reconnect: "no", error: "bad_message" }],
  [4408, { words: "The connection was silent for too long.", reconnect: "later" }],
  [4409, { words: "Another window took the session over.", reconnect: "no" }],
  [4410, { words: "The session is gone.", reconnect: "new" }],
  [4413, { words: "The client read too slowly.", reconnect: "later" }],
  [4429, { words: "There are too many connections, sessions or messages.", reconnect: "later" }],
  [4503, { words: "The gateway is full, or the endpoint unavailable.", reconnect: "later" }],
]);

export const LOST = 1006;
export const VIOLATION = 4400;
/** The close code of a connection whose token is missing, invalid or no longer valid. */
export const UNAUTHENTICATED = 4401;
export const FORBIDDEN = 4403;
export const SILENT = 4408;
/** The close code of a session that another window has taken over. */
export const TAKEN_OVER = 4409;
export const GONE = 4410;

/**
 * What a close code means; an unknown one is treated as a lost connection.
 * @param {number} code
 * @returns {CloseCode}
 */
export function describeClose(code) {
  return (
    CLOSE_CODES.get(code) ?? { words: `The connection was closed (${code}).`, reconnect: "later" }
  );
}

/**
 * Why a connection was lost, for people. The client reconnects while the device is offline too,
 * since a gateway on the device can still be reached; if that fails, this is why.
 * @param {number} code
 */
export function whyLost(code) {
  const offline = code === LOST && globalThis.navigator?.onLine === false;
  return offline ? "This device is offline." : describeClose(code).words;
}

/** The longest wait before another attempt to connect, in milliseconds. */
export const MAX_BACKOFF = 30_000;

/**
 * How long to wait before an attempt to connect: a random time up to a limit that doubles, so that
 * clients that were disconnected together do not reconnect together.
 * @param {number} attempt Counted from 0.
 * @param {number} random From 0 up to 1.
 * @returns {number} Milliseconds.
 */
export function backoff(attempt, random) {
  return Math.round(random * Math.min(MAX_BACKOFF, 500 * 2 ** attempt));
}

/** The timeout of the request for a refusal, in milliseconds. */
const REFUSAL = 15_000;

/**
 * Ask over HTTP why a handshake was refused: a page can't tell a refusal from an unreachable
 * gateway. With POST, a browser sends `Origin` to the page's own gateway too.
 * @param {string} url Of the WebSocket.
 * @returns {Promise<string | null>} The gateway's reason; null if it has not refused.
 */
export async function refusal(url) {
  const signal = AbortSignal.timeout(REFUSAL);
  try {
    const answer = await fetch(url.replace(/^ws/, "http"), { method: "POST", signal });
    const problem = answer.status === 403 ? await answer.json() : null;
    return problem?.code === "forbidden" ? problem.detail : null;
  } catch {
    return null; // unreachable, or something else answers in its place
  }
}
