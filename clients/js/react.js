"use client";
/**
 * A React hook for a conversation.
 *
 *     import { useSession } from "session-gateway-client/react";
 *
 *     function Chat() {
 *       const { state, turns, send } = useSession("ws://127.0.0.1:8080/ws");
 *       return turns.map((turn) => <p key={turn.key}>{turn.text}</p>);
 *     }
 *
 * @module
 */

import { useState, useSyncExternalStore } from "react";
import { SessionClient, Turn } from "./client.js";

/** @typedef {import("./client.js").Body} Body */
/** @typedef {import("./client.js").Done} Done */
/** @typedef {import("./client.js").Failure} Failure */
/** @typedef {import("./client.js").Note} Note */
/** @typedef {import("./client.js").Options} Options */
/** @typedef {import("./client.js").State} State */
/**
 * @typedef {object} TurnView A turn as it was when it was rendered: replaced by another object if
 *   the turn has changed, and only then.
 * @property {"turn"} type
 * @property {string} key For React's lists.
 * @property {string} id
 * @property {Body | null} sent Null if another window sent it.
 * @property {string} text The reply so far.
 * @property {Turn["status"]} status
 * @property {Turn["delivery"]} delivery
 * @property {boolean} held See {@link Turn#held}.
 * @property {boolean} cancelling
 * @property {boolean} incomplete Whether parts of the reply are missing.
 * @property {Done | null} done How it has ended, also with a reply that is not text.
 * @property {Failure | null} error Of a failed turn.
 * @property {Turn} turn The turn itself: to await, or to iterate over.
 */
/** @typedef {Note & { key: string }} NoteView */
/**
 * @typedef {object} Session
 * @property {State} state
 * @property {string} reason Why there is no connection, for people; empty while there is one.
 * @property {number} code The close code that `reason` describes; 0 for none.
 * @property {readonly (TurnView | NoteView)[]} history The conversation, oldest first: turns, and
 *   what happened to the session between them.
 * @property {readonly TurnView[]} turns The turns of the history.
 * @property {(body: string | Body, id?: string) => Turn} send See {@link SessionClient#send}.
 * @property {(id: string) => void} cancel See {@link SessionClient#cancel}.
 * @property {(id: string) => void} release See {@link SessionClient#release}.
 * @property {() => void} connect See {@link SessionClient#connect}; also after `close`.
 * @property {() => void} close See {@link SessionClient#close}.
 * @property {(url?: string) => void} restart See {@link SessionClient#restart}.
 * @property {(token: string) => void} refresh See {@link SessionClient#refresh}.
 */

/** How long to wait for an animation frame, in milliseconds: a hidden page has none. */
const FRAME = 250;

/**
 * A conversation that lasts as long as the component is mounted: its session is opened on mount and
 * closed on unmount. On a server nothing is opened, and the state is `connecting`.
 *
 * The component renders at most once per frame, however fast a reply streams. The functions that it
 * gets never change, so they may be dependencies of effects.
 *
 * @param {string | SessionClient} session The route's address; another address opens another
 *   session. Or a client, which its owner connects and closes; several components may share it.
 * @param {Options} [options] Those of {@link SessionClient}; later changes have no effect on an
 *   open session.
 * @returns {Session}
 */
export function useSession(session, options = {}) {
  const [store, setStore] = useState(() => new Store(session, options));
  if (store.session !== session) setStore(new Store(session, options));
  return useSyncExternalStore(store.subscribe, store.snapshot, store.serverSnapshot);
}

/** The external store of components. It does nothing before one is mounted. */
class Store {
  session;
  #options;
  /** @type {SessionClient | null} */
  #client = null;
  /** Called after each change. @type {Set<() => void>} */
  #readers = new Set();
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #leaving;
  /** Cancels the wait for a frame, if there is one. @type {(() => void) | null} */
  #waiting = null;
  /** @type {WeakMap<Turn | Note, TurnView | NoteView>} */
  #views = new WeakMap();
  /** Turns that have changed since their view was made. @type {Set<Turn | Note>} */
  #stale = new Set();
  #keys = 0;
  #first;
  #current;

