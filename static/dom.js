/**
 * Helpers that build elements without `innerHTML`: no text is ever parsed as HTML.
 *
 * @module
 */

/**
 * Find an element of the page's HTML.
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
 * Set an element's text if it differs, so that screen readers don't repeat a status.
 * @param {Element} where
 * @param {string} text
 */
export function say(where, text) {
  if (where.textContent !== text) where.textContent = text;
}

/** How long a copy button shows its result, in milliseconds. */
const SAID_FOR = 2_000;

/**
 * A button that copies a text. If the clipboard is refused, it selects what it would have copied,
 * so that the user can copy it with the keyboard.
 *
 * @param {() => string} text
 * @param {() => Node} shown The element that contains the text.
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

/** Size of a piece, in characters: the browser lays out only the pieces near the viewport. */
const PIECE = 10_000;

/** A growing text, split into pieces, at line ends where possible. */
export class Pieces {
  #element;
  #length = 0;
  /** The piece that still grows. @type {Text | null} */
  #last = null;

  /** @param {HTMLElement} element The parent of the pieces. */
  constructor(element) {
    this.#element = element;
  }

  /** @param {string} text Must start with the previous text. */
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
      // A partial line that no longer fits moves to the next piece.
      if (end < length) this.#last.deleteData(end, length - end);
      else this.#last.appendData(piece.slice(length, end));
      this.#length = begin + end;
      if (full) this.#last = null;
    }
  }
}
