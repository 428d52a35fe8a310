/**
 * What the page is made of, built element by element: no text becomes markup.
 *
 * @module
 */

/**
 * @template {Element} T
 * @param {string} id
 * @param {new () => T} kind
 * @returns {T}
 */
export function element(id, kind) {
  const found = document.getElementById(id);
  if (!(found instanceof kind)) throw new Error(`no ${id} on the page`);
  return found;
}

/**
 * @template {keyof HTMLElementTagNameMap} K
 * @param {K} tag
 * @param {Record<string, string>} [given] Its attributes.
 * @param {...(Node | string)} children
 * @returns {HTMLElementTagNameMap[K]}
 */
export function make(tag, given = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(given)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

/**
 * @param {string} tag
 * @param {Record<string, string | number>} [given]
 * @returns {SVGElement}
 */
export function drawn(tag, given = {}) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(given)) made.setAttribute(name, String(value));
  return made;
}

/**
 * Set a text only where it is another one, so that a status is not read out again.
 * @param {Element} where
 * @param {string} text
 */
export function say(where, text) {
  if (where.textContent !== text) where.textContent = text;
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
  return make("tr", {}, make("th", { scope: "row" }), ...Array.from({ length: cells }, () => make("td")));
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
