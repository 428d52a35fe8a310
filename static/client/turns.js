/**
 * One message and its reply, as applications see them.
 *
 * @module
 */

import { fromBase64 } from "./base64.js";
import { MessageError } from "./errors.js";

/** @typedef {import("./errors.js").Failure} Failure */
/** @typedef {import("./errors.js").Outcome} Outcome */
/**
 * @typedef {object} Done
 * @property {string} id
 * @property {"completed" | "cancelled" | "failed"} status
 * @property {string} [text] The reply, streamed or not; `json` and `base64` likewise.
 * @property {unknown} [json]
 * @property {string} [base64]
 * @property {string} [content_type]
 * @property {string} [invoked_production_variant]
 * @property {number} deltas The number of parts that the reply arrived in; 0 if it was not streamed.
 * @property {number} duration_ms
 * @property {number} [dropped_turns] How many of the oldest turns were left out because they no longer
 *   fit, on routes where the gateway sends the model the conversation.
 * @property {Outcome} [outcome] Whether the model saw a message that was cancelled.
 * @property {Failure} [error]
 */
/**
 * @typedef {object} Body Exactly one of `text`, `json`, `base64` and `bytes`, and the protocol's
 *   options.
 * @property {string} [text]
 * @property {unknown} [json]
 * @property {string} [base64]
 * @property {ArrayBuffer | ArrayBufferView} [bytes] Like `base64`, but not encoded.
 * @property {boolean} [stream] `false` asks for the reply in one piece, on a route that streams.
 * @property {string} [content_type]
 * @property {string} [accept]
 */

/**
 * A message and the reply to it.
 *
 * Await it for its end: `await turn` gives {@link Done} if the turn completed or was cancelled, and
 * throws a {@link MessageError} if it failed or was refused. Iterate over it for the parts of the
 * reply, from the first one: strings, or `Uint8Array`s if the reply is not text. Leaving the loop
 * does not cancel the turn.
 */
export class Turn {
  /** The reply so far. */
  text = "";
  /** @type {"waiting" | "running" | Done["status"]} */
  status = "waiting";
  /**
   * How far the message has come: one that is only `stored` was never sent to the gateway. `unknown`:
   * events were lost that may have been about it, so the gateway is asked.
   * @type {"stored" | "written" | "accepted" | "unknown"}
   */
  delivery = "stored";
  /**
   * For the conversation: whether it is stored as not written, so that a reload would write it
   * again.
   */
  keptUnwritten = false;
  /** Whether it waits for `release()`, since the session that it was written for is gone. */
  held = false;
  /** Whether it is being cancelled. */
  cancelling = false;
  /** Whether parts of the reply are missing. */
  incomplete = false;
  /** How the turn has ended, also if it failed. @type {Done | null} */
  ended = null;
  /** When no turn was ahead of it any more, as `Date.now()`. @type {number | null} */
  startedAt = null;
  /** When the first part of its reply arrived, as `Date.now()`. @type {number | null} */
  firstAt = null;

  /** @type {(string | Uint8Array)[]} */
  #parts = [];
  /** @type {string[]} */
  #base64 = [];
  #deltas = 0;
  /** The end as the gateway reported it. @type {Done | null} */
  #reported = null;
  /** @type {(() => void)[]} */
  #readers = [];
  /** @type {(done: Done) => void} */
  #resolve = () => {};
  /** @type {(error: Error) => void} */
  #reject = () => {};

  /**
   * @param {string} id
   * @param {Body | null} sent Null if another window sent it.
   * @param {{ cancel(id: string): void, release(id: string): void }} conversation
   */
  constructor(id, sent, conversation) {
    this.id = id;
    this.sent = sent;
    /** Cancel it; `await turn` then gives the outcome. */
    this.cancel = () => {
      if (!this.ended) conversation.cancel(id);
    };
    /** Send it, if it is held. */
    this.release = () => {
      if (!this.ended) conversation.release(id);
    };
    /** The turn as a plain promise. @type {Promise<Done>} */
    this.done = new Promise((resolve, reject) => {
      this.#resolve = resolve;
      this.#reject = reject;
    });
    this.done.catch(() => {}); // not an unhandled rejection: `ended` has the error too
  }

