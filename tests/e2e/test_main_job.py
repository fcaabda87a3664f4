"""The main job, as a new user does it: from nothing to a protected call, and what comes after."""

import json
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
import pytest_asyncio
import yaml

from tests.e2e.waiting import until
from tests.servers.gateway import Gateway, gateway, rest_api
from tests.servers.http_backend import HttpBackend, http_backend


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running() -> AsyncIterator[Gateway]:
    async with gateway(tier="standard") as made:
        yield made


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def backend() -> AsyncIterator[HttpBackend]:
    async with http_backend() as made:
        yield made


pytestmark = pytest.mark.asyncio(loop_scope="module")


async def applied(running: Gateway, document: object, folder: Path) -> str:
    """What `signalbox apply` says of the document, which must go live."""
    file = folder / "api.yaml"
    file.write_text(yaml.safe_dump(document))
    code, out, err = await running.cli("apply", "-f", str(file))
    assert code == 0, out + err
    return out


async def test_an_openapi_document_becomes_a_protected_api(
    running: Gateway, backend: HttpBackend, tmp_path: Path
) -> None:
    fixture = next((Path(__file__).parents[1] / "fixtures").glob("*petstore*.y*ml"))
    code, out, err = await running.cli(
        "import", "openapi", str(fixture), "--upstream", f"{backend.url}/v3", "--name", "petstore"
    )
    assert code == 0, err
    document = yaml.safe_load(out)
    context = document["spec"]["context"].replace("$version", document["spec"]["version"])
    document["spec"]["policies"] = [
        {"name": "api-key-auth", "params": {"key": "X-API-Key", "in": "header"}},
        {"name": "basic-ratelimit", "params": {"limits": [{"requests": 5, "duration": "1m"}]}},
    ]
    said = await applied(running, document, tmp_path)
    assert "live on 1 of 1 routers" in said
    assert "revision 1" in said

    async with httpx.AsyncClient(base_url=running.url + context) as caller:
        refused = await caller.get("/pet/7")
        assert refused.status_code == 401
        assert refused.headers["content-type"].startswith("application/json")
        assert "error" in refused.json()

        code, out, err = await running.cli(
            "keys", "create", "petstore", "--name", "first", "-o", "json"
        )
        assert code == 0, err
        key = json.loads(out)["apiKey"]["apiKey"]
        caller.headers["X-API-Key"] = key
        first = await until(lambda: caller.get("/pet/7"), lambda one: one.status_code != 401)
        assert first.status_code == 200
        assert first.json()["path"] == "/v3/pet/7"
        told = dict(first.json()["headers"])
        assert key not in str(told)
        answers = [(await caller.get("/pet/7")).status_code for _ in range(6)]
        assert answers.count(429) >= 1
        limited = await caller.get("/pet/7")
        assert limited.status_code == 429
        assert limited.json()["message"].startswith("Rate limit exceeded")
        assert limited.headers["retry-after"]


async def test_usage_tells_what_was_served(running: Gateway, backend: HttpBackend) -> None:
    async with running.api() as api, httpx.AsyncClient(base_url=running.url) as caller:
        await api.post("/rest-apis", json=rest_api("counted", backend.url))
        await until(lambda: caller.get("/counted/x"), lambda one: one.status_code == 200)
        for _ in range(20):
            assert (await caller.get("/counted/x")).status_code == 200

    async def usage() -> dict[str, dict[str, object]]:
        code, out, err = await running.cli("usage", "-o", "json")
        assert code == 0, err
        rows = json.loads(out)
        rows = rows["rows"] if isinstance(rows, dict) else rows
        return {row["api"]: row for row in rows}

    rows = await until(usage, lambda seen: int(seen.get("counted", {}).get("requests", 0)) >= 21)  # type: ignore[call-overload]
    assert rows["counted"]["requests"] == 21


async def test_a_changed_upstream_is_live_and_a_broken_api_says_why(
    running: Gateway, backend: HttpBackend, tmp_path: Path
) -> None:
    document = rest_api("moving", f"{backend.url}/one")
    await applied(running, document, tmp_path)
    async with httpx.AsyncClient(base_url=running.url) as caller:
        assert (await caller.get("/moving/x")).json()["path"] == "/one/x"
        document["spec"]["upstream"]["main"]["url"] = f"{backend.url}/two"
        assert "revision 2" in await applied(running, document, tmp_path)
        assert (await caller.get("/moving/x")).json()["path"] == "/two/x"
        assert "unchanged" in await applied(running, document, tmp_path)

        # a header match that only Envoy's own regular expressions refuse
        document["spec"]["operations"] = [
            {
                "match": {
                    "method": "GET",
                    "path": {"value": "/x"},
                    "headers": [{"name": "x-a", "value": "a{1001}", "type": "RegularExpression"}],
                }
            }
        ]
        file = tmp_path / "broken.yaml"
        file.write_text(yaml.safe_dump(document))
        code, out, err = await running.cli("apply", "-f", str(file))
        assert code != 0
        assert "repetition" in out + err
        assert (await caller.get("/moving/x")).json()["path"] == "/two/x"


async def test_a_wrong_document_names_the_field(running: Gateway, tmp_path: Path) -> None:
    document = rest_api("wrong", "ftp://u.example")
    document["spec"]["operatons"] = []
    file = tmp_path / "wrong.yaml"
    file.write_text(yaml.safe_dump(document))
    code, out, err = await running.cli("apply", "-f", str(file))
    assert code == 1
    assert "spec.upstream.main.url" in out + err
    assert "spec.operatons" in out + err


async def test_a_deleted_api_is_gone(running: Gateway, backend: HttpBackend) -> None:
    async with running.api() as api, httpx.AsyncClient(base_url=running.url) as caller:
        await api.post("/rest-apis", json=rest_api("shortlived", backend.url))
        await until(lambda: caller.get("/shortlived/x"), lambda one: one.status_code == 200)
        code, _, err = await running.cli("delete", "rest-api", "shortlived")
        assert code == 0, err
        gone = await until(lambda: caller.get("/shortlived/x"), lambda one: one.status_code == 404)
        assert gone.headers["content-type"].startswith("application/json")


async def test_https_is_served_with_a_development_certificate(
    running: Gateway, backend: HttpBackend
) -> None:
    async with running.api() as api:
        await api.post("/rest-apis", json=rest_api("secure", backend.url))
    url = f"https://127.0.0.1:{running.port('https')}/secure/x"
    async with httpx.AsyncClient(verify=False) as caller:
        answer = await until(lambda: caller.get(url), lambda one: one.status_code == 200)
    assert dict(answer.json()["headers"])["x-forwarded-proto"] == "https"
