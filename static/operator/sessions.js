/**
 * The table of sessions: search, pages, details and closing.
 *
 * @module
 */

import { element, make, say } from "../dom.js";
import { Problem } from "./api.js";
import { confirmed } from "./dialogs.js";
import { bytes, count, moment, plural, seconds, short } from "./format.js";
import { emptyRow, fillRow, showRows } from "./rows.js";

/** Sessions per page. */
const LIMIT = "50";
/** The states of a healthy session. */
const WELL = new Set(["opening", "ready", "running"]);
/** How often the table is refreshed, in milliseconds. */
const EACH = 5000;
/** How often the details are refreshed, in milliseconds. */
const CLOSELY = 2000;
/** How long to wait for more typing before searching, in milliseconds. */
const TYPING = 300;

const table = element("sessions", HTMLTableElement);
const filter = element("filter", HTMLFormElement);
const find = element("find", HTMLInputElement);
const whose = element("whose", HTMLInputElement);
const ofRoute = element("of-route", HTMLSelectElement);
const inState = element("in-state", HTMLSelectElement);
const found = element("found", HTMLElement);
const previous = element("previous", HTMLButtonElement);
const next = element("next", HTMLButtonElement);
const detail = element("detail", HTMLDialogElement);
const title = element("detail-title", HTMLElement);
const note = element("detail-note", HTMLElement);
const facts = element("facts", HTMLElement);
const turns = element("turns", HTMLTableElement);
const evict = element("evict", HTMLButtonElement);
const leave = element("leave", HTMLButtonElement);

/** The table, refreshed while it is on. */
export class Sessions {
  /**
   * @param {import("./api.js").Api} api
   * @param {(text: string) => void} announce
   */
  constructor(api, announce) {
    this.api = api;
    this.announce = announce;
    /** Where each page begins, up to this one. @type {string[]} */
    this.pages = [""];
    /** @type {string | null} */
    this.after = null;
    this.asked = 0;
    /** @type {string | null} */
    this.open = null;
    this.isOn = false;
    this.isPaused = false;
    /** @type {ReturnType<typeof setTimeout> | undefined} */
    this.typing = undefined;
    filter.addEventListener("submit", (event) => {
      event.preventDefault();
      this.search();
    });
    for (const each of [ofRoute, inState]) each.addEventListener("change", () => this.search());
    for (const each of [find, whose]) {
      each.addEventListener("input", () => {
        clearTimeout(this.typing);
        this.typing = setTimeout(() => this.search(), TYPING);
      });
    }
    next.addEventListener("click", () => {
      if (this.after !== null) this.pages.push(this.after);
      this.load();
    });
    previous.addEventListener("click", () => {
      if (this.pages.length > 1) this.pages.pop();
      this.load();
    });
    leave.addEventListener("click", () => detail.close());
    detail.addEventListener("close", () => {
      this.open = null;
    });
    evict.addEventListener("click", () => {
      if (this.open !== null) this.close(this.open);
    });
    setInterval(() => {
      if (this.isOn && !this.isPaused && !document.hidden) this.load();
    }, EACH);
    setInterval(() => {
      if (this.open !== null && !document.hidden) this.look(this.open);
    }, CLOSELY);
  }

  /** @param {boolean} on Whether the gateway responds. */
  turn(on) {
    if (on && !this.isOn) this.load();
    this.isOn = on;
    if (!on && detail.open) detail.close();
  }

  /** @param {readonly string[]} names */
  offerRoutes(names) {
    if (ofRoute.options.length > 1) return;
    for (const name of names) ofRoute.add(new Option(name, name));
  }

  search() {
    clearTimeout(this.typing);
    this.pages = [""];
    this.load();
  }

  async load() {
    const asked = ++this.asked;
    const query = {
      prefix: find.value.trim().toLowerCase(),
      principal: whose.value.trim(),
      route: ofRoute.value,
      state: inState.value,
      after: this.pages.at(-1) ?? "",
      limit: LIMIT,
    };
    try {
      const page = await this.api.get("sessions", query);
      if (asked === this.asked) this.show(page);
    } catch (error) {
      if (asked !== this.asked || !(error instanceof Problem)) return;
      say(found, `The sessions could not be listed. ${error.message}`);
    }
  }

