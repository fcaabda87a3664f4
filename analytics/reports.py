"""Reports on usage: `/reports/...` below the management API, as JSON or CSV.

Percentiles and means are over requests that were served or could not be (`analytics.outcome`,
TIMED): refusals take no work and would hide how long the others take.
"""

import csv
import io
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any

import structlog
from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel

from analytics.aggregation import Aggregation, Line
from analytics.errors import InvalidQuery, TotalsUnavailable
from analytics.ports import TotalsStore
from analytics.query import Group, Period, at, groups, only, period, step_minutes
from analytics.totals import MINUTE_MS, Gap

log = structlog.get_logger()

_CSV = "text/csv"
_FORMULA = ("=", "+", "-", "@", "\t", "\r")  # how a cell begins that a spreadsheet would run

_From = Annotated[
    str | None, Query(alias="from", description="A moment, or a time ago: `24h`. Default: `24h`.")
]
_To = Annotated[str | None, Query(description="A moment, or a time ago. Default: now.")]
_Api = Annotated[str | None, Query(description="Only this API; `-`: what no API had a route for.")]
_Application = Annotated[str | None, Query(description="Only this one; `-`: the unknown.")]
_Subscription = Annotated[
    str | None, Query(description="Only by this one, its id; `-`: without one.")
]
_GroupBy = Annotated[
    str | None,
    Query(
        alias="groupBy",
        description=(
            "Any of api, operation, application, subscription, shadow, status, minute, hour; "
            "comma-separated."
        ),
    ),
]
_Step = Annotated[str | None, Query(description="Distance of points: `1m`, `15m`, `1h`, `1d`.")]


class _Answer(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True)


class Measures(_Answer):
    """How much was served, and how fast."""

    requests: int
    errors: int  # 5xx
    client_errors: int  # 4xx, refusals not counted
    refused: int  # by a policy or the gateway's own rules: key, permission, limit
    would_refuse: int  # a policy in shadow mode would have refused
    request_bytes: int
    response_bytes: int
    p50_ms: float | None
    p95_ms: float | None
    p99_ms: float | None
    mean_ms: float | None
    upstream_mean_ms: float | None


class Names(_Answer):
    """What was grouped by; the others are not there."""

    time: str | None = None
    api: str | None = None  # empty: no API had a route for it
    method: str | None = None
    path: str | None = None
    application: str | None = None  # empty: not known
    subscription: str | None = None  # empty: without one
    shadow: str | None = None  # policies in shadow mode that would have refused, with commas
    status: str | None = None  # 1xx to 5xx, or none
    outcome: str | None = None


class UsageRow(Measures, Names):
    """Measures of one group."""


class UsageReport(_Answer):
    """Rows of a period, their sum, and how much is missing."""

    status: str = "success"
    from_: str
    to: str
    group_by: list[str]
    count: int
    lost_entries: int  # requests of the period that were served and are in no row
    total: Measures
    rows: list[UsageRow]

    model_config = ConfigDict(
        alias_generator=lambda name: "from" if name == "from_" else to_camel(name),
        populate_by_name=True,
    )


class GapRow(_Answer):
    """Access-log entries of one router that could not be kept."""

    node: str
    entries: int
    since: str
    until: str
    reason: str


class GapReport(_Answer):
    """What is missing in the reports of a period."""

    status: str = "success"
    count: int
    lost_entries: int
    rows: list[GapRow]


class Refusal(BaseModel):
    """Why there is no report."""

    status: str = "error"
    message: str
    errors: list[dict[str, str]] = []


def reports_router(
    store: TotalsStore, *, clock: Callable[[], datetime] = lambda: datetime.now(UTC)
) -> APIRouter:
    """The reports on what `store` holds. Who may read them is up to whoever mounts the router."""
    router = APIRouter(
        prefix="/reports",
        tags=["Reports"],
        responses={400: {"model": Refusal}, 503: {"model": Refusal}},
    )
    usage: dict[int | str, dict[str, Any]] = {200: {"model": UsageReport, "content": {_CSV: {}}}}

    async def report(
        request: Request,
        asked: Period,
        group_by: tuple[Group, ...],
        api: str | None,
        application: str | None,
        step: int = 0,
        subscription: str | None = None,
    ) -> Response:
        aggregation = Aggregation(group_by, step)
        await aggregation.add_all(store.rows(asked.selection(api, application, subscription)))
        gaps = await store.gaps(asked.from_ms, asked.to_ms)
        lines = aggregation.timeline(asked) if step else aggregation.lines()
        return _usage_answer(request, asked, group_by, lines, aggregation.total(), gaps)

    @router.get("/usage", summary="Usage by any grouping", responses=usage)
    async def by_groups(
        request: Request,
        from_: _From = None,
        to: _To = None,
        group_by: _GroupBy = None,
        api: _Api = None,
        application: _Application = None,
        subscription: _Subscription = None,
    ) -> Response:
        async def made() -> Response:
            only(
                request.query_params,
                ("from", "to", "groupBy", "api", "application", "subscription"),
            )
            asked = period(from_, to, clock())
            chosen = groups(group_by)
            return await report(request, asked, chosen, api, application, subscription=subscription)

        return await _or_refusal(made)

    @router.get("/apis", summary="Usage by API", responses=usage)
    async def by_api(
        request: Request, from_: _From = None, to: _To = None, application: _Application = None
    ) -> Response:
        async def made() -> Response:
            only(request.query_params, ("from", "to", "application"))
            asked = period(from_, to, clock())
            return await report(request, asked, ("api",), None, application)

        return await _or_refusal(made)

    @router.get("/apis/{api}", summary="Usage of one API by operation", responses=usage)
    async def by_operation(
        request: Request,
        api: str,
        from_: _From = None,
        to: _To = None,
        application: _Application = None,
    ) -> Response:
        async def made() -> Response:
            only(request.query_params, ("from", "to", "application"))
            asked = period(from_, to, clock())
            return await report(request, asked, ("operation",), api, application)

        return await _or_refusal(made)

    @router.get("/applications", summary="Usage by application", responses=usage)
    async def by_application(
        request: Request, from_: _From = None, to: _To = None, api: _Api = None
    ) -> Response:
        async def made() -> Response:
            only(request.query_params, ("from", "to", "api"))
            asked = period(from_, to, clock())
            return await report(request, asked, ("application",), api, None)

        return await _or_refusal(made)

    @router.get("/timeline", summary="Usage over time, without holes", responses=usage)
    async def over_time(
        request: Request,
        from_: _From = None,
        to: _To = None,
        step: _Step = None,
        api: _Api = None,
        application: _Application = None,
    ) -> Response:
        async def made() -> Response:
            only(request.query_params, ("from", "to", "step", "api", "application"))
            asked = period(from_, to, clock())
            distance = step_minutes(step, asked)
            return await report(request, asked, ("minute",), api, application, distance)

        return await _or_refusal(made)

    @router.get("/gaps", summary="What is missing", responses={200: {"model": GapReport}})
    async def gaps(request: Request, from_: _From = None, to: _To = None) -> Response:
        async def made() -> Response:
            only(request.query_params, ("from", "to"))
            asked = period(from_, to, clock())
            return _gap_answer(request, await store.gaps(asked.from_ms, asked.to_ms))

        return await _or_refusal(made)

    return router


