/**
 * Markdown, while it comes in.
 *
 * A library reads it, and what it finds becomes elements. Only the last block, which may still
 * grow, is read again when more has come; blocks that are whole keep their elements.
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
 * @typedef {object} View What is shown of a token.
 * @property {Token} token
 * @property {boolean} open Whether it may still grow.
 * @property {Node} node
 * @property {View[]} views What is in it.
 * @property {any} [block] What brings `node` up to date, where that is not done from here.
 * @property {Map<string, Token[]>} [read] What was found in the pieces of a paragraph.
 */

/** How much of a text, in characters, is read at once: a block that is longer is cut there. */
const MAX_BLOCK = 50_000;

/** How many characters of a paragraph are read at once, which bounds the worst of them. */
const MAX_INLINE = 4_000;

/** What is counted as a block. */
const BLOCKS = new Set(
  "paragraph heading code blockquote list list_item table row hr source".split(" "),
);

/** What links may lead to. */
const SAFE = /^(?:https?:\/\/|mailto:)/i;

/** A text's blocks on the page. */
export class Markdown {
  /** How often a block was made or changed. */
  rendered = 0;

  #element;
  #text = "";
  /** Where the blocks begin that may still change. */
  #from = 0;
  /** Those blocks. @type {View[]} */
  #open = [];
  /** The addresses that links have been given by name. @type {Record<string, object>} */
  #links = Object.create(null);
  /** Whole blocks that may name an address that is given later. @type {View[]} */
  #naming = [];
  /** How deep the headings are that the next one may stand under. @type {number[]} */
  #headings = [];
  /** What shows the rest as it is, after a block that was too long. @type {Pieces | null} */
  #plain = null;
  /** What is still to be read of the present text's paragraphs. @type {Map<Token[], string>} */
  #sources = new Map();
  /** @type {any} */
  #lexer = null;

  /** @param {HTMLElement} element What shows it, and nothing else. */
  constructor(element) {
    this.#element = element;
  }

  /**
   * @param {string} text That begins with what it was before; else all is made anew.
   * @param {boolean} whole Whether nothing will follow.
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
   * Read what is left, or as much of it as is read at once; true if there is more.
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
   * The blocks of a text. What is in them is read when they are shown.
   * @param {string} source
   * @returns {Token[]}
   */
  #read(source) {
    this.#lexer = new Lexer({ gfm: true, breaks: true });
    // What the open blocks give is not kept: it may be the half of an address.
    this.#lexer.tokens.links = Object.create(this.#links);
    let tokens;
    try {
      tokens = this.#lexer.blockTokens(source, this.#lexer.tokens);
    } catch (error) {
      if (!(error instanceof RangeError)) throw error; // else it is nested too deeply
      tokens = [{ type: "html", raw: source, text: source }];
    }
    this.#sources = new Map(
      this.#lexer.inlineQueue.map((/** @type {any} */ { src, tokens: into }) => [into, src]),
    );
    return tokens;
  }

  /**
   * These blocks are whole: keep what later ones depend on.
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
   * What a block names has been given an address since.
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
   * Bring what an element shows up to date.
   * @param {Node} parent
   * @param {View[]} views What is in it now, the last of its nodes.
   * @param {Token[]} tokens
   * @param {boolean} open Whether the last one may still grow.
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
   * @param {boolean} top Whether it is a block that is in no other, and so has a direction.
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
   * The element that a token becomes, still empty.
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
        box.tabIndex = 0; // so that the keyboard scrolls it
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
   * What is in a paragraph, or in what stands in one.
   * @param {Token[]} tokens As the library gave them.
   * @param {boolean} open
   * @param {View} view What shows them, and remembers what was read.
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
