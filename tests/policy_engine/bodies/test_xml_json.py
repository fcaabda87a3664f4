import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as some

from policy_engine.bodies.xml_json import (
    DEPTH_MAX,
    ELEMENTS_MAX,
    NotConverted,
    _made_name,
    element_name,
    json_to_xml,
    singular,
    xml_to_json,
)

HEAD = '<?xml version="1.0" encoding="UTF-8"?>\n'


@pytest.mark.parametrize(
    ("xml", "value"),
    [
        ("<message>Hello World</message>", {"message": "Hello World"}),
        ('<book id="1"><t>Go</t></book>', {"book": {"@id": "1", "t": "Go"}}),
        ("<us><u><id>1</id></u><u><id>2</id></u></us>", {"us": {"u": [{"id": "1"}, {"id": "2"}]}}),
        ("<d><a></a><b/><c> </c></d>", {"d": {"a": None, "b": None, "c": None}}),
        ('<p unit="EUR">9.90</p>', {"p": {"@unit": "EUR", "#text": "9.90"}}),
        ("<root><id>007</id></root>", {"id": "007"}),
        ("<root/>", {"root": None}),
        ("<a><![CDATA[<b>&]]></a>", {"a": "<b>&"}),
        ("<s:E xmlns:s='u'><s:B>x</s:B></s:E>", {"s:E": {"@xmlns:s": "u", "s:B": "x"}}),
        ("<a>&lt;&#228;</a>", {"a": "<ä"}),
    ],
)
def test_xml_becomes_json(xml: str, value: object) -> None:
    assert orjson.loads(xml_to_json(xml.encode())) == value


def test_types_are_detected_when_asked_for_and_not_in_attributes() -> None:
    xml = b'<r id="1"><n>30</n><f>-1.5</f><t>true</t><z>007</z><l>12345678901234567890</l></r>'
    assert orjson.loads(xml_to_json(xml, detect_types=True)) == {
        "r": {
            "@id": "1",
            "n": 30,
            "f": -1.5,
            "t": True,
            "z": "007",
            "l": "12345678901234567890",
        }
    }


@pytest.mark.parametrize(
    ("value", "xml"),
    [
        (
            {"orderId": "1", "items": [{"q": 2}, {"q": 1}]},
            "<orderId>1</orderId><items><item><q>2</q></item><item><q>1</q></item></items>",
        ),
        ({"a": None, "b": True, "c": 1.5}, "<a/><b>true</b><c>1.5</c>"),
        ({"a": "<&>"}, "<a>&lt;&amp;&gt;</a>"),
        ({"a b": 1, "1x": 2}, "<a_b>1</a_b><_1x>2</_1x>"),
        ({"p": {"@unit": 'a"<', "#text": 9}}, "<p unit='a\"&lt;'>9</p>"),
        ({"a": {}}, "<a></a>"),
    ],
)
def test_json_becomes_xml(value: object, xml: str) -> None:
    assert json_to_xml(orjson.dumps(value)).decode() == f"{HEAD}<root>{xml}</root>"


def test_a_list_and_a_text_become_xml_too() -> None:
    assert json_to_xml(b"[1,2]").decode() == f"{HEAD}<root><item>1</item><item>2</item></root>"
    assert json_to_xml(b'"x"').decode() == f"{HEAD}<root>x</root>"


@pytest.mark.parametrize(
    ("many", "one"),
    [
        ("items", "item"),
        ("categories", "category"),
        ("boxes", "box"),
        ("addresses", "address"),
        ("status", "item"),
        ("data", "item"),
        ("Users", "User"),
    ],
)
def test_the_items_of_a_list_are_called_by_the_singular(many: str, one: str) -> None:
    assert singular(many) == one


LAUGHS = b"""<!DOCTYPE l [<!ENTITY a "lol"><!ENTITY b "&a;&a;&a;&a;">]><l>&b;</l>"""
EXTERNAL = b"""<!DOCTYPE l [<!ENTITY x SYSTEM "file:///etc/passwd">]><l>&x;</l>"""


