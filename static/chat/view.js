/**
 * Texts and times for the page, made from the gateway's messages, without the DOM.
 *
 * @module
 */

/** @typedef {import("../client.js").Done} Done */
/** @typedef {import("../client.js").Failure} Failure */
/** @typedef {import("../client.js").Note} Note */
/** @typedef {import("../client.js").State} State */
/** @typedef {import("../client.js").Turn} Turn */

/**
 * @typedef {object} Shape How a body is shown.
 * @property {"words" | "code" | "bytes"} kind
 * @property {string} text For bytes: their number and type.
 * @property {string} language For code.
 */

/**
 * A reply's text: extracted from the JSON of common models; other JSON as it is.
 * @param {Done} done
 * @returns {string}
 */
export function replyText(done) {
  return replyShape(done).text;
}

/**
 * How a reply is shown.
 * @param {Done} done
 * @returns {Shape}
 */
export function replyShape(done) {
  const type = done.content_type ?? "";
  if (done.base64 !== undefined) return ofBytes(done.base64, type);
  if (done.json !== undefined) return ofJson(done.json);
  const text = done.text ?? "";
  if (/^(application\/json|[^;]*\+json)/.test(type)) {
    try {
      return ofJson(JSON.parse(text));
    } catch {
      // It is not the JSON that its content type promises.
    }
  }
  const [, language] = /^(?:text|application)\/(html|csv|xml|yaml|css)\b/.exec(type) ?? [];
  if (language && done.deltas === 0) return { kind: "code", text, language };
  return { kind: "words", text, language: "" };
}

/**
 * How a message is shown.
 * @param {import("../client.js").Body} sent
 * @returns {Shape}
 */
export function sentShape({ text, json, base64, content_type }) {
  if (base64 !== undefined) return ofBytes(base64, content_type ?? "");
  if (text !== undefined) return { kind: "words", text, language: "" };
  return { kind: "code", text: JSON.stringify(json, null, 2), language: "json" };
}

/**
 * @param {string} base64
 * @param {string} type
 * @returns {Shape}
 */
function ofBytes(base64, type) {
  const text = `${size(bytesIn(base64))} of ${type || "an unknown type"}`;
  return { kind: "bytes", text, language: "" };
}

/** @param {string} base64 */
export function bytesIn(base64) {
  const padding = base64.endsWith("==") ? 2 : Number(base64.endsWith("="));
  return (base64.length / 4) * 3 - padding;
}

/**
 * @param {unknown} value
 * @returns {Shape}
 */
function ofJson(value) {
  const words = spoken(value);
  if (words !== undefined) return { kind: "words", text: words, language: "" };
  return { kind: "code", text: JSON.stringify(value, null, 2), language: "json" };
}

/**
 * Format a number of bytes.
 * @param {number} bytes
 */
export function size(bytes) {
  if (bytes < 10_000) return `${bytes} bytes`;
  return bytes < 1e6 ? `${Math.round(bytes / 1e3)} kB` : `${(bytes / 1e6).toFixed(1)} MB`;
}

/**
 * The text in the JSON of common models; undefined for any other.
 * @param {any} value
 * @returns {string | undefined}
 */
function spoken(value) {
  const first = Array.isArray(value) ? value[0] : value;
  const said =
    first?.text ??
    first?.generated_text ??
    first?.choices?.[0]?.message?.content ??
    first?.choices?.[0]?.text;
  return typeof said === "string" ? said : undefined;
}

/**
 * What stopping a message did.
 * @param {Done} done
 * @returns {string}
 */
export function stopText(done) {
  switch (done.outcome) {
    case "not_invoked":
      return "Stopped. The model has not seen this message.";
    case "invoked":
      return "Stopped. The model has seen this message.";
    default:
      return "Stopped. The model may have seen this message, and may remember it.";
  }
}

/**
 * Why a message failed, and what can be done.
 * @param {Failure} failure
 * @returns {string}
 */
