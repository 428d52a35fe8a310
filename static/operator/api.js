/**
 * The gateway's API for operators.
 *
 * @module
 */

const LINE = "data: ";

/** A request was refused, or got no response. */
export class Problem extends Error {
  /**
   * @param {number} status 0 if there was no response.
   * @param {string} detail
   */
  constructor(status, detail) {
    super(detail);
    this.status = status;
  }
}

/** Sends requests with the key or token of the operator who has signed in. */
export class Api {
  /** @param {string} base The API's address. */
  constructor(base) {
    this.base = base;
    /** In memory only. @type {string | null} */
    this.token = null;
  }

  /**
   * @param {string} path
   * @param {{ method?: string, signal?: AbortSignal }} [options]
   */
  async ask(path, options = {}) {
    /** @type {Record<string, string>} */
    const headers = this.token === null ? {} : { Authorization: `Bearer ${this.token}` };
    let answer;
    try {
      answer = await fetch(this.base + path, { ...options, headers, cache: "no-store" });
    } catch (error) {
      if (options.signal?.aborted) throw error;
      throw new Problem(0, "The gateway did not respond.");
    }
    if (!answer.ok) throw new Problem(answer.status, await detailOf(answer));
    return answer;
  }

  /**
   * @param {string} path
   * @param {Record<string, string>} [query] Empty values are omitted.
   */
  async get(path, query = {}) {
    const given = new URLSearchParams(Object.entries(query).filter(([, value]) => value !== ""));
    const answer = await this.ask(given.size ? `${path}?${given}` : path);
    return answer.json();
  }

  /**
   * The overviews of the gateway, until it ends the stream.
   * @param {AbortSignal} signal
   * @returns {AsyncGenerator<any>}
   */
  async *watch(signal) {
    const answer = await this.ask("events", { signal });
    const reader = answer.body?.pipeThrough(new TextDecoderStream()).getReader();
    if (reader === undefined) return;
    let rest = "";
    try {
      for (;;) {
        const { done, value } = await reader.read();
        if (done) return;
        const parts = (rest + value).split("\n\n");
        rest = parts.pop() ?? "";
        for (const part of parts) {
          if (part.startsWith(LINE)) yield JSON.parse(part.slice(LINE.length));
        }
      }
    } finally {
      reader.cancel().catch(() => {}); // it has ended already, or is being aborted
    }
  }
}

/**
 * @param {Response} answer
 * @returns {Promise<string>}
 */
async function detailOf(answer) {
  try {
    return (await answer.json()).detail;
  } catch {
    return `The gateway responded with status ${answer.status}.`;
  }
}
