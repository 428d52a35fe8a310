/**
 * Where a conversation is kept for the page's next load.
 *
 * @module
 */

/** How many characters are kept. */
const MAX_STORED = 500_000;

export class Saved {
  #storage;
  #key;

  /**
   * @param {Pick<Storage, "getItem" | "setItem">} storage
   * @param {string} key
   */
  constructor(storage, key) {
    this.#storage = storage;
    this.#key = key;
  }

  /** What was kept, if anything of use was. */
  read() {
    try {
      return JSON.parse(this.#storage.getItem(this.#key) ?? "null");
    } catch {
      return null;
    }
  }

  /**
   * Keep everything, in one piece: a page that ends at any moment finds all of one moment or of
   * another, and the gateway has what came after that as long as it was not acknowledged.
   * @param {() => string} serialize
   * @param {() => boolean} shrink Make it smaller; false if that is not possible.
   * @returns {string | null} What is kept; null where that was not possible.
   */
  write(serialize, shrink) {
    for (;;) {
      const kept = serialize();
      if (kept.length > MAX_STORED && shrink()) continue;
      try {
        this.#storage.setItem(this.#key, kept);
      } catch {
        return null; // it is full, with something else
      }
      return kept;
    }
  }
}
