"""What an apply would do: comparison, differences, results as sentences."""

from typing import Any

import pytest

from ctl import kinds, rollout
from ctl.documents import parse
from ctl.errors import CtlError, ExitCode, NotFound, NotLive, Refused
from ctl.output import as_yaml, plain_table
from ctl.plan import Action, Step, comparable, difference
from ctl.turns import each
from tests.ctl.resources import rest_api

KIND = kinds.REST_API


def live(document: dict[str, Any], revision: int = 1, **status: Any) -> dict[str, Any]:
    return {
        **document,
        "status": {
            "id": document["metadata"]["name"],
            "state": "deployed",
            "revision": revision,
            "routers": {"live": 1, "total": 1},
            **status,
        },
    }


def step(before: dict[str, Any] | None, after: dict[str, Any] | None, action: Action) -> Step:
    document = None
    if after is not None:
        [document], _ = parse(as_yaml(after), "f.yaml")
    return Step(action, KIND, "a", before, document)


def test_status_defaults_and_nulls_make_no_difference() -> None:
    spelled = rest_api("a", deploymentState="deployed", resilience=None)
    old, new = comparable(KIND, live(rest_api("a")), spelled)
    assert old == new


def test_a_version_in_the_context_makes_no_difference() -> None:
    old, new = comparable(
        KIND, live(rest_api("a", context="/a/v1.0")), rest_api("a", context="/a/$version")
    )
    assert old == new


def test_null_in_the_parameters_of_a_policy_makes_a_difference() -> None:
    policies = [{"name": "p", "params": {"x": None}}]
    old, new = comparable(
        KIND, rest_api("a", policies=[{"name": "p"}]), rest_api("a", policies=policies)
    )
    assert old != new


def test_what_cannot_be_checked_here_is_compared_as_it_is_written() -> None:
    templated = {"main": {"url": "{{ env }}"}}
    one = rest_api("a", upstream=templated, context="/a/$version", vhosts=None)
    old, new = comparable(KIND, live(rest_api("a", upstream=templated, context="/a/v1.0")), one)
    assert old == new
    _, changed = comparable(KIND, None, rest_api("a", upstream=templated, context="/b"))
    assert changed != new


def test_a_difference_shows_only_what_changes() -> None:
    lines = difference(step(live(rest_api("a"), 3), rest_api("a", context="/b"), Action.UPDATE))
    assert lines[:2] == ["--- gateway: api/a revision 3", "+++ f.yaml:1"]
    assert [line for line in lines[2:] if line[0] in "+-"] == ["-  context: /a", "+  context: /b"]


def test_a_creation_and_a_deletion_are_whole() -> None:
    created = difference(step(None, rest_api("a"), Action.CREATE))
    assert created[0] == "--- gateway: nothing"
    assert all(line[0] == "+" for line in created[3:])
    deleted = difference(step(live(rest_api("a")), None, Action.DELETE))
    assert deleted[1] == "+++ deleted"
    assert all(line[0] == "-" for line in deleted[3:])
    assert difference(step(live(rest_api("a")), rest_api("a"), Action.KEEP)) == []


def liveness(**parts: Any) -> dict[str, Any]:
    return {
        "revision": 7,
        "state": "deployed",
        "outcome": "live",
        "live": 3,
        "total": 3,
        "reason": None,
        "elapsedMs": 8.7,
        **parts,
    }


def test_live_is_said_with_its_revision_and_time() -> None:
    assert rollout.live_text(liveness()) == "live on 3 of 3 routers, revision 7, 9 ms"
    assert rollout.live_text(liveness(elapsedMs=None)) == "live on 3 of 3 routers, revision 7"
    gone = liveness(state="deleted")
    assert rollout.live_text(gone) == "gone from 3 of 3 routers, revision 7, 9 ms"


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        (
            {"outcome": "rejected", "live": 0, "reason": "why"},
            "revision 7 was refused, it is live nowhere; what was live before stays",
        ),
        (
            {"outcome": "rejected", "live": 1, "reason": "why"},
            "revision 7 was refused, it is live on 1 of 3 routers; what was live before stays",
        ),
        (
            {"outcome": "pending", "live": 2},
            "revision 7 is live on 2 of 3 routers after 5 s",
        ),
        (
            {"outcome": "pending", "live": 0, "total": 0},
            "revision 7 is live nowhere: no router is connected",
        ),
        (
            {"outcome": "pending", "live": 1, "state": "deleted"},
            "revision 7 is gone from 1 of 3 routers after 5 s",
        ),
    ],
)
def test_not_live_says_why(parts: dict[str, Any], said: str) -> None:
    error = rollout.why_not_live(liveness(**parts), 5)
    assert error is not None
    assert error.message == said
    assert rollout.why_not_live(liveness(), 5) is None


@pytest.mark.parametrize(
    ("errors", "code"),
    [
        ([None, None], ExitCode.OK),
        ([None, NotLive("late")], ExitCode.NOT_LIVE),
        ([NotLive("late"), Refused("no")], ExitCode.REFUSED),
        ([NotFound("gone")], ExitCode.REFUSED),
    ],
)
def test_the_code_is_the_worst(errors: list[CtlError | None], code: ExitCode) -> None:
    a_step = step(None, rest_api("a"), Action.CREATE)
    assert rollout.exit_code([rollout.Outcome(a_step, error=error) for error in errors]) is code


async def test_the_first_error_of_many_comes_through_as_itself() -> None:
    async def work(number: int) -> int:
        if number == 3:
            raise NotFound("three")
        return number * 2

    assert await each(range(3), work) == [0, 2, 4]
    with pytest.raises(NotFound, match="three"):
        await each(range(6), work)


def test_a_table_has_columns_and_no_trailing_space() -> None:
    text = plain_table(("A", "NUMBER"), [("x", "1"), ("long name", "22")], frozenset({1}))
    assert text == "A          NUMBER\nx               1\nlong name      22"
    assert plain_table(("A", "B"), []) == "A  B"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-5, "0s"), (59, "59s"), (60, "1m"), (7_199, "1h"), (90_000, "1d"), (9e7, "1041d")],
)
def test_a_span_is_in_its_largest_unit(seconds: float, text: str) -> None:
    assert kinds.span(seconds) == text
