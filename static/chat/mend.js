/**
 * Prepares incomplete Markdown for display.
 *
 * Text whose meaning depends on the next characters is held back, so that nothing is shown and then
 * taken back; open emphasis, code and links are shown as if they were closed.
 *
 * @module
 */

/** How many characters of a possible link are held back at most. */
const LINK = 200;

/** What can precede the first word of a line: quotes, bullets and numbers. */
const PREFIX = /^(?:[ \t]*(?:>|[-*+]|\d{1,9}[.)])[ \t]+)*[ \t]*/;

/**
 * A line that is still ambiguous: a bullet, a rule, a heading's mark, a fence with its language.
 */
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

/** An ending whose meaning depends on what follows: a delimiter, an escape, an entity, a tag. */
const UNFINISHED = new RegExp(
  [
    /(?<![*_~`![])[*_~`![]+/, // anchored at the run's start: else quadratic time
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
 * How much of a growing text can be shown without taking any of it back.
 *
 * @param {string} text Starts at the beginning of a block.
 * @returns {number} A number of characters from its beginning.
 */
export function settled(text) {
  const start = text.lastIndexOf("\n") + 1;
  const line = text.slice(start);
  const above = start === 0 ? "" : text.slice(text.lastIndexOf("\n", start - 2) + 1, start - 1);
  const bare = line.replace(PREFIX, "");
  // A table's first line is recognised only by the second.
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
 * Close what is still open at the end of a growing text.
 *
 * @param {string} source Of one paragraph, heading or cell.
 */
export function mend(source) {
  /** @type {{ mark: string, from: number }[]} */
  const open = [];
  /** Offsets of the open brackets. @type {number[]} */
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
 * Where a code span ends that `count` backticks have opened; -1 if it is still open.
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
 * Hold back what may be a link until that is certain.
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
 * The delimiters opened before a position.
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
 * @param {string} code The backticks of an open code span.
 */
function closed(source, open, code) {
  if (code) source += code;
  else if (open.length > 0) source = source.trimEnd();
  for (const { mark, from } of open.toReversed()) {
    // Nothing follows the delimiter yet, so there is nothing to emphasise.
    if (source.length <= from + mark.length) source = source.slice(0, from).trimEnd();
    else source += mark;
  }
  return source;
}
