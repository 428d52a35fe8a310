/**
 * Where a conversation is stored to survive a reload: in a storage, in a journal, or nowhere.
 *
 * @module
 */

import { Journaling } from "./journal.js";
import { Saved } from "./saved.js";

/** @typedef {import("./conversation.js").Conversation} Conversation */
/** @typedef {import("./journal.js").Journal} Journal */
/** @typedef {import("./journal.js").Kept} Kept */
/** @typedef {{ getItem(key: string): string | null, setItem(key: string, value: string): void }} Simple Such as `sessionStorage`. */
/**
 * @typedef {object} Keeping
 * @property {() => Promise<void> | null} restore Reads what was stored; null if that is done.
 * @property {() => boolean} store Stores everything as it is now; false if that fails.
 * @property {(message: object) => void} write Writes a message to the connection, as soon as the
 *   conversation is stored as it is now: the message may let the gateway discard what came before.
 * @property {(message: any) => boolean} hold Whether a message from the gateway is held back, to be
 *   taken later.
 * @property {() => void} clear Drops waiting messages: the connection is gone.
 * @property {() => Promise<void>} release Releases the conversation to another client, as soon as
 *   everything is stored.
 */
/**
 * @typedef {object} Keeper What storing a conversation needs from its client.
 * @property {() => Kept} state
 * @property {(kept: Kept & { history: any[] } | null, claimed: boolean) => void} restore Restores
 *   what was stored, if anything was; its session too, if it is claimed.
 * @property {(message: object) => void} write Writes to the connection, if there is one.
 * @property {(message: any) => void} take Takes a message that was held back.
 * @property {() => void} taken Called when another client has claimed the conversation.
 * @property {(type: "restored" | "unsaved", detail: unknown) => void} notify Dispatches an event.
 */

/**
 * @param {Simple | Journal | undefined} storage
 * @param {string} key
 * @param {Conversation} conversation
 * @param {Keeper} keeper
 * @returns {Keeping}
 */
export function keep(storage, key, conversation, keeper) {
  if (!storage) return new Nowhere(keeper);
  // Not "claim": a sessionStorage may have an item of this name.
  if ("getItem" in storage) return new Saved(storage, key, conversation, keeper);
  return new Journaling(storage, conversation, keeper);
}

/** @implements {Keeping} */
class Nowhere {
  /** @param {Keeper} keeper */
  constructor(keeper) {
    this.write = keeper.write;
  }

  restore() {
    return null;
  }

  store() {
    return true; // nobody can resume it
  }

  hold() {
    return false;
  }

  clear() {}

  async release() {}
}
