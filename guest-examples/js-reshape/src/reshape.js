// A shop's order → a flat one. Knows nothing of messages.

import { Reject } from "./failure.js";

export function reshape(order) {
  const { id, customer, currency = "EUR", lines } = object(order, "the order");
  const { first, last } = object(customer, "customer");
  if (!Array.isArray(lines) || lines.length === 0) throw new Reject("lines: at least one is needed");
  const items = lines.map((line, at) => item(line, `lines[${at}]`));
  const sum = (of) => items.reduce((total, item) => total + of(item), 0);
  return {
    order: number(id, "id"),
    customer: `${text(first, "customer.first")} ${text(last, "customer.last")}`,
    currency: text(currency, "currency"),
    items: items.map(({ sku }) => sku),
    quantity: sum(({ quantity }) => quantity),
    // In cents while it is added up: a tenth has no exact number.
    total: (sum(({ quantity, cents }) => quantity * cents) / 100).toFixed(2),
  };
}

function item(line, where) {
  const { sku, quantity, price } = object(line, where);
  return {
    sku: text(sku, `${where}.sku`),
    quantity: number(quantity, `${where}.quantity`),
    cents: Math.round(number(price, `${where}.price`) * 100),
  };
}

function object(value, where) {
  if (typeof value !== "object" || value === null) throw new Reject(`${where}: it is no object`);
  return value;
}

function text(value, where) {
  if (typeof value !== "string") throw new Reject(`${where}: it is no text`);
  return value;
}

function number(value, where) {
  if (typeof value !== "number") throw new Reject(`${where}: it is no number`);
  return value;
}
