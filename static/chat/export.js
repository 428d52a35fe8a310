/**
 * Exports a conversation as a file.
 *
 * @module
 */

import { make } from "../dom.js";
import { replyShape, sentShape } from "./view.js";

/**
 * @param {string} title
 * @param {any[]} items As stored.
 */
export function asMarkdown(title, items) {
  const turns = items.filter((item) => "id" in item);
  const parts = turns.flatMap(({ sent, name, text, base64, done }) => {
    const answered = { ...done, deltas: done?.deltas ?? 0 };
    if (text) answered.text = text;
    if (base64?.length > 0) answered.base64 = base64.join("");
    const asked = sent ? written(sentShape(sent), name) : "(sent from another window)";
    return [`## You\n\n${asked}`, `## Model\n\n${ending(written(replyShape(answered)), done)}`];
  });
  return `${[`# ${title}`, ...parts].join("\n\n")}\n`;
}

/**
 * @param {import("./view.js").Shape} shape
 * @param {string} [name] The file's name, if it was one.
 */
function written({ kind, text, language }, name) {
  if (kind === "bytes") return `(${name ? `${name}, ` : ""}${text})`;
  if (kind === "words") return text;
  // A fence must be longer than any fence inside it.
  const runs = text.match(/`{3,}/g) ?? [];
  const fence = "`".repeat(Math.max(2, ...runs.map((run) => run.length)) + 1);
  return `${fence}${language}\n${text}\n${fence}`;
}

/**
 * @param {string} said
 * @param {any} done
 */
function ending(said, done) {
  if (done?.error) return `${said}\n\n*${done.error.message}*`.trim();
  if (done?.status === "cancelled") return `${said}\n\n*Stopped.*`.trim();
  return said || "*No answer yet.*";
}

/**
 * @param {string} title
 * @param {string} route
 * @param {any[]} items As stored.
 */
export function asJson(title, route, items) {
  return `${JSON.stringify({ title, route, items }, null, 2)}\n`;
}

/**
 * Download a file.
 * @param {string} name
 * @param {string} type
 * @param {string} content
 */
export function save(name, type, content) {
  const href = URL.createObjectURL(new Blob([content], { type }));
  const safe = name.replace(/[^\p{L}\p{N}._ -]+/gu, "_").slice(0, 80);
  const link = make("a");
  link.href = href;
  link.download = safe;
  link.click();
  setTimeout(() => URL.revokeObjectURL(href), 60_000);
}
