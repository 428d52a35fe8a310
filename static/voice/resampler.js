/**
 * Converts sound to another sample rate, block by block; block sizes don't affect the output.
 *
 * A windowed sinc (J. O. Smith, "Digital Audio Resampling",
 * https://ccrma.stanford.edu/~jos/resample/) removes frequencies that the new rate can't hold,
 * which would alias. Browsers resample files themselves; not all of them resample microphones.
 *
 * @module
 */

/** Zero crossings of the sinc used on either side. */
const ZEROS = 24;
/** Share of the lower rate's band that is kept; the rest is the filter's transition band. */
const KEPT = 0.9;

export class Resampler {
  #from;
  #to;
  /** How many input samples on either side contribute to an output sample. */
  #reach;
  /** Filter weights by phase: an output's position between inputs. @type {Float32Array[]} */
  #weights = [];
  /** Input samples that are still needed. */
  #kept;
  /** Index of the first of them; negative for the silence before the sound. */
  #first;
  /** Index of the next output sample. */
  #next = 0;

  /**
   * @param {number} from Input rate in samples a second, an integer.
   * @param {number} to Output rate, likewise.
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
   * Add input samples; returns the output samples that are now complete.
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

  /** The remaining output after the end of the input. */
  end() {
    return this.push(new Float32Array(this.#reach));
  }
}

/**
 * The filter weights of the input samples around an output sample.
 * @param {number} fraction Its distance after the middle input sample, in input samples.
 * @param {number} band The cutoff, as a share of half the input rate.
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
