/**
 * Which conversation is shown, and which stay connected in the background until they are answered.
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
 * @typedef {object} Chat A conversation with a client.
 * @property {string} id
 * @property {Route} route
 * @property {SessionClient} client
 * @property {Names} names
 * @property {boolean} titled Whether it had messages when it was opened.
 * @property {boolean} writing Whether the user has typed anything since it was shown.
 * @property {any} unsaved Why it could not be saved; null if it could.
 * @property {string} draft The text of the message field when the user left it.
 * @property {boolean} warned Whether the user was told, before starting to write, that the next
 *   session won't know this conversation.
 */

const FRESH = { writing: false, unsaved: null, draft: "", warned: false };

/** Storage errors are ignored here: the client reports them when it writes to its journal. */
const unkept = () => undefined;

/**
 * Turns that are waiting for their reply.
 * @param {SessionClient} client
 */
export function running(client) {
  return client.pending.filter((turn) => !turn.held);
}

/**
 * Whether a model has seen any turn of a conversation, or may have.
 * @param {SessionClient} client
 */
export function isSeen(client) {
  return client.history.some((item) => item instanceof Turn && isKnown(item));
}

export class Chats {
  /** The conversation shown. @type {Chat | null} */
  shown = null;
  /** The user's token, if the gateway requires one. @type {string | undefined} */
  #token;
  /** Hidden chats with running turns or unsaved messages, by id. @type {Map<string, Chat>} */
  #background = new Map();
  #conversations;
  #gateway;
  #page;

  /**
   * @param {Conversations | null} conversations Null if the browser has no storage.
   * @param {import("./dress.js").About} gateway
   * @param {object} page
   * @param {() => string} page.route The name of the selected route.
   * @param {() => boolean} page.empty Whether there is neither text nor an attachment.
   * @param {() => string} page.draft The draft to save.
   * @param {() => void} page.keepDraft Called before another chat is shown.
   * @param {(chat: Chat, draft: string) => void} page.show
   * @param {(chat: Chat) => void} page.follow Called with each new chat.
   * @param {(chat: Chat) => void} page.read Called when a chat is restored without connecting.
   * @param {(id: string) => void} page.forget Called with the id of a removed chat.
   */
  constructor(conversations, gateway, page) {
    this.#conversations = conversations;
    this.#gateway = gateway;
    this.#page = page;
  }

  /**
   * A route of the gateway, or a placeholder for one that no longer exists.
   * @param {string} name
   * @returns {Route}
   */
  #routeOf(name) {
    const nothing = { text: false, json: false, binary: false, branches: null };
    const none = { ...nothing, history_turns: 0, history_bytes: 0, message_bytes: 0, gone: true };
    return this.#gateway.routes.find((route) => route.name === name) ?? { name, ...none };
  }

  /**
   * Show a saved conversation, or begin one if it does not exist.
   * @param {string} id
   */
  async open(id) {
    const kept = await this.#conversations?.get(id).catch(unkept);
    if (kept) await this.use(id, this.#routeOf(kept.route), kept);
    else await this.begin();
  }

  /** Begin a conversation on the selected route, unless an unused one is shown already. */
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
    // Sessions take up capacity at the model: open one only when there is something to send.
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

  /** Whether the conversation shown has no messages and no draft. */
  #unused() {
    const { titled, client } = this.shown ?? {};
    return this.#page.empty() && !titled && !client?.history.some((item) => item instanceof Turn);
  }

  /** Leave the chat shown. If turns are running or it is unsaved, it is kept in the background. */
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

  /** @param {Chat} chat A chat that is not shown, whose client has fired an event. */
  rest({ id, client, unsaved }) {
    if (unsaved || running(client).length > 0 || !this.#background.delete(id)) return;
    client.detach();
  }

  /**
   * @param {string} token
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

  /** Delete all conversations. */
  async clear() {
    for (const chat of [...this.#background.values(), this.shown]) this.#close(chat);
    await this.#conversations?.clear().catch(unkept);
    await this.begin();
  }

  /** @param {Chat | null | undefined} chat The chat to close. */
  #close(chat) {
    if (!chat) return;
    this.#background.delete(chat.id);
    if (chat === this.shown) this.shown = null;
    this.#page.forget(chat.id);
    chat.client.close();
  }

  /**
   * Begin a conversation with the history of the one shown up to a turn, and show it at once.
   * @param {Turn} turn
   * @param {string} name Title of the conversation shown.
   * @returns {Promise<boolean>} False if it could not be saved.
   */
  async branch(turn, name) {
    if (!this.shown || !this.#conversations) return false;
    const { route, client, names } = this.shown;
    // Compare by id: the history may have been read again after another window claimed it.
    const at = client.history.findIndex((item) => item instanceof Turn && item.id === turn.id);
    // Leave out unanswered turns: both conversations would send them.
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
