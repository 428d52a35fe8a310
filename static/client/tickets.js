/**
 * Tickets: what a browser shows when it connects, since it can set no header then. Each is good for
 * one connection, and is had for a key or a token.
 *
 * @module
 */

/** How long to wait for one, in milliseconds. */
const ANSWER = 15_000;

/** The gateway gives none, and says why. */
export class NoTicket extends Error {
  /**
   * @param {string} words
   * @param {boolean} final Whether it would say the same again.
   */
  constructor(words, final) {
    super(words);
    this.final = final;
  }
}

/**
 * @param {string} url Of the route's WebSocket.
 * @param {string} token
 * @returns {Promise<string>}
 * @throws {NoTicket}
 */
export async function ticketFor(url, token) {
  const from = url.replace(/^ws/, "http").replace(/\/ws(\/[^/]*)?$/, "/v1/tickets");
  const answer = await asked(from, token);
  if (answer.status === 201) return (await answer.json()).ticket;
  const problem = await answer.json().catch(() => ({}));
  const final = answer.status === 401 || answer.status === 403;
  throw new NoTicket(problem.detail ?? `The gateway gives no ticket (${answer.status}).`, final);
}

/**
 * @param {string} url
 * @param {string} token
 */
async function asked(url, token) {
  try {
    return await fetch(url, {
      method: "POST",
      headers: { Authorization: `Bearer ${token}` },
      cache: "no-store",
      credentials: "omit",
      signal: AbortSignal.timeout(ANSWER),
    });
  } catch {
    throw new NoTicket("The connection was lost.", false);
  }
}
