/**
 * Finds out that the gateway is gone although the socket is not.
 *
 * @module
 */

export class Heartbeat {
  /** How many half heartbeats have passed without a message of the gateway's. */
  #quiet = 0;
  /** @type {ReturnType<typeof setInterval> | undefined} */
  #timer;
  #ping;
  #silent;

  /**
   * @param {() => void} ping Called after one silent heartbeat, until something is heard.
   * @param {() => void} silent Called after two.
   */
  constructor(ping, silent) {
    this.#ping = ping;
    this.#silent = silent;
  }

  /**
   * Half heartbeats are counted and no clock is read: while the page is in the background or the
   * machine asleep, nobody has asked the gateway for a sign of life.
   * @param {number} seconds Of a heartbeat.
   */
  start(seconds) {
    this.stop();
    this.#quiet = 0;
    this.#timer = setInterval(() => {
      this.#quiet += 1;
      if (this.#quiet > 4) this.#silent();
      else if (this.#quiet > 1) this.#ping();
    }, seconds * 500);
  }

  /** The gateway has sent something. */
  heard() {
    this.#quiet = 0;
  }

  stop() {
    clearInterval(this.#timer);
  }
}
