/**
 * The user's conversations, in the browser's database.
 *
 * If two windows have a conversation open, only the one that claimed it last writes it; see
 * `client/journal.js`.
 *
 * @module
 */

import { Claimed } from "../client.js";
import { committed, Database, result } from "./database.js";

/** @typedef {import("../client.js").Journal} Journal */
/** @typedef {import("../client.js").Kept} Kept */
/**
 * @typedef {object} Summary
 * @property {string} id
 * @property {string} route
 * @property {string} title Empty until the first message.
 * @property {number} changed As `Date.now()`.
 * @property {string} draft The unsent text.
 */
/** @typedef {Map<string, string>} Names File names, by turn id. */

/** Unused conversations older than this, in milliseconds, are assumed to be open in no window. */
const UNUSED = 86_400_000;
/** Maximum length of a title made from the first message, in characters. */
const TITLE = 60;

/** A random id, short enough for a URL. */
export function newId() {
  return Array.from(crypto.getRandomValues(new Uint32Array(3)), (part) => part.toString(36)).join("");
}

/**
 * @param {string} id
 * @param {string} route
 * @returns {Summary}
 */
function fresh(id, route) {
  return { id, route, title: "", changed: Date.now(), draft: "" };
}

/** The keys of all items of a conversation. @param {string} id */
const whole = (id) => IDBKeyRange.bound([id], [id, []]);

/**
 * Whether a conversation has no messages and no draft, and is old enough to delete.
 * @param {Summary} summary
 */
const abandoned = ({ title, draft, changed }) =>
  !title && !draft && changed < Date.now() - UNUSED;

/** @param {any} item A turn or a note. */
const plain = (item) => JSON.parse(JSON.stringify(item));

/**
 * A turn or note as stored: with the file's name, if a file was sent.
 * @param {any} item
 * @param {Names} names
 */
function keptAs(item, names) {
  const name = names.get(item.id);
  return name === undefined ? item : { ...item, name };
}

/**
 * A title made from the message of a turn; empty if it has none.
 * @param {any} item As stored.
 */
function titleOf(item) {
  const { text, json, content_type = "" } = item.sent ?? {};
  const said = text ?? (json === undefined ? (item.name ?? content_type) : JSON.stringify(json));
  const line = said.trim().replace(/\s+/g, " ");
  return line.length > TITLE ? `${line.slice(0, TITLE - 1)}…` : line;
}

/** @param {any} item As stored. */
function wordsOf(item) {
  const words = [item.sent?.text, item.name, item.text, item.done?.text];
  return words.filter(Boolean).join("\n").toLowerCase();
}

export class Conversations {
  /** Called when any conversation has changed, here or in another window. */
  onchange = () => {};
  #database;
  #channel;
  /** Ids with a journal, unless this page deleted them. @type {Set<string>} */
  #kept = new Set();

  /** @param {Database} database */
  constructor(database) {
    this.#database = database;
    this.#channel = new BroadcastChannel(database.name);
    this.#channel.onmessage = () => this.onchange();
  }

  /**
   * @param {string} name The database's name.
   * @returns {Promise<Conversations>} Rejects if the browser has no storage.
   */
  static async open(name) {
    return new Conversations(await Database.open(name));
  }

  /** @returns {Promise<Summary[]>} Newest first. */
  async list() {
    const store = (await this.#database.reading("conversations")).objectStore("conversations");
    /** @type {Summary[]} */
    const all = await result(store.getAll());
    return all.sort((one, other) => other.changed - one.changed);
  }

  /**
   * @param {string} id
   * @returns {Promise<Summary | undefined>}
   */
  async get(id) {
    const store = (await this.#database.reading("conversations")).objectStore("conversations");
    return result(store.get(id));
  }

  /**
   * @param {string} id
   * @param {string} route
   * @param {object} [from] Initial content, for a branch of another conversation.
   * @param {string} from.title
   * @param {string} from.url
   * @param {any[]} from.items Turns and notes.
   * @param {Names} from.names
   * @returns {Promise<Summary>}
   */
  async create(id, route, from) {
    const summary = { ...fresh(id, route), title: from?.title ?? "" };
    const transaction = await this.#database.writing();
    transaction.objectStore("conversations").put(summary);
    if (from) {
      const kept = { url: from.url, session: null, replaces: null, last_event: 0 };
      transaction.objectStore("states").put({ kept }, id);
      for (const [at, item] of from.items.entries()) {
        transaction.objectStore("items").put(keptAs(plain(item), from.names), [id, at]);
      }
    }
    await committed(transaction);
    this.#changed();
    return summary;
  }

  /**
   * @param {string} id
   * @param {Partial<Summary>} change
   */
  async update(id, change) {
    const transaction = await this.#database.writing();
    const store = transaction.objectStore("conversations");
    const summary = await result(store.get(id));
    if (summary) store.put({ ...summary, ...change });
    await committed(transaction);
    this.#changed();
  }

  /**
   * Delete a conversation. Later writes to its journal are ignored.
   * @param {string} id
   */
  async remove(id) {
    this.#kept.delete(id);
    const transaction = await this.#database.writing();
    this.#delete(transaction, id);
    await committed(transaction);
    this.#changed();
  }

  /** Delete all conversations; see `remove`. */
  async clear() {
    this.#kept.clear();
    const transaction = await this.#database.writing();
    for (const name of transaction.objectStoreNames) transaction.objectStore(name).clear();
    await committed(transaction);
    this.#changed();
  }

  /**
   * Delete a conversation if it is unused in the database: another window may have written to it.
   * @param {string} id
   */
  discard(id) {
    return this.#forget((summary) => summary.id === id && !summary.title && !summary.draft);
  }

  /** Delete old conversations that were never used. */
  sweep() {
    return this.#forget(abandoned);
  }

  /** @param {(summary: Summary) => boolean} condition */
  async #forget(condition) {
    const transaction = await this.#database.writing();
    /** @type {Summary[]} */
    const all = await result(transaction.objectStore("conversations").getAll());
    const forgotten = all.filter(condition);
    for (const { id } of forgotten) this.#delete(transaction, id);
    await committed(transaction);
    if (forgotten.length > 0) this.#changed();
  }

  /**
   * @param {IDBTransaction} transaction
   * @param {string} id
   */
  #delete(transaction, id) {
    transaction.objectStore("conversations").delete(id);
    transaction.objectStore("states").delete(id);
    transaction.objectStore("items").delete(whole(id));
  }

