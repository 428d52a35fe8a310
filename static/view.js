/**
 * What the page shows, apart from the page: texts and times from the gateway's messages.
 *
 * @module
 */

/** @typedef {import("./turn.js").Done} Done */
/** @typedef {import("./turn.js").Failure} Failure */
/** @typedef {import("./client.js").Note} Note */
/** @typedef {import("./client.js").State} State */

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
      return detail.context === "replayed"
        ? `${why}. A new one has taken its place, and the conversation was replayed to it.`
        : `${why}. A new one has taken its place: the model has forgotten what was said.`;
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
  const variant = done.invoked_production_variant;
  return variant ? `${seconds} s · ${variant}` : `${seconds} s`;
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
