/**
 * The entries of a conversation: messages, answers and notices. Each is a row of the viewport,
 * which builds its element when it comes near and drops it when it is far away.
 *
 * @module
 */

import { button, copyButton, make, Pieces } from "../dom.js";
import { attachment } from "./attachments.js";
import { CodeBlock } from "./code.js";
import { Markdown } from "./markdown.js";
import {
  failureText,
  isWithheld,
  progress,
  replyDetails,
  replyShape,
  sentShape,
  stopText,
} from "./view.js";

/** @typedef {import("../client.js").Turn} Turn */
/** @typedef {import("./view.js").Shape} Shape */
/**
 * @typedef {(text: string, whole: boolean) => void} Write Updates the body to a text.
 * @typedef {(shape: Shape, element: HTMLElement) => Write} Begin
 */
/**
 * @typedef {object} Action
 * @property {string} label
 * @property {() => void} run
 */
/**
 * @typedef {object} Around What entries need from the page.
 * @property {(turn: Turn, who: string) => Action[]} actions The actions for one side of a turn:
 *   "you" or "model".
 * @property {(turn: Turn) => string | undefined} fileName Name of the file sent with a turn.
 * @property {(row: Entry) => void} touch Called when an entry changes by itself.
 */

/** How many characters of a message are shown before "Show all". */
const SENT = 4_000;

/** The same for an answer. */
const ANSWER = 100_000;

/** How many characters of each kind are added at once; more would take longer than a frame. */
const STEP = { words: 10_000, code: 50_000, bytes: 1_000, plain: 50_000 };

/** A notice or problem. */
export class Entry {
  /** @type {HTMLElement | null} */
  element = null;
  height = 0;

  /**
   * @param {string} who
   * @param {string} text
   */
  constructor(who, text) {
    this.who = who;
    this.text = text;
  }

  get length() {
    return this.text.length;
  }

  get hidden() {
    return false;
  }

  get busy() {
    return false;
  }

  build() {
    const body = directed("p", "body", this.text);
    if (this.who !== "problem") return make("div", `entry ${this.who}`, body);
    return make("article", "entry problem", make("h3", "who", "Problem"), body);
  }

  update() {
    return false;
  }

  drop() {}
}

/** The body of a message or answer; a long one is cut until the user asks for all of it. */
class Body {
  /** @type {Shape["kind"] | null} */
  #kind = null;
  /** @type {Write} */
  #write = () => {};
  /** @type {import("./attachments.js").Attachment | null} */
  #attachment = null;
  #shown = 0;
  #limit;
  #more;

