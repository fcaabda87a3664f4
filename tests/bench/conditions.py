"""Conditions, shadow mode and slots that nobody uses, against the same without, in one Envoy.

`python -m tests.bench.conditions [ROUNDS]`: every measurement has a plain one of its own beside it.
Envoy's CPU time per request is the least of all rounds: noise only adds to it.
"""

import asyncio
import statistics
import sys
from collections.abc import Iterable
from typing import Any

import yaml

from policy_engine.catalogue import load
from policy_engine.policy import Credential
from tests.bench.load import ROUTER_CORE, cpu_s, pin, upstream, wrk
from tests.servers.envoy import envoy
from tests.xds.routing import api, scopes
from xds.compile.api import compile_api
from xds.compile.slots import slots
from xds.listener import listeners
from xds.settings import XdsSettings

ROUNDS = 7
SECONDS = 1
PLAIN = "plain"
MET, UNMET = 'request.Method == "GET"', 'request.Method == "PUT"'
HEADERS = {"headers": [{"name": "X-Team", "value": "weather"}]}
KEYS = 1_000
Policy = dict[str, Any]


def one(name: str, params: Policy, **more: Any) -> Policy:
    return {"name": name, "params": params, **more}


def cases() -> dict[str, list[Policy]]:
    """What is attached to the operation of each path."""
    edit = one("set-headers", {"response": HEADERS})
    other = one("dynamic-endpoint", {"targetUpstream": "other"})
    key = one("api-key-auth", {"key": "API-Key", "in": "header"})
    rules = one("ip-filter", {"allow": ["127.0.0.1"]})
    return {
        PLAIN: [],
        "set-headers": [edit],
        "set-headers, condition met": [edit | {"executionCondition": MET}],
        "set-headers, condition not met": [edit | {"executionCondition": UNMET}],
        "set-headers, condition on the answer": [
            edit | {"executionCondition": "response.ResponseStatus == 200"}
        ],
        "3 x set-headers, 3 conditions met": [
            edit | {"executionCondition": f'request.Path != "/{number}"'} for number in range(3)
        ],
        "dynamic-endpoint": [other],
        "dynamic-endpoint, condition met": [other | {"executionCondition": MET}],
        "dynamic-endpoint, condition not met": [other | {"executionCondition": UNMET}],
        f"api-key-auth, {KEYS} keys": [key],
        f"api-key-auth, {KEYS} keys, shadow": [key | {"mode": "shadow"}],
        "ip-filter": [rules],
        "ip-filter, shadow": [rules | {"mode": "shadow"}],
    }


def listener(settings: XdsSettings, name: str, scope: Any, unused: Iterable[str] = ()) -> Any:
    """The gateway's listener with `scope`, without the slots of the names `unused`."""
    (made,) = listeners(settings, access_log=None, local_reply=None)
    made["name"] = name
    made["address"]["socket_address"]["port_value"] = 0
    manager = made["filter_chains"][0]["filters"][0]["typed_config"]
    manager["scoped_routes"].pop("scoped_rds")
    manager["scoped_routes"]["scoped_route_configurations_list"] = {
        "scoped_route_configurations": scope
    }
    gone = set(unused)
    manager["http_filters"] = [each for each in manager["http_filters"] if each["name"] not in gone]
    return made


async def main(rounds: int) -> None:
    wanted = cases()
    settings = XdsSettings(http_address="127.0.0.1", https_port=0, http_port=1)
    paths = {name: f"/bench/{number}" for number, name in enumerate(wanted)}
    async with upstream() as behind:
        document = {
            "context": "/bench",
            "upstream": {"main": {"url": behind}},
            "upstreamDefinitions": [{"name": "other", "upstreams": [{"url": behind}]}],
            "operations": [
                {"method": "GET", "path": f"/{number}", "policies": policies}
                for number, policies in enumerate(wanted.values())
            ],
        }
        keys = tuple(Credential(f"{number:064x}", "app") for number in range(KEYS - 1))
        good = Credential("2c70e12b7a0646f92279f427c7b38e7334d8e5389cff167a1dc30e73f826b683", "app")
        compiled = compile_api(api(yaml.safe_dump(document)), 1, (*keys, good), load(), settings)
        scope = scopes([compiled], settings)
        bare = listener(settings, "bare", scope, [each["name"] for each in slots()])
        resources = {
            "listeners": [listener(settings, "http", scope), bare],
            "clusters": list(compiled.clusters.values()),
        }
        async with envoy({"static_resources": resources}) as router:
            pin(router.pid, ROUTER_CORE)
            url = f"http://127.0.0.1:{await router.port('http')}"
            places = {name: url + path for name, path in paths.items()}
            places["plain, without any slot"] = (
                f"http://127.0.0.1:{await router.port('bare')}{paths[PLAIN]}"
            )
            await measure(router.pid, places, rounds)


async def measure(pid: int, places: dict[str, str], rounds: int) -> None:
    async def load_of(place: str) -> tuple[float, float]:
        before = cpu_s(pid)
        result = await wrk(place, seconds=SECONDS, headers=("API-Key: key",))
        if result.failures:
            raise SystemExit(f"{place}: {result.failures} of {result.requests} failed")
        return result.requests_per_s, (cpu_s(pid) - before) / result.requests * 1e6

    print(f"{f'median of {rounds} pairs':44} {'throughput':>10} {'CPU':>6} {'extra us':>9}")
    for name, place in places.items():
        await load_of(place)  # warm
        rates, costs, plain = [], [], []
        for number in range(rounds):
            order = (places[PLAIN], place) if number % 2 else (place, places[PLAIN])
            found = {each: await load_of(each) for each in order}
            rates.append(found[place][0] / found[places[PLAIN]][0])
            costs.append(found[place][1])
            plain.append(found[places[PLAIN]][1])
        cost, least = min(costs), min(plain)
        print(
            f"{name:44} {statistics.median(rates):10.2f} {least / cost:6.2f} {cost - least:9.1f}",
            flush=True,
        )


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS))
