/**
 * A conversation as a file.
 *
 * @module
 */

import { make } from "../dom.js";

/**
 * @param {string} title
 * @param {any[]} items As they are kept.
 */
export function asMarkdown(title, items) {
  const turns = items.filter((item) => "id" in item);
  const parts = turns.flatMap(({ sent, text, done }) => [
    `## You\n\n${sent?.text ?? `(${sent?.content_type ?? "not text"})`}`,
    `## Model\n\n${ending(text || done?.text || "", done)}`,
  ]);
  return `${[`# ${title}`, ...parts].join("\n\n")}\n`;
}

/**
 * @param {string} said
 * @param {any} done
 */
function ending(said, done) {
  if (done?.error) return `${said}\n\n*${done.error.message}*`.trim();
  if (done?.status === "cancelled") return `${said}\n\n*Stopped.*`.trim();
  return said || (done?.content_type ? `(${done.content_type})` : "*No answer yet.*");
}

/**
 * @param {string} title
 * @param {string} route
 * @param {any[]} items As they are kept.
 */
export function asJson(title, route, items) {
  return `${JSON.stringify({ title, route, items }, null, 2)}\n`;
}

/**
 * Let the user have a file.
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
