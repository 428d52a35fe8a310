/**
 * A conversation over connections that come and go.
 *
 * @module
 */

import {
  describeClose,
  GONE,
  LOST,
  TAKEN_OVER,
  UNAUTHENTICATED,
  VIOLATION,
  whyLost,
} from "./closing.js";
import { Connection } from "./connection.js";
import { Conversation } from "./conversation.js";
import { cancelled, notSent } from "./endings.js";
import { ProtocolError, SkippedEvents } from "./errors.js";
import { keep } from "./keeping.js";
import { Retry } from "./retry.js";
import { newId, sendable } from "./sending.js";
import { Teller } from "./telling.js";
import { BINARY, frameBytes, TEXT } from "./wire.js";

/** @typedef {import("./turns.js").Body} Body */
/** @typedef {import("./turns.js").Turn} Turn */
/** @typedef {import("./types.js").Options} Options */
/** @typedef {import("./types.js").State} State */

/** Knows the types of its events. */
const Target = /** @type {new () => import("./types.js").Listenable} */ (EventTarget);

/**
 * One conversation.
 *
 * Events, each with the gateway's message in `detail`: `opened`, `resumed`, `renewed`, `updated`,
 * `expiring`, `closed`, `accepted`, `error`; `state`, whenever {@link SessionClient#state} has
 * changed; `turn`, with the {@link Turn} in `detail`, whenever anything of it has; and `gap`, with
 * the numbers of the first and the last event that can no longer be had in `detail.lost`. With a
 * journal, `restored` when {@link SessionClient#history} has become what was kept, and `unsaved`
 * when something could not be kept.
 *
 * What a listener does before it returns is done before the gateway may forget the event.
 */
export class SessionClient extends Target {
  /** @type {State} */
  state = "closed";
  /** Why there is no connection, in words; empty while there is one. */
  reason = "";
  /** The close code that `reason` puts into words; 0 for none. */
  code = 0;
  /** @type {Connection | null} */
  #connection = null;
  #conversation;
  #keeping;
  #retry = new Retry(() => this.connect());
  #teller;
  /** What is done before a connection is made: a later one has another. @type {object | null} */
  #preparing = null;
  /** How often the gateway has not known the user since the last session. */
  #refused = 0;
  /** Whether the session's end is for good. */
  #final = false;
  /** @type {AbortController | null} */
  #listening = null;
  #WebSocket;
  #wire;

  /**
   * @param {string} url Of the route: `ws://HOST/ws` or `ws://HOST/ws/ROUTE`.
   * @param {Options} [options]
   * @throws {TypeError} There is no `WebSocket`.
   */
  constructor(url, options = {}) {
    super();
    const { WebSocket = globalThis.WebSocket, hold = false, binary = false } = options;
    const { storage, storageKey = "session-gateway", tell, token } = options;
    if (!WebSocket) {
      throw new TypeError(
        "There is no global WebSocket: Node has one from version 22 on. Before that, install the " +
          'package ws, import { WebSocket } from "ws", and give it: ' +
          "new SessionClient(url, { WebSocket }).",
      );
    }
    this.url = url;
    this.token = token;
    this.#WebSocket = WebSocket;
    this.#teller = tell && new Teller(tell);
    this.#wire = binary ? BINARY : TEXT;
    this.#conversation = new Conversation(
      {
        notify: (type, detail) => this.#notify(type, detail),
        size: (message) => frameBytes(this.#wire, message),
        write: (message) => this.#keeping.write(message),
        store: () => this.#keeping?.store() ?? true, // it is read while it is made
        attached: (heartbeat) => this.#attached(heartbeat),
      },
      hold,
    );
    this.#keeping = keep(storage, storageKey, this.#conversation, {
      state: () => ({ url: this.url, ...this.#conversation.snapshot() }),
      restore: (kept, claimed) => this.#conversation.restore(kept, this.url, claimed),
      write: (message) => this.#connection?.write(message),
      take: (message) => this.#take(message),
      taken: () => this.#stop(TAKEN_OVER),
      notify: (type, detail) => this.#notify(type, detail),
    });
  }

  /** When the next attempt to connect is made, while it waits for that; 0 else. As `Date.now()`. */
  get retryAt() {
    return this.#retry.at;
  }

  /** The number of the session's newest event. */
  get lastEvent() {
    return this.#conversation.lastEvent;
  }

