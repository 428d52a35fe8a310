/**
 * A conversation over connections that come and go.
 *
 * @module
 */

import {
  backoff,
  describeClose,
  FORBIDDEN,
  GONE,
  LOST,
  refusal,
  SILENT,
  TAKEN_OVER,
  UNAUTHENTICATED,
  VIOLATION,
  whyLost,
} from "./closing.js";
import { Conversation } from "./conversation.js";
import { cancelled, notSent } from "./endings.js";
import { ProtocolError, SkippedEvents } from "./errors.js";
import { Heartbeat } from "./heartbeat.js";
import { Journaling } from "./journal.js";
import { Saved } from "./saved.js";
import { newId, sendable } from "./sending.js";
import { saidIn, toldSession } from "./telling.js";
import { NoTicket, ticketFor } from "./tickets.js";
import { Windows } from "./windows.js";
import { BINARY, frameBytes, TEXT } from "./wire.js";

/** @typedef {import("./turns.js").Body} Body */
/** @typedef {import("./turns.js").Turn} Turn */
/** @typedef {string | (() => string | Promise<string>)} Token A key or a token, or what asks for it. */
/** @typedef {"connecting" | "open" | "waiting" | "closed"} State */
/**
 * @typedef {object} Options
 * @property {{ getItem(key: string): string | null, setItem(key: string, value: string): void } | import("./journal.js").Journal} [storage]
 *   Where the conversation is kept for the page's next load: `sessionStorage`, which keeps its newest
 *   half megabyte, or a journal. Left out: nowhere.
 * @property {string} [storageKey] Under which name; a journal has its own.
 * @property {import("./telling.js").Telling} [tell] How much a session that takes the place of
 *   another is told of what was said before. The route has to be able to do that, and be named in
 *   the address. Left out: nothing.
 * @property {boolean} [hold] Whether a message that was meant for a session that is gone is held
 *   until {@link Turn#release}. Left out: it goes to the next session, which knows nothing.
 * @property {Token} [token] Who this is, where the gateway asks for that. It is exchanged for a
 *   ticket before each connection, and kept nowhere. A function is asked each time, and once more
 *   where what it gave is not, or no longer, valid.
 * @property {boolean} [binary] Whether frames are MessagePack, in which `bytes` go as they are, and not
 *   JSON: for audio, images and the like. Nothing else changes.
 * @property {new (url: string, protocols: string[]) => any} [WebSocket] What makes the connections,
 *   where there is no global `WebSocket`: that of the package `ws`.
 */

/** Knows the types of its events. */
const Target = /** @type {new () => import("./events.js").Listenable} */ (EventTarget);

