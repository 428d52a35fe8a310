/**
 * The recent values of a plot, and its geometry. It does not use the page.
 *
 * @module
 */

/** The number of seconds kept. */
export const KEPT = 120;

/** @typedef {(number | null)[]} Points One for each second, the newest last; null if unknown. */

/** The values of several names, one each second. */
export class Series {
  /** @param {readonly string[]} names */
  constructor(names) {
    this.names = names;
    /** @type {Map<string, Points>} */
    this.points = new Map(names.map((name) => [name, []]));
  }

  /**
   * Add the values of another second.
   * @param {readonly (number | null)[]} values In the order of the names.
   */
  add(values) {
    this.names.forEach((name, place) => {
      const points = this.of(name);
      points.push(values[place]);
      if (points.length > KEPT) points.shift();
    });
  }

  /**
   * @param {string} name
   * @returns {Points}
   */
  of(name) {
    return this.points.get(name) ?? [];
  }

  /** @param {string} name */
  last(name) {
    return this.of(name).at(-1) ?? null;
  }

  /** The same, with the values of all previous names added to each. */
  stacked() {
    /** @type {number[]} */
    let below = [];
    const all = new Series(this.names);
    for (const name of this.names) {
      below = this.of(name).map((value, place) => (value ?? 0) + (below[place] ?? 0));
      all.points.set(name, below);
    }
    return all;
  }

  /** The greatest value of all. */
  get most() {
    const known = [...this.points.values()].flat().filter((value) => value !== null);
    return known.reduce((most, value) => Math.max(most, value), 0);
  }
}

/**
 * The smallest of 1, 2 and 5 times a power of ten that is not less than the value.
 * @param {number} value
 * @param {number} [least]
 */
export function ceiling(value, least = 1) {
  const wanted = Math.max(value, least);
  const power = 10 ** Math.floor(Math.log10(wanted));
  return [1, 2, 5, 10].map((step) => step * power).find((step) => step >= wanted * 0.999999) ?? wanted;
}

/**
 * Lines in a box of `KEPT` by 100, the newest value at its right; broken at unknown values.
 * @param {Points} points
 * @param {number} top The value at the top.
 * @returns {[number, number][][]}
 */
export function lines(points, top) {
  /** @type {[number, number][][]} */
  const found = [[]];
  points.forEach((value, place) => {
    if (value === null) found.push([]);
    else found.at(-1)?.push([KEPT - points.length + place + 1, 100 - (100 * value) / top]);
  });
  return found.filter((line) => line.length > 0);
}

/**
 * The lowest and the highest known value, and the newest one.
 * @param {Points} points
 */
export function range(points) {
  const known = points.filter((value) => value !== null);
  if (known.length === 0) return null;
  return { low: Math.min(...known), high: Math.max(...known), now: points.at(-1) ?? null };
}
