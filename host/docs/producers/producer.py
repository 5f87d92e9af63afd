"""Appends one message to a stream of Segmenter, with nothing but a socket. See host/docs/producers.md.
    producer.py NAMESPACE/STREAM KEY [NAME=VALUE]...   with the payload on stdin
    producer.py vectors FILE                           checks the hash against tests/vectors/partition.json"""
import json, os, socket, sys
from urllib.parse import unquote, urlsplit

def diffuse(x):
    x = x * 0x6EED0E9DA4D94A4F & 0xFFFFFFFFFFFFFFFF
    return (x ^ (x >> 32) >> (x >> 60)) * 0x6EED0E9DA4D94A4F & 0xFFFFFFFFFFFFFFFF

def seahash(data):
    a, b, c, d = 0x16F11FE89B0D677C, 0xB480A793D8E6C86C, 0x6FE2E5AAF078EBC9, 0x14F994A4C5259381
    for at in range(0, len(data), 8):
        a, b, c, d = b, c, d, diffuse(a ^ int.from_bytes(data[at:at + 8], "little"))
    return diffuse(a ^ b ^ c ^ d ^ len(data))

class Redis:
    def __init__(self, url):
        url = urlsplit(url)
        self.file = socket.create_connection((url.hostname, url.port or 6379)).makefile("rwb")
        if url.password:
            self("AUTH", unquote(url.username or "default"), unquote(url.password))
    def __call__(self, *words):
        words = [word if isinstance(word, bytes) else str(word).encode() for word in words]
        self.file.write(b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(w), w) for w in words))
        self.file.flush()
        return self.reply()
    def reply(self):
        line = self.file.readline()[:-2]
        kind, rest = line[:1], line[1:]
        if kind == b"$":
            return None if rest == b"-1" else self.file.read(int(rest) + 2)[:-2]
        if kind == b"*":
            return [self.reply() for _ in range(int(rest))]
        if kind not in (b"+", b":"):
            sys.exit(f"Redis says: {line.decode() or 'nothing more'}")
        return rest

def send(redis, stream, key, payload, attributes):
    fields = ("protocol", "uid", "partitions", "payload_max", "deleting", "source")
    protocol, uid, partitions, most, deleting, source = redis("HMGET", f"seg:{{{stream}}}:stream", *fields)
    if uid is None or protocol != b"1" or deleting or source:
        sys.exit(f"{stream} takes nothing: it is not there, being deleted, written by others, or newer")
    if len(payload) > int(most or 1_048_576):
        sys.exit(f"the payload has more than {int(most or 1_048_576)} bytes")
    place = f"seg:{{{stream}/{seahash(key.encode()) % int(partitions)}}}"
    there, capacity = redis("HMGET", place + ":meta", "uid", "capacity")
    if there != uid or int(redis("XLEN", place + ":log")) >= int(capacity):
        sys.exit(f"{place} is full, or was made anew: try again later")
    pairs = [part for name, value in attributes for part in ("@" + name, value)]
    return redis("XADD", place + ":log", "NOMKSTREAM", "*", "k", key, "p", payload, *pairs) or sys.exit(f"{place} is gone")

if sys.argv[1] == "vectors":
    for v in json.load(open(sys.argv[2], encoding="utf-8")):
        hash = seahash(v["key"].encode())
        assert (str(hash), hash % v["partitions"]) == (v["hash"], v["partition"]), v
else:
    given = [pair.split("=", 1) for pair in sys.argv[3:]]
    redis = Redis(os.environ.get("SEGMENTER_REDIS", "redis://127.0.0.1:6379"))
    print(send(redis, sys.argv[1], sys.argv[2], sys.stdin.buffer.read(), given).decode())
