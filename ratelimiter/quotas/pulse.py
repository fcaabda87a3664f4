"""How often requests come, from the moments at which some of them are seen.

Reports of usage come every five seconds only. But a bucket that the rate limiter abandons is
reported again with the next request that it sees: the time until then is a sample.
"""

import math

MEMORY_S = 0.5  # what is this old counts a third
_UNLIKELY = 14.0  # twice the logarithm of how much likelier the new rate is: about 1 in 5,000
_FACTOR = 1.5
_EXPECTED_LEAST = 0.5
_ENOUGH_SEEN, _ENOUGH_S = 8, 0.5


class Pulse:
    """What one router's requests for one bucket look like; times are of one clock, seconds."""

    __slots__ = (
        "_exposed_s",
        "_exposed_since_s",
        "_of_s",
        "_seen",
        "_seen_since",
        "_share",
        "is_known",
        "sent_s",
        "waits_since_s",
    )

    def __init__(self, share: float) -> None:
        """Of all requests, a random `share` (above 0, at most 1) is seen."""
        self._share = share
        self._seen = 0.0
        self._exposed_s = 0.0
        self._of_s = 0.0
        self._seen_since = self._exposed_since_s = 0.0
        self.waits_since_s: float | None = None
        """Since when the next request is waited for; None: it has been seen."""
        self.is_known = False  # whether the router has the bucket at all
        self.sent_s = -math.inf  # when it was last abandoned

    def wait(self, now_s: float) -> None:
        """From now on the next request is waited for."""
        self.waits_since_s = self.sent_s = now_s

    def saw(self, now_s: float, latency_s: float) -> None:
        """A request was seen; it takes `latency_s` to ask for it and to hear of it."""
        self.is_known = True
        if self.waits_since_s is None:
            return
        self._forget(now_s)
        exposed_s = max(0.0005, now_s - self.waits_since_s - latency_s)
        self._seen += 1
        self._exposed_s += exposed_s
        self._seen_since += 1
        self._exposed_since_s += exposed_s
        self.waits_since_s = None

    def moved_from(self, rate_per_s: float, now_s: float) -> float | None:
        """The rate now, if it can no longer be `rate_per_s`; then looking begins anew."""
        self._forget(now_s)
        exposed_s = self._exposed_s
        if self.waits_since_s is not None:
            exposed_s += now_s - self.waits_since_s
        if exposed_s <= 0:
            return None
        seen, expected = self._seen, max(1e-9, rate_per_s * self._share * exposed_s)
        likelier = expected - seen + (seen * math.log(seen / expected) if seen > 0 else 0.0)
        if 2 * likelier < _UNLIKELY:
            return None
        found = max(self._seen, _EXPECTED_LEAST) / (self._share * exposed_s)
        if 1 / _FACTOR < found / max(rate_per_s, 1e-9) < _FACTOR:
            return None
        self._seen = self._exposed_s = self._seen_since = self._exposed_since_s = 0.0
        if self.waits_since_s is not None:
            self.waits_since_s = now_s
        return found

    def rate_since(self, now_s: float) -> float | None:
        """The rate since it was last found to be another, once enough was seen of it."""
        exposed_s = self._exposed_since_s
        if self.waits_since_s is not None:
            exposed_s += now_s - self.waits_since_s
        if self._seen_since < _ENOUGH_SEEN and exposed_s < _ENOUGH_S:
            return None
        return max(self._seen_since, _EXPECTED_LEAST) / (self._share * exposed_s)

    def _forget(self, now_s: float) -> None:
        keep = math.exp((self._of_s - now_s) / MEMORY_S) if self._of_s else 0.0
        self._seen *= keep
        self._exposed_s *= keep
        self._of_s = now_s
