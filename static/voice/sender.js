/**
 * Sends sound in order, and receives the model's results.
 *
 * The model is stateful, so nothing is dropped: messages over the limit wait, and when one fails,
 * so does all that follows, since the model would process it without the failed one.
 *
 * @module
 */

import { CHUNK, SAMPLE_RATE, toBytes } from "./pcm.js";

/** @typedef {import("../client.js").SessionClient} SessionClient */
/**
 * @typedef {object} Heard The model's reply to one message.
 * @property {number} frame The model's number for the first frame.
 * @property {number[]} probabilities
 * @property {string} instance
 */

/** How many messages are in flight at once: enough for round trips of two seconds. */
const UNDER_WAY = 8;

export class Sender {
  /** Why sending has stopped, in words; empty while it goes on. */
  failure = "";
  #client;
  #heard;
  /** @type {Int16Array[]} */
  #waiting = [];
  #underWay = 0;
  /** @type {(() => void)[]} */
  #watchers = [];

  /**
   * @param {SessionClient} client
   * @param {(heard: Heard, milliseconds: number) => void} heard Called with each reply, in order,
   *   and its round trip.
   */
  constructor(client, heard) {
    this.#client = client;
    this.#heard = heard;
  }

  /** Sound waiting to be sent, in seconds. */
  get behind() {
    return (this.#waiting.length * CHUNK) / SAMPLE_RATE;
  }

  /** @param {Int16Array} samples */
  send(samples) {
    if (this.failure) return;
    this.#waiting.push(samples);
    this.#go();
  }

  /** Resolves when the next message would be sent at once, or sending has stopped. */
  async room() {
    while (!this.failure && this.#underWay >= UNDER_WAY) await this.#change();
  }

  /** Resolves when every message has been answered, or sending has stopped. */
  async settled() {
    while (!this.failure && this.#waiting.length + this.#underWay > 0) await this.#change();
  }

  /** @param {string} words */
  fail(words) {
    if (!this.failure) this.failure = words;
    this.#waiting = [];
    this.#changed();
  }

  #change() {
    return new Promise((resolve) => this.#watchers.push(() => resolve(undefined)));
  }

  #changed() {
    for (const tell of this.#watchers.splice(0)) tell();
  }

  #go() {
    while (this.#underWay < UNDER_WAY) {
      const samples = this.#waiting.shift();
      if (!samples) break;
      this.#underWay += 1;
      this.#deliver(samples);
    }
  }

  /** @param {Int16Array} samples */
  async #deliver(samples) {
    const began = performance.now();
    try {
      const { json } = await this.#client.send({ bytes: toBytes(samples) });
      if (!this.failure) this.#heard(checked(json), performance.now() - began);
    } catch (error) {
      this.fail(error instanceof Error ? error.message : String(error));
    }
    this.#underWay -= 1;
    this.#go();
    this.#changed();
  }
}

/**
 * @param {any} reply
 * @returns {Heard}
 * @throws {Error} It is not a voice-activity model's.
 */
export function checked(reply) {
  if (Number.isInteger(reply?.frame) && Array.isArray(reply.probabilities)) return reply;
  throw new Error(
    'This route\'s model is not a voice-activity model, or the route\'s configuration lacks body = "json".',
  );
}
