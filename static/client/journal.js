/**
 * Keeps a conversation piece by piece, in something that takes its time, such as a database.
 *
 * What is said to the gateway may make it forget: an acknowledged event, a resume key. So each
 * message waits until the conversation is kept as it was when the message was written.
 *
 * @module
 */

/** @typedef {import("./conversation.js").Conversation} Conversation */
/**
 * @typedef {object} Kept
 * @property {string} url
 * @property {{ id: string, key: string, heartbeat: number, messageBytes: number } | null} session
 * @property {string | null} replaces
 * @property {number} last_event
 */
/**
 * @typedef {object} Journal Where one conversation is kept.
 * @property {() => Promise<Kept & { history: any[] } | null>} claim Gives what is kept of the
 *   conversation, and lets nobody write it but who has claimed it last.
 * @property {(kept: Kept, items: Map<number, any>) => Promise<void>} write Keeps all of this, or
 *   nothing: the state, and the turns and notes that have changed, by their places in the history.
 *   Fails with {@link Claimed}, or with anything else where there is no room.
 */

/** Another has claimed the conversation since. */
export class Claimed extends Error {}

export class Journaling {
  claimed = false;
  /** Whether it will not be any more, as soon as everything is kept. */
  leaving = false;
  #journal;
  #conversation;
  #client;
  /** How often the conversation was to be kept, and up to which of these it is. */
  #asked = 0;
  #kept = 0;
  #committing = false;
  /** What waits until the conversation is kept. @type {{ after: number, message: any }[]} */
  #waiting = [];
  /** Called when nothing is left to keep. @type {(() => void)[]} */
  #waking = [];

  /**
   * @param {Journal} journal
   * @param {Conversation} conversation
   * @param {object} client
   * @param {() => Kept} client.state
   * @param {(message: object) => void} client.write Writes to the connection, if there is one.
   * @param {() => void} client.taken Called when another has claimed the conversation.
   * @param {(error: unknown) => void} client.unsaved Called when it can't be kept.
   */
  constructor(journal, conversation, client) {
    this.#journal = journal;
    this.#conversation = conversation;
    this.#client = client;
  }

  /**
   * Nothing is written before this.
   * @param {(kept: Kept & { history: any[] }) => void} restore Takes what was kept, if anything was.
   */
  async claim(restore) {
    await this.#settled(); // of an earlier claim
    const { history } = this.#conversation;
    const kept = await this.#journal.claim();
    if (kept) restore(kept);
    else for (const item of history.items) history.changed.add(item); // it may have been deleted
    this.claimed = true;
    this.#start();
  }

  /** Keep everything as it is at the end of this task. */
  store() {
    this.#asked += 1;
    this.#start();
  }

  /**
   * Write a message as soon as what came before it is kept.
   * @param {any} message
   */
  write(message) {
    if (!this.claimed) this.#pass(message, false);
    else if (this.#kept === this.#asked) this.#client.write(message);
    else this.#waiting.push({ after: this.#asked, message });
  }

  /** The connection is gone, and what waits with it. */
  clear() {
    this.#waiting = [];
  }

  /** Leave it to the next to claim it, as soon as everything is kept, or can't be. */
  async release() {
    this.leaving = true;
    await this.#settled();
    this.claimed = this.leaving = false;
  }

  /** @returns {Promise<void>} */
  async #settled() {
    if (this.#committing) await new Promise((resolve) => this.#waking.push(() => resolve(null)));
  }

  #start() {
    if (!this.claimed || this.#committing || this.#kept === this.#asked) return;
    this.#committing = true;
    queueMicrotask(() => this.#commit());
  }

  async #commit() {
    while (this.claimed && this.#kept < this.#asked) {
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
   * @param {boolean} kept Whether what came before it is. Else the gateway has to keep that.
   */
  #pass(message, kept) {
    if (kept || message.type !== "event.ack") this.#client.write(message);
  }

  async #written() {
    const { history } = this.#conversation;
    const changed = [...history.changed];
    history.changed.clear();
    const items = new Map();
    for (const item of changed) {
      const at = history.items.lastIndexOf(item);
      if (at >= 0) items.set(at, JSON.parse(JSON.stringify(item)));
    }
    try {
      await this.#journal.write(this.#client.state(), items);
      return true;
    } catch (error) {
      for (const item of changed) history.changed.add(item);
      if (error instanceof Claimed) {
        this.claimed = false;
        this.#client.taken();
      } else {
        this.#client.unsaved(error);
      }
      return false;
    }
  }
}
