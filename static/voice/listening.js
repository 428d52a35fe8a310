/**
 * One recording, streamed to the model, and the model's results; without the DOM.
 *
 * @module
 */

import { SessionClient } from "../client.js";
import { Chunks, FRAME, peaks, SAMPLE_RATE, toBytes } from "./pcm.js";
import { checked, Sender } from "./sender.js";
import { Speech } from "./speech.js";

/** @typedef {import("../client.js").Options} Options */
/** @typedef {import("./sender.js").Heard} Heard */

/** How many samples are kept for `compare`: the model's largest message. */
const KEPT = 60 * SAMPLE_RATE;

/**
 * Events: `sound` when samples were added, `heard` when results arrived, `speech` when speech
 * begins or ends, and `session` with a text about what happened to the session.
 */
export class Listening extends EventTarget {
  /** Peak level of each frame, from 0 to 1. @type {number[]} */
  peaks = [];
  /** Probability of speech in each frame processed. @type {number[]} */
  probabilities = [];
  /** The round trip of each message, in milliseconds. @type {number[]} */
  trips = [];
  instance = "";
  /** Whether it has ended. */
  over = false;
  speech = new Speech();
  client;
  sender;
  #options;
  #chunks = new Chunks();
  #kept = new Int16Array(KEPT);
  #samples = 0;
  /** How many frames at the beginning the model has forgotten, by its own frame numbers. */
  #unknown = 0;

  /**
   * @param {string} url The route's WebSocket URL.
   * @param {Options} options
   */
  constructor(url, options) {
    super();
    this.#options = { ...options, binary: true };
    this.client = new SessionClient(url, this.#options);
    this.sender = new Sender(this.client, (heard, trip) => this.#heard(heard, trip));
    this.client.addEventListener("renewed", (event) => {
      const { reason, context } = /** @type {CustomEvent} */ (event).detail;
      this.#notify("session", renewedText(reason, context, this.trips.length));
    });
    this.client.addEventListener("resumed", () =>
      this.#notify("session", "The connection was lost; the session was resumed."),
    );
    this.client.connect();
  }

  /** Length in frames, including a partial one. */
  get frames() {
    return this.#samples / FRAME;
  }

  get seconds() {
    return this.#samples / SAMPLE_RATE;
  }

  /** @param {Int16Array} samples */
  take(samples) {
    const room = Math.max(0, KEPT - this.#samples);
    this.#kept.set(samples.subarray(0, room), KEPT - room);
    this.#samples += samples.length;
    for (const chunk of this.#chunks.push(samples)) this.#send(chunk);
  }

  /** End the recording; resolves when the model has processed all of it, or has failed. */
  async end() {
    const rest = this.#chunks.rest();
    if (rest.length > 0) this.#send(rest);
    await this.sender.settled();
    this.over = true;
    this.speech.end();
    if (this.client.state !== "closed") this.client.close();
    this.#notify("speech");
  }

  /** Stop at once; unsent samples are discarded. */
  leave() {
    this.over = true;
    this.sender.fail("left");
    this.client.close();
  }

  /**
   * Send the first minute again, as one message in a new session.
   * @returns {Promise<{ same: number, of: number }>} How many frames have exactly the same result.
   */
  async compare() {
    const client = new SessionClient(this.client.url, this.#options);
    client.connect();
    try {
      const sound = this.#kept.subarray(0, this.#samples);
      const { json } = await client.send({ bytes: toBytes(sound) });
      const { probabilities } = checked(json);
      const heard = this.probabilities.slice(0, probabilities.length);
      const same = heard.filter((probability, frame) => probability === probabilities[frame]);
      return { same: same.length, of: probabilities.length };
    } finally {
      client.close();
    }
  }

  /** All results, unrounded, as CSV. */
  numbers() {
    const rows = this.probabilities.map(
      (probability, frame) => `${frame},${(frame * FRAME) / SAMPLE_RATE},${probability}`,
    );
    return ["frame,seconds,probability", ...rows, ""].join("\n");
  }

  /** @param {Int16Array} chunk */
  #send(chunk) {
    this.peaks.push(...peaks(chunk));
    this.sender.send(chunk);
    this.#notify("sound");
  }

  /**
   * @param {Heard} heard
   * @param {number} trip
   */
  #heard({ frame, probabilities, instance }, trip) {
    const unknown = this.probabilities.length - frame;
    if (unknown !== this.#unknown) {
      this.#unknown = unknown;
      this.#notify("session", `The model has forgotten the first ${unknown} frames.`);
    }
    this.instance = instance;
    this.trips.push(trip);
    let changed = false;
    for (const probability of probabilities) {
      this.probabilities.push(probability);
      changed = this.speech.add(probability) || changed;
    }
    this.#notify("heard");
    if (changed) this.#notify("speech");
  }

  /**
   * @param {string} type
   * @param {string} [detail]
   */
  #notify(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }
}

/** @type {Record<string, string>} */
const REASONS = {
  lost: "The instance was lost",
  expired: "The session had expired",
  expiring: "The session was about to expire",
};
/** @type {Record<string, string>} */
const CONTEXTS = {
  replayed: "all the audio was replayed to a new session",
  partial: "only the newest audio was replayed to a new session, so the next results may differ slightly",
  lost: "a new session continues without the earlier audio",
};

/**
 * @param {string} reason
 * @param {string} context
 * @param {number} messages
 */
function renewedText(reason, context, messages) {
  const what = CONTEXTS[context] ?? "a new session continues";
  return `${REASONS[reason] ?? "The session was renewed"} after message ${messages}; ${what}.`;
}