  /** The conversation, oldest first; without a journal the oldest of a long one is forgotten. */
  get history() {
    return this.#conversation.history.items;
  }

  /** The turns that have not ended, oldest first. */
  get pending() {
    return this.#conversation.history.pending();
  }

  /**
   * Whether there is a session to resume. Without one, {@link SessionClient#connect} opens one,
   * which a page may leave until its user writes something.
   */
  get resumable() {
    return this.#conversation.session !== null;
  }

  /**
   * Read what was kept, without a connection: then {@link SessionClient#history} has it, and
   * {@link SessionClient#resumable} says whether there is a session to resume. With a journal it
   * takes its time; {@link SessionClient#connect} waits for it, and begins with it where that was
   * not done.
   * @returns {Promise<void>} It does not fail: where the journal does, `unsaved` is dispatched.
   */
  async restore() {
    await this.#keeping.restore();
  }

  /** Open a connection: to the session, if there is one to resume, else to a new one. */
  connect() {
    this.#drop();
    this.#listen();
    this.#retry.connecting();
    this.#final = false;
    this.#become("connecting");
    this.#prepare();
  }

  /** Read what was kept, and see to a session that knows it; then open a connection. */
  async #prepare() {
    const attempt = (this.#preparing = {});
    const conversation = this.#conversation;
    const restoring = this.#keeping.restore();
    if (restoring !== null) {
      await restoring;
      if (attempt !== this.#preparing) return;
    }
    if (this.#teller && !conversation.session) {
      const telling = await this.#teller.tell(this.history, this.url, this.token);
      if (attempt !== this.#preparing) return;
      conversation.told(telling);
    }
    const { url, token } = this;
    const resumes = conversation.session !== null;
    const target = { url, token, WebSocket: this.#WebSocket, wire: this.#wire, resumes };
    this.#connection = new Connection(target, {
      reached: () => this.#keeping.write(conversation.opening()),
      received: (message) => this.#received(message),
      quiet: () => this.#keeping.write({ type: "ping" }),
      lost: (code, words) => this.#lost(code, words),
      unauthenticated: (words) => this.#unauthenticated(words),
      failed: (code, words) => this.#stop(code, words),
    });
    this.#connection.open();
  }

  /**
   * Show another token, of the same user, before the one that was shown expires; further
   * connections show it too.
   * @param {string} token
   */
  refresh(token) {
    if (typeof this.token !== "function") this.token = token;
    this.#keeping.write({ type: "auth.refresh", token });
  }

  /**
   * Send one message, now or as soon as there is a connection.
   * @param {string | Body} body
   * @param {string} [id] Chosen by the caller. The same message under the same id is the same
   *   turn; another message under an id that was used is refused.
   * @returns {Turn} It fails with a {@link MessageError} if the message is refused or fails, or
   *   the session is gone: then its outcome is unknown, and it is not sent again, since the model
   *   may have seen it.
   * @throws {TypeError} It is no string and has no body, or more than one.
   */
  send(body, id = newId()) {
    const ended = this.state === "closed" ? this.#notSent() : null;
    return this.#conversation.outbox.send(sendable(body), id, ended);
  }

  /**
   * Ask for a message to be stopped; its turn then ends, as `cancelled` unless it was faster.
   * @param {string} id
   */
  cancel(id) {
    this.#conversation.outbox.cancel(id);
  }

  /**
   * Send a message that is held.
   * @param {string} id
   */
  release(id) {
    this.#conversation.outbox.release(id);
  }

  /**
   * Close the session, at the model too, and don't come back. Without a connection it is left to
   * end by itself.
   */
  close() {
    this.#final = true;
    if (this.state === "open") this.#keeping.write({ type: "session.close" });
    else this.#stop(1000);
  }

  /**
   * Leave the session as it is, with what is under way in it: who has what was stored can go on
   * with it within the route's `resume_seconds`.
   * @returns {Promise<void>} Ends when everything is kept.
   */
  async detach() {
    this.#keeping.store();
    this.#drop();
    this.reason = "";
    this.code = 0;
    this.#become("closed");
    await this.#keeping.release();
  }

  /**
   * Leave the session, and close it unless another window has it; then begin a new one.
   * @param {string} [url] Of another route.
   */
  restart(url = this.url) {
    const open = this.state === "open";
    if (open) this.#keeping.write({ type: "session.close" });
    const sent = open ? cancelled("unknown") : "The session was left";
    this.#conversation.leave(cancelled("not_invoked"), sent);
    this.url = url;
    this.#retry.reset();
    this.connect();
  }

  // In and out

  /** @param {any} message Null where it is none. */
  #received(message) {
    if (message === null) this.#violated(new ProtocolError("The gateway has sent no message."));
    else if (!this.#keeping.hold(message)) this.#take(message);
  }

  /** @param {any} message */
  #take(message) {
    try {
      this.#conversation.take(message);
    } catch (error) {
      if (!(error instanceof ProtocolError)) throw error;
      this.#violated(error);
    }
    // The session that the gateway has is not the one that this client had.
    const refused = message.type === "error" && message.code === "bad_message";
    if (refused && this.state === "connecting") this.#lost(GONE);
  }

