/**
 * Shows a client's history, in order, as rows of a viewport.
 *
 * @module
 */

import { Turn } from "../client.js";
import { button, make } from "../dom.js";
import { Answer, Entry, Message } from "./entries.js";
import { FORGETS, isKnown, noteText } from "./view.js";
import { Viewport } from "./viewport.js";

/** @typedef {import("../client.js").Note} Note */
/** @typedef {import("../client.js").SessionClient} SessionClient */
/** @typedef {import("./entries.js").Around} Around */

export class Log {
  /** The route of the newest session shown. @type {string | null} */
  #route = null;
  /** The entries of each turn and note shown. @type {WeakMap<object, Entry[]>} */
  #shown = new WeakMap();
  /** Answers that have not ended. @type {Set<Answer>} */
  #pending = new Set();
  /** Turns shown as ended. @type {WeakSet<Turn>} */
  #over = new WeakSet();
  /** Whether a model has seen any turn, or may have. */
  #known = false;
  /**
   * The first turn of this session whose history was shortened.
   * @type {Turn | null}
   */
  #forgets = null;
  /** Number of entries added since the user scrolled away from the end. */
  #unread = 0;
  /** @type {SessionClient | null} */
  #client = null;
  #welcome;
  #viewport;
  #jump;
  /** @type {Around} */
  #around;

  /**
   * @param {HTMLElement} element
   * @param {HTMLElement} welcome Shown while the conversation is empty.
   * @param {Partial<Pick<Around, "actions" | "fileName">>} [options]
   */
  constructor(element, welcome, options = {}) {
    this.#welcome = welcome;
    const list = make("div", "entries");
    element.append(list);
    this.#jump = button("", () => {
      this.scrollToEnd();
      element.focus({ preventScroll: true });
    });
    this.#jump.hidden = true;
    element.after(make("div", "jump", this.#jump));
    this.#viewport = new Viewport(element, list, () => this.#moved());
    this.#around = {
      actions: () => [],
      fileName: () => undefined,
      ...options,
      touch: (row) => this.#viewport.touch(row),
    };
    setInterval(() => {
      for (const answer of this.#pending) if (answer.element) this.#viewport.touch(answer);
    }, 1_000);
  }

  /**
   * Switch to a client's conversation.
   * @param {SessionClient} client
   */
  use(client) {
    this.#client = client;
    this.#viewport.clear();
    this.#shown = new WeakMap();
    this.#over = new WeakSet();
    this.#pending.clear();
    this.#route = this.#forgets = null;
    this.#known = false;
    this.#unread = 0;
    this.#welcome.hidden = false;
    for (const item of client.history) this.#add(item, null);
    this.#viewport.flush();
    this.scrollToEnd();
  }

  /**
   * Update these items: new ones at once, others with the next frame.
   * @param {Iterable<Turn | Note>} items
   */
  show(items) {
    let added = false;
    for (const item of items) {
      if (this.#shown.has(item)) {
        if (item instanceof Turn) this.#change(item);
        continue;
      }
      this.#add(item, item instanceof Turn ? null : this.#after(item));
      added = true;
    }
    if (added) this.#viewport.flush();
  }

  /**
   * The text of a note; empty if the user needn't know.
   * @param {Note} note A note not shown yet.
   */
  words(note) {
    return noteText(note, this.#known ? this.#route : null);
  }

  /**
   * Append an entry that is not part of the history.
   * @param {"notice" | "problem"} who
   * @param {string} text
   */
  say(who, text) {
    this.#insert(new Entry(who, text), null);
  }

  /** The text of the last entry, if it is a notice or problem. */
  get last() {
    const last = this.#viewport.rows.at(-1);
    return last instanceof Entry ? last.text : undefined;
  }

  scrollToEnd() {
    this.#viewport.scrollToEnd();
  }

  /**
   * Whether a turn is the first of its session whose history was shortened.
   * @param {Turn} turn
   */
  forgets(turn) {
    return this.#forgets === turn;
  }

  /**
   * @param {Turn | Note} item
   * @param {Entry | null} before
   */
  #add(item, before) {
    /** @type {Entry[]} */
    let entries = [];
    if (item instanceof Turn) {
      if (item.sent) entries.push(new Message(item, item.sent, this.#around));
      entries.push(new Answer(item, this.#around));
    } else {
      const words = this.words(item);
      if (item.type === "opened") {
        this.#route = item.detail.route;
        this.#forgets = null;
      }
      if (words) entries = [new Entry("notice", words)];
    }
    for (const entry of entries) this.#insert(entry, before);
    this.#shown.set(item, entries);
    if (item instanceof Turn) this.#change(item);
  }

  /** @param {Turn} turn */
  #change(turn) {
    if (this.#over.has(turn)) return;
    const entries = this.#shown.get(turn) ?? [];
    for (const entry of entries) {
      this.#viewport.touch(entry);
      if (!(entry instanceof Answer)) continue;
      if (turn.ended) this.#pending.delete(entry);
      else this.#pending.add(entry);
    }
    if (!turn.ended) return;
    this.#over.add(turn);
    this.#known ||= isKnown(turn);
    if (turn.ended.dropped_turns && !this.#forgets) {
      this.#forgets = turn;
      this.#insert(new Entry("notice", FORGETS), entries[0]);
    }
  }

  /**
   * The entry that follows a note. Searches from the end, where new notes are.
   * @param {Note} note
   */
  #after(note) {
    const history = this.#client?.history ?? [];
    /** @type {Entry | null} */
    let next = null;
    for (let at = history.length - 1; at >= 0 && history[at] !== note; at -= 1) {
      next = this.#shown.get(history[at])?.[0] ?? next;
    }
    return next;
  }

  /**
   * @param {Entry} entry
   * @param {Entry | null} before
   */
  #insert(entry, before) {
    this.#welcome.hidden = true;
    this.#viewport.insert(entry, before);
    if (!this.#viewport.following && !(entry instanceof Message)) this.#unread += 1;
  }

  #moved() {
    const { following, beyond } = this.#viewport;
    if (following) this.#unread = 0;
    const hidden = following || beyond <= 1;
    if (this.#jump.hidden !== hidden) this.#jump.hidden = hidden;
    const label = `Jump to latest${this.#unread > 0 ? ` (${this.#unread} new)` : ""}`;
    if (this.#jump.textContent !== label) this.#jump.textContent = label;
  }
}
