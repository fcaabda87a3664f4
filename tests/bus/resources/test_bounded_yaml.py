import pytest
import yaml

from bus.resources.bounded_yaml import BoundedLoader, TooMuch, check_depth
from tests.bus.resources.bombs import merge_bomb


def test_merge_keys_bring_in_members() -> None:
    text = "a: &a {x: 1, y: 2}\nb: &b {<<: *a, y: 3}\nc: {<<: [*b, {z: 4}], x: 5}\n"
    assert yaml.load(text, BoundedLoader)["c"] == {"x": 5, "y": 3, "z": 4}


@pytest.mark.parametrize("text", [merge_bomb(), "a: &a {<<: *a}"])
def test_merge_keys_that_say_too_much_are_refused(text: str) -> None:
    with pytest.raises((TooMuch, RecursionError)):
        yaml.load(text, BoundedLoader)


def test_the_limit_is_that_of_one_text() -> None:
    text = "a: &a {x: 1}\n" + "\n".join(f"b{number}: {{<<: *a}}" for number in range(30_000))
    for _ in range(3):
        assert len(yaml.load(text, BoundedLoader)) == 30_001


@pytest.mark.parametrize("text", ["[" * 100_000, "{a: " * 100_000, "- " * 100_000])
def test_what_is_too_deep_is_refused_before_it_is_read(text: str) -> None:
    with pytest.raises(TooMuch):
        check_depth(text, 100, BoundedLoader)
    check_depth("[[{a: [1]}]]", 4, BoundedLoader)
