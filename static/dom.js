/**
 * Elements, made one by one: no text of anybody's is ever read as HTML.
 *
 * @module
 */

/**
 * One that is there from the beginning.
 *
 * @template {HTMLElement} T
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
 * @template {keyof HTMLElementTagNameMap} T
 * @param {T} tag
 * @param {string} [className]
 * @param {...(Node | string)} children
 * @returns {HTMLElementTagNameMap[T]}
 */
export function make(tag, className = "", ...children) {
  const node = document.createElement(tag);
  if (className) node.className = className;
  node.append(...children);
  return node;
}

/**
 * @param {string} label
 * @param {() => void} run
 * @param {string} [className]
 */
export function button(label, run, className = "") {
  const node = make("button", className, label);
  node.type = "button";
  node.addEventListener("click", run);
  return node;
}

/**
 * Set a text only where it is another one, so that a status is not read out again.
 * @param {Element} where
 * @param {string} text
 */
export function say(where, text) {
  if (where.textContent !== text) where.textContent = text;
}

/** How long a button says what came of it, in milliseconds. */
const SAID_FOR = 2_000;

/**
 * A button that copies. Where the clipboard is refused, what it would have copied is selected, so
 * that the keyboard copies it.
 *
 * @param {() => string} text
 * @param {() => Node} shown What shows that text.
 */
export function copyButton(text, shown) {
  const label = make("span", "", "Copy");
  const said = make("span");
  said.setAttribute("role", "status");
  let timer = 0;
  const copy = async () => {
    let words = "Copied";
    try {
      await navigator.clipboard.writeText(text());
    } catch {
      getSelection()?.selectAllChildren(shown());
      words = "Selected: copy it with Ctrl+C or ⌘C";
    }
    label.hidden = true;
    said.textContent = words;
    clearTimeout(timer);
    timer = setTimeout(() => {
      label.hidden = false;
      said.textContent = "";
    }, SAID_FOR);
  };
  const node = button("", () => void copy(), "copy");
  node.append(label, said);
  return node;
}

/** How many characters one piece of a text has: the browser lays out only those that are near. */
const PIECE = 10_000;

/** A text that grows, in pieces that end with lines where there are any. */
export class Pieces {
  #element;
  #length = 0;
  /** The piece that grows. @type {Text | null} */
  #last = null;

  /** @param {HTMLElement} element Where they go. */
  constructor(element) {
    this.#element = element;
  }

  /** @param {string} text That begins with what it was before. */
  update(text) {
    while (this.#length < text.length) {
      if (this.#last === null) {
        this.#last = new Text();
        this.#element.append(make("span", "piece", this.#last));
      }
      const { length } = this.#last;
      const begin = this.#length - length;
      const piece = text.slice(begin, begin + PIECE);
      const full = begin + PIECE < text.length;
      const end = full ? piece.lastIndexOf("\n") + 1 || PIECE : piece.length;
      // A line that has begun in it, and no longer has room, goes to the next one.
      if (end < length) this.#last.deleteData(end, length - end);
      else this.#last.appendData(piece.slice(length, end));
      this.#length = begin + end;
      if (full) this.#last = null;
    }
  }
}
