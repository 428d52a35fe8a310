/**
 * Where sound comes from: the microphone, or a file.
 *
 * @module
 */

import { SAMPLE_RATE, toSamples } from "./pcm.js";
import { Resampler } from "./resampler.js";

/** The largest file, in bytes. */
const MAX_FILE = 50_000_000;
/** The longest sound, in seconds; a file is decoded in one piece. */
export const MAX_SECONDS = 900;

/** There is no sound to be had; the message says why, and what can be done. */
export class NoSound extends Error {}

/** @type {Record<string, string>} */
const REFUSED = {
  NotAllowedError:
    "The browser may not use the microphone. Allow it for this page in the browser's settings, beside " +
    "the address, and press the button again; or use a file or the sample.",
  NotFoundError: "There is no microphone. Connect one, or use a file or the sample.",
  NotReadableError:
    "The microphone is there, but can't be used: another application may have it. Close that, or use a " +
    "file or the sample.",
};

/**
 * Ask for the microphone.
 * @throws {NoSound} It is not to be had.
 */
export async function microphone() {
  if (!globalThis.isSecureContext || !navigator.mediaDevices) {
    throw new NoSound(
      "Browsers give the microphone to pages over HTTPS and on this machine's own address " +
        "(http://127.0.0.1 or http://localhost) only. A file and the sample work here.",
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
 * @param {(samples: Int16Array) => void} take Called with the sound as it comes.
 * @param {() => void} gone Called when the microphone ends by itself.
 * @returns {Promise<() => Promise<void>>} What switches it off; it resolves when the last sound has come.
 * @throws {NoSound} It can't be listened to.
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
    throw new NoSound("What listens can't be loaded; press the button again, or use a file.");
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
 * All of a file's sound.
 * @param {Blob} file
 * @throws {NoSound} It is too large, or none that this browser can read.
 */
export async function read(file) {
  if (file.size > MAX_FILE) {
    throw new NoSound(`The file is larger than ${MAX_FILE / 1e6} MB. Use a shorter piece of it.`);
  }
  const encoded = await file.arrayBuffer();
  // Decoding resamples to the context's rate.
  const decoder = new OfflineAudioContext(1, 1, SAMPLE_RATE);
  const sound = await decoder.decodeAudioData(encoded).catch(() => {
    throw new NoSound(
      "This browser can't read the file as sound. Most read WAV, MP3, FLAC, AAC and Ogg.",
    );
  });
  if (sound.length === 0) throw new NoSound("There is no sound in the file.");
  if (sound.duration > MAX_SECONDS) {
    throw new NoSound(`The sound is longer than ${MAX_SECONDS / 60} minutes. Use a piece of it.`);
  }
  const mixer = new OfflineAudioContext(1, sound.length, SAMPLE_RATE);
  const source = new AudioBufferSourceNode(mixer, { buffer: sound });
  source.connect(mixer.destination);
  source.start();
  const mixed = await mixer.startRendering();
  return toSamples(mixed.getChannelData(0));
}
