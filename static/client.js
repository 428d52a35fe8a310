/**
 * A client of session-gateway for browsers: one conversation, which outlives its connections.
 *
 * It needs this file and the two that it imports. It speaks the protocol's version 1 in JSON:
 *
 *     import { SessionClient } from "./client.js";
 *
 *     const client = new SessionClient("ws://127.0.0.1:8080/ws", { storage: sessionStorage });
 *     client.connect();
 *     const turn = client.send({ text: "Hello" });
 *     for await (const part of turn) console.log(part); // as the model says it
 *     const done = await turn; // the end, with the whole text
 *     console.log(done.text);
 *
 * A connection that is lost is opened again, and the session resumed: each event is taken once and
 * in order, each message reaches the model at most once. With a `storage` that holds for a page
 * that is loaded again too: `client.history` is then what it was.
 *
 * @module
 */

import { backoff, describeClose, GONE, LOST, SILENT, TAKEN_OVER } from "./closing.js";
import { cancelled, failed, lostReply, notSent, tooLarge, Turn, unknownOutcome } from "./turn.js";

export { backoff, CLOSE_CODES, describeClose, MAX_BACKOFF, TAKEN_OVER } from "./closing.js";
export { MessageError, Turn } from "./turn.js";

/** @typedef {import("./turn.js").Body} Body */
/** @typedef {import("./turn.js").Done} Done */
/** @typedef {import("./turn.js").Ended} Ended */
/** @typedef {import("./turn.js").Failure} Failure */
/** @typedef {"connecting" | "open" | "waiting" | "closed"} State */
/**
 * @typedef {object} Opened
 * @property {string} session_id
 * @property {string | null} expires_at
 * @property {string} route
 * @property {number} heartbeat_seconds
 * @property {{ message_bytes: number, queued_messages: number, resume_seconds: number }} limits
 */
/**
 * @typedef {object} Note Something that befell the session between its turns.
 * @property {"opened" | "renewed" | "closed" | "gap"} type
 * @property {any} detail What the event of this name has as its `detail`.
 */
/**
 * @typedef {object} Options
 * @property {Pick<Storage, "getItem" | "setItem">} [storage] Where the conversation is
 *   kept for the page's next load: `sessionStorage`. Left out: nowhere.
 * @property {string} [storageKey] Under which name.
 */
/**
 * @typedef {object} Session What is needed to resume it.
 * @property {string} id
 * @property {string} key
 * @property {number} heartbeat Seconds.
 * @property {number} messageBytes
 */

export const SUBPROTOCOL = "v1.json.session-gateway";

/** A connection that held for so many milliseconds was a good one. */
const STEADY = 5_000;
/** How long to wait for a connection, and for a session that is to be resumed, in milliseconds. */
const ANSWER = 15_000;
/** After how many events they are acknowledged, if no message has ended before. */
const ACK_EVERY = 32;
/** How many turns and notes are kept, and of how many characters in the storage. */
const MAX_HISTORY = 1_000;
const MAX_STORED = 500_000;

/**
 * One conversation.
 *
 * Events, each with the gateway's message in `detail`: `opened`, `resumed`, `renewed`, `updated`,
 * `expiring`, `closed`, `accepted`, `error`; `state`, whenever {@link SessionClient#state} has
 * changed; `turn`, with the {@link Turn} in `detail`, whenever anything of it has; and `gap`, with
 * the numbers of the first and the last event that can no longer be had in `detail.lost`.
 *
 * What a listener does before it returns is done before the gateway may forget the event.
 */
export class SessionClient extends EventTarget {
  /** @type {State} */
  state = "closed";
  /** Why there is no connection, in words; empty while there is one. */
  reason = "";
  /** The close code that `reason` puts into words; 0 for none. */
  code = 0;
  /** The number of the session's newest event. */
  lastEvent = 0;
  /**
   * The conversation, oldest first; of a long one the oldest is forgotten.
   * @type {(Turn | Note)[]}
   */
  history = [];

  /** @type {WebSocket | null} */
  #socket = null;
  /** @type {Session | null} */
  #session = null;
  /** Up to which event the connection has to catch up before messages are written. */
  #newest = 0;
  #ready = false;
  /** Whether events were lost, so that any of the turns may have ended with one of them. */
  #gap = false;
  #acknowledged = 0;
  #attempt = 0;
  /** When the connection got its session; 0 if it has not. */
  #openedAt = 0;
  /** For how many seconds the gateway has asked to stay away. */
  #retryAfter = 0;
  /** Whether the session's end is for good: asked for, or because nobody used it. */
  #final = false;
  /** How many half heartbeats have passed without a word of the gateway's. */
  #quiet = 0;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #retry;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #deadline;
  /** @type {ReturnType<typeof setInterval> | undefined} */
  #heartbeat;
  /** @type {AbortController | null} */
  #listening = null;
  #storage;
  #storageKey;
  /**
   * Where windows that have the same session, as a duplicated tab has it, tell each other of it.
   * @type {BroadcastChannel | undefined}
   */
  #windows;
  /** What another window has told of this session. @type {any} */
  #elsewhere = null;

