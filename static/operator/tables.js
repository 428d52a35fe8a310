/**
 * The totals, and the tables of routes and replicas.
 *
 * @module
 */

import { element, make, say } from "../dom.js";
import { bytes, count, fine, latency, plural, sum } from "./format.js";
import { emptyRow, fillRow, showRows } from "./rows.js";

const totals = element("totals", HTMLElement);
const routes = element("routes", HTMLTableElement);
const replicas = element("replicas", HTMLTableElement);
const missing = element("missing", HTMLElement);

/** @type {Map<string, HTMLElement>} */
const shown = new Map();

/**
 * @param {string} name
 * @param {string} value
 */
function total(name, value) {
  let where = shown.get(name);
  if (where === undefined) {
    where = make("dd");
    shown.set(name, where);
    totals.append(make("div", "", make("dt", "", name), where));
  }
  say(where, value);
}

/** @param {any} figures Of all routes. */
export function showTotals(figures) {
  total("Sessions", count(sum(figures.sessions)));
  total("Clients connected", count(figures.attached));
  total("Turns in flight", count(figures.turns_in_flight));
  total("Turns waiting", count(figures.turns_waiting + figures.turns_queued));
  total("Turns per second", fine(figures.per_second));
  total("First part, p50 and p95", latency(figures.first_part));
  total("Whole reply, p50 and p95", latency(figures.whole));
  total("Turns failed", `${count(figures.turns.failed)} of ${count(sum(figures.turns))}`);
}

/** @param {readonly any[]} all */
export function showRoutes(all) {
  showRows(
    routes,
    all,
    (route) => route.route,
    () => emptyRow(9),
    (row, route) => {
      const limit = `${count(route.turns_in_flight)} of ${count(route.turns_in_flight_limit)}`;
      const texts = [
        route.route,
        route.endpoint,
        route.breaker,
        limit,
        count(route.turns_waiting + route.turns_queued),
        count(sum(route.sessions)),
        fine(route.per_second),
        latency(route.first_part),
        latency(route.whole),
        count(route.turns.failed),
      ];
      fillRow(row, texts, 3);
      row.cells[2].classList.toggle("warning", route.breaker !== "closed");
      row.cells[2].dataset.well = String(route.breaker === "closed");
    },
  );
}

/** @param {any} replica */
function stateOf(replica) {
  if (!replica.answers) return "does not answer";
  return replica.draining ? "draining" : "serving";
}

/**
 * @param {readonly any[]} all
 * @param {(replica: any) => void} drain
 */
export function showReplicas(all, drain) {
  /** @param {any} replica */
  const makeRow = (replica) => {
    const row = emptyRow(7);
    const button = make("button", "danger", "Drain …");
    button.type = "button";
    button.setAttribute("aria-label", `Drain ${replica.name} …`);
    button.addEventListener("click", () => drain(row.dataset.key));
    row.cells[7].append(button);
    return row;
  };
  showRows(
    replicas,
    all,
    (replica) => replica.name,
    makeRow,
    (row, replica) => {
      const texts = [
        replica.here ? `${replica.name} (this one)` : replica.name,
        stateOf(replica),
        count(replica.sessions),
        count(replica.connections),
        count(replica.turns_in_flight),
        bytes(replica.memory_bytes),
        replica.version ?? "–",
      ];
      fillRow(row, texts, 2, 6);
      row.cells[1].classList.toggle("warning", stateOf(replica) !== "serving");
      row.cells[1].dataset.well = String(stateOf(replica) === "serving");
      const button = row.cells[7].querySelector("button");
      if (button !== null) button.disabled = stateOf(replica) !== "serving";
    },
  );
  const silent = all.filter((replica) => !replica.answers).map((replica) => replica.name);
  const words = `${plural(silent.length, "replica does", "replicas do")} not answer and ${silent.length === 1 ? "is" : "are"} not included here: ${silent.join(", ")}.`;
  say(missing, silent.length ? words : "");
}
