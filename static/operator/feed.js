/**
 * Follows the gateway's overviews, and reconnects when the stream ends.
 *
 * @module
 */

import { backoff } from "../client/closing.js";
import { Problem } from "./api.js";

/** The silence after which the connection counts as lost, in milliseconds. */
const SILENT = 10_000;

/** @typedef {"connecting" | "live" | "unknown" | "forbidden" | "lost"} State */

/**
 * Dispatches `state` when that or its reason changes, and `overview` each second.
 */
export class Feed extends EventTarget {
  /** @param {import("./api.js").Api} api */
  constructor(api) {
    super();
    this.api = api;
    /** @type {State} */
    this.state = "connecting";
    this.reason = "";
    /** When the next attempt begins, in milliseconds since the epoch. */
    this.again = 0;
    this.attempt = 0;
    /** @type {AbortController | null} */
    this.under = null;
    /** @type {ReturnType<typeof setTimeout> | undefined} */
    this.timer = undefined;
  }

  /** Connect, or reconnect. */
  async start() {
    clearTimeout(this.timer);
    this.under?.abort();
    const under = (this.under = new AbortController());
    if (this.state !== "lost") this.become("connecting");
    /** @type {ReturnType<typeof setTimeout> | undefined} */
    let silence;
    try {
      const heard = () => {
        clearTimeout(silence);
        silence = setTimeout(() => under.abort(), SILENT);
      };
      heard();
      for await (const overview of this.api.watch(under.signal)) {
        heard();
        this.attempt = 0;
        this.become("live");
        this.dispatchEvent(new CustomEvent("overview", { detail: overview }));
      }
      if (this.under === under) this.lose("The gateway closed the connection.");
    } catch (error) {
      if (this.under !== under) return; // it was started again
      const status = error instanceof Problem ? error.status : 0;
      const reason = error instanceof Problem ? error.message : "The connection was lost.";
      if (status === 401) this.become("unknown", reason);
      else if (status === 403 || status === 421) this.become("forbidden", reason);
      else this.lose(reason);
    } finally {
      clearTimeout(silence);
    }
  }

  /** @param {string} reason */
  lose(reason) {
    const wait = backoff(this.attempt++, Math.random());
    this.again = Date.now() + wait;
    this.timer = setTimeout(() => this.start(), wait);
    this.become("lost", reason);
  }

  /**
   * @param {State} state
   * @param {string} [reason]
   */
  become(state, reason = "") {
    const isNew = this.state !== state || this.reason !== reason;
    this.state = state;
    this.reason = reason;
    if (isNew) this.dispatchEvent(new CustomEvent("state", { detail: state }));
  }
}
