/**
 * The model's input format: PCM, 16,000 samples a second of 16 bits, little-endian, mono.
 *
 * @module
 */

export const SAMPLE_RATE = 16_000;
/** Samples per frame; the model returns one probability for each frame. */
export const FRAME = 512;
/**
 * Samples per message: whole frames, so that frame boundaries stay the same even if only the newest
 * messages are replayed to a new instance.
 */
export const CHUNK = 8 * FRAME;

/**
 * @param {Float32Array} levels From -1 to 1; clipped beyond that.
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
 * The peak level of each frame, from 0 to 1. The last frame may be partial.
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

/** Splits sound into messages. */
export class Chunks {
  #chunk = new Int16Array(CHUNK);
  #filled = 0;

  /**
   * Add samples; yields the messages that are now complete.
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

  /** Take the incomplete message. */
  rest() {
    const rest = this.#chunk.slice(0, this.#filled);
    this.#filled = 0;
    return rest;
  }
}
