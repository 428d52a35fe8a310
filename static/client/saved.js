/**
 * Stores a conversation in a page's storage, such as `sessionStorage`.
 *
 * @module
 */

import { Windows } from "./windows.js";

/** @typedef {import("./keeping.js").Keeping} Keeping */

/** The maximum size of what is stored, in characters. */
const MAX_STORED = 500_000;

/** @implements {Keeping} */
export class Saved {
  #storage;
  #key;
  #conversation;
  #keeper;
  #windows;

  /**
   * @param {import("./keeping.js").Simple} storage
   * @param {string} key
   * @param {import("./conversation.js").Conversation} conversation Is restored, if anything
   *   of use was stored.
   * @param {import("./keeping.js").Keeper} keeper
   */
  constructor(storage, key, conversation, keeper) {
    this.#storage = storage;
    this.#key = key;
    this.#conversation = conversation;
    this.#keeper = keeper;
    this.write = keeper.write;
    const kept = this.#read();
    if (kept) keeper.restore(kept, true);
    this.#windows = new Windows(key, conversation, {
      kept: () => this.#everything(),
      take: keeper.take,
    });
  }

  #read() {
    try {
      return JSON.parse(this.#storage.getItem(this.#key) ?? "null");
    } catch {
      return null;
    }
  }

  restore() {
    return null;
  }

  /**
   * Store everything as one item: whenever the page ends, a consistent state is stored, and the
   * gateway has later events as long as they are not acknowledged.
   */
  store() {
    for (;;) {
      const kept = this.#everything();
      if (kept.length > MAX_STORED && this.#conversation.history.halve()) continue;
      try {
        this.#storage.setItem(this.#key, kept);
      } catch {
        return false; // full, with other items
      }
      this.#conversation.history.kept();
      if (this.#conversation.attached) this.#windows.share(kept);
      return true;
    }
  }

  #everything() {
    return JSON.stringify({
      ...this.#keeper.state(),
      history: this.#conversation.history.items,
    });
  }

  /** @param {any} message */
  hold(message) {
    return this.#windows.hold(message);
  }

  clear() {
    this.#windows.clear();
  }

  async release() {}
}
