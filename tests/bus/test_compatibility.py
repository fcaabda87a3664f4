"""What counts as a broken promise, and what does not."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import yaml

from bus.compatibility import breaking_changes, may_break

Document = dict[str, Any]

OLD: Document = {
    "channels": {
        "order.placed": {
            "address": "shop.{id}",
            "messages": {"Message": {"$ref": "#/components/messages/placed"}},
        }
    },
    "components": {
        "messages": {"placed": {"payload": {"$ref": "#/components/schemas/Order"}}},
        "schemas": {
            "Order": {
                "type": "object",
                "required": ["id"],
                "properties": {
                    "id": {"type": "string", "maxLength": 20},
                    "note": {"anyOf": [{"type": "string"}, {"type": "null"}]},
                    "state": {"enum": ["open", "paid"], "type": "string"},
                    "count": {"type": "integer", "minimum": 0},
                    "lines": {"type": "array", "items": {"$ref": "#/components/schemas/Line"}},
                    "parent": {"$ref": "#/components/schemas/Order"},
                    "labels": {"type": "object", "additionalProperties": {"type": "string"}},
                },
            },
            "Line": {"type": "object", "properties": {"price": {"type": "number"}}},
        },
    },
}


def changed(edit: Callable[[Document], object]) -> tuple[str, ...]:
    new = copy.deepcopy(OLD)
    edit(new)
    return breaking_changes(yaml.safe_dump(OLD), yaml.safe_dump(new))


def order(document: Document) -> Document:
    return document["components"]["schemas"]["Order"]


def properties(document: Document) -> Document:
    return order(document)["properties"]


def line(document: Document) -> Document:
    return document["components"]["schemas"]["Line"]["properties"]


COMPATIBLE = {
    "nothing": lambda d: None,
    "a new channel": lambda d: d["channels"].update(new=d["channels"]["order.placed"]),
    "a new optional field": lambda d: properties(d).update(more={"type": "string"}),
    "a looser bound": lambda d: properties(d)["id"].update(maxLength=30),
    "no bound": lambda d: properties(d)["count"].pop("minimum"),
    "one more value": lambda d: properties(d)["state"]["enum"].append("sent"),
    "any string": lambda d: properties(d)["state"].pop("enum"),
    "an integer becomes a number": lambda d: properties(d)["count"].update(type="number"),
    "one more alternative": lambda d: properties(d)["note"]["anyOf"].append({"type": "integer"}),
    "an alternative more than none": lambda d: properties(d).update(
        count={"anyOf": [{"type": "integer", "minimum": 0}, {"type": "null"}]}
    ),
    "other words": lambda d: order(d).update(description="An order.", title="The order"),
}
BREAKING = {
    "order.placed is dropped": lambda d: d["channels"].clear(),
    "moved from shop.{id} to": lambda d: d["channels"]["order.placed"].update(address="x.{id}"),
    "order.placed.note is dropped": lambda d: properties(d).pop("note"),
    "lines[].price is dropped": lambda d: line(d).pop("price"),
    "order.placed.count is now required": lambda d: order(d)["required"].append("count"),
    "order.placed.id may now be absent": lambda d: order(d)["required"].clear(),
    "order.placed.id may no longer be string": lambda d: properties(d)["id"].update(type="integer"),
    "lines[].price may no longer be number": lambda d: line(d)["price"].update(type="integer"),
    "maxLength is now 10, was 20": lambda d: properties(d)["id"].update(maxLength=10),
    "minimum is now 1, was 0": lambda d: properties(d)["count"].update(minimum=1),
    "maximum is now 9, was unbounded": lambda d: properties(d)["count"].update(maximum=9),
    "may no longer be 'paid'": lambda d: properties(d)["state"]["enum"].remove("paid"),
    "id is limited to": lambda d: properties(d)["id"].update(enum=["a"]),
    "pattern is now '^a$', was None": lambda d: properties(d)["id"].update(pattern="^a$"),
    "note no longer takes null": lambda d: properties(d)["note"]["anyOf"].pop(),
    "no longer takes fields it does not know": lambda d: order(d).update(
        additionalProperties=False
    ),
    "labels.* may no longer be string": lambda d: properties(d)["labels"].update(
        additionalProperties={"type": "integer"}
    ),
}


@pytest.mark.parametrize("edit", COMPATIBLE.values(), ids=COMPATIBLE.keys())
def test_more_than_before_is_compatible(edit):
    assert changed(edit) == ()


@pytest.mark.parametrize(("sentence", "edit"), BREAKING.items(), ids=BREAKING.keys())
def test_less_than_before_is_named(sentence, edit):
    said = changed(edit)
    assert any(sentence in one for one in said), said


@pytest.mark.parametrize(
    ("before", "after", "allowed"),
    [
        ("0.1.0", "0.1.0", False),
        ("0.1.0", "0.1.1", False),
        ("0.1.0", "0.2.0", True),
        ("0.9.0", "1.0.0", True),
        ("1.0.0", "1.9.0", False),
        ("1.9.0", "2.0.0", True),
        ("2.0.0", "1.0.0", False),
    ],
)
def test_breaking_needs_a_version_that_says_so(before, after, allowed):
    documents = [yaml.safe_dump({"info": {"version": version}}) for version in (before, after)]
    assert may_break(*documents) is allowed
