/**
 * When to reconnect after a connection was lost.
 *
 * @module
 */

import { backoff } from "./closing.js";

/** How long a connection must last to reset the backoff, in milliseconds. */
const STEADY = 5_000;
/** The shortest wait, in milliseconds. */
const LEAST = 250;

export class Retry {
  /** When the next attempt begins, as `Date.now()`; 0 if none is scheduled. */
  at = 0;
  #connect;
  /** The number of connections in a row that did not last. */
  #attempt = 0;
  /** When the connection got its session; 0 if it has none. */
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

  /** The session was opened or resumed. */
  opened() {
    this.#openedAt = Date.now();
  }

  /**
   * The connection was lost: schedule another, with backoff.
   * @param {object} how
   * @param {boolean} how.atOnce Without waiting.
   * @param {boolean} how.soon Without waiting, unless the one before did not last.
   * @param {number} how.after The minimum wait in seconds, if there is one.
   */
  schedule({ atOnce, soon, after }) {
    if (this.#openedAt > 0 && Date.now() - this.#openedAt >= STEADY) this.#attempt = 0;
    const now = atOnce || (soon && this.#attempt === 0);
    const wait = now ? 0 : Math.max(LEAST, backoff(this.#attempt, Math.random()), after * 1000);
    this.#attempt += 1;
    this.#timer = setTimeout(this.#connect, wait);
    this.at = Date.now() + wait;
  }

  /** Cancel the scheduled attempt. */
  cancel() {
    clearTimeout(this.#timer);
    this.at = 0;
  }

  /** Reset the backoff. */
  reset() {
    this.#attempt = 0;
  }
}
