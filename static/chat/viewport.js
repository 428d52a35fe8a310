/**
 * A virtual list: only rows near the visible part are on the page. Spacers replace the others, with
 * their measured or estimated height.
 *
 * @module
 */

import { make } from "../dom.js";

/**
 * @typedef {object} Row
 * @property {HTMLElement | null} element Null unless it is on the page.
 * @property {number} height In pixels; 0 until measured.
 * @property {number} length Of its text, to estimate its height.
 * @property {boolean} hidden Whether it is not shown at all.
 * @property {boolean} busy Whether it must stay on the page.
 * @property {() => HTMLElement} build
 * @property {() => boolean} update Updates its element; true to be called again.
 * @property {() => void} drop Called when its element was removed.
 */

/** A reader scrolling down this close to the end, in pixels, is taken to be there. */
const NEAR = 48;

/** Minimum margin above and below the visible part in which rows are built, in pixels. */
const MARGIN = 600;

/** After a paint longer than this, in milliseconds, updates pause for twice its length. */
const LONG = 8;

export class Viewport {
  /** Oldest first; read-only outside. @type {Row[]} */
  rows = [];
  /** Whether the view sticks to the end. */
  following = true;

  #box;
  #list;
  #moved;
  /** @type {Set<Row>} */
  #mounted = new Set();
  /** Rows changed since the last paint. @type {Set<Row>} */
  #changed = new Set();
  /** @type {Map<Element, Row>} */
  #rowOf = new Map();
  #frame = 0;
  /** Updates wait until then; by `performance.now()`. */
  #pause = 0;
  /** The box's scroll position and height when last read. */
  #top = 0;
  #height = 0;
  /**
   * The scroll anchor, which stays in place on the screen when rows change: the first visible row,
   * and how far below its top the box begins, in pixels. Null at the end.
   * @type {{ row: Row, beyond: number } | null}
   */
  #reading = null;
  #gap = 0;
  #observer = new ResizeObserver((changes) => this.#resized(changes));