  /**
   * @param {string} url Of the route: `ws://HOST/ws` or `ws://HOST/ws/ROUTE`.
   * @param {Options} [options]
   */
  constructor(url, { storage, storageKey = "session-gateway" } = {}) {
    super();
    this.url = url;
    this.#storage = storage;
    this.#storageKey = storageKey;
    if (!storage) return;
    this.#restore();
    this.#windows = new BroadcastChannel(storageKey);
    this.#windows.addEventListener("message", ({ data }) => this.#overheard(JSON.parse(data)));
  }

  /** Open a connection: to the session, if there is one to resume, else to a new one. */
  connect() {
    this.#drop();
    this.#listen();
    const socket = new WebSocket(this.url, SUBPROTOCOL);
    this.#socket = socket;
    this.#newest = 0;
    this.#openedAt = 0;
    this.#final = false;
    this.#deadline = setTimeout(() => this.#lost(SILENT), ANSWER);
    this.#become("connecting");
    // A socket that has been replaced may still speak; it is not listened to.
    const mine = (/** @type {(event: any) => void} */ handle) => (/** @type {any} */ event) => {
      if (socket === this.#socket) handle(event);
    };
    socket.addEventListener(
      "open",
      mine(() => this.#ask()),
    );
    socket.addEventListener(
      "message",
      mine((event) => this.#received(JSON.parse(event.data))),
    );
    socket.addEventListener(
      "close",
      mine((event) => this.#lost(event.code)),
    );
  }

  /**
   * Send one message, now or as soon as there is a connection.
   * @param {Body} body
   * @param {string} [id] Chosen by the caller. The same message under the same id is the same
   *   turn; another message under an id that was used is refused.
   * @returns {Turn} It fails with a {@link MessageError} if the message is refused or fails, or
   *   the session is gone: then its outcome is unknown, and it is not sent again, since the model
   *   may have seen it.
   */
  send(body, id = crypto.randomUUID()) {
    const known = this.#find(id);
    if (known && JSON.stringify(known.sent) === JSON.stringify(body)) return known;
    if (known) return usedId(id, body);
    const turn = this.#add(id, body);
    if (this.state === "closed") this.#end(turn, notSent("There is no connection."));
    else if (this.#ready) this.#write(turn);
    else this.#store();
    this.#tell("turn", turn);
    return turn;
  }

  /**
   * Ask for a message to be stopped; its turn then ends, as `cancelled` unless it was faster.
   * @param {string} id
   */
  cancel(id) {
    const turn = this.#find(id);
    if (!turn || turn.ended) return;
    if (turn.delivery === "stored") {
      this.#end(turn, cancelled("not_invoked"));
      this.#store();
      return;
    }
    turn.cancelling = true;
    this.#store();
    if (this.#ready) this.#put({ type: "message.cancel", id });
    this.#tell("turn", turn);
  }

  /**
   * Close the session, at the model too, and don't come back. Without a connection it is left to
   * end by itself.
   */
  close() {
    this.#final = true;
    if (this.state === "open") this.#put({ type: "session.close" });
    else this.#stop(1000);
  }

  /**
   * Leave the session, and close it unless another window has it; then begin a new one.
   * @param {string} [url] Of another route.
   */
  restart(url = this.url) {
    const open = this.state === "open";
    if (open) this.#put({ type: "session.close" });
    this.#forget((turn) => {
      if (turn.delivery === "stored") return cancelled("not_invoked");
      return open ? cancelled("unknown") : unknownOutcome("The session was left");
    });
    this.url = url;
    this.#attempt = 0;
    this.connect();
  }

  // What the gateway says

  #ask() {
    const session = this.#session;
    this.#put({
      type: "session.open",
      ...(session && {
        session_id: session.id,
        resume_key: session.key,
        last_event: this.lastEvent,
      }),
    });
    // A model may take its time to open a session; the gateway has none to take to find one.
    if (!session) clearTimeout(this.#deadline);
  }

  /** @param {any} message */
  #received(message) {
    this.#quiet = 0;
    const { type, event } = message;
    if (event !== undefined) {
      if (event <= this.lastEvent) return; // it was here before
      this.lastEvent = event;
    }
    switch (type) {
      case "session.opened":
        this.#opened(message);
        break;
      case "session.resumed":
        this.#resumed(message);
        break;
      case "session.renewed":
        this.#note("renewed", message);
        break;
      case "session.closed":
        this.#closed(message);
        break;
      case "session.updated":
      case "session.expiring":
        this.#tell(type.split(".")[1], message);
        break;
      case "message.accepted":
        this.#change(message.id, () => {});
        this.#tell("accepted", message);
        break;
      case "message.delta":
        this.#change(message.id, (turn) => turn.add(message));
        break;
      case "message.done":
        this.#change(message.id, (turn) => turn.end(message));
        break;
      case "message.duplicate":
        this.#duplicate(message);
        break;
      case "error":
        this.#refused(message);
        break;
      default: // a pong, or something of a later gateway
    }
    if (!this.#session || this.state !== "open") return;
    if (!this.#ready && this.lastEvent >= this.#newest) this.#flush();
    if (event !== undefined) this.#acknowledge(type === "message.done");
  }

  /** @param {Opened & { resume_key: string }} message */
  #opened({ resume_key, ...message }) {
    this.#session = {
      id: message.session_id,
      key: resume_key,
      heartbeat: message.heartbeat_seconds,
      messageBytes: message.limits.message_bytes,
    };
    this.#connected(this.#session);
    this.#note("opened", message);
  }

  /** @param {any} message */
  #resumed({ resume_key, ...message }) {
    if (!this.#session) return;
    this.#session.key = resume_key;
    this.#elsewhere = null;
    this.#newest = message.last_event;
    this.#connected(this.#session);
    if (message.lost) {
      const [first, last] = message.lost;
      this.#gap = true;
      if (first <= this.lastEvent + 1) this.lastEvent = Math.max(this.lastEvent, last);
      this.#note("gap", { lost: message.lost });
    }
    this.#tell("resumed", message);
    // The old key dies with the first message on this connection, so the new one is kept first.
    this.#store();
  }

  /** @param {Session} session */
  #connected(session) {
    clearTimeout(this.#deadline);
    this.#openedAt = Date.now();
    this.#retryAfter = 0;
    this.#watch(session.heartbeat * 1000);
    if (this.state !== "open") this.#become("open");
    this.#store();
  }

  /** @param {any} message */
  #closed(message) {
    // Every event of the session is here. A message that none of them accepts was not accepted.
    for (const turn of this.#pending()) {
      if (turn.delivery === "written" && !this.#gap) turn.delivery = "stored";
    }
    if (message.reason === "idle") this.#final = true;
    this.#gone();
    this.#note("closed", message);
  }

  /**
   * What an event says of a turn. Another window may have sent the message.
   * @param {string} id
   * @param {(turn: Turn) => void} change
   */
  #change(id, change) {
    const turn = this.#find(id) ?? this.#add(id, null);
    if (turn.ended) return;
    turn.delivery = "accepted";
    change(turn);
    this.#tell("turn", turn);
    this.#next();
  }

