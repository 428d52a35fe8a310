/**
 * A client of session-gateway for browsers: one conversation over one WebSocket.
 *
 * It needs nothing but this file. It speaks the protocol's version 1 in JSON:
 *
 *     import { SessionClient } from "./client.js";
 *
 *     const client = new SessionClient("ws://127.0.0.1:8080/ws");
 *     client.addEventListener("state", () => console.log(client.state));
 *     client.connect();
 *     const done = await client.send({ text: "Hello" });
 *     console.log(done.text);
 *
 * @module
 */

/** @typedef {"connecting" | "open" | "waiting" | "closed"} State */
/** @typedef {"no" | "now" | "later"} ComeBack */
/** @typedef {{ words: string, comeBack: ComeBack }} CloseCode */
/** @typedef {{ code: string, message: string, retryable: boolean, outcome?: string }} Failure */
/**
 * @typedef {object} Opened
 * @property {string} session_id
 * @property {string | null} expires_at
 * @property {string} route
 * @property {number} heartbeat_seconds
 * @property {{ message_bytes: number, queued_messages: number, resume_seconds: number }} limits
 */
/**
 * @typedef {object} Done
 * @property {string} id
 * @property {"completed" | "cancelled" | "failed"} status
 * @property {string} [text]
 * @property {unknown} [json]
 * @property {string} [base64]
 * @property {string} [content_type]
 * @property {string} [invoked_production_variant]
 * @property {number} duration_ms
 * @property {Failure} [error]
 */
/**
 * @typedef {object} Body Exactly one of `text`, `json` and `base64`, and the protocol's options.
 * @property {string} [text]
 * @property {unknown} [json]
 * @property {string} [base64]
 * @property {string} [content_type]
 * @property {string} [accept]
 */

export const SUBPROTOCOL = "v1.json.session-gateway";

/**
 * What each close code means, and whether the client may come back. Coming back is with a new
 * session: what the old one knew is gone.
 * @type {ReadonlyMap<number, CloseCode>}
 */
export const CLOSE_CODES = new Map([
  [1000, { words: "The session was closed.", comeBack: "no" }],
  [1001, { words: "The page was left.", comeBack: "no" }],
  [1006, { words: "The connection was lost.", comeBack: "later" }],
  [1007, { words: "A message was not valid text.", comeBack: "no" }],
  [1009, { words: "A message was too large.", comeBack: "no" }],
  [1011, { words: "The gateway had an internal error.", comeBack: "later" }],
  [1012, { words: "The gateway is restarting.", comeBack: "now" }],
  [4400, { words: "The client broke the protocol.", comeBack: "no" }],
  [4401, { words: "You are not signed in, or no longer.", comeBack: "no" }],
  [4403, { words: "You may not use this route.", comeBack: "no" }],
  [4404, { words: "There is no such route.", comeBack: "no" }],
  [4406, { words: "The gateway speaks another version.", comeBack: "no" }],
  [4408, { words: "The connection was silent for too long.", comeBack: "later" }],
  [4409, { words: "The session was taken over by another window.", comeBack: "no" }],
  [4410, { words: "The session is gone.", comeBack: "now" }],
  [4413, { words: "This client was too slow.", comeBack: "later" }],
  [4429, { words: "There are too many connections or messages.", comeBack: "later" }],
  [4503, { words: "The model's endpoint is unavailable or full.", comeBack: "later" }],
]);

/**
 * What a close code means; an unknown one is taken for a lost connection.
 * @param {number} code
 * @returns {CloseCode}
 */
export function describeClose(code) {
  return (
    CLOSE_CODES.get(code) ?? { words: `The connection was closed (${code}).`, comeBack: "later" }
  );
}

/** The longest wait before a further attempt, in milliseconds. */
export const MAX_BACKOFF = 30_000;

/**
 * How long to wait before an attempt: anywhere up to a bound that doubles, so that many clients
 * that were cut off together do not come back together.
 * @param {number} attempt Counted from 0.
 * @param {number} random From 0 up to 1.
 * @returns {number} Milliseconds.
 */