@pytest.mark.parametrize(
    ("xml", "reason"),
    [
        (LAUGHS, "document types are not allowed"),
        (EXTERNAL, "document types are not allowed"),
        (b'<!DOCTYPE l SYSTEM "http://127.0.0.1/x.dtd"><l/>', "document types are not allowed"),
        (b"<a>&b;</a>", "not well-formed XML: undefined entity"),
        (b"<a>", "not well-formed XML: no element found"),
        (b"<a></b>", "not well-formed XML: mismatched tag"),
        (b"{}", "not well-formed XML"),
        (b"\xff\xfe\x00", "not well-formed XML"),
        (b"<a>" * (DEPTH_MAX + 1), f"more than {DEPTH_MAX} levels"),
        (b"<a>" + b"<b/>" * ELEMENTS_MAX + b"</a>", f"more than {ELEMENTS_MAX} elements"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_xml_that_is_wrong_or_dangerous_is_refused(xml: bytes, reason: str) -> None:
    with pytest.raises(NotConverted, match=reason):
        xml_to_json(xml)


@pytest.mark.parametrize(
    ("json", "reason"),
    [
        (b"{", "not valid JSON"),
        (b"\xff", "not valid JSON"),
        (b'{"a":"\\u0000"}', "control characters"),
        (b'{"a":"\\ud800"}', "control characters"),
        (b'{"a":NaN}', "not valid JSON"),
        (b'{"a":1,"a":2}', "not valid JSON: a member stands twice"),
        (b'{"@a b":1,"@a_b":2}', "two members of one object are the attribute 'a_b'"),
        (b"[" * 100_000, f"more than {DEPTH_MAX} levels"),
        (b"[" * 200 + b"]" * 200, f"more than {DEPTH_MAX} levels"),
        (b"[" + b"1," * ELEMENTS_MAX + b"1]", f"more than {ELEMENTS_MAX} elements"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_json_that_cannot_be_xml_is_refused(json: bytes, reason: str) -> None:
    with pytest.raises(NotConverted, match=reason):
        json_to_xml(json)


@pytest.mark.parametrize("number", ["12345678901234567890123", "1.10", "1E+400", "-0", "-0.0"])
def test_numbers_stay_as_they_are_written(number: str) -> None:
    assert json_to_xml(f'{{"a":{number}}}'.encode()).decode() == (
        f"{HEAD}<root><a>{number}</a></root>"
    )


def test_numbers_that_a_double_does_not_hold_stay_texts() -> None:
    xml = b"<r><n>123456789012.123456789</n><m>12345678.1234567</m></r>"
    assert orjson.loads(xml_to_json(xml, detect_types=True)) == {
        "r": {"n": "123456789012.123456789", "m": 12345678.1234567}
    }


def test_long_names_of_callers_are_not_remembered() -> None:
    _made_name.cache_clear()
    for number in range(3):
        assert element_name(f"{number} {'x' * 100_000}")[:3] == f"_{number}_"
    assert element_name("a b") == "a_b"
    assert _made_name.cache_info().currsize == 1


def test_an_unknown_encoding_is_refused() -> None:
    assert xml_to_json("<a>ä</a>".encode("latin-1"), encoding="iso-8859-1") == '{"a":"ä"}'.encode()
    with pytest.raises(NotConverted):
        xml_to_json(b"<a/>", encoding="nonsense")


_json = some.recursive(
    some.none() | some.booleans() | some.integers(-(2**53), 2**53) | some.text(max_size=20),
    lambda inner: (
        some.lists(inner, max_size=4) | some.dictionaries(some.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=20,
)


@given(_json)
def test_whatever_json_becomes_is_well_formed_or_refused(value: object) -> None:
    try:
        made = json_to_xml(orjson.dumps(value))
    except NotConverted as error:
        assert "control characters" in str(error)  # noqa: PT017 - both ways are right
        return
    xml_to_json(made)


@given(some.text(max_size=20))
def test_any_name_can_be_one_of_an_element(name: str) -> None:
    assert orjson.loads(xml_to_json(f"<a><{element_name(name)}/></a>".encode()))


@given(some.binary(max_size=200))
def test_any_bytes_are_converted_or_refused(data: bytes) -> None:
    for convert in (xml_to_json, json_to_xml):
        try:
            convert(data)
        except NotConverted:
            continue
