/**
 * The voice-activity page: passes the user's actions to a {@link Listening}, and shows its results.
 *
 * @module
 */

import { routeUrl } from "../chat/view.js";
import { describeClose, UNAUTHENTICATED } from "../client.js";
import { element } from "../dom.js";
import { Listening } from "./listening.js";
import { CHUNK, SAMPLE_RATE } from "./pcm.js";
import { Plot } from "./plot.js";
import { listen, MAX_SECONDS, microphone, NoSound, read } from "./sources.js";
import { clock, THRESHOLD } from "./speech.js";

/** Limit of the microphone audio waiting to be sent, in seconds. */
const MAX_BEHIND = 30;
/** From how many seconds on the page shows that audio is waiting. */
const NOTABLY_BEHIND = 2;

const page = {
  state: element("state", HTMLElement),
  dot: element("dot", HTMLElement),
  microphone: element("microphone", HTMLButtonElement),
  sample: element("sample", HTMLButtonElement),
  file: element("file", HTMLInputElement),
  stop: element("stop", HTMLButtonElement),
  fast: element("fast", HTMLInputElement),
  problem: element("problem", HTMLElement),
  signin: element("signin", HTMLFormElement),
  token: element("token", HTMLInputElement),
  plot: element("plot", HTMLCanvasElement),
  meter: element("meter", HTMLMeterElement),
  probability: element("probability", HTMLElement),
  said: element("said", HTMLElement),
  none: element("none", HTMLElement),
  segments: element("segments", HTMLOListElement),
  session: element("session", HTMLElement),
  instance: element("instance", HTMLElement),
  command: element("command", HTMLElement),
  heard: element("heard", HTMLElement),
  taken: element("taken", HTMLElement),
  trip: element("trip", HTMLElement),
  events: element("events", HTMLOListElement),
  save: element("save", HTMLButtonElement),
  compare: element("compare", HTMLButtonElement),
  compared: element("compared", HTMLElement),
};

const plot = new Plot(page.plot);
/** The route's name: `?route=NAME`, else the demonstration's. */
const route = new URL(location.href).searchParams.get("route") ?? "voice";
/** @type {string | undefined} */
let token;
/** @type {Listening | null} */
let listening = null;
/** Stops the current sound early. @type {AbortController | null} */
let stopping = null;
let painting = false;

/** @param {string} text Empty for none. */
function problem(text) {
  page.problem.textContent = text;
  page.problem.hidden = text === "";
}

/** @param {string} text */
function happened(text) {
  const item = document.createElement("li");
  item.textContent = text;
  page.events.append(item);
  page.said.textContent = text;
}

// Display

function paint() {
  if (painting) return;
  painting = true;
  requestAnimationFrame(() => {
    painting = false;
    if (listening) show(listening);
    else plot.draw({ peaks: [], probabilities: [], trips: [], over: false });
  });
}

/** @param {Listening} shown */
function show(shown) {
  plot.draw(shown);
  const newest = shown.probabilities.at(-1);
  page.meter.value = newest ?? 0;
  page.probability.textContent =
    newest === undefined
      ? "–"
      : `${Math.round(newest * 100)} %: ${newest >= THRESHOLD ? "speech" : "no speech"}`;
  page.heard.textContent = clock(shown.probabilities.length);
  page.taken.textContent = clock(shown.frames);
  page.instance.textContent = shown.instance || "–";
  page.command.textContent = command(shown.instance);
  page.trip.textContent = tripText(shown.trips);
  page.save.disabled = shown.probabilities.length === 0;
  page.compare.disabled = !shown.over || shown.probabilities.length === 0;
}

/** @param {string} instance The instance that the command loses, in the demonstration. */
function command(instance) {
  return `curl -X POST ADDRESS/_local/${route}/instances/${instance || "i-1"}/lose`;
}

/** @param {number[]} trips In milliseconds. */
function tripText(trips) {
  if (trips.length === 0) return "–";
  const sorted = trips.toSorted((a, b) => a - b);
  const [newest, median, longest] = [trips.at(-1), sorted[trips.length >> 1], sorted.at(-1)];
  const words = [newest, median, longest].map((trip) => `${Math.round(trip ?? 0)} ms`);
  return `${words[0]}; of ${trips.length} the median ${words[1]}, the longest ${words[2]}`;
}

