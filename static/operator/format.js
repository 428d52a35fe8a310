/**
 * Formats numbers, times and sizes. It does not use the page.
 *
 * @module
 */

const WHOLE = new Intl.NumberFormat("en");
const FINE = new Intl.NumberFormat("en", { maximumSignificantDigits: 3 });
const NONE = "–";

/**
 * @param {number | null | undefined} value
 * @returns {string}
 */
export function count(value) {
  return value === null || value === undefined ? NONE : WHOLE.format(value);
}

/**
 * @param {number | null} value
 * @returns {string}
 */
export function fine(value) {
  return value === null ? NONE : FINE.format(value);
}

/**
 * @param {number | null} value In seconds.
 * @returns {string}
 */
export function seconds(value) {
  if (value === null) return NONE;
  if (value < 1) return `${FINE.format(value * 1000)} ms`;
  if (value < 120) return `${FINE.format(value)} s`;
  if (value < 7200) return `${WHOLE.format(Math.round(value / 60))} min`;
  return `${WHOLE.format(Math.round(value / 3600))} h`;
}

/**
 * @param {{ p50: number | null, p95: number | null }} latency
 * @returns {string}
 */
export function latency({ p50, p95 }) {
  return p50 === null ? NONE : `${seconds(p50)}, ${seconds(p95)}`;
}

/**
 * @param {number | null} value
 * @returns {string}
 */
export function bytes(value) {
  if (value === null) return NONE;
  const [size, unit] = value < 1_048_576 ? [1024, "KiB"] : [1_048_576, "MiB"];
  return `${FINE.format(value / size)} ${unit}`;
}

/**
 * @param {number} number
 * @param {string} one
 * @param {string} [many]
 * @returns {string}
 */
export function plural(number, one, many = `${one}s`) {
  return `${WHOLE.format(number)} ${number === 1 ? one : many}`;
}

/** @param {string} id Of a session. */
export function short(id) {
  return id.length > 12 ? `${id.slice(0, 12)}…` : id;
}

/**
 * @param {Record<string, number>} numbers
 * @param {...string} names Those to add; without any, all.
 */
export function sum(numbers, ...names) {
  const entries = Object.entries(numbers);
  const chosen = names.length === 0 ? entries : entries.filter(([name]) => names.includes(name));
  return chosen.reduce((all, [, number]) => all + number, 0);
}

/**
 * @param {string | null} at RFC 3339.
 * @returns {string}
 */
export function moment(at) {
  return at === null ? NONE : new Date(at).toLocaleString();
}