  /**
   * @template [A=Done]
   * @template [B=never]
   * @param {((done: Done) => A | PromiseLike<A>) | null} [fulfilled]
   * @param {((error: any) => B | PromiseLike<B>) | null} [rejected]
   */
  then(fulfilled, rejected) {
    return this.done.then(fulfilled, rejected);
  }

  /**
   * @template [B=never]
   * @param {((error: any) => B | PromiseLike<B>) | null} [rejected]
   */
  catch(rejected) {
    return this.done.catch(rejected);
  }

  /** @param {(() => void) | null} [settled] */
  finally(settled) {
    return this.done.finally(settled);
  }

  /** Whether any part of the reply has arrived. */
  get begun() {
    return this.#parts.length > 0;
  }

  /** @returns {AsyncGenerator<string | Uint8Array, void>} */
  async *[Symbol.asyncIterator]() {
    for (let next = 0; ; ) {
      if (next < this.#parts.length) yield this.#parts[next++];
      else if (this.ended) break;
      else await new Promise((resolve) => this.#readers.push(() => resolve(undefined)));
    }
    await this.done;
  }

  /** For the conversation: no turn is ahead of it any more. */
  start() {
    this.status = "running";
    this.startedAt ??= Date.now();
  }

  /**
   * For the conversation: add a part of the reply.
   * @param {{ index: number, text?: string, base64?: string }} delta
   */
  add({ index, text, base64 }) {
    if (index < this.#deltas) return; // it was added before what was stored was read
    this.firstAt ??= Date.now();
    if (index !== this.#deltas) this.incomplete = true;
    this.#deltas = index + 1;
    this.#take(text, base64);
  }

  /**
   * @param {string} [text]
   * @param {string} [base64]
   */
  #take(text, base64) {
    if (text !== undefined) {
      this.text += text;
      this.#parts.push(text);
    } else if (base64 !== undefined) {
      this.#base64.push(base64);
      this.#parts.push(fromBase64(base64));
    }
    for (const wake of this.#readers.splice(0)) wake();
  }

  /**
   * For the conversation: end the turn. A later end has no effect.
   * @param {Done} done
   */
  end(done) {
    if (this.ended) return;
    this.#reported = done;
    if (done.deltas > this.#deltas) this.incomplete = true;
    const ended = { ...done };
    if (this.#base64.length > 0) ended.base64 = btoa(this.#base64.map(atob).join(""));
    else if (this.#deltas > 0) ended.text = this.text;
    this.ended = ended;
    this.status = done.status;
    this.#take(done.text, this.#deltas > 0 ? undefined : done.base64);
    if (done.error) this.#reject(new MessageError(done.error));
    else this.#resolve(ended);
  }

  /** For the conversation: the turn as it is stored. */
  toJSON() {
    return {
      id: this.id,
      sent: this.sent,
      delivery: this.delivery,
      held: this.held,
      cancelling: this.cancelling,
      incomplete: this.incomplete,
      startedAt: this.startedAt,
      firstAt: this.firstAt,
      deltas: this.#deltas,
      text: this.#deltas > 0 ? this.text : "",
      base64: this.#deltas > 0 ? this.#base64 : [],
      done: this.#reported,
    };
  }

  /**
   * For the conversation: continue from what was stored.
   * @param {any} kept
   */
  load(kept) {
    if (this.ended) return;
    this.sent ??= kept.sent;
    this.delivery = kept.delivery;
    this.keptUnwritten = kept.delivery === "stored";
    this.held = kept.held;
    this.cancelling = kept.cancelling;
    this.incomplete = kept.incomplete;
    this.startedAt ??= kept.startedAt ?? null;
    this.firstAt ??= kept.firstAt ?? null;
    this.#deltas = Math.max(this.#deltas, kept.deltas);
    // The parts that it has are the first of those that were stored.
    if (kept.text.length > this.text.length) this.#take(kept.text.slice(this.text.length));
    for (const part of kept.base64.slice(this.#base64.length)) this.#take(undefined, part);
    if (kept.done) this.end(kept.done);
  }
}
