"""`signalbox plan` against a whole gateway: what it says, and that nothing happens."""

import json
from pathlib import Path
from typing import Any

import yaml

from tests.ctl import cli
from tests.servers.gateway import gateway, rest_api
from tests.servers.http_backend import http_backend


def write(place: Path, *documents: dict[str, Any]) -> str:
    place.write_text(yaml.safe_dump_all(documents, sort_keys=False))
    return str(place)


def bad_regex(name: str, upstream: str) -> dict[str, Any]:
    header = {"name": "x-a", "type": "RegularExpression", "value": "(a{1000}){1000}"}
    match = {"method": "GET", "path": {"value": "/a"}, "headers": [header]}
    return rest_api(name, upstream, operations=[{"match": match}])


async def test_a_plan_tells_changes_routes_policies_and_the_verdict(tmp_path: Path) -> None:
    secret = {"name": "basic-auth", "params": {"username": "u", "password": "open-sesame-1"}}
    async with http_backend() as backend, gateway(tier="basic") as running:
        shop = rest_api("shop", backend.url, policies=[secret])
        file = write(tmp_path / "a.yaml", shop)
        code, out, err = await running.cli("plan", "-f", file)
        assert code == 2, out + err
        assert out.startswith(f"api/shop: created ({file}:1)")
        assert "GET  /shop/*  *" in out
        assert "basic-auth" in out
        assert "Envoy would take it" in out
        assert err.strip() == "1 created; nothing was sent"
        async with running.api() as api:
            assert (await api.get("/rest-apis")).json()["apis"] == []

        assert (await running.cli("apply", "-f", file))[0] == 0
        code, out, err = await running.cli("plan", "-f", file)
        assert (code, out) == (0, f"api/shop: unchanged ({file}:1)\n")

        changed = json.loads(json.dumps(shop))
        changed["spec"]["policies"][0]["params"]["password"] = "open-sesame-2"
        changed["spec"]["upstream"]["main"]["url"] = f"{backend.url}/v2"
        write(tmp_path / "a.yaml", changed)
        code, out, err = await running.cli("plan", "-f", file, "--json")
        assert code == 2
        (planned,) = json.loads(out)
        assert planned["action"] == "changed"
        fields = {one["field"]: one for one in planned["fields"]}
        assert fields["spec.upstream.main.url"]["after"] == f"{backend.url}/v2"
        assert fields["spec.policies[0].params.password"]["after"] == "********** (changed)"
        assert planned["routes"] == [{"method": "GET", "path": "/shop/*", "hosts": ["*"]}]
        assert planned["policies"][0]["runs"] == "envoy"
        assert planned["verdict"] == {"by": "envoy", "accepted": True, "reason": None}
        assert "open-sesame" not in out + err

        conflict = rest_api("thief", backend.url, context="/shop", displayName="thief")
        invalid = rest_api("wrong", backend.url, policies=[{"name": "basic-auth", "params": {}}])
        write(tmp_path / "b.yaml", conflict, bad_regex("bad", backend.url), invalid)
        code, out, err = await running.cli("plan", "-f", str(tmp_path / "b.yaml"))
        assert code == 1
        assert "shop" in next(line for line in out.splitlines() if "problem" in line)
        assert "Envoy refuses it: invalid repetition size" in out
        lines = (tmp_path / "b.yaml").read_text().splitlines()
        line = next(n for n, text in enumerate(lines, 1) if "basic-auth" in text)
        assert f"b.yaml:{line + 1}: spec.policies[0].params.username" in out
        assert "3 with problems" in err

        write(tmp_path / "c.yaml", rest_api("other", backend.url))
        code, out, _ = await running.cli("apply", "-f", file, "--applied-set", "s")
        assert code == 0
        code, out, _ = await running.cli(
            *("plan", "-f", str(tmp_path / "c.yaml"), "--applied-set", "s", "--prune")
        )
        assert code == 2
        assert "api/shop: pruned" in out
        async with running.api() as api:
            names = [
                one["metadata"]["name"] for one in (await api.get("/rest-apis")).json()["apis"]
            ]
            assert names == ["shop"]
            said = (await api.get("/policies")).json()
            assert {one["name"] for one in said["policies"]} >= {"cors", "jwt-auth"}
            assert (await api.post("/plan", json={"documents": "x"})).status_code == 400
            anonymous = await api.post("/plan", json={"documents": []}, auth=("nobody", "x"))
            assert anonymous.status_code == 401

        code, _, err = await running.cli("plan", "-f", str(tmp_path / "missing.yaml"))
        assert code == 1
        assert "no such file" in err


async def test_a_plan_needs_no_gateway_with_offline(tmp_path: Path) -> None:
    file = write(tmp_path / "a.yaml", rest_api("a", "http://u.example"))
    bad = write(tmp_path / "b.yaml", bad_regex("b", "http://u.example"))
    env = cli.environment(tmp_path)
    good = await cli.run("plan", "-f", file, "--offline", env=env)
    assert good.code == 0, good.err
    assert "Envoy would take it" in good.out
    assert "nothing was compared" in good.err
    refused = await cli.run("plan", "-f", bad, "--offline", env=env)
    assert refused.code == 1
    assert "Envoy refuses it" in refused.out
    online = await cli.run("plan", "-f", file, "--url", "http://127.0.0.1:9", env=env)
    assert online.code == 3