/** @param {Listening} shown */
function showSpeech({ speech: { segments }, probabilities }) {
  page.none.hidden = segments.length > 0;
  const texts = segments.map(({ begin, end, open }) =>
    open ? `from ${clock(begin)} on` : `${clock(begin)} to ${clock(end)}`,
  );
  // Only the newest segment can have changed.
  while (page.segments.children.length < texts.length) {
    page.segments.append(document.createElement("li"));
  }
  for (const [index, text] of texts.entries()) {
    const item = page.segments.children[index];
    if (item.textContent !== text) item.textContent = text;
  }
  const newest = texts.at(-1);
  if (newest) page.said.textContent = `Speech ${newest}.`;
  page.plot.ariaLabel =
    `${clock(probabilities.length)} of audio and the probability of speech in it: ` +
    (texts.length > 0 ? `speech ${texts.slice(-5).join(", ")}` : "no speech");
}

/** @param {Listening} shown */
function showState({ client }) {
  const words = { connecting: "Connecting …", open: "Connected", waiting: "", closed: "" };
  page.dot.dataset.state = client.state;
  page.state.textContent = words[client.state] || client.reason || "Not connected";
}

// Sources

/**
 * Process a sound in a new session, replacing the current one.
 * @param {(listening: Listening, stopped: AbortSignal) => Promise<void>} give Passes on the
 *   samples; resolves at their end or when stopped.
 */
async function hear(give) {
  stopping?.abort();
  listening?.leave();
  const mine = new Listening(routeUrl(location.href, route), { token });
  const stopper = new AbortController();
  listening = mine;
  stopping = stopper;
  begin();
  const follow = (/** @type {string} */ type, /** @type {(event: any) => void} */ tell) =>
    mine.addEventListener(type, (event) => listening === mine && tell(event));
  follow("sound", paint);
  follow("heard", paint);
  follow("speech", () => showSpeech(mine));
  follow("session", ({ detail }) => happened(detail));
  mine.client.addEventListener("state", () => listening === mine && showState(mine));
  mine.client.addEventListener("opened", (event) => {
    const { session_id } = /** @type {CustomEvent} */ (event).detail;
    if (listening !== mine) return;
    page.session.textContent = session_id;
    happened("A session was opened.");
  });
  try {
    await give(mine, stopper.signal);
    await mine.end();
  } catch (error) {
    mine.leave();
    throw error;
  } finally {
    if (listening === mine) over(mine);
  }
}

/**
 * Process a sound if it is available; otherwise show why not.
 * @param {() => Promise<(listening: Listening, stopped: AbortSignal) => Promise<void>>} find
 */
async function hearIfAny(find) {
  try {
    await hear(await find());
  } catch (error) {
    if (!(error instanceof NoSound)) throw error;
    problem(error.message);
  }
}

function begin() {
  problem("");
  page.signin.hidden = true;
  page.segments.replaceChildren();
  page.events.replaceChildren();
  page.none.hidden = false;
  page.compared.textContent = page.said.textContent = "";
  page.session.textContent = "none";
  page.stop.hidden = false;
  paint();
}

/** @param {Listening} ended */
function over(ended) {
  const { failure } = ended.sender;
  if (ended.client.code === UNAUTHENTICATED) {
    page.signin.hidden = false;
    problem(describeClose(UNAUTHENTICATED).words);
  } else if (failure && failure !== "left") {
    const at = clock(ended.probabilities.length);
    problem(`${failure} The model did not process the audio after ${at}, since it depends on the audio before it.`);
  }
  const focused = document.activeElement === page.stop;
  page.stop.hidden = true;
  if (focused) page.microphone.focus();
  if (ended.probabilities.length > 0) {
    page.said.textContent = `Processed ${clock(ended.probabilities.length)} of audio.`;
  }
  paint();
}

/**
 * @param {Int16Array} samples
 * @returns {(listening: Listening, stopped: AbortSignal) => Promise<void>}
 */