export function failureText(failure) {
  return failure.retryable ? `${failure.message} You can send it again.` : failure.message;
}

/** @type {Record<string, string>} */
const CLOSED = {
  client: "You closed the session.",
  expired: "The session has expired.",
  lost: "The model has lost the session.",
  idle: "The session was unused for too long and has been closed.",
  model: "The model has closed the session.",
  operator: "The gateway is shutting down.",
};

/** @type {Record<string, string>} */
const RENEWED = {
  expiring: "The model’s session was about to expire",
  expired: "The model’s session had expired",
  lost: "The model had lost its session",
};

/** @type {Record<string, string>} */
const CONTEXT = {
  lost: ": the model has forgotten what was said.",
  replayed: ", and the conversation was replayed to it.",
  partial: ", and was told the newest of the conversation again; the rest was no longer kept.",
};

/** @param {{ all: boolean, context: string }} sent */
function sentText({ all, context }) {
  return context === "replayed"
    ? `This is a new session. ${all ? "All" : "The newest"} of your messages were sent to it again, so its answers may differ.`
    : `This is a new session. It was given ${all ? "all" : "the newest part"} of this conversation.`;
}

/**
 * The text of a note; empty if the user needn't know.
 * @param {Note} note
 * @param {string | null} before Route of the previous session; null for the first.
 * @returns {string}
 */
export function noteText({ type, detail }, before) {
  switch (type) {
    case "opened":
      if (detail.sentHistory) return sentText(detail.sentHistory);
      if (before === null) return "";
      return before === detail.route
        ? "This is a new session: the model has forgotten what was said."
        : `This is a new session on the route ${detail.route}, which knows nothing of this conversation.`;
    case "renewed": {
      const why = RENEWED[detail.reason] ?? "The model’s session was renewed";
      const context = CONTEXT[detail.context] ?? ". The model may have forgotten what was said.";
      return `${why}. A new one has taken its place${context}`;
    }
    case "gap": {
      const [first, last] = detail.lost;
      const which = first === last ? `event ${first}` : `events ${first} to ${last}`;
      return `Something is missing here: the gateway no longer had ${which} of this session.`;
    }
    default:
      return CLOSED[detail.reason] ?? "The session has ended.";
  }
}

/** Shorter answers, in milliseconds, say little about a model's speed. */
const MEASURABLE = 500;

/** Estimated bytes of UTF-8 per token: about right for English, not far off elsewhere. */
const TOKEN_BYTES = 4;

/**
 * Timing and other details of a reply; empty if nothing was measured.
 * @param {Turn} turn An ended turn.
 * @returns {string}
 */
export function replyDetails({ ended, startedAt, firstAt, text }) {
  // Turns ended by the client itself have no duration.
  if (!ended?.duration_ms) return "";
  const total = ended.duration_ms;
  const first = startedAt !== null && firstAt !== null ? firstAt - startedAt : total;
  const streamed = ended.deltas > 0 && first < total;
  const dropped = ended.dropped_turns ?? 0;
  return [
    streamed && `first words after ${seconds(first)}`,
    seconds(total),
    streamed && total - first >= MEASURABLE && speed(text, total - first),
    ended.invoked_production_variant,
    dropped > 0 && `without the oldest ${dropped === 1 ? "turn" : `${dropped} turns`}`,
  ]
    .filter(Boolean)
    .join(" · ");
}

/**
 * Estimate a model's speed.
 * @param {string} text
 * @param {number} milliseconds
 */
function speed(text, milliseconds) {
  const tokens = new TextEncoder().encode(text).length / TOKEN_BYTES;
  const each = Number((tokens / (milliseconds / 1000)).toPrecision(2));
  return `about ${each} tokens/s (estimate)`;
}

/** @param {number} milliseconds */
function seconds(milliseconds) {
  return `${(milliseconds / 1000).toFixed(milliseconds < 100 ? 3 : 1)} s`;
}

/**
 * The state of a turn that has not ended.
 * @param {Turn} turn
 * @param {number} now Milliseconds since the epoch.
 */
