/**
 * One connection: a ticket if there is a token, a socket, and how it ends.
 *
 * @module
 */

import {
  FORBIDDEN,
  LOST,
  refusal,
  SILENT,
  UNAUTHENTICATED,
  VIOLATION,
} from "./closing.js";
import { Heartbeat } from "./heartbeat.js";
import { NoTicket, ticketFor } from "./tickets.js";

/** @typedef {string | (() => string | Promise<string>)} Token An API key or token, or a function that returns one. */
/**
 * @typedef {object} Target
 * @property {string} url
 * @property {Token | undefined} token
 * @property {new (url: string, protocols: string[]) => any} WebSocket
 * @property {import("./wire.js").Wire} wire
 * @property {boolean} resumes Whether it resumes a session. The gateway has to do that in time; a
 *   model may take long to open a new one.
 */
/**
 * @typedef {object} Listener Called with what happens to a connection, until it is closed.
 * @property {() => void} reached The gateway has accepted it and expects the first message.
 * @property {(message: any) => void} received Null for a frame that is not a message.
 * @property {() => void} quiet The gateway has been silent for a while: a ping shows whether it is
 *   there.
 * @property {(code: number, words?: string) => void} lost It has ended; another may be made.
 * @property {(words?: string) => void} unauthenticated The token is invalid or no longer valid.
 * @property {(code: number, words: string) => void} failed It can't be established.
 */

/** The `readyState` of an open socket, in every `WebSocket` class. */
const OPEN = 1;
/** The timeout of connecting, and of resuming a session, in milliseconds. */
const ANSWER = 15_000;

export class Connection {
  #target;
  #listener;
  #heartbeat;
  /** @type {WebSocket | null} */
  #socket = null;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #deadline;
  #closed = false;

  /**
   * @param {Target} target
   * @param {Listener} listener
   */
  constructor(target, listener) {
    this.#target = target;
    this.#listener = listener;
    this.#heartbeat = new Heartbeat(listener.quiet, () => listener.lost(SILENT));
  }

  /** Start to connect. */
  open() {
    this.#deadline = setTimeout(() => this.#listener.lost(SILENT), ANSWER);
    const { token } = this.#target;
    if (token === undefined) this.#connect([]);
    else this.#authenticate(token);
  }

  /**
   * The session was opened or resumed.
   * @param {number} heartbeat Seconds.
   */
  attached(heartbeat) {
    clearTimeout(this.#deadline);
    this.#heartbeat.start(heartbeat);
  }

  /** @param {object} message */
  write(message) {
    const { wire } = this.#target;
    if (this.#socket?.readyState === OPEN) this.#socket.send(wire.encode(message));
  }

  /**
   * Close it; the listener is no longer called.
   * @param {number} [code]
   */
  close(code) {
    if (this.#closed) return;
    this.#closed = true;
    clearTimeout(this.#deadline);
    this.#heartbeat.stop();
    this.#socket?.close(code);
  }

  /** @param {Token} token */
  async #authenticate(token) {
    try {
      const value = typeof token === "function" ? await token() : token;
      const ticket = await ticketFor(this.#target.url, value);
      if (!this.#closed) this.#connect([`ticket.${ticket}`]);
    } catch (error) {
      if (this.#closed) return;
      if (!(error instanceof NoTicket)) {
        this.#listener.failed(UNAUTHENTICATED, `No token: ${error}`);
      } else if (error.final) {
        this.#listener.unauthenticated(error.message);
      } else {
        this.#listener.lost(LOST, error.message);
      }
    }
  }

  /** @param {string[]} shown Subprotocols that authenticate. */
  #connect(shown) {
    const { url, WebSocket, wire, resumes } = this.#target;
    const listener = this.#listener;
    let socket;
    try {
      socket = new WebSocket(url, [wire.subprotocol, ...shown]);
    } catch (error) {
      listener.failed(VIOLATION, `There can't be a connection: ${error}`); // such as an invalid URL
      return;
    }
    socket.binaryType = "arraybuffer";
    this.#socket = socket;
    let reached = false;
    const handlers = {
      open: () => {
        reached = true;
        listener.reached();
        if (!resumes) clearTimeout(this.#deadline);
      },
      message: (/** @type {any} */ { data }) => {
        this.#heartbeat.heard();
        listener.received(this.#parsed(data));
      },
      error: () => {}, // close follows; ws throws errors without a listener
      close: async (/** @type {any} */ { code }) => {
        const refused = reached ? null : await refusal(url);
        if (this.#closed) return;
        if (refused !== null) listener.failed(FORBIDDEN, refused);
        else if (code === UNAUTHENTICATED) listener.unauthenticated();
        else listener.lost(code);
      },
    };
    for (const [type, handle] of Object.entries(handlers)) {
      // A closed socket may still dispatch events.
      socket.addEventListener(type, (/** @type {any} */ event) => {
        if (!this.#closed) handle(event);
      });
    }
  }

  /**
   * Decode a message; null if it is not one.
   * @param {unknown} frame
   */
  #parsed(frame) {
    try {
      const message = this.#target.wire.decode(frame);
      return typeof message?.type === "string" ? message : null;
    } catch {
      return null;
    }
  }
}
