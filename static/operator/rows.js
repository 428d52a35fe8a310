/**
 * Tables whose rows remain the same elements while their content changes.
 *
 * @module
 */

import { make, say } from "../dom.js";

/**
 * @param {"row" | "col"} scope
 * @param {string} [text]
 */
export function heading(scope, text = "") {
  const cell = make("th", "", text);
  cell.scope = scope;
  return cell;
}

/**
 * Show items in a table's body, each in the row that it had before: the focus stays, and screen
 * readers don't repeat what has not changed.
 *
 * @template T
 * @param {HTMLTableElement} table
 * @param {readonly T[]} items
 * @param {(item: T) => string} key
 * @param {(item: T) => HTMLTableRowElement} row Creates one.
 * @param {(row: HTMLTableRowElement, item: T) => void} fill
 */
export function showRows(table, items, key, row, fill) {
  const body = table.tBodies[0];
  const before = new Map([...body.rows].map((each) => [each.dataset.key, each]));
  items.forEach((item, place) => {
    const name = key(item);
    const there = before.get(name) ?? row(item);
    before.delete(name);
    there.dataset.key = name;
    fill(there, item);
    if (body.rows[place] !== there) body.insertBefore(there, body.rows[place] ?? null);
  });
  for (const gone of before.values()) {
    if (gone.contains(document.activeElement)) table.parentElement?.focus();
    gone.remove();
  }
}

/**
 * A row whose first cell is its heading.
 * @param {number} cells Without the heading.
 * @returns {HTMLTableRowElement}
 */
export function emptyRow(cells) {
  return make("tr", "", heading("row"), ...Array.from({ length: cells }, () => make("td")));
}

/**
 * @param {HTMLTableRowElement} row
 * @param {readonly string[]} texts Of its first cells.
 * @param {number} [numbers] The first cell that is a number.
 * @param {number} [words] The first one after it that is text again.
 */
export function fillRow(row, texts, numbers = Infinity, words = Infinity) {
  texts.forEach((text, place) => {
    const cell = row.cells[place];
    cell.classList.toggle("number", place >= numbers && place < words);
    say(cell, text);
  });
}
