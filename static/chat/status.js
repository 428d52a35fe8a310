/**
 * Shows the state of the connection and the session, and offers to reconnect or sign in.
 *
 * @module
 */

import { describeClose, TAKEN_OVER, UNAUTHENTICATED } from "../client.js";
import { element } from "../dom.js";
import { countdownText, stateText, untilExpiry } from "./view.js";

/** @typedef {import("../client.js").SessionClient} SessionClient */

export class Status {
  #page = {
    state: element("state", HTMLElement),
    dot: element("dot", HTMLElement),
    trouble: element("trouble", HTMLElement),
    why: element("why", HTMLElement),
    countdown: element("countdown", HTMLElement),
    again: element("again", HTMLButtonElement),
    elsewhere: element("elsewhere", HTMLElement),
    here: element("here", HTMLButtonElement),
    signin: element("signin", HTMLFormElement),
    token: element("token", HTMLInputElement),
    known: element("known", HTMLElement),
    send: element("send", HTMLButtonElement),
    about: element("about", HTMLButtonElement),
    details: element("details", HTMLDialogElement),
    done: element("done", HTMLButtonElement),
    session: element("session", HTMLElement),
    expiry: element("expiry", HTMLTimeElement),
    event: element("event", HTMLElement),
  };
  #user;
  /** @type {SessionClient | null} */
  #client = null;
  /** Whether the conversation is read-only. */
  #readOnly = false;
  /** @type {string | null | undefined} */
  #expiresAt;

  /**
   * @param {object} user
   * @param {() => void} user.connect
   * @param {(token: string) => void} user.signIn
   * @param {() => void} user.focus Called when the focused element was hidden.
   */
  constructor(user) {
    this.#user = user;
    const page = this.#page;
    page.again.addEventListener("click", user.connect);
    page.here.addEventListener("click", user.connect);
    page.about.addEventListener("click", () => {
      this.#tick();
      page.details.showModal();
    });
    page.done.addEventListener("click", () => page.details.close());
    page.signin.addEventListener("submit", (event) => {
      event.preventDefault();
      user.signIn(page.token.value.trim());
      page.token.value = "";
    });
    setInterval(() => this.#tick(), 1000);
  }

  /**
   * @param {SessionClient} client The client to show.
   * @param {boolean} readOnly Whether nothing can be sent in any state.
   */
  use(client, readOnly) {
    this.#client = client;
    this.#readOnly = readOnly;
    const opened = client.history.findLast((item) => "type" in item && item.type === "opened");
    const there = client.state === "open" && opened && "detail" in opened;
    this.session(there ? opened.detail : null);
    this.show();
  }

  /** Whether sending is pointless: read-only, taken over, or closed by an error. */
  get useless() {
    const { state = "closed", code = 0 } = this.#client ?? {};
    if (this.#readOnly) return true;
    return state === "closed" && (code === TAKEN_OVER || describeClose(code).error !== undefined);
  }

  /** Update everything from the connection's state. */
  show() {
    const { state = "closed", reason = "", code = 0, token } = this.#client ?? {};
    const page = this.#page;
    const closed = state === "closed";
    const focused = [page.again, page.here].find((node) => node === document.activeElement);
    const ready = closed && !this.useless;
    page.dot.dataset.state = ready ? "ready" : state;
    const text = ready ? "Ready" : this.#readOnly ? "Read only" : stateText(state, reason);
    if (page.state.textContent !== text) page.state.textContent = text; // setting it announces it
    page.elsewhere.hidden = !closed || code !== TAKEN_OVER;
    page.send.disabled = this.useless;
    // Keep it during "connecting", else the bar would flicker with each attempt.
    page.trouble.hidden = state === "open" || closed || reason === "";
    page.why.textContent = reason;
    this.#showSignIn(closed && code === UNAUTHENTICATED, token !== undefined, reason);
    this.#tick();
    if (focused?.closest("[hidden]")) this.#user.focus();
  }

  /** @param {{ session_id: string, expires_at: string | null } | null} opened */
  session(opened) {
    this.#page.session.textContent = opened ? `${opened.session_id.slice(0, 8)}…` : "none";
    this.#page.session.title = opened?.session_id ?? "";
    this.expires(opened?.expires_at);
  }

  /** @param {string | null | undefined} expiresAt Undefined if there is no session. */
  expires(expiresAt) {
    const { expiry } = this.#page;
    this.#expiresAt = expiresAt;
    expiry.dateTime = expiresAt ?? "";
    expiry.title = expiresAt ? new Date(expiresAt).toLocaleString() : "";
    this.#tick();
  }

  #tick() {
    const { expiry, countdown, again, event } = this.#page;
    const expires = this.#expiresAt;
    expiry.textContent = expires === undefined ? "–" : untilExpiry(expires, Date.now());
    event.textContent = String(this.#client?.lastEvent || "–");
    const retryAt = this.#client?.retryAt ?? 0;
    countdown.textContent = countdownText(retryAt, Date.now());
    again.disabled = retryAt === 0;
  }

  /**
   * @param {boolean} needed
   * @param {boolean} shown Whether the user has given a token before.
   * @param {string} reason
   */
  #showSignIn(needed, shown, reason) {
    const { signin, known, token } = this.#page;
    if (needed === !signin.hidden) return;
    signin.hidden = !needed;
    if (!needed) return;
    if (shown) known.textContent = `${reason} Sign in again.`;
    const { activeElement } = document;
    const writing = activeElement instanceof HTMLTextAreaElement && activeElement.value !== "";
    if (!writing) token.focus(); // or they would type the rest of it there
  }
}
