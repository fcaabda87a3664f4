"""Reports over HTTP, on both stores, against golden files."""

import csv
import io
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI

from analytics.errors import TotalsUnavailable
from analytics.memory import MemoryTotals
from analytics.reports import reports_router
from analytics.sql import open_totals
from analytics.totals import Batch, Gap, fold
from tests.analytics.batches import HOUR_MINUTE, HOUR_MS, ORDERS, WEATHER, Call, served

NOW = datetime.fromtimestamp(HOUR_MS / 1000, UTC) + timedelta(minutes=90)
GOLDEN = Path(__file__).parent / "golden"

CALLS = [
    *(Call(at_ms=HOUR_MS + n * 600_000, duration_us=1000 * (n + 1)) for n in range(8)),
    *(Call(route=ORDERS, application="shop", duration_us=50_000, upstream_us=0) for _ in range(3)),
    Call(route=ORDERS, application="shop", status=503, details="upstream_reset_before_response"),
    Call(route=ORDERS, application="shop", status=429, details="local_rate_limited"),
    Call(route=ORDERS, status=401, details="missing_api_key", duration_us=90),
    Call(route=WEATHER, status=404, at_ms=HOUR_MS + 60_000),
    Call(route="", status=404, details="route_not_found", duration_us=80, upstream_us=0),
    Call(route="", status=400, details="path_normalization_failed", duration_us=70),
    Call(route=WEATHER, status=0, details="downstream_remote_disconnect", duration_us=999_999),
]
GAP = Gap("router-1", 17, HOUR_MS + 60_000, HOUR_MS + 61_000, "buffer-full")

CASES = {
    "usage": "/usage",
    "usage-by-all": "/usage?groupBy=api,operation,application,status",
    "usage-by-hour": "/usage?groupBy=hour,api&from=3h",
    "usage-of-api": "/usage?groupBy=status&api=orders&application=shop",
    "usage-unrouted": "/usage?groupBy=status&api=-",
    "apis": "/apis",
    "api": "/apis/orders",
    "applications": "/applications",
    "timeline": "/timeline?from=2025-11-23T00:00:00Z&to=2025-11-23T01:30:00%2B00:00&step=15m",
    "gaps": "/gaps",
    "nothing": "/usage?from=2025-11-20&to=2025-11-21",
}


@pytest.fixture(params=["memory", "sqlite"])
async def store(request, tmp_path):
    if request.param == "memory":
        opened = MemoryTotals()
        await opened.count([Batch("one", fold(served(CALLS))), Batch("gap", gap=GAP)])
        yield opened
    else:
        async with open_totals(f"sqlite+aiosqlite:///{tmp_path}/totals.db") as opened:
            await opened.count([Batch("one", fold(served(CALLS))), Batch("gap", gap=GAP)])
            yield opened


def client_of(store):
    app = FastAPI()
    app.include_router(reports_router(store, clock=lambda: NOW), prefix="/api")
    transport = httpx.ASGITransport(app=app)
    return httpx.AsyncClient(transport=transport, base_url="http://test/api/reports")


@pytest.fixture
async def client(store):
    async with client_of(store) as opened:
        yield opened


@pytest.mark.parametrize("name", CASES)
async def test_report(name, client, golden):
    answer = await client.get(CASES[name])
    assert answer.status_code == 200, answer.text
    golden(GOLDEN / f"report-{name}.json", answer.json())


async def test_a_report_is_csv_when_asked_for(client, golden):
    answer = await client.get(CASES["usage-by-all"], headers={"Accept": "text/csv"})
    assert answer.headers["content-type"].startswith("text/csv")
    golden(GOLDEN / "report-usage-by-all.csv", answer.text.replace("\r\n", "\n"))
    gaps = await client.get("/gaps", headers={"Accept": "text/csv"})
    assert gaps.text.splitlines()[0] == "node,entries,since,until,reason"


async def test_a_spreadsheet_does_not_run_the_name_of_an_application():
    store = MemoryTotals()
    await store.count([Batch("one", fold(served([Call(application="=1+1")])))])
    async with client_of(store) as client:
        answer = await client.get("/applications", headers={"Accept": "text/csv"})
    (row,) = csv.DictReader(io.StringIO(answer.text))
    assert row["application"] == "'=1+1"


@pytest.mark.parametrize(
    ("path", "field", "words"),
    [
        ("/usage?groupBy=apis", "groupBy", "unknown group 'apis'; known: api, operation"),
        ("/usage?groupBy=minute,hour", "groupBy", "exclude each other"),
        ("/usage?from=yesterday", "from", "neither a moment"),
        ("/usage?from=99999999999d", "from", "neither a moment"),
        ("/usage?from=999999w", "from", "neither a moment"),
        ("/usage?to=1066-10-14", "to", "neither a moment"),
        ("/usage?from=1h&to=2h", "from", "must be before to"),
        ("/usage?since=1h", "since", "unknown parameter; known: api, application, from, groupBy"),
        ("/timeline?step=90", "step", "is not a step"),
        ("/timeline?step=0m", "step", "is not a step"),
        ("/timeline?from=52w&step=1m", "step", "more than 5000 points"),
        ("/apis?api=weather", "api", "unknown parameter"),
        ("/gaps?from=x", "from", "neither a moment"),
    ],
)
async def test_a_wrong_question_is_refused_by_name(path, field, words, client):
    answer = await client.get(path)
    assert answer.status_code == 400
    body = answer.json()
    assert body["status"] == "error"
    assert body["message"] == "Invalid query"
    (fault,) = body["errors"]
    assert fault["field"] == field
    assert words in fault["message"]


async def test_hours_are_not_shown_as_minutes(store, client):
    await store.roll_up(HOUR_MINUTE + 60)
    by_hour = await client.get("/usage?groupBy=hour")
    assert by_hour.json()["total"]["requests"] == len(CALLS)
    assert (await client.get("/timeline?step=1h")).status_code == 200
    for path in ("/usage?groupBy=minute", "/timeline?step=30m"):
        answer = await client.get(path)
        assert answer.status_code == 400
        assert "kept by the hour" in answer.json()["errors"][0]["message"]


async def test_a_store_that_is_away_is_503():
    class Away(MemoryTotals):
        async def rows(self, selection):
            raise TotalsUnavailable("down")
            yield

    async with client_of(Away()) as client:
        answer = await client.get("/usage")
    assert answer.status_code == 503
    assert answer.json()["status"] == "error"
    assert int(answer.headers["retry-after"]) > 0


async def test_the_reports_are_documented(store):
    app = FastAPI()
    app.include_router(reports_router(store))
    document = app.openapi()
    assert set(document["paths"]) == {
        "/reports/usage",
        "/reports/apis",
        "/reports/apis/{api}",
        "/reports/applications",
        "/reports/timeline",
        "/reports/gaps",
    }
    names = {one["name"] for one in document["paths"]["/reports/usage"]["get"]["parameters"]}
    assert names == {"from", "to", "groupBy", "api", "application", "subscription"}
