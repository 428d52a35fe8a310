/**
 * One message and its reply, as a user of the client has them.
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
 * @property {string} [text] The reply, whether it was streamed or not; so are the next two.
 * @property {unknown} [json]
 * @property {string} [base64]
 * @property {string} [content_type]
 * @property {string} [invoked_production_variant]
 * @property {number} deltas In how many parts the reply came; 0 where it was not streamed.
 * @property {number} duration_ms
 * @property {number} [dropped_turns] How many of the oldest turns the model was not told again, for
 *   want of room, where the gateway sends it the conversation.
 * @property {Outcome} [outcome] Of a cancelled message.
 * @property {Failure} [error]
 */
/**
 * @typedef {object} Body Exactly one of the first four, and the protocol's options.
 * @property {string} [text]
 * @property {unknown} [json]
 * @property {string} [base64]
 * @property {ArrayBuffer | ArrayBufferView} [bytes] The same as `base64`, not encoded.
 * @property {boolean} [stream] False: in one piece, where the route streams.
 * @property {string} [content_type]
 * @property {string} [accept]
 */

/**
 * One message and the reply to it.
 *
 * As a promise it is its end: `await turn` gives the {@link Done} of a message that was completed
 * or cancelled, and throws {@link MessageError} for one that was refused or failed. As an
 * iterable it is the reply's parts from the first one on, strings or, where the reply is no text,
 * `Uint8Array`s; to leave the loop does not stop the reply.
 */
export class Turn {
  /** The reply so far. */
  text = "";
  /** @type {"waiting" | "running" | Done["status"]} */
  status = "waiting";
  /**
   * How far the message has come: the gateway can't have seen what is only `stored`.
   * @type {"stored" | "written" | "accepted"}
   */
  delivery = "stored";
  /** Whether it was meant for a session that is gone, and waits for a word of its sender. */
  held = false;
  /** Whether it was asked to stop. */
  cancelling = false;
  /** Whether parts of the reply are missing. */
  incomplete = false;
  /** Its end, failed or not. @type {Done | null} */
  ended = null;
  /** When its turn came, in milliseconds since the epoch. @type {number | null} */
  startedAt = null;
  /** When the first part of its reply came. @type {number | null} */
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
   * @param {Body | null} sent What was asked; null where another window asked it.
   * @param {{ cancel(id: string): void, release(id: string): void }} conversation
   */
  constructor(id, sent, conversation) {
    this.id = id;
    this.sent = sent;
    /** Ask for it to be stopped; `await turn` then tells what came of that. */
    this.cancel = () => {
      if (!this.ended) conversation.cancel(id);
    };
    /** Send it all the same, if it is held. */
    this.release = () => {
      if (!this.ended) conversation.release(id);
    };
    /** @type {Promise<Done>} */
    this.done = new Promise((resolve, reject) => {
      this.#resolve = resolve;
      this.#reject = reject;
    });
    this.done.catch(() => {}); // nobody has to wait for it; the turn says it too
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

  /** Whether anything of the reply has come. */
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

  /** For the conversation: it is the model's turn to answer it. */
  start() {
    this.status = "running";
    this.startedAt ??= Date.now();
  }

  /**
   * For the conversation: take a part of the reply.
   * @param {{ index: number, text?: string, base64?: string }} delta
   */
  add({ index, text, base64 }) {
    if (index < this.#deltas) return; // it was here before what was kept was read
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
   * For the conversation: take the end. A later one changes nothing.
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

  /** What is kept of it. */
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
   * For the conversation: go on from what was kept.
   * @param {any} kept
   */
  load(kept) {
    if (this.ended) return;
    this.sent ??= kept.sent;
    this.delivery = kept.delivery;
    this.held = kept.held;
    this.cancelling = kept.cancelling;
    this.incomplete = kept.incomplete;
    this.startedAt ??= kept.startedAt ?? null;
    this.firstAt ??= kept.firstAt ?? null;
    this.#deltas = Math.max(this.#deltas, kept.deltas);
    // The parts that it has are the first ones of those that were kept.
    if (kept.text.length > this.text.length) this.#take(kept.text.slice(this.text.length));
    for (const part of kept.base64.slice(this.#base64.length)) this.#take(undefined, part);
    if (kept.done) this.end(kept.done);
  }
}
