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
 * @property {string | null} branches How a new session is sent the conversation; null if it can't be.
 * @property {number} history_turns How much of it.
 * @property {number} history_bytes
 * @property {number} message_bytes The largest message.
 * @property {boolean} [gone] Whether the gateway has it no longer.
 */
/**
 * @typedef {object} About What the gateway says of itself and its routes.
 * @property {string} title
 * @property {string} logo
 * @property {string | null} welcome
 * @property {string[]} examples
 * @property {boolean} authenticated Whether everybody has to show a key or a token.
 * @property {string} default
 * @property {Route[]} routes
 */

const THEME_KEY = "session-gateway.theme";

/**
 * What the user has chosen before. A browser may be set to keep nothing.
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
 * Keep a choice, where there is room.
 * @param {string} key
 * @param {string} value
 */
export function choose(key, value) {
  try {
    localStorage.setItem(key, value);
  } catch {
    // It holds until the page is loaded again.
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
    choose(THEME_KEY, theme.value);
  });
}
