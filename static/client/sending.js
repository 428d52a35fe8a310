/**
 * The user's messages in the protocol's format.
 *
 * @module
 */

import { toBase64 } from "./base64.js";

/** @typedef {import("./turns.js").Body} Body */

/** Not `randomUUID`, which pages only have over HTTPS and on loopback addresses. */
export function newId() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/**
 * The body of a message as JSON, copied so that later changes to it have no effect.
 * @param {string | Body} body
 * @returns {Body}
 * @throws {TypeError} It is not a valid body.
 */
export function sendable(body) {
  if (typeof body === "string") return { text: body };
  const { bytes, ...rest } = body ?? {};
  const sent = JSON.parse(JSON.stringify(rest));
  const [kind, another] = ["text", "json", "base64"].filter((name) => name in sent);
  if (bytes instanceof ArrayBuffer || ArrayBuffer.isView(bytes)) {
    if (kind === undefined) return { ...sent, base64: toBase64(bytes) };
  } else if (another === undefined && bytes === undefined) {
    if (kind === "json" || typeof sent[kind] === "string") return sent;
  }
  throw new TypeError(
    "A message is a string, or an object with one of text, json, base64 and bytes, " +
      'such as { json: { "inputs": "Hello" } }.',
  );
}
