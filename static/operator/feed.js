/**
 * What goes on, for as long as somebody looks: begun again when it breaks off.
 *
 * @module
 */

import { backoff } from "../client/closing.js";
import { Problem } from "./api.js";

/** After so many milliseconds of silence the gateway is taken for lost. */
const SILENT = 10_000;

/** @typedef {"connecting" | "live" | "unknown" | "forbidden" | "lost"} State */

/**
 * Emits `state` when that changes, and `overview` each second with what goes on as its detail.
 */
export class Feed extends EventTarget {
  /** @param {import("./api.js").Api} api */
  constructor(api) {
    super();
    this.api = api;
    /** @type {State} */
    this.state = "connecting";
    this.reason = "";
    /** When it is tried again, in milliseconds since the epoch. */
    this.again = 0;
    this.attempt = 0;
    /** @type {AbortController | null} */
    this.under = null;
    /** @type {ReturnType<typeof setTimeout> | undefined} */
    this.timer = undefined;
  }

  /** Begin, or begin again. */
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
      if (this.under !== under) return; // it was begun again
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
