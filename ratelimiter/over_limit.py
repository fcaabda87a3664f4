"""Keys that are over their limit: refused without asking the store, until it could change."""

from ratelimiter.counters import Standing


class OverLimit:
    """At most `entries_max` keys, each for at most `hold_us`; the oldest go first."""

    def __init__(self, entries_max: int, hold_us: int) -> None:
        self._entries_max = entries_max if hold_us else 0
        self._hold_us = hold_us
        self._refused: dict[bytes, tuple[int, int, int, Standing]] = {}

    def __len__(self) -> int:
        return len(self._refused)

    def note(self, key: bytes, hits: int, now_us: int, standing: Standing) -> None:
        """`hits` did not pass at `now_us`; more will not, before the limit lets some go."""
        refused = self._refused
        if not self._entries_max:
            return
        if key not in refused and len(refused) >= self._entries_max:
            del refused[next(iter(refused))]
        until_us = now_us + min(self._hold_us, standing.retry_us)
        refused[key] = (until_us, hits, now_us, standing)

    def standing(self, key: bytes, hits: int, now_us: int) -> Standing | None:
        """How the counter stands if it certainly refuses so many hits."""
        found = self._refused.get(key)
        if found is None:
            return None
        until_us, least, then_us, standing = found
        if now_us >= until_us:
            del self._refused[key]
            return None
        if hits < least:
            return None
        passed_us = now_us - then_us
        return Standing(
            standing.remaining,
            max(1, standing.reset_us - passed_us),
            max(1, standing.retry_us - passed_us),
        )

    def clear(self) -> None:
        """Ask the store about all."""
        self._refused.clear()
