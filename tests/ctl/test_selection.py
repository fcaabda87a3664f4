"""Label selectors."""

import pytest

from ctl import selection
from ctl.errors import Misused

GOLD = {"metadata": {"name": "a", "labels": {"tier": "gold", "team": "shop"}}}


@pytest.mark.parametrize(
    ("text", "met"),
    [
        ("tier=gold", True),
        ("tier==gold", True),
        ("tier=silver", False),
        ("tier!=silver", True),
        ("tier!=gold", False),
        ("owner!=me", True),
        ("team", True),
        ("owner", False),
        ("!owner", True),
        ("!team", False),
        ("tier=gold, team=shop", True),
        ("tier=gold,team=warehouse", False),
    ],
)
def test_a_selector_selects_by_all_its_terms(text: str, met: bool) -> None:
    assert selection.selected(GOLD, selection.parse(text)) is met


@pytest.mark.parametrize("text", ["", "=a", "a,", "!", "a b", "a,=b"])
def test_what_is_no_selector_is_refused(text: str) -> None:
    with pytest.raises(Misused, match="not a label selector"):
        selection.parse(text)


def test_a_resource_without_labels_meets_only_negations() -> None:
    bare = {"metadata": {"name": "a"}}
    assert not selection.selected(bare, selection.parse("tier"))
    assert selection.selected(bare, selection.parse("!tier"))


def test_the_set_is_an_annotation() -> None:
    marked = {"metadata": {"annotations": {"signalbox.io/applied-set": "shop"}}}
    assert selection.applied_set(marked) == "shop"
    assert selection.applied_set(GOLD) is None
