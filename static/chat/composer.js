/**
 * What the user is about to send: the message field and what is attached.
 *
 * @module
 */

import { button, element, make } from "../dom.js";
import { size } from "./view.js";

/** @typedef {import("../client.js").Body} Body */
/**
 * @typedef {object} Limits
 * @property {boolean} text Whether the route takes text.
 * @property {boolean} json Whether it takes JSON.
 * @property {boolean} binary Whether it takes bytes.
 * @property {number} message_bytes The largest message.
 */
/** @typedef {{ name: string, bytes: number, body: Body }} Attachment */

/** Pasted text of so many characters is attached: a field with it would be slow. */
const LONG_PASTE = 50_000;
/** What a message has beside its body, in bytes. */
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
  /** @type {Attachment[]} */
  #attachments = [];

  /**
   * @param {object} user
   * @param {() => void} user.send
   * @param {() => void} user.changed Called when there is another draft.
   */
  constructor(user) {
    this.#user = user;
    const { form, text, attach, files, drop } = this.#page;
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      user.send();
    });
    text.addEventListener("keydown", (event) => {
      // Enter that ends the composition of a character is not Enter.
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

  /** @param {Limits} limits Of the route. */
  set limits(limits) {
    this.#limits = limits;
    this.#page.attach.hidden = !limits.binary;
    this.#page.text.placeholder =
      limits.text || !limits.json ? "Write a message" : "Write a message in JSON";
  }

  get text() {
    return this.#page.text.value;
  }

  set text(text) {
    this.#page.text.value = text;
    this.#grow();
  }

  get empty() {
    return this.text.trim() === "" && this.#attachments.length === 0;
  }

  focus() {
    this.#page.text.focus();
  }

  /**
   * What is to be sent, each a message; null where the text can't be one.
   * @returns {Body[] | null}
   */
  take() {
    const text = this.text.trim();
    const body = text ? this.#bodyOf(text) : null;
    if (text && !body) return null;
    const limit = this.#limits.message_bytes - ENVELOPE;
    const length = new TextEncoder().encode(JSON.stringify(text)).length;
    if (length > limit) {
      this.#refuse(`This text has ${size(length)}; a message may have ${size(limit)}.`);
      return null;
    }
    const bodies = this.#attachments.map(({ body }) => body);
    this.clear();
    return body ? [...bodies, body] : bodies;
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
      this.#refuse(`This route takes JSON, and this is none: ${message}.`);
      return null;
    }
  }

  clear() {
    this.text = "";
    this.#attachments = [];
    this.#refuse("");
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
    if (text.length < LONG_PASTE) return false;
    const length = new TextEncoder().encode(JSON.stringify(text)).length;
    const limit = this.#limits.message_bytes - ENVELOPE;
    this.#add({ name: "Pasted text", bytes: length, body: { text } }, limit);
    return true;
  }

  /** @param {Iterable<File>} files */
  async #addFiles(files) {
    // In JSON four characters stand for three bytes.
    const limit = Math.floor(((this.#limits.message_bytes - ENVELOPE) * 3) / 4);
    // A field's list of files is emptied as soon as this waits.
    for (const file of [...files]) {
      if (!this.#limits.binary) {
        this.#refuse(`This route takes no files, so ${file.name} can't be sent.`);
        return;
      }
      const content_type = file.type || "application/octet-stream";
      const fits = file.size <= limit;
      const bytes = fits ? await file.arrayBuffer().catch(() => null) : new ArrayBuffer(0);
      if (bytes === null) {
        this.#refuse(`${file.name} can't be read.`); // it is a folder, or is gone
        return;
      }
      this.#add({ name: file.name, bytes: file.size, body: { bytes, content_type } }, limit);
    }
  }

  /**
   * @param {Attachment} attachment
   * @param {number} limit
   */
  #add(attachment, limit) {
    const { name, bytes } = attachment;
    if (bytes > limit) {
      this.#refuse(`${name} has ${size(bytes)}; a message may have ${size(limit)}.`);
      return;
    }
    this.#attachments.push(attachment);
    this.#refuse("");
    this.#show();
  }

  /** @param {string} why */
  #refuse(why) {
    this.#page.refused.textContent = why;
    this.#page.refused.hidden = why === "";
  }

  #show() {
    const { attached } = this.#page;
    attached.hidden = this.#attachments.length === 0;
    attached.replaceChildren(
      ...this.#attachments.map((attachment) => {
        const remove = button("Remove", () => {
          this.#attachments = this.#attachments.filter((other) => other !== attachment);
          this.#show();
          this.focus();
        });
        remove.setAttribute("aria-label", `Remove ${attachment.name}`);
        const words = make("span", "", `${attachment.name}, ${size(attachment.bytes)}`);
        words.dir = "auto";
        return make("li", "", words, remove);
      }),
    );
  }
}
