// Appends one message to a stream of Segmenter, with nothing but a socket. See host/docs/producers.md.
// node producer.mjs NAMESPACE/STREAM KEY [NAME=VALUE]..., the payload on stdin; or vectors FILE, to check the hash
import { readFileSync } from "node:fs";
import { connect } from "node:net";
function diffuse(x) {
  x = BigInt.asUintN(64, x * 0x6eed0e9da4d94a4fn);
  return BigInt.asUintN(64, (x ^ ((x >> 32n) >> (x >> 60n))) * 0x6eed0e9da4d94a4fn);
}
function seahash(data) {
  let [a, b, c, d] = [0x16f11fe89b0d677cn, 0xb480a793d8e6c86cn, 0x6fe2e5aaf078ebc9n, 0x14f994a4c5259381n];
  const padded = Buffer.concat([data, Buffer.alloc(-data.length & 7)]);
  for (let at = 0; at < padded.length; at += 8) [a, b, c, d] = [b, c, d, diffuse(a ^ padded.readBigUInt64LE(at))];
  return diffuse(a ^ b ^ c ^ d ^ BigInt(data.length));
}
async function connected(url) {
  const socket = connect({ port: Number(url.port || 6379), host: url.hostname });
  const [chunks, redis] = [socket[Symbol.asyncIterator](), { got: Buffer.alloc(0), socket }];
  redis.more = async () => (redis.got = Buffer.concat([redis.got, (await chunks.next()).value])); // throws at the end
  if (url.password) await ask(redis, "AUTH", decodeURIComponent(url.username || "default"), decodeURIComponent(url.password));
  return redis;
}
async function ask(redis, ...words) {
  redis.socket.write(`*${words.length}\r\n`);
  for (const word of words.map((word) => Buffer.from(word))) redis.socket.write(Buffer.concat([Buffer.from(`$${word.length}\r\n`), word, Buffer.from("\r\n")]));
  return answer(redis);
}
async function answer(redis) {
  const take = (n) => [redis.got.toString("utf8", 0, n), (redis.got = redis.got.subarray(n + 2))][0];
  while (!redis.got.includes("\r\n")) await redis.more();
  const [kind, ...rest] = take(redis.got.indexOf("\r\n"));
  const [text, length, items] = [rest.join(""), Number(rest.join("")), []];
  if (kind === "-") throw new Error(`Redis says: ${text}`);
  if (kind === "*") while (items.length < length) items.push(await answer(redis));
  if (kind === "*") return items;
  if (kind !== "$" || length < 0) return kind === "$" ? null : text;
  while (redis.got.length < length + 2) await redis.more();
  return take(length);
}
async function send(redis, stream, key, payload, attributes) {
  const fields = ["protocol", "uid", "partitions", "payload_max", "deleting", "source"];
  const [protocol, uid, partitions, most, deleting, source] = await ask(redis, "HMGET", `seg:{${stream}}:stream`, ...fields);
  if (!uid || protocol !== "1" || deleting || source) throw new Error(`${stream} takes nothing: it is not there, being deleted, written by others, or newer`);
  if (payload.length > Number(most ?? 1_048_576)) throw new Error(`the payload has more than ${most ?? 1_048_576} bytes`);
  const place = `seg:{${stream}/${seahash(Buffer.from(key)) % BigInt(partitions)}}`;
  const [there, capacity] = await ask(redis, "HMGET", `${place}:meta`, "uid", "capacity");
  if (there !== uid || Number(await ask(redis, "XLEN", `${place}:log`)) >= Number(capacity)) throw new Error(`${place} is full, or was made anew: try again later`);
  const entry = ["k", key, "p", payload, ...attributes.flatMap(([name, value]) => ["@" + name, value])];
  return (await ask(redis, "XADD", `${place}:log`, "NOMKSTREAM", "*", ...entry)) ?? Promise.reject(new Error(`${place} is gone`));
}
const [where, key, ...given] = process.argv.slice(2);
if (where === "vectors") {
  for (const v of JSON.parse(readFileSync(key, "utf8"))) {
    const hash = seahash(Buffer.from(v.key));
    if (String(hash) !== v.hash || Number(hash % BigInt(v.partitions)) !== v.partition) throw new Error(`${v.key}: ${hash}`);
  }
} else {
  const redis = await connected(new URL(process.env.SEGMENTER_REDIS ?? "redis://127.0.0.1:6379"));
  console.log(await send(redis, where, key, readFileSync(0), given.map((pair) => pair.split(/=(.*)/s))));
  redis.socket.destroy();
}
