/**
 * Moving line charts with a legend, and the same in words and as a table.
 *
 * @module
 */

import { make, say } from "../dom.js";
import { heading } from "./rows.js";
import { ceiling, KEPT, lines, range, Series } from "./series.js";

const STILL = matchMedia("(prefers-reduced-motion: reduce)");
/** The seconds between two rows of the table. */
const ROW = 10;
/** The height of a plot relative to its greatest value. */
const ROOM = 1.05;

/**
 * @typedef {object} Shown
 * @property {string} title
 * @property {string} unit What it counts, in words.
 * @property {readonly string[]} names Of its lines.
 * @property {(value: number | null) => string} format
 * @property {boolean} [stacked] Whether the lines are stacked as bands.
 * @property {number} [least] The minimum of the scale's top value.
 */

/**
 * @param {string} tag
 * @param {Record<string, string | number>} [given]
 * @returns {SVGElement}
 */
function drawn(tag, given = {}) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(given)) made.setAttribute(name, String(value));
  return made;
}

export class Plot {
  /** @param {Shown} shown */
  constructor(shown) {
    this.shown = shown;
    this.series = new Series(shown.names);
    this.figure = make("figure");
    this.values = shown.names.map(() => make("span", "value"));
    const legend = make("ul", "legend");
    shown.names.forEach((name, place) => {
      const key = drawn("svg", { class: "key", viewBox: "0 0 24 12", "aria-hidden": "true" });
      key.append(drawn("line", { x1: 0, y1: 6, x2: 24, y2: 6, class: `line s${place}` }));
      legend.append(make("li", "", key, `${name} `, this.values[place]));
    });
    this.svg = drawn("svg", { viewBox: `0 0 ${KEPT} 100`, preserveAspectRatio: "none", role: "img" });
    this.moving = drawn("g");
    this.svg.append(
      ...[0, 50, 100].map((y) => drawn("line", { x1: 0, y1: y, x2: KEPT, y2: y, class: "grid" })),
      this.moving,
    );
    this.top = make("span", "top");
    const box = make("div", "box", this.top, make("span", "bottom", "0"));
    for (const each of box.children) each.setAttribute("aria-hidden", "true");
    box.append(this.svg);
    const ends = make("p", "ends", make("span", "", "2 min ago"), make("span", "", "now"));
    ends.setAttribute("aria-hidden", "true");
    this.table = make("table");
    const scrolls = make("div", "scrolls", this.table);
    scrolls.setAttribute("role", "region");
    scrolls.tabIndex = 0;
    scrolls.setAttribute("aria-label", `${shown.title} as a table`);
    this.details = make("details", "", make("summary", "", "Show as a table"), scrolls);
    this.details.addEventListener("toggle", () => this.showTable());
    this.figure.append(make("figcaption", "", shown.title), legend, box, ends, this.details);
    this.draw();
  }

  /** @param {readonly (number | null)[]} values In the order of the names. */
  add(values) {
    this.series.add(values);
  }

  draw() {
    const { shown, series } = this;
    const drawnSeries = shown.stacked ? series.stacked() : series;
    const top = ceiling(drawnSeries.most * ROOM, shown.least);
    say(this.top, shown.format(top));
    /** @type {SVGElement[]} */
    const bands = [];
    /** @type {SVGElement[]} */
    const edges = [];
    /** @type {[number, number][]} */
    let below = [];
    shown.names.forEach((name, place) => {
      say(this.values[place], shown.format(series.last(name)));
      // The edge of an empty band would lie on the one below it.
      if (shown.stacked && place > 0 && !series.of(name).some(Boolean)) return;
      for (const line of lines(drawnSeries.of(name), top)) {
        edges.push(drawn("polyline", { points: line.join(" "), class: `line s${place}` }));
        if (!shown.stacked) continue;
        if (below.length === 0) below = line.map(([x]) => [x, 100]);
        const points = [...line, ...below.toReversed()].join(" ");
        bands.push(drawn("polygon", { points, class: `band s${place}` }));
        below = line;
      }
    });
    this.moving.replaceChildren(...bands, ...edges);
    this.svg.setAttribute("aria-label", this.words());
    this.showTable();
  }

  /** Draw, animated from where the lines were a second ago. */
  move() {
    this.draw();
    if (STILL.matches || document.hidden) return;
    const from = { transform: "translateX(1px)" }; // in the view box, where a second is one wide
    this.moving.animate([from, { transform: "none" }], { duration: 1000, easing: "linear" });
  }

  /** The plot in words, for screen readers. */
  words() {
    const { title, unit, format, names } = this.shown;
    const said = names.map((name) => {
      const found = range(this.series.of(name));
      if (found === null) return `${name}: no data yet`;
      return `${name}: now ${format(found.now)}, range ${format(found.low)} to ${format(found.high)}`;
    });
    return `${title}, ${unit}, last two minutes. ${said.join("; ")}.`;
  }

  /** Fill the table, if it is open. */
  showTable() {
    if (!this.details.open) return;
    const { names, format, title } = this.shown;
    const heads = ["Seconds ago", ...names].map((name) => heading("col", name));
    const rows = [];
    for (let ago = 0; ago < KEPT; ago += ROW) {
      const values = names.map((name) => this.series.of(name).at(-1 - ago));
      if (values[0] === undefined) break;
      const cells = values.map((value) => make("td", "number", format(value ?? null)));
      rows.push(make("tr", "", heading("row", String(ago)), ...cells));
    }
    this.table.replaceChildren(
      make("caption", "unseen", title),
      make("thead", "", make("tr", "", ...heads)),
      make("tbody", "", ...rows),
    );
  }
}