async def _or_refusal(made: Callable[[], Awaitable[Response]]) -> Response:
    try:
        return await made()
    except InvalidQuery as error:
        faults = [{"field": error.field, "message": error.message}]
        return _json(Refusal(message="Invalid query", errors=faults), 400)
    except TotalsUnavailable as error:
        log.warning("report not available", reason=error.reason)
        answer = _json(Refusal(message="The usage totals are unavailable, try again"), 503)
        answer.headers["Retry-After"] = "5"
        return answer


def _usage_answer(
    request: Request,
    asked: Period,
    group_by: tuple[Group, ...],
    lines: Sequence[Line],
    total: Line,
    gaps: Sequence[Gap],
) -> Response:
    rows = [UsageRow(**line.names, **_measures(line)) for line in lines]
    if _wants_csv(request):
        return _as_csv(UsageRow, rows, [*(lines[0].names if lines else ()), *Measures.model_fields])
    return _json(
        UsageReport(
            status="success",
            from_=at(asked.from_minute * MINUTE_MS),
            to=at(asked.to_minute * MINUTE_MS),
            group_by=list(group_by),
            count=len(rows),
            lost_entries=sum(gap.entries for gap in gaps),
            total=Measures(**_measures(total)),
            rows=rows,
        )
    )


def _measures(line: Line) -> dict[str, int | float | None]:
    p50_us, p95_us, p99_us = line.latency.quantiles_us(0.5, 0.95, 0.99)
    return {
        "requests": line.requests,
        "errors": line.errors,
        "client_errors": line.client_errors,
        "refused": line.refused,
        "would_refuse": line.would_refuse,
        "request_bytes": line.request_bytes,
        "response_bytes": line.response_bytes,
        "p50_ms": _ms(p50_us),
        "p95_ms": _ms(p95_us),
        "p99_ms": _ms(p99_us),
        "mean_ms": _ms(line.duration_us / line.timed if line.timed else None),
        "upstream_mean_ms": _ms(line.upstream_us / line.timed if line.timed else None),
    }


def _gap_answer(request: Request, gaps: Sequence[Gap]) -> Response:
    rows = [
        GapRow(
            node=gap.node,
            entries=gap.entries,
            since=at(gap.since_ms),
            until=at(gap.until_ms),
            reason=gap.reason,
        )
        for gap in gaps
    ]
    if _wants_csv(request):
        return _as_csv(GapRow, rows, list(GapRow.model_fields))
    lost = sum(gap.entries for gap in gaps)
    return _json(GapReport(count=len(rows), lost_entries=lost, rows=rows))


def _ms(us: float | None) -> float | None:
    return None if us is None else round(us / 1000, 3)


def _json(body: BaseModel, status: int = 200) -> Response:
    # what was not grouped by is not there; what cannot be known (a percentile of nothing) is null
    text = body.model_dump_json(by_alias=True, exclude_unset=isinstance(body, UsageReport))
    return Response(text, status, media_type="application/json")


def _wants_csv(request: Request) -> bool:
    accepted = request.headers.get("accept", "")
    return any(one.split(";")[0].strip().lower() == _CSV for one in accepted.split(","))


def _as_csv(model: type[BaseModel], rows: Sequence[BaseModel], names: Sequence[str]) -> Response:
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\r\n")  # RFC 4180
    table.writerow([model.model_fields[name].alias or name for name in names])
    for row in rows:
        table.writerow([_cell(getattr(row, name)) for name in names])
    return Response(text.getvalue(), media_type=f"{_CSV}; charset=utf-8; header=present")


def _cell(value: str | float | None) -> str | float:
    if value is None:
        return ""
    if isinstance(value, str) and value.startswith(_FORMULA):
        return f"'{value}"
    return value
