/**
 * Renders Markdown while it streams.
 *
 * A library parses it, and its tokens become elements. Only the last block, which may still grow,
 * is parsed again when more text arrives; complete blocks keep their elements.
 *
 * @module
 */

import { make, Pieces } from "../dom.js";
import { Lexer } from "../vendor/marked/marked.esm.js";
import { CodeBlock } from "./code.js";
import { mend, settled } from "./mend.js";
import { decoded, finished, inItem, kind, outline, shown, word } from "./tokens.js";

/**
 * @typedef {import("./tokens.js").Token} Token
 * @typedef {object} View A token on the page.
 * @property {Token} token
 * @property {boolean} open Whether it may still grow.
 * @property {Node} node
 * @property {View[]} views Its children.
 * @property {any} [block] The CodeBlock that updates `node`, if any.
 * @property {Map<string, Token[]>} [read] Tokens of each piece of a paragraph.
 */

/** How much text, in characters, is parsed at once: longer blocks are cut there. */
const MAX_BLOCK = 50_000;

/** How many characters of a paragraph are parsed at once, which bounds the worst case. */
const MAX_INLINE = 4_000;

/** The tokens that `rendered` counts. */
const BLOCKS = new Set(
  "paragraph heading code blockquote list list_item table row hr source".split(" "),
);

/** Allowed link targets. */
const SAFE = /^(?:https?:\/\/|mailto:)/i;

/** Renders a text into an element, block by block. */
export class Markdown {
  /** How many times a block was created or updated. */
  rendered = 0;

  #element;
  #text = "";
  /** Offset of the first block that may still change. */
  #from = 0;
  /** The blocks from there. @type {View[]} */
  #open = [];
  /** Link reference definitions, by label. @type {Record<string, object>} */
  #links = Object.create(null);
  /** Complete blocks that may refer to a later definition. @type {View[]} */
  #naming = [];
  /** Depths of the headings above the next one. @type {number[]} */
  #headings = [];
  /** Shows the rest as plain text after a block that was too long. @type {Pieces | null} */
  #plain = null;
  /** Unparsed inline text, by the token list to fill. @type {Map<Token[], string>} */
  #sources = new Map();
  /** @type {any} */
  #lexer = null;

  /** @param {HTMLElement} element An empty element for the blocks. */
  constructor(element) {
    this.#element = element;
  }

  /**
   * @param {string} text If it doesn't start with the previous text, everything is rendered again.
   * @param {boolean} whole Whether the text is complete.
   */
  update(text, whole) {
    if (text.includes("\r")) text = text.replace(/\r\n?/g, "\n");
    if (!text.startsWith(this.#text)) this.#reset();
    this.#text = text;
    while (!this.#plain && this.#step(whole));
    this.#plain?.update(text.slice(this.#from));
  }

  #reset() {
    this.#element.replaceChildren();
    this.#from = 0;
    this.#open = [];
    this.#links = Object.create(null);
    this.#naming = [];
    this.#headings = [];
    this.#plain = null;
  }

  /**
   * Parse the next part of the text; true if there is more.
   * @param {boolean} whole
   */
  #step(whole) {
    let source = this.#text.slice(this.#from, this.#from + MAX_BLOCK);
    const end = this.#from + source.length === this.#text.length;
    if (!end) source = source.slice(0, source.lastIndexOf("\n") + 1 || MAX_BLOCK);
    else if (!whole) source = source.slice(0, settled(source));
    const tokens = this.#read(source);
    let count = end && whole ? tokens.length : finished(tokens, source);
    const long = !end && count === 0;
    if (long) count = tokens.length;
    outline(tokens, this.#headings);
    const grows = !whole && !long;
    this.#open = this.#arrange(this.#element, this.#open, shown(tokens), grows);
    const done = tokens.slice(0, count);
    this.#from += done.reduce((length, { raw }) => length + raw.length, 0);
    this.#headings = outline(done, this.#headings);
    this.#close(this.#open.splice(0, shown(done).length), done);
    if (long) {
      const rest = make("div", "plain");
      this.#element.append(rest);
      this.#plain = new Pieces(rest);
    }
    return !end;
  }

  /**
   * Parse a text into blocks. Their inline content is parsed when they are shown.
   * @param {string} source
   * @returns {Token[]}
   */
  #read(source) {
    this.#lexer = new Lexer({ gfm: true, breaks: true });
    // Definitions in open blocks are discarded: a URL may be incomplete.
    this.#lexer.tokens.links = Object.create(this.#links);
    let tokens;
    try {
      tokens = this.#lexer.blockTokens(source, this.#lexer.tokens);
    } catch (error) {
      if (!(error instanceof RangeError)) throw error; // RangeError: nested too deeply
      tokens = [{ type: "html", raw: source, text: source }];
    }
    this.#sources = new Map(
      this.#lexer.inlineQueue.map((/** @type {any} */ { src, tokens: into }) => [into, src]),
    );
    return tokens;
  }