  /**
   * Find conversations that contain a text in their title or messages.
   * @param {string} text
   * @returns {Promise<Set<string>>} Their ids.
   */
  async search(text) {
    const sought = text.toLowerCase();
    const all = await this.list();
    const titled = all.filter(({ title }) => title.toLowerCase().includes(sought));
    const found = new Set(titled.map(({ id }) => id));
    const items = (await this.#database.reading("items")).objectStore("items");
    await new Promise((resolve, reject) => {
      const request = items.openCursor();
      request.onerror = () => reject(request.error);
      request.onsuccess = () => {
        const cursor = request.result;
        if (!cursor) {
          resolve(null);
          return;
        }
        const [id] = /** @type {[string, number]} */ (cursor.key);
        if (found.has(id)) {
          cursor.continue([id, []]); // it matches: skip its other items
          return;
        }
        if (wordsOf(cursor.value).includes(sought)) found.add(id);
        cursor.continue();
      };
    });
    return found;
  }

  /**
   * The turns and notes of a conversation, as stored.
   * @param {string} id
   * @returns {Promise<any[]>}
   */
  async items(id) {
    const store = (await this.#database.reading("items")).objectStore("items");
    return result(store.getAll(whole(id)));
  }

  /**
   * The journal of a client. If another window deletes the conversation, the next message recreates
   * it.
   * @param {string} id
   * @param {string} route
   * @param {Names} [names] Filled with the stored file names.
   * @returns {Journal}
   */
  journal(id, route, names = new Map()) {
    const writer = newId();
    this.#kept.add(id);
    /**
     * @param {any} state
     * @param {any[]} history
     */
    const found = (state, history) => {
      for (const item of history) if (item.name !== undefined) names.set(item.id, item.name);
      return state?.kept ? { ...state.kept, history } : null;
    };
    return {
      read: async () => {
        const transaction = await this.#database.reading("states", "items");
        const state = await result(transaction.objectStore("states").get(id));
        return found(state, await result(transaction.objectStore("items").getAll(whole(id))));
      },
      claim: async () => {
        const transaction = await this.#database.writing();
        const states = transaction.objectStore("states");
        const state = await result(states.get(id));
        states.put({ ...state, writer }, id);
        const history = await result(transaction.objectStore("items").getAll(whole(id)));
        await committed(transaction);
        return found(state, history);
      },
      write: async (kept, changed) => {
        if (!this.#kept.has(id)) return;
        const transaction = await this.#database.writing();
        const states = transaction.objectStore("states");
        const state = await result(states.get(id));
        if (state?.writer !== writer) {
          transaction.abort();
          throw new Claimed();
        }
        states.put({ writer, kept }, id);
        const items = [...changed]
          .map(([at, item]) => ({ at, item: keptAs(item, names) }))
          .sort((one, other) => one.at - other.at);
        for (const { at, item } of items) transaction.objectStore("items").put(item, [id, at]);
        const said = items.map(({ item }) => titleOf(item)).find(Boolean);
        const renamed = said && (await this.#touch(transaction, id, route, said));
        await committed(transaction);
        if (renamed) this.#changed();
      },
    };
  }

  /**
   * @param {IDBTransaction} transaction
   * @param {string} id
   * @param {string} route
   * @param {string} said Its title, if it has none yet.
   */
  async #touch(transaction, id, route, said) {
    const store = transaction.objectStore("conversations");
    /** @type {Summary} */
    const summary = (await result(store.get(id))) ?? fresh(id, route);
    const title = summary.title || said;
    store.put({ ...summary, title, changed: Date.now() });
    return title !== summary.title;
  }

  #changed() {
    this.#channel.postMessage(null);
    this.onchange();
  }
}
