from typing import Any

import pytest

from policy_engine.hooks import Headers
from policy_engine.openapi.parameters import Carried, In, Malformed, Parameter, Shape, Shapes

LIST = {"type": "array", "items": {"type": "integer"}}
POINT = {"type": "object", "properties": {"x": {"type": "integer"}, "y": {"type": "boolean"}}}


def parameter(place: In, style: str, schema: Any, *, explode: bool, **more: Any) -> Parameter:
    shape = Shapes({"S": {"type": "integer"}}).of(schema)
    return Parameter("p", place, True, "s0", shape, style, explode, **more)


def carried(place: str, text: str) -> Carried:
    match place:
        case "query":
            return Carried(Headers([]), f"/x?{text}", {})
        case "path":
            return Carried(Headers([]), "/x", {"p": text})
        case "header":
            return Carried(Headers([("p", text)]), "/x", {})
        case _:
            return Carried(Headers([("cookie", text)]), "/x", {})


# the table of https://spec.openapis.org/oas/v3.1.1.html#style-examples, row by row
@pytest.mark.parametrize(
    ("place", "style", "explode", "schema", "text", "value"),
    [
        ("path", "simple", False, {"type": "integer"}, "5", 5),
        ("path", "simple", False, LIST, "3,4", [3, 4]),
        ("path", "simple", False, POINT, "x,1,y,true", {"x": 1, "y": True}),
        ("path", "simple", True, POINT, "x=1,y=true", {"x": 1, "y": True}),
        ("path", "label", False, {"type": "integer"}, ".5", 5),
        ("path", "label", False, LIST, ".3,4", [3, 4]),
        ("path", "label", True, LIST, ".3.4", [3, 4]),
        ("path", "label", True, POINT, ".x=1.y=true", {"x": 1, "y": True}),
        ("path", "matrix", False, {"type": "integer"}, ";p=5", 5),
        ("path", "matrix", False, LIST, ";p=3,4", [3, 4]),
        ("path", "matrix", True, LIST, ";p=3;p=4", [3, 4]),
        ("path", "matrix", True, POINT, ";x=1;y=true", {"x": 1, "y": True}),
        ("query", "form", True, {"type": "number"}, "p=1.5", 1.5),
        ("query", "form", True, {"type": "string"}, "p=a+b%20c", "a b c"),
        ("query", "form", True, LIST, "p=3&p=4&q=5", [3, 4]),
        ("query", "form", False, LIST, "p=3,4", [3, 4]),
        ("query", "form", True, POINT, "x=1&y=true&z=2", {"x": 1, "y": True}),
        ("query", "form", False, POINT, "p=x,1,y,true", {"x": 1, "y": True}),
        ("query", "spaceDelimited", False, LIST, "p=3%204", [3, 4]),
        ("query", "pipeDelimited", False, LIST, "p=3|4", [3, 4]),
        ("query", "deepObject", True, POINT, "p[x]=1&p[y]=no", {"x": 1, "y": "no"}),
        ("header", "simple", False, LIST, "3,4", [3, 4]),
        ("cookie", "form", True, {"type": "boolean"}, 'q=1; p="false"', False),
        ("query", "form", True, {"anyOf": [{"$ref": "#/S"}, {"type": "null"}]}, "p=", None),
        ("query", "form", True, {"type": "integer"}, "p=007", "007"),
        ("query", "form", True, {"type": "integer"}, "p=" + "9" * 50, "9" * 50),
        ("query", "form", True, {}, "p=1", "1"),
    ],
)
def test_text_becomes_the_value_that_a_schema_is_about(
    place: In, style: str, explode: bool, schema: Any, text: str, value: Any
) -> None:
    assert parameter(place, style, schema, explode=explode).value(carried(place, text)) == value


@pytest.mark.parametrize("place", ["query", "cookie", "header"])
def test_what_is_not_there_is_not_found(place: In) -> None:
    for schema in ({"type": "integer"}, LIST, POINT):
        with pytest.raises(LookupError):
            parameter(place, "form", schema, explode=True).value(Carried(Headers([]), "/x", {}))


def test_what_is_written_wrongly_is_malformed() -> None:
    point = parameter("query", "form", POINT, explode=False)
    one = parameter("query", "form", {"type": "integer"}, explode=True)
    json = parameter("query", "form", POINT, explode=True, json=True)
    for wrong, text in ((point, "p=x,1,y"), (one, "p=1&p=2"), (json, "p={")):
        with pytest.raises(Malformed):
            wrong.value(carried("query", text))
    assert json.value(carried("query", 'p={"x":1}')) == {"x": 1}


def test_schemas_that_refer_to_each_other_are_looked_at_once() -> None:
    root = {
        f"S{number}": {
            "allOf": [{"$ref": f"#/S{(number + 1) % 30}"}, {"$ref": f"#/S{(number + 2) % 30}"}],
            "properties": {f"p{other}": {"$ref": f"#/S{other}"} for other in range(30)},
        }
        for number in range(30)
    }
    shape = Shapes(root).of(root["S0"])
    assert shape.kinds == {"object"}
    assert shape.members is not None
    assert len(shape.members) == 30
    loop = {"a": {"$ref": "#/b"}, "b": {"anyOf": [{"$ref": "#/a"}, {"type": "string"}]}}
    assert Shapes(loop).of(loop["a"]) == Shape(frozenset({"string"}))
