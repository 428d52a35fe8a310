/**
 * Encodes and decodes frames, in either of the protocol's subprotocols.
 *
 * Only frames have bodies of bytes; conversations and storages have them as Base64.
 *
 * @module
 */

import { fromBase64, toBase64 } from "./base64.js";
import { decode, encode } from "./msgpack.js";

/**
 * @typedef {object} Wire
 * @property {string} subprotocol
 * @property {(message: object) => string | Uint8Array<ArrayBuffer>} encode
 * @property {(frame: any) => any} decode Throws if it is not a frame of this kind.
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
    return { ...message, base64 }; // the gateway reports the error, as in JSON
  }
}

/**
 * The size of a message's frame in bytes.
 * @param {Wire} wire
 * @param {object} message
 */
export function frameBytes(wire, message) {
  const frame = wire.encode(message);
  return typeof frame === "string" ? new TextEncoder().encode(frame).length : frame.length;
}