function fromSamples(samples) {
  return async (to, stopped) => {
    const began = performance.now();
    for (let at = 0; at < samples.length && !stopped.aborted && !to.sender.failure; at += CHUNK) {
      const due = began + (at / SAMPLE_RATE) * 1000;
      if (!page.fast.checked) await until(due, stopped);
      await to.sender.room();
      if (!stopped.aborted) to.take(samples.subarray(at, at + CHUNK));
    }
  };
}

/**
 * @param {number} due As `performance.now()`.
 * @param {AbortSignal} stopped
 */
function until(due, stopped) {
  const { promise, resolve } = Promise.withResolvers();
  const timer = setTimeout(resolve, due - performance.now());
  stopped.addEventListener("abort", resolve, { once: true });
  return promise.finally(() => {
    clearTimeout(timer);
    stopped.removeEventListener("abort", resolve);
  });
}

/**
 * @param {MediaStream} stream
 * @param {Listening} to
 * @param {AbortSignal} stopped
 */
async function fromMicrophone(stream, to, stopped) {
  const { promise: ends, resolve: end } = Promise.withResolvers();
  let why = "";
  /** @param {string} words */
  const finish = (words) => {
    why ||= words;
    end(undefined);
  };
  const off = await listen(
    stream,
    (samples) => {
      to.take(samples);
      const { behind, failure } = to.sender;
      if (failure) {
        finish("");
      } else if (to.seconds >= MAX_SECONDS) {
        finish(`The microphone is off: a recording can be at most ${MAX_SECONDS / 60} minutes long.`);
      } else if (behind >= MAX_BEHIND) {
        finish(
          `The connection is too slow: ${MAX_BEHIND} seconds of audio are waiting to be sent. The microphone ` +
            "is off; the audio recorded so far will still be sent, in order.",
        );
      } else if (behind >= NOTABLY_BEHIND) {
        problem(
          `${Math.round(behind)} seconds of audio are waiting to be sent: the connection is slow, or the ` +
            "audio is being replayed to another instance. Nothing is lost.",
        );
      } else if (!page.problem.hidden) {
        problem("");
      }
    },
    () => finish("The microphone was disconnected. The audio recorded so far will still be sent."),
  );
  stopped.addEventListener("abort", () => finish(""));
  if (stopped.aborted) finish("");
  await ends;
  await off();
  problem(why);
}

/** The sample that comes with the page. */
async function sample() {
  const response = await fetch(new URL("sample.wav", import.meta.url)).catch(() => null);
  if (!response?.ok) throw new NoSound("The gateway did not respond. Try again.");
  return read(await response.blob());
}

page.microphone.addEventListener("click", () =>
  hearIfAny(async () => {
    const stream = await microphone();
    return (to, stopped) => fromMicrophone(stream, to, stopped);
  }),
);
page.sample.addEventListener("click", () => hearIfAny(async () => fromSamples(await sample())));
page.file.addEventListener("change", async () => {
  const file = page.file.files?.[0];
  if (file) await hearIfAny(async () => fromSamples(await read(file)));
  page.file.value = ""; // or choosing the same file again would fire no event
});
page.stop.addEventListener("click", () => stopping?.abort());
page.signin.addEventListener("submit", (event) => {
  event.preventDefault();
  token = page.token.value.trim();
  page.token.value = "";
  page.signin.hidden = true;
  problem("");
  page.microphone.focus();
});
page.save.addEventListener("click", () => {
  if (!listening) return;
  const url = URL.createObjectURL(new Blob([listening.numbers()], { type: "text/csv" }));
  const link = Object.assign(document.createElement("a"), { href: url, download: "speech.csv" });
  link.click();
  URL.revokeObjectURL(url);
});
page.compare.addEventListener("click", async () => {
  const compared = listening;
  if (!compared) return;
  page.compared.textContent = "Sending the same audio in one message …";
  try {
    const { same, of } = await compared.compare();
    page.compared.textContent =
      same === of
        ? `All ${of} frames are identical to the last digit.`
        : `${same} of ${of} frames are identical to the last digit.`;
  } catch (error) {
    page.compared.textContent = `The comparison failed: ${error instanceof Error ? error.message : error}`;
  }
});
page.command.textContent = command("");
paint();
addEventListener("resize", paint);
addEventListener("pagehide", () => listening?.leave());
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", paint);
