/**
 * Asks before messages go to a session that they were not written for.
 *
 * A session that is gone may be followed by one without the history. Undelivered messages are then
 * held, and so is the draft.
 *
 * @module
 */

import { element } from "../dom.js";
import { questionText } from "./view.js";

/** @typedef {import("../client.js").Turn} Turn */

export class Question {
  /** Whether the draft was begun for a session that is gone. */
  stale = false;
  /** Whether the user tried to send that draft. */
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
   * @param {() => Turn[]} user.held The held turns.
   * @param {() => void} user.send Sends the draft.
   * @param {(turns: Turn[]) => void} user.edit Puts their messages before the draft.
   * @param {() => void} user.discard Clears the draft.
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

  /** Show or hide the question. */
  show() {
    const { question, words } = this.#page;
    const count = this.#user.held().length + Number(this.#asked);
    if (count === 0 && question.contains(document.activeElement)) this.#user.focus();
    question.hidden = count === 0;
    const text = count === 0 ? "" : questionText(count);
    if (words.textContent !== text) words.textContent = text; // setting it announces it
  }

  /** Whether the draft may be sent now; asks the user if not. */
  allows() {
    this.#asked = this.stale;
    this.show();
    if (!this.#page.question.hidden) this.#page.anyway.focus();
    return this.#page.question.hidden;
  }

  /** The draft no longer needs confirmation. */
  forget() {
    this.stale = this.#asked = false;
    this.show();
  }

  /** The user has answered. */
  answered() {
    this.forget();
    this.#user.focus();
  }
}
