/**
 * Messages as frames and back, in either of the protocol's subprotocols.
 *
 * Apart from a frame, a body of bytes is base64: so a conversation has it, and a storage keeps it.
 *
 * @module
 */

import { fromBase64, toBase64 } from "./base64.js";
import { decode, encode } from "./msgpack.js";

/**
 * @typedef {object} Wire
 * @property {string} subprotocol
 * @property {(message: object) => string | Uint8Array<ArrayBuffer>} encode
 * @property {(frame: any) => any} decode Throws where it is no frame of this kind.
 */

/** The WebSocket subprotocol of the JSON frames. */
export const SUBPROTOCOL = "v1.json.session-gateway";

/** @type {Wire} */
export const TEXT = {
  subprotocol: SUBPROTOCOL,
  encode: (message) => JSON.stringify(message),
  decode: (frame) => JSON.parse(String(frame)),
};

/** @type {Wire} */
export const BINARY = {
  subprotocol: "v1.msgpack.session-gateway",
  encode: (message) => encode("base64" in message ? withBytes(message) : message),
  decode(frame) {
    const { bytes, ...message } = decode(frame);
    return bytes === undefined ? message : { ...message, base64: toBase64(bytes) };
  },
};

/** @param {{ base64?: any }} message */
function withBytes({ base64, ...message }) {
  try {
    return { ...message, bytes: fromBase64(base64) };
  } catch {
    return { ...message, base64 }; // the gateway says what is wrong with it, as it does in JSON
  }
}

/**
 * How many bytes a message is in a frame.
 * @param {Wire} wire
 * @param {object} message
 */
export function frameBytes(wire, message) {
  const frame = wire.encode(message);
  return typeof frame === "string" ? new TextEncoder().encode(frame).length : frame.length;
}
