"""The search for what a router refuses in a response of many resources.

A refused response is halved until the guilty are alone; those named in the reason are tried alone
at once.
"""

from collections import deque
from collections.abc import Callable, Iterator
from typing import NamedTuple

from xds.ads.protocol import Change, Resource

_ACCUSED_AT_MOST = 8  # names in a reason that are tried alone; more are halved


class Part(NamedTuple):
    """Resources that travel together; of a refused response or of what has changed."""

    resources: tuple[Resource, ...]
    change: Change


class Suspects:
    """The parts of refused responses that are to be sent again, in order."""

    def __init__(self) -> None:
        self._parts: deque[Part] = deque()

    def __len__(self) -> int:
        return len(self._parts)

    def sequences(self) -> Iterator[int]:
        """The publications they come from."""
        return (part.change.sequence for part in self._parts)

    def accuse(self, refused: Part, error: str) -> None:
        """Try the parts of a refused response before all others."""
        parts = reversed(tuple(_divided(refused.resources, error)))
        self._parts.extendleft(Part(part, refused.change) for part in parts)

    def next(
        self, is_current: Callable[[Resource], bool], may_go: Callable[[Resource, Change], bool]
    ) -> Part | None:
        """The next part that may go, without what has been replaced meanwhile."""
        for _ in range(len(self._parts)):
            resources, change = self._parts.popleft()
            current = tuple(one for one in resources if is_current(one))
            if not current:
                continue
            part = Part(current, change)
            if all(may_go(one, change) for one in current):
                return part
            self._parts.append(part)
        return None


def _divided(resources: tuple[Resource, ...], error: str) -> Iterator[tuple[Resource, ...]]:
    """The accused alone, the others together; else two halves."""
    accused = [one for one in resources if one.name in error]
    if 0 < len(accused) <= _ACCUSED_AT_MOST and len(accused) < len(resources):
        guilty = {one.name for one in accused}
        yield tuple(one for one in resources if one.name not in guilty)
        yield from ((one,) for one in accused)
    else:
        middle = len(resources) // 2
        yield from (resources[:middle], resources[middle:])
