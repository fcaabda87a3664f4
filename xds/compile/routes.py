"""The routes of an API, and the sites they are served on."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from bus.route_key import RouteKey

Document = dict[str, Any]


@dataclass(frozen=True, slots=True)
class ApiRoute:
    """One Envoy route of an API, on any host."""

    order: tuple[Any, ...]  # sorts the routes of one virtual host, most specific first
    first_segment: str | None  # of the operation path: `` for `/`, None for a parameter or `*`
    tree_segments: tuple[str, ...]  # leading literal segments of the operation path
    document: Document  # a Route; its name lacks the host, see `key`
    key: RouteKey
    again: bool = False  # found by a mark on the request, not by its path: stands before all others


@dataclass(frozen=True, slots=True)
class Site:
    """Routes that are served on the same hosts."""

    hosts: tuple[str, ...]
    routes: tuple[ApiRoute, ...]


def unique(routes: Sequence[ApiRoute]) -> tuple[ApiRoute, ...]:
    """`routes` without those that an earlier one with the same match hides."""
    kept: list[ApiRoute] = []
    known: set[str] = set()
    for route in routes:
        fingerprint = repr(route.document["match"])
        if fingerprint not in known:
            known.add(fingerprint)
            kept.append(route)
    return tuple(kept)
