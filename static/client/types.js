/**
 * A client's options and its events. There are only types here: no page loads this.
 *
 * @module
 */

/** @typedef {import("./conversation.js").Opened} Opened */
/** @typedef {import("./errors.js").Failure} Failure */
/** @typedef {import("./connection.js").Token} Token */
/** @typedef {import("./turns.js").Turn} Turn */
/**
 * @typedef {"connecting" | "open" | "waiting" | "closed"} State `waiting` is for the next attempt to
 *   connect; in `closed` the client makes none.
 */
/**
 * @typedef {object} Options
 * @property {{ getItem(key: string): string | null, setItem(key: string, value: string): void } | import("./journal.js").Journal} [storage]
 *   Where the conversation is stored, so that it survives a reload of the page: `sessionStorage`, of
 *   which it takes up to half a megabyte, or a {@link Journal}. Default: nowhere.
 * @property {string} [storageKey] The key in `storage`; a journal needs none.
 * @property {import("./restoring.js").HistoryLimits} [sendHistory] How much of the history is passed to a new session
 *   that replaces one that is gone. The route has to support it, and the address has to name the
 *   route. Default: nothing.
 * @property {boolean} [hold] Whether messages that were written for a session that is gone are held
 *   until {@link Turn#release}. Default: they are sent to the new session, which does not know the
 *   conversation.
 * @property {Token} [token] An API key or token, if the gateway requires one, or a function that
 *   returns it. It is exchanged for a ticket before each connection, and never stored. A function is
 *   called each time, and once more if the gateway rejects what it returned.
 * @property {boolean} [binary] Whether to use MessagePack frames instead of JSON: they carry `bytes`
 *   without Base64, for audio and images. Nothing else changes.
 * @property {new (url: string, protocols: string[]) => any} [WebSocket] The `WebSocket` class to use
 *   where there is no global one, such as that of the package `ws`.
 */
/**
 * @template D
 * @typedef {Event & { readonly detail: D }} Detailed
 */
/**
 * @typedef {object} Events By their names.
 * @property {Detailed<Opened & { replaces: string | null, sentHistory: import("./restoring.js").SentHistory | null }>} opened
 *   A session was opened. If it replaces another one, it has forgotten the conversation, except for
 *   what `sentHistory` says.
 * @property {Detailed<{ lost: [number, number] | null, expires_at: string | null }>} resumed The
 *   session continues over a new connection.
 * @property {Detailed<{ reason: string, context: string, expires_at: string | null }>} renewed The
 *   gateway has opened another session at the model, which knows nothing of the conversation
 *   (`context` is `lost`), all of it (`replayed`) or the newest part (`partial`).
 * @property {Detailed<{ expires_at: string | null }>} updated The session's expiry has changed.
 * @property {Detailed<{ expires_at: string | null }>} expiring The session expires soon.
 * @property {Detailed<{ reason: string }>} closed The gateway has closed the session.
 * @property {Detailed<{ id: string, queued: number }>} accepted The gateway has accepted a message;
 *   `queued` turns are ahead of it.
 * @property {Detailed<Failure & { id?: string }>} error The gateway has refused something other than
 *   a message.
 * @property {Detailed<State>} state The client's state has changed.
 * @property {Detailed<null>} restored The history has been read from the journal.
 * @property {Detailed<unknown>} unsaved The journal could not store something; `detail` is the error.
 * @property {Detailed<Turn>} turn A turn has changed.
 * @property {Detailed<{ lost: [number, number] }>} gap Events were lost: the numbers of the first and
 *   the last of them.
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
