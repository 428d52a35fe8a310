/**
 * Sends sound in order, and takes what the model makes of it.
 *
 * Order and state count, so nothing is dropped: what there is no room for waits, and the end of one
 * message that fails is the end of all, since the model would hear the next ones without it.
 *
 * @module
 */

import { CHUNK, SAMPLE_RATE, toBytes } from "./pcm.js";

/** @typedef {import("../client.js").SessionClient} SessionClient */
/**
 * @typedef {object} Heard What the model says of one message.
 * @property {number} frame The number that it gives the first of the frames.
 * @property {number[]} probabilities
 * @property {string} instance
 */

/** How many messages are under way at once: a round trip of two seconds keeps up. */
const UNDER_WAY = 8;

export class Sender {
  /** Why there will be no more, in words; empty as long as there may be. */
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
   * @param {(heard: Heard, milliseconds: number) => void} heard Called in the order of the sound, with
   *   the round trip.
   */
  constructor(client, heard) {
    this.#client = client;
    this.#heard = heard;
  }

  /** How many seconds of sound wait to be sent. */
  get behind() {
    return (this.#waiting.length * CHUNK) / SAMPLE_RATE;
  }

  /** @param {Int16Array} samples */
  send(samples) {
    if (this.failure) return;
    this.#waiting.push(samples);
    this.#go();
  }

  /** Resolves when the next message would be sent at once, or never will be. */
  async room() {
    while (!this.failure && this.#underWay >= UNDER_WAY) await this.#change();
  }

  /** Resolves when all that was sent has been heard, or has failed. */
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
 * @throws {Error} It is another model's.
 */
export function checked(reply) {
  if (Number.isInteger(reply?.frame) && Array.isArray(reply.probabilities)) return reply;
  throw new Error(
    'This route\'s model is not a voice-activity model, or the route\'s configuration lacks body = "json".',
  );
}
