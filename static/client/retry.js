/**
 * When to connect again after a connection was lost.
 *
 * @module
 */

import { backoff } from "./closing.js";

/** A connection that held for so many milliseconds was a good one. */
const STEADY = 5_000;
/** The shortest wait, in milliseconds. */
const LEAST = 250;

export class Retry {
  /** When that is, as `Date.now()`; 0 where there is nothing to wait for. */
  at = 0;
  #connect;
  /** How many connections in a row were lost before they were good ones. */
  #attempt = 0;
  /** When the connection got its session; 0 if it has not. */
  #openedAt = 0;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #timer;

  /** @param {() => void} connect */
  constructor(connect) {
    this.#connect = connect;
  }

  /** A connection is being made. */
  connecting() {
    this.#openedAt = 0;
  }

  /** It has its session. */
  opened() {
    this.#openedAt = Date.now();
  }

  /**
   * The connection was lost: make another one, later and later.
   * @param {object} how
   * @param {boolean} how.atOnce Without waiting.
   * @param {boolean} how.soon Without waiting, unless the last one was lost too.
   * @param {number} how.after Not before so many seconds, unless it is at once.
   */
  schedule({ atOnce, soon, after }) {
    if (this.#openedAt > 0 && Date.now() - this.#openedAt >= STEADY) this.#attempt = 0;
    const now = atOnce || (soon && this.#attempt === 0);
    const wait = now ? 0 : Math.max(LEAST, backoff(this.#attempt, Math.random()), after * 1000);
    this.#attempt += 1;
    this.#timer = setTimeout(this.#connect, wait);
    this.at = Date.now() + wait;
  }

  /** Make none, until another is lost. */
  cancel() {
    clearTimeout(this.#timer);
    this.at = 0;
  }

  /** Forget the connections that were lost. */
  reset() {
    this.#attempt = 0;
  }
}
