"""What every resource kind shares: the envelope, durations, and how names look on the wire."""

import re
from typing import Annotated, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel
from pydantic_core import PydanticCustomError

API_VERSION = "gateway.api-platform.wso2.com/v1"
ApiVersion = Literal[
    "gateway.api-platform.wso2.com/v1",
    "gateway.api-platform.wso2.com/v1alpha1",
    "gateway.api-platform.wso2.com/v1alpha2",
]

MAX_DURATION_S = 10_000 * 3600.0

_DURATION = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)(ms|s|m|h)")
_UNIT_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_BAD_NAME = re.compile(r"[\s/}\x00-\x1f\x7f]")
_SPACE = re.compile(r"\s")


class Document(BaseModel):
    """A part of a resource: camelCase on the wire, unknown fields refused."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", alias_generator=to_camel, populate_by_name=True
    )


def wrong(reason: str, *below: str | int) -> PydanticCustomError:
    """For model validators: the fault lies in the field at `below`, under the model itself."""
    return PydanticCustomError("wrong", "{reason}", {"reason": reason, "below": below})


def duration_s(text: str) -> float:
    """Seconds of a duration such as `500ms`, `30s`, `5m`, `1h`. Raises ValueError."""
    match = _DURATION.fullmatch(text)
    if match is None:
        raise ValueError("must be a duration with one unit, such as 500ms, 30s, 5m or 1h")
    seconds = float(match[1]) * _UNIT_S[match[2]]
    if seconds > MAX_DURATION_S:
        raise ValueError("must not be longer than 10000h")
    return seconds


def _positive(text: str) -> str:
    if duration_s(text) <= 0:
        raise ValueError("must be a positive duration")
    return text


def _any_duration(text: str) -> str:
    duration_s(text)
    return text


def _time_zone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ValueError(f"{name!r} is not the IANA name of a time zone") from error
    return name


TimeZone = Annotated[str, Field(min_length=1, max_length=64), AfterValidator(_time_zone)]
"""The IANA name of a time zone, such as `Europe/Zurich`."""

PositiveDuration = Annotated[str, AfterValidator(_positive)]
Duration = Annotated[str, AfterValidator(_any_duration)]


def _handle(name: str) -> str:
    if not name:
        raise ValueError("Metadata name is required")
    if name in (".", ".."):
        raise ValueError("must not be '.' or '..'")  # no URL could name it
    if _BAD_NAME.search(name):
        raise ValueError("must not contain whitespace, '/', '}' or control characters")
    return name


def is_handle(name: str) -> bool:
    """Whether `name` may name a resource."""
    return name not in ("", ".", "..") and _BAD_NAME.search(name) is None


def _labels(labels: dict[str, str]) -> dict[str, str]:
    for key in labels:
        if not key or _SPACE.search(key):
            raise ValueError(f"label key {key!r} must not be empty or contain whitespace")
    return labels


class Metadata(Document):
    """Who the resource is."""

    name: Annotated[str, Field(max_length=253), AfterValidator(_handle)]
    labels: Annotated[dict[str, str], AfterValidator(_labels)] = Field(default_factory=dict)
    annotations: dict[str, str] = Field(default_factory=dict)
