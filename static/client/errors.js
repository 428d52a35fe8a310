/**
 * The client's errors.
 *
 * @module
 */

/** @typedef {"not_invoked" | "unknown" | "invoked"} Outcome Whether the model saw a message. */
/**
 * @typedef {object} Failure
 * @property {string} code One of the protocol's error codes.
 * @property {string} message For people.
 * @property {boolean} retryable Whether the same message may succeed later.
 * @property {number} [retry_after] In how many seconds.
 * @property {Outcome} [outcome]
 */
/** A message has failed, or its outcome is unknown. */
export class MessageError extends Error {
  /** @param {Failure} failure */
  constructor(failure) {
    super(failure.message);
    this.name = "MessageError";
    this.failure = failure;
  }
}

/** The gateway has violated the protocol, so its further messages can't be relied on. */
export class ProtocolError extends Error {
  name = "ProtocolError";
}

/** Events are missing that the gateway has not reported as lost. */
export class SkippedEvents extends ProtocolError {
  name = "SkippedEvents";

  /**
   * @param {number} first
   * @param {number} last
   * @param {boolean} again Whether they were missing before, after the same event.
   */
  constructor(first, last, again) {
    const which = first === last ? `event ${first}` : `events ${first} to ${last}`;
    super(`The gateway has skipped ${which}.`);
    this.again = again;
  }
}

/** A journal throws this if another client has claimed the conversation since. */
export class Claimed extends Error {
  name = "Claimed";
}
