/**
 * A long list in a box that scrolls: only those of its rows that are near what is in sight are on
 * the page, and what stands for the others is as high as they are, or are thought to be.
 *
 * @module
 */

import { make } from "../dom.js";

/**
 * @typedef {object} Row
 * @property {HTMLElement | null} element While it is on the page.
 * @property {number} height In pixels; 0 until it was measured.
 * @property {number} length Of its text, by which its height is guessed.
 * @property {boolean} hidden Whether nothing is to be seen of it.
 * @property {boolean} busy Whether it has to stay on the page.
 * @property {() => HTMLElement} build
 * @property {() => boolean} update Brings its element up to date; true if more is to follow.
 * @property {() => void} drop Called when its element has left the page.
 */

/** Who is so many pixels from the end, and goes there, has arrived. */
const NEAR = 48;

/** How many pixels above and below what is in sight are ready, at least. */
const MARGIN = 600;

/** A paint that took longer, in milliseconds, is followed by a pause of twice its length. */
const LONG = 8;

export class Viewport {
  /** Oldest first; changed by the methods only. @type {Row[]} */
  rows = [];
  /** Whether the reader is at the end, and stays there. */
  following = true;

  #box;
  #list;
  #moved;
  /** @type {Set<Row>} */
  #mounted = new Set();
  /** Those that have changed since the last paint. @type {Set<Row>} */
  #changed = new Set();
  /** @type {Map<Element, Row>} */
  #rowOf = new Map();
  #frame = 0;
  /** Until when rows that have changed wait, as `performance.now()` counts. */
  #pause = 0;
  /** Where the box was scrolled to when it was last looked at, and how high it was. */
  #top = 0;
  #height = 0;
  /**
   * What is read there, which stays where it is on the screen whatever comes and goes: a row, and
   * how far below its beginning the box begins. Null at the end.
   * @type {{ row: Row, beyond: number } | null}
   */
  #reading = null;
  #gap = 0;
  #observer = new ResizeObserver((changes) => this.#resized(changes));

  /**
   * @param {HTMLElement} box
   * @param {HTMLElement} list In the box; what the rows are put into.
   * @param {() => void} moved Called after each paint.
   */
  constructor(box, list, moved) {
    this.#box = box;
    this.#list = list;
    this.#moved = moved;
    this.#gap = parseFloat(getComputedStyle(list).rowGap) || 0;
    this.#observer.observe(box); // what appears around it takes its room
    box.addEventListener("scroll", () => {
      this.#look();
      this.#schedule();
    });
    box.addEventListener("keydown", (event) => this.#key(event));
  }

  /**
   * @param {Row} row
   * @param {Row | null} before Null: at the end.
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
   * It has changed, and will be painted with the next frame.
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

  /** How much there is below what is in sight, in pixels. */
  get beyond() {
    const { scrollHeight, scrollTop, clientHeight } = this.#box;
    return scrollHeight - scrollTop - clientHeight;
  }

  /** Paint now, and not with the next frame. */
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

  // What is on the page

  /** Put the rows on the page that are near what is in sight, and take the others away. */
  #fill() {
    const { clientHeight } = this.#box;
    if (clientHeight === 0) return;
    this.#look();
    const margin = Math.max(MARGIN, clientHeight);
    // Rows that turn out to be lower than they were thought to be leave room for more.
    for (let round = 0; round < 5; round += 1) {
      const tops = this.#tops();
      const top = this.#wanted(tops) ?? tops[this.rows.length] - clientHeight;
      const wanted = this.#near(tops, top - margin, top + clientHeight + margin);
      if (!this.#mount(wanted)) break;
    }
    this.#arrange();
    this.#place();
  }

  /** See where the reader has gone, if anywhere. */
  #look() {
    const { scrollTop, clientHeight } = this.#box;
    const before = this.#top;
    const grown = Math.max(0, clientHeight - this.#height);
    this.#height = clientHeight;
    if (scrollTop === before) return;
    const { beyond } = this;
    // Only a reader goes up, or a box that has become higher and has no more to show; that there is
    // more below is no sign of a reader.
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
   * Where the box has to begin in the list; null for the end.
   * @param {Float64Array} tops
   */
  #wanted(tops) {
    if (this.#reading === null) return null;
    return tops[this.rows.indexOf(this.#reading.row)] + this.#reading.beyond;
  }

  /** Scroll to what is read. */
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

  /** Where each row begins in the list, and where the one after the last would. */
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
   * @returns {boolean} Whether anything has changed.
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

  /** Put the elements in their order, with room between them for what is not there. */
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

  // What the reader does, and what happens to sizes

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
 * How high a row is before anybody has measured it, in pixels.
 * @param {number} length
 * @param {number} width
 */
function guess(length, width) {
  return 80 + 24 * Math.min(500, Math.ceil((length * 9) / Math.max(200, width)));
}

/**
 * How many of them are at or before a position.
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
 * Say which of how many it is: on the page are never all.
 * @param {HTMLElement} element
 * @param {number} position
 * @param {number} count
 */
function number(element, position, count) {
  if (element.localName !== "article") return;
  element.setAttribute("aria-posinset", `${position}`);
  element.setAttribute("aria-setsize", `${count}`);
}
