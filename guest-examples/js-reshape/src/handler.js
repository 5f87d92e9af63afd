// Reshapes orders: a shop's JSON comes in, a flat one with the total goes out, to the stream `reshaped`.

import emit from "segmenter:handler/emit@0.1.0";
import { Reject, Retry } from "./failure.js";
import { reshape } from "./reshape.js";
import { decode, encode } from "./utf8.js";

const TO = "reshaped";

// What the host calls, once per message. What is emitted is committed together with the ack, or not at all.
export const handler = {
  handle({ key, payload, attributes }) {
    const order = reshape(parse(payload));
    const others = attributes.filter(([name]) => name !== "currency");
    try {
      emit.send(TO, key, encode(JSON.stringify(order)), [...others, ["currency", order.currency]]);
    } catch (error) {
      throw failure(error);
    }
  },
};

function parse(payload) {
  try {
    return JSON.parse(decode(payload));
  } catch (error) {
    throw new Reject(`the payload is no JSON: ${error.message}`);
  }
}

function failure(error) {
  switch (error.tag) {
    case "not-granted":
      return new Reject(`emitting to ${TO} is not granted`);
    case "too-large":
      return new Reject(`with what was added it exceeds ${error.val} bytes`);
    case "too-many":
      return new Retry("no more can be emitted now", 1000);
    default: // A mistake in the code: a trap, which counts as a retry.
      return error;
  }
}