  /**
   * @param {string | SessionClient} session
   * @param {Options} options
   */
  constructor(session, options) {
    this.session = session;
    this.#options = options;
    const client = () => {
      if (this.#client) return this.#client;
      throw new Error("The session's component is not mounted: use it in an effect or a handler.");
    };
    this.#first = this.#current = /** @type {Session} */ ({
      state: "connecting",
      reason: "",
      code: 0,
      history: [],
      turns: [],
      send: (body, id) => client().send(body, id),
      cancel: (id) => this.#client?.cancel(id),
      release: (id) => this.#client?.release(id),
      connect: () => client().connect(),
      close: () => this.#client?.close(),
      restart: (url) => client().restart(url),
      refresh: (token) => client().refresh(token),
    });
  }

  snapshot = () => this.#current;
  serverSnapshot = () => this.#first;

  /** @param {() => void} reader */
  subscribe = (reader) => {
    this.#readers.add(reader);
    clearTimeout(this.#leaving);
    if (!this.#client) this.#open();
    return () => {
      this.#readers.delete(reader);
      // React's StrictMode unmounts a component and mounts it again at once.
      if (this.#readers.size === 0) this.#leaving = setTimeout(() => this.#leave());
    };
  };

  #open() {
    const { session } = this;
    const given = typeof session !== "string";
    const client = given ? session : new SessionClient(session, this.#options);
    this.#client = client;
    client.addEventListener("turn", this.#turned);
    for (const type of NEWS) client.addEventListener(type, this.#changed);
    if (!given) client.connect();
    this.#look(client);
  }

  #leave() {
    const client = this.#client;
    if (!client) return;
    this.#client = null;
    client.removeEventListener("turn", this.#turned);
    for (const type of NEWS) client.removeEventListener(type, this.#changed);
    this.#waiting?.();
    this.#current = this.#first;
    if (typeof this.session === "string") client.close();
  }

  /** @param {{ detail: Turn }} event */
  #turned = ({ detail }) => {
    if (this.#views.has(detail)) this.#stale.add(detail);
    this.#changed();
  };

  /** Notify the readers with the next frame. */
  #changed = () => {
    if (this.#waiting) return;
    const frame = globalThis.requestAnimationFrame?.(() => this.#tell());
    const timer = setTimeout(() => this.#tell(), FRAME);
    this.#waiting = () => {
      clearTimeout(timer);
      if (frame !== undefined) cancelAnimationFrame(frame);
      this.#waiting = null;
    };
  };

  #tell() {
    this.#waiting?.();
    if (this.#client) this.#look(this.#client);
    for (const reader of this.#readers) reader();
  }

  /** @param {SessionClient} client */
  #look({ state, reason, code, history }) {
    const items = history.map((item) => this.#view(item));
    const turns = items.filter((item) => item.type === "turn");
    this.#stale.clear();
    this.#current = { ...this.#first, state, reason, code, history: items, turns };
  }

  /** @param {Turn | Note} item */
  #view(item) {
    const known = this.#views.get(item);
    if (known && !this.#stale.has(item)) return known;
    const key = known?.key ?? String(this.#keys++);
    const view = item instanceof Turn ? viewed(item, key) : { ...item, key };
    this.#views.set(item, view);
    return view;
  }
}

/**
 * The events, besides `turn`, after which components render again.
 * @type {readonly (keyof import("./client.js").Events)[]}
 */
const NEWS = ["state", "restored", "opened", "renewed", "closed", "gap"];

/**
 * @param {Turn} turn
 * @param {string} key
 * @returns {TurnView}
 */
function viewed(turn, key) {
  const { id, sent, text, status, delivery, held, cancelling, incomplete, ended } = turn;
  const error = ended?.error ?? null;
  const shown = { key, id, sent, text, status, delivery, held, cancelling, incomplete };
  return { type: "turn", ...shown, done: ended, error, turn };
}
