/**
 * What can go wrong for a user of the client.
 *
 * @module
 */

/** @typedef {"not_invoked" | "unknown" | "invoked"} Outcome Whether the model saw a message. */
/**
 * @typedef {object} Failure
 * @property {string} code
 * @property {string} message For people.
 * @property {boolean} retryable
 * @property {number} [retry_after] Seconds.
 * @property {Outcome} [outcome]
 */
/** A message failed, or nobody knows what became of it. */
export class MessageError extends Error {
  /** @param {Failure} failure */
  constructor(failure) {
    super(failure.message);
    this.name = "MessageError";
    this.failure = failure;
  }
}

/** The gateway has broken the protocol, so that what else it says can't be relied on. */
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

/** Another client has claimed the conversation since. */
export class Claimed extends Error {
  name = "Claimed";
}
