/**
 * A client of session-gateway: one conversation, which outlives its connections.
 *
 * It imports only the modules in the folder `client` beside it, and runs in pages of any origin and
 * in Node from version 20 on. It speaks version 1 of the protocol, in JSON, or with
 * `{ binary: true }` in MessagePack:
 *
 *     import { SessionClient } from "./client.js";
 *
 *     const client = new SessionClient("ws://127.0.0.1:8080/ws");
 *     client.connect();
 *     const turn = client.send("Hello");
 *     for await (const part of turn) console.log(part); // as the model writes it
 *     const done = await turn; // the end, with the whole text
 *     console.log(done.text);
 *     client.close();
 *
 * After a lost connection the client reconnects and resumes the session: each event is taken once
 * and in order, each message reaches the model at most once. With a `storage`, such as a page's
 * `sessionStorage`, this holds across reloads of the page too, and `client.history` is restored.
 *
 * @module
 */

export {
  backoff,
  CLOSE_CODES,
  describeClose,
  MAX_BACKOFF,
  TAKEN_OVER,
  UNAUTHENTICATED,
} from "./client/closing.js";
export { Claimed, MessageError } from "./client/errors.js";
export { SessionClient } from "./client/session.js";
export { Turn } from "./client/turns.js";
export { SUBPROTOCOL } from "./client/wire.js";

/** @typedef {import("./client/closing.js").CloseCode} CloseCode */
/** @typedef {import("./client/errors.js").Failure} Failure */
/** @typedef {import("./client/errors.js").Outcome} Outcome */
/** @typedef {import("./client/types.js").Events} Events */
/** @typedef {import("./client/history.js").Note} Note */
/** @typedef {import("./client/journal.js").Journal} Journal */
/** @typedef {import("./client/journal.js").Kept} Kept */
/** @typedef {import("./client/types.js").Options} Options */
/** @typedef {import("./client/types.js").State} State */
/** @typedef {import("./client/connection.js").Token} Token */
/** @typedef {import("./client/turns.js").Body} Body */
/** @typedef {import("./client/turns.js").Done} Done */
