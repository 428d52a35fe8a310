/**
 * What the gateway and the user have chosen for the page: its name, its logo, its colours.
 *
 * @module
 */

import { button, element, make } from "../dom.js";

/**
 * @typedef {object} Route What it is to a page.
 * @property {string} name
 * @property {boolean} text Whether it takes text; so are the next two.
 * @property {boolean} json
 * @property {boolean} binary
 * @property {string | null} branches How a new session is told what was said; null where it can't.
 * @property {number} history_turns How much it may be told.
 * @property {number} history_bytes
 * @property {number} message_bytes The largest message.
 */
/**
 * @typedef {object} About What the gateway says of itself and its routes.
 * @property {string} title
 * @property {string} logo
 * @property {string | null} welcome
 * @property {string[]} examples
 * @property {string} default
 * @property {Route[]} routes
 */

const THEME_KEY = "session-gateway.theme";

/** The user's choices. A browser may be told to keep nothing. */
export const choices = (() => {
  try {
    return localStorage;
  } catch {
    return undefined;
  }
})();

/** @returns {Promise<About>} */
export async function about() {
  try {
    return await (await fetch("page.json")).json();
  } catch (error) {
    element("state", HTMLElement).textContent =
      "The gateway does not answer; reload the page to try again.";
    throw error;
  }
}

/**
 * @param {About} about
 * @param {(text: string) => void} say Called with the example that is chosen.
 */
export function dress({ title, logo, welcome, examples, routes }, say) {
  document.title = title;
  element("brand", HTMLElement).textContent = title;
  element("logo", HTMLImageElement).src = logo;
  if (welcome) element("words", HTMLElement).textContent = welcome;
  const shown = examples.map((text) => {
    const node = button(text, () => say(text));
    node.dir = "auto";
    return make("li", "", node);
  });
  element("examples", HTMLUListElement).append(...shown);
  const route = element("route", HTMLSelectElement);
  for (const { name } of routes) route.add(new Option(name));
  route.hidden = routes.length === 1;
  const theme = element("theme", HTMLSelectElement);
  const root = document.documentElement;
  theme.value = root.dataset.theme ?? "";
  theme.addEventListener("change", () => {
    root.dataset.theme = theme.value;
    choices?.setItem(THEME_KEY, theme.value);
  });
}
