/**
 * Tickets authenticate WebSockets, on which browsers can't set headers. An API key or token is
 * exchanged for a ticket, which is valid for one connection.
 *
 * @module
 */

/** The timeout of the request, in milliseconds. */
const ANSWER = 15_000;

/** No ticket could be had; the message says why. */
export class NoTicket extends Error {
  /**
   * @param {string} words
   * @param {boolean} final Whether another attempt would fail too.
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
