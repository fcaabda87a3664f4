"""Bodies: what is read, what is refused, and in which words."""

import pytest

from controller.documents import read, to_yaml
from controller.errors import ParseFailed
from tests.bus.resources.bombs import merge_bomb


def test_json_and_yaml_say_the_same() -> None:
    as_json = b'{"a": {"b": [1, 2.5, true, null, "x"]}}'
    as_yaml = b"a:\n  b: [1, 2.5, true, ~, x]\n"
    assert read(as_json, "application/json; charset=utf-8") == read(as_yaml, "application/yaml")


@pytest.mark.parametrize("content_type", ["", "text/plain", "application/x-www-form-urlencoded"])
def test_without_a_telling_content_type_the_body_tells(content_type: str) -> None:
    assert read(b' {"a": 1}', content_type) == {"a": 1}
    assert read(b"a: 1", content_type) == {"a": 1}


def test_yaml_is_read_as_its_users_expect() -> None:
    body = b"on: off\nversion: 1.10\ntext: v1.0\nday: 2024-01-01\nhex: 0x1F\ntime: 12:30:45\n"
    assert read(body, "application/yaml") == {
        "on": "off",
        "version": 1.1,
        "text": "v1.0",
        "day": "2024-01-01",
        "hex": 31,
        "time": "12:30:45",
    }


def test_anchors_and_merge_keys_work() -> None:
    body = b"a: &a {x: 1, y: 2}\nb: {<<: *a, y: 3}\nc: *a\n"
    assert read(body, "text/yaml") == {
        "a": {"x": 1, "y": 2},
        "b": {"x": 1, "y": 3},
        "c": {"x": 1, "y": 2},
    }


@pytest.mark.parametrize("body", [b"{", b"{'a': 1}", b"", b'{"a": NaN}', b"\xff", b"[" * 5000])
def test_broken_json_is_refused_in_the_words_of_the_contract(body: bytes) -> None:
    with pytest.raises(ParseFailed, match=r"^Failed to parse configuration: failed to parse JSON"):
        read(body, "application/json")


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"a: [", "failed to parse YAML"),
        (b"a: 1\na: 2", "key 'a' is given twice"),
        (b"a: 1\n---\nb: 2", "failed to parse YAML"),
        (b"a: !!python/object/apply:os.system [x]", "could not determine a constructor"),
        (b"a: .nan", "cannot be written as JSON"),
        (b"a: 99999999999999999999", "cannot be written as JSON"),
        (b"1: 2", "must be text"),
        (b"- 1", "must be one object"),
        (b"", "must be one object"),
        (b"a: &a [*a]", "nested too deeply or too large"),
        (b"a: " + b"[" * 100_000, "nested too deeply"),
        (b"a: " + b"{b: " * 100_000, "nested too deeply"),
        (b"- " * 100_000, "nested too deeply"),
        (merge_bomb().encode(), "nested too deeply or too large"),
        (b"\xff\xfe\xff", "failed to parse YAML"),
    ],
)
def test_broken_yaml_is_refused(body: bytes, words: str) -> None:
    with pytest.raises(ParseFailed, match=words) as caught:
        read(body, "application/yaml")
    assert str(caught.value).startswith("Failed to parse configuration:")


def test_a_small_text_cannot_become_a_huge_document() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9)]
    with pytest.raises(ParseFailed, match="too large"):
        read("\n".join(lines).encode(), "application/yaml")


def test_yaml_answers_are_read_back_as_they_were() -> None:
    document = {"b": "1.0", "a": ["on", "2024-01-01", "x\ny\n", "ü", 1, 1.5, True, None, {}]}
    text = to_yaml(document)
    assert read(text, "application/yaml") == document
    assert text.startswith(b"b:")  # keys keep their order
