/**
 * Markdown that is still coming in: what of it is shown, and how.
 *
 * What may turn out to be something else with the next character waits for it, so that nothing is
 * shown and then taken back; what is open is shown as it will be once it is closed.
 *
 * @module
 */

/** How many characters wait at most for the end of what looks like a link. */
const LINK = 200;

/** What may stand before the first word of a line: quotes, bullets and numbers. */
const PREFIX = /^(?:[ \t]*(?:>|[-*+]|\d{1,9}[.)])[ \t]+)*[ \t]*/;

/** A line that is nothing yet: a bullet, a rule, a heading's mark, a fence with its language. */
const UNDECIDED = new RegExp(
  [
    /[>+]/,
    /\d{1,9}[.)]?/,
    /#{1,6}/,
    /[-=*_][-=*_ \t]*/,
    /\|?[-:| \t]+/,
    /\[[ xX]?\]?/,
    /`{1,2}|`{3,}[^`]*/,
    /~{1,2}|~{3,}.*/,
    /$/,
  ]
    .map(({ source }) => `^(?:${source})$`)
    .join("|"),
);

/** The end of a text that the next characters change: a delimiter, an escape, an entity, a tag. */
const UNFINISHED = new RegExp(
  [
    /(?<![*_~`![])[*_~`![]+/, // from its beginning alone, or a long one takes the square of its length
    /[\\\r]/,
    /&#?\w{0,31}/,
    /<(?:\/?b?r? *\/?|[a-z][a-z0-9+.-]*:[^\s<>]*)/,
  ]
    .map(({ source }) => `(?:${source})$`)
    .join("|"),
  "i",
);

const ROW = /^[ \t]*\|/;
const DELIMITERS = /^[ \t]*\|?[-:| \t]*$/;

/**
 * How much of a text that grows can be shown without taking anything of it back.
 *
 * @param {string} text From the beginning of a block on.
 * @returns {number} Its first so many characters.
 */
export function settled(text) {
  const start = text.lastIndexOf("\n") + 1;
  const line = text.slice(start);
  const above = start === 0 ? "" : text.slice(text.lastIndexOf("\n", start - 2) + 1, start - 1);
  const bare = line.replace(PREFIX, "");
  // A table's first line is one only once the second has come.
  if (ROW.test(bare) && !ROW.test(above)) return start;
  if (ROW.test(above) && DELIMITERS.test(line)) {
    const first = start - above.length - 1;
    const before = first === 0 ? "" : text.slice(text.lastIndexOf("\n", first - 2) + 1, first - 1);
    if (!ROW.test(before)) return first;
  }
  if (line !== "" && UNDECIDED.test(bare.trimEnd())) return start;
  return text.length - (UNFINISHED.exec(line)?.[0].length ?? 0);
}

/**
 * Close what is open in the last words of a text that grows.
 *
 * @param {string} source Of one paragraph, heading or cell.
 */
export function mend(source) {
  /** @type {{ mark: string, from: number }[]} */
  const open = [];
  /** Where the brackets begin that are open. @type {number[]} */
  const brackets = [];
  let at = 0;
  while (at < source.length) {
    const character = source[at];
    let mark = character;
    while ("`*_~".includes(character) && source[at + mark.length] === character) mark += character;
    const end = at + mark.length;
    if (character === "\\") {
      at += 2;
      continue;
    } else if (character === "`") {
      const close = closing(source, end, mark.length);
      if (close < 0) return closed(source, open, source.length > end ? mark : "");
      at = close;
      continue;
    } else if (character === "[") {
      brackets.push(at);
    } else if (character === "]" && brackets.length > 0) {
      const from = /** @type {number} */ (brackets.pop());
      if (end === source.length) return waiting(source, from, open);
      if (source[end] === "(") {
        const close = source.indexOf(")", end);
        if (close < 0 && source.indexOf("\n", end) < 0) {
          return closed(`${source.slice(0, end)}()`, before(open, from), "");
        }
      }
    } else if (mark === "~~" || character === "*" || character === "_") {
      toggle(source, at, mark, open);
    }
    at = end;
  }
  if (brackets.length > 0) return waiting(source, brackets[0], open);
  return closed(source, open, "");
}

/**
 * Where a piece of code ends that so many backticks begin; -1 where it has not ended.
 * @param {string} source
 * @param {number} from
 * @param {number} count
 */
function closing(source, from, count) {
  for (let at = source.indexOf("`", from); at >= 0; at = source.indexOf("`", at)) {
    const begin = at;
    while (source[at] === "`") at += 1;
    if (at - begin === count) return at;
  }
  return -1;
}

/**
 * What may be a link is shown when it is known to be one.
 * @param {string} source
 * @param {number} from
 * @param {{ mark: string, from: number }[]} open
 */
function waiting(source, from, open) {
  if (source.length - from > LINK) return closed(source, open, "");
  const image = source[from - 1] === "!" ? 1 : 0;
  return closed(source.slice(0, from - image), before(open, from), "");
}

/**
 * What was opened before a position.
 * @param {{ mark: string, from: number }[]} open
 * @param {number} position
 */
function before(open, position) {
  return open.filter(({ from }) => from < position);
}

/**
 * @param {string} source
 * @param {number} at
 * @param {string} mark
 * @param {{ mark: string, from: number }[]} open
 */
function toggle(source, at, mark, open) {
  const previous = source[at - 1] ?? " ";
  const next = source[at + mark.length] ?? " ";
  const last = open.findLastIndex((one) => one.mark === mark);
  if (/\S/.test(previous) && last >= 0) {
    open.length = last;
  } else if (/\S/.test(next) && !(mark.length === 1 && /[\p{L}\p{N}]/u.test(previous))) {
    open.push({ mark, from: at });
  }
}

/**
 * @param {string} source
 * @param {{ mark: string, from: number }[]} open
 * @param {string} code The backticks of a piece of code that is open.
 */
function closed(source, open, code) {
  if (code) source += code;
  else if (open.length > 0) source = source.trimEnd();
  for (const { mark, from } of open.toReversed()) {
    // Nothing has come after it, so that there is nothing to show in bold yet.
    if (source.length <= from + mark.length) source = source.slice(0, from).trimEnd();
    else source += mark;
  }
  return source;
}
