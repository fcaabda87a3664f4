import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policy_engine.bodies.json_path import Unresolved, json_path, texts

DOCUMENT = {
    "messages": [{"role": "system", "content": "a"}, {"role": "user", "content": "b"}],
    "usage": {"total-tokens": 3, "a.b": {"it's": 1, 'say "x"': 2}},
    "0": "zero",
}


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("$.messages[-1].content", ["b"]),
        ("$.messages[0]['role']", ["system"]),
        ("$.messages[*].content", ["a", "b"]),
        ("$.messages.*.role", ["system", "user"]),
        ("$.usage.total-tokens", [3]),
        ("$['usage']['a.b']['it\\'s']", [1]),
        ('$.usage["a.b"]["say \\"x\\""]', [2]),
        ("$.usage['a.b']['say \"x\"']", [2]),
        ("$['0']", ["zero"]),
        ("$", [DOCUMENT]),
        ("", [DOCUMENT]),
    ],
)
def test_a_path_leads_to_places(path: str, expected: list[Any]) -> None:
    assert json_path(path).find(DOCUMENT) == expected


@pytest.mark.parametrize(
    "path",
    [
        "$.nothing",
        "$.messages[2]",
        "$.messages[-3]",
        "$.messages.content",
        "$.messages['0']",
        "$.usage[0]",
        "$.messages[*].nothing",
        "$['0'][0]",
        "$['0'].*",
        "$.messages[0].content.x",
    ],
)
def test_a_path_that_leads_nowhere_says_so(path: str) -> None:
    with pytest.raises(Unresolved, match="leads nowhere"):
        json_path(path).find(DOCUMENT)
    with pytest.raises(Unresolved, match="leads nowhere"):
        json_path(path).replace(json.loads(json.dumps(DOCUMENT)), lambda _: "x")


@pytest.mark.parametrize(
    "path",
    ["messages", "$messages", "$.", "$..x", "$.a[", "$.a[1:2]", "$.a[?@.x]", "$[01]", '$["\\q"]'],
)
def test_what_is_no_path_is_refused(path: str) -> None:
    with pytest.raises(ValueError, match=r"JSONPath|escape"):
        json_path(path)


def test_what_is_there_can_be_replaced() -> None:
    document = json.loads(json.dumps(DOCUMENT))
    changed = json_path("$.messages[*].content").replace(document, str.upper)
    assert [one["content"] for one in changed["messages"]] == ["A", "B"]
    assert json_path("$.messages[-1].role").replace(document, lambda _: 1)["messages"][1] == {
        "role": 1,
        "content": "B",
    }
    assert json_path("").replace(document, lambda _: 7) == 7


def test_the_text_of_a_value_is_all_that_can_be_said_inside() -> None:
    value = {"b": [1, True, None, {"z": "last", "a": 2.5}], "a": "first", "c": 10**30}
    assert list(texts(value)) == ["first", "1", "true", "2.5", "last", str(10**30)]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda below: st.lists(below) | st.dictionaries(st.text(), below),
    max_leaves=20,
)


@given(JSON)
def test_every_place_can_be_found_by_its_path(document: Any) -> None:
    def places(node: Any, path: str) -> list[tuple[str, Any]]:
        found = [(path, node)]
        if isinstance(node, dict):
            for name, below in node.items():
                found += places(below, f"{path}[{json.dumps(name)}]")
        if isinstance(node, list):
            for index, below in enumerate(node):
                found += places(below, f"{path}[{index}]")
                found += places(below, f"{path}[{index - len(node)}]")
        return found

    for path, node in places(document, "$")[:200]:
        assert json_path(path).find(document) == [node]
