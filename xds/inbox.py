"""Everything that happens to xds, in one queue."""

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass

from bus.events import Event


@dataclass(frozen=True, slots=True)
class Connected:
    """A router opened its stream."""

    node: str
    version: str


@dataclass(frozen=True, slots=True)
class Disconnected:
    """A router's stream ended."""

    node: str


@dataclass(frozen=True, slots=True)
class Applied:
    """A router acknowledged these versions of resources, by type and name; None: it is gone."""

    node: str
    resources: Mapping[tuple[str, str], str | None]


@dataclass(frozen=True, slots=True)
class Rejected:
    """A router refused a version of a resource."""

    node: str
    type_url: str
    name: str
    version: str
    reason: str


class Expired:
    """Some keys have expired."""


@dataclass(frozen=True, slots=True)
class PoliciesChanged:
    """The code of these policies has changed."""

    names: frozenset[str]


class WorkersAwake:
    """The workers of the policy engine are awake, or were waited for long enough."""


Item = (
    Event | Connected | Disconnected | Applied | Rejected | Expired | PoliciesChanged | WorkersAwake
)


class Inbox:
    """Everything that happens, in one queue; also what the ADS server reports to."""

    def __init__(self) -> None:
        self._items: asyncio.Queue[Item] = asyncio.Queue()

    def put(self, item: Item) -> None:
        """Add `item`; never blocks."""
        self._items.put_nowait(item)

    async def batch(self) -> list[Item]:
        """All that is there now, at least one; a lone change is never held back for more."""
        items = [await self._items.get()]
        with suppress(asyncio.QueueEmpty):
            while True:
                items.append(self._items.get_nowait())
        return items

    def connected(self, node: str, version: str) -> None:
        """A router opened its stream."""
        self.put(Connected(node, version))

    def disconnected(self, node: str) -> None:
        """A router's stream ended."""
        self.put(Disconnected(node))

    def applied(self, node: str, resources: Mapping[tuple[str, str], str | None]) -> None:
        """A router acknowledged these versions."""
        self.put(Applied(node, resources))

    def rejected(self, node: str, type_url: str, name: str, version: str, reason: str) -> None:
        """A router refused a version of a resource."""
        self.put(Rejected(node, type_url, name, version, reason))
