/**
 * Asks for confirmation before something that can't be undone.
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
 * Whether the user confirms. The focus returns to where it was.
 *
 * @param {string} question
 * @param {string} consequences
 * @param {string} answer The label of the button that confirms.
 * @returns {Promise<boolean>}
 */
export function confirmed(question, consequences, answer) {
  title.textContent = question;
  text.textContent = consequences;
  yes.textContent = answer;
  dialog.returnValue = "";
  dialog.showModal();
  no.focus(); // Enter by mistake does nothing
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes"), { once: true });
  });
}

no.addEventListener("click", () => dialog.close("no"));
yes.addEventListener("click", () => dialog.close("yes"));
