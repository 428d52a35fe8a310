/**
 * Sound at another sample rate, block by block: what comes out does not depend on the blocks.
 *
 * A windowed sinc (J. O. Smith, "Digital Audio Resampling", https://ccrma.stanford.edu/~jos/resample/)
 * takes out what the new rate can't hold, which would come back as other tones. Browsers do this by
 * themselves for a file; for a microphone not all of them do.
 *
 * @module
 */

/** How many of a sinc's zeros are used on either side. */
const ZEROS = 24;
/** How much of the lower rate's band is kept; the rest is where the filter falls off. */
const KEPT = 0.9;

export class Resampler {
  #from;
  #to;
  /** How many samples on either side of one that comes out have a part in it. */
  #reach;
  /** By where between two samples one comes out: their weights. @type {Float32Array[]} */
  #weights = [];
  /** What is still needed of the sound. */
  #kept;
  /** The number of the first sample of it; before the sound there is silence. */
  #first;
  /** The number of the next sample that comes out. */
  #next = 0;

  /**
   * @param {number} from A whole number of samples a second.
   * @param {number} to
   */
  constructor(from, to) {
    const divisor = greatestCommonDivisor(from, to);
    this.#from = from / divisor;
    this.#to = to / divisor;
    const band = KEPT * Math.min(1, to / from);
    this.#reach = Math.ceil(ZEROS / band);
    for (let phase = 0; phase < this.#to; phase += 1) {
      this.#weights.push(weights(phase / this.#to, band, this.#reach));
    }
    this.#kept = new Float32Array(this.#reach);
    this.#first = -this.#reach;
  }

  /**
   * What comes out with these samples.
   * @param {Float32Array} samples
   */
  push(samples) {
    const kept = new Float32Array(this.#kept.length + samples.length);
    kept.set(this.#kept);
    kept.set(samples, this.#kept.length);
    const reach = this.#reach;
    const end = this.#first + kept.length;
    const made = [];
    for (;;) {
      const at = Math.floor((this.#next * this.#from) / this.#to);
      if (at + reach >= end) break;
      const phase = (this.#next * this.#from) % this.#to;
      const before = at - reach + 1 - this.#first;
      made.push(
        this.#weights[phase].reduce((sum, weight, tap) => sum + weight * kept[before + tap], 0),
      );
      this.#next += 1;
    }
    const needed = Math.floor((this.#next * this.#from) / this.#to) - reach + 1;
    const passed = Math.max(0, Math.min(needed - this.#first, kept.length));
    this.#kept = kept.slice(passed);
    this.#first += passed;
    return Float32Array.from(made);
  }

  /** What comes out when there is no more. */
  end() {
    return this.push(new Float32Array(this.#reach));
  }
}

/**
 * What each of the samples around has a part of in one that comes out.
 * @param {number} fraction How far it is behind the middle one, in samples.
 * @param {number} band The highest frequency that is kept, of half the rate that comes in.
 * @param {number} reach
 */
function weights(fraction, band, reach) {
  const taps = Float64Array.from({ length: 2 * reach }, (_, tap) => {
    const distance = tap - reach + 1 - fraction;
    const turn = (Math.PI * distance) / reach;
    const blackman = 0.42 + 0.5 * Math.cos(turn) + 0.08 * Math.cos(2 * turn);
    const angle = Math.PI * band * distance;
    return Math.abs(distance) < reach ? blackman * (angle === 0 ? 1 : Math.sin(angle) / angle) : 0;
  });
  const sum = taps.reduce((total, tap) => total + tap, 0);
  return Float32Array.from(taps, (tap) => tap / sum);
}

/**
 * @param {number} a
 * @param {number} b
 * @returns {number}
 */
function greatestCommonDivisor(a, b) {
  return b === 0 ? a : greatestCommonDivisor(b, a % b);
}
