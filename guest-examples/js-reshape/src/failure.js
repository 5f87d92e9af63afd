// What to throw. The host reads `tag` and `val`; anything else that is thrown is a trap.

// Never: the message becomes a dead letter, with this reason, and the next one is handled.
export class Reject extends Error {
  tag = "reject";
  get val() {
    return this.message;
  }
}

// Not now: the same message again, after so many milliseconds, or when the host's backoff decides. What
// follows in the partition waits.
export class Retry extends Error {
  tag = "retry";
  constructor(reason, afterMs = null) {
    super(reason);
    this.afterMs = afterMs;
  }
  get val() {
    return { reason: this.message, afterMs: this.afterMs };
  }
}
