"""What guest-examples/number does, as a big component: `cargo xtask swap --python` swaps it."""

from wit_world import exports
from wit_world.imports import emit, logging, state

TO = "numbered"


class Handler(exports.Handler):
    def handle(self, message):
        number = state.increment(f"count {message.key}", 1)
        emit.send(TO, message.key, message.payload, message.attributes + [("number", str(number))])
        payload = message.payload.decode()
        logging.log(logging.Level.INFO, "", f"key={message.key} payload={payload} number={number}")
