from collections.abc import Callable
from pathlib import Path

import pytest

from policy_engine.catalogue import load
from policy_engine.documentation import page, parameters
from policy_engine.policy import Policy

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


def test_a_parameter_without_a_description_would_be_noticed() -> None:
    schema = {
        "properties": {"some": {"$ref": "#/$defs/Some"}},
        "$defs": {"Some": {"type": "object", "properties": {"deep": {"type": "string"}}}},
    }
    assert [(one.path, one.description) for one in parameters(schema)] == [
        ("some", ""),
        ("some.deep", ""),
    ]
