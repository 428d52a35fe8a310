/**
 * Draws the sound, the probability of speech, and the round trip of each message.
 *
 * @module
 */

import { CHUNK, FRAME } from "./pcm.js";
import { THRESHOLD } from "./speech.js";

/** How many frames are shown while recording: ten seconds. */
const SPAN = 312;
/** Top of the round-trip scale, in milliseconds: the duration of one message's sound. */
const SLOW = 256;

/**
 * @typedef {object} Shown
 * @property {number[]} peaks Peak level of each frame, from 0 to 1.
 * @property {number[]} probabilities Of speech, in each frame processed.
 * @property {number[]} trips Round trip of each message, in milliseconds.
 * @property {boolean} over Whether it has ended; then all of it is shown.
 */

export class Plot {
  #canvas;
  #steps = matchMedia("(prefers-reduced-motion: reduce)");

  /** @param {HTMLCanvasElement} canvas */
  constructor(canvas) {
    this.#canvas = canvas;
  }

  /** @param {Shown} shown */
  draw({ peaks, probabilities, trips, over }) {
    const context = this.#canvas.getContext("2d");
    if (!context) return;
    const { clientWidth: width, clientHeight: height } = this.#canvas;
    const scale = globalThis.devicePixelRatio;
    this.#canvas.width = Math.round(width * scale);
    this.#canvas.height = Math.round(height * scale);
    context.scale(scale, scale);
    const style = getComputedStyle(this.#canvas);
    const colour = (/** @type {string} */ name) => style.getPropertyValue(`--${name}`);
    const span = over ? Math.max(SPAN, peaks.length) : SPAN;
    const first = over ? 0 : this.#first(peaks.length);
    const x = (/** @type {number} */ frame) => ((frame - first) * width) / span;
    const thin = Math.max(1, width / span);
    const sound = { top: 0, room: height * 0.4 };
    const speech = { top: height * 0.45, room: height * 0.35 };
    const trip = { top: height * 0.85, room: height * 0.15 };

    context.fillStyle = colour("line");
    context.fillRect(0, sound.top + sound.room / 2 - 0.5, width, 1);
    context.fillStyle = colour("muted");
    for (let frame = first; frame < peaks.length; frame += 1) {
      const half = Math.max(0.5, (peaks[frame] * sound.room) / 2);
      context.fillRect(x(frame), sound.top + sound.room / 2 - half, thin, 2 * half);
    }

    context.fillStyle = colour("mine");
    for (let frame = first; frame < probabilities.length; frame += 1) {
      const full = probabilities[frame] >= THRESHOLD;
      if (full) context.fillRect(x(frame), speech.top, thin + 0.5, speech.room);
    }
    context.strokeStyle = colour("line");
    context.beginPath();
    for (const share of [0, THRESHOLD, 1]) {
      const y = Math.round(speech.top + (1 - share) * speech.room) + 0.5;
      context.moveTo(0, y);
      context.lineTo(width, y);
    }
    context.stroke();
    context.fillStyle = colour("muted");
    context.font = `12px ${style.fontFamily}`;
    context.textAlign = "right";
    for (const share of [THRESHOLD, 1]) {
      context.fillText(`${share * 100} %`, width, speech.top + (1 - share) * speech.room + 14);
    }
    context.strokeStyle = colour("accent");
    context.lineWidth = 2;
    context.lineJoin = "round";
    context.beginPath();
    for (let frame = first; frame < probabilities.length; frame += 1) {
      const y = speech.top + (1 - probabilities[frame]) * speech.room;
      if (frame === first) context.moveTo(x(frame + 0.5), y);
      else context.lineTo(x(frame + 0.5), y);
    }
    context.stroke();

    context.fillStyle = colour("wait");
    const frames = CHUNK / FRAME;
    for (let chunk = Math.floor(first / frames); chunk < trips.length; chunk += 1) {
      const high = Math.max(1, Math.min(1, trips[chunk] / SLOW) * trip.room);
      const left = x(chunk * frames);
      context.fillRect(left, trip.top + trip.room - high, x((chunk + 1) * frames) - left - 1, high);
    }
  }

  /**
   * The first frame shown; with reduced motion it moves in large steps.
   * @param {number} frames How many there are.
   */
  #first(frames) {
    const step = this.#steps.matches ? SPAN / 2 : 1;
    return Math.max(0, Math.ceil((frames - SPAN) / step) * step);
  }
}