export function progress(turn, now) {
  if (turn.cancelling) return "Stopping …";
  if (turn.status === "waiting") return "Waiting …";
  const elapsed = Math.floor((now - (turn.startedAt ?? now)) / 1000);
  return `${turn.begun ? "Answering" : "Thinking"} …${elapsed > 0 ? ` ${elapsed} s` : ""}`;
}

export const FORGETS =
  "This conversation is now too long for the model: from here on it is not told the oldest turns.";

/**
 * Whether the model has seen a turn, or may have.
 * @param {Turn} turn
 * @returns {boolean}
 */
export function isKnown({ ended }) {
  return ended !== null && (ended.outcome ?? ended.error?.outcome) !== "not_invoked";
}

/**
 * What the next message does when the session is gone.
 * @param {boolean} sent Whether a new session can be sent the history.
 */
export function endedText(sent) {
  return sent
    ? "Your next message starts a new session, which is given this conversation."
    : "Your next message starts a new session, which knows nothing of this conversation.";
}

/**
 * Whether a turn is held for the user to confirm, or was cancelled while held.
 * @param {Turn} turn
 * @returns {boolean}
 */
export function isWithheld(turn) {
  return turn.held && (!turn.ended || turn.ended.status === "cancelled");
}

/**
 * What screen readers announce for a turn.
 * @param {Turn} turn An ended turn.
 * @param {boolean} first Whether its history is the first to be shortened.
 */
export function endText(turn, first) {
  if (!turn.ended) return "";
  if (turn.ended.error) return turn.ended.error.message;
  if (isWithheld(turn)) return "Not sent.";
  const stopped = turn.ended.status === "cancelled" ? ` ${stopText(turn.ended)}` : "";
  const forgets = first ? `${FORGETS} ` : "";
  const reply = replyText(turn.ended);
  const heard = reply.length > HEARD ? `${reply.slice(0, HEARD)} … and more` : reply;
  return `${forgets}Model: ${heard}${stopped}`;
}

/** How much of a reply is announced, in characters. */
const HEARD = 2_000;

/**
 * The question before messages go to a session that they were not written for.
 * @param {number} count
 * @returns {string}
 */
export function questionText(count) {
  const messages = count === 1 ? "your message" : `your ${count} messages`;
  return `This is a new session: the model has forgotten what was said. Send ${messages} anyway?`;
}

/**
 * The time left until a session expires.
 * @param {string | null} expiresAt RFC 3339.
 * @param {number} now Milliseconds since the epoch.
 * @returns {string}
 */
export function untilExpiry(expiresAt, now) {
  if (expiresAt === null) return "no expiry known";
  const seconds = Math.max(0, Math.round((Date.parse(expiresAt) - now) / 1000));
  if (seconds === 0) return "expired";
  const minutes = Math.floor(seconds / 60);
  return minutes > 0 ? `${minutes} min ${seconds % 60} s left` : `${seconds} s left`;
}

/**
 * The text for the connection's state.
 * @param {State} state
 * @param {string} reason
 * @returns {string}
 */
export function stateText(state, reason) {
  switch (state) {
    case "connecting":
      return "Connecting …";
    case "open":
      return "Connected";
    case "waiting":
      return `${reason} Connecting again …`;
    default:
      return reason;
  }
}

/**
 * The countdown to the next attempt.
 * @param {number} retryAt Milliseconds since the epoch; 0 for none.
 * @param {number} now
 */
export function countdownText(retryAt, now) {
  if (retryAt === 0) return "Connecting …";
  return `Trying again in ${Math.max(1, Math.ceil((retryAt - now) / 1000))} s.`;
}

/**
 * A route's WebSocket URL, relative to the page, which a proxy may serve under a path.
 * @param {string} page The page's URL.
 * @param {string} route
 * @returns {string}
 */
export function routeUrl(page, route) {
  const url = new URL(`ws/${encodeURIComponent(route)}`, page);
  url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
  return url.href;
}
