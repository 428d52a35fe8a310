/**
 * Sources of sound: the microphone, or a file.
 *
 * @module
 */

import { SAMPLE_RATE, toSamples } from "./pcm.js";
import { Resampler } from "./resampler.js";

/** The largest file, in bytes. */
const MAX_FILE = 50_000_000;
/** The longest sound, in seconds; a file is decoded in one piece. */
export const MAX_SECONDS = 900;

/** No sound is available; the message says why, and what the user can do. */
export class NoSound extends Error {}

/** @type {Record<string, string>} */
const REFUSED = {
  NotAllowedError:
    "The browser blocked the microphone. Allow it for this page in the browser's site settings, next to " +
    "the address, and press the button again; or use a file or the sample.",
  NotFoundError: "No microphone was found. Connect one, or use a file or the sample.",
  NotReadableError:
    "The microphone can't be used: another application may be using it. Close that application, or use " +
    "a file or the sample.",
};

/**
 * Ask for permission to use the microphone.
 * @throws {NoSound} It is not available.
 */
export async function microphone() {
  if (!globalThis.isSecureContext || !navigator.mediaDevices) {
    throw new NoSound(
      "Browsers allow the microphone only for pages over HTTPS, or at http://127.0.0.1 or " +
        "http://localhost. Use a file or the sample.",
    );
  }
  try {
    return await navigator.mediaDevices.getUserMedia({ audio: { channelCount: 1 } });
  } catch (error) {
    const { name, message } = /** @type {DOMException} */ (error);
    throw new NoSound(REFUSED[name] ?? `The microphone can't be used: ${message}`);
  }
}

/**
 * Listen to a microphone.
 * @param {MediaStream} stream
 * @param {(samples: Int16Array) => void} take Called with each block.
 * @param {() => void} gone Called when the microphone ends by itself.
 * @returns {Promise<() => Promise<void>>} Switches it off; resolves after the last `take`.
 * @throws {NoSound} The recorder can't be loaded.
 */
export async function listen(stream, take, gone) {
  const context = new AudioContext();
  const close = async () => {
    for (const track of stream.getTracks()) track.stop();
    await context.close();
  };
  try {
    await context.audioWorklet.addModule(new URL("worklet.js", import.meta.url));
  } catch {
    await close();
    throw new NoSound("The recorder could not be loaded. Press the button again, or use a file.");
  }
  const resampler = new Resampler(context.sampleRate, SAMPLE_RATE);
  const capture = new AudioWorkletNode(context, "capture", { numberOfOutputs: 0 });
  const ended = new Promise((resolve) => {
    capture.port.onmessage = ({ data }) => {
      if (data === null) resolve(undefined);
      else take(toSamples(resampler.push(data)));
    };
  });
  context.createMediaStreamSource(stream).connect(capture);
  await context.resume();
  for (const track of stream.getTracks()) track.addEventListener("ended", gone);
  return async () => {
    capture.port.postMessage("end");
    await ended;
    take(toSamples(resampler.end()));
    await close();
  };
}

/**
 * Decode a file.
 * @param {Blob} file
 * @throws {NoSound} It is too large or too long, or this browser can't decode it.
 */
export async function read(file) {
  if (file.size > MAX_FILE) {
    throw new NoSound(`The file is larger than ${MAX_FILE / 1e6} MB. Use a shorter one.`);
  }
  const encoded = await file.arrayBuffer();
  // Decoding resamples to the context's rate.
  const decoder = new OfflineAudioContext(1, 1, SAMPLE_RATE);
  const sound = await decoder.decodeAudioData(encoded).catch(() => {
    throw new NoSound(
      "This browser can't decode the file. Most browsers play WAV, MP3, FLAC, AAC and Ogg.",
    );
  });
  if (sound.length === 0) throw new NoSound("The file contains no audio.");
  if (sound.duration > MAX_SECONDS) {
    throw new NoSound(`The audio is longer than ${MAX_SECONDS / 60} minutes. Use a shorter file.`);
  }
  const mixer = new OfflineAudioContext(1, sound.length, SAMPLE_RATE);
  const source = new AudioBufferSourceNode(mixer, { buffer: sound });
  source.connect(mixer.destination);
  source.start();
  const mixed = await mixer.startRendering();
  return toSamples(mixed.getChannelData(0));
}
