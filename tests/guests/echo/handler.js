// See README.md beside this file's original, in tests/guests/echo.

import emit from "segmenter:handler/emit@0.1.0";
import { Reject, Retry } from "./failure.js";

export const handler = {
  handle({ attempt, key, payload, attributes }) {
    const attribute = (name) => attributes.find(([n]) => n === name)?.[1];
    if (attempt < 3) fail(attribute("fail"));
    const to = attribute("to");
    if (to === undefined) {
      sum(payload);
      return;
    }
    try {
      emit.send(to, key, payload, attributes);
    } catch (error) {
      throw new Reject(`not emitted: ${error.tag}`);
    }
  },
};

function sum(payload) {
  let sum = 0;
  for (const byte of payload) sum = (Math.imul(sum, 31) + byte) | 0;
  return sum;
}

function fail(how) {
  switch (how) {
    case undefined:
      return;
    case "retry":
      throw new Retry("asked to", 10);
    case "reject":
      throw new Reject("asked to");
    default:
      throw new Error("asked to");
  }
}
