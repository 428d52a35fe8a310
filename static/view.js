/**
 * What the page shows, apart from the page: texts and times from the gateway's messages.
 *
 * @module
 */

/** @typedef {import("./client.js").Done} Done */
/** @typedef {import("./client.js").Failure} Failure */
/** @typedef {import("./client.js").Note} Note */
/** @typedef {import("./client.js").State} State */
/** @typedef {import("./client.js").Turn} Turn */

/**
 * A reply's text. JSON of the usual models gives what they said, other JSON is shown as it is.
 * @param {Done} done
 * @returns {string}
 */
export function replyText(done) {
  if (done.base64 !== undefined) {
    const padding = (done.base64.match(/=+$/) ?? [""])[0].length;
    const bytes = (done.base64.length / 4) * 3 - padding;
    return `${bytes} bytes of ${done.content_type ?? "an unknown type"}`;
  }
  if (done.json !== undefined) return spoken(done.json);
  const text = done.text ?? "";
  if (!/^(application\/json|[^;]*\+json)/.test(done.content_type ?? "")) return text;
  try {
    return spoken(JSON.parse(text));
  } catch {
    return text;
  }
}

/**
 * @param {any} value
 * @returns {string}
 */
function spoken(value) {
  const first = Array.isArray(value) ? value[0] : value;
  const said =
    first?.text ??
    first?.generated_text ??
    first?.choices?.[0]?.message?.content ??
    first?.choices?.[0]?.text;
  return typeof said === "string" ? said : JSON.stringify(value, null, 2);
}

/**
 * What came of stopping a message.
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

/**
 * What has befallen the session, in words; empty where nobody needs to know.
 * @param {Note} note
 * @param {string | null} before The route of the session before this one; null for the first.
 * @returns {string}
 */
export function noteText({ type, detail }, before) {
  switch (type) {
    case "opened":
      if (before === null) return "";
      return before === detail.route
        ? "This is a new session: the model has forgotten what was said."
        : `This is a new session, on the route ${detail.route}. Its model knows nothing of this.`;
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

/**
 * What is known of a reply besides its text.
 * @param {Done} done
 * @returns {string}
 */
export function replyDetails(done) {
  const seconds = (done.duration_ms / 1000).toFixed(done.duration_ms < 100 ? 3 : 1);
  const dropped = done.dropped_turns ?? 0;
  return [
    `${seconds} s`,
    done.invoked_production_variant,
    dropped > 0 && `without the oldest ${dropped === 1 ? "turn" : `${dropped} turns`}`,
  ]
    .filter(Boolean)
    .join(" · ");
}

/**
 * Whether its reply is the first for which the beginning of the conversation no longer fitted.
 * @param {Turn} turn
 * @param {(Turn | Note)[]} history
 * @returns {boolean}
 */
export function beginsToForget(turn, history) {
  const before = history.slice(0, history.indexOf(turn));
  const session = before.findLastIndex((item) => "type" in item && item.type === "opened");
  const since = before.slice(session + 1);
  const first = !since.some((item) => "ended" in item && item.ended?.dropped_turns);
  return first && (turn.ended?.dropped_turns ?? 0) > 0;
}

export const FORGETS =
  "This conversation is now too long for the model: from here on it is not told the oldest turns.";

/**
 * Whether a turn waits for a word of the user's, or was taken back.
 * @param {Turn} turn
 * @returns {boolean}
 */
export function isWithheld(turn) {
  return turn.held && (!turn.ended || turn.ended.status === "cancelled");
}

/**
 * What to ask before messages go to a session that they were not meant for.
 * @param {number} count
 * @returns {string}
 */
export function questionText(count) {
  const messages = count === 1 ? "your message" : `your ${count} messages`;
  return `This is a new session: the model has forgotten what was said. Send ${messages} anyway?`;
}

/**
 * How long until a time, in words.
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
 * The connection's state in words.
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
      return reason || "Not connected";
  }
}

/**
 * Where a route's WebSocket is: beside the page, which a proxy may have put under a path.
 * @param {string} page The page's address.
 * @param {string} route
 * @returns {string}
 */
export function routeUrl(page, route) {
  const url = new URL(`ws/${encodeURIComponent(route)}`, page);
  url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
  return url.href;
}
