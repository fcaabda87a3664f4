"""What a request costs: numbers from the request or the response, as one CEL expression.

A source that is not there, or that is no number, is left out; without any the default holds. A
cost is rounded to whole hits and never below zero.
"""

import re
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from bus.resources.document import wrong
from policy_engine.bodies.json_path import json_path
from policy_engine.hooks import EXCHANGE_NAMESPACE
from policy_engine.parameters.headers import token
from policy_engine.policy import Document, Parameters, Scope, typed
from policy_engine.rate_limits.expression import checked, text, translated

_JSON = "envoy.extensions.filters.http.json_to_metadata.v3.JsonToMetadata"
_NUMBER = text(r"^[0-9]{1,15}([.][0-9]{1,9})?$")
_BODIES = ["application/json"]
_NAMESPACE = "signalbox.cost"

SourceType = Literal[
    "request_header",
    "request_metadata",
    "request_body",
    "request_cel",
    "response_header",
    "response_metadata",
    "response_body",
    "response_cel",
]


class Source(Parameters):
    """Where a part of the cost is told."""

    type: SourceType
    """A header, metadata that a Python policy has published, a place in the JSON body, or CEL: of
    the request or of the response."""

    key: Annotated[str, Field(max_length=256)] = ""
    """The name of the header or of the metadata."""

    json_path: Annotated[str, Field(max_length=512)] = ""
    """The place in the body, names only, such as `$.usage.total_tokens`."""

    expression: Annotated[str, Field(max_length=1024)] = ""
    """CEL that gives a number, such as `response.Size / 1024`."""

    multiplier: Annotated[float, Field(ge=0, le=1e9)] = 1.0
    """What the number is multiplied with."""

    @model_validator(mode="after")
    def _complete(self) -> Self:
        kind = self.kind
        field, value = {
            "header": ("key", self.key),
            "metadata": ("key", self.key),
            "body": ("jsonPath", self.json_path),
            "cel": ("expression", self.expression),
        }[kind]
        if not value:
            raise wrong(f"{field} is required for type {self.type}", field)
        try:
            if kind == "header":
                token(value)
            elif kind == "body":
                _names(value)
            elif kind == "cel":
                checked(value, response=self.of_response)
        except ValueError as error:
            raise wrong(str(error), field) from error
        return self

    @property
    def of_response(self) -> bool:
        """Whether it is known only once the upstream has answered."""
        return self.type.startswith("response")

    @property
    def kind(self) -> str:
        """`header`, `metadata`, `body` or `cel`."""
        return self.type.partition("_")[2]


def _names(path: str) -> list[str]:
    """The member names that lead to the place. Raises ValueError."""
    names = json_path(path).steps
    if not names or not all(isinstance(one, str) for one in names):
        raise ValueError("must lead to one place by member names, such as $.usage.total_tokens")
    return [str(one) for one in names]


class CostExtraction(Parameters):
    """How the cost of a request is found."""

    enabled: bool = False
    """Off: every request costs 1."""

    sources: Annotated[tuple[Source, ...], Field(max_length=10)] = ()
    """Where the cost is told; what is found is summed."""

    default: Annotated[float, Field(ge=0, le=1_000_000_000)] = 1.0
    """The cost when no source gives a number."""

    @model_validator(mode="after")
    def _some(self) -> Self:
        if self.enabled and not self.sources:
            raise wrong("at least one source is required", "sources")
        return self


@dataclass(frozen=True)
class Cost:
    """An enabled cost extraction of one quota."""

    asked: CostExtraction
    scope: Scope
    slot: str  # tells the bodies' metadata of several quotas apart

    @property
    def afterwards(self) -> bool:
        """Whether it is known only once the upstream has answered."""
        return any(one.of_response for one in self.asked.sources)

    @cached_property
    def expression(self) -> str:
        """CEL of the cost, a whole number; it fails only where a CEL source fails."""
        given = [
            (*self._value(number, one), one.multiplier)
            for number, one in enumerate(self.asked.sources)
        ]
        total = " + ".join(
            f"(({there}) ? double({value}) * {_double(times)} : 0.0)"
            for there, value, times in given
        )
        some = " || ".join(f"({there})" for there, _, _ in given)
        return f"int((({some}) ? ({total}) : {_double(self.asked.default)}) + 0.5)"

    @property
    def hits(self) -> str:
        """Envoy's format string of the cost; the default where CEL fails."""
        default = str(int(self.asked.default + 0.5))
        return (
            '%COALESCE({"operators":['
            f'{{"command":"CEL","param":{text(self.expression)}}},'
            f'{{"command":"CEL","param":{text(default)}}}]}})%'
        )

    @cached_property
    def bodies(self) -> Document | None:
        """The `json_to_metadata` filter that reads what the sources need of bodies, if any."""
        rules: dict[str, list[Document]] = {"request_rules": [], "response_rules": []}
        for number, one in enumerate(self.asked.sources):
            if one.kind == "body":
                put = {"metadata_namespace": _NAMESPACE, "key": self._slot(number)}
                direction = "response_rules" if one.of_response else "request_rules"
                rules[direction].append(
                    {
                        "selectors": [{"key": name} for name in _names(one.json_path)],
                        "on_present": {**put, "type": "STRING"},
                    }
                )
        found = {
            key: {"rules": some, "allow_content_types": _BODIES}
            for key, some in rules.items()
            if some
        }
        return typed(_JSON, found) if found else None

    def _slot(self, number: int) -> str:
        return f"{self.slot}.{number}"

    def _value(self, number: int, one: Source) -> tuple[str, str]:
        """CEL: whether the number is there, and the number."""
        side = "response" if one.of_response else "request"
        if one.kind == "cel":
            return "true", translated(one.expression, self.scope)
        if one.kind == "header":
            name = text(one.key.lower())
            value = f"{side}.headers[{name}]"
            return f"{name} in {side}.headers && {value}.matches({_NUMBER})", value
        namespace = text(_NAMESPACE if one.kind == "body" else EXCHANGE_NAMESPACE)
        name = text(self._slot(number) if one.kind == "body" else one.key)
        value = f"metadata.filter_metadata[{namespace}][{name}]"
        there = (
            f"{namespace} in metadata.filter_metadata"
            f" && {name} in metadata.filter_metadata[{namespace}]"
        )
        if one.kind == "body":  # what json_to_metadata found, as text
            there += f" && {value}.matches({_NUMBER})"
        return there, value


def _double(number: float) -> str:
    """As a CEL double, without an exponent."""
    whole = re.sub(r"0+$", "", f"{number:.9f}")
    return f"{whole}0" if whole.endswith(".") else whole
