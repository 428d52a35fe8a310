/**
 * An IndexedDB database that reopens itself. It can be closed at any time: another window deletes
 * or upgrades it, or the user clears the site's data.
 *
 * @module
 */

/**
 * @template T
 * @param {IDBRequest<T>} request
 * @returns {Promise<T>}
 */
export function result(request) {
  return new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
}

/**
 * @param {IDBTransaction} transaction
 * @returns {Promise<void>}
 */
export function committed(transaction) {
  return new Promise((resolve, reject) => {
    transaction.oncomplete = () => resolve();
    transaction.onabort = () => reject(transaction.error);
  });
}

const STORES = ["conversations", "states", "items"];

/** @param {string} name */
async function connection(name) {
  const request = indexedDB.open(name, 1);
  request.onupgradeneeded = () => {
    request.result.createObjectStore("conversations", { keyPath: "id" });
    request.result.createObjectStore("states");
    request.result.createObjectStore("items");
  };
  const opened = await result(request);
  opened.onversionchange = () => opened.close(); // an open connection blocks deleting it
  return opened;
}

export class Database {
  #connection;

  /** @param {IDBDatabase} connection */
  constructor(connection) {
    this.name = connection.name;
    this.#connection = connection;
  }

  /**
   * @param {string} name
   * @returns {Promise<Database>} Rejects if the browser has no storage.
   */
  static async open(name) {
    return new Database(await connection(name));
  }

  /** @param {...string} stores */
  reading(...stores) {
    return this.#begin(stores, "readonly");
  }

  /** Begin a transaction that writes to all stores. */
  writing() {
    return this.#begin(STORES, "readwrite");
  }

  /**
   * @param {string[]} stores
   * @param {IDBTransactionMode} mode
   * @returns {Promise<IDBTransaction>}
   */
  async #begin(stores, mode) {
    try {
      return this.#connection.transaction(stores, mode);
    } catch (error) {
      if (/** @type {Error} */ (error).name !== "InvalidStateError") throw error;
    }
    this.#connection = await connection(this.name); // it had been closed
    return this.#connection.transaction(stores, mode);
  }
}
