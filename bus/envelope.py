"""CloudEvents 1.0 in NATS binary mode: attributes in `ce-` headers, the event as JSON body.

Source: https://github.com/cloudevents/spec/blob/main/cloudevents/bindings/nats-protocol-binding.md
"""

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import NamedTuple
from urllib.parse import unquote

from opentelemetry.context import Context, attach
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from pydantic import ValidationError

from bus.errors import MalformedEvent, UnknownEvent
from bus.events import Event, event_class

TYPE_PREFIX = "sbx."
JSON = "application/json"
DEFAULT_SOURCE = "/signalbox"
MESSAGE_ID = "Nats-Msg-Id"  # the broker stores an id once within the stream's duplicate window

_TRACE = TraceContextTextMapPropagator()
_ESCAPED = re.compile(r'[^\x21-\x7e]|["%]')  # what the binding wants percent-encoded


class Message(NamedTuple):
    """An event as the broker carries it."""

    subject: str
    headers: dict[str, str]
    body: bytes


class Received(NamedTuple):
    """What a message said."""

    event: Event
    event_id: str


def _escape(text: str) -> str:
    return _ESCAPED.sub(lambda m: "".join(f"%{byte:02X}" for byte in m[0].encode()), text)


def encode(
    event: Event, event_id: str, *, source: str = DEFAULT_SOURCE, at: datetime | None = None
) -> Message:
    """The message of `event`, as of `at` (default: now), with the current trace if there is one."""
    time = (at or datetime.now(UTC)).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    headers = {
        "ce-specversion": "1.0",
        "ce-id": _escape(event_id),
        "ce-source": _escape(source),
        "ce-type": TYPE_PREFIX + event.kind,
        "ce-time": time,
        "ce-subject": _escape("/".join(event.key)),
        "ce-datacontenttype": JSON,
        MESSAGE_ID: _escape(event_id),
    }
    _TRACE.inject(headers)
    return Message(event.subject, headers, event.model_dump_json(by_alias=True).encode())


def decode(subject: str, headers: Mapping[str, str] | None, body: bytes) -> Received:
    """The event of a message and its id. Raises UnknownEvent, MalformedEvent.

    An event whose address is not the subject it came on is malformed: who may publish what is
    decided by subject, so the body must not be able to speak for somebody else.
    """
    attributes = {name.lower(): value for name, value in (headers or {}).items()}
    if attributes.get("ce-specversion") != "1.0":
        raise MalformedEvent("header ce-specversion is not 1.0")
    for name in ("ce-id", "ce-source", "ce-type"):
        if not attributes.get(name):
            raise MalformedEvent(f"header {name} is missing")
    kind = attributes["ce-type"]
    if not kind.startswith(TYPE_PREFIX):
        raise UnknownEvent(kind)
    wanted = event_class(kind.removeprefix(TYPE_PREFIX))
    if attributes.get("ce-datacontenttype", JSON).partition(";")[0].strip().lower() != JSON:
        raise MalformedEvent(f"header ce-datacontenttype is not {JSON}")
    try:
        event = wanted.model_validate_json(body, extra="ignore")  # also within resources
        addressed_to = event.subject
    except ValidationError as error:
        raise MalformedEvent(_first_fault(error)) from error
    except UnicodeError as error:
        raise MalformedEvent(f"body: {error}") from error
    if addressed_to != subject:
        raise MalformedEvent(f"the event belongs on {addressed_to}, it came on {subject}")
    return Received(event, unquote(attributes["ce-id"]))


def resume_trace(headers: Mapping[str, str] | None) -> None:
    """Make the sender's trace, if the message carries one, the current one of this task."""
    if headers and "traceparent" in headers:
        attach(_TRACE.extract(headers, context=Context()))


def _first_fault(error: ValidationError) -> str:
    faults = error.errors(include_url=False, include_context=False, include_input=False)
    place = ".".join(str(part) for part in faults[0]["loc"])
    more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
    return f"{place or 'body'}: {faults[0]['msg']}{more}"