  /**
   * Events that were skipped may be had by resuming after the last that came; where they are
   * skipped again, they can't be had, and to go on would hide that.
   * @param {ProtocolError} error
   */
  #violated(error) {
    this.#connection?.close(VIOLATION);
    if (error instanceof SkippedEvents && !error.again) this.#lost(LOST, error.message);
    else this.#stop(VIOLATION, error.message);
  }

  /** @param {number} heartbeat Seconds. */
  #attached(heartbeat) {
    this.#retry.opened();
    this.#teller?.reset();
    this.#connection?.attached(heartbeat);
    this.#refused = 0;
    if (this.state !== "open") this.#become("open");
  }

  /** A browser says when the device has no network, and when the page goes; Node does not. */
  #listen() {
    if (this.#listening || !globalThis.addEventListener) return;
    this.#listening = new AbortController();
    const { signal } = this.#listening;
    const on = (/** @type {string} */ type, /** @type {() => void} */ handle) =>
      globalThis.addEventListener(type, handle, { signal });
    on("online", () => {
      if (this.state !== "open") this.connect();
    });
    on("offline", () => this.#lost(LOST));
    on("pagehide", () => this.#keeping.store());
  }

  // The end of a connection, and of a session

  /**
   * The token is not valid, or no longer. A function may have another token, once.
   * @param {string} [words]
   */
  #unauthenticated(words) {
    const again = typeof this.token === "function" && this.#refused === 0;
    this.#refused += 1;
    if (again) this.connect();
    else this.#stop(UNAUTHENTICATED, words);
  }

  /**
   * @param {number} code
   * @param {string} [words]
   */
  #lost(code, words = whyLost(code)) {
    const { comeBack } = describeClose(code);
    const conversation = this.#conversation;
    // A session that nobody has used is not opened again unasked.
    if (comeBack === "no" || this.#final || conversation.closed === "idle") {
      this.#stop(code);
      return;
    }
    this.#drop();
    this.reason = words;
    this.code = code;
    this.#retry.schedule({
      // A gateway that has forgotten says so at once; but a session that opens and ends, and opens
      // and ends, must not make a busy loop of it.
      atOnce: comeBack === "new" && conversation.session !== null,
      soon: comeBack !== "later",
      after: conversation.retryAfter,
    });
    if (comeBack === "new") conversation.gone();
    this.#become("waiting");
  }

  /**
   * @param {number} code
   * @param {string} [words]
   */
  #stop(code, words = describeClose(code).words) {
    this.#drop();
    this.reason = words;
    this.code = code;
    // Who shows another token may come back to the session, and to what is under way in it.
    const stays = code === UNAUTHENTICATED && this.#conversation.session !== null;
    if (code === TAKEN_OVER) {
      this.#conversation.takenOver();
      this.#keeping.release();
    } else if (!stays) this.#conversation.leave(this.#notSent(), words.replace(/\.$/, ""));
    this.#become("closed");
  }

  /** How a message ends that can't be sent without a connection. */
  #notSent() {
    const words = this.reason || "There is no connection: connect() opens one.";
    return notSent(words, describeClose(this.code).error);
  }

  #drop() {
    this.#retry.cancel();
    this.#keeping.clear();
    this.#preparing = null;
    this.#conversation.detach();
    this.#connection?.close();
    this.#connection = null;
  }

  /** @param {State} state */
  #become(state) {
    this.state = state;
    if (state === "open") {
      this.reason = "";
      this.code = 0;
    } else if (state === "closed") {
      this.#listening?.abort();
      this.#listening = null;
    }
    this.#notify("state", state);
  }

  /**
   * @param {string} type
   * @param {unknown} detail
   */
  #notify(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }
}
