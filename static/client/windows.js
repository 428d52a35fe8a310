/**
 * Windows that have the same session, as a duplicated tab has it, tell each other of it.
 *
 * @module
 */

/** @typedef {import("./conversation.js").Conversation} Conversation */

/** How long to wait for what another window knows, in milliseconds. */
const ANSWER = 1_000;

export class Windows {
  #channel;
  #conversation;
  #client;
  /** What has come since the other windows were asked. @type {any[]} */
  #waiting = [];
  /** Set while an answer of theirs is waited for. @type {ReturnType<typeof setTimeout> | undefined} */
  #asking;

  /**
   * @param {string} name Of the channel.
   * @param {Conversation} conversation
   * @param {object} client
   * @param {() => string} client.kept What this window keeps.
   * @param {(message: any) => void} client.take Called with each message that has waited.
   */
  constructor(name, conversation, client) {
    this.#conversation = conversation;
    this.#client = client;
    this.#channel = new BroadcastChannel(name);
    this.#channel.addEventListener("message", ({ data }) => this.#received(JSON.parse(data)));
    // Node would not end while it listens.
    /** @type {any} */ (this.#channel).unref?.();
  }

  /** @param {string} kept What this window keeps. */
  share(kept) {
    this.#channel.postMessage(kept);
  }

  /**
   * Hold a message back that says that events are lost, and those after it: what another window has
   * acknowledged is lost to the gateway, but not to that window.
   * @param {any} message
   * @returns {boolean} Whether it is held back.
   */
  hold(message) {
    if (this.#asking === undefined) {
      if (message.type !== "session.resumed" || !message.lost) return false;
      this.#asking = setTimeout(() => this.#resume(), ANSWER);
      this.#channel.postMessage(JSON.stringify({ asks: message.session_id }));
    }
    this.#waiting.push(message);
    return true;
  }

  /** Drop what is held back. */
  clear() {
    clearTimeout(this.#asking);
    this.#asking = undefined;
    this.#waiting = [];
  }

  #resume() {
    const waiting = this.#waiting;
    this.clear();
    this.#waiting = waiting;
    while (this.#waiting.length > 0) this.#client.take(this.#waiting.shift());
  }

  /** @param {any} message Of another window: what it keeps, or that it asks for that. */
  #received(message) {
    const conversation = this.#conversation;
    if (message.asks) {
      if (message.asks === conversation.session?.id) this.share(this.#client.kept());
      return;
    }
    if (message.session.id !== conversation.session?.id) return;
    conversation.overheard(message);
    if (message.last_event >= this.#waiting[0]?.lost[1]) this.#resume();
  }
}
