/**
 * Tables whose rows stay the same elements while what they show changes.
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
 * Have a table's body show these, with the row that each has had before: what has the focus keeps
 * it, and nothing that stays is read out again.
 *
 * @template T
 * @param {HTMLTableElement} table
 * @param {readonly T[]} items
 * @param {(item: T) => string} key
 * @param {(item: T) => HTMLTableRowElement} row Makes one.
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
 * @param {number} cells Without that one.
 * @returns {HTMLTableRowElement}
 */
export function emptyRow(cells) {
  return make("tr", "", heading("row"), ...Array.from({ length: cells }, () => make("td")));
}

/**
 * @param {HTMLTableRowElement} row
 * @param {readonly string[]} texts Of its first cells.
 * @param {number} [numbers] From which cell on they are numbers.
 * @param {number} [words] From which on they are words again.
 */
export function fillRow(row, texts, numbers = Infinity, words = Infinity) {
  texts.forEach((text, place) => {
    const cell = row.cells[place];
    cell.classList.toggle("number", place >= numbers && place < words);
    say(cell, text);
  });
}
