/**
 * Code blocks: language, copy button, and syntax highlighting once they are complete.
 *
 * @module
 */

import { copyButton, make, Pieces } from "../dom.js";

/** The languages that can be highlighted, each with its aliases. */
export const LANGUAGES = {
  bash: "sh zsh shell console",
  c: "h",
  cpp: "c++ cc hpp cxx",
  csharp: "c# cs",
  css: "",
  diff: "patch",
  dockerfile: "docker",
  go: "golang",
  graphql: "gql",
  haskell: "hs",
  ini: "toml conf",
  java: "",
  javascript: "js jsx mjs cjs",
  json: "jsonc json5 jsonl",
  julia: "jl",
  kotlin: "kt",
  lua: "",
  makefile: "make mk",
  markdown: "md",
  nginx: "",
  perl: "pl",
  php: "",
  powershell: "ps1 pwsh",
  protobuf: "proto",
  python: "py python3",
  r: "",
  ruby: "rb",
  rust: "rs",
  scala: "",
  sql: "postgresql mysql sqlite",
  swift: "",
  typescript: "ts tsx mts",
  xml: "html xhtml svg vue",
  yaml: "yml",
};

/** @type {Map<string, string>} */
const NAMES = new Map(
  Object.entries(LANGUAGES).flatMap(([name, others]) =>
    [name, ...others.split(" ")].map((each) => [each, name]),
  ),
);

/** Longer code, in characters, is not highlighted: that would take longer than a frame. */
const MAX_COLOURED = 20_000;

/**
 * An emitter for highlight.js that builds elements instead of HTML; highlight.js defines the method
 * names.
 */
class Elements {
  root = document.createDocumentFragment();
  /** @type {(DocumentFragment | HTMLElement)[]} */
  #open = [this.root];

  /** @param {string} text */
  addText(text) {
    this.#open.at(-1)?.append(text);
  }

  /** @param {string} scope */
  startScope(scope) {
    const span = make("span", `hl-${scope.split(/[.:]/, 1)[0]}`);
    this.#open.at(-1)?.append(span);
    this.#open.push(span);
  }

  endScope() {
    if (this.#open.length > 1) this.#open.pop();
  }

  /** @param {string} scope */
  openNode(scope) {
    this.startScope(scope);
  }

  closeNode() {
    this.endScope();
  }

  /** @param {Elements} emitter */
  __addSublanguage(emitter) {
    this.#open.at(-1)?.append(emitter.root);
  }

  finalize() {}

  toHTML() {
    return "";
  }
}

/** @type {Promise<any> | undefined} */
let highlighter;

/**
 * @param {string} text
 * @param {string} name A key of LANGUAGES.
 * @returns {Promise<DocumentFragment>}
 */
async function coloured(text, name) {
  highlighter ??= import("../vendor/highlight/core.min.js").then(({ default: library }) => {
    library.configure({ __emitter: Elements });
    return library;
  });
  const [library, { default: grammar }] = await Promise.all([
    highlighter,
    import(`../vendor/highlight/languages/${name}.min.js`),
  ]);
  if (!library.getLanguage(name)) library.registerLanguage(name, grammar);
  return library.highlight(text, { language: name, ignoreIllegals: true })._emitter.root;
}

/** A code block, which may still grow. */
export class CodeBlock {
  #text = "";
  #label = make("span", "language");
  #code = make("code");
  #pre = make("pre", "", this.#code);
  #pieces = new Pieces(this.#code);

  constructor() {
    this.#pre.tabIndex = 0; // for scrolling by keyboard
    this.#pre.setAttribute("role", "group");
    const copy = copyButton(
      () => this.#text,
      () => this.#code,
    );
    this.element = make("figure", "code", make("figcaption", "", this.#label, copy), this.#pre);
    this.element.dir = "ltr";
  }

  /**
   * @param {string} text
   * @param {string} language As the author named it; may be empty.
   * @param {boolean} whole
   */
  update(text, language, whole) {
    if (!text.startsWith(this.#text)) {
      this.#code.replaceChildren();
      this.#pieces = new Pieces(this.#code);
    }
    this.#text = text;
    this.#pieces.update(text);
    this.#label.textContent = language || "code";
    this.#pre.setAttribute("aria-label", language ? `Code, ${language}` : "Code");
    const name = NAMES.get(language.toLowerCase());
    if (whole && name && text.length <= MAX_COLOURED) void this.#colour(name);
  }

  /** @param {string} name */
  async #colour(name) {
    const text = this.#text;
    const nodes = await coloured(text, name).catch(() => null); // leave it plain
    const same = this.#text === text && nodes?.textContent === text;
    // Replacing the nodes would clear the user's selection.
    if (!same || getSelection()?.containsNode(this.#code, true)) return;
    this.#code.replaceChildren(nodes);
  }
}
