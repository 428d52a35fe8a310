/**
 * Converts the Markdown library's tokens to the ones that the page renders.
 *
 * @module
 */

/** @typedef {any} Token From marked's lexer: `type`, `raw`, and the fields of its type. */

/** @type {Record<string, string>} */
const ENTITIES = {
  amp: "&",
  lt: "<",
  gt: ">",
  quot: '"',
  apos: "'",
  nbsp: "\u00a0",
  copy: "©",
  reg: "®",
  trade: "™",
  hellip: "…",
  mdash: "—",
  ndash: "–",
  lsquo: "‘",
  rsquo: "’",
  ldquo: "“",
  rdquo: "”",
  laquo: "«",
  raquo: "»",
  bull: "•",
  middot: "·",
  deg: "°",
  plusmn: "±",
  times: "×",
  divide: "÷",
  le: "≤",
  ge: "≥",
  ne: "≠",
  asymp: "≈",
  infin: "∞",
  larr: "←",
  uarr: "↑",
  rarr: "→",
  darr: "↓",
  harr: "↔",
  euro: "€",
  pound: "£",
  yen: "¥",
  cent: "¢",
  sect: "§",
  para: "¶",
  micro: "µ",
  pi: "π",
  half: "½",
  frac12: "½",
  frac14: "¼",
  frac34: "¾",
};

/** @param {string} text */
export function decoded(text) {
  return text.replace(/&(\w+);/g, (entity, name) =>
    Object.hasOwn(ENTITIES, name) ? ENTITIES[name] : entity,
  );
}

/**
 * The tokens that are visible, converted.
 * @param {Token[]} tokens
 */
export function shown(tokens) {
  return tokens.filter(({ type }) => type !== "space" && type !== "def").map(shape);
}

/**
 * A key: an element is reused for tokens of the same kind.
 * @param {Token} token
 */
export function kind({ type, level, ordered, start, task, checked, header, align, image }) {
  return [type, level, ordered, start, task, checked, header, align, image].join();
}

/**
 * Convert a block. Loose and tight lists look the same.
 * @param {Token} token
 * @returns {Token}
 */
function shape(token) {
  if (token.type === "text") return { ...token, type: "paragraph", tokens: token.tokens ?? [] };
  if (token.type === "html") return { ...token, type: "source", text: token.raw.trimEnd() };
  return token;
}

/**
 * Convert an inline token.
 * @param {Token} token
 * @returns {Token}
 */
export function word(token) {
  switch (token.type) {
    case "html":
      if (/^<br\s*\/?>$/i.test(token.raw)) return { type: "br", raw: token.raw };
      return { type: "text", raw: token.raw, text: token.raw, literal: true };
    case "escape":
      return { type: "text", raw: token.raw, text: token.text, literal: true };
    case "image": {
      const text = { type: "text", raw: token.raw, text: token.text || token.href };
      return { type: "link", raw: token.raw, href: token.href, image: true, tokens: [text] };
    }
    default:
      return token;
  }
}

/**
 * The blocks of a list item; its checkbox is moved into the first paragraph.
 * @param {Token} token
 * @returns {Token[]}
 */
export function inItem({ tokens }) {
  const [box, first, ...rest] = tokens;
  if (box?.type !== "checkbox" || !first?.tokens) return tokens;
  if (first.tokens[0] !== box) first.tokens.unshift(box);
  return [first, ...rest];
}

/**
 * Set each heading's level on the page: below the page's own headings, without skipping any.
 * @param {Token[]} tokens
 * @param {number[]} above Depths of the headings above the first token.
 * @returns {number[]} Depths of the headings above what follows.
 */
export function outline(tokens, above) {
  for (const token of tokens) {
    token.above = above;
    if (token.type === "heading") {
      above = [...above.filter((depth) => depth < token.depth), token.depth];
      token.level = Math.min(6, 3 + above.length);
    } else if (token.type === "blockquote" || token.type === "list_item") {
      above = outline(token.tokens, above);
    } else if (token.type === "list") {
      above = outline(token.items, above);
    }
  }
  return above;
}

/**
 * How many blocks are complete, whatever follows: those followed by a block whose first line is
 * complete.
 * @param {Token[]} tokens
 * @param {string} source
 */
export function finished(tokens, source) {
  const lines = source.lastIndexOf("\n");
  let count = 0;
  let at = 0;
  for (const [index, token] of tokens.entries()) {
    const newline = source.indexOf("\n", at);
    if (token.type !== "space" && newline >= 0 && newline <= lines) count = index;
    at += token.raw.length;
  }
  return count;
}
