"""A policy in the watched folder of a whole gateway: added, changed, broken, mended, lost."""

import asyncio
import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx

from tests.servers.gateway import Gateway, gateway, rest_api
from tests.servers.http_backend import http_backend

STAMP = '''
"""Stamps."""

from policy_engine.policy import DirectAnswer, Policy, Version


class Stamp(Policy):
    """Answers with a word."""

    name = "stamp"
    version = Version(1, 0, 0)
    example = {"word": "x"}

    word: str
    """The word."""

    def filters(self, scope):
        return ()

    def answer(self):
        return DirectAnswer(200, f"ONE {self.word}")
'''


def write(place: Path, text: str) -> None:
    new = place.with_name(f".{place.name}")
    new.write_text(text)
    new.replace(place)


async def becomes(what: Callable[[], Awaitable[Any]], wanted: Callable[[Any], bool]) -> Any:
    """What `what` gives once it is as `wanted`."""
    found = None
    try:
        async with asyncio.timeout(60):
            while True:
                found = await what()
                if wanted(found):
                    return found
                await asyncio.sleep(0.05)
    except TimeoutError:
        raise AssertionError(f"last seen: {found}") from None


async def test_a_file_in_the_folder_is_a_policy_until_it_breaks_and_beyond() -> None:
    async with http_backend() as backend, gateway(tier="basic") as running:
        folder = running.folder / "policies"
        policies = [{"name": "stamp", "version": "v1", "params": {"word": "w"}}]
        document = rest_api("stamped", backend.url, policies=policies)
        async with running.api() as api, httpx.AsyncClient(base_url=running.url) as client:

            async def created() -> httpx.Response:
                return await api.post("/rest-apis", json=document)

            async def text() -> str:
                answer = await client.get("/stamped/a")
                return f"{answer.status_code} {answer.text}"

            async def status() -> dict[str, Any]:
                got = await api.get("/rest-apis/stamped")
                return dict(got.json()["status"])

            refused = await created()
            assert refused.status_code == 400
            assert "policy 'stamp v1' not found" in refused.text

            write(folder / "stamp.py", STAMP)
            await becomes(created, lambda answer: answer.status_code == 201)
            await becomes(text, lambda answer: answer == "200 ONE w")

            write(folder / "stamp.py", STAMP.replace("ONE", "TWO"))
            await becomes(text, lambda answer: answer == "200 TWO w")

            write(folder / "stamp.py", STAMP.replace("ONE", "BAD") + "\nimport nothing_at_all\n")
            found = await becomes(status, lambda one: "fault" in one)
            assert "No module named 'nothing_at_all'" in found["fault"]
            assert "Traceback" in found["fault"]
            assert "reason" not in found
            assert await text() == "200 TWO w"
            code, out, _ = await running.cli("status")
            assert "policy fault: api/stamped: policy 'stamp'" in out, code

            await running.kill("components")
            await becomes(status_of(running), lambda one: "fault" in one)
            assert await text() == "200 TWO w"

            write(folder / "stamp.py", STAMP.replace("ONE", "FOUR"))
            await becomes(text, lambda answer: answer == "200 FOUR w")
            await becomes(status, lambda one: "fault" not in one)

            # it is lost, with all that was kept: closed, until it is there again
            (folder / "stamp.py").unlink()
            await becomes(status, lambda one: "its file is gone" in one.get("fault", ""))
            assert await text() == "200 FOUR w"
            shutil.rmtree(running.folder / "policies-kept")
            await running.kill("components")
            found = await becomes(status_of(running), lambda one: "reason" in one)
            assert "policy 'stamp v1' not found" in found["reason"]
            await becomes(text, lambda answer: answer.startswith("404"))
            write(folder / "stamp.py", STAMP)
            await becomes(text, lambda answer: answer == "200 ONE w")
            await becomes(status, lambda one: "reason" not in one and one["routers"]["live"] == 1)


def status_of(running: Gateway) -> Callable[[], Awaitable[dict[str, Any]]]:
    """The status of the API, empty while nobody answers."""

    async def ask() -> dict[str, Any]:
        try:
            async with running.api() as api:
                got = await api.get("/rest-apis/stamped")
            return dict(got.json().get("status") or {})
        except (httpx.TransportError, ValueError):
            return {}

    return ask


HOOKS = '''
from policy_engine.hooks import Answer, PythonPolicy
from policy_engine.policy import Version


class Hooked(PythonPolicy):
    """Answers in Python."""

    name = "hooked"
    version = Version(1, 0, 0)
    example = {}

    def on_request_headers(self, exchange):
        return Answer(200, b"ONE")
'''


async def test_changed_hooks_work_without_a_restart_and_without_a_failed_request() -> None:
    async with http_backend() as backend, gateway(tier="basic") as running:
        file = running.folder / "policies" / "hooked.py"
        write(file, HOOKS)
        document = rest_api("hooked", backend.url, policies=[{"name": "hooked"}])
        async with running.api() as api, httpx.AsyncClient(base_url=running.url) as client:

            async def created() -> httpx.Response:
                return await api.post("/rest-apis", json=document)

            async def text() -> str:
                answer = await client.get("/hooked/a")
                return f"{answer.status_code} {answer.text}"

            await becomes(created, lambda answer: answer.status_code == 201)
            await becomes(text, lambda answer: answer == "200 ONE")
            seen: list[str] = []

            async def noted() -> str:
                seen.append(await text())
                return seen[-1]

            for word in ("TWO", "THREE"):
                write(file, HOOKS.replace("ONE", word))
                await becomes(noted, lambda answer, word=word: answer == f"200 {word}")
            assert set(seen) == {"200 ONE", "200 TWO", "200 THREE"}

            write(file, "import nothing_at_all")

            async def fault() -> str:
                got = await api.get("/rest-apis/hooked")
                return str(got.json()["status"].get("fault", ""))

            await becomes(fault, lambda told: "nothing_at_all" in told)
            assert await text() == "200 THREE"
