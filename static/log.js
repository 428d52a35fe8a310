/**
 * The conversation on the page.
 *
 * Each turn and note of the client's history is shown by a function that brings what is on the page
 * up to date, whether it is new, has changed, or is from before the page was loaded.
 *
 * @module
 */

import { Turn } from "./client.js";
import {
  beginsToForget,
  failureText,
  FORGETS,
  isWithheld,
  noteText,
  replyDetails,
  replyText,
  stopText,
} from "./view.js";

/** @typedef {import("./client.js").Note} Note */
/** @typedef {import("./client.js").SessionClient} SessionClient */

/** @type {Record<string, string>} */
const WHO = { you: "You", model: "Model", problem: "Problem" };

/** Who is so many pixels from the end of the conversation reads its end. */
const NEAR = 48;

/**
 * @param {string} tag
 * @param {string} className
 * @param {string} text
 */
function made(tag, className, text) {
  const node = document.createElement(tag);
  node.className = className;
  node.textContent = text;
  return node;
}

export class Log {
  /** The route of the newest session that is shown. @type {string | null} */
  #route = null;
  /**
   * Each turn and note that is shown: where it begins, and what brings it up to date.
   * @type {WeakMap<object, { first: HTMLElement | null, update: () => void }>}
   */
  #shown = new WeakMap();
  /** Whether its end is in sight. */
  #atEnd = true;
  #element;
  #welcome;
  #client;

  /**
   * @param {HTMLElement} element
   * @param {HTMLElement} welcome What stands in it until there is anything else.
   * @param {SessionClient} client
   */
  constructor(element, welcome, client) {
    this.#element = element;
    this.#welcome = welcome;
    this.#client = client;
    element.addEventListener("scroll", () => {
      this.#atEnd = this.#beyond() < NEAR;
    });
    // What appears around it takes its room, and would hide its end.
    new ResizeObserver(() => {
      if (this.#atEnd) this.scrollToEnd();
    }).observe(element);
  }

  /** @param {object} item */
  has(item) {
    return this.#shown.has(item);
  }

  /**
   * Bring what is shown of these up to date.
   * @param {Iterable<Turn | Note>} items
   */
  show(items) {
    for (const item of items) {
      const known =
        this.#shown.get(item) ?? (item instanceof Turn ? this.#turn(item) : this.#note(item));
      this.#shown.set(item, known);
      this.#change(known.update);
    }
  }

  /**
   * What befell the session, in words; empty where nobody needs to know.
   * @param {Note} note That is not shown yet.
   */
  words(note) {
    return noteText(note, this.#route);
  }

  /**
   * Add an entry to the conversation.
   * @param {"you" | "model" | "notice" | "problem"} who
   * @param {string} text
   * @param {Node | null} [before] Left out: at the end.
   */
  say(who, text, before = null) {
    const entry = made("div", `entry ${who}`, "");
    const name = made("span", "who", WHO[who] ?? "");
    if (who in WHO) entry.append(name);
    const body = made("p", "body", text);
    entry.append(body);
    this.#change(() => {
      this.#welcome.hidden = true;
      this.#element.insertBefore(entry, before);
    });
    return { entry, name, body };
  }

  /** The text of the last entry. */
  get last() {
    return this.#element.lastElementChild?.querySelector(".body")?.textContent;
  }

  scrollToEnd() {
    this.#element.scrollTop = this.#element.scrollHeight;
    this.#atEnd = true;
  }

  /** How much there is below what is in sight, in pixels. */
  #beyond() {
    const { scrollHeight, scrollTop, clientHeight } = this.#element;
    return scrollHeight - scrollTop - clientHeight;
  }

  /**
   * Who reads the end of the conversation goes on to see the end.
   * @param {() => void} change
   */
  #change(change) {
    const near = this.#beyond() < NEAR;
    change();
    if (near) this.scrollToEnd();
  }

  /** @param {Note} note */
  #note(note) {
    const words = this.words(note);
    if (note.type === "opened") this.#route = note.detail.route;
    const first = words ? this.say("notice", words, this.#after(note)).entry : null;
    return { first, update: () => {} };
  }

  /** @param {Note} note What is shown next after it, if anything is. */
  #after(note) {
    const { history } = this.#client;
    const later = history.slice(history.indexOf(note) + 1);
    return later.map((item) => this.#shown.get(item)?.first).find((first) => first) ?? null;
  }

  /** @param {Turn} turn */
  #turn(turn) {
    const you = turn.sent && this.say("you", turn.sent.text ?? "(not text)").entry;
    const { entry, name, body } = this.say("model", "");
    const first = you ?? entry;
    const unsent = made("span", "details", "Not sent");
    const text = new Text();
    const dots = made("span", "dots", "…");
    body.append(text, dots);
    const details = made("span", "details", "");
    entry.append(details);
    let over = false;

    const remark = (/** @type {string} */ words) => details.before(made("p", "remark", words));

    const end = (/** @type {NonNullable<Turn["ended"]>} */ done) => {
      over = true;
      dots.remove();
      if (beginsToForget(turn, this.#client.history)) this.say("notice", FORGETS, first);
      const reply = replyText(done);
      if (reply !== text.data) text.data = reply;
      if (turn.incomplete) remark("Part of this answer is missing.");
      if (done.error) {
        entry.classList.replace("model", "problem");
        name.textContent = "Problem";
        if (reply) remark(failureText(done.error));
        else text.data = failureText(done.error);
      } else if (done.status === "cancelled") {
        if (reply) remark(stopText(done));
        else text.data = stopText(done);
      }
      // What the client itself has ended took no time that anybody has measured.
      details.textContent = done.duration_ms > 0 ? replyDetails(done) : "";
      if (details.textContent === "") details.remove();
    };

    const update = () => {
      if (over) return;
      const waits = !turn.ended && !turn.held;
      entry.classList.toggle("pending", waits);
      if (waits) entry.setAttribute("aria-busy", "true");
      else entry.removeAttribute("aria-busy");
      entry.hidden = isWithheld(turn);
      if (turn.held) you?.append(unsent);
      else unsent.remove();
      if (turn.text.startsWith(text.data)) text.appendData(turn.text.slice(text.length));
      dots.hidden = turn.text !== "";
      if (turn.ended) end(turn.ended);
      else if (turn.cancelling) details.textContent = "Stopping …";
      else details.textContent = turn.status === "waiting" ? "Waiting …" : "";
    };
    return { first, update };
  }
}