  /** One turn is at the model at a time: the first that was accepted and has not ended. */
  #next() {
    const turn = this.#pending().find(({ delivery }) => delivery === "accepted");
    if (turn?.status !== "waiting") return;
    turn.status = "running";
    this.#tell("turn", turn);
  }

  /** @param {{ id: string, status: string }} message */
  #duplicate({ id, status }) {
    const turn = this.#find(id);
    if (!turn || turn.ended) return;
    if (status === "queued" || status === "running") {
      this.#change(id, () => {});
    } else {
      // Its end would have come before this, so it is one of the events that were lost.
      turn.incomplete = true;
      this.#end(turn, status === "cancelled" ? cancelled("unknown") : lostReply(status));
    }
  }

  /** @param {Failure & { id?: string }} error */
  #refused({ id, ...error }) {
    const turn = id === undefined ? undefined : this.#find(id);
    if (turn?.ended) return; // it was asked to stop, and had ended
    if (turn && turn.delivery !== "accepted") {
      const { code, message, retryable, retry_after } = error;
      this.#end(turn, failed({ code, message, retryable, retry_after, outcome: "not_invoked" }));
      return;
    }
    if (!turn) this.#retryAfter = error.retry_after ?? 0;
    this.#tell("error", { id, ...error });
    // The session that the gateway has is not the one that this client had.
    if (this.state === "connecting" && error.code === "bad_message") this.#lost(GONE);
  }

  /** @param {boolean} now */
  #acknowledge(now) {
    if (!now && this.lastEvent - this.#acknowledged < ACK_EVERY) return;
    this.#acknowledged = this.lastEvent;
    // What could not be kept here the gateway has to keep.
    if (this.#store()) this.#put({ type: "event.ack", event: this.lastEvent });
  }

  // What is said to the gateway

  /** The session has caught up: write what it has not seen, and ask for what it has not told. */
  #flush() {
    this.#ready = true;
    for (const turn of this.#pending()) {
      if (turn.delivery !== "accepted" || this.#gap) this.#write(turn);
      if (turn.cancelling && !turn.ended) this.#put({ type: "message.cancel", id: turn.id });
    }
    this.#gap = false;
  }

  /** @param {Turn} turn */
  #write(turn) {
    if (!turn.sent) return;
    const message = { ...turn.sent, type: "message.send", id: turn.id };
    const limit = this.#session?.messageBytes ?? Infinity;
    if (new TextEncoder().encode(JSON.stringify(message)).length > limit) {
      this.#end(turn, tooLarge(limit));
      return;
    }
    if (turn.delivery === "stored") turn.delivery = "written";
    this.#store(); // as written, before it is
    this.#put(message);
  }

  /** @param {object} message */
  #put(message) {
    if (this.#socket?.readyState === WebSocket.OPEN) this.#socket.send(JSON.stringify(message));
  }

  /**
   * Find out that the gateway is gone although the socket is not: a ping after one silent
   * heartbeat, the end after two. Half heartbeats are counted and no clock is read: while the page
   * is in the background or the machine asleep, nobody has asked the gateway for a sign of life.
   * @param {number} interval Milliseconds.
   */
  #watch(interval) {
    clearInterval(this.#heartbeat);
    this.#quiet = 0;
    this.#heartbeat = setInterval(() => {
      this.#quiet += 1;
      if (this.#quiet > 4) this.#lost(SILENT);
      else if (this.#quiet > 1) this.#put({ type: "ping" });
    }, interval / 2);
  }

  #listen() {
    if (this.#listening) return;
    this.#listening = new AbortController();
    const { signal } = this.#listening;
    const on = (/** @type {string} */ type, /** @type {() => void} */ handle) =>
      globalThis.addEventListener(type, handle, { signal });
    on("online", () => {
      if (this.state !== "open") this.connect();
    });
    on("offline", () => this.#lost(LOST, "This device is offline."));
    on("pagehide", () => this.#store());
  }

  // The end of a connection, and of a session

  /**
   * @param {number} code
   * @param {string} [words]
   */
  #lost(code, words = describeClose(code).words) {
    const { comeBack } = describeClose(code);
    if (comeBack === "no" || this.#final) {
      this.#stop(code);
      return;
    }
    this.#drop();
    this.reason = words;
    this.code = code;
    if (this.#openedAt > 0 && Date.now() - this.#openedAt >= STEADY) this.#attempt = 0;
    // A gateway that goes or has forgotten says so at once; but a session that opens and ends, and
    // opens and ends, must not make a busy loop of it.
    const news = comeBack === "new" && this.#session !== null;
    const atOnce = news || (comeBack !== "later" && this.#attempt === 0);
    const wait = Math.max(250, backoff(this.#attempt, Math.random()), this.#retryAfter * 1000);
    this.#retry = setTimeout(() => this.connect(), atOnce ? 0 : wait);
    this.#attempt += 1;
    if (comeBack === "new") this.#gone();
    this.#become("waiting");
  }

  /** @param {number} code */
  #stop(code) {
    this.#drop();
    this.reason = describeClose(code).words;
    this.code = code;
    if (code === TAKEN_OVER) this.#adopt();
    else {
      this.#forget(({ delivery }) =>
        delivery === "stored" ? notSent(this.reason) : unknownOutcome("The session has ended"),
      );
    }
    this.#become("closed");
  }

  /** What the session may have seen has an unknown outcome; the rest goes to the next one. */
  #gone() {
    this.#forget(({ delivery }) =>
      delivery === "stored" ? null : unknownOutcome("The session is gone"),
    );
  }

  /** @param {(turn: Turn) => Ended | null} end How a turn ends with the session, if it does. */
  #forget(end) {
    this.#session = null;
    this.#ready = false;
    this.#gap = false;
    this.lastEvent = 0;
    this.#acknowledged = 0;
    for (const turn of this.#pending()) {
      const ended = end(turn);
      if (ended) this.#end(turn, ended);
    }
    this.#store();
  }

  /** Let go of the socket. */
  #drop() {
    clearTimeout(this.#retry);
    clearTimeout(this.#deadline);
    clearInterval(this.#heartbeat);
    this.#ready = false;
    const socket = this.#socket;
    this.#socket = null;
    socket?.close();
  }

  // What is kept

  /** @param {string} id */
  #find(id) {
    const found = this.history.findLast((item) => item instanceof Turn && item.id === id);
    return found instanceof Turn ? found : undefined;
  }

  #pending() {
    return this.history.filter((item) => item instanceof Turn).filter((turn) => !turn.ended);
  }

  /**
   * @param {string} id
   * @param {Body | null} sent
   */
  #add(id, sent) {
    const turn = new Turn(id, sent, () => this.cancel(id));
    this.history.push(turn);
    if (this.history.length > MAX_HISTORY) this.#halve();
    return turn;
  }

  /**
   * @param {Note["type"]} type
   * @param {any} detail
   */
  #note(type, detail) {
    this.history.push({ type, detail });
    this.#tell(type, detail);
  }

  /**
   * @param {Turn} turn
   * @param {Ended} ended
   */
  #end(turn, ended) {
    turn.end({ ...ended, id: turn.id });
    this.#tell("turn", turn);
  }

  /** Forget the older half of what is over; false if nothing is. */
  #halve() {
    const over = this.history.filter((item) => !(item instanceof Turn) || item.ended);
    const old = new Set(over.slice(0, Math.ceil(over.length / 2)));
    this.history = this.history.filter((item) => !old.has(item));
    return old.size > 0;
  }

  /**
   * Keep everything, in one piece: a page that ends at any moment finds all of one moment or of
   * another, and the gateway has what came after that as long as it was not acknowledged.
   * @returns {boolean} Whether that was possible.
   */
  #store() {
    if (!this.#storage) return true;
    for (;;) {
      const kept = JSON.stringify({
        url: this.url,
        session: this.#session,
        last_event: this.lastEvent,
        history: this.history,
      });
      if (kept.length > MAX_STORED && this.#halve()) continue;
      try {
        this.#storage.setItem(this.#storageKey, kept);
      } catch {
        return false; // it is full, with something else
      }
      if (this.#session && this.state === "open") this.#windows?.postMessage(kept);
      return true;
    }
  }

  #restore() {
    const kept = parsed(this.#storage?.getItem(this.#storageKey));
    if (!kept) return;
    for (const item of kept.history) {
      if ("id" in item) this.#add(item.id, item.sent).load(item);
      else this.history.push(item);
    }
    if (kept.url !== this.url) {
      this.#forget(({ delivery }) =>
        delivery === "stored" ? cancelled("not_invoked") : unknownOutcome("The session was left"),
      );
    } else if (kept.session) {
      this.#session = kept.session;
      this.lastEvent = kept.last_event;
      this.#acknowledged = kept.last_event;
      this.#next();
    } else {
      this.#gone();
    }
  }

  /** @param {any} kept By another window. */
  #overheard(kept) {
    if (kept.session.id !== this.#session?.id) return;
    // It may have been said before this window had the session; that shows when it is taken over.
    this.#elsewhere = kept;
    if (this.code === TAKEN_OVER) this.#adopt();
  }

  /** Take what the window knows that has taken the session over, so that it can be had back. */
  #adopt() {
    const kept = this.#elsewhere;
    if (!kept || !this.#session) return;
    this.#elsewhere = null;
    this.#session = kept.session;
    const known = this.lastEvent;
    if (kept.last_event > known) {
      this.lastEvent = kept.last_event;
      this.#acknowledged = kept.last_event;
      for (const item of kept.history) {
        if ("id" in item) {
          const turn = this.#find(item.id) ?? this.#add(item.id, item.sent);
          turn.load(item);
          this.#tell("turn", turn);
        } else if (item.detail.event > known) {
          this.#note(item.type, item.detail);
        }
      }
      this.#next();
    }
    this.#store();
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
    this.#tell("state", state);
  }

  /**
   * @param {string} type
   * @param {unknown} detail
   */
  #tell(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }
}

/**
 * @param {string} id
 * @param {Body} body
 */
function usedId(id, body) {
  const message = "Another message has had this id.";
  const error = { code: "bad_message", message, retryable: false };
  const turn = new Turn(id, body, () => {});
  turn.end({ ...failed({ ...error, outcome: "not_invoked" }), id });
  return turn;
}

/** @param {string | null | undefined} text */
function parsed(text) {
  try {
    return JSON.parse(text ?? "null");
  } catch {
    return null;
  }
}
