/**
 * Bytes as text, for JSON and for storages.
 *
 * @module
 */

/** Bytes per call of `fromCharCode`: every engine accepts this many arguments. */
const PIECE = 0x8000;

/** @param {ArrayBuffer | ArrayBufferView} bytes */
export function toBase64(bytes) {
  const view = ArrayBuffer.isView(bytes)
    ? new Uint8Array(bytes.buffer, bytes.byteOffset, bytes.byteLength)
    : new Uint8Array(bytes);
  let characters = "";
  for (let at = 0; at < view.length; at += PIECE) {
    characters += String.fromCharCode(...view.subarray(at, at + PIECE));
  }
  return btoa(characters);
}

/**
 * @param {string} text
 * @throws {DOMException} It is not Base64.
 */
export function fromBase64(text) {
  return Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
}
