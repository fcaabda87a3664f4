"""Headers of requests and answers, as far as they are recorded, for a usage event.

Which ones the router tells is a setting of the gateway; an API may have narrowed it with the policy
`analytics-header-filter`, which leaves its word in the request's metadata.
"""

from collections.abc import Mapping
from typing import Any

from bus.usage import APPLICATION_HEADER, HEADER_FILTER_NAMESPACE, SUBSCRIPTION_HEADER

Pairs = tuple[tuple[str, str], ...]

_CALLER, _BY = _OURS = (APPLICATION_HEADER, SUBSCRIPTION_HEADER)
_VALUE_MAX = 1024  # characters


class RecordedHeaders:
    """Those of one batch, in the order of its entries; nothing while no entry has any."""

    def __init__(self) -> None:
        self._requests: dict[Pairs, int] = {}
        self._responses: dict[Pairs, int] = {}
        self._request: list[int] = []
        self._response: list[int] = []
        self._before = 0  # entries before the first that has any

    def take(self, common: Any, request: Mapping[str, str], response: Mapping[str, str]) -> None:  # noqa: ANN401
        """The next entry: `common` is its `envoy.data.accesslog.v3.AccessLogCommon`."""
        if not self._request:
            if not response and len(request) <= (_CALLER in request) + (_BY in request):
                self._before += 1
                return
            for _ in range(self._before):
                self._tell((), ())
        rules = common.metadata.filter_metadata
        said = rules.get(HEADER_FILTER_NAMESPACE, {})
        self._tell(_kept(request, said, "request"), _kept(response, said, "response"))

    def _tell(self, asked: Pairs, answered: Pairs) -> None:
        self._request.append(self._requests.setdefault(asked, len(self._requests)))
        self._response.append(self._responses.setdefault(answered, len(self._responses)))

    def fields(self) -> dict[str, Any]:
        """Fields of `bus.usage.RequestsServed`."""
        if not self._request:
            return {}
        return {
            "request_headers": tuple(dict(one) for one in self._requests),
            "request_header_set": tuple(self._request),
            "response_headers": tuple(dict(one) for one in self._responses),
            "response_header_set": tuple(self._response),
        }


def _kept(headers: Mapping[str, str], said: Any, direction: str) -> Pairs:  # noqa: ANN401
    """`headers` that every use of the policy lets through, by name."""
    kept = {name: value for name, value in headers.items() if name not in _OURS}
    for use in said:
        rule = said[use]
        if direction not in rule:
            continue
        names = {str(one) for one in rule[direction]["headers"]}
        allow = rule[direction]["mode"] == "allow"
        kept = {name: value for name, value in kept.items() if (name in names) is allow}
    return tuple((name, kept[name][:_VALUE_MAX]) for name in sorted(kept))
