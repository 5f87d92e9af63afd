"""Sorts texts: a message with an attribute `label` teaches, any other is given the label that fits best and
goes on to the stream `labelled`. Each key learns for itself; what it learned is kept in state."""

from componentize_py_types import Err
from wit_world import exports
from wit_world.imports import emit, logging, state
from wit_world.imports.emit import EmitError_TooMany
from wit_world.imports.state import StateError_Unavailable
from wit_world.imports.types import Failure_Reject, Failure_Retry, RetryInfo

from bayes import Model, words

TO = "labelled"


class Handler(exports.Handler):
    """What the host calls, once per message. State and what is emitted are committed together with the ack."""

    def handle(self, message):
        try:
            learn_or_label(message)
        except UnicodeDecodeError as error:
            raise reject(f"the text is not UTF-8: {error.reason}") from error
        except Untaught as error:
            raise reject(f"nothing was learned yet for {message.key!r}") from error
        except Err as error:
            raise failure(error.value) from error


class Untaught(Exception):
    """There is no label to choose from."""


def learn_or_label(message):
    text = words(message.payload.decode())
    label = dict(message.attributes).get("label")
    name = f"model {message.key}"
    model = Model.from_bytes(state.get(name))
    if label is not None:
        model.learn(label, text)
        state.set(name, model.to_bytes())
        say(f"key={message.key} learned={label}")
        return
    if not model.labels:
        raise Untaught
    label = model.classify(text)
    emit.send(TO, message.key, message.payload, message.attributes + [("label", label)])
    say(f"key={message.key} label={label}")


def failure(error):
    """What the host makes of a refusal of its own: what passes is tried again, a limit stays one."""
    match error:
        case StateError_Unavailable(why):
            return Err(Failure_Retry(RetryInfo(f"state is away: {why}", None)))
        case EmitError_TooMany():
            return Err(Failure_Retry(RetryInfo("no more can be emitted now", 1_000)))
        case other:
            return reject(f"the host does not take it: {other}")


def reject(reason):
    return Err(Failure_Reject(reason))


def say(text):
    logging.log(logging.Level.INFO, "", text)
