/**
 * The gateway's paths for operators.
 *
 * @module
 */

const LINE = "data: ";

/** A request was refused, or could not be answered. */
export class Problem extends Error {
  /**
   * @param {number} status 0 where there was no answer.
   * @param {string} detail
   */
  constructor(status, detail) {
    super(detail);
    this.status = status;
  }
}

/** Asks the gateway, as whoever has signed in. */
export class Api {
  /** @param {string} base The address of the paths. */
  constructor(base) {
    this.base = base;
    /** Kept here alone. @type {string | null} */
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
   * @param {Record<string, string>} [query] Empty values are left out.
   */
  async get(path, query = {}) {
    const given = new URLSearchParams(Object.entries(query).filter(([, value]) => value !== ""));
    const answer = await this.ask(given.size ? `${path}?${given}` : path);
    return answer.json();
  }

  /**
   * What goes on, as it comes, until the gateway ends it.
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
      reader.cancel().catch(() => {}); // it has ended, or is to
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