  /**
   * @param {number} limit How many characters are shown at first.
   * @param {() => void} asked Called when the user asks for all.
   */
  constructor(limit, asked) {
    this.#limit = limit;
    this.element = directed("div", "body");
    this.#more = button("", () => {
      this.#limit = Infinity;
      asked();
    });
    this.#more.className = "more";
    this.#more.hidden = true;
    this.elements = [this.element, this.#more];
  }

  get playing() {
    return this.#attachment?.playing() ?? false;
  }

  drop() {
    this.#attachment?.drop();
  }

  /**
   * @param {Shape} shape
   * @param {boolean} whole Whether the text is complete.
   * @param {Begin} begin Called when the kind changes.
   * @param {keyof typeof STEP} [pace] The kind whose step to use.
   * @returns {boolean} Whether to call again for the rest.
   */
  update(shape, whole, begin, pace = shape.kind) {
    if (shape.kind !== this.#kind) {
      this.#kind = shape.kind;
      this.#shown = 0;
      this.element.replaceChildren();
      this.#write = begin(shape, this.element);
    }
    const { text } = shape;
    const limit = Math.min(text.length, this.#limit);
    this.#shown = Math.min(limit, this.#shown + STEP[pace]);
    this.#write(text.slice(0, this.#shown), whole && this.#shown === text.length);
    this.#more.hidden = text.length <= this.#limit;
    const label = `Show all ${text.length.toLocaleString("en")} characters`;
    if (!this.#more.hidden && this.#more.textContent !== label) this.#more.textContent = label;
    return this.#shown < limit;
  }

  /**
   * @param {string} base64
   * @param {string} type
   * @param {string} about
   * @param {string} [name]
   */
  attach(base64, type, about, name) {
    this.#attachment = attachment(base64, type, about, name);
    this.element.append(this.#attachment.element);
    return () => {};
  }
}

/** Base of messages and answers. */
class Said extends Entry {
  /** Its elements; null while it is not on the page. */
  parts = /** @type {ReturnType<Said["begin"]> | null} */ (null);
  #labels = "";
  #all = false;

  /**
   * @param {Turn} turn
   * @param {"you" | "model"} who
   * @param {Around} around
   */
  constructor(turn, who, around) {
    super(who, "");
    this.turn = turn;
    this.around = around;
  }

  /**
   * @param {string} name
   * @param {number} limit
   * @param {() => string} text The text to copy.
   */
  begin(name, limit, text) {
    const body = new Body(this.#all ? Infinity : limit, () => {
      this.#all = true;
      this.around.touch(this);
    });
    const details = make("span", "details");
    const copy = copyButton(text, () => body.element);
    const tools = make("div", "tools", copy);
    const foot = make("div", "foot", details, tools);
    const head = make("h3", "who", name);
    const element = make("article", `entry ${this.who}`, head, ...body.elements, foot);
    this.#labels = "";
    return { body, details, copy, tools, foot, element };
  }

  get busy() {
    return this.parts?.body.playing ?? false;
  }

  /** Update the action buttons. */
  offer() {
    const actions = this.around.actions(this.turn, this.who);
    const labels = actions.map(({ label }) => label).join("\n");
    if (!this.parts || labels === this.#labels) return;
    this.#labels = labels;
    const run = (/** @type {string} */ label) =>
      this.around
        .actions(this.turn, this.who)
        .find((action) => action.label === label)
        ?.run();
    const buttons = actions.map(({ label }) => button(label, () => run(label)));
    this.parts.tools.replaceChildren(this.parts.copy, ...buttons);
  }

  drop() {
    this.parts?.body.drop();
    this.parts = null;
  }
}

/** A message, as sent. */
export class Message extends Said {
  #sent;
  #shape;

  /**
   * @param {Turn} turn
   * @param {NonNullable<Turn["sent"]>} sent
   * @param {Around} around
   */
  constructor(turn, sent, around) {
    super(turn, "you", around);
    this.#sent = sent;
    this.#shape = sentShape(sent);
  }

  get length() {
    return Math.min(SENT, this.#shape.text.length);
  }

  build() {
    this.parts = this.begin("You", SENT, () => this.#shape.text);
    return this.parts.element;
  }

  update() {
    if (!this.parts) return false;
    const { body, copy, details, foot } = this.parts;
    copy.hidden = this.#shape.kind === "bytes"; // these are downloaded instead
    details.textContent = "Not sent";
    if (this.turn.held) foot.prepend(details);
    else details.remove();
    this.offer();
    const { base64 = "", content_type: type = "" } = this.#sent;
    /** @type {Begin} */
    const begin = ({ kind, text, language }, into) => {
      if (kind === "bytes") return body.attach(base64, type, text, this.around.fileName(this.turn));
      if (kind === "code") return code(into, language);
      const pieces = new Pieces(into);
      return (words) => pieces.update(words);
    };
    return body.update(this.#shape, true, begin, "plain");
  }
}

/** An answer, while it streams and afterwards. */
export class Answer extends Said {
  /** Set once it has ended. @type {Shape | null} */
  #shape = null;
  #over = false;

  /**
   * @param {Turn} turn
   * @param {Around} around
   */
  constructor(turn, around) {
    super(turn, "model", around);
  }

  get length() {
    return Math.min(ANSWER, this.turn.text.length);
  }

  get hidden() {
    return isWithheld(this.turn);
  }

  build() {
    this.#over = false;
    this.parts = this.begin("Model", ANSWER, () => this.#present().text);
    this.parts.body.element.append(make("span", "dots", "…"));
    return this.parts.element;
  }

  /** What there is of the answer so far. @returns {Shape} */
  #present() {
    const { ended, text } = this.turn;
    if (ended) this.#shape ??= replyShape(ended);
    return this.#shape ?? { kind: "words", text, language: "" };
  }

  update() {
    if (!this.parts) return false;
    const { body, copy, details, element, foot } = this.parts;
    const { turn } = this;
    const waits = !turn.ended && !turn.held;
    element.classList.toggle("pending", waits);
    if (waits) element.setAttribute("aria-busy", "true");
    else element.removeAttribute("aria-busy");
    details.textContent = turn.ended ? replyDetails(turn) : progress(turn, Date.now());
    this.offer();
    const shape = this.#present();
    copy.hidden = shape.kind === "bytes" || shape.text === "";
    if (turn.ended && !this.#over) {
      this.#over = true;
      foot.before(...remarks(turn));
      if (shape.text === "") body.element.remove();
    }
    if (shape.text === "") return false;
    return body.update(shape, turn.ended !== null, ({ kind, text, language }, into) => {
      const { base64 = "", content_type: type = "" } = turn.ended ?? {};
      if (kind === "bytes") return body.attach(base64, type, text);
      if (kind === "code") return code(into, language);
      const markdown = new Markdown(into);
      return (words, whole) => markdown.update(words, whole);
    });
  }
}

/**
 * Remarks on how an answer ended.
 * @param {Turn} turn
 */
function remarks({ incomplete, ended }) {
  const found = [];
  if (incomplete) found.push(make("p", "remark", "Part of this answer is missing."));
  if (ended?.error) found.push(make("p", "remark problem", failureText(ended.error)));
  else if (ended?.status === "cancelled") found.push(make("p", "remark", stopText(ended)));
  return found;
}

/**
 * @param {HTMLElement} element
 * @param {string} language
 */
function code(element, language) {
  const block = new CodeBlock();
  element.append(block.element);
  return (/** @type {string} */ text, /** @type {boolean} */ whole) =>
    block.update(text, language, whole);
}

/**
 * @template {keyof HTMLElementTagNameMap} T
 * @param {T} tag
 * @param {string} className
 * @param {...(Node | string)} children
 */
function directed(tag, className, ...children) {
  const node = make(tag, className, ...children);
  node.dir = "auto";
  return node;
}
