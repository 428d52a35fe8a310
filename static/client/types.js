/**
 * A client's options and its events. There are only types here: no page loads this.
 *
 * @module
 */

/** @typedef {import("./conversation.js").Opened} Opened */
/** @typedef {import("./errors.js").Failure} Failure */
/** @typedef {import("./connection.js").Token} Token */
/** @typedef {import("./turns.js").Turn} Turn */
/** @typedef {"connecting" | "open" | "waiting" | "closed"} State */
/**
 * @typedef {object} Options
 * @property {{ getItem(key: string): string | null, setItem(key: string, value: string): void } | import("./journal.js").Journal} [storage]
 *   Where the conversation is kept for the page's next load: `sessionStorage`, which keeps its newest
 *   half megabyte, or a journal. Left out: nowhere.
 * @property {string} [storageKey] Under which name; a journal has its own.
 * @property {import("./telling.js").Limits} [tell] How much a session that takes the place of
 *   another is told of what was said before. The route has to be able to do that, and be named in
 *   the address. Left out: nothing.
 * @property {boolean} [hold] Whether a message that was meant for a session that is gone is held
 *   until {@link Turn#release}. Left out: it goes to the next session, which knows nothing.
 * @property {Token} [token] Who this is, where the gateway asks for that. It is exchanged for a
 *   ticket before each connection, and kept nowhere. A function is asked each time, and once more
 *   where what it gave is not, or no longer, valid.
 * @property {boolean} [binary] Whether frames are MessagePack, in which `bytes` go as they are, and not
 *   JSON: for audio, images and the like. Nothing else changes.
 * @property {new (url: string, protocols: string[]) => any} [WebSocket] What makes the connections,
 *   where there is no global `WebSocket`: that of the package `ws`.
 */
/**
 * @template D
 * @typedef {Event & { readonly detail: D }} Told
 */
/**
 * @typedef {object} Events By their names.
 * @property {Told<Opened & { replaces: string | null, told: import("./telling.js").Told | null }>} opened
 *   There is a session. It has forgotten what was said in the one that it replaces, but for what it
 *   was told of that.
 * @property {Told<{ lost: [number, number] | null, expires_at: string | null }>} resumed The session
 *   goes on over another connection.
 * @property {Told<{ reason: string, context: string, expires_at: string | null }>} renewed The model
 *   has another session, and knows of the conversation what `context` says: nothing (`lost`), all
 *   (`replayed`) or the newest of it (`partial`).
 * @property {Told<{ expires_at: string | null }>} updated
 * @property {Told<{ expires_at: string | null }>} expiring
 * @property {Told<{ reason: string }>} closed The gateway has ended the session.
 * @property {Told<{ id: string, queued: number }>} accepted
 * @property {Told<Failure & { id?: string }>} error Something was refused that was no message.
 * @property {Told<State>} state The client's state has changed.
 * @property {Told<null>} restored The history has become what a journal has kept.
 * @property {Told<unknown>} unsaved The journal could not keep something; the error is in `detail`.
 * @property {Told<Turn>} turn Anything of a turn has.
 * @property {Told<{ lost: [number, number] }>} gap The first and the last event that can no longer
 *   be had.
 */
/**
 * @typedef {{
 *   addEventListener<K extends keyof Events>(
 *     type: K,
 *     listener: (event: Events[K]) => void,
 *     options?: Parameters<EventTarget["addEventListener"]>[2],
 *   ): void;
 *   removeEventListener<K extends keyof Events>(
 *     type: K,
 *     listener: (event: Events[K]) => void,
 *     options?: Parameters<EventTarget["removeEventListener"]>[2],
 *   ): void;
 * } & EventTarget} Listenable
 */


export {};
