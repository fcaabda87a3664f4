"""`signalbox usage` on the real reports."""

import asyncio
import json
import signal
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from time import time

import pytest
import pytest_asyncio

from analytics.memory import MemoryTotals
from analytics.reports import reports_router
from analytics.totals import Batch, Gap, fold
from bus.route_key import RouteKey
from bus.usage import RequestsServed, ServedGroup
from ctl.commands.usage import bytes_text
from tests.ctl import cli
from tests.ctl.running import Running, running


def served(
    at_ms: int, route: str, status: int, details: str, durations_us: list[int]
) -> RequestsServed:
    count = len(durations_us)
    return RequestsServed(
        node="router-1",
        since_ms=at_ms,
        groups=(ServedGroup(route=route, application="shop", status=status, details=details),),
        group=(0,) * count,
        after_ms=(0,) * count,
        duration_us=tuple(durations_us),
        upstream_us=tuple(durations_us),
        request_bytes=(100,) * count,
        response_bytes=(1024,) * count,
    )


@pytest.fixture
def totals() -> MemoryTotals:
    return MemoryTotals()


@pytest_asyncio.fixture
async def gateway(tmp_path: Path, totals: MemoryTotals) -> AsyncIterator[Running]:
    now_ms = int(time() * 1000)
    pets = str(RouteKey("GET", "/pets/{id}", "*", "petstore"))
    orders = str(RouteKey("POST", "/orders", "*", "orders"))
    events = [
        served(now_ms, pets, 200, "via_upstream", [5_000] * 30),
        served(now_ms, orders, 503, "upstream_reset_before_response", [7_000] * 2),
        served(now_ms, orders, 429, "local_rate_limited", [90] * 5),
        served(now_ms, "", 404, "route_not_found", [80]),
        served(now_ms - 3 * 3_600_000, pets, 200, "via_upstream", [5_000] * 9),
    ]
    await totals.count([Batch(str(number), fold(event)) for number, event in enumerate(events)])
    routers = (reports_router(totals, clock=lambda: datetime.now(UTC)),)
    async with running(tmp_path / "data", extra_routers=routers) as one:
        yield one


async def test_usage_is_a_table_by_api_with_a_total(gateway: Running) -> None:
    result = await gateway.cli("usage")
    assert (result.code, result.err) == (0, "")
    header, *rows = (line.split() for line in result.out.splitlines())
    assert header[:5] == ["API", "REQUESTS", "5XX", "4XX", "REFUSED"]
    assert [row[:5] for row in rows] == [
        ["petstore", "30", "0", "0", "0"],
        ["orders", "7", "2", "0", "5"],
        ["(no", "route)", "1", "0", "1"],
        ["total", "38", "2", "1", "5"],
    ]
    p50_ms = float(rows[0][5])
    assert p50_ms == pytest.approx(5.0, rel=0.05)
    assert rows[0][-2:] == ["2.9K", "30.0K"]


async def test_usage_is_grouped_and_selected(gateway: Running) -> None:
    by_status = await gateway.cli("usage", "--by", "status", "--api", "orders", "-o", "name")
    assert by_status.out == "4xx limited\n5xx unavailable\n"
    operation = await gateway.cli("usage", "--by", "operation", "--api", "petstore")
    assert operation.out.splitlines()[1].split()[:3] == ["GET", "/pets/{id}", "30"]
    longer = await gateway.cli("usage", "--since", "1d", "--api", "petstore", "-o", "json")
    assert json.loads(longer.out)["rows"][0]["requests"] == 39
    several = await gateway.cli("usage", "--by", "application", "--by", "status", "-o", "json")
    assert json.loads(several.out)["groupBy"] == ["application", "status"]


async def test_what_policies_in_shadow_mode_would_have_refused_has_a_column(
    gateway: Running, totals: MemoryTotals
) -> None:
    assert "WOULD BLOCK" not in (await gateway.cli("usage")).out
    route = str(RouteKey("GET", "/pets/{id}", "*", "petstore"))
    event = served(int(time() * 1000), route, 200, "via_upstream", [5_000] * 4)
    (group,) = event.groups
    told = group.model_copy(update={"shadow": ("csrf: no origin",)})
    await totals.count([Batch("shadow", fold(event.model_copy(update={"groups": (told,)})))])
    header, first, second, *_ = (await gateway.cli("usage", "--by", "shadow")).out.splitlines()
    assert "WOULD BLOCK" in header
    rows = {line.split()[0]: line.split()[1:6] for line in (first, second)}
    assert rows["csrf"] == ["4", "0", "0", "0", "4"]


async def test_usage_of_nothing_says_so(gateway: Running) -> None:
    result = await gateway.cli("usage", "--api", "none")
    assert (result.code, result.out) == (0, "")
    assert result.err == "nothing was served in this time\n"


async def test_usage_tells_what_was_not_counted(gateway: Running, totals: MemoryTotals) -> None:
    now_ms = int(time() * 1000)
    gap = Gap("router-1", 17, now_ms - 1000, now_ms - 500, "buffer-full")
    await totals.count([Batch("gap", gap=gap)])
    result = await gateway.cli("usage")
    assert "17 requests of this time were served but not counted" in result.err


async def test_a_time_that_is_none_is_a_wrong_call(gateway: Running) -> None:
    result = await gateway.cli("usage", "--since", "yesterday")
    assert result.code == 2
    late = await gateway.cli("usage", "--until", "2d", "--since", "1d")
    assert late.code == 1
    assert "from: must be before to" in late.err


async def test_watching_shows_it_again_until_it_is_interrupted(gateway: Running) -> None:
    env = cli.environment(gateway.folder)
    process = await cli.start("usage", "-w", "--interval", "0.2", "-o", "name", env=env)
    assert process.stdout is not None
    async with asyncio.timeout(60):
        lines = [await process.stdout.readline() for _ in range(7)]
        process.send_signal(signal.SIGINT)
        _, err = await process.communicate()
    assert lines == [b"petstore\n", b"orders\n", b"(no route)\n"] * 2 + [b"petstore\n"]
    assert (process.returncode, err) == (130, b"")


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0"), (1023, "1023"), (1536, "1.5K"), (5 << 20, "5.0M"), (3 << 40, "3.0T")],
)
def test_bytes_are_in_their_largest_unit(count: int, text: str) -> None:
    assert bytes_text(count) == text
