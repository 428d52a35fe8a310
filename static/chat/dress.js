/**
 * Applies the page's settings: the gateway's title, logo, examples and routes, and the user's
 * theme.
 *
 * @module
 */

import { button, element, make } from "../dom.js";

/**
 * @typedef {object} Route A route's settings in `page.json`.
 * @property {string} name
 * @property {boolean} text Whether it takes text; likewise `json` and `binary`.
 * @property {boolean} json
 * @property {boolean} binary
 * @property {string | null} branches How a new session is sent the history; null if it can't be.
 * @property {number} history_turns Limit of that history; so is `history_bytes`.
 * @property {number} history_bytes
 * @property {number} message_bytes Size limit of a message.
 * @property {boolean} [gone] Whether the gateway no longer has it.
 */
/**
 * @typedef {object} About The content of `page.json`.
 * @property {string} title
 * @property {string} logo
 * @property {string | null} welcome
 * @property {string[]} examples
 * @property {boolean} authenticated Whether clients need an API key or a token.
 * @property {string} default
 * @property {Route[]} routes
 */

const THEME_KEY = "session-gateway.theme";

/**
 * Read a saved choice; null if there is none or the browser has no storage.
 * @param {string} key
 */
export function chosen(key) {
  try {
    return localStorage.getItem(key);
  } catch {
    return null;
  }
}

/**
 * Save a choice, if the browser has room.
 * @param {string} key
 * @param {string} value
 */
export function choose(key, value) {
  try {
    localStorage.setItem(key, value);
  } catch {
    // The choice lasts until the page is reloaded.
  }
}

/** @returns {Promise<About>} */
export async function about() {
  try {
    return await (await fetch("page.json")).json();
  } catch (error) {
    element("state", HTMLElement).textContent =
      "The gateway does not respond. Reload the page to try again.";
    throw error;
  }
}

/**
 * @param {About} about
 * @param {(text: string) => void} say Called with the example clicked.
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
    choose(THEME_KEY, theme.value);
  });
}