  /**
   * Remember what later blocks need from these blocks, which are complete.
   * @param {View[]} views
   * @param {Token[]} tokens
   */
  #close(views, tokens) {
    for (const view of views) {
      if (/\[[^\][]+\]/.test(view.token.raw)) this.#naming.push(view);
    }
    for (const { type, tag, href, title } of tokens) {
      if (type !== "def" || tag in this.#links) continue;
      this.#links[tag] = { href, title };
      for (const view of this.#naming) {
        const raw = view.token.raw.toLowerCase().replace(/\s+/g, " ");
        if (raw.includes(`[${tag}]`)) this.#again(view);
      }
    }
  }

  /**
   * Render a block again after a label in it was defined.
   * @param {View} view
   */
  #again(view) {
    const tokens = this.#read(view.token.raw);
    outline(tokens, view.token.above);
    const now = this.#made(shown(tokens)[0], false, true);
    /** @type {ChildNode} */ (view.node).replaceWith(now.node);
    Object.assign(view, now);
  }

  // Views

  /**
   * Update the children of an element.
   * @param {Node} parent
   * @param {View[]} views Its current children; they are its last nodes.
   * @param {Token[]} tokens
   * @param {boolean} open Whether the last token may still grow.
   */
  #arrange(parent, views, tokens, open) {
    /** @type {View[]} */
    const next = [];
    for (const [index, token] of tokens.entries()) {
      const grows = open && index === tokens.length - 1;
      let view = views[index];
      if (view?.token === token && view.open === grows) {
        next.push(view);
        continue;
      }
      if (!view || kind(view.token) !== kind(token)) {
        for (const { node } of views.splice(index)) parent.removeChild(node);
        view = this.#made(token, grows, parent === this.#element);
        parent.appendChild(view.node);
      } else if (view.token.raw !== token.raw || view.open !== grows) {
        this.#update(view, token, grows);
      } else {
        view.token = token;
      }
      next.push(view);
    }
    for (const { node } of views.slice(tokens.length)) parent.removeChild(node);
    return next;
  }

  /**
   * @param {Token} token
   * @param {boolean} open
   * @param {boolean} top Whether it is a top-level block, which has its own text direction.
   */
  #made(token, open, top) {
    const block = token.type === "code" ? new CodeBlock() : undefined;
    /** @type {View} */
    const view = { token, open, node: block?.element ?? this.#node(token), views: [], block };
    if (top && !block && view.node instanceof HTMLElement) view.node.dir = "auto";
    this.#update(view, token, open);
    return view;
  }

  /**
   * Create an empty element for a token.
   * @param {Token} token
   * @returns {Node}
   */
  #node(token) {
    switch (token.type) {
      case "paragraph":
        return make("p");
      case "heading":
        return make(/** @type {"h4" | "h5" | "h6"} */ (`h${token.level}`));
      case "blockquote":
        return make("blockquote");
      case "list": {
        const list = make(token.ordered ? "ol" : "ul");
        if (list instanceof HTMLOListElement && token.start !== 1) list.start = token.start;
        return list;
      }
      case "list_item":
        return make("li", token.task ? "task" : "");
      case "checkbox": {
        const box = make("span", "box", token.checked ? "☑" : "☐");
        box.setAttribute("role", "img");
        box.setAttribute("aria-label", token.checked ? "done" : "to do");
        return box;
      }
      case "hr":
        return make("hr");
      case "table": {
        const box = make("div", "table", make("table", "", make("thead"), make("tbody")));
        box.tabIndex = 0; // for scrolling by keyboard
        box.setAttribute("role", "group");
        box.setAttribute("aria-label", "Table");
        return box;
      }
      case "row":
        return make("tr");
      case "cell": {
        const cell = make(token.header ? "th" : "td", token.align ? `to-${token.align}` : "");
        if (token.header) cell.setAttribute("scope", "col");
        return cell;
      }
      case "strong":
        return make("strong");
      case "em":
        return make("em");
      case "del":
        return make("del");
      case "codespan":
        return make("code", "", new Text());
      case "br":
        return make("br");
      case "link":
        return make("a", token.image ? "image" : "");
      case "source":
        return make("p", "source", new Text());
      default:
        return new Text();
    }
  }

  /**
   * @param {View} view
   * @param {Token} token
   * @param {boolean} open
   */
  #update(view, token, open) {
    view.token = token;
    view.open = open;
    const { node } = view;
    if (BLOCKS.has(token.type)) this.rendered += 1;
    const inside = (/** @type {Token[]} */ tokens) => {
      view.views = this.#arrange(node, view.views, tokens, open);
    };
    switch (token.type) {
      case "paragraph":
      case "heading":
      case "cell":
      case "strong":
      case "em":
      case "del":
        inside(this.#inline(token.tokens, open, view));
        break;
      case "blockquote":
      case "row":
        inside(shown(token.tokens));
        break;
      case "list":
        inside(token.items);
        break;
      case "list_item":
        inside(shown(inItem(token)));
        break;
      case "table":
        this.#table(view, token, open);
        break;
      case "code":
        view.block.update(token.text, (token.lang ?? "").match(/\S*/)[0], !open);
        break;
      case "link": {
        const link = /** @type {HTMLAnchorElement} */ (node);
        const href = token.autolink ? token.href : decoded(token.href);
        if (SAFE.test(href)) {
          link.href = href;
          link.target = "_blank";
          link.rel = "noopener noreferrer";
        } else {
          link.removeAttribute("href");
        }
        inside(this.#inline(token.tokens, open, view));
        break;
      }
      case "source":
      case "codespan":
        write(/** @type {Text} */ (node.firstChild), token.text);
        break;
      case "text":
        write(/** @type {Text} */ (node), token.literal ? token.text : decoded(token.text));
        break;
    }
  }

  /**
   * @param {View} view
   * @param {Token} token
   * @param {boolean} open
   */
  #table(view, token, open) {
    const [head, body] = /** @type {HTMLElement} */ (view.node).firstChild?.childNodes ?? [];
    const align = JSON.stringify(token.align);
    const row = (/** @type {Token[]} */ cells) => ({
      type: "row",
      raw: align + cells.map(({ text }) => text).join("|"),
      tokens: cells.map((cell) => ({ ...cell, type: "cell", raw: cell.text })),
    });
    const heads = this.#arrange(head, view.views.slice(0, 1), [row(token.header)], false);
    const rows = this.#arrange(body, view.views.slice(1), token.rows.map(row), open);
    view.views = [...heads, ...rows];
  }

  /**
   * Inline tokens of a paragraph or of an inline element.
   * @param {Token[]} tokens From the library.
   * @param {boolean} open
   * @param {View} view Caches the parsed pieces.
   * @returns {Token[]}
   */
  #inline(tokens, open, view) {
    const source = this.#sources.get(tokens);
    if (source === undefined) return tokens.map(word);
    const known = view.read;
    view.read = new Map();
    const found = tokens.map(word);
    for (let at = 0; at < source.length || at === 0; ) {
      let piece = source.slice(at, at + MAX_INLINE);
      const last = at + piece.length === source.length;
      if (!last) piece = /^[^]*\s/.exec(piece)?.[0] ?? piece;
      at += piece.length || 1;
      if (open && last) piece = mend(piece);
      const read = known?.get(piece) ?? this.#lexer.inlineTokens(piece, []).map(word);
      view.read.set(piece, read);
      found.push(...read);
    }
    return found;
  }
}

/**
 * @param {Text} node
 * @param {string} text
 */
function write(node, text) {
  if (node.data === text) return;
  if (text.startsWith(node.data)) node.appendData(text.slice(node.length));
  else node.data = text;
}
