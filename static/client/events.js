/**
 * What a client tells those who listen to it. There are only types here: no page loads this.
 *
 * @module
 */

/** @typedef {import("./conversation.js").Opened} Opened */
/** @typedef {import("./errors.js").Failure} Failure */
/** @typedef {import("./session.js").State} State */
/** @typedef {import("./turns.js").Turn} Turn */
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
