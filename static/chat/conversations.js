/**
 * The user's conversations, in the browser's database.
 *
 * A conversation that is open in two windows is written by the one that has claimed it last; see
 * `client/journal.js`.
 *
 * @module
 */

import { Claimed } from "../client.js";

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

/** How long a conversation in which nothing was said may be on a page, in milliseconds. */
const UNUSED = 86_400_000;
/** How long a title is that is made of the first message, in characters. */
const TITLE = 60;

/**
 * @template T
 * @param {IDBRequest<T>} request
 * @returns {Promise<T>}
 */
function result(request) {
  return new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
}

/**
 * @param {IDBTransaction} transaction
 * @returns {Promise<void>}
 */
function committed(transaction) {
  return new Promise((resolve, reject) => {
    transaction.oncomplete = () => resolve();
    transaction.onabort = () => reject(transaction.error);
  });
}

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
 * What the user said, in one line; empty where that is nothing.
 * @param {any} item As it is kept.
 */
function titleOf(item) {
  const { text, json, content_type = "" } = item.sent ?? {};
  const said = text ?? (json === undefined ? content_type : JSON.stringify(json));
  const line = said.trim().replace(/\s+/g, " ");
  return line.length > TITLE ? `${line.slice(0, TITLE - 1)}…` : line;
}

/** @param {any} item As it is kept. */
function wordsOf(item) {
  return [item.sent?.text, item.text, item.done?.text].filter(Boolean).join("\n").toLowerCase();
}

export class Conversations {
  /** Called when another window has changed any of them. */
  onchange = () => {};
  #database;
  #channel;

  /** @param {IDBDatabase} database */
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
    const request = indexedDB.open(name, 1);
    request.onupgradeneeded = () => {
      request.result.createObjectStore("conversations", { keyPath: "id" });
      request.result.createObjectStore("states");
      request.result.createObjectStore("items");
    };
    return new Conversations(await result(request));
  }

  /** @returns {Promise<Summary[]>} The newest first. */
  async list() {
    const store = this.#database.transaction("conversations").objectStore("conversations");
    /** @type {Summary[]} */
    const all = await result(store.getAll());
    return all.sort((one, other) => other.changed - one.changed);
  }

  /**
   * @param {string} id
   * @param {string} route
   * @param {object} [from] What it begins with: a branch of another.
   * @param {string} from.title
   * @param {string} from.url
   * @param {any[]} from.items Turns and notes.
   * @returns {Promise<Summary>}
   */
  async create(id, route, from) {
    const summary = { ...fresh(id, route), title: from?.title ?? "" };
    const transaction = this.#writing();
    transaction.objectStore("conversations").put(summary);
    if (from) {
      const kept = { url: from.url, session: null, replaces: null, last_event: 0 };
      transaction.objectStore("states").put({ kept }, id);
      for (const [at, item] of from.items.entries()) {
        transaction.objectStore("items").put(JSON.parse(JSON.stringify(item)), [id, at]);
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
    const transaction = this.#writing();
    const store = transaction.objectStore("conversations");
    const summary = await result(store.get(id));
    if (summary) store.put({ ...summary, ...change });
    await committed(transaction);
    this.#changed();
  }

  /**
   * @param {string} id
   * @param {(summary: Summary) => boolean} [condition] Where it is not to be removed in any case.
   */
  async remove(id, condition = () => true) {
    const transaction = this.#writing();
    /** @type {Summary | undefined} */
    const summary = await result(transaction.objectStore("conversations").get(id));
    if (!summary || condition(summary)) {
      transaction.objectStore("conversations").delete(id);
      transaction.objectStore("states").delete(id);
      transaction.objectStore("items").delete(whole(id));
    }
    await committed(transaction);
    this.#changed();
  }

  /**
   * Forget a conversation, unless something was said in it: another window may have it too.
   * @param {string} id
   */
  discard(id) {
    return this.remove(id, ({ title }) => !title);
  }

  /** Forget those in which nothing was said or written, and that nobody has on a page by now. */
  async sweep() {
    const old = Date.now() - UNUSED;
    const unused = (/** @type {Summary} */ { title, draft, changed }) =>
      !title && !draft && changed < old;
    for (const summary of await this.list()) {
      if (unused(summary)) await this.remove(summary.id, unused);
    }
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
    const items = this.#database.transaction("items").objectStore("items");
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
  items(id) {
    const store = this.#database.transaction("items").objectStore("items");
    return result(store.getAll(whole(id)));
  }

  /**
   * Where a client keeps a conversation. One that another window has deleted is there again with
   * the next message.
   * @param {string} id
   * @param {string} route
   * @returns {Journal}
   */
  journal(id, route) {
    const writer = newId();
    return {
      read: async () => {
        const transaction = this.#database.transaction(["states", "items"]);
        const state = await result(transaction.objectStore("states").get(id));
        const history = await result(transaction.objectStore("items").getAll(whole(id)));
        return state?.kept ? { ...state.kept, history } : null;
      },
      claim: async () => {
        const transaction = this.#writing();
        const states = transaction.objectStore("states");
        const state = await result(states.get(id));
        states.put({ ...state, writer }, id);
        const history = await result(transaction.objectStore("items").getAll(whole(id)));
        await committed(transaction);
        return state?.kept ? { ...state.kept, history } : null;
      },
      write: async (kept, items) => {
        const transaction = this.#writing();
        const states = transaction.objectStore("states");
        const state = await result(states.get(id));
        if (state?.writer !== writer) {
          transaction.abort();
          throw new Claimed();
        }
        states.put({ writer, kept }, id);
        for (const [at, item] of items) transaction.objectStore("items").put(item, [id, at]);
        const renamed = await this.#touch(transaction, id, route, items);
        await committed(transaction);
        if (renamed) this.#changed();
      },
    };
  }

  /**
   * @param {IDBTransaction} transaction
   * @param {string} id
   * @param {string} route
   * @param {Map<number, any>} items That have changed.
   */
  async #touch(transaction, id, route, items) {
    const said = [...items.values()].find(titleOf);
    if (!said) return false;
    const store = transaction.objectStore("conversations");
    /** @type {Summary} */
    const summary = (await result(store.get(id))) ?? fresh(id, route);
    const title = summary.title || titleOf(said);
    store.put({ ...summary, title, changed: Date.now() });
    return title !== summary.title;
  }

  #writing() {
    return this.#database.transaction(["conversations", "states", "items"], "readwrite");
  }

  #changed() {
    this.#channel.postMessage(null);
    this.onchange();
  }
}
