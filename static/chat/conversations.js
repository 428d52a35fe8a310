/**
 * The user's conversations, in the browser's database.
 *
 * A conversation that is open in two windows is written by the one that has claimed it last; see
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
 * @property {string} title Empty until there is anything to name it after.
 * @property {number} changed As `Date.now()`.
 * @property {string} draft What was written and not sent.
 */
/** @typedef {Map<string, string>} Names Of files, by the ids of the turns that they were sent with. */

/** How long a conversation in which nothing was said may be on a page, in milliseconds. */
const UNUSED = 86_400_000;
/** How long a title is that is made of the first message, in characters. */
const TITLE = 60;

/** Short enough for an address. */
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

/** All that belongs to one conversation. @param {string} id */
const whole = (id) => IDBKeyRange.bound([id], [id, []]);

/**
 * Something in which nothing was said or written, and that nobody has on a page by now.
 * @param {Summary} summary
 */
const abandoned = ({ title, draft, changed }) =>
  !title && !draft && changed < Date.now() - UNUSED;

/** @param {any} item A turn or a note. */
const plain = (item) => JSON.parse(JSON.stringify(item));

/**
 * What is kept of a turn or a note: with the file's name, where it was one.
 * @param {any} item
 * @param {Names} names
 */
function keptAs(item, names) {
  const name = names.get(item.id);
  return name === undefined ? item : { ...item, name };
}

/**
 * What the user said, in one line; empty where that is nothing.
 * @param {any} item As it is kept.
 */
function titleOf(item) {
  const { text, json, content_type = "" } = item.sent ?? {};
  const said = text ?? (json === undefined ? (item.name ?? content_type) : JSON.stringify(json));
  const line = said.trim().replace(/\s+/g, " ");
  return line.length > TITLE ? `${line.slice(0, TITLE - 1)}…` : line;
}

/** @param {any} item As it is kept. */
function wordsOf(item) {
  const words = [item.sent?.text, item.name, item.text, item.done?.text];
  return words.filter(Boolean).join("\n").toLowerCase();
}

export class Conversations {
  /** Called when another window has changed any of them. */
  onchange = () => {};
  #database;
  #channel;
  /** Those that clients keep here, and that this page has not deleted. @type {Set<string>} */
  #kept = new Set();

  /** @param {Database} database */
  constructor(database) {
    this.#database = database;
    this.#channel = new BroadcastChannel(database.name);
    this.#channel.onmessage = () => this.onchange();
  }

  /**
   * @param {string} name Of the database.
   * @returns {Promise<Conversations>} Fails where the browser keeps nothing.
   */
  static async open(name) {
    return new Conversations(await Database.open(name));
  }

  /** @returns {Promise<Summary[]>} The newest first. */
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
   * @param {object} [from] What it begins with: a branch of another.
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
   * Delete a conversation. What a client is about to keep of it is not kept any more.
   * @param {string} id
   */
  async remove(id) {
    this.#kept.delete(id);
    const transaction = await this.#database.writing();
    this.#delete(transaction, id);
    await committed(transaction);
    this.#changed();
  }

  /** Delete all of them, likewise. */
  async clear() {
    this.#kept.clear();
    const transaction = await this.#database.writing();
    for (const name of transaction.objectStoreNames) transaction.objectStore(name).clear();
    await committed(transaction);
    this.#changed();
  }

  /**
   * Forget a conversation, unless something was said or written in it: another window may have it too.
   * @param {string} id
   */
  discard(id) {
    return this.#forget((summary) => summary.id === id && !summary.title && !summary.draft);
  }

  /** Forget those in which nothing was said or written, and that nobody has on a page by now. */
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
   * Which of them have a text in their title, or in what was said.
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
          cursor.continue([id, []]); // its other messages can't say more
          return;
        }
        if (wordsOf(cursor.value).includes(sought)) found.add(id);
        cursor.continue();
      };
    });
    return found;
  }

  /**
   * The turns and notes of a conversation, as they are kept.
   * @param {string} id
   * @returns {Promise<any[]>}
   */
  async items(id) {
    const store = (await this.#database.reading("items")).objectStore("items");
    return result(store.getAll(whole(id)));
  }

  /**
   * Where a client keeps a conversation. One that another window has deleted is there again with
   * the next message.
   * @param {string} id
   * @param {string} route
   * @param {Names} [names] To which those are added that are kept.
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
   * @param {string} said What it is named after, where it has no title.
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
