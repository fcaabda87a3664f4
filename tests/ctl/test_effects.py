"""A plan's fields and requests: what is compared, what is shown, what is hidden."""

from typing import Any

from ctl import effects, kinds
from ctl.documents import parse
from ctl.effects import FieldChange
from ctl.output import as_yaml
from ctl.plan import Action, Step
from tests.ctl.resources import rest_api


def step(before: dict[str, Any], after: dict[str, Any]) -> Step:
    [document], _ = parse(as_yaml(after), "f.yaml")
    return Step(Action.UPDATE, kinds.REST_API, "a", before, document)


def changes(before: dict[str, Any], after: dict[str, Any]) -> dict[str, FieldChange]:
    found = effects._field_changes(step(before, after), effects._Masks())
    return {one.field: one for one in found}


def with_policy(name: str, **params: Any) -> dict[str, Any]:
    return rest_api("a", policies=[{"name": name, "params": params}])


def test_only_fields_that_differ_are_told_with_their_paths() -> None:
    found = changes(rest_api("a", context="/a"), with_policy("respond", statusCode=204))
    assert found["spec.policies[0].params.statusCode"] == FieldChange(
        "spec.policies[0].params.statusCode", None, 204
    )
    assert "spec.displayName" not in found


def test_a_secret_that_changes_is_told_and_not_shown() -> None:
    found = changes(
        with_policy("basic-auth", username="u", password="one-one"),
        with_policy("basic-auth", username="u", password="two-two"),
    )
    (change,) = found.values()
    assert change.field == "spec.policies[0].params.password"
    assert "one-one" not in change.line()
    assert "two-two" not in change.line()
    assert change.line().endswith("(changed)")


def test_parameters_of_a_policy_that_is_not_known_here_are_hidden() -> None:
    found = changes(with_policy("theirs", token="one-one"), with_policy("theirs", token="two-two"))
    (change,) = found.values()
    assert change.field == "spec.policies[0].params.token"
    assert "two-two" not in change.line()


def test_requests_stay_below_what_a_gateway_takes() -> None:
    body = rest_api("a", policies=[{"name": "respond", "params": {"body": "x" * 100_000}}])
    documents = [parse(as_yaml(body), "f.yaml")[0][0] for _ in range(7)]
    batches = list(effects._batches(documents))
    assert [len(one) for one in batches] == [2, 2, 2, 1]
