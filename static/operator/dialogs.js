/**
 * Asks before something is done that can't be undone.
 *
 * @module
 */

import { element } from "../dom.js";

const dialog = element("ask", HTMLDialogElement);
const title = element("ask-title", HTMLElement);
const text = element("ask-text", HTMLElement);
const no = element("no", HTMLButtonElement);
const yes = element("yes", HTMLButtonElement);

/**
 * Whether the user says yes. The focus goes back to where it was.
 *
 * @param {string} question
 * @param {string} consequences
 * @param {string} answer What the button says.
 * @returns {Promise<boolean>}
 */
export function confirmed(question, consequences, answer) {
  title.textContent = question;
  text.textContent = consequences;
  yes.textContent = answer;
  dialog.returnValue = "";
  dialog.showModal();
  no.focus(); // what is done by mistake is nothing
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes"), { once: true });
  });
}

no.addEventListener("click", () => dialog.close("no"));
yes.addEventListener("click", () => dialog.close("yes"));
