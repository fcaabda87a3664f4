"""Every policy of the catalogue against plain routing, in one run through a whole gateway.

`python -m tests.bench.catalogue [--write] [--rounds N] [NAME...]`: with `--write` the table goes to
docs/policy-costs.md. 1.00 is free: an API without policies, in the same gateway, measured beside
each case. A policy that is in no case below stops the run.
"""

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from policy_engine.catalogue import load
from tests.bench.load import OTHERS_CORE, ROUTER_CORE, Result, cpu_s, pin, upstream, wrk
from tests.bench.policy_cases import CASES, NOT_MEASURED, Case, Environment, environment
from tests.servers.gateway import Gateway, gateway, rest_api

PAGE = Path(__file__).parents[2] / "docs" / "policy-costs.md"
API = "measured"
PLAIN_GET, PLAIN_POST = "/plain-get", "/plain-post"
SECONDS = 1
ROUNDS = 7


@dataclass(slots=True)
class Row:
    """One case, measured."""

    case: Case
    ratios: list[float] = field(default_factory=list)
    router_us: list[float] = field(default_factory=list)  # Envoy's CPU per request
    plain_us: list[float] = field(default_factory=list)
    python_us: list[float] = field(default_factory=list)  # of all our processes
    plain_python_us: list[float] = field(default_factory=list)  # as the access log costs

    def cells(self) -> tuple[str, ...]:
        """As the table shows them; the least CPU of all rounds, because noise only adds to it."""
        return (
            self.case.title,
            self.case.where,
            f"{statistics.median(self.ratios):.2f}",
            f"{min(self.ratios):.2f} to {max(self.ratios):.2f}",
            f"{min(self.plain_us) / min(self.router_us):.2f}",
            f"{max(0.0, min(self.router_us) - min(self.plain_us)):.0f}",
            f"{max(0.0, min(self.python_us) - min(self.plain_python_us)):.0f}"
            if self.case.where != "Envoy"
            else "",
        )


HEADS = (
    *("policy", "runs in", "throughput", "range", "by Envoy's CPU"),
    *("extra µs in Envoy", "µs in Python"),
)


def uncovered() -> set[str]:
    """Policies of the catalogue that no case measures and nothing excuses."""
    return {one.name for one in load(())} - {one.policy for one in CASES} - set(NOT_MEASURED)


async def measure(
    running: Gateway, case: Case, path: str, environment: Environment
) -> tuple[Result, float, float]:
    """One run: with Envoy's and Python's CPU microseconds per request."""
    processes = running.children()
    router = processes["envoy"]
    pythons = [pid for name, pid in processes.items() if name.startswith(("components", "engine"))]
    before = cpu_s(router), sum(map(cpu_s, pythons))
    with script(case) as lua:
        result = await wrk(
            running.url + case.path(f"/{API}{path}", environment),
            seconds=SECONDS,
            headers=case.headers(environment),
            script=lua,
        )
    if result.requests == 0 or (result.failures and not case.refuses):
        raise SystemExit(f"{case.title}: {result.failures} of {result.requests} failed")
    spent = (cpu_s(router) - before[0], sum(map(cpu_s, pythons)) - before[1])
    return result, *(one / result.requests * 1e6 for one in spent)


@contextmanager
def script(case: Case) -> Iterator[str | None]:
    """What wrk needs for a request with a body."""
    if case.body is None:
        yield None
        return
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as file:
        file.write('wrk.method = "POST"\nwrk.headers["Content-Type"] = "application/json"\n')
        file.write(f"wrk.body = {json.dumps(case.body)}\n")
        file.flush()
        yield file.name


def document(cases: Sequence[Case], url: str, around: Environment) -> dict[str, Any]:
    """One API, an operation per case."""
    operations: list[dict[str, Any]] = [
        {"method": "GET", "path": PLAIN_GET},
        {"method": "POST", "path": PLAIN_POST},
    ]
    for number, case in enumerate(cases):
        method = "GET" if case.body is None else "POST"
        operations.append(
            {"method": method, "path": f"/{number}", "policies": around.filled(case.policies)}
        )
    return rest_api(
        API,
        url,
        operations=operations,
        upstreamDefinitions=[{"name": "other", "upstreams": [{"url": url}]}],
    )


async def table(cases: Sequence[Case], rounds: int) -> list[Row]:
    """All of `cases`, each round of each beside a plain one."""
    rows = [Row(case) for case in cases]
    async with (
        upstream() as url,
        environment() as around,
        gateway(tier="standard", environment=around.settings) as running,
    ):
        async with running.api() as api:
            answer = await api.post("/rest-apis", json=document(cases, url, around))
            if answer.status_code != httpx.codes.CREATED:
                raise SystemExit(answer.text)
            await around.prepare(api, API)
        async with httpx.AsyncClient(base_url=running.url, timeout=30) as caller:
            async with asyncio.timeout(60):
                while (await caller.get(f"/{API}{PLAIN_GET}")).status_code != httpx.codes.OK:
                    await asyncio.sleep(0.05)
        for name, pid in running.children().items():
            pin(pid, ROUTER_CORE if name == "envoy" else OTHERS_CORE)
        for number, row in enumerate(rows):
            plain = PLAIN_GET if row.case.body is None else PLAIN_POST
            bare = Case("", "plain", (), body=row.case.body)
            with suppress(SystemExit):  # the last key may be on its way yet
                await measure(running, row.case, f"/{number}", around)
            for turn in range(rounds):
                pair = [(row.case, f"/{number}"), (bare, plain)]
                found = {}
                for case, path in pair if turn % 2 else reversed(pair):
                    found[case is bare] = await measure(running, case, path, around)
                row.ratios.append(found[False][0].requests_per_s / found[True][0].requests_per_s)
                row.router_us.append(found[False][1])
                row.plain_us.append(found[True][1])
                row.python_us.append(found[False][2])
                row.plain_python_us.append(found[True][2])
            print(" | ".join(row.cells()), flush=True)
    return rows


def page(rows: Sequence[Row], rounds: int) -> str:
    """The documentation page."""
    lines = [
        "# What policies cost",
        "",
        "Throughput of an operation with the policy against one without, both in one gateway at",
        f"full load on one Envoy worker: the median of {rounds} pairs of runs, each pair one after",
        "the other. 1.00 is free. Written by `python -m tests.bench.catalogue --write`; ratios",
        "carry over to other machines, absolute figures do not. A POST carries 1 KB of JSON and is",
        "compared with a plain POST. The access log is on for both.",
        "",
        "| " + " | ".join(HEADS) + " |",
        "|" + "---|" * len(HEADS),
        *("| " + " | ".join(row.cells()) + " |" for row in rows),
        "",
    ]
    if NOT_MEASURED:
        lines += ["Not in the table:", ""]
        lines += [f"- `{name}`: {why}" for name, why in sorted(NOT_MEASURED.items())]
        lines.append("")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("names", nargs="*")
    asked = parser.parse_args()
    if not asked.names and uncovered():
        print(f"no case measures {', '.join(sorted(uncovered()))}", file=sys.stderr)
        return 1
    cases = [one for one in CASES if not asked.names or one.policy in asked.names]
    print(" | ".join(HEADS), flush=True)
    rows = asyncio.run(table(cases, asked.rounds))
    if asked.write:
        PAGE.write_text(page(rows, asked.rounds), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
