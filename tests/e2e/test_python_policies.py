"""Python policies in a whole gateway: where they run, and what becomes of them when things die."""

import asyncio
import os
import signal
from pathlib import Path

import httpx

from tests.e2e.waiting import create, until
from tests.servers.gateway import Gateway, gateway, rest_api
from tests.servers.http_backend import http_backend

FOLDER_POLICY = '''
"""Marks requests."""

from policy_engine.hooks import PythonPolicy
from policy_engine.policy import Version


class Mark(PythonPolicy):
    """Tells the upstream and the caller a word."""

    name = "mark"
    version = Version(1, 0, 0)
    example = {"word": "x"}

    word: str
    """The word."""

    def on_request_headers(self, exchange):
        exchange.request.headers.set("x-mark", self.word)

    def on_response_headers(self, exchange):
        exchange.response.headers.set("x-mark", self.word)
'''
GUARDED = [
    {
        "name": "word-count-guardrail",
        "params": {"request": {"min": 1, "max": 3, "jsonPath": "$.text"}},
    }
]


def resident_mb(pid: int) -> float:
    words = Path(f"/proc/{pid}/statm").read_text().split()
    return int(words[1]) * os.sysconf("SC_PAGE_SIZE") / (1 << 20)


def total_mb(running: Gateway) -> float:
    pids = [*running.children().values(), running.process.pid]
    return sum(resident_mb(pid) for pid in pids)


async def test_a_gateway_without_python_policies_stays_small() -> None:
    async with gateway(tier="basic") as running, httpx.AsyncClient() as client:
        children = running.children()
        assert resident_mb(children["engine-0"]) < 16
        assert total_mb(running) < 240
        told = (await client.get(f"http://127.0.0.1:{running.port('engine_metrics')}/metrics")).text
        assert "policy_engine_workers_asleep 1.0" in told


async def test_python_policies_live_through_the_death_of_anything() -> None:
    async with http_backend() as backend, gateway(tier="basic") as running:
        (running.folder / "policies" / "mark.py").write_text(FOLDER_POLICY)
        marked = [{"name": "mark", "version": "v1", "params": {"word": "w"}}]
        async with running.api() as api, httpx.AsyncClient(base_url=running.url) as client:
            plain = rest_api("plain", backend.url)
            assert (await api.post("/rest-apis", json=plain)).status_code == 201
            document = rest_api("marked", backend.url, policies=marked)
            await create(api, document)
            post = [{"method": "POST", "path": "/*"}]
            guarded = rest_api("guarded", backend.url, policies=GUARDED, operations=post)
            assert (await api.post("/rest-apis", json=guarded)).status_code == 201

            async def marked_answer() -> httpx.Response:
                return await client.get("/marked/a")

            def is_marked(answer: httpx.Response) -> bool:
                return answer.status_code == 200 and answer.headers.get("x-mark") == "w"

            await until(marked_answer, is_marked)
            assert backend.last.header("x-mark") == "w"
            few, many = {"text": "one two"}, {"text": "one two three four"}
            await until(
                lambda: client.post("/guarded/a", json=few), lambda one: one.status_code == 200
            )
            assert (await client.post("/guarded/a", json=many)).status_code == 422

            # the Python process of all components dies: policies go on
            os.kill(running.children()["components"], signal.SIGKILL)
            for _ in range(50):
                assert is_marked(await marked_answer())
                await asyncio.sleep(0.01)

            # a worker dies: others do not notice, and it comes back by itself
            await running.kill("engine-0")
            assert (await client.get("/plain/a")).status_code == 200
            await until(marked_answer, is_marked)

            async def dumped() -> httpx.Response:
                port = running.port("engine_admin")
                return await client.get(f"http://127.0.0.1:{port}/config_dump")

            dump = await until(
                dumped,
                lambda one: one.status_code == 200 and one.json()["workers"]["processes"] != [],
            )
            workers = dump.json()["workers"]
            assert workers["total_hops"] == 2
            assert sorted(one["policies"] for one in workers["hops"]) == [
                ["mark"],
                ["word-count-guardrail"],
            ]
            port = running.port("engine_metrics")

            async def metrics() -> str:
                return (await client.get(f"http://127.0.0.1:{port}/metrics")).text

            wanted = 'policy_engine_policy_executions_total{phase="request_headers",policy="mark"}'
            await until(metrics, lambda text: wanted in text)