/** A socket's state, in every `WebSocket`. */
const OPEN = 1;
/** A connection that held for so many milliseconds was a good one. */
const STEADY = 5_000;
/** How many turns and notes are kept, but for a journal, which keeps them all. */
const MAX_HISTORY = 1_000;
/** How many sessions in a row are told what was said before, if each is gone when it is resumed. */
const MAX_TOLD = 3;
/** How long to wait for a connection, and for a session that is to be resumed, in milliseconds. */
const ANSWER = 15_000;

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
  /** When the next attempt to connect is made, while it waits for that; 0 else. As `Date.now()`. */
  retryAt = 0;

  /** @type {WebSocket | null} */
  #socket = null;
  #conversation;
  #heartbeat;
  #attempt = 0;
  /** What asks for a ticket at the moment: a later connection has another. @type {object | null} */
  #asking = null;
  /** How often the gateway has not known the user since the last session. */
  #refused = 0;
  /** When the connection got its session; 0 if it has not. */
  #openedAt = 0;
  /** Whether the session's end is for good. */
  #final = false;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #retry;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #deadline;
  /** @type {AbortController | null} */
  #listening = null;
  #WebSocket;
  #wire;
  /** @type {Saved | undefined} */
  #saved;
  /** @type {Windows | undefined} */
  #windows;
  /** @type {Journaling | undefined} */
  #journal;
  /** Set while what was kept is read. @type {Promise<void> | null} */
  #restoring = null;
  #tell;
  /** How many sessions were told something since the last that was attached. */
  #told = 0;

  /**
   * @param {string} url Of the route: `ws://HOST/ws` or `ws://HOST/ws/ROUTE`.
   * @param {Options} [options]
   * @throws {TypeError} There is no `WebSocket`.
   */
  constructor(url, options = {}) {
    super();
    const { WebSocket = globalThis.WebSocket, hold = false, binary = false } = options;
    const { storage, storageKey = "session-gateway", tell, token } = options;
    const journal = storage && "claim" in storage ? storage : null;
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
    this.#tell = tell;
    this.#wire = binary ? BINARY : TEXT;
    this.#heartbeat = new Heartbeat(
      () => this.#write({ type: "ping" }),
      () => this.#lost(SILENT),
    );
    this.#conversation = new Conversation(
      {
        notify: (type, detail) => this.#notify(type, detail),
        size: (message) => frameBytes(this.#wire, message),
        write: (message) => this.#write(message),
        store: () => this.#store(),
        attached: (heartbeat) => this.#attached(heartbeat),
      },
      hold,
      journal ? Infinity : MAX_HISTORY,
    );
    if (journal) {
      this.#journal = new Journaling(journal, this.#conversation, {
        state: () => this.#state(),
        write: (message) => this.#send(message),
        taken: () => this.#stop(TAKEN_OVER),
        unsaved: (error) => this.#notify("unsaved", error),
      });
    }
    if (!storage || "claim" in storage) return;
    this.#saved = new Saved(storage, storageKey);
    const kept = this.#saved.read();
    if (kept) this.#conversation.restore(kept, kept.url === url);
    this.#windows = new Windows(storageKey, this.#conversation, {
      kept: () => this.#kept(),
      overheard: () => {
        if (this.code === TAKEN_OVER) this.#conversation.adopt();
      },
      take: (message) => this.#take(message),
    });
  }

  /** The number of the session's newest event. */
  get lastEvent() {
    return this.#conversation.lastEvent;
  }

  /**
   * The conversation, oldest first; without a journal the oldest of a long one is forgotten.
   */
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
    const journal = this.#journal;
    if (!journal || (journal.claimed && !journal.leaving)) return;
    this.#restoring ??= this.#restore(journal).finally(() => {
      this.#restoring = null;
    });
    await this.#restoring;
  }

  /** Open a connection: to the session, if there is one to resume, else to a new one. */
  connect() {
    this.#drop();
    this.#listen();
    this.#openedAt = 0;
    this.#final = false;
    this.#become("connecting");
    this.#prepare();
  }

  /** Read what was kept, and see to a session that knows it; then open a connection. */
  async #prepare() {
    const attempt = (this.#asking = {});
    const conversation = this.#conversation;
    if (this.#journal && (this.#journal.leaving || !this.#journal.claimed)) {
      await this.restore();
      if (attempt !== this.#asking) return;
    }
    if (this.#tell && !conversation.session && this.#told < MAX_TOLD) {
      const { said, all } = saidIn(this.history, this.#tell);
      const opened = said.length > 0 && (await toldSession(this.url, said, this.token));
      if (attempt !== this.#asking) return;
      if (opened) {
        this.#told += 1;
        conversation.told(opened.session, { all, context: opened.context });
      } else {
        conversation.untold = said.length > 0 || !all;
      }
    }
    this.#deadline = setTimeout(() => this.#lost(SILENT), ANSWER);
    if (this.token === undefined) this.#open([]);
    else this.#openWith(this.token);
  }

  /** @param {Journaling} journal */
  async #restore(journal) {
    try {
      await journal.claim((kept) => this.#conversation.restore(kept, kept.url === this.url));
      this.#notify("restored", null);
    } catch (error) {
      this.#notify("unsaved", error);
    }
  }

  /**
   * Show another token, of the same user, before the one that was shown expires; further
   * connections show it too.
   * @param {string} token
   */
  refresh(token) {
    if (typeof this.token !== "function") this.token = token;
    this.#write({ type: "auth.refresh", token });
  }

  /** @param {Token} token */
  async #openWith(token) {
    const attempt = (this.#asking = {});
    const { url } = this;
    try {
      const value = typeof token === "function" ? await token() : token;
      const ticket = await ticketFor(url, value);
      if (attempt === this.#asking) this.#open([`ticket.${ticket}`]);
    } catch (error) {
      if (attempt !== this.#asking) return;
      if (!(error instanceof NoTicket)) this.#stop(UNAUTHENTICATED, `No token: ${error}`);
      else if (error.final) this.#unknown(error.message);
      else this.#lost(LOST, error.message);
    }
  }

  /**
   * What was shown is not valid, or no longer. A function may have another token, once.
   * @param {string} [words]
   */
  #unknown(words) {
    const again = typeof this.token === "function" && this.#refused === 0;
    this.#refused += 1;
    if (again) this.connect();
    else this.#stop(UNAUTHENTICATED, words);
  }

  /** @param {string[]} shown What says who this is. */
  #open(shown) {
    let socket;
    try {
      socket = new this.#WebSocket(this.url, [this.#wire.subprotocol, ...shown]);
    } catch (error) {
      this.#stop(VIOLATION, `There can't be a connection: ${error}`); // such as to no address
      return;
    }
    socket.binaryType = "arraybuffer";
    this.#socket = socket;
    // A socket that has been replaced may still speak; it is not listened to.
    const mine = (/** @type {(event: any) => void} */ handle) => (/** @type {any} */ event) => {
      if (socket === this.#socket) handle(event);
    };
    let reached = false;
    const listeners = {
      open: () => {
        reached = true;
        this.#write(this.#conversation.opening());
        // A model may take its time to open a session; the gateway has none to take to find one.
        if (!this.#conversation.session) clearTimeout(this.#deadline);
      },
      message: (/** @type {any} */ { data }) => this.#received(data),
      error: () => {}, // its close follows; but ws throws what nobody listens to
      close: async (/** @type {any} */ { code }) => {
        const refused = reached ? null : await refusal(this.url);
        if (socket !== this.#socket) return;
        if (refused === null && code === UNAUTHENTICATED) this.#unknown();
        else if (refused === null) this.#lost(code);
        else this.#stop(FORBIDDEN, refused);
      },
    };
    for (const [type, listener] of Object.entries(listeners)) {
      socket.addEventListener(type, mine(listener));
    }
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
    return this.#conversation.send(sendable(body), id, ended);
  }

  /**
   * Ask for a message to be stopped; its turn then ends, as `cancelled` unless it was faster.
   * @param {string} id
   */
  cancel(id) {
    this.#conversation.cancel(id);
  }

  /**
   * Send a message that is held.
   * @param {string} id
   */
  release(id) {
    this.#conversation.release(id);
  }

  /**
   * Close the session, at the model too, and don't come back. Without a connection it is left to
   * end by itself.
   */
  close() {
    this.#final = true;
    if (this.state === "open") this.#write({ type: "session.close" });
    else this.#stop(1000);
  }

  /**
   * Leave the session as it is, with what is under way in it: who has what was stored can go on
   * with it within the route's `resume_seconds`.
   * @returns {Promise<void>} Ends when everything is kept.
   */
  async detach() {
    this.#store();
    this.#drop();
    this.reason = "";
    this.code = 0;
    this.#become("closed");
    await this.#journal?.release();
  }

  /**
   * Leave the session, and close it unless another window has it; then begin a new one.
   * @param {string} [url] Of another route.
   */
  restart(url = this.url) {
    const open = this.state === "open";
    if (open) this.#write({ type: "session.close" });
    const sent = open ? cancelled("unknown") : "The session was left";
    this.#conversation.leave(cancelled("not_invoked"), sent);
    this.url = url;
    this.#attempt = 0;
    this.connect();
  }

  // In and out

  /** @param {unknown} frame */
  #received(frame) {
    this.#heartbeat.heard();
    const message = this.#parsed(frame);
    if (message === null) this.#violated(new ProtocolError("The gateway has sent no message."));
    else if (!this.#windows?.hold(message)) this.#take(message);
  }

  /**
   * A message of the gateway; null where it is none.
   * @param {unknown} frame
   */
  #parsed(frame) {
    try {
      const message = this.#wire.decode(frame);
      return typeof message?.type === "string" ? message : null;
    } catch {
      return null;
    }
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
    this.#disconnect(VIOLATION);
    if (error instanceof SkippedEvents && !error.again) this.#lost(LOST, error.message);
    else this.#stop(VIOLATION, error.message);
  }

  /** @param {object} message */
  #write(message) {
    if (this.#journal) this.#journal.write(message);
    else this.#send(message);
  }

  /** @param {object} message */
  #send(message) {
    if (this.#socket?.readyState === OPEN) this.#socket.send(this.#wire.encode(message));
  }

  /** @param {number} heartbeat Seconds. */
  #attached(heartbeat) {
    clearTimeout(this.#deadline);
    this.#openedAt = Date.now();
    this.#heartbeat.start(heartbeat);
    this.#refused = this.#told = 0;
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
    on("pagehide", () => this.#store());
  }

  // The end of a connection, and of a session

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
    if (this.#openedAt > 0 && Date.now() - this.#openedAt >= STEADY) this.#attempt = 0;
    // A gateway that goes or has forgotten says so at once; but a session that opens and ends, and
    // opens and ends, must not make a busy loop of it.
    const news = comeBack === "new" && conversation.session !== null;
    const atOnce = news || (comeBack !== "later" && this.#attempt === 0);
    const wait = Math.max(
      250,
      backoff(this.#attempt, Math.random()),
      conversation.retryAfter * 1000,
    );
    this.#retry = setTimeout(() => this.connect(), atOnce ? 0 : wait);
    this.retryAt = Date.now() + (atOnce ? 0 : wait);
    this.#attempt += 1;
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
      this.#conversation.adopt();
      this.#journal?.release();
    } else if (!stays) this.#conversation.leave(this.#notSent(), words.replace(/\.$/, ""));
    this.#become("closed");
  }

  /** How a message ends that can't be sent without a connection. */
  #notSent() {
    const words = this.reason || "There is no connection: connect() opens one.";
    return notSent(words, describeClose(this.code).error);
  }

  /**
   * Close the socket, and listen to it no more.
   * @param {number} [code]
   */
  #disconnect(code) {
    const socket = this.#socket;
    this.#socket = null;
    socket?.close(code);
  }

  #drop() {
    clearTimeout(this.#retry);
    clearTimeout(this.#deadline);
    this.#heartbeat.stop();
    this.#windows?.clear();
    this.#journal?.clear();
    this.#asking = null;
    this.retryAt = 0;
    this.#conversation.detach();
    this.#disconnect();
  }

  #state() {
    return { url: this.url, ...this.#conversation.snapshot() };
  }

  #kept() {
    return JSON.stringify({ ...this.#state(), history: this.history });
  }

  /** Keep everything; false where that is not possible. */
  #store() {
    this.#journal?.store();
    if (this.#journal || !this.#saved) return true;
    const conversation = this.#conversation;
    const kept = this.#saved.write(
      () => this.#kept(),
      () => conversation.history.halve(),
    );
    if (kept !== null && conversation.attached) this.#windows?.share(kept);
    return kept !== null;
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
