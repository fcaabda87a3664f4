"""Which revision of each API routers serve: a fold over `router.*` events."""

from collections.abc import Iterator

from bus.events import ConfigurationApplied, Event, RouterDisconnected

_GONE_MAX = 64  # routers that are disconnected; they go on serving what they have


class Serving:
    """All routers, as they last reported."""

    def __init__(self) -> None:
        self._routers: dict[str, dict[str, int]] = {}
        self._gone: dict[str, None] = {}  # disconnected, the longest first

    def apply(self, event: Event) -> Iterator[tuple[str, int]]:
        """Take `event` in; the APIs it is about, each with the oldest revision that is served."""
        match event:
            case RouterDisconnected(node=node):
                self._gone.pop(node, None)
                self._gone[node] = None
                while len(self._gone) > _GONE_MAX:
                    longest = next(iter(self._gone))
                    del self._gone[longest]
                    self._routers.pop(longest, None)
            case ConfigurationApplied(node=node, revisions=revisions):
                self._gone.pop(node, None)
                known = self._routers.setdefault(node, {})
                if event.complete:
                    known.clear()
                known.update(revisions)
                for api_id in revisions:
                    yield api_id, self._oldest(api_id)
            case _:
                pass

    def _oldest(self, api_id: str) -> int:
        return min(one[api_id] for one in self._routers.values() if api_id in one)
