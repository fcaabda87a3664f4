import contextlib
import time
from typing import Any

import pytest
import yaml

from policy_engine.openapi.parameters import Malformed
from policy_engine.openapi.xml_form import XmlShape, in_xml

ROOT: dict[str, Any] = yaml.safe_load("""
components:
  schemas:
    Pet:
      type: object
      xml: {name: pet}
      properties:
        id: {type: integer, xml: {attribute: true}}
        name: {type: string}
        price: {type: number, xml: {name: cost}}
        good: {type: boolean}
        tags:
          type: array
          xml: {name: labels, wrapped: true}
          items: {$ref: "#/components/schemas/Tag"}
        photos: {type: array, items: {type: string, xml: {name: photoUrl}}}
        aliases: {type: array, xml: {wrapped: true}, items: {type: string}}
        parts: {type: array, items: {type: integer}}
        parent: {$ref: "#/components/schemas/Pet"}
        note: {type: [string, "null"]}
    Tag:
      type: object
      xml: {name: tag}
      properties: {id: {type: integer}}
""")
PET = XmlShape(ROOT, {"$ref": "#/components/schemas/Pet"})
SHOP = "urn:example:shop"


def read(schema: Any, text: str) -> Any:
    return in_xml(XmlShape({}, schema), text.encode(), None)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<pet/>", {}),
        (
            '<pet id="7"><name> Rex </name><cost> 1.5 </cost><good>true</good></pet>',
            {"id": 7, "name": " Rex ", "price": 1.5, "good": True},
        ),
        (
            "<pet><labels><tag><id>1</id></tag><tag/></labels></pet>",
            {"tags": [{"id": 1}, {}]},
        ),
        ("<pet><labels/></pet>", {"tags": []}),
        (
            "<pet><photoUrl>a</photoUrl><name>x</name><photoUrl>b</photoUrl></pet>",
            {"photos": ["a", "b"], "name": "x"},
        ),
        (
            "<pet><aliases><aliases>a</aliases><aliases/></aliases></pet>",
            {"aliases": ["a", ""]},
        ),
        ("<pet><parts>1</parts><parts>x</parts></pet>", {"parts": [1, "x"]}),
        (
            "<pet><pet><pet><name>c</name></pet></pet></pet>",
            {"parent": {"parent": {"name": "c"}}},
        ),
        (
            '<pet xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance">'
            '<note xsi:nil="true"/></pet>',
            {"note": None},
        ),
        (
            '<pet more="1"><extra><a>1</a><a>2</a></extra><other b="2"/></pet>',
            {"more": "1", "extra": {"a": ["1", "2"]}, "other": {"b": "2"}},
        ),
        ("<pet><![CDATA[ ]]><name>a &lt;b&#33;</name><!-- c --></pet>", {"name": "a <b!"}),
        ('<p:pet xmlns:p="urn:x"><p:name>x</p:name></p:pet>', {"name": "x"}),
    ],
)
def test_xml_is_read_as_the_schema_says(text: str, expected: Any) -> None:
    assert in_xml(PET, text.encode(), None) == expected


@pytest.mark.parametrize(
    ("text", "where", "message"),
    [
        ("<dog/>", "", "is an element 'dog', not 'pet'"),
        ("<pet><name>a</name><name>b</name></pet>", "name", "stands more than once"),
        ("<pet>text</pet>", "", "holds text instead of elements"),
        ("<pet><name><b/></name></pet>", "name", "holds the element 'b' instead of text"),
        ('<pet><name a="1">x</name></pet>', "name.a", "is not described"),
        ("<pet><id>7</id></pet>", "id", "must be an attribute"),
        ('<pet name="x"/>', "name", "must be an element"),
        ("<pet><price>1</price></pet>", "price", "must be an element called 'cost'"),
        (
            "<pet><tags/></pet>",
            "tags",
            "must be an element called 'labels' around its items",
        ),
        ("<pet><labels><x/></labels></pet>", "tags.0", "is an element 'x', not 'tag'"),
        ("<pet><labels>x</labels></pet>", "tags", "holds text instead of elements"),
        (
            "<pet><pet><labels><tag>7</tag></labels></pet></pet>",
            "parent.tags.0",
            "holds text instead of elements",
        ),
    ],
)
def test_what_is_in_another_form_is_told_by_its_place(text: str, where: str, message: str) -> None:
    with pytest.raises(Malformed) as caught:
        in_xml(PET, text.encode(), None)
    assert (caught.value.where, str(caught.value)) == (where, message)