  /**
   * @param {HTMLElement} box
   * @param {HTMLElement} list Inside the box; holds the rows.
   * @param {() => void} moved Called after each paint.
   */
  constructor(box, list, moved) {
    this.#box = box;
    this.#list = list;
    this.#moved = moved;
    this.#gap = parseFloat(getComputedStyle(list).rowGap) || 0;
    this.#observer.observe(box); // elements that appear around it shrink it
    box.addEventListener("scroll", () => {
      this.#look();
      this.#schedule();
    });
    box.addEventListener("keydown", (event) => this.#key(event));
  }

  /**
   * @param {Row} row
   * @param {Row | null} before Null to append.
   */
  insert(row, before) {
    const index = before === null ? -1 : this.rows.indexOf(before);
    this.rows.splice(index < 0 ? this.rows.length : index, 0, row);
    this.touch(row);
  }

  clear() {
    for (const row of [...this.#mounted]) this.#unmount(row);
    this.#list.replaceChildren();
    this.#changed.clear();
    this.rows = [];
    this.scrollToEnd();
  }

  /**
   * Update a row with the next frame.
   * @param {Row} row
   */
  touch(row) {
    this.#changed.add(row);
    this.#schedule();
  }

  scrollToEnd() {
    this.following = true;
    this.#reading = null;
    this.#schedule();
  }

  scrollToStart() {
    this.#box.scrollTop = 0;
    this.#look();
    this.#schedule();
  }

  /** How much is below the visible part, in pixels. */
  get beyond() {
    const { scrollHeight, scrollTop, clientHeight } = this.#box;
    return scrollHeight - scrollTop - clientHeight;
  }

  /** Paint now instead of with the next frame. */
  flush() {
    cancelAnimationFrame(this.#frame);
    this.#paint();
  }

  #schedule() {
    if (this.#frame === 0) this.#frame = requestAnimationFrame(() => this.#paint());
  }

  #paint() {
    this.#frame = 0;
    const began = performance.now();
    if (began >= this.#pause) {
      const changed = [...this.#changed];
      this.#changed.clear();
      for (const row of changed) this.#update(row);
    }
    this.#fill();
    const took = performance.now() - began;
    if (took > LONG) this.#pause = began + 3 * took;
    if (this.#changed.size > 0) this.#schedule();
    this.#moved();
  }

  /** @param {Row} row */
  #update(row) {
    if (!row.element) row.height = 0;
    else if (row.hidden) this.#unmount(row);
    else if (row.update()) this.#changed.add(row);
  }

  // Layout

  /** Build the rows near the visible part, and remove the others. */
  #fill() {
    const { clientHeight } = this.#box;
    if (clientHeight === 0) return;
    this.#look();
    const margin = Math.max(MARGIN, clientHeight);
    // Rows lower than estimated leave room for more rows.
    for (let round = 0; round < 5; round += 1) {
      const tops = this.#tops();
      const top = this.#wanted(tops) ?? tops[this.rows.length] - clientHeight;
      const wanted = this.#near(tops, top - margin, top + clientHeight + margin);
      if (!this.#mount(wanted)) break;
    }
    this.#arrange();
    this.#place();
  }

  /** Read the scroll position, and see whether the reader has moved. */
  #look() {
    const { scrollTop, clientHeight } = this.#box;
    const before = this.#top;
    const grown = Math.max(0, clientHeight - this.#height);
    this.#height = clientHeight;
    if (scrollTop === before) return;
    const { beyond } = this;
    // It decreases only if the reader scrolls up, or if the box has grown and shows the end. More
    // content below does not mean that the reader has moved.
    if (scrollTop < before - 1 - grown && beyond > 1) this.following = false;
    else if (beyond <= 1 || (scrollTop > before && beyond < NEAR)) this.following = true;
    this.#top = scrollTop;
    const tops = this.#tops();
    const top = scrollTop - this.#list.offsetTop;
    const index = Math.max(0, Math.min(after(tops, top), this.rows.length) - 1);
    const row = this.rows[index];
    this.#reading = this.following || !row ? null : { row, beyond: top - tops[index] };
  }

  /**
   * The list offset to scroll to; null for the end.
   * @param {Float64Array} tops
   */
  #wanted(tops) {
    if (this.#reading === null) return null;
    return tops[this.rows.indexOf(this.#reading.row)] + this.#reading.beyond;
  }

  /** Restore the scroll anchor. */
  #place() {
    const { scrollTop, scrollHeight } = this.#box;
    const wanted = this.#wanted(this.#tops());
    if (wanted === null) {
      if (this.following) this.#box.scrollTop = scrollHeight;
    } else {
      const top = wanted + this.#list.offsetTop;
      if (Math.abs(top - scrollTop) >= 1) this.#box.scrollTop = top;
    }
    this.#top = this.#box.scrollTop;
  }

  /** The offset of each row in the list, and of the list's end. */
  #tops() {
    const width = this.#list.clientWidth;
    const tops = new Float64Array(this.rows.length + 1);
    for (let index = 0; index < this.rows.length; index += 1) {
      const row = this.rows[index];
      const height = row.hidden ? -this.#gap : row.height || guess(row.length, width);
      tops[index + 1] = tops[index] + height + this.#gap;
    }
    return tops;
  }

  /**
   * @param {Float64Array} tops
   * @param {number} from
   * @param {number} to
   */
  #near(tops, from, to) {
    const wanted = new Set(
      this.rows
        .slice(Math.max(0, after(tops, from) - 1), after(tops, to))
        .filter(({ hidden }) => !hidden),
    );
    const { anchorNode, focusNode } = getSelection() ?? {};
    for (const row of this.#mounted) {
      const holds = [document.activeElement, anchorNode, focusNode].some(
        (node) => node && row.element?.contains(node),
      );
      if (!row.hidden && (row.busy || holds)) wanted.add(row);
    }
    return wanted;
  }

  /**
   * @param {Set<Row>} wanted
   * @returns {boolean} Whether any row was added or removed.
   */
  #mount(wanted) {
    const old = [...this.#mounted].filter((row) => !wanted.has(row));
    const fresh = [...wanted].filter((row) => !this.#mounted.has(row));
    for (const row of old) this.#unmount(row);
    if (fresh.length === 0) return old.length > 0;
    for (const row of fresh) {
      row.element = row.build();
      if (row.update()) this.touch(row);
      this.#mounted.add(row);
      this.#rowOf.set(row.element, row);
    }
    this.#arrange();
    for (const row of fresh) {
      if (!row.element) continue;
      row.height = row.element.getBoundingClientRect().height;
      this.#observer.observe(row.element);
    }
    return true;
  }

  /** @param {Row} row */
  #unmount(row) {
    const { element } = row;
    this.#mounted.delete(row);
    if (!element) return;
    this.#observer.unobserve(element);
    this.#rowOf.delete(element);
    element.remove();
    row.element = null;
    row.drop();
  }

  /** Put the elements in order, with spacers for the rows that are not built. */
  #arrange() {
    const tops = this.#tops();
    /** @type {ChildNode | null} */
    let next = this.#list.firstChild;
    let from = 0;
    const room = (/** @type {number} */ index) => {
      const height = tops[index] - tops[from] - this.#gap;
      if (height <= 0) return;
      if (!(next instanceof HTMLElement && next.className === "room")) {
        const element = make("div", "room");
        this.#list.insertBefore(element, next);
        next = element;
      }
      /** @type {HTMLElement} */ (next).style.height = `${height}px`;
      next = next.nextSibling;
    };
    for (let index = 0; index < this.rows.length; index += 1) {
      const { element } = this.rows[index];
      if (!element) continue;
      room(index);
      from = index + 1;
      if (next instanceof HTMLElement && next.className === "room") {
        const unneeded = next;
        next = next.nextSibling;
        unneeded.remove();
      }
      if (element === next) next = next.nextSibling;
      else this.#list.insertBefore(element, next);
      number(element, index + 1, this.rows.length);
    }
    room(this.rows.length);
    while (next) {
      const unneeded = next;
      next = next.nextSibling;
      unneeded.remove();
    }
  }

  // Keys and resizing

  /** @param {KeyboardEvent} event */
  #key(event) {
    const { key, ctrlKey, metaKey, altKey, shiftKey, target } = event;
    if (altKey || metaKey || shiftKey || (!ctrlKey && target !== this.#box)) return;
    if (key === "End") this.scrollToEnd();
    else if (key === "Home") this.scrollToStart();
    else return;
    event.preventDefault();
  }

  /** @param {ResizeObserverEntry[]} changes */
  #resized(changes) {
    this.#look();
    let changed = false;
    for (const { target, borderBoxSize } of changes) {
      const row = this.#rowOf.get(target);
      const height = borderBoxSize[0].blockSize;
      changed ||= row?.height !== height;
      if (row) row.height = height;
    }
    if (!changed) return;
    this.#place();
    this.#schedule();
  }
}

/**
 * Estimate a row's height before it is measured, in pixels.
 * @param {number} length
 * @param {number} width
 */
function guess(length, width) {
  return 80 + 24 * Math.min(500, Math.ceil((length * 9) / Math.max(200, width)));
}

/**
 * Binary search: how many offsets are at or before a position.
 * @param {Float64Array} tops In order.
 * @param {number} position
 */
function after(tops, position) {
  let low = 0;
  let high = tops.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (tops[middle] <= position) low = middle + 1;
    else high = middle;
  }
  return low;
}

/**
 * Tell screen readers an entry's position, as only some entries are on the page.
 * @param {HTMLElement} element
 * @param {number} position
 * @param {number} count
 */
function number(element, position, count) {
  if (element.localName !== "article") return;
  element.setAttribute("aria-posinset", `${position}`);
  element.setAttribute("aria-setsize", `${count}`);
}
