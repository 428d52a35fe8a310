/**
 * The operator's page: an overview of all replicas, and actions on replicas and sessions.
 *
 * @module
 */

import { element, say } from "../dom.js";
import { Api, Problem } from "./api.js";
import { confirmed } from "./dialogs.js";
import { Feed } from "./feed.js";
import { count, fine, plural, seconds, sum } from "./format.js";
import { Plot } from "./plot.js";
import { Sessions } from "./sessions.js";
import { showReplicas, showRoutes, showTotals } from "./tables.js";

const page = {
  countdown: element("countdown", HTMLElement),
  dot: element("dot", HTMLElement),
  known: element("known", HTMLElement),
  lost: element("lost", HTMLElement),
  notice: element("notice", HTMLElement),
  pause: element("pause", HTMLButtonElement),
  plots: element("plots", HTMLElement),
  retry: element("retry", HTMLButtonElement),
  shown: element("shown", HTMLElement),
  signin: element("signin", HTMLFormElement),
  state: element("state", HTMLElement),
  token: element("token", HTMLInputElement),
  why: element("why", HTMLElement),
};

const STATES = {
  connecting: "Connecting …",
  live: "Live",
  unknown: "Not signed in",
  forbidden: "No permission",
  lost: "Connection lost",
};

const api = new Api(new URL("v1/admin/", location.href).href);
const feed = new Feed(api);
const sessions = new Sessions(api, announce);

const throughput = new Plot({
  title: "Throughput",
  unit: "turns ended per second",
  names: ["Turns per second"],
  format: fine,
});
const inFlight = new Plot({
  title: "Turns",
  unit: "at the model and waiting",
  names: ["In flight", "Waiting"],
  format: count,
});
const firstPart = new Plot({
  title: "Time to first part",
  unit: "over the last ten seconds",
  names: ["p50", "p95"],
  format: seconds,
  least: 0.01,
});
const byState = new Plot({
  title: "Sessions by state",
  unit: "stacked",
  names: ["Running", "Ready", "Opening or renewing", "Ending"],
  format: count,
  stacked: true,
});
const plots = [throughput, inFlight, firstPart, byState];
page.plots.append(...plots.map((plot) => plot.figure));

let isPaused = false;
/** @type {any} */
let newest = null;

/** @param {string} text To show, and for screen readers. */
function announce(text) {
  page.notice.textContent = text;
}

/** @param {any} overview */
function take(overview) {
  newest = overview;
  const { total } = overview;
  throughput.add([total.per_second]);
  inFlight.add([total.turns_in_flight, total.turns_waiting + total.turns_queued]);
  firstPart.add([total.first_part.p50, total.first_part.p95]);
  byState.add([
    total.sessions.running ?? 0,
    total.sessions.ready ?? 0,
    sum(total.sessions, "opening", "renewing", "retrying"),
    sum(total.sessions, "closing", "ended"),
  ]);
  sessions.offerRoutes(overview.routes.map((/** @type {any} */ each) => each.route));
  if (!isPaused) show();
}

function show() {
  if (newest === null) return;
  showTotals(newest.total);
  showRoutes(newest.routes);
  showReplicas(newest.replicas, drain);
  for (const plot of plots) plot.move();
}

function showState() {
  const { state, reason } = feed;
  page.dot.dataset.state = state;
  say(page.state, isPaused && state === "live" ? "Paused" : STATES[state]);
  page.lost.hidden = state !== "lost";
  say(page.why, state === "lost" ? reason : "");
  const needed = state === "unknown" || (state === "forbidden" && api.token !== null);
  const asks = needed && page.signin.hidden;
  page.signin.hidden = !needed;
  if (api.token !== null && needed) say(page.known, `${reason} Sign in with another key or token.`);
  if (asks) page.token.focus();
  if (state === "forbidden" && !needed) announce(reason);
  else if (state === "live" && page.shown.hidden) announce("");
  page.shown.hidden = state === "unknown" || state === "forbidden" || newest === null;
  page.pause.hidden = page.shown.hidden;
  sessions.turn(state === "live");
}

/** @param {string} name Of a replica. */
async function drain(name) {
  const all = newest?.replicas ?? [];
  const replica = all.find((/** @type {any} */ each) => each.name === name);
  const serving = all.filter((/** @type {any} */ each) => each.answers && !each.draining);
  const number = plural(replica?.sessions ?? 0, "session");
  const consequences =
    serving.length > 1
      ? `It will take no new sessions, hand its ${number} over to the other replicas as their turns end, and stop. Its clients will reconnect.`
      : `It is the only replica. Its ${number} will end, or wait for another replica, and it will stop. No client is served until it is started again.`;
  if (!(await confirmed(`Drain ${name}?`, consequences, "Drain"))) return;
  try {
    await api.ask(`replicas/${encodeURIComponent(name)}/drain`, { method: "POST" });
    announce(`${name} is draining.`);
  } catch (error) {
    if (error instanceof Problem) announce(`${name} could not be drained. ${error.message}`);
  }
}

feed.addEventListener("overview", (event) => {
  if (event instanceof CustomEvent) take(event.detail);
  if (page.shown.hidden) showState();
});
feed.addEventListener("state", showState);
page.retry.addEventListener("click", () => feed.start());
page.signin.addEventListener("submit", (event) => {
  event.preventDefault();
  api.token = page.token.value.trim();
  page.token.value = "";
  announce("");
  feed.start();
});
page.pause.addEventListener("click", () => {
  isPaused = !isPaused;
  sessions.isPaused = isPaused;
  page.pause.setAttribute("aria-pressed", String(isPaused));
  showState();
  if (!isPaused) show();
});
setInterval(() => {
  if (feed.state !== "lost") return;
  const left = Math.max(0, Math.ceil((feed.again - Date.now()) / 1000));
  say(page.countdown, left > 0 ? `Next attempt in ${left} s.` : "Trying …");
}, 500);

feed.start();
