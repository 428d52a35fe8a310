/**
 * The user's messages on their way to the gateway.
 *
 * A message is written when the connection has its session and has caught up, and again only if no
 * event of the session could have said that it was accepted.
 *
 * @module
 */

import { cancelled, notKept, tooLarge, usedId } from "./endings.js";
import { Turn } from "./turns.js";

/** @typedef {import("./conversation.js").Client} Client */
/** @typedef {import("./endings.js").Ended} Ended */
/** @typedef {import("./turns.js").Body} Body */

export class Outbox {
  /** Whether messages are written at once. */
  ready = false;
  /** The maximum size of a message's frame in bytes. */
  limit = Infinity;
  #history;
  #client;

  /**
   * @param {import("./history.js").History} history
   * @param {Client} client
   */
  constructor(history, client) {
    this.#history = history;
    this.#client = client;
  }

  /**
   * @param {Body} sent
   * @param {string} id
   * @param {Ended | null} ended How it ends, if it ends at once.
   */
  send(sent, id, ended) {
    const known = this.#history.find(id);
    if (known && JSON.stringify(known.sent) === JSON.stringify(sent)) return known;
    if (known) {
      const refused = new Turn(id, sent, this);
      refused.end({ ...usedId(), id });
      return refused;
    }
    const turn = this.#history.add(id, sent);
    if (ended) this.#history.end(turn, ended);
    else if (this.ready) this.#write(turn);
    else this.#client.store();
    this.#history.touch(turn);
    return turn;
  }

  /** @param {string} id */
  cancel(id) {
    const turn = this.#history.find(id);
    if (!turn || turn.ended) return;
    if (turn.delivery === "stored") {
      this.#history.end(turn, cancelled("not_invoked"));
      this.#client.store();
      return;
    }
    turn.cancelling = true;
    this.#history.touch(turn);
    this.#client.store();
    if (this.ready) this.#client.write({ type: "message.cancel", id });
  }

  /** @param {string} id */
  release(id) {
    const turn = this.#history.find(id);
    if (!turn?.held || turn.ended) return;
    turn.held = false;
    if (this.ready) this.#write(turn);
    else this.#client.store();
    this.#history.touch(turn);
  }

  /**
   * The connection has caught up with its session: write what the gateway may not have seen, and
   * what may have ended with a lost event, since writing a message again asks for its status.
   */
  flush() {
    this.ready = true;
    for (const turn of this.#history.pending()) {
      if (turn.held) continue;
      if (turn.delivery !== "accepted") this.#write(turn);
      if (turn.cancelling && !turn.ended) {
        this.#client.write({ type: "message.cancel", id: turn.id });
      }
    }
  }

  /** @param {Turn} turn */
  #write(turn) {
    if (!turn.sent) return;
    const message = { ...turn.sent, type: "message.send", id: turn.id };
    if (this.#client.size(message) > this.limit) {
      this.#history.end(turn, tooLarge(this.limit));
      return;
    }
    if (turn.delivery === "stored") {
      turn.delivery = "written";
      this.#history.changed.add(turn);
    }
    const kept = this.#client.store(); // as written, before it is written
    if (kept || this.mayWrite(turn.id)) this.#client.write(message);
  }

  /**
   * Whether a message may be written although that can't be stored. One stored as not written may
   * not, since a reload would write it again: it ends.
   * @param {string} id
   */
  mayWrite(id) {
    const turn = this.#history.find(id);
    if (!turn?.keptUnwritten) return true;
    if (!turn.ended) this.#history.end(turn, notKept());
    return false;
  }
}
