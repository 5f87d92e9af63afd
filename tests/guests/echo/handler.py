"""See README.md beside this file's original, in tests/guests/echo."""

from componentize_py_types import Err
from wit_world import exports
from wit_world.imports import emit
from wit_world.imports.types import Failure_Reject, Failure_Retry, RetryInfo


class Handler(exports.Handler):
    def handle(self, message):
        attributes = dict(message.attributes)
        if message.attempt < 3:
            fail(attributes.get("fail"))
        to = attributes.get("to")
        if to is None:
            checksum(message.payload)
            return
        try:
            emit.send(to, message.key, message.payload, message.attributes)
        except Err as error:
            raise Err(Failure_Reject(f"not emitted: {error.value}")) from error


def checksum(payload):
    total = 0
    for byte in payload:
        total = (total * 31 + byte) & 0xFFFFFFFF
    return total


def fail(how):
    match how:
        case None:
            return
        case "retry":
            raise Err(Failure_Retry(RetryInfo("asked to", 10)))
        case "reject":
            raise Err(Failure_Reject("asked to"))
        case _:
            raise ValueError("asked to")
