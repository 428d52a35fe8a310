/**
 * The message field and its attachments.
 *
 * @module
 */

import { button, element, make } from "../dom.js";
import { bytesIn, size } from "./view.js";

/** @typedef {import("../client.js").Body} Body */
/**
 * @typedef {object} Limits
 * @property {boolean} text Whether the route takes text.
 * @property {boolean} json Whether it takes JSON.
 * @property {boolean} binary Whether it takes bytes.
 * @property {number} message_bytes Size limit of a message, in bytes.
 */
/** @typedef {{ body: Body, name?: string }} Outgoing A message, named if it is a file. */
/**
 * @typedef {object} Attachment
 * @property {string} name
 * @property {number} bytes
 * @property {Body | null} body Null while it is being read.
 */
/**
 * @typedef {object} Draft What a conversation's draft has besides its text.
 * @property {Attachment[]} attachments
 * @property {string} refused Why something could not be attached or sent; may be empty.
 */

/** Pasted text of this length, in characters, becomes an attachment: the field would be slow. */
const LONG_PASTE = 50_000;
const PASTED = "Pasted text";
/** Allowance for a message's fields besides its body, in bytes. */
const ENVELOPE = 1_024;

export class Composer {
  #page = {
    form: element("form", HTMLFormElement),
    text: element("text", HTMLTextAreaElement),
    attach: element("attach", HTMLButtonElement),
    files: element("files", HTMLInputElement),
    attached: element("attached", HTMLUListElement),
    refused: element("refused", HTMLElement),
    drop: element("column", HTMLElement),
  };
  #user;
  /** @type {Limits} */
  #limits = { text: true, json: false, binary: false, message_bytes: Infinity };
  /** By conversation id. @type {Map<string, Draft>} */
  #drafts = new Map();
  /** Of the conversation shown. @type {Draft} */
  #draft = { attachments: [], refused: "" };

  /**
   * @param {object} user
   * @param {() => void} user.send
   * @param {() => void} user.changed Called when text or attachments have changed.
   */
  constructor(user) {
    this.#user = user;
    const { form, text, attach, files, drop } = this.#page;
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      user.send();
    });
    text.addEventListener("keydown", (event) => {
      // Enter that confirms an input method's composition does not send.
      if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
        event.preventDefault();
        user.send();
      }
    });
    text.addEventListener("input", () => {
      this.#refuse("");
      this.#grow();
      user.changed();
    });
    text.addEventListener("paste", (event) => {
      const pasted = event.clipboardData;
      if (pasted && this.#paste(pasted)) event.preventDefault();
    });
    attach.addEventListener("click", () => files.click());
    files.addEventListener("change", () => {
      this.#addFiles(files.files ?? []);
      files.value = "";
    });
    drop.addEventListener("dragover", (event) => {
      if (event.dataTransfer?.types.includes("Files")) event.preventDefault();
    });
    drop.addEventListener("drop", (event) => {
      if (!event.dataTransfer?.files.length) return;
      event.preventDefault();
      this.#addFiles(event.dataTransfer.files);
    });
  }

  /**
   * Switch to a conversation's draft.
   * @param {string} id
   * @param {string} text The draft's text.
   * @param {Limits} limits The limits of its route.
   */
  show(id, text, limits) {
    this.#limits = limits;
    this.#draft = this.#drafts.get(id) ?? { attachments: [], refused: "" };
    this.#drafts.set(id, this.#draft);
    this.#page.attach.hidden = !limits.binary;
    this.#page.text.placeholder = this.#takesJson ? "Write a message in JSON" : "Write a message";
    this.text = text;
    this.#show();
  }

  /** @param {string} id Of a removed conversation. */
  forget(id) {
    this.#drafts.delete(id);
  }

  /**
   * Whether a conversation's draft has attachments.
   * @param {string} id
   */
  attached(id) {
    return (this.#drafts.get(id)?.attachments ?? []).length > 0;
  }

  /** Whether the message field takes JSON. */
  get #takesJson() {
    return !this.#limits.text && this.#limits.json;
  }

  get text() {
    return this.#page.text.value;
  }

  set text(text) {
    this.#page.text.value = text;
    this.#grow();
  }

  get empty() {
    return this.text.trim() === "" && this.#draft.attachments.length === 0;
  }

  focus() {
    this.#page.text.focus();
  }

  /**
   * Take the messages to send and clear the draft; if it can't be sent, show why and return null.
   * @returns {Outgoing[] | null}
   */
  take() {
    const { attachments } = this.#draft;
    const unread = attachments.find((attachment) => attachment.body === null);
    if (unread) {
      this.#refuse(`${unread.name} is still being read.`);
      return null;
    }
    const text = this.text.trim();
    const body = text ? this.#bodyOf(text) : null;
    if (text && !body) return null;
    const limit = this.#limits.message_bytes - ENVELOPE;
    const length = bytesOf({ text });
    if (length > limit) {
      this.#refuse(`This text is ${size(length)}; the limit is ${size(limit)}.`);
      return null;
    }
    /** @type {Outgoing[]} */
    const messages = attachments.flatMap(({ name, body }) => (body ? [{ body, name }] : []));
    this.clear();
    return body ? [...messages, { body }] : messages;
  }

  /**
   * A sent message's text for editing; null if it can't be edited.
   * @param {Body} body
   * @returns {string | null}
   */
  wording({ text, json }) {
    if (text !== undefined) return this.#limits.text ? text : null;
    return json !== undefined && this.#takesJson ? JSON.stringify(json, null, 2) : null;
  }

  /**
   * Return messages to the draft: text into the field if possible, the rest as attachments.
   * @param {Outgoing[]} messages
   */
  putBack(messages) {
    const texts = [];
    for (const { body, name } of messages) {
      const text = this.wording(body);
      // Texts can be joined; two JSON values are not valid JSON.
      const fits = !this.#takesJson || (texts.length === 0 && this.text === "");
      if (text !== null && text.length < LONG_PASTE && fits) texts.push(text);
      else this.#draft.attachments.push({ name: name ?? nameOf(body), bytes: bytesOf(body), body });
    }
    this.text = [...texts, this.text].filter(Boolean).join("\n");
    this.#show();
    this.#user.changed();
  }

  /**
   * @param {string} text
   * @returns {Body | null}
   */
  #bodyOf(text) {
    if (this.#limits.text) return { text };
    if (!this.#limits.json) {
      this.#refuse("This route takes files, not text.");
      return null;
    }
    try {
      return { json: JSON.parse(text) };
    } catch (error) {
      const { message } = /** @type {Error} */ (error);
      this.#refuse(`This route takes JSON, and this is not valid: ${message}.`);
      return null;
    }
  }

  clear() {
    this.text = "";
    this.#draft.attachments = [];
    this.#draft.refused = "";
    this.#show();
  }

  #grow() {
    const { text } = this.#page;
    if (CSS.supports("field-sizing", "content")) return;
    text.style.height = "auto";
    text.style.height = `${text.scrollHeight + 2}px`;
  }

  /** @param {DataTransfer} pasted */
  #paste(pasted) {
    if (pasted.files.length > 0) {
      this.#addFiles(pasted.files);
      return true;
    }
    const text = pasted.getData("text/plain");
    if (text.length < LONG_PASTE || !this.#limits.text) return false;
    const limit = this.#limits.message_bytes - ENVELOPE;
    this.#add({ name: PASTED, bytes: bytesOf({ text }), body: { text } }, limit);
    return true;
  }

  /** @param {Iterable<File>} files */
  #addFiles(files) {
    // Base64 encodes three bytes in four characters.
    const limit = Math.floor(((this.#limits.message_bytes - ENVELOPE) * 3) / 4);
    for (const file of files) {
      const { name, size: bytes } = file;
      if (!this.#limits.binary) {
        this.#refuse(`This route takes no files, so ${name} can't be sent.`);
        return;
      }
      /** @type {Attachment} */
      const attachment = { name, bytes, body: null };
      if (this.#add(attachment, limit)) this.#read(file, attachment);
    }
  }

  /**
   * @param {File} file
   * @param {Attachment} attachment
   */
  async #read(file, attachment) {
    const draft = this.#draft; // the user may switch conversations meanwhile
    const bytes = await file.arrayBuffer().catch(() => null);
    if (bytes) {
      attachment.body = { bytes, content_type: file.type || "application/octet-stream" };
    } else {
      draft.attachments = draft.attachments.filter((other) => other !== attachment);
      draft.refused = `${file.name} can't be read.`; // it is a folder, or was removed
    }
    this.#show();
  }

  /**
   * @param {Attachment} attachment
   * @param {number} limit
   * @returns {boolean} False if it is too large.
   */
  #add(attachment, limit) {
    const { name, bytes } = attachment;
    if (bytes > limit) {
      this.#refuse(`${name} is ${size(bytes)}; the limit is ${size(limit)}.`);
      return false;
    }
    this.#draft.attachments.push(attachment);
    this.#draft.refused = "";
    this.#show();
    this.#user.changed();
    return true;
  }

  /** @param {string} why */
  #refuse(why) {
    const { refused } = this.#page;
    this.#draft.refused = why;
    if (refused.textContent !== why) refused.textContent = why; // setting it announces it
    refused.hidden = why === "";
  }

  #show() {
    const { attached } = this.#page;
    const draft = this.#draft;
    this.#refuse(draft.refused);
    attached.hidden = draft.attachments.length === 0;
    attached.replaceChildren(
      ...draft.attachments.map((attachment) => {
        const { name, bytes, body } = attachment;
        const remove = button("Remove", () => {
          draft.attachments = draft.attachments.filter((other) => other !== attachment);
          this.#show();
          this.focus();
        });
        remove.setAttribute("aria-label", `Remove ${name}`);
        const words = make("span", "", `${name}, ${size(bytes)}${body ? "" : ", being read …"}`);
        words.dir = "auto";
        return make("li", "", words, remove);
      }),
    );
  }
}

/** @param {Body} body */
function bytesOf({ text, json, base64 }) {
  if (base64 !== undefined) return bytesIn(base64);
  return new TextEncoder().encode(JSON.stringify(text ?? json)).length;
}

/** @param {Body} body */
function nameOf({ text, base64, content_type }) {
  if (text !== undefined) return PASTED;
  return base64 === undefined ? "JSON" : (content_type ?? "File");
}
