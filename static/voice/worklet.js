/**
 * Runs on the audio thread: passes on the microphone's sound, mixed to mono, in blocks.
 *
 * @module
 */

/** Samples per block: 43 ms at 48 kHz. */
const BLOCK = 2_048;

/** Exist only on the audio thread. @type {any} */
const { AudioWorkletProcessor, registerProcessor } = globalThis;

class Capture extends AudioWorkletProcessor {
  #block = new Float32Array(BLOCK);
  #filled = 0;
  #ends = false;

  constructor() {
    super();
    // On "end": send the rest, then null to mark the end.
    this.port.onmessage = () => {
      this.#ends = true;
      this.#handOver();
      this.port.postMessage(null);
    };
  }

  /**
   * @param {Float32Array[][]} inputs The microphone's channels; none until it has started.
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
