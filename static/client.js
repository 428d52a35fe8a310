/**
 * A client of session-gateway: one conversation, which outlives its connections.
 *
 * It is one file that imports nothing, for pages of any origin and for Node from version 20 on. It
 * speaks the protocol's version 1 in JSON:
 *
 *     import { SessionClient } from "./client.js";
 *
 *     const client = new SessionClient("ws://127.0.0.1:8080/ws");
 *     client.connect();
 *     const turn = client.send("Hello");
 *     for await (const part of turn) console.log(part); // as the model says it
 *     const done = await turn; // the end, with the whole text
 *     console.log(done.text);
 *     client.close();
 *
 * A connection that is lost is opened again, and the session resumed: each event is taken once and
 * in order, each message reaches the model at most once. With a `storage`, such as a page's
 * `sessionStorage`, that holds for a page that is loaded again too: `client.history` is then what
 * it was.
 *
 * @module
 */

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
 * @property {boolean} [hold] Whether a message that was meant for a session that is gone is held
 *   until {@link Turn#release}. Left out: it goes to the next session, which knows nothing.
 * @property {new (url: string, protocol: string) => any} [WebSocket] What makes the connections,
 *   where there is no global `WebSocket`: that of the package `ws`.
 */
/**
 * @typedef {object} Session What is needed to resume it.
 * @property {string} id
 * @property {string} key
 * @property {number} heartbeat Seconds.
 * @property {number} messageBytes
 */

// Why connections end, and when a client may come back

/** @typedef {"no" | "now" | "later" | "new"} ComeBack With `new`: at once, with a new session. */
/**
 * @typedef {object} CloseCode
 * @property {string} words
 * @property {ComeBack} comeBack
 * @property {string} [error] The error code of what could not be sent for this reason, where trying
 *   again is of no use.
 */
/**
 * What each close code means, and whether the client may come back to its session.
 * @type {ReadonlyMap<number, CloseCode>}
 */
export const CLOSE_CODES = new Map([
  [1000, { words: "The session was closed.", comeBack: "no" }],
  [1001, { words: "The gateway went away.", comeBack: "later" }],
  [1006, { words: "The connection was lost.", comeBack: "later" }],
  [1007, { words: "A message was not valid text.", comeBack: "no" }],
  [1009, { words: "A message was too large.", comeBack: "no" }],
  [1011, { words: "The gateway had an internal error.", comeBack: "later" }],
  [1012, { words: "The gateway is restarting.", comeBack: "now" }],
  [4400, { words: "The client broke the protocol.", comeBack: "no" }],
  [
    4401,
    { words: "You are not signed in, or no longer.", comeBack: "no", error: "unauthenticated" },
  ],
  [4403, { words: "You may not use this route.", comeBack: "no", error: "forbidden" }],
  [4404, { words: "There is no such route.", comeBack: "no", error: "unknown_route" }],
  [4406, { words: "The gateway speaks another version.", comeBack: "no", error: "bad_message" }],
  [4408, { words: "The connection was silent for too long.", comeBack: "later" }],
  [4409, { words: "The session was taken over by another window.", comeBack: "no" }],
  [4410, { words: "The session is gone.", comeBack: "new" }],
  [4413, { words: "This client was too slow.", comeBack: "later" }],
  [4429, { words: "There are too many connections or messages.", comeBack: "later" }],
  [4503, { words: "The model's endpoint is unavailable or full.", comeBack: "later" }],
]);

const LOST = 1006;
const FORBIDDEN = 4403;
const SILENT = 4408;
/** Another window has taken the session. */
export const TAKEN_OVER = 4409;
const GONE = 4410;

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

// One message, and the reply to it

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
  /** Whether it was meant for a session that is gone, and waits for a word of its sender. */
  held = false;
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
   * @param {{ cancel(id: string): void, release(id: string): void }} client
   */
  constructor(id, sent, client) {
    this.id = id;
    this.sent = sent;
    /** Ask for it to be stopped; `await turn` then tells what came of that. */
    this.cancel = () => client.cancel(id);
    /** Send it all the same, if it is held. */
    this.release = () => client.release(id);
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
      held: this.held,
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
    this.held = kept.held;
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
function failed(error) {
  return { status: "failed", error, deltas: 0, duration_ms: 0 };
}

/**
 * @param {Outcome} outcome
 * @returns {Ended}
 */
function cancelled(outcome) {
  return { status: "cancelled", outcome, deltas: 0, duration_ms: 0 };
}

/**
 * @param {string} message
 * @param {string} [code] Of what will not pass by itself.
 */
function notSent(message, code) {
  const retryable = code === undefined;
  return failed({ code: code ?? "unavailable", message, retryable, outcome: "not_invoked" });
}

/** @param {number} limit */
function tooLarge(limit) {
  const message = `A message may have ${limit} bytes; this one has more.`;
  return failed({ code: "too_large", message, retryable: false, outcome: "not_invoked" });
}

/** @param {string} why */
function unknownOutcome(why) {
  const message = `${why}; whether the model saw the message is not known.`;
  return failed({ code: "session_lost", message, retryable: false, outcome: "unknown" });
}

/** @param {string} status */
function lostReply(status) {
  const message = "The end of the reply was lost on the way.";
  const outcome = status === "completed" ? "invoked" : "unknown";
  return failed({ code: "stream_broken", message, retryable: false, outcome });
}

// The conversation

export const SUBPROTOCOL = "v1.json.session-gateway";

/** A socket's state, in every `WebSocket`. */
const OPEN = 1;
/** A connection that held for so many milliseconds was a good one. */
const STEADY = 5_000;
/** How long to wait for a connection, and for a session that is to be resumed, in milliseconds. */
const ANSWER = 15_000;
/** How long to wait for what another window knows, in milliseconds. */
const ELSEWHERE = 1_000;
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
  /** The session that is gone, until another is there. @type {string | null} */
  #replaces = null;
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
  #WebSocket;
  #hold;
  #storage;
  #storageKey;
  /**
   * Where windows that have the same session, as a duplicated tab has it, tell each other of it.
   * @type {BroadcastChannel | undefined}
   */
  #windows;
  /** What another window has told of this session. @type {any} */
  #elsewhere = null;
  /** What has come since another window was asked; null while none is. @type {any[] | null} */
  #waiting = null;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #asking;

  /**
   * @param {string} url Of the route: `ws://HOST/ws` or `ws://HOST/ws/ROUTE`.
   * @param {Options} [options]
   * @throws {TypeError} There is no `WebSocket`.
   */
  constructor(url, options = {}) {
    super();
    const { WebSocket = globalThis.WebSocket, hold = false } = options;
    const { storage, storageKey = "session-gateway" } = options;
    if (!WebSocket) {
      throw new TypeError(
        "There is no global WebSocket: Node has one from version 22 on. Before that, install the " +
          'package ws, import { WebSocket } from "ws", and give it: ' +
          "new SessionClient(url, { WebSocket }).",
      );
    }
    this.url = url;
    this.#WebSocket = WebSocket;
    this.#hold = hold;
    this.#storage = storage;
    this.#storageKey = storageKey;
    if (!storage) return;
    this.#restore();
    this.#windows = new BroadcastChannel(storageKey);
    this.#windows.addEventListener("message", ({ data }) => this.#overheard(JSON.parse(data)));
    // Node would not end while it listens.
    /** @type {any} */ (this.#windows).unref?.();
  }

  /** Open a connection: to the session, if there is one to resume, else to a new one. */
  connect() {
    this.#drop();
    this.#listen();
    const socket = new this.#WebSocket(this.url, SUBPROTOCOL);
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
    let reached = false;
    const listeners = {
      open: () => {
        reached = true;
        this.#ask();
      },
      message: (/** @type {any} */ { data }) => this.#received(JSON.parse(data)),
      error: () => {}, // its close follows; but ws throws what nobody listens to
      close: async (/** @type {any} */ { code }) => {
        const refusal = reached ? null : await this.#refusal();
        if (socket !== this.#socket) return;
        if (refusal === null) this.#lost(code);
        else this.#stop(FORBIDDEN, refusal);
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
    const sent = sendable(body);
    const known = this.#find(id);
    if (known && JSON.stringify(known.sent) === JSON.stringify(sent)) return known;
    if (known) return usedId(id, sent);
    const turn = this.#add(id, sent);
    if (this.state === "closed") this.#end(turn, this.#notSent());
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
   * Send a message that is held.
   * @param {string} id
   */
  release(id) {
    const turn = this.#find(id);
    if (!turn?.held || turn.ended) return;
    turn.held = false;
    if (this.#ready) this.#write(turn);
    else this.#store();
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
    this.#replaces = null;
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
    if (this.#waiting) this.#waiting.push(message);
    else if (message.type === "session.resumed" && message.lost && this.#windows) {
      // What another window has acknowledged is lost to the gateway, but not to that window.
      this.#waiting = [message];
      this.#asking = setTimeout(() => this.#goOn(), ELSEWHERE);
      this.#windows.postMessage(JSON.stringify({ asks: message.session_id }));
    } else this.#take(message);
  }

  /** Take what has waited for another window. */
  #goOn() {
    clearTimeout(this.#asking);
    const waiting = this.#waiting ?? [];
    this.#waiting = null;
    const socket = this.#socket;
    for (const message of waiting) if (socket === this.#socket) this.#take(message);
  }

  /** @param {any} message */
  #take(message) {
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
    const replaces = this.#replaces;
    this.#replaces = null;
    if (replaces !== null && this.#hold) {
      for (const turn of this.#pending()) {
        turn.held = true;
        this.#tell("turn", turn);
      }
    }
    this.#connected(this.#session);
    this.#note("opened", { ...message, replaces });
  }

  /** @param {any} message */
  #resumed({ resume_key, ...message }) {
    if (!this.#session) return;
    this.#session.key = resume_key;
    const kept = this.#elsewhere;
    this.#elsewhere = null;
    this.#newest = message.last_event;
    this.#connected(this.#session);
    if (message.lost) {
      const [first, last] = message.lost;
      if (kept?.last_event >= last) this.#learn(kept);
      else {
        this.#gap = true;
        if (first <= this.lastEvent + 1) this.lastEvent = Math.max(this.lastEvent, last);
        this.#note("gap", { lost: message.lost });
      }
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
      if (turn.held) continue;
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
    if (this.#socket?.readyState === OPEN) this.#socket.send(JSON.stringify(message));
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
    on("offline", () => this.#lost(LOST, "This device is offline."));
    on("pagehide", () => this.#store());
  }

  // The end of a connection, and of a session

  /**
   * Ask over HTTP why a handshake was refused: a page can't tell that from a gateway that is not
   * there. A browser names the page's origin in a POST to the page's own gateway too.
   * @returns {Promise<string | null>} The gateway's words; null where it has not refused.
   */
  async #refusal() {
    const signal = AbortSignal.timeout(ANSWER);
    try {
      const answer = await fetch(this.url.replace(/^ws/, "http"), { method: "POST", signal });
      const problem = answer.status === 403 ? await answer.json() : null;
      return problem?.code === "forbidden" ? problem.detail : null;
    } catch {
      return null; // it is not there, or something else answers in its place
    }
  }

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

  /**
   * @param {number} code
   * @param {string} [words]
   */
  #stop(code, words = describeClose(code).words) {
    this.#drop();
    this.reason = words;
    this.code = code;
    if (code === TAKEN_OVER) this.#adopt();
    else {
      this.#replaces = null;
      this.#forget(({ delivery }) =>
        delivery === "stored" ? this.#notSent() : unknownOutcome("The session has ended"),
      );
    }
    this.#become("closed");
  }

  /** How a message ends that can't be sent without a connection. */
  #notSent() {
    const words = this.reason || "There is no connection: connect() opens one.";
    return notSent(words, describeClose(this.code).error);
  }

  /** What the session may have seen has an unknown outcome; the rest goes to the next one. */
  #gone() {
    this.#replaces = this.#session?.id ?? this.#replaces;
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
    clearTimeout(this.#asking);
    this.#waiting = null;
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
    const turn = new Turn(id, sent, this);
    this.history.push(turn);
    if (this.history.length > MAX_HISTORY) this.#halve();
    return turn;
  }

  /**
   * What befalls a session stands before the turns that come after it: those without a reply yet.
   * @param {Note["type"]} type
   * @param {any} detail
   */
  #note(type, detail) {
    const later = this.history.findIndex(
      (item) => item instanceof Turn && !item.ended && !item.begun,
    );
    this.history.splice(later < 0 ? this.history.length : later, 0, { type, detail });
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
      const kept = this.#kept();
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

  #kept() {
    return JSON.stringify({
      url: this.url,
      session: this.#session,
      replaces: this.#replaces,
      last_event: this.lastEvent,
      history: this.history,
    });
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
      this.#replaces = kept.replaces ?? null;
      this.#gone();
    }
  }

  /** @param {any} said By another window: what it keeps, or that it asks for that. */
  #overheard(said) {
    if (said.asks) {
      if (said.asks === this.#session?.id) this.#windows?.postMessage(this.#kept());
      return;
    }
    if (said.session.id !== this.#session?.id) return;
    // It may have been said before this window had the session; that shows when it is taken over.
    this.#elsewhere = said;
    if (this.code === TAKEN_OVER) this.#adopt();
    if (said.last_event >= this.#waiting?.[0].lost[1]) this.#goOn();
  }

  /** Take what the window knows that has taken the session over, so that it can be had back. */
  #adopt() {
    const kept = this.#elsewhere;
    if (!kept || !this.#session) return;
    this.#elsewhere = null;
    this.#session = kept.session;
    this.#learn(kept);
    this.#store();
  }

  /** @param {any} kept By another window, which may be further on. */
  #learn(kept) {
    const known = this.lastEvent;
    if (kept.last_event <= known) return;
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

/** Not `randomUUID`, which pages have only over HTTPS and on loopback addresses. */
function newId() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/**
 * What a message says, as JSON has it; what its sender changes later changes nothing.
 * @param {string | Body} body
 * @returns {Body}
 * @throws {TypeError} It can't be sent.
 */
function sendable(body) {
  if (typeof body === "string") return { text: body };
  const { bytes, ...rest } = body ?? {};
  const sent = JSON.parse(JSON.stringify(rest));
  const [kind, another] = ["text", "json", "base64"].filter((name) => name in sent);
  if (bytes instanceof ArrayBuffer || ArrayBuffer.isView(bytes)) {
    if (kind === undefined) return { ...sent, base64: encoded(bytes) };
  } else if (another === undefined && bytes === undefined) {
    if (kind === "json" || typeof sent[kind] === "string") return sent;
  }
  throw new TypeError(
    "A message is a string, or an object with one of text, json, base64 and bytes, " +
      'such as { json: { "inputs": "Hello" } }.',
  );
}

/** @param {ArrayBuffer | ArrayBufferView} bytes */
function encoded(bytes) {
  const view = ArrayBuffer.isView(bytes)
    ? new Uint8Array(bytes.buffer, bytes.byteOffset, bytes.byteLength)
    : new Uint8Array(bytes);
  return btoa(Array.from(view, (byte) => String.fromCharCode(byte)).join(""));
}

/**
 * @param {string} id
 * @param {Body} body
 */
function usedId(id, body) {
  const message = "Another message has had this id.";
  const error = { code: "bad_message", message, retryable: false };
  const turn = new Turn(id, body, { cancel() {}, release() {} });
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
