/**
 * The conversation as its user sees it: turns, and what happened to the session between them.
 *
 * @module
 */

import { cancelled, lostReply, unknownOutcome, usedId } from "./endings.js";
import { Turn } from "./turns.js";

/** @typedef {import("./endings.js").Ended} Ended */
/** @typedef {import("./turns.js").Body} Body */
/**
 * @typedef {object} Note Something that happened to the session between two turns.
 * @property {"opened" | "renewed" | "closed" | "gap"} type
 * @property {any} detail The `detail` of the event of this name.
 */

export class History {
  /**
   * Oldest first; a long history loses its oldest.
   * @type {(Turn | Note)[]}
   */
  items = [];
  /** Items that are not stored as they are now. @type {Set<Turn | Note>} */
  changed = new Set();
  /** The maximum number of turns and notes. */
  most = 1_000;
  /** The turns that have not ended, which are few. @type {Set<Turn>} */
  #pending = new Set();
  #conversation;
  #notify;

  /**
   * @param {{ cancel(id: string): void, release(id: string): void }} conversation
   * @param {(type: string, detail: unknown) => void} notify
   */
  constructor(conversation, notify) {
    this.#conversation = conversation;
    this.#notify = notify;
  }

  /** @param {string} id */
  find(id) {
    const found = this.items.findLast((item) => item instanceof Turn && item.id === id);
    return found instanceof Turn ? found : undefined;
  }

  /** The turns that have not ended. */
  pending() {
    return [...this.#pending];
  }

  /**
   * @param {string} id
   * @param {Body | null} sent
   */
  add(id, sent) {
    const turn = new Turn(id, sent, this.#conversation);
    this.items.push(turn);
    this.changed.add(turn);
    this.#pending.add(turn);
    if (this.items.length > this.most) this.halve();
    return turn;
  }

  /** @param {Turn} turn That has changed. */
  touch(turn) {
    this.changed.add(turn);
    if (turn.ended) this.#pending.delete(turn);
    this.#notify("turn", turn);
  }

  /**
   * Insert a note before the turns that come after it: those without a reply yet.
   * @param {Note["type"]} type
   * @param {any} detail
   */
  note(type, detail) {
    const later = this.items.findIndex(
      (item) => item instanceof Turn && !item.ended && !item.begun,
    );
    const at = later < 0 ? this.items.length : later;
    this.items.splice(at, 0, { type, detail });
    for (const moved of this.items.slice(at)) this.changed.add(moved);
    this.#notify(type, detail);
  }

  /**
   * Apply an event to its turn. Another window may have sent the message.
   * @param {string} id
   * @param {(turn: Turn) => void} [change]
   */
  accepted(id, change = () => {}) {
    const turn = this.find(id) ?? this.add(id, null);
    if (turn.ended) return;
    turn.delivery = "accepted";
    change(turn);
    this.touch(turn);
    this.next();
  }

  /** Start the turn that is at the model: the first accepted one that has not ended. */
  next() {
    const turn = this.pending().find(({ delivery }) => delivery === "accepted");
    if (turn?.status !== "waiting") return;
    turn.start();
    this.touch(turn);
  }

  /** Events were lost: any turn that was sent may have been accepted, or have ended, with one. */
  lost() {
    for (const turn of this.#pending) {
      if (turn.delivery === "stored") continue;
      turn.delivery = "unknown";
      this.touch(turn);
    }
  }

  /** @param {{ id: string, status: string }} message */
  duplicate({ id, status }) {
    const turn = this.find(id);
    if (!turn || turn.ended) return;
    if (status === "queued" || status === "running") {
      this.accepted(id);
    } else {
      // Its end would have come before this, so it is among the events that were lost.
      turn.incomplete = true;
      this.end(turn, status === "cancelled" ? cancelled("unknown") : lostReply(status));
    }
  }

  /**
   * @param {Turn} turn
   * @param {Ended} ended
   */
  end(turn, ended) {
    turn.end({ ...ended, id: turn.id });
    this.touch(turn);
  }

  /** All turns are stored as they are now. */
  kept() {
    for (const turn of this.#pending) turn.keptUnwritten = turn.delivery === "stored";
  }

  /**
   * End the turns of a session that is left or gone.
   * @param {Ended | null} unsent How messages end that were not written; null to keep them.
   * @param {Ended | string} sent How the rest end, or why that is not known.
   * @param {Turn[]} [turns] Default: all that are pending.
   */
  endAll(unsent, sent, turns = this.pending()) {
    const unknown = typeof sent === "string" ? unknownOutcome(sent) : sent;
    for (const turn of turns) {
      const ended = turn.delivery === "stored" ? unsent : unknown;
      if (ended) this.end(turn, ended);
    }
  }

  /** Drop the older half of the notes and ended turns; false if there are none. */
  halve() {
    const over = this.items.filter((item) => !(item instanceof Turn) || item.ended);
    const old = new Set(over.slice(0, Math.ceil(over.length / 2)));
    this.items = this.items.filter((item) => !old.has(item));
    for (const item of old) this.changed.delete(item);
    return old.size > 0;
  }

  /**
   * Restore what was stored.
   * @param {any[]} items
   */
  restore(items) {
    const known = this.pending();
    // What is not stored yet comes after it, such as messages sent while it was read.
    const later = this.items.filter((item) => this.changed.has(item));
    this.items = [];
    this.#pending.clear();
    for (const item of items) {
      if ("id" in item) this.#restored(item, known);
      else this.items.push(item);
    }
    this.changed.clear();
    for (const turn of later) {
      if (!(turn instanceof Turn) || this.find(turn.id)) continue;
      this.items.push(turn);
      this.changed.add(turn);
      if (!turn.ended) this.#pending.add(turn);
    }
    for (const turn of known) this.#notify("turn", turn);
    this.next();
  }

  /**
   * @param {any} item
   * @param {Turn[]} known Those that callers may be awaiting.
   */
  #restored(item, known) {
    const mine = known.find(({ id }) => id === item.id);
    const same = mine && JSON.stringify(mine.sent) === JSON.stringify(item.sent);
    if (mine && !same) mine.end({ ...usedId(), id: mine.id });
    const turn = same ? mine : new Turn(item.id, item.sent, this.#conversation);
    turn.load(item);
    this.items.push(turn);
    if (!turn.ended) this.#pending.add(turn);
  }

  /**
   * Merge what another window has stored.
   * @param {any[]} items
   * @param {number} known The newest event that is in this history.
   */
  learn(items, known) {
    for (const item of items) {
      if ("id" in item) {
        const turn = this.find(item.id) ?? this.add(item.id, item.sent);
        turn.load(item);
        this.touch(turn);
      } else if (item.detail.event > known) {
        this.note(item.type, item.detail);
      }
    }
    this.next();
  }
}
