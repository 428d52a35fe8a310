/**
 * The list of conversations, and the options of each.
 *
 * @module
 */

import { button, element, make } from "../dom.js";

/** @typedef {import("./conversations.js").Conversations} Conversations */
/** @typedef {import("./conversations.js").Summary} Summary */

/** Debounces the search field, in milliseconds. */
const TYPING = 200;

/** @param {Summary} summary */
export function titleText({ title, draft }) {
  return title || (draft && `Draft: ${draft.slice(0, 60)}`) || "New conversation";
}

/**
 * @param {number} time
 * @param {number} now
 */
function whenText(time, now) {
  const date = new Date(time);
  const today = new Date(now).toDateString() === date.toDateString();
  return today
    ? date.toLocaleTimeString([], { hour: "numeric", minute: "2-digit" })
    : date.toLocaleDateString();
}

export class Sidebar {
  #page = {
    side: element("side", HTMLElement),
    shade: element("shade", HTMLElement),
    menu: element("menu", HTMLButtonElement),
    search: element("search", HTMLInputElement),
    found: element("found", HTMLElement),
    list: element("conversations", HTMLUListElement),
    options: element("options", HTMLDialogElement),
    what: element("what", HTMLElement),
    rename: element("rename", HTMLFormElement),
    called: element("called", HTMLInputElement),
    markdown: element("markdown", HTMLButtonElement),
    json: element("json", HTMLButtonElement),
    remove: element("remove", HTMLButtonElement),
    cancel: element("cancel", HTMLButtonElement),
  };
  #narrow = matchMedia("(max-width: 48rem)");
  #conversations;
  #user;
  /** The id of the conversation shown. */
  #current = "";
  /** Whose options are open. @type {Summary | null} */
  #chosen = null;
  #searched = "";

  /**
   * @param {Conversations} conversations
   * @param {object} user
   * @param {(id: string) => void} user.open Called with the conversation clicked.
   * @param {(id: string) => void} user.remove Called to delete a conversation.
   * @param {(id: string) => boolean} user.attached Whether its draft has attachments.
   * @param {(all: Summary[]) => void} user.listed Called with all conversations when any has
   *   changed.
   */
  constructor(conversations, user) {
    this.#conversations = conversations;
    this.#user = user;
    const page = this.#page;
    conversations.onchange = () => this.show();
    page.menu.addEventListener("click", () => this.#fold(page.menu.getAttribute("aria-expanded") === "true"));
    page.shade.addEventListener("click", () => this.#fold(true));
    page.side.addEventListener("keydown", (event) => {
      if (event.key === "Escape" && this.#narrow.matches) this.#fold(true);
    });
    this.#narrow.addEventListener("change", () => this.#fold(true));
    this.#fold(true);
    /** @type {ReturnType<typeof setTimeout> | undefined} */
    let typing;
    page.search.addEventListener("input", () => {
      clearTimeout(typing);
      typing = setTimeout(() => this.show(), TYPING);
    });
    page.rename.addEventListener("submit", () => {
      const title = page.called.value.trim();
      if (title) this.#conversations.update(this.#of().id, { title });
    });
    page.markdown.addEventListener("click", () => this.#export("md"));
    page.json.addEventListener("click", () => this.#export("json"));
    page.remove.addEventListener("click", () => {
      page.options.close();
      this.#user.remove(this.#of().id);
    });
    page.cancel.addEventListener("click", () => page.options.close());
  }

  /** @param {string} id The conversation shown. */
  select(id) {
    this.#current = id;
    this.#fold(true);
    return this.show();
  }

  /** Update the list. */
  async show() {
    const { search, found, list } = this.#page;
    const sought = search.value.trim();
    this.#searched = sought;
    const [all, matching] = await Promise.all([
      this.#conversations.list(),
      sought ? this.#conversations.search(sought) : null,
    ]);
    if (sought !== this.#searched) return; // a newer search has started
    this.#user.listed(all);
    const used = all.filter(
      ({ id, title, draft }) =>
        title || draft || id === this.#current || this.#user.attached(id),
    );
    const shown = matching ? used.filter(({ id }) => matching.has(id)) : used;
    found.textContent = matching ? `${shown.length || "None"} found` : "";
    const focused = list.contains(document.activeElement)
      ? /** @type {HTMLElement} */ (document.activeElement).dataset
      : null;
    list.replaceChildren(...shown.map((summary) => this.#entry(summary)));
    if (focused) {
      const { id, act } = focused;
      const again = [...list.querySelectorAll("button")];
      again.find(({ dataset }) => dataset.id === id && dataset.act === act)?.focus();
    }
  }

  /** @param {Summary} summary */
  #entry(summary) {
    const title = titleText(summary);
    const when = `${summary.route} · ${whenText(summary.changed, Date.now())}`;
    const open = button("", () => this.#user.open(summary.id), "conversation");
    const name = make("span", "", title);
    name.dir = "auto";
    open.append(name, make("small", "", when));
    Object.assign(open.dataset, { id: summary.id, act: "open" });
    if (summary.id === this.#current) open.setAttribute("aria-current", "true");
    const more = button("⋯", () => this.#choose(summary), "more");
    Object.assign(more.dataset, { id: summary.id, act: "more" });
    more.setAttribute("aria-label", `Options for ${title}`);
    more.setAttribute("aria-haspopup", "dialog");
    return make("li", "", open, more);
  }

  /** @param {Summary} summary */
  #choose(summary) {
    this.#chosen = summary;
    this.#page.what.textContent = titleText(summary);
    this.#page.called.value = summary.title;
    this.#page.options.showModal();
  }

  #of() {
    if (!this.#chosen) throw new Error("no conversation was chosen");
    return this.#chosen;
  }

  /** @param {"md" | "json"} suffix */
  async #export(suffix) {
    const summary = this.#of();
    const title = titleText(summary);
    const items = await this.#conversations.items(summary.id);
    const { asJson, asMarkdown, save } = await import("./export.js");
    if (suffix === "md") save(`${title}.md`, "text/markdown", asMarkdown(title, items));
    else save(`${title}.json`, "application/json", asJson(title, summary.route, items));
  }

  /** @param {boolean} folded Ignored where the sidebar fits beside the conversation. */
  #fold(folded) {
    const { side, shade, menu } = this.#page;
    const hidden = folded && this.#narrow.matches;
    const inside = side.contains(document.activeElement);
    side.hidden = hidden;
    shade.hidden = folded || !this.#narrow.matches;
    menu.setAttribute("aria-expanded", String(!hidden));
    if (hidden && inside) menu.focus();
    else if (!folded && this.#narrow.matches) this.#page.search.focus();
  }
}
