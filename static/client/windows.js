/**
 * Shares the state of a session between windows that have it, such as duplicated tabs.
 *
 * @module
 */

/** @typedef {import("./conversation.js").Conversation} Conversation */

/** How long to wait for another window's answer, in milliseconds. */
const ANSWER = 1_000;

export class Windows {
  #channel;
  #conversation;
  #client;
  /** Messages since the other windows were asked. @type {any[]} */
  #waiting = [];
  /** Set while their answer is awaited. @type {ReturnType<typeof setTimeout> | undefined} */
  #asking;

  /**
   * @param {string} name Of the channel.
   * @param {Conversation} conversation
   * @param {object} client
   * @param {() => string} client.kept What this window stores.
   * @param {(message: any) => void} client.take Called with each message that was held back.
   */
  constructor(name, conversation, client) {
    this.#conversation = conversation;
    this.#client = client;
    this.#channel = new BroadcastChannel(name);
    this.#channel.addEventListener("message", ({ data }) => this.#received(JSON.parse(data)));
    // Node would not exit while it listens.
    /** @type {any} */ (this.#channel).unref?.();
  }

  /** @param {string} kept What this window stores. */
  share(kept) {
    this.#channel.postMessage(kept);
  }

  /**
   * Hold back a message that reports lost events, and those after it: what another window has
   * acknowledged is lost at the gateway, but not in that window.
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

  /** @param {any} message Another window's state, or its request for this one's. */
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
