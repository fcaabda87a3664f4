"""Conditions and shadow mode through the whole gateway: applied, served, told by usage."""

import json
from pathlib import Path

import httpx
import yaml

from tests.e2e.waiting import until
from tests.servers.gateway import gateway, rest_api
from tests.servers.http_backend import http_backend


async def test_conditions_are_served_and_shadows_are_told(tmp_path: Path) -> None:
    policies = [
        {
            "name": "respond",
            "params": {"statusCode": 418},
            "executionCondition": '"x-tea" in request.Headers',
        },
        {
            "name": "respond",
            "params": {"statusCode": 422},
            "executionCondition": 'has(request.Body.bad) && request.Body.bad == "yes"',
        },
        {"name": "api-key-auth", "mode": "shadow", "params": {"key": "API-Key", "in": "header"}},
        {
            "name": "word-count-guardrail",
            "mode": "shadow",
            "params": {"request": {"min": 1, "max": 1, "jsonPath": "$.words"}},
        },
    ]
    async with gateway(tier="standard") as running, http_backend() as backend:
        document = rest_api("tea", backend.url, context="/tea")
        document["spec"]["policies"] = policies
        document["spec"]["operations"] = [{"method": "POST", "path": "/*"}]
        file = tmp_path / "api.yaml"
        file.write_text(yaml.safe_dump(document))
        code, out, err = await running.cli("apply", "-f", str(file))
        assert code == 0, out + err

        async with httpx.AsyncClient(base_url=running.url) as caller:
            good = await caller.post("/tea/x", json={"words": "one"})
            assert (good.status_code, good.json()["path"]) == (200, "/x")
            tea = await caller.post("/tea/x", json={}, headers={"X-Tea": "1"})
            assert tea.status_code == 418
            bad = await caller.post("/tea/x", json={"words": "one", "bad": "yes"})
            assert bad.status_code == 422
            wordy = await caller.post("/tea/x", json={"words": "one two"})
            assert wordy.status_code == 200

        async def shadows() -> dict[str, int]:
            _, said, _ = await running.cli("usage", "--api", "tea", "--by", "shadow", "-o", "json")
            return {row["shadow"]: row["requests"] for row in json.loads(said)["rows"]}

        expected = {"": 2, "api-key-auth": 1, "api-key-auth,word-count-guardrail": 1}
        assert await until(shadows, lambda found: found == expected) == expected

        metrics = f"http://127.0.0.1:{running.port('metrics')}/metrics"
        async with httpx.AsyncClient() as client:
            text = (await client.get(metrics)).text
        assert 'signalbox_requests_shadow_total{policy="api-key-auth"} 2.0' in text

        document["spec"]["policies"] = [policies[0] | {"executionCondition": "request.Method ="}]
        file.write_text(yaml.safe_dump(document))
        code, out, err = await running.cli("apply", "-f", str(file))
        assert code != 0
        assert "spec.policies[0].executionCondition" in out + err
        assert "1:16" in out + err
