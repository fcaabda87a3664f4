from collections.abc import Callable
from pathlib import Path

import pytest
from pydantic import Field

from policy_engine.catalogue import Catalogue, load
from policy_engine.documentation import page, parameters
from policy_engine.hooks import PythonPolicy
from policy_engine.policy import Parameters, Policy

PAGE = Path(__file__).parents[2] / "docs" / "policies.md"
POLICIES = tuple(load(()))


def test_the_page_is_what_the_policies_say(golden: Callable[[Path, object], None]) -> None:
    golden(PAGE, page(load(())))


@pytest.mark.parametrize("policy", POLICIES, ids=lambda policy: policy.name)
def test_every_policy_and_every_parameter_is_described(policy: type[Policy]) -> None:
    assert "description" in policy.model_json_schema()
    found = list(parameters(policy.model_json_schema(by_alias=True)))
    assert found
    assert [one.path for one in found if not one.description] == []


@pytest.mark.parametrize("policy", POLICIES, ids=lambda policy: policy.name)
def test_every_part_of_the_parameters_is_on_the_page(policy: type[Policy]) -> None:
    schema = policy.model_json_schema(by_alias=True)
    last = {one.path.rpartition(".")[2] for one in parameters(schema)}
    for part in schema.get("$defs", {}).values():
        assert set(part.get("properties", ())) <= last, part["title"]


@pytest.mark.parametrize("policy", POLICIES, ids=lambda policy: policy.name)
def test_where_a_policy_runs_is_told_with_the_reason(policy: type[Policy]) -> None:
    section = page(Catalogue([policy])).partition(f"## {policy.name}\n")[2]
    if issubclass(policy, PythonPolicy):
        assert policy.why_python in section
        assert "runs in Python" in section
    else:
        assert "runs in Envoy" in section
    for refusal in policy.refusals:
        assert f"| {refusal.status} |" in section


def test_parts_of_unions_lists_mappings_and_of_themselves_are_listed() -> None:
    class Leaf(Parameters):
        one: int = 1
        below: "list[Leaf]" = []

    class Other(Parameters):
        two: int = Field(default=2, gt=0)

    class Whole(Parameters):
        either: Leaf | Other | str
        by_name: dict[str, Other] = {}
        many: tuple[Leaf, ...] = ()

    found = {one.path: one.kind for one in parameters(Whole.model_json_schema(by_alias=True))}
    assert found["either"] == "object or string"
    assert found["either.two"] == "integer, more than 0"
    assert found["byName.*.two"] == "integer, more than 0"
    assert found["many[].one"] == "integer"
    assert found["many[].below"] == "list of object"
    assert "many[].below[].one" not in found


def test_a_parameter_without_a_description_would_be_noticed() -> None:
    schema = {
        "properties": {"some": {"$ref": "#/$defs/Some"}},
        "$defs": {"Some": {"type": "object", "properties": {"deep": {"type": "string"}}}},
    }
    assert [(one.path, one.description) for one in parameters(schema)] == [
        ("some", ""),
        ("some.deep", ""),
    ]
