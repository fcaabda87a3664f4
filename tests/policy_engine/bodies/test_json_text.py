import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policy_engine.bodies.json_text import NotJson, document, unescaped

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.text(),
    lambda below: st.lists(below, max_size=4) | st.dictionaries(st.text(), below, max_size=4),
)


@given(JSON)
def test_what_is_clear_is_read(value: object) -> None:
    assert document(json.dumps(value).encode()) == value


@pytest.mark.parametrize(
    "content",
    [
        b'{"a": 1, "a": 1}',
        b'{"a": 1, "\\u0061": 2}',
        b'[{"b": [{"a": {"c": 1, "d": 2, "c": 3}}]}]',
        '{"é": 1, "é": 2}',
    ],
)
def test_a_member_that_stands_twice_is_refused(content: bytes | str) -> None:
    with pytest.raises(NotJson, match="stands twice"):
        document(content)


def test_members_of_different_objects_may_have_one_name() -> None:
    assert document(b'{"a": {"a": 1}, "b": [{"a": 2}, {"a": 3}]}')


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"NaN", b'"\\ud800"', b"\xff", b"\xef\xbb\xbf{}", b"[" * 100_000, b"1e400"],
)
def test_what_is_no_json_says_so(content: bytes) -> None:
    with pytest.raises(NotJson):
        document(content)


@given(JSON)
def test_without_needless_escapes_it_says_the_same(value: object) -> None:
    text = json.dumps(value).replace("/", "\\/")
    assert json.loads(unescaped(text)) == value


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (r'{"\u0061": "b\/c \ud83d\ude00"}', '{"a": "b/c 😀"}'),
        (r'["\u0022 \u005C \u0000 \ud83d \" \\u0061 \n"]',) * 2,
        ("\ufeff [\"\\u0061\"]", "\ufeff [\"a\"]"),
        (r"C:\users\u0061", r"C:\users\u0061"),
    ],
)  # fmt: skip
def test_escapes_that_json_needs_stay(text: str, expected: str) -> None:
    assert unescaped(text) == expected


def test_spaces_are_spaces_to_look_at() -> None:
    assert unescaped(r'["a\nb\tc\u0020d\u000ae\\n"]', spaces=True) == '["a\nb\tc d\ne\\\\n"]'
