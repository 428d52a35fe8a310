/**
 * Why connections end, and when a client may come back.
 *
 * @module
 */

/** @typedef {"no" | "now" | "later" | "new"} ComeBack With `new`: at once, with a new session. */
/** @typedef {{ words: string, comeBack: ComeBack }} CloseCode */
/**
 * What each close code means, and whether the client may come back to its session.
 * @type {ReadonlyMap<number, CloseCode>}
 */
export const CLOSE_CODES = new Map([
  [1000, { words: "The session was closed.", comeBack: "no" }],
  [1001, { words: "The gateway went away.", comeBack: "later" }],
  [1006, { words: "The connection was lost.", comeBack: "later" }],
  [1007, { words: "A message was not valid text.", comeBack: "no" }],
  [1009, { words: "A message was too large.", comeBack: "no" }],
  [1011, { words: "The gateway had an internal error.", comeBack: "later" }],
  [1012, { words: "The gateway is restarting.", comeBack: "now" }],
  [4400, { words: "The client broke the protocol.", comeBack: "no" }],
  [4401, { words: "You are not signed in, or no longer.", comeBack: "no" }],
  [4403, { words: "You may not use this route.", comeBack: "no" }],
  [4404, { words: "There is no such route.", comeBack: "no" }],
  [4406, { words: "The gateway speaks another version.", comeBack: "no" }],
  [4408, { words: "The connection was silent for too long.", comeBack: "later" }],
  [4409, { words: "The session was taken over by another window.", comeBack: "no" }],
  [4410, { words: "The session is gone.", comeBack: "new" }],
  [4413, { words: "This client was too slow.", comeBack: "later" }],
  [4429, { words: "There are too many connections or messages.", comeBack: "later" }],
  [4503, { words: "The model's endpoint is unavailable or full.", comeBack: "later" }],
]);

export const LOST = 1006;
export const SILENT = 4408;
/** Another window has taken the session. */
export const TAKEN_OVER = 4409;
export const GONE = 4410;

/**
 * What a close code means; an unknown one is taken for a lost connection.
 * @param {number} code
 * @returns {CloseCode}
 */
export function describeClose(code) {
  return (
    CLOSE_CODES.get(code) ?? { words: `The connection was closed (${code}).`, comeBack: "later" }
  );
}

/** The longest wait before a further attempt, in milliseconds. */
export const MAX_BACKOFF = 30_000;

/**
 * How long to wait before an attempt: anywhere up to a bound that doubles, so that many clients
 * that were cut off together do not come back together.
 * @param {number} attempt Counted from 0.
 * @param {number} random From 0 up to 1.
 * @returns {number} Milliseconds.
 */
export function backoff(attempt, random) {
  return Math.round(random * Math.min(MAX_BACKOFF, 500 * 2 ** attempt));
}