export function backoff(attempt, random) {
  return Math.round(random * Math.min(MAX_BACKOFF, 500 * 2 ** attempt));
}

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
 * One conversation.
 *
 * Events, each with the gateway's message in `detail`: `opened`, `updated`, `expiring`, `closed`,
 * `accepted`, `error`; and `state`, whenever {@link SessionClient#state} has changed.
 */
export class SessionClient extends EventTarget {
  /** @type {State} */
  state = "closed";
  /** Why there is no connection, in words; empty while there is one. */
  reason = "";
  /** The number of the newest event. */
  lastEvent = 0;

  /** @type {WebSocket | null} */
  #socket = null;
  /** @type {Map<string, { resolve: (done: Done) => void, reject: (error: Error) => void }>} */
  #pending = new Map();
  /** Messages that wait for the socket to open. @type {{ type: string, id?: string }[]} */
  #unsent = [];
  /** Whether the session's end is for good: asked for, or because nobody used it. */
  #final = false;
  #attempt = 0;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #retry;
  /** @type {ReturnType<typeof setInterval> | undefined} */
  #heartbeat;
  /** How many half heartbeats have passed without a word of the gateway's. */
  #quiet = 0;

  /** @param {string} url Of the route: `ws://HOST/ws` or `ws://HOST/ws/ROUTE`. */
  constructor(url) {
    super();
    this.url = url;
  }

  /** Open a connection and a new session. */
  connect() {
    this.#drop();
    const socket = new WebSocket(this.url, SUBPROTOCOL);
    this.#socket = socket;
    this.lastEvent = 0;
    this.#final = false;
    this.#become("connecting");
    // A socket that has been replaced may still speak; it is not listened to.
    const mine = (/** @type {(event: any) => void} */ handle) => (/** @type {any} */ event) => {
      if (socket === this.#socket) handle(event);
    };
    socket.addEventListener(
      "open",
      mine(() => {
        socket.send(JSON.stringify({ type: "session.open" }));
        for (const message of this.#unsent.splice(0)) socket.send(JSON.stringify(message));
      }),
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
   * Send one message.
   * @param {Body} body
   * @param {string} [id] Chosen by the caller; unique within the session.
   * @returns {Promise<Done>} The end of its turn, completed or cancelled.
   * @throws {MessageError} It was refused or failed, or its connection was lost: then its outcome
   *   is unknown, and it is not sent again, since the model may have seen it.
   */
  send(body, id = crypto.randomUUID()) {
    return new Promise((resolve, reject) => {
      if (this.#socket === null) {
        reject(notSent("There is no connection."));
        return;
      }
      if (this.#pending.has(id)) {
        reject(notSent("A message with this id is under way.", false));
        return;
      }
      this.#pending.set(id, { resolve, reject });
      this.#write({ type: "message.send", id, ...body });
    });
  }

  /**
   * Ask for a message to be stopped; its promise then ends.
   * @param {string} id
   */
  cancel(id) {
    this.#write({ type: "message.cancel", id });
  }

  /** Close the session, at the model too, and don't come back. */
  close() {
    this.#final = true;
    if (this.state === "open") this.#write({ type: "session.close" });
    else this.#end("no", "The session was closed.");
  }

  /** @param {{ type: string, id?: string }} message */
  #write(message) {
    if (this.#socket?.readyState === WebSocket.OPEN) this.#socket.send(JSON.stringify(message));
    else this.#unsent.push(message);
  }

  /** @param {any} message */
  #received(message) {
    this.#quiet = 0;
    if (message.event !== undefined) this.lastEvent = message.event;
    switch (message.type) {
      case "session.opened":
        this.#attempt = 0;
        this.#watch(message.heartbeat_seconds * 1000);
        this.#become("open");
        this.#tell("opened", message);
        break;
      case "message.done":
        this.#settle(message);
        break;
      case "message.duplicate": // only of an id that has ended: one under way is not sent again
        this.#refused(notSent("A message with this id has ended.", false).failure, message.id);
        break;
      case "error":
        this.#refused(message, message.id);
        break;
      case "session.closed":
        if (message.reason === "idle") this.#final = true;
        this.#tell("closed", message);
        break;
      case "session.updated":
      case "session.expiring":
      case "message.accepted":
        this.#tell(message.type.split(".")[1], message);
        break;
      default: // a pong, or something of a later gateway
    }
  }

  /** @param {Done} done */
  #settle(done) {
    const pending = this.#pending.get(done.id);
    this.#pending.delete(done.id);
    if (done.error) pending?.reject(new MessageError(done.error));
    else pending?.resolve(done);
  }

  /**
   * @param {Failure} error
   * @param {string} [id]
   */
  #refused(error, id = "") {
    const pending = this.#pending.get(id);
    if (pending) {
      this.#pending.delete(id);
      pending.reject(new MessageError({ ...error, outcome: "not_invoked" }));
    } else {
      this.#tell("error", error);
    }
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
      if (this.#quiet > 4) this.#lost(4408);
      else if (this.#quiet > 1) this.#write({ type: "ping" });
    }, interval / 2);
  }

  /** @param {number} code */
  #lost(code) {
    const { words, comeBack } = describeClose(code);
    this.#end(this.#final ? "no" : comeBack, words);
  }

  /**
   * @param {ComeBack} comeBack
   * @param {string} words
   */
  #end(comeBack, words) {
    this.#drop();
    this.reason = words;
    if (comeBack === "no") {
      this.#become("closed");
      return;
    }
    const wait = comeBack === "now" ? 0 : backoff(this.#attempt, Math.random());
    // A session that opens and ends at once must not make a busy loop of it.
    this.#attempt += 1;
    this.#retry = setTimeout(() => this.connect(), Math.max(wait, 250));
    this.#become("waiting");
  }

  /** Let go of the socket, and of what waited for it. */
  #drop() {
    clearTimeout(this.#retry);
    clearInterval(this.#heartbeat);
    const socket = this.#socket;
    this.#socket = null;
    socket?.close();
    const unsent = new Set(this.#unsent.splice(0).map((message) => message.id));
    const lost = [...this.#pending];
    this.#pending.clear();
    for (const [id, { reject }] of lost) {
      reject(unsent.has(id) ? notSent("There is no connection.") : unknownOutcome());
    }
  }

  /** @param {State} state */
  #become(state) {
    this.state = state;
    if (state === "open") this.reason = "";
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
 * @param {string} message
 * @param {boolean} [retryable]
 */
function notSent(message, retryable = true) {
  return new MessageError({
    code: retryable ? "unavailable" : "bad_message",
    message,
    retryable,
    outcome: "not_invoked",
  });
}

function unknownOutcome() {
  return new MessageError({
    code: "unavailable",
    message: "The connection was lost; whether the model saw the message is not known.",
    retryable: false,
    outcome: "unknown",
  });
}
