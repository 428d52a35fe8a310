/**
 * What a client knows of its session, without I/O: messages in, messages to write out.
 *
 * It outlives connections: it counts the events so that each is taken once and in order, keeps the
 * messages that the gateway has not acknowledged, and knows what to write first after a resume.
 *
 * @module
 */

import { cancelled, failed } from "./endings.js";
import { ProtocolError, SkippedEvents } from "./errors.js";
import { History } from "./history.js";
import { Outbox } from "./outbox.js";

/** @typedef {import("./endings.js").Ended} Ended */
/** @typedef {import("./errors.js").Failure} Failure */
/** @typedef {import("./restoring.js").SentHistory} SentHistory */
/**
 * @typedef {object} Opened
 * @property {string} session_id
 * @property {string | null} expires_at
 * @property {string} route
 * @property {number} heartbeat_seconds
 * @property {{ message_bytes: number, queued_messages: number, resume_seconds: number }} limits
 */
/**
 * @typedef {object} Resumable What is needed to resume a session.
 * @property {string} id
 * @property {string} key
 * @property {number} heartbeat Seconds.
 * @property {number} messageBytes
 */
/**
 * @typedef {object} Client What a conversation needs from its client.
 * @property {(type: string, detail: unknown) => void} notify Dispatches an event.
 * @property {(message: object) => number} size The size of a message's frame in bytes.
 * @property {(message: object) => void} write Writes a message, if there is a connection.
 * @property {() => boolean} store Stores everything; false if that fails.
 * @property {(heartbeat: number) => void} attached Called when the session was opened or resumed.
 */

/** The number of events after which they are acknowledged, unless a turn ends before. */
const ACK_EVERY = 32;

export class Conversation {
  history;
  outbox;
  /** The session, while there is one. @type {Resumable | null} */
  session = null;
  /** The number of the session's newest event. */
  lastEvent = 0;
  /** Whether the current connection has the session. */
  attached = false;
  /** Why the gateway has closed the session, if it has on this connection. @type {string | null} */
  closed = null;
  /** How long the gateway has asked to wait before reconnecting, in seconds. */
  retryAfter = 0;

  #client;
  #hold;
  /** The event that the connection has to reach before messages are written. */
  #newest = 0;
  #acknowledged = 0;
  /** Whether the acknowledgement may have been lost with a connection. */
  #unsure = false;
  /** The event after which others were skipped; -1 for none. */
  #skippedAfter = -1;
  /** The session that is gone, until another is opened. @type {string | null} */
  #replaces = null;
  /** What another window has stored of this session. @type {any} */
  #elsewhere = null;
  /** Whether another window has taken the session over, and this one has not taken it back. */
  #takenOver = false;
  /** What the session was sent of the earlier history. @type {SentHistory | null} */
  #sentHistory = null;
  /** Whether the next session won't have the earlier history. */
  #forgets = false;

  /**
   * @param {Client} client
   * @param {boolean} hold Whether messages for a session that is gone are held.
   */
  constructor(client, hold) {
    const handles = {
      cancel: (/** @type {string} */ id) => this.outbox.cancel(id),
      release: (/** @type {string} */ id) => this.outbox.release(id),
    };
    this.history = new History(handles, client.notify);
    this.outbox = new Outbox(this.history, client);
    this.#client = client;
    this.#hold = hold;
  }

  /**
   * Resume the session that was sent the history, if there is one, with the next connection.
   * @param {import("./restoring.js").Restored} restored
   */
  replaced({ session, sentHistory, forgets }) {
    this.#forgets = forgets;
    if (!session) return;
    // The rest comes with its first event.
    this.session = { ...session, heartbeat: 30, messageBytes: Infinity };
    this.#sentHistory = sentHistory;
    this.#client.store();
  }

  // Messages from the gateway

  /** The first message of a connection: resumes the session if there is one. */
  opening() {
    const { session, lastEvent } = this;
    if (!session) return { type: "session.open" };
    const { id, key } = session;
    return { type: "session.open", session_id: id, resume_key: key, last_event: lastEvent };
  }

  /** There is no connection, or it does not have the session yet. */
  detach() {
    this.attached = this.outbox.ready = false;
    this.#newest = 0;
    this.#unsure = this.session !== null;
    this.closed = null;
  }

