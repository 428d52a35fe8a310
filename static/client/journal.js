/**
 * Stores a conversation item by item in an asynchronous journal, such as a database.
 *
 * A message may make the gateway discard something: acknowledged events, an old resume key. So each
 * message waits until the conversation is stored as it was when the message was written.
 *
 * @module
 */

import { Claimed } from "./errors.js";
import { Turn } from "./turns.js";

/** @typedef {import("./conversation.js").Conversation} Conversation */
/** @typedef {import("./keeping.js").Keeping} Keeping */
/**
 * @typedef {object} Kept The state of a conversation, which is plain data; it has the key to its
 *   session.
 * @property {string} url
 * @property {{ id: string, key: string, heartbeat: number, messageBytes: number } | null} session
 * @property {string | null} replaces
 * @property {import("./restoring.js").SentHistory | null} sentHistory
 * @property {number} last_event
 */
/**
 * @typedef {object} Journal Stores one conversation, of which only one client at a time is the writer.
 * @property {() => Promise<Kept & { history: any[] } | null>} claim Makes this client the writer, and
 *   resolves with what is stored: the state and the history, or null for nothing. If it rejects, the
 *   client shows what `read` gives, opens a new session, and stores nothing from then on.
 * @property {() => Promise<Kept & { history: any[] } | null>} read Resolves with the same, without
 *   making this client the writer.
 * @property {(kept: Kept, items: Map<number, any>) => Promise<void>} write Stores, in one transaction,
 *   the state and those turns and notes that have changed, by their positions in the history.
 *   Rejects with {@link Claimed} if this client is not the writer, because another one has claimed
 *   the conversation since or because it was deleted: a deleted one is claimed again, and then
 *   written as a whole. Rejects with any other error if it can't be stored; the gateway then
 *   keeps the events.
 */

/** @implements {Keeping} */
export class Journaling {
  #claimed = false;
  /** Whether a claim has failed, so that nothing is stored any more. */
  #failed = false;
  /** Whether nothing was written since the claim: another client may have claimed it since. */
  #unproven = false;
  #journal;
  #conversation;
  #keeper;
  /** Set while the conversation is claimed and read. @type {Promise<void> | null} */
  #restoring = null;
  /** Set while it is released to another client. @type {Promise<void> | null} */
  #releasing = null;
  /** The number of calls of `store`, and of those whose changes are stored. */
  #asked = 0;
  #kept = 0;
  #committing = false;
  /** Messages until the conversation is stored. @type {{ after: number, message: any }[]} */
  #waiting = [];
  /** Called when nothing is left to store. @type {(() => void)[]} */
  #waking = [];

  /**
   * @param {Journal} journal
   * @param {Conversation} conversation
   * @param {import("./keeping.js").Keeper} keeper
   */
  constructor(journal, conversation, keeper) {
    this.#journal = journal;
    this.#conversation = conversation;
    this.#keeper = keeper;
    conversation.history.most = Infinity;
  }

  /** Claim and read the conversation. Nothing is written before this. */
  restore() {
    if (this.#releasing) return this.#restoreAfter(this.#releasing);
    if (this.#restoring) return this.#restoring;
    if (this.#failed) return null;
    if (this.#claimed) {
      if (this.#unproven) this.store(); // no message is written before that
      return null;
    }
    this.#restoring = this.#claim().finally(() => {
      this.#restoring = null;
    });
    return this.#restoring;
  }

  /** @param {Promise<void>} released */
  async #restoreAfter(released) {
    await released;
    await this.restore();
  }

  async #claim() {
    try {
      const kept = await this.#journal.claim();
      if (kept) this.#keeper.restore(kept, true);
      else this.#changeAll();
    } catch (error) {
      await this.#fail(error);
      return;
    }
    this.#claimed = this.#unproven = true;
    this.#start();
    this.#keeper.notify("restored", null);
  }

  /**
   * Show what is stored, and store nothing any more.
   * @param {unknown} error
   */
  async #fail(error) {
    this.#failed = true;
    try {
      this.#keeper.restore(await this.#journal.read(), false);
      this.#keeper.notify("restored", null);
    } catch {
      this.#keeper.restore(null, false);
    }
    this.#keeper.notify("unsaved", error);
  }

  /** Nothing is stored: store the whole history. */
  #changeAll() {
    const { history } = this.#conversation;
    for (const item of history.items) history.changed.add(item);
  }

  /** Store everything as it is at the end of this task. */
  store() {
    this.#asked += 1;
    this.#start();
    return true; // messages wait until it is stored
  }

  hold() {
    return false;
  }

  /** @param {any} message */
  write(message) {
    if (!this.#claimed) this.#pass(message, false);
    else if (this.#kept === this.#asked) this.#keeper.write(message);
    else this.#waiting.push({ after: this.#asked, message });
  }

  clear() {
    this.#waiting = [];
  }

  release() {
    this.#releasing ??= this.#release().finally(() => {
      this.#releasing = null;
    });
    return this.#releasing;
  }

  async #release() {
    await this.#restoring;
    if (this.#committing) await new Promise((resolve) => this.#waking.push(() => resolve(null)));
    this.#claimed = false;
  }

  #start() {
    if (!this.#claimed || this.#committing || this.#kept === this.#asked) return;
    this.#committing = true;
    queueMicrotask(() => this.#commit());
  }

  async #commit() {
    while (this.#claimed && this.#kept < this.#asked) {
      const asked = this.#asked;
      const kept = await this.#written();
      this.#kept = asked;
      const ready = this.#waiting.filter(({ after }) => after <= asked);
      this.#waiting = this.#waiting.slice(ready.length);
      for (const { message } of ready) this.#pass(message, kept);
    }
    this.#committing = false;
    for (const resolve of this.#waking.splice(0)) resolve();
  }

  /**
   * @param {any} message
   * @param {boolean} kept Whether what came before it is stored; if not, the gateway keeps it.
   */
  #pass(message, kept) {
    if (!kept && message.type === "event.ack") return;
    const { outbox } = this.#conversation;
    if (kept || message.type !== "message.send" || outbox.mayWrite(message.id)) {
      this.#keeper.write(message);
    }
  }

  /** @returns {Promise<boolean>} Whether everything is stored. */
  async #written() {
    try {
      await this.#write();
      return true;
    } catch (error) {
      if (error instanceof Claimed) {
        this.#claimed = false;
        this.#keeper.taken();
      } else {
        this.#keeper.notify("unsaved", error);
      }
      return false;
    }
  }

  async #write() {
    try {
      await this.#writeChanges();
    } catch (error) {
      if (!(error instanceof Claimed) || !(await this.#reclaimed())) throw error;
      await this.#writeChanges();
    }
    this.#unproven = false;
  }

  async #writeChanges() {
    const { history } = this.#conversation;
    const changed = [...history.changed];
    history.changed.clear();
    try {
      const items = new Map();
      const unwritten = new Map();
      for (const item of changed) {
        const at = history.items.lastIndexOf(item);
        if (at >= 0) items.set(at, JSON.parse(JSON.stringify(item)));
        if (item instanceof Turn) unwritten.set(item, item.delivery === "stored");
      }
      await this.#journal.write(this.#keeper.state(), items);
      for (const [turn, isUnwritten] of unwritten) turn.keptUnwritten = isUnwritten;
    } catch (error) {
      for (const item of changed) history.changed.add(item);
      throw error;
    }
  }

  /** Claim the conversation again if it was deleted; false if another client has it. */
  async #reclaimed() {
    if ((await this.#journal.read()) !== null || (await this.#journal.claim()) !== null) return false;
    this.#changeAll();
    return true;
  }
}
