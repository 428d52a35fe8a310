/**
 * Binary bodies: pictures are shown, sounds are played, everything can be downloaded.
 *
 * @module
 */

import { make } from "../dom.js";

/** Image formats that can't contain scripts. */
const PICTURE = /^image\/(?:png|jpeg|gif|webp|avif|bmp)\s*(?:;|$)/i;
/** Excludes types that end in "+xml": those are documents. */
const SOUND = /^audio\/[\w.-]+\s*(?:;|$)/i;

/** @type {Record<string, string>} */
const EXTENSIONS = { mpeg: "mp3", jpeg: "jpg", "x-wav": "wav", "octet-stream": "bin" };

/**
 * @typedef {object} Attachment
 * @property {HTMLElement} element
 * @property {() => boolean} playing
 * @property {() => void} drop Free its resources.
 */

/**
 * @param {string} base64
 * @param {string} type
 * @param {string} about Its size and type, in words.
 * @param {string} [name]
 * @returns {Attachment}
 */
export function attachment(base64, type, about, name) {
  const words = make("span", "about", about);
  const link = make("a", "file", make("span", "name", name ?? "Download"), " ", words);
  link.download = name ?? `reply.${extension(type)}`;
  const element = make("div", "attachment", link);
  /** @type {HTMLImageElement | HTMLAudioElement | null} */
  let media = null;
  if (PICTURE.test(type)) {
    media = make("img");
    media.alt = name ?? "Picture";
  } else if (SOUND.test(type)) {
    media = make("audio");
    media.controls = true;
    media.preload = "metadata";
    media.setAttribute("aria-label", name ?? "Sound");
  }
  if (media) element.prepend(media);
  let url = "";
  // Decoding megabytes is slow; the entry is shown before it is done.
  const timer = setTimeout(() => {
    url = URL.createObjectURL(new Blob([decoded(base64)], { type: safe(type) }));
    link.href = url;
    if (media) media.src = url;
  });
  return {
    element,
    playing: () => media instanceof HTMLAudioElement && !media.paused && !media.ended,
    drop: () => {
      clearTimeout(timer);
      URL.revokeObjectURL(url);
    },
  };
}

/**
 * A content type that is safe to open in a tab of its own: shown, played or downloaded, never run.
 * @param {string} type
 */
function safe(type) {
  return PICTURE.test(type) || SOUND.test(type) ? type : "application/octet-stream";
}

/** @param {string} type */
function extension(type) {
  const [, found = "bin"] = /^\w+\/([\w-]+)/.exec(type) ?? [];
  return Object.hasOwn(EXTENSIONS, found) ? EXTENSIONS[found] : found;
}

/** @param {string} base64 */
function decoded(base64) {
  const binary = atob(base64);
  const bytes = new Uint8Array(binary.length);
  for (let at = 0; at < bytes.length; at += 1) bytes[at] = binary.charCodeAt(at);
  return bytes;
}
