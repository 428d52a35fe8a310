/**
 * Finds segments of speech from the probability in each frame.
 *
 * @module
 */

import { FRAME, SAMPLE_RATE } from "./pcm.js";

/** Speech begins at this probability. */
export const THRESHOLD = 0.5;
/** Speech ends when the probability stays below this. Both are Silero's defaults. */
const FALLS = 0.35;
/** For this many frames: 96 ms, as long as the closure of a stop consonant. */
const STAYS = 3;

/**
 * @typedef {object} Segment
 * @property {number} begin Index of its first frame.
 * @property {number} end Index of the first frame after it.
 * @property {boolean} open Whether speech continues.
 */

export class Speech {
  /** @type {Segment[]} */
  segments = [];
  #frames = 0;
  #quiet = 0;

  /**
   * Add the next frame.
   * @param {number} probability
   * @returns {boolean} Whether speech began or ended with it.
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

  /** End of the sound: ends an open segment. */
  end() {
    const newest = this.segments.at(-1);
    if (newest) newest.open = false;
  }
}

/**
 * The time at which a frame begins, as "1:02.3".
 * @param {number} frame
 */
export function clock(frame) {
  const tenths = Math.round((frame * FRAME * 10) / SAMPLE_RATE);
  const seconds = (tenths % 600) / 10;
  return `${Math.floor(tenths / 600)}:${seconds.toFixed(1).padStart(4, "0")}`;
}
