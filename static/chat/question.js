/**
 * Asks before anything goes to a session that it was not meant for.
 *
 * A session that is gone may be followed by one that knows nothing. What was sent and not delivered
 * waits then, and so does what was being written.
 *
 * @module
 */

import { element } from "../dom.js";
import { questionText } from "./view.js";

/** @typedef {import("../client.js").Turn} Turn */

export class Question {
  /** Whether what is in the message field was begun for a session that is gone. */
  stale = false;
  /** Whether it was to be sent all the same, so that the user is asked. */
  #asked = false;
  #page = {
    question: element("question", HTMLElement),
    words: element("asked", HTMLElement),
    anyway: element("anyway", HTMLButtonElement),
    edit: element("edit", HTMLButtonElement),
    discard: element("discard", HTMLButtonElement),
  };
  #user;

  /**
   * @param {object} user
   * @param {() => Turn[]} user.held The turns that wait for a word.
   * @param {() => void} user.send Sends what is in the message field.
   * @param {(turns: Turn[]) => void} user.edit Puts these before what is in it.
   * @param {() => void} user.discard Empties it.
   * @param {() => void} user.focus
   */
  constructor(user) {
    this.#user = user;
    this.#page.anyway.addEventListener("click", () => {
      const draft = this.#asked;
      for (const turn of user.held()) turn.release();
      this.answered();
      if (draft) user.send();
    });
    this.#page.edit.addEventListener("click", () => {
      const turns = user.held();
      user.edit(turns);
      for (const turn of turns) turn.cancel();
      this.answered();
    });
    this.#page.discard.addEventListener("click", () => {
      if (this.#asked) user.discard();
      for (const turn of user.held()) turn.cancel();
      this.answered();
    });
  }

  /** Ask if there is anything to ask. */
  show() {
    const { question, words } = this.#page;
    const count = this.#user.held().length + Number(this.#asked);
    if (count === 0 && question.contains(document.activeElement)) this.#user.focus();
    question.hidden = count === 0;
    const text = count === 0 ? "" : questionText(count);
    if (words.textContent !== text) words.textContent = text; // which reads it out
  }

  /** What is in the message field is to be sent: whether it may be, without a further word. */
  allows() {
    this.#asked = this.stale;
    this.show();
    if (!this.#page.question.hidden) this.#page.anyway.focus();
    return this.#page.question.hidden;
  }

  /** What was begun is gone. */
  forget() {
    this.stale = this.#asked = false;
    this.show();
  }

  /** The user has said what to do. */
  answered() {
    this.forget();
    this.#user.focus();
  }
}
