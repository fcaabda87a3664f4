"""What becomes of a message that nobody can deal with: kept, with the reason, for somebody to see.

Also the one way a received message becomes an event, with everything that can be wrong about it.
"""

import base64
from collections.abc import Mapping

from bus.events import DeadLettered
from bus.subjects import Family, untoken


def dead_letter(
    consumer: str, reason: str, subject: str, headers: Mapping[str, str] | None, body: bytes
) -> DeadLettered:
    """The record of a message that `consumer` gave up; addressed to the message's own gateway."""
    _, org, gateway, *_ = (*subject.split("."), "", "", "")
    try:
        text, encoding = body.decode(), "utf-8"
    except UnicodeDecodeError:
        text, encoding = base64.b64encode(body).decode(), "base64"
    return DeadLettered(
        org=untoken(org) or "default",
        gateway=untoken(gateway) or "default",
        consumer=consumer,
        reason=reason,
        original_subject=subject,
        headers=dict(headers or {}),
        body=text,
        body_encoding=encoding,
    )


def without_body(letter: DeadLettered) -> DeadLettered:
    """The same record for a message whose body is too large to be carried twice."""
    note = f"{letter.reason} (the body, {len(letter.body)} characters, is too large to be kept)"
    return letter.model_copy(update={"body": "", "body_encoding": "utf-8", "reason": note})


def is_dead_letter(subject: str) -> bool:
    """Whether `subject` is on the dead letter already: what is malformed there stays there."""
    parts = subject.split(".")
    return len(parts) > 3 and parts[3] == Family.DEAD_LETTER
