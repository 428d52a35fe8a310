/**
 * A conversation that outlives its connections.
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
import { Restorer } from "./restoring.js";
import { BINARY, frameBytes, TEXT } from "./wire.js";

/** @typedef {import("./turns.js").Body} Body */
/** @typedef {import("./turns.js").Turn} Turn */
/** @typedef {import("./types.js").Options} Options */
/** @typedef {import("./types.js").State} State */

/** An `EventTarget` with typed events. */
const Target = /** @type {new () => import("./types.js").Listenable} */ (EventTarget);

/**
 * One conversation.
 *
 * It dispatches the {@link Events}. An event is acknowledged to the gateway, which may then discard
 * it, only after its listeners have returned.
 */
export class SessionClient extends Target {
  /** @type {State} */
  state = "closed";
  /** Why there is no connection, for people; empty while there is one. */
  reason = "";
  /** The close code that `reason` describes; 0 for none. */
  code = 0;
  /** @type {Connection | null} */
  #connection = null;
  #conversation;
  #keeping;
  #retry = new Retry(() => this.connect());
  #restorer;
  /** Identifies the connection attempt that is being prepared. @type {object | null} */
  #preparing = null;
  /** How often the gateway has rejected the token since the last session. */
  #refused = 0;
  /** Whether the user has closed the session. */
  #final = false;
  /** @type {AbortController | null} */
  #listening = null;
  #WebSocket;
  #wire;

  /**
   * @param {string} url The route's address: `ws://HOST/ws` or `ws://HOST/ws/ROUTE`.
   * @param {Options} [options]
   * @throws {TypeError} There is no `WebSocket`.
   */
  constructor(url, options = {}) {
    super();
    const { WebSocket = globalThis.WebSocket, hold = false, binary = false } = options;
    const { storage, storageKey = "session-gateway", sendHistory, token } = options;
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
    this.#restorer = sendHistory && new Restorer(sendHistory);
    this.#wire = binary ? BINARY : TEXT;
    this.#conversation = new Conversation(
      {
        notify: (type, detail) => this.#notify(type, detail),
        size: (message) => frameBytes(this.#wire, message),
        write: (message) => this.#keeping.write(message),
        store: () => this.#keeping?.store() ?? true, // keep() may restore, and so store
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

  /** When the next attempt to connect begins, as `Date.now()`; 0 if none is scheduled. */
  get retryAt() {
    return this.#retry.at;
  }

  /** The number of the newest event of the session that has arrived. */
  get lastEvent() {
    return this.#conversation.lastEvent;
  }

  /** The turns and notes, oldest first; without a journal, a long history loses its oldest. */
  get history() {
    return this.#conversation.history.items;
  }

  /** The turns that have not ended, oldest first. */
  get pending() {
    return this.#conversation.history.pending();
  }

  /**
   * Whether there is a session to resume. If not, {@link SessionClient#connect} opens a new one,
   * which a page can put off until its user writes something.
   */
  get resumable() {
    return this.#conversation.session !== null;
  }

  /**
   * Read the stored conversation without connecting, to show its {@link SessionClient#history} and
   * to see whether it is {@link SessionClient#resumable}. With `sessionStorage` the constructor has
   * done this; with a journal {@link SessionClient#connect} does it first, if it was not done yet.
   * @returns {Promise<void>} Never rejects: if the journal fails, `unsaved` is dispatched.
   */
  async restore() {
    await this.#keeping.restore();
  }

  /** Connect: resume the session if there is one, otherwise open a new one. */
  connect() {
    this.#drop();
    this.#listen();
    this.#retry.connecting();
    this.#final = false;
    this.#become("connecting");
    this.#prepare();
  }

  /** Restore the conversation, send its history to a session that replaces another, connect. */
  async #prepare() {
    const attempt = (this.#preparing = {});
    const conversation = this.#conversation;
    const restoring = this.#keeping.restore();
    if (restoring !== null) {
      await restoring;
      if (attempt !== this.#preparing) return;
    }
    if (this.#restorer && !conversation.session) {
      const restored = await this.#restorer.open(this.history, this.url, this.token);
      if (attempt !== this.#preparing) return;
      conversation.replaced(restored);
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
   * Authenticate with a new token of the same user, before the current one expires. Later
   * connections use it too.
   * @param {string} token
   */
  refresh(token) {
    if (typeof this.token !== "function") this.token = token;
    this.#keeping.write({ type: "auth.refresh", token });
  }

  /**
   * Send a message, now or as soon as there is a connection. In the state `closed` it fails at once.
   * @param {string | Body} body
   * @param {string} [id] An idempotency key: the same message under the same id is the same turn;
   *   another message under a used id is refused.
   * @returns {Turn} It rejects with a {@link MessageError} if the message fails or is refused, or if
   *   the session is gone: the outcome is then unknown, and the message is not sent again, since
   *   the model may have seen it.
   * @throws {TypeError} The message is neither a string nor an object with exactly one body.
   */
  send(body, id = newId()) {
    const ended = this.state === "closed" ? this.#notSent() : null;
    return this.#conversation.outbox.send(sendable(body), id, ended);
  }

  /**
   * Cancel a message. Its turn ends as `cancelled`, unless it completes first.
   * @param {string} id
   */
  cancel(id) {
    this.#conversation.outbox.cancel(id);
  }

  /**
   * Send a held message.
   * @param {string} id
   */
  release(id) {
    this.#conversation.outbox.release(id);
  }

  /**
   * Close the session, at the model too. Without a connection, the session is left to expire.
   */
  close() {
    this.#final = true;
    if (this.state === "open") this.#keeping.write({ type: "session.close" });
    else this.#stop(1000);
  }

  /**
   * Disconnect without closing the session. Its turns continue, and a client with the same storage
   * can resume it within the route's `resume_seconds`.
   * @returns {Promise<void>} Resolves when everything is stored.
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
   * Close the session, unless another window has taken it over, and open a new one.
   * @param {string} [url] The address of another route.
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

  // Messages from the gateway

  /** @param {any} message Null if it is not one. */
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
    // The gateway's session is not the one that this client had.
    const refused = message.type === "error" && message.code === "bad_message";
    if (refused && this.state === "connecting") this.#lost(GONE);
  }

  /**
   * Skipped events may still come when the session is resumed after the last one that came. If they
   * are skipped again, they are lost, and to continue would hide that.
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
    this.#restorer?.reset();
    this.#connection?.attached(heartbeat);
    this.#refused = 0;
    if (this.state !== "open") this.#become("open");
  }

  /** Browsers report changes of the network and the end of the page; Node does not. */
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
   * The token is invalid or no longer valid. A function is called for another one, once.
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
    const { reconnect } = describeClose(code);
    const conversation = this.#conversation;
    // A session closed as idle is not replaced until the user connects.
    if (reconnect === "no" || this.#final || conversation.closed === "idle") {
      this.#stop(code);
      return;
    }
    this.#drop();
    this.reason = words;
    this.code = code;
    this.#retry.schedule({
      // A session that is gone is replaced at once; but sessions that end as soon as they open must
      // not cause a busy loop.
      atOnce: reconnect === "new" && conversation.session !== null,
      soon: reconnect !== "later",
      after: conversation.retryAfter,
    });
    if (reconnect === "new") conversation.gone();
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
    // With another token the session and its turns can be resumed.
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