  /**
   * @param {any} message
   * @throws {ProtocolError} It violates the protocol; {@link SkippedEvents}: events before it are
   *   missing.
   */
  take(message) {
    const { type, event } = message;
    if (event !== undefined) {
      if (event <= this.lastEvent) return; // already taken
      if (event > this.lastEvent + 1) this.#skipped(event - 1);
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
        this.history.note("renewed", message);
        break;
      case "session.closed":
        this.#closed(message);
        break;
      case "session.updated":
      case "session.expiring":
        this.#client.notify(type.split(".")[1], message);
        break;
      case "message.accepted":
        this.history.accepted(message.id);
        this.#client.notify("accepted", message);
        break;
      case "message.delta":
        this.history.accepted(message.id, (turn) => turn.add(message));
        break;
      case "message.done":
        this.history.accepted(message.id, (turn) => turn.end(message));
        break;
      case "message.duplicate":
        this.history.duplicate(message);
        break;
      case "error":
        this.#refused(message);
        break;
      default: // a pong, or a type that a later gateway has
    }
    if (!this.attached) return;
    if (!this.outbox.ready && this.lastEvent >= this.#newest) this.#caughtUp();
    if (event !== undefined) this.#acknowledge(type === "message.done");
  }

  /**
   * Events up to `last` are missing: numbers have no gaps, and the gateway reports lost events.
   * @param {number} last
   * @returns {never}
   */
  #skipped(last) {
    const again = this.#skippedAfter === this.lastEvent;
    this.#skippedAfter = this.lastEvent;
    throw new SkippedEvents(this.lastEvent + 1, last, again);
  }

  /** @param {Opened & { resume_key: string }} message */
  #opened({ resume_key, ...message }) {
    this.session = {
      id: message.session_id,
      key: resume_key,
      heartbeat: message.heartbeat_seconds,
      messageBytes: message.limits.message_bytes,
    };
    const replaces = this.#replaces;
    const sentHistory = this.#sentHistory;
    const forgotten = (replaces !== null || this.#forgets) && !sentHistory;
    this.#replaces = null;
    this.#sentHistory = null;
    this.#forgets = false;
    if (forgotten && this.#hold) {
      for (const turn of this.history.pending()) {
        turn.held = true;
        this.history.touch(turn);
      }
    }
    this.#attach(this.session);
    this.history.note("opened", { ...message, replaces, sentHistory });
  }

