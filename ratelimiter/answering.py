"""What a call is answered: code, statuses, headers, body.

Headers: draft-ietf-httpapi-ratelimit-headers-10 (`RateLimit-Policy`, `RateLimit`), the older
`X-RateLimit-*` in seconds, RFC 9110 `Retry-After`. Shadow quotas are told to nobody.
"""
# ruff: noqa: ANN401 - upb messages have no static type

from typing import Any

from policy_engine.rate_limits.limits import SHADOW_HEADER, Hits
from ratelimiter.counters import REFUND, Standing
from ratelimiter.reading import Question, Row
from xds.wire.messages import message_class

RateLimitResponse = message_class("envoy.service.ratelimit.v3.RateLimitResponse")

_OK, _OVER_LIMIT = 1, 2
_UINT32_MAX = 2**32 - 1
_SILENT = (Hits.CHARGE, REFUND)
_UNLIMITED = RateLimitResponse(overall_code=_OK).SerializeToString()


def is_refused(question: Question, standings: tuple[Standing, ...]) -> bool:
    """Whether a limit that is enforced does not hold."""
    return any(standing.retry_us for standing in standings[: question.enforced])


def answer(question: Question, standings: tuple[Standing, ...]) -> bytes:
    """The serialized RateLimitResponse; `standings` are those of the question's takes."""
    if not standings:
        return bytes(_UNLIMITED)
    response = RateLimitResponse()
    refused = is_refused(question, standings)
    response.overall_code = _OVER_LIMIT if refused else _OK
    told: list[tuple[Row, int]] = []
    beyond = False
    for row in question.rows:
        strict = _strictest(standings, row.start, row.stop)
        _status(response.statuses.add(), row, standings[strict])
        beyond |= row.quota.shadow and standings[strict].retry_us > 0
        if not row.quota.shadow and question.takes[row.start].mode not in _SILENT:
            told.append((row, strict))
    if told:
        _tell(response, question, standings, told, refused=refused)
    if beyond:  # what stands behind the router's filter reports it
        response.request_headers_to_add.add(key=SHADOW_HEADER, value="1")
    return bytes(response.SerializeToString())


def _strictest(standings: tuple[Standing, ...], start: int, stop: int) -> int:
    """The limit that refuses for longest, or else has least left; then, that lasts longest."""
    if stop - start == 1:
        return start
    return max(
        range(start, stop),
        key=lambda at: (standings[at].retry_us, -standings[at].remaining, standings[at].reset_us),
    )


def _status(status: Any, row: Row, standing: Standing) -> None:
    status.code = _OVER_LIMIT if standing.retry_us and not row.quota.shadow else _OK
    status.limit_remaining = min(standing.remaining, _UINT32_MAX)
    seconds, micros = divmod(standing.reset_us, 1_000_000)
    status.duration_until_reset.seconds = seconds
    status.duration_until_reset.nanos = micros * 1_000


def _tell(
    response: Any,
    question: Question,
    standings: tuple[Standing, ...],
    told: list[tuple[Row, int]],
    *,
    refused: bool,
) -> None:
    add = response.response_headers_to_add.add
    row, at = told[0]
    if len(told) > 1:
        row, at = max(
            told,
            key=lambda pair: (
                standings[pair[1]].retry_us,
                -standings[pair[1]].remaining,
                standings[pair[1]].reset_us,
            ),
        )
    quota, standing = row.quota, standings[at]
    if quota.told.x_ratelimit:
        add(key="x-ratelimit-limit", value=str(question.takes[at].rule.hits))
        add(key="x-ratelimit-remaining", value=str(standing.remaining))
        add(key="x-ratelimit-reset", value=str(_seconds(standing.reset_us)))
        if refused:
            add(key="x-ratelimit-quota", value=quota.name)
    policies, states = [], []
    for one, strict in told:
        if one.quota.told.ietf:
            policies.append(one.policies)
            left = standings[strict]
            name = one.names[strict - one.start]
            states.append(f"{name};r={left.remaining};t={_seconds(left.reset_us)}")
    if policies:
        add(key="ratelimit-policy", value=", ".join(policies))
        add(key="ratelimit", value=", ".join(states))
    if refused:
        if quota.told.retry_after:
            add(key="retry-after", value=str(_seconds(standing.retry_us)))
        if quota.answer is not None:
            add(key="content-type", value=quota.answer.content_type)
            response.raw_body = quota.answer.body.encode()


def _seconds(us: int) -> int:
    """Rounded up: who waits that long has waited long enough."""
    return -(-us // 1_000_000)
