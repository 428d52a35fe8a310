/**
 * Sound as the model takes it: 16,000 samples a second of 16 bits, little-endian, one channel.
 *
 * @module
 */

export const SAMPLE_RATE = 16_000;
/** How many samples the model makes one probability of. */
export const FRAME = 512;
/**
 * How many samples a message has: whole frames, so that the model's frames stay where they are even
 * if its newest instance is told only the newest messages.
 */
export const CHUNK = 8 * FRAME;

/**
 * @param {Float32Array} levels From -1 to 1; what is beyond is cut off.
 */
export function toSamples(levels) {
  return Int16Array.from(levels, (level) =>
    Math.max(-0x8000, Math.min(0x7fff, Math.round(level * 0x8000))),
  );
}

/** @param {Int16Array} samples */
export function toBytes(samples) {
  const bytes = new Uint8Array(2 * samples.length);
  const view = new DataView(bytes.buffer);
  samples.forEach((sample, index) => view.setInt16(2 * index, sample, true));
  return bytes;
}

/**
 * How loud each frame is, from 0 to 1; of one that is not whole, as far as it goes.
 * @param {Int16Array} samples
 */
export function peaks(samples) {
  const found = [];
  for (let at = 0; at < samples.length; at += FRAME) {
    const frame = samples.subarray(at, at + FRAME);
    found.push(frame.reduce((peak, sample) => Math.max(peak, Math.abs(sample)), 0) / 0x8000);
  }
  return found;
}

/** Cuts sound into messages. */
export class Chunks {
  #chunk = new Int16Array(CHUNK);
  #filled = 0;

  /**
   * The messages that are whole with this.
   * @param {Int16Array} samples
   */
  *push(samples) {
    for (let at = 0; at < samples.length; ) {
      const more = samples.subarray(at, at + CHUNK - this.#filled);
      this.#chunk.set(more, this.#filled);
      this.#filled += more.length;
      at += more.length;
      if (this.#filled === CHUNK) yield this.rest();
    }
  }

  /** What is left over. */
  rest() {
    const rest = this.#chunk.slice(0, this.#filled);
    this.#filled = 0;
    return rest;
  }
}
