/**
 * Which conversation is shown, and which go on in the background until their answers are there.
 *
 * @module
 */

import { SessionClient, Turn } from "../client.js";
import { newId } from "./conversations.js";
import { isKnown, routeUrl } from "./view.js";

/** @typedef {import("./conversations.js").Conversations} Conversations */
/** @typedef {import("./conversations.js").Names} Names */
/** @typedef {import("./conversations.js").Summary} Summary */
/** @typedef {import("./dress.js").Route} Route */
/**
 * @typedef {object} Chat A conversation that has a client.
 * @property {string} id
 * @property {Route} route
 * @property {SessionClient} client
 * @property {Names} names
 * @property {boolean} titled Whether anything was said in it before it was shown.
 * @property {boolean} writing Whether anything was written since it was shown.
 * @property {any} unsaved Why it can't be kept, as far as is known; else null.
 * @property {string} draft What was written in it when it was left.
 * @property {boolean} warned Whether the user knows, since before the message was begun, that the
 *   next session knows nothing of this.
 */

const FRESH = { writing: false, unsaved: null, draft: "", warned: false };

/** The client says it too, when it keeps what was said. */
const unkept = () => undefined;

/**
 * The turns whose answer is to come.
 * @param {SessionClient} client
 */
export function running(client) {
  return client.pending.filter((turn) => !turn.held);
}

/**
 * Whether a model has seen anything of a conversation, or may have.
 * @param {SessionClient} client
 */
export function isSeen(client) {
  return client.history.some((item) => item instanceof Turn && isKnown(item));
}

export class Chats {
  /** The one that is shown. @type {Chat | null} */
  shown = null;
  /** Who the user is, where the gateway asks. @type {string | undefined} */
  #token;
  /** Those that are not shown, and whose answer is under way. @type {Map<string, Chat>} */
  #background = new Map();
  #conversations;
  #gateway;
  #page;

  /**
   * @param {Conversations | null} conversations Null where the browser keeps nothing.
   * @param {import("./dress.js").About} gateway
   * @param {object} page
   * @param {() => string} page.route The name of the one that is chosen.
   * @param {() => boolean} page.empty Whether nothing is in the message field.
   * @param {() => string} page.draft What is in the message field.
   * @param {() => void} page.keepDraft Called before another is shown.
   * @param {(chat: Chat, draft: string) => void} page.show
   * @param {(chat: Chat) => void} page.follow Called with each that gets a client.
   * @param {(chat: Chat) => void} page.read Called when what was kept of it is there, and it has no
   *   connection.
   * @param {(id: string) => void} page.forget Called with one that is there no more.
   */
  constructor(conversations, gateway, page) {
    this.#conversations = conversations;
    this.#gateway = gateway;
    this.#page = page;
  }

