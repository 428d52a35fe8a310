/**
 * When somebody speaks, from how likely that is in each frame.
 *
 * @module
 */

import { FRAME, SAMPLE_RATE } from "./pcm.js";

/** From where on it is speech. */
export const THRESHOLD = 0.5;
/** Below which it is no longer, if it stays there: Silero's own values. */
const FALLS = 0.35;
/** For how many frames: 96 ms, as long as a stop before a consonant. */
const STAYS = 3;

/**
 * @typedef {object} Segment
 * @property {number} begin The number of its first frame.
 * @property {number} end That of the first one after it.
 * @property {boolean} open Whether it goes on.
 */

export class Speech {
  /** @type {Segment[]} */
  segments = [];
  #frames = 0;
  #quiet = 0;

  /**
   * Take the next frame.
   * @param {number} probability
   * @returns {boolean} Whether speech has begun or ended with it.
   */
  add(probability) {
    const newest = this.segments.at(-1);
    this.#frames += 1;
    if (newest?.open) {
      this.#quiet = probability < FALLS ? this.#quiet + 1 : 0;
      newest.end = this.#frames - this.#quiet;
      newest.open = this.#quiet < STAYS;
      return !newest.open;
    }
    if (probability < THRESHOLD) return false;
    this.#quiet = 0;
    this.segments.push({ begin: this.#frames - 1, end: this.#frames, open: true });
    return true;
  }

  /** There is no more: speech that goes on has ended. */
  end() {
    const newest = this.segments.at(-1);
    if (newest) newest.open = false;
  }
}

/**
 * When a frame begins, in words: "1:02.3".
 * @param {number} frame
 */
export function clock(frame) {
  const tenths = Math.round((frame * FRAME * 10) / SAMPLE_RATE);
  const seconds = (tenths % 600) / 10;
  return `${Math.floor(tenths / 600)}:${seconds.toFixed(1).padStart(4, "0")}`;
}