  /** @param {any} message */
  #resumed({ resume_key, ...message }) {
    const { session } = this;
    if (message.session_id !== session?.id || !session || message.last_event < this.lastEvent) {
      throw new ProtocolError("The gateway has resumed another session than was asked for.");
    }
    session.key = resume_key;
    const kept = this.#elsewhere;
    this.#elsewhere = null;
    const [first, last] = message.lost ?? [];
    const known = kept?.last_event >= last;
    if (first > this.lastEvent + 1 && !known) this.#skipped(first - 1);
    this.#newest = message.last_event;
    this.#attach(session);
    if (known) this.#learn(kept);
    else if (message.lost) {
      this.history.lost();
      this.lastEvent = Math.max(this.lastEvent, last);
      this.history.note("gap", { lost: message.lost });
    }
    this.#client.notify("resumed", message);
    // The first message on this connection invalidates the old key, so the new one is stored first.
    this.#client.store();
  }

  /** @param {Resumable} session */
  #attach(session) {
    this.attached = true;
    this.#takenOver = false;
    this.outbox.limit = session.messageBytes ?? Infinity; // JSON has no Infinity
    this.retryAfter = 0;
    this.#client.attached(session.heartbeat);
    this.#client.store();
  }

  /** @param {any} message */
  #closed(message) {
    // All events of the session have arrived: a message that none accepts was not accepted.
    for (const turn of this.history.pending()) {
      if (turn.delivery !== "written") continue;
      turn.delivery = "stored";
      this.history.changed.add(turn);
    }
    this.closed = message.reason;
    this.gone();
    this.history.note("closed", message);
  }

  /** @param {Failure & { id?: string }} error */
  #refused({ id, ...error }) {
    const turn = id === undefined ? undefined : this.history.find(id);
    if (turn?.ended) return; // it ended before the gateway got the cancel
    if (turn && turn.delivery !== "accepted") {
      const { code, message, retryable, retry_after } = error;
      const outcome = turn.delivery === "unknown" ? "unknown" : "not_invoked";
      this.history.end(turn, failed({ code, message, retryable, retry_after, outcome }));
      return;
    }
    if (!turn) this.retryAfter = error.retry_after ?? 0;
    this.#client.notify("error", { id, ...error });
  }

  #caughtUp() {
    this.outbox.flush();
    if (this.#unsure) this.#acknowledge(true);
    this.#unsure = false;
  }

  /** @param {boolean} now */
  #acknowledge(now) {
    if (!now && this.lastEvent - this.#acknowledged < ACK_EVERY) return;
    this.#acknowledged = this.lastEvent;
    // The gateway has to keep what could not be stored here.
    if (this.#client.store()) this.#client.write({ type: "event.ack", event: this.lastEvent });
  }

  // The end of a session

  /** Messages that the session may have seen have an unknown outcome; the rest go to the next. */
  gone() {
    this.#replaces = this.session?.id ?? this.#replaces;
    this.#forget(null, "The session is gone");
  }

  /**
   * Leave the session: see {@link History#endAll}.
   * @param {Ended} unsent
   * @param {Ended | string} sent
   */
  leave(unsent, sent) {
    this.#replaces = null;
    this.#forget(unsent, sent);
  }

  /**
   * @param {Ended | null} unsent
   * @param {Ended | string} sent
   */
  #forget(unsent, sent) {
    this.session = this.#sentHistory = null;
    this.attached = this.outbox.ready = false;
    this.lastEvent = this.#acknowledged = 0;
    this.#skippedAfter = -1;
    this.history.endAll(unsent, sent);
    this.#client.store();
  }

  // Storage

  snapshot() {
    return {
      session: this.session,
      replaces: this.#replaces,
      sentHistory: this.#sentHistory,
      last_event: this.lastEvent,
    };
  }

  /**
   * Restore what was stored and continue its session; without a claim the session is left.
   * @param {any} kept Null if nothing is.
   * @param {string} url The route's current address.
   * @param {boolean} claimed
   */
  restore(kept, url, claimed) {
    if (kept === null) {
      this.gone();
      return;
    }
    const { session, replaces = null, sentHistory = null } = kept;
    // Messages of another session than the one that continues can't be sent again.
    if (session?.id !== this.session?.id) this.history.endAll(null, "The session is gone");
    this.history.restore(kept.history);
    const same = kept.url === url;
    if (same && claimed && session) {
      this.session = session;
      this.#sentHistory = sentHistory;
      this.lastEvent = this.#acknowledged = kept.last_event;
    } else if (same && claimed) {
      this.#replaces = replaces;
      this.gone();
    } else {
      // Messages written here since then are for the next session.
      const before = new Set(kept.history.map((/** @type {any} */ { id }) => id));
      const left = this.history.pending().filter(({ id }) => before.has(id));
      this.history.endAll(cancelled("not_invoked"), "The session was left", left);
      this.#replaces = same ? (session?.id ?? replaces) : null;
      this.#forget(null, "The session was left");
    }
  }

  // Other windows

  /** @param {any} kept Stored by another window that has, or had, the session. */
  overheard(kept) {
    // It may date from before this window had the session; a takeover tells.
    this.#elsewhere = kept;
    if (this.#takenOver) this.#adopt();
  }

  /** Another window has taken the session over. */
  takenOver() {
    this.#takenOver = true;
    this.#adopt();
  }

  /** Adopt that window's state, so that the session can be taken back. */
  #adopt() {
    const kept = this.#elsewhere;
    if (!kept || !this.session) return;
    this.#elsewhere = null;
    this.session = kept.session;
    this.#learn(kept);
    this.#client.store();
  }

  /** @param {any} kept Stored by another window, which may be ahead. */
  #learn(kept) {
    const known = this.lastEvent;
    if (kept.last_event <= known) return;
    this.lastEvent = this.#acknowledged = kept.last_event;
    this.history.learn(kept.history, known);
  }
}