  /**
   * A route of the gateway's, or what is left of one that it has no longer.
   * @param {string} name
   * @returns {Route}
   */
  #routeOf(name) {
    const nothing = { text: false, json: false, binary: false, branches: null };
    const none = { ...nothing, history_turns: 0, history_bytes: 0, message_bytes: 0, gone: true };
    return this.#gateway.routes.find((route) => route.name === name) ?? { name, ...none };
  }

  /**
   * Show a conversation that is kept.
   * @param {string} id
   */
  async open(id) {
    const kept = await this.#conversations?.get(id).catch(unkept);
    if (kept) await this.use(id, this.#routeOf(kept.route), kept);
    else await this.begin();
  }

  /** Begin a new conversation on the route that is chosen, unless the one that is shown is one. */
  async begin() {
    const id = newId();
    const route = this.#routeOf(this.#page.route());
    if (this.shown && this.#unused() && this.shown.route === route) return;
    await this.use(id, route, await this.#conversations?.create(id, route.name).catch(unkept));
  }

  /**
   * @param {string} id
   * @param {Route} route
   * @param {Summary} [summary]
   */
  async use(id, route, summary) {
    if (this.shown?.id === id) return;
    this.#leave();
    const running = this.#background.get(id);
    this.#background.delete(id);
    const chat = running ?? this.#chat(id, route, summary);
    this.shown = chat;
    history.replaceState(null, "", `#${id}`);
    if (!running) this.#page.follow(chat);
    this.#page.show(chat, (running?.unsaved ? running.draft : summary?.draft) ?? "");
    if (running) return;
    const { client } = chat;
    await client.restore();
    if (chat !== this.shown || client.state !== "closed") return;
    // A session is a place at the model: it is opened when there is something to say.
    const goesOn = client.resumable || (client.pending.length > 0 && !chat.unsaved);
    const unknown = this.#gateway.authenticated && this.#token === undefined;
    if (route.gone) return;
    if (goesOn || unknown) client.connect();
    else this.#page.read(chat);
  }

  /**
   * @param {string} id
   * @param {Route} route
   * @param {Summary} [summary]
   * @returns {Chat}
   */
  #chat(id, route, summary) {
    /** @type {Names} */
    const names = new Map();
    const client = new SessionClient(routeUrl(location.href, route.name), {
      storage: this.#conversations?.journal(id, route.name, names),
      hold: true,
      sendHistory: route.branches ? { turns: route.history_turns, bytes: route.history_bytes } : undefined,
      token: this.#token,
    });
    const titled = Boolean(summary?.title);
    return { id, route, client, names, titled, ...FRESH };
  }

  /** Whether nothing was said or written in the conversation that is shown. */
  #unused() {
    const { titled, client } = this.shown ?? {};
    return this.#page.empty() && !titled && !client?.history.some((item) => item instanceof Turn);
  }

  /** Leave what is shown; an answer that is under way goes on, and what is only here stays here. */
  #leave() {
    if (!this.shown) return;
    const { id, client, unsaved } = this.shown;
    this.#page.keepDraft();
    if (this.#unused()) {
      this.shown = null;
      client.close();
      this.#page.forget(id);
      this.#conversations?.discard(id).catch(unkept);
      return;
    }
    this.shown.draft = this.#page.draft();
    if (unsaved || (client.state !== "closed" && running(client).length > 0)) {
      this.#background.set(id, this.shown);
    } else {
      client.detach();
    }
    this.shown = null;
  }

  /** @param {Chat} chat That is not shown, and whose client has told something. */
  rest({ id, client, unsaved }) {
    if (unsaved || running(client).length > 0 || !this.#background.delete(id)) return;
    client.detach();
  }

  /**
   * @param {string} token Who the user is.
   */
  signIn(token) {
    this.#token = token;
    for (const { client } of this.#background.values()) client.token = token;
    if (!this.shown) return;
    this.shown.client.token = token;
    this.shown.client.connect();
  }

  /** @param {string} id */
  async remove(id) {
    const here = this.shown?.id === id;
    const chat = here ? this.shown : this.#background.get(id);
    this.#close(chat);
    this.#page.forget(id);
    await this.#conversations?.remove(id).catch(unkept);
    if (here) await this.begin();
  }

  /** Delete all of them. */
  async clear() {
    for (const chat of [...this.#background.values(), this.shown]) this.#close(chat);
    await this.#conversations?.clear().catch(unkept);
    await this.begin();
  }

  /** @param {Chat | null | undefined} chat That is deleted. */
  #close(chat) {
    if (!chat) return;
    this.#background.delete(chat.id);
    if (chat === this.shown) this.shown = null;
    this.#page.forget(chat.id);
    chat.client.close();
  }

  /**
   * Begin a conversation that knows what was said in the one that is shown before a turn, and show
   * it at once.
   * @param {Turn} turn
   * @param {string} name Of the one that is shown.
   * @returns {Promise<boolean>} Whether there was room for it.
   */
  async branch(turn, name) {
    if (!this.shown || !this.#conversations) return false;
    const { route, client, names } = this.shown;
    // It may have been read anew since then, after another window had it.
    const at = client.history.findIndex((item) => item instanceof Turn && item.id === turn.id);
    // What is not answered yet is only the first conversation's: it would be sent in both.
    const before = client.history
      .slice(0, at)
      .filter((item) => !(item instanceof Turn) || item.ended);
    const items = before.some((item) => item instanceof Turn) ? before : [];
    const title = items.length > 0 ? `${name} (branch)` : "";
    const id = newId();
    const from = { title, url: client.url, items, names };
    const summary = await this.#conversations.create(id, route.name, from).catch(unkept);
    if (summary) this.use(id, route, summary);
    return summary !== undefined;
  }
}
