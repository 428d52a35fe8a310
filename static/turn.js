/**
 * One message to the model, and the reply to it.
 *
 * @module
 */

/** @typedef {"not_invoked" | "unknown" | "invoked"} Outcome Whether the model saw a message. */
/**
 * @typedef {object} Failure
 * @property {string} code
 * @property {string} message For people.
 * @property {boolean} retryable
 * @property {number} [retry_after] Seconds.
 * @property {Outcome} [outcome]
 */
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
 * @property {Outcome} [outcome] Of a cancelled message.
 * @property {Failure} [error]
 */
/**
 * @typedef {object} Body Exactly one of `text`, `json` and `base64`, and the protocol's options.
 * @property {string} [text]
 * @property {unknown} [json]
 * @property {string} [base64]
 * @property {boolean} [stream] False: in one piece, where the route streams.
 * @property {string} [content_type]
 * @property {string} [accept]
 */
/** A message failed, or nobody knows what became of it. */
export class MessageError extends Error {
  /** @param {Failure} failure */
  constructor(failure) {
    super(failure.message);
    this.name = "MessageError";
    this.failure = failure;
  }
}

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
  /** Whether it was asked to stop. */
  cancelling = false;
  /** Whether parts of the reply are missing. */
  incomplete = false;
  /** Its end, failed or not. @type {Done | null} */
  ended = null;

  /** @type {(string | Uint8Array)[]} */
  #parts = [];
  /** @type {string[]} */
  #base64 = [];
  #deltas = 0;
  /** The end as the gateway told it. @type {Done | null} */
  #told = null;
  /** @type {(() => void)[]} */
  #readers = [];
  /** @type {(done: Done) => void} */
  #resolve = () => {};
  /** @type {(error: Error) => void} */
  #reject = () => {};

  /**
   * @param {string} id
   * @param {Body | null} sent What was asked; null where another window asked it.
   * @param {() => void} cancel
   */
  constructor(id, sent, cancel) {
    this.id = id;
    this.sent = sent;
    /** Ask for it to be stopped; `await turn` then tells what came of that. */
    this.cancel = cancel;
    /** @type {Promise<Done>} */
    this.done = new Promise((resolve, reject) => {
      this.#resolve = resolve;
      this.#reject = reject;
    });
    this.done.catch(() => {}); // nobody has to wait for it; the turn says it too
  }

  /**
   * @template A, B
   * @param {((done: Done) => A | PromiseLike<A>) | null} [fulfilled]
   * @param {((error: any) => B | PromiseLike<B>) | null} [rejected]
   */
  then(fulfilled, rejected) {
    return this.done.then(fulfilled, rejected);
  }

  /**
   * @template B
   * @param {((error: any) => B | PromiseLike<B>) | null} [rejected]
   */
  catch(rejected) {
    return this.done.catch(rejected);
  }

  /** @param {(() => void) | null} [settled] */
  finally(settled) {
    return this.done.finally(settled);
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

  /**
   * For the client: take a part of the reply.
   * @param {{ index: number, text?: string, base64?: string }} delta
   */
  add({ index, text, base64 }) {
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
      this.#parts.push(Uint8Array.from(atob(base64), (character) => character.charCodeAt(0)));
    }
    for (const wake of this.#readers.splice(0)) wake();
  }

  /**
   * For the client: take the end. A later one changes nothing.
   * @param {Done} done
   */
  end(done) {
    if (this.ended) return;
    this.#told = done;
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
      cancelling: this.cancelling,
      incomplete: this.incomplete,
      deltas: this.#deltas,
      text: this.#deltas > 0 ? this.text : "",
      base64: this.#deltas > 0 ? this.#base64 : [],
      done: this.#told,
    };
  }

  /**
   * For the client: go on from what was kept.
   * @param {any} kept
   */
  load(kept) {
    if (this.ended) return;
    this.sent ??= kept.sent;
    this.delivery = kept.delivery;
    this.cancelling = kept.cancelling;
    this.incomplete = kept.incomplete;
    this.#deltas = kept.deltas;
    // The parts that it has are the first ones of those that were kept.
    if (kept.text.length > this.text.length) this.#take(kept.text.slice(this.text.length));
    for (const part of kept.base64.slice(this.#base64.length)) this.#take(undefined, part);
    if (kept.done) this.end(kept.done);
  }
}

// How a turn ends where the gateway does not say it

/** @typedef {Omit<Done, "id">} Ended */

/**
 * @param {Failure} error
 * @returns {Ended}
 */
export function failed(error) {
  return { status: "failed", error, deltas: 0, duration_ms: 0 };
}

/**
 * @param {Outcome} outcome
 * @returns {Ended}
 */
export function cancelled(outcome) {
  return { status: "cancelled", outcome, deltas: 0, duration_ms: 0 };
}

/** @param {string} message */
export function notSent(message) {
  return failed({ code: "unavailable", message, retryable: true, outcome: "not_invoked" });
}

/** @param {number} limit */
export function tooLarge(limit) {
  const message = `A message may have ${limit} bytes; this one has more.`;
  return failed({ code: "too_large", message, retryable: false, outcome: "not_invoked" });
}

/** @param {string} why */
export function unknownOutcome(why) {
  const message = `${why}; whether the model saw the message is not known.`;
  return failed({ code: "session_lost", message, retryable: false, outcome: "unknown" });
}

/** @param {string} status */
export function lostReply(status) {
  const message = "The end of the reply was lost on the way.";
  const outcome = status === "completed" ? "invoked" : "unknown";
  return failed({ code: "stream_broken", message, retryable: false, outcome });
}
