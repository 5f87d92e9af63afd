// What to throw. The host reads `tag` and `val` of what is thrown; an `Error`, whatever it holds, is a trap.

// Never: the message becomes a dead letter, with this reason, and the next one is handled.
export class Reject {
  tag = "reject";
  constructor(reason) {
    this.val = reason;
  }
}

// Not now: the same message again, after so many milliseconds, or when the host's backoff decides. What
// follows in the partition waits.
export class Retry {
  tag = "retry";
  constructor(reason, afterMs = null) {
    this.val = { reason, afterMs };
  }
}
