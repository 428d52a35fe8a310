/**
 * The ends of turns that the gateway has not reported.
 *
 * @module
 */

/** @typedef {import("./errors.js").Failure} Failure */
/** @typedef {import("./errors.js").Outcome} Outcome */
/** @typedef {Omit<import("./turns.js").Done, "id">} Ended */

/**
 * @param {Failure} error
 * @returns {Ended}
 */
export function failed(error) {
  return { status: "failed", error, deltas: 0, duration_ms: 0 };
}

/**
 * @param {Outcome} outcome
 * @returns {Ended}
 */
export function cancelled(outcome) {
  return { status: "cancelled", outcome, deltas: 0, duration_ms: 0 };
}

/**
 * @param {string} message
 * @param {string} [code] Of a permanent failure.
 */
export function notSent(message, code) {
  const retryable = code === undefined;
  return failed({ code: code ?? "unavailable", message, retryable, outcome: "not_invoked" });
}

/** That the message is written can't be stored. */
export function notKept() {
  return notSent("There is no room to keep this conversation, so the message was not sent.");
}

/** @param {number} limit */
export function tooLarge(limit) {
  const message = `A message may have ${limit} bytes; this one has more.`;
  return failed({ code: "too_large", message, retryable: false, outcome: "not_invoked" });
}

/** @param {string} why Without a full stop. */
export function unknownOutcome(why) {
  const message = `${why}; the model may or may not have seen the message.`;
  return failed({ code: "session_lost", message, retryable: false, outcome: "unknown" });
}

/** @param {string} status */
export function lostReply(status) {
  const message = "The end of the reply was lost on the way.";
  const outcome = status === "completed" ? "invoked" : "unknown";
  return failed({ code: "stream_broken", message, retryable: false, outcome });
}

/** Another message was sent under the same id. */
export function usedId() {
  const message = "Another message has had this id.";
  return failed({ code: "bad_message", message, retryable: false, outcome: "not_invoked" });
}
