/**
 * What the audio thread does: it hands over what the microphone gives, in blocks.
 *
 * @module
 */

/** How many samples: 43 ms of 48,000 a second. */
const BLOCK = 2_048;

/** What is there in an audio thread alone. @type {any} */
const { AudioWorkletProcessor, registerProcessor } = globalThis;

class Capture extends AudioWorkletProcessor {
  #block = new Float32Array(BLOCK);
  #filled = 0;
  #ends = false;

  constructor() {
    super();
    // Asked to end: hand over the rest, and say that it was the last.
    this.port.onmessage = () => {
      this.#ends = true;
      this.#handOver();
      this.port.postMessage(null);
    };
  }

  /**
   * @param {Float32Array[][]} inputs The microphone's channels, once it has any.
   */
  process([channels]) {
    if (this.#ends) return false;
    const length = channels[0]?.length ?? 0;
    for (let at = 0; at < length; at += 1) {
      this.#block[this.#filled] =
        channels.reduce((sum, channel) => sum + channel[at], 0) / channels.length;
      this.#filled += 1;
      if (this.#filled === BLOCK) this.#handOver();
    }
    return true;
  }

  #handOver() {
    const block = this.#block.slice(0, this.#filled);
    this.port.postMessage(block, [block.buffer]);
    this.#filled = 0;
  }
}

registerProcessor("capture", Capture);
