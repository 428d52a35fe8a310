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
   * Oldest first; of a long one the oldest is forgotten.
   * @type {(Turn | Note)[]}
   */
  items = [];
  /** Those that are not kept as they are now. @type {Set<Turn | Note>} */
  changed = new Set();
  /** How many turns and notes are kept. */
  most = 1_000;
  /** Those turns that have not ended, which are few. @type {Set<Turn>} */
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

  /** @param {Turn} turn That is no longer what it was. */
  touch(turn) {
    this.changed.add(turn);
    if (turn.ended) this.#pending.delete(turn);
    this.#notify("turn", turn);
  }

  /**
   * What happens to a session stands before the turns that come after it: those without a reply yet.
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
   * What an event says of a turn. Another window may have sent the message.
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

  /** One turn is at the model at a time: the first that was accepted and has not ended. */
  next() {
    const turn = this.pending().find(({ delivery }) => delivery === "accepted");
    if (turn?.status !== "waiting") return;
    turn.start();
    this.touch(turn);
  }

  /** Events were lost: any turn that was sent may have been accepted, or have ended, with one of them. */
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
      // Its end would have come before this, so it is one of the events that were lost.
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

  /** All turns are kept as they are now. */
  kept() {
    for (const turn of this.#pending) turn.keptUnwritten = turn.delivery === "stored";
  }

  /**
   * End what is left of a session.
   * @param {Ended | null} unsent How that ends which was not written; null where it is kept.
   * @param {Ended | string} sent How the rest ends, or why that is not known.
   * @param {Turn[]} [turns] Which; left out: all that are pending.
   */
  endAll(unsent, sent, turns = this.pending()) {
    const unknown = typeof sent === "string" ? unknownOutcome(sent) : sent;
    for (const turn of turns) {
      const ended = turn.delivery === "stored" ? unsent : unknown;
      if (ended) this.end(turn, ended);
    }
  }

  /** Forget the older half of what is over; false if nothing is. */
  halve() {
    const over = this.items.filter((item) => !(item instanceof Turn) || item.ended);
    const old = new Set(over.slice(0, Math.ceil(over.length / 2)));
    this.items = this.items.filter((item) => !old.has(item));
    for (const item of old) this.changed.delete(item);
    return old.size > 0;
  }

  /**
   * Begin with what was kept.
   * @param {any[]} items
   */
  restore(items) {
    const known = this.pending();
    // What is not kept yet comes after it, such as what was said while that was read.
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
   * @param {Turn[]} known Those that somebody may wait for.
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
   * Take what another window has.
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