def test_namespaces_count_where_they_are_said_and_prefixes_do_not() -> None:
    schema = {
        "type": "object",
        "xml": {"name": "order", "namespace": SHOP, "prefix": "s"},
        "properties": {
            "a": {"type": "integer", "xml": {"namespace": SHOP}},
            "b": {"type": "string", "xml": {"attribute": True, "namespace": SHOP}},
            "c": {"type": "string"},
        },
    }
    for text in (
        f'<order xmlns="{SHOP}" xmlns:z="{SHOP}" z:b="x"><a>1</a><c/></order>',
        f'<o:order xmlns:o="{SHOP}" o:b="x"><o:a>1</o:a><c/></o:order>',
    ):
        assert read(schema, text) == {"a": 1, "b": "x", "c": ""}
    for text, where, message in (
        ("<order/>", "", f"is an element 'order' outside the namespace {SHOP!r}"),
        (
            f'<o:order xmlns:o="{SHOP}"><a>1</a></o:order>',
            "a",
            f"must be an element in the namespace {SHOP!r}",
        ),
        (
            f'<o:order xmlns:o="{SHOP}" b="x"/>',
            "b",
            f"must be an attribute in the namespace {SHOP!r}",
        ),
    ):
        with pytest.raises(Malformed) as caught:
            read(schema, text)
        assert (caught.value.where, str(caught.value)) == (where, message)


def test_an_array_may_be_the_whole_document() -> None:
    schema = {"type": "array", "xml": {"name": "ids"}, "items": {"type": "integer"}}
    assert read(schema, "<ids><id>1</id><n>2</n></ids>") == [1, 2]
    assert read(schema, "<ids/>") == []


def test_parts_of_a_schema_are_taken_together() -> None:
    schema = {
        "allOf": [
            {"properties": {"a": {"type": "integer", "xml": {"attribute": True}}}},
            {"properties": {"b": {"type": "boolean"}}, "xml": {"name": "x"}},
        ],
        "xml": {"name": "y"},
    }
    assert read(schema, '<y a="1"><b>false</b></y>') == {"a": 1, "b": False}


def test_what_no_schema_describes_is_read_as_it_stands() -> None:
    assert read({}, "<a>x</a>") == "x"
    assert read({}, '<a n="1"><b/><b>2</b><c><d>3</d></c></a>') == {
        "n": "1",
        "b": ["", "2"],
        "c": {"d": "3"},
    }


LAUGHS = '<!DOCTYPE l [<!ENTITY a "lol"><!ENTITY b "&a;&a;">]><pet><name>&b;</name></pet>'
OUTSIDE = '<!DOCTYPE l SYSTEM "http://127.0.0.1:9/x.dtd"><pet/>'


@pytest.mark.parametrize(
    ("body", "charset", "problem"),
    [
        (b"", None, "not well-formed"),
        (b"<pet>", None, "not well-formed"),
        (b"<pet/><pet/>", None, "not well-formed"),
        (b"<a:pet/>", None, "not well-formed"),
        (b"<pet>&unknown;</pet>", None, "not well-formed"),
        (b"<pet>\xff</pet>", None, "not well-formed"),
        (b"<pet/>", "no-such-charset", "not well-formed"),
        (LAUGHS.encode(), None, "has a document type"),
        (OUTSIDE.encode(), None, "has a document type"),
        (b"<pet>" * 200, None, "more than 100 levels"),
        (b"<pet>" + b"<a/>" * 50_001 + b"</pet>", None, "more than 50000 elements"),
    ],
)
def test_dangerous_and_broken_documents_are_refused(
    body: bytes, charset: str | None, problem: str
) -> None:
    with pytest.raises(Malformed, match=problem):
        in_xml(PET, body, charset)


def test_the_charset_of_the_header_goes_first() -> None:
    body = "<pet><name>é</name></pet>".encode("latin-1")
    assert in_xml(PET, body, "iso-8859-1") == {"name": "é"}


def seconds(shape: XmlShape, body: bytes) -> float:
    began = time.process_time()
    with contextlib.suppress(Malformed):
        in_xml(shape, body, None)
    return time.process_time() - began


@pytest.mark.parametrize("members", [0, 300])
def test_many_elements_of_one_name_take_little_more_than_their_parsing(members: int) -> None:
    properties = {f"p{number}": {"type": "string"} for number in range(members)}
    shape = XmlShape({}, {"type": "object", "properties": properties})
    parsed = XmlShape({}, {"type": "string"})  # where elements are refused as soon as they are seen
    body = b"<r><x>" + b"<a/>" * 24_000 + b"</x>" + b"<y/>" * 24_000 + b"</r>"
    read_s, parsed_s = (min(seconds(one, body) for _ in range(3)) for one in (shape, parsed))
    assert read_s < 2 * parsed_s
