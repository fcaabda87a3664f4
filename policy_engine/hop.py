"""A hop: neighbouring Python policies of a chain, run by the engine in one exchange with Envoy.

A hop is known by the digest of all that it is, so that routers and engines that learn of a change
at different moments still mean the same: Envoy names the hop, the engine keeps it by that name.
"""

from dataclasses import asdict, dataclass
from hashlib import sha256
from typing import Any, Literal

import orjson

from policy_engine.hooks import (
    CHOICE_NAMESPACE,
    EXCHANGE_NAMESPACE,
    SHADOW_NAMESPACE,
    Phase,
    Place,
)
from policy_engine.policy import Document, FailureMode, HttpFilter, Mode, Scope, typed

ENGINE_CLUSTER = "policy-engine"
"""Envoy's name for the workers of the engine."""

HOP_FIELD = "x-signalbox-hop"
"""Request header of Envoy's call with the hop's name."""

BodySendMode = Literal["NONE", "STREAMED", "BUFFERED", "BUFFERED_PARTIAL"]
"""In the order of Envoy's numbers."""

_EXT_PROC = "envoy.extensions.filters.http.ext_proc.v3.ExternalProcessor"
_ROUND_TRIP_S = 10.0
"""Beside the time that the policies may take: for a worker that wakes up or starts again, while
calls wait at its socket. The time of the policies themselves is kept by the engine."""


@dataclass(frozen=True, slots=True)
class HopPolicy:
    """One policy of a hop, as the engine needs it to make it again."""

    name: str
    version: str  # whole, such as `1.0.3`
    params: Document  # as written, secrets included
    condition: str | None
    mode: Mode
    failure_mode: FailureMode
    timeout_s: float  # for each of its hooks
    source: str = ""
    """Digest of the code, if it is from the watched folder: other code is another hop."""


@dataclass(frozen=True, slots=True)
class Hop:
    """Neighbours with one failure mode, where they stand, in request order."""

    place: Place
    policies: tuple[HopPolicy, ...]
    phases: frozenset[Phase]
    namespaces: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Equal for equal hops."""
        return sha256(orjson.dumps(self.document(), option=orjson.OPT_SORT_KEYS)).hexdigest()[:32]

    def document(self) -> Document:
        """All of it, JSON-shaped; `Hop.of` reads it."""
        place = asdict(self.place)
        if not self.place.upstreams:
            del place["upstreams"]
        return {
            "place": place,
            "policies": [asdict(one) for one in self.policies],
            "phases": sorted(self.phases),
            "namespaces": list(self.namespaces),
        }

    @classmethod
    def of(cls, document: Document) -> "Hop":
        """The inverse of `document`."""
        return cls(
            place=Place(**{key: _frozen(one) for key, one in document["place"].items()}),
            policies=tuple(HopPolicy(**one) for one in document["policies"]),
            phases=frozenset(document["phases"]),
            namespaces=tuple(document["namespaces"]),
        )

    @property
    def fails_open(self) -> bool:
        """Whether requests pass while no engine answers: policies in shadow mode stop none."""
        return all(one.mode == "shadow" or one.failure_mode == "open" for one in self.policies)

    def body_mode(self, direction: Literal["request", "response"]) -> BodySendMode:
        """How Envoy begins to send bodies; the engine says how it goes on, once it has the headers.

        What is too long Envoy itself refuses in BUFFERED. In BUFFERED_PARTIAL the engine says what
        becomes of it; but a part looks as a body does that trailers follow, and such a body is sent
        on twice (Envoy 1.40): it is only for what may come in chunks, and for what may pass.
        """
        if f"{direction}_body" not in self.phases:
            return "STREAMED" if f"{direction}_chunk" in self.phases else "NONE"
        chunks = f"{direction}_chunk" in self.phases
        passes = direction == "response" and self.fails_open
        return "BUFFERED_PARTIAL" if chunks or passes else "BUFFERED"

    def filter(self, scope: Scope) -> HttpFilter:
        """The call of the engine, at the hop's place in the chain."""
        return HttpFilter(scope.unique("python"), ext_proc(self))


def ext_proc(hop: Hop) -> Document:
    """Envoy's external processing for `hop`: only the phases that one of its policies needs."""
    needed = hop.phases
    slowest_s = sum(one.timeout_s for one in hop.policies) + _ROUND_TRIP_S
    fields: dict[str, Any] = {
        "grpc_service": {
            "envoy_grpc": {"cluster_name": ENGINE_CLUSTER, "skip_envoy_headers": True},
            "timeout": "3600s",
            "initial_metadata": [{"key": HOP_FIELD, "value": hop.name}],
        },
        "failure_mode_allow": hop.fails_open,
        "status_on_error": {"code": "ServiceUnavailable"},
        "processing_mode": {
            "request_header_mode": "SEND",  # policies may look at the request in every phase
            "response_header_mode": _sent(any(one.startswith("response") for one in needed)),
            "request_body_mode": hop.body_mode("request"),
            "response_body_mode": hop.body_mode("response"),
            "request_trailer_mode": "SKIP",
            "response_trailer_mode": "SKIP",
        },
        "allow_mode_override": True,  # chunks or the whole body, as the headers say
        "allow_content_length_header": True,  # the engine keeps it right
        "message_timeout": f"{slowest_s:.3f}s",
        "mutation_rules": {"allow_all_routing": True, "allow_envoy": True},
        "metadata_options": {
            "receiving_namespaces": {"untyped": [EXCHANGE_NAMESPACE, SHADOW_NAMESPACE]}
        },
    }
    if hop.place.upstreams:
        fields["metadata_options"]["receiving_namespaces"]["untyped"].append(CHOICE_NAMESPACE)
    if hop.namespaces:
        fields["metadata_options"]["forwarding_namespaces"] = {"untyped": list(hop.namespaces)}
    return typed(_EXT_PROC, fields)


def _frozen(value: object) -> Any:  # noqa: ANN401 - of any field
    return tuple(value) if isinstance(value, list) else value


def _sent(needed: bool) -> str:
    return "SEND" if needed else "SKIP"
