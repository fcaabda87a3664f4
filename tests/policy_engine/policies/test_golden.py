"""What each policy compiles to, kept in files: read the diff after `pytest --accept`."""

import importlib
import json
from collections.abc import Callable, Iterator
from dataclasses import asdict
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import yaml

from bus.resources.rest_api import PolicyRef
from policy_engine.catalogue import load
from policy_engine.chain import Chain, compile_chain
from policy_engine.policy import Credential, Routing, Scope
from policy_engine.refusals import local_reply_config
from policy_engine.subscriptions import Quota, Subscriber
from policy_engine.system import SystemParameters
from xds.wire.messages import encode

pytestmark = pytest.mark.filterwarnings("ignore:Using .@model_validator")

GOLDEN = Path(__file__).parent / "golden"
CASES = sorted(GOLDEN.glob("*.in.yaml"))
NEWER_THAN_ENVOY_DATA_PLANE = {
    "allow_missing",
    "enable_retry_after_header",
    "filter_context",
    "max_dynamic_descriptors",
    "rate_limits",
    "realm",
    "shared_vm_id",
}
NOT_IN_ENVOY_DATA_PLANE = {
    "envoy.extensions.filters.http.body_size_limit.v3.BodySizeLimit",
    "xds.type.matcher.v3.CelMatcher",
    "xds.type.matcher.v3.HttpAttributesCelMatchInput",
}
_USUAL = (("when", None), ("counts", False), ("lets_pass", False), ("choosable", False))
"""Fields that are told only where they are otherwise."""
LOCAL_REPLY = "envoy.extensions.filters.network.http_connection_manager.v3.LocalReplyConfig"


def compiled(case: dict[str, Any]) -> Chain:
    credentials = tuple(
        Credential(sha256(one["key"].encode()).hexdigest(), one["application"], one.get("issuer"))
        for one in case.get("credentials", ())
    )
    system = json.dumps(case.get("system", {})).replace("GOLDEN", str(GOLDEN))
    scope = Scope(
        level=case.get("level", "api"),
        api_id="orders",
        api_name="Orders",
        api_version="v1",
        context="/orders",
        credentials=credentials,
        key_issuer=case.get("key_issuer"),
        subscriptions=tuple(subscriber(**one) for one in case.get("subscriptions", ())),
        system=SystemParameters.model_validate_json(system),
        below=frozenset(case.get("below", ())),
        operation_path=case.get("operation_path"),
    )
    ref = PolicyRef(
        name=case["policy"],
        params=case["params"],
        mode=case.get("mode", "enforce"),
        execution_condition=case.get("condition"),
    )
    return compile_chain([load().attach(ref)], scope)


def subscriber(token: str, quota: dict[str, Any] | None = None, **facts: Any) -> Subscriber:
    callers = tuple(facts.pop("callers", ()))
    digest = sha256(token.encode()).hexdigest()
    plan = Quota(**quota) if quota else None
    return Subscriber(digest=digest, callers=callers, quota=plan, **facts)


def readable(chain: Chain) -> dict[str, Any]:
    """As kept: of a Lua program only the constants, which are what the policy decides.

    Where requests go is kept if the policy has a say in it.
    """

    def without_program(value: Any) -> Any:
        match value:
            case {"default_source_code": {"inline_string": source}, **rest}:
                constants = [one for one in source.splitlines() if one.startswith("local ")][:5]
                shared = {"shared_vm_id": "(its digest)"} if "shared_vm_id" in rest else {}
                return without_program({**rest, **shared, "default_source_code": constants})
            case dict():
                return {key: without_program(one) for key, one in value.items()}
            case list() | tuple():
                return [without_program(one) for one in value]
            case _:
                return value

    taken = asdict(chain.taken(chain.ways))
    steps = {name: taken[name] for name in ("route_fields", "routing", "connections")}
    whole: dict[str, Any] = {}
    for name, part in asdict(chain).items():
        whole |= steps if name == "steps" else {name: part}
    for one in _parts_of(whole):
        for name, usual in _USUAL:
            if one.get(name, ...) == usual:
                del one[name]
    if chain.routing == Routing():
        del whole["routing"]
    if not chain.services:
        del whole["services"]
    for name in ("connections", "secrets", "own_paths"):
        if getattr(chain, name) == getattr(Chain(), name):
            del whole[name]
    whole["hops"] = [hop.document() for hop in chain.hops]
    if not chain.hops:
        del whole["hops"]
    del whole["answering"]  # the same as where a condition is in front
    whole["silenced"] = sorted(chain.silenced)
    if not chain.silenced:
        del whole["silenced"]
    return dict(without_program(whole))


def _parts_of(value: Any) -> Iterator[dict[str, Any]]:
    match value:
        case dict():
            yield value
            for one in value.values():
                yield from _parts_of(one)
        case list() | tuple():
            for one in value:
                yield from _parts_of(one)


def messages(document: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every Any in `document`: the message's name and its fields."""
    match document:
        case {"@type": url, **fields}:
            yield str(url).rpartition("/")[2], fields
            yield from messages(fields)
        case dict():
            for value in document.values():
                yield from messages(value)
        case list() | tuple():
            for value in document:
                yield from messages(value)


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.name.removesuffix(".in.yaml"))
def test_a_policy_compiles_to_what_is_kept(
    path: Path, golden: Callable[[Path, object], None]
) -> None:
    chain = compiled(yaml.safe_load(path.read_text()))
    golden(path.with_name(path.name.replace(".in.yaml", ".out.json")), readable(chain))
    for name, fields in messages(asdict(chain)):
        encode(name, fields)  # as Envoy's own descriptors read it


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.name.removesuffix(".in.yaml"))
def test_an_independent_reading_of_envoys_api_agrees(path: Path) -> None:
    chain = compiled(yaml.safe_load(path.read_text()))
    known = [
        (name.rpartition("."), fields)
        for name, fields in messages(asdict(chain))
        if not any(one in f"{name} {fields}" for one in NOT_IN_ENVOY_DATA_PLANE)
    ]
    modules = [importlib.import_module(f"envoy_data_plane.{name[0]}") for name, _ in known]
    for module, ((_, _, message), fields) in zip(modules, known, strict=True):
        read = {
            key: value for key, value in fields.items() if key not in NEWER_THAN_ENVOY_DATA_PLANE
        }
        classes = {one.lower(): one for one in dir(module)}  # `RBAC` is written `Rbac` there
        reading = getattr(module, classes[message.lower()])
        reading.from_dict(read)  # raises KeyError for a field it lacks


def test_the_gateways_own_errors_are_as_kept(golden: Callable[[Path, object], None]) -> None:
    config = local_reply_config(load().refusals())
    golden(GOLDEN / "local_reply_config.out.json", config)
    encode(LOCAL_REPLY, config)


def test_every_policy_has_a_golden_case() -> None:
    covered = {yaml.safe_load(path.read_text())["policy"] for path in CASES}
    assert covered == {policy.name for policy in load()}
