/**
 * Detects that the gateway is gone although the socket is still open.
 *
 * @module
 */

export class Heartbeat {
  /** The number of half heartbeats since the gateway's last message. */
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
   * Half heartbeats are counted instead of reading a clock: while the page is in the background or
   * the machine asleep, no pings were sent that the gateway should have answered.
   * @param {number} seconds The heartbeat.
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