  /** @param {any} page */
  show(page) {
    const filtered = [find, whose, ofRoute, inState].some((each) => each.value !== "");
    this.after = page.next;
    const isLast = page.next === null;
    const isFirst = this.pages.length === 1;
    const focused = document.activeElement;
    next.disabled = isLast;
    previous.disabled = isFirst;
    if (focused === next && isLast) previous.focus(); // a disabled button can't have it
    if (focused === previous && isFirst) next.focus();
    const number = page.sessions.length;
    let words = `${plural(number, "session")}, page ${this.pages.length}${isLast ? ", the last" : ""}.`;
    if (number === 0) words = filtered ? "No session matches." : "There are no sessions.";
    else if (isLast && isFirst) words = `${plural(number, "session")}.`;
    if (page.missing.length) words += ` Those of ${page.missing.join(", ")} are missing.`;
    say(found, words);
    table.hidden = number === 0;
    showRows(
      table,
      page.sessions,
      (session) => session.session_id,
      (session) => this.row(session),
      (row, session) => {
        const texts = [
          short(session.session_id),
          session.route,
          session.principal,
          session.state,
          session.attached ? "connected" : "disconnected",
          count(session.queued),
          count(session.events),
          session.replica,
        ];
        fillRow(row, texts, 5, 7);
        row.cells[3].dataset.well = String(WELL.has(session.state));
        row.cells[0].title = session.session_id;
      },
    );
  }

  /** @param {any} session */
  row(session) {
    const row = emptyRow(8);
    const inspect = make("button", "", "Inspect");
    const close = make("button", "danger", "Close …");
    for (const [button, verb] of /** @type {const} */ ([
      [inspect, "Inspect"],
      [close, "Close"],
    ])) {
      button.type = "button";
      button.setAttribute("aria-label", `${verb} session ${short(session.session_id)}`);
    }
    inspect.addEventListener("click", () => this.inspect(session.session_id));
    close.addEventListener("click", () => this.close(session.session_id));
    row.cells[8].append(make("span", "buttons", inspect, close));
    return row;
  }

  /** @param {string} id */
  async inspect(id) {
    this.open = id;
    title.textContent = `Session ${short(id)}`;
    note.textContent = "Loading …";
    facts.replaceChildren();
    turns.tBodies[0].replaceChildren();
    evict.disabled = false;
    detail.showModal();
    leave.focus();
    await this.look(id);
  }

  /** @param {string} id */
  async look(id) {
    try {
      const session = await this.api.get(`sessions/${encodeURIComponent(id)}`);
      if (this.open === id) this.showDetail(session);
    } catch (error) {
      if (this.open !== id || !(error instanceof Problem)) return;
      say(note, error.status === 404 ? "The session no longer exists." : error.message);
      evict.disabled = error.status === 404;
    }
  }

  /** @param {any} session */
  showDetail(session) {
    say(note, "");
    const told = {
      ID: session.session_id,
      "SageMaker session ID": session.sagemaker_session ?? "–",
      Route: session.route,
      Principal: session.principal,
      Replica: session.replica,
      State: session.state,
      Client: session.attached ? "connected" : "disconnected",
      Readers: count(session.readers),
      Expires: moment(session.expires_at),
      "Newest event": count(session.last_event),
      "Events kept": `${count(session.events)}, ${bytes(session.log_bytes)}`,
      "Turns ended": count(session.ended),
    };
    if (facts.childElementCount === 0) {
      for (const name of Object.keys(told)) {
        facts.append(make("div", "", make("dt", "", name), make("dd")));
      }
    }
    Object.values(told).forEach((text, place) => {
      const where = facts.children[place].lastElementChild;
      if (where !== null) say(where, text);
    });
    const all = [...session.turns, ...session.latest];
    showRows(
      turns,
      all,
      (turn) => turn.id,
      () => emptyRow(3),
      (row, turn) => {
        const age = "age_seconds" in turn ? seconds(turn.age_seconds) : "–";
        fillRow(row, [count(turn.number), turn.id, turn.status, age]);
      },
    );
  }

  /** @param {string} id */
  async close(id) {
    const consequences =
      "Its turns will fail, its client will be told that an operator closed it, and the session at the model will be closed. This can’t be undone.";
    if (!(await confirmed(`Close session ${short(id)}?`, consequences, "Close session"))) return;
    try {
      await this.api.ask(`sessions/${encodeURIComponent(id)}`, { method: "DELETE" });
      this.announce(`Session ${short(id)} was closed.`);
      if (detail.open) detail.close();
    } catch (error) {
      if (!(error instanceof Problem)) return;
      const words = error.status === 404 ? "It no longer exists." : error.message;
      if (detail.open) say(note, words); // screen readers ignore what is behind it
      else this.announce(`Session ${short(id)} was not closed. ${words}`);
    }
    this.load();
  }
}
